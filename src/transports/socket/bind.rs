//! Sockets with every option set before they are bound or connected.

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;
use rustix::net::sockopt;
use socket2::{Domain, Socket, Type};

use super::inherited::{Wanted, adopt};
use super::resolve::Family;
use super::{FailedStep, SocketOptions, V6Only, is};
use crate::endpoint::{Authority, Endpoint};
use crate::transport::BindError;

/// A socket that has its address; it does not block. One of a connected type is yet to be told to listen, unless it
/// was inherited.
#[derive(Debug)]
pub struct Bound {
    /// The socket.
    pub socket: Socket,
    /// Whether this process inherited it: then its options are another's affair, and it listens already.
    pub inherited: bool,
}

impl SocketOptions {
    /// Binds the endpoint's address, or adopts the inherited socket that it names. `kind` is `Type::STREAM` or
    /// `Type::DGRAM`.
    ///
    /// A name, or a bare port, may stand for several addresses: the first is bound whose family this machine has.
    pub async fn bind(&self, at: &Endpoint, kind: Type) -> Result<Bound, BindError> {
        let bound = match &at.authority {
            Authority::Fd(name) => self.adopt(name, kind, at.transport()),
            _ => self.candidates(at).await.and_then(|candidates| self.bind_one_of(&candidates, kind)),
        };
        bound.map_err(|step| step.on_bind(at))
    }

    /// A socket to call that address with; it does not block.
    pub fn unconnected(&self, remote: SocketAddr, kind: Type) -> Result<Socket, FailedStep> {
        let socket = new_socket(remote, kind)?;
        self.set_device_and_buffers(&socket)?;
        Ok(socket)
    }

    fn adopt(&self, name: &str, kind: Type, transport: &str) -> Result<Bound, FailedStep> {
        super::refuse_for_inherited(&[
            ("backlog", self.backlog.is_some()),
            ("device", self.device.is_some()),
            ("freebind", self.freebind),
            ("ipv4", self.ipv4),
            ("ipv6", self.ipv6),
            ("recv-buffer", self.recv_buffer.is_some()),
            ("reuse-addr", self.reuse_addr.is_some()),
            ("reuse-port", self.reuse_port),
            ("send-buffer", self.send_buffer.is_some()),
            ("v6-only", self.v6_only.is_some()),
        ])?;
        Ok(Bound { socket: adopt(name, Wanted::ip(kind), transport)?, inherited: true })
    }

    fn bind_one_of(&self, candidates: &[SocketAddr], kind: Type) -> Result<Bound, FailedStep> {
        let Some((last, preferred)) = candidates.split_last() else {
            return Err(FailedStep::unsuitable("it stands for no address"));
        };
        for address in preferred {
            match self.bind_to(*address, kind) {
                Err(step) if is_absent(&step.source) => {
                    tracing::warn!("{}: {}; trying the next address", step.call, step.source);
                }
                outcome => return outcome,
            }
        }
        self.bind_to(*last, kind)
    }

    fn bind_to(&self, address: SocketAddr, kind: Type) -> Result<Bound, FailedStep> {
        let socket = new_socket(address, kind)?;
        let is_stream = kind == Type::STREAM;
        set("SO_REUSEADDR", socket.set_reuse_address(self.reuse_addr.unwrap_or(is_stream)))?;
        if self.reuse_port {
            set("SO_REUSEPORT", socket.set_reuse_port(true))?;
        }
        if let (true, Some(only)) = (address.is_ipv6(), self.only_v6()) {
            set("IPV6_V6ONLY", socket.set_only_v6(only))?;
        }
        if self.freebind && address.is_ipv6() {
            set("IPV6_FREEBIND", socket.set_freebind_v6(true))?;
        } else if self.freebind {
            set("IP_FREEBIND", socket.set_freebind_v4(true))?;
        }
        self.set_device_and_buffers(&socket)?;
        socket.bind(&address.into()).map_err(|error| FailedStep::new(format!("bind({address})"), error))?;
        Ok(Bound { socket, inherited: false })
    }

    /// What `IPV6_V6ONLY` is set to: always something, because a sysctl flips the default, unless that is asked for.
    fn only_v6(&self) -> Option<bool> {
        match self.v6_only {
            Some(V6Only::System) => None,
            Some(V6Only::Yes) => Some(true),
            Some(V6Only::No) => Some(false),
            None => Some(self.family() == Some(Family::V6)),
        }
    }

    /// The buffers must have their size before the handshake: it fixes the window's scale (tcp(7)).
    fn set_device_and_buffers(&self, socket: &Socket) -> Result<(), FailedStep> {
        if let Some(device) = &self.device {
            set(&format!("SO_BINDTODEVICE, {device}"), socket.bind_device(Some(device.as_bytes())))?;
        }
        if let Some(size) = self.recv_buffer {
            Buffer::Receive.resize(socket, size.bytes())?;
        }
        if let Some(size) = self.send_buffer {
            Buffer::Send.resize(socket, size.bytes())?;
        }
        Ok(())
    }
}

/// One of a socket's two buffers.
#[derive(Debug, Clone, Copy)]
pub enum Buffer {
    /// What came and is not yet read.
    Receive,
    /// What was sent and is not yet acknowledged.
    Send,
}

impl Buffer {
    /// Asks for so many bytes; with the right to (`CAP_NET_ADMIN`) also past the sysctl's limit. Getting less is no
    /// failure, and is said.
    pub fn resize(self, socket: &Socket, asked: usize) -> Result<(), FailedStep> {
        // The kernel takes a C int, and doubles it for its own bookkeeping (socket(7)).
        let asked = asked.min(i32::MAX as usize / 2);
        let result = match self {
            Buffer::Receive => socket.set_recv_buffer_size(asked),
            Buffer::Send => socket.set_send_buffer_size(asked),
        };
        set(self.option(), result)?;
        if self.size(socket)? < asked {
            let forced = match self {
                Buffer::Receive => sockopt::set_socket_recv_buffer_size_force(socket, asked),
                Buffer::Send => sockopt::set_socket_send_buffer_size_force(socket, asked),
            };
            if forced.is_err() {
                let given = self.size(socket)?;
                tracing::warn!(asked, given, "the kernel limits {}; raise {}", self.option(), self.sysctl());
            }
        }
        Ok(())
    }

    fn size(self, socket: &Socket) -> Result<usize, FailedStep> {
        let doubled = match self {
            Buffer::Receive => socket.recv_buffer_size(),
            Buffer::Send => socket.send_buffer_size(),
        };
        let failed = |error| FailedStep::new(format!("getsockopt({})", self.option()), error);
        doubled.map(|doubled| doubled / 2).map_err(failed)
    }

    fn option(self) -> &'static str {
        match self {
            Buffer::Receive => "SO_RCVBUF",
            Buffer::Send => "SO_SNDBUF",
        }
    }

    fn sysctl(self) -> &'static str {
        match self {
            Buffer::Receive => "net.core.rmem_max",
            Buffer::Send => "net.core.wmem_max",
        }
    }
}

fn new_socket(address: SocketAddr, kind: Type) -> Result<Socket, FailedStep> {
    let family = if address.is_ipv6() { "AF_INET6" } else { "AF_INET" };
    Socket::new(Domain::for_address(address), kind.nonblocking(), None)
        .map_err(|error| FailedStep::new(format!("socket({family})"), error))
}

fn set(option: &str, result: io::Result<()>) -> Result<(), FailedStep> {
    result.map_err(|error| FailedStep::new(format!("setsockopt({option})"), error))
}

/// Whether this machine lacks the address or its whole family, rather than the right or the room to use it.
fn is_absent(error: &io::Error) -> bool {
    is(error, Errno::ADDRNOTAVAIL) || is(error, Errno::AFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Options, Size};
    use std::os::fd::AsRawFd;

    async fn bind(endpoint: &str, kind: Type) -> Result<Socket, String> {
        let mut endpoint: Endpoint = endpoint.parse().unwrap();
        let options: SocketOptions = std::mem::take::<Options>(&mut endpoint.options).read().unwrap();
        options.bind(&endpoint, kind).await.map(|bound| bound.socket).map_err(|error| error.to_string())
    }

    fn address(socket: &Socket) -> SocketAddr {
        socket.local_addr().unwrap().as_socket().unwrap()
    }

    #[tokio::test]
    async fn a_bare_port_is_dual_stack_unless_told_otherwise() {
        for (endpoint, ip, only_v6) in [
            ("tcp://0", "::", Some(false)),
            ("tcp://0?v6-only=yes", "::", Some(true)),
            ("tcp://0?ipv6", "::", Some(true)),
            ("tcp://0?ipv6&v6-only=no", "::", Some(false)),
            ("tcp://[::]:0", "::", Some(false)),
            ("tcp://0?ipv4", "0.0.0.0", None),
        ] {
            let socket = bind(endpoint, Type::STREAM).await.unwrap();
            assert_eq!(address(&socket).ip().to_string(), ip, "{endpoint}");
            if let Some(only_v6) = only_v6 {
                assert_eq!(socket.only_v6().unwrap(), only_v6, "{endpoint}");
            }
        }
    }

    #[tokio::test]
    async fn the_sysctl_decides_where_it_is_asked_to() {
        let sysctl = std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only").unwrap();
        let socket = bind("tcp://[::]:0?v6-only=system", Type::STREAM).await.unwrap();
        assert_eq!(socket.only_v6().unwrap(), sysctl.trim() == "1");
    }

    #[tokio::test]
    async fn reuse_addr_is_on_for_streams_and_off_for_datagrams() {
        for (kind, standard) in [(Type::STREAM, true), (Type::DGRAM, false)] {
            let reuses = async |endpoint| bind(endpoint, kind).await.unwrap().reuse_address().unwrap();
            assert_eq!(reuses("x://127.0.0.1:0").await, standard);
            assert!(reuses("x://127.0.0.1:0?reuse-addr").await);
            assert!(!reuses("x://127.0.0.1:0?reuse-addr=no").await);
        }
    }

    #[tokio::test]
    async fn every_option_reaches_the_socket() {
        let socket =
            bind("tcp://127.0.0.1:0?reuse-port&device=lo&freebind&recv-buffer=64KiB&send-buffer=32KiB", Type::STREAM)
                .await
                .unwrap();
        assert!(socket.reuse_port().unwrap());
        assert_eq!(socket.device().unwrap().unwrap(), b"lo");
        assert!(socket.freebind_v4().unwrap());
        assert_eq!(Buffer::Receive.size(&socket).unwrap(), 64 << 10);
        assert_eq!(Buffer::Send.size(&socket).unwrap(), 32 << 10);
        assert!(socket.nonblocking().unwrap());
        assert!(rustix::io::fcntl_getfd(&socket).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[tokio::test]
    async fn an_address_that_this_machine_does_not_have_yet_is_bound_with_freebind() {
        for ip in ["192.0.2.1", "[2001:db8::1]"] {
            let error = bind(&format!("tcp://{ip}:0"), Type::STREAM).await.unwrap_err();
            assert!(error.starts_with(&format!("failed to bind tcp://{ip}:0: bind({ip}:0): Cannot assign")), "{error}");
            assert!(bind(&format!("tcp://{ip}:0?freebind"), Type::STREAM).await.is_ok());
        }
    }

    #[test]
    fn an_address_that_this_machine_lacks_is_passed_over_and_one_that_is_taken_is_not() {
        let options = SocketOptions::default();
        let [lacking, here]: [SocketAddr; 2] = ["192.0.2.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()];
        let bound = options.bind_one_of(&[lacking, here], Type::DGRAM).unwrap().socket;
        assert_eq!(address(&bound).ip(), here.ip());
        let step = options.bind_one_of(&[address(&bound), here], Type::DGRAM).unwrap_err();
        assert_eq!(step.source.kind(), io::ErrorKind::AddrInUse);
        let step = options.bind_one_of(&[lacking, lacking], Type::DGRAM).unwrap_err();
        assert_eq!(step.source.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[tokio::test]
    async fn the_call_that_failed_is_named() {
        let error = bind("tcp://127.0.0.1:0?device=nope0", Type::STREAM).await.unwrap_err();
        assert!(error.contains("setsockopt(SO_BINDTODEVICE, nope0): No such device"), "{error}");
    }

    #[tokio::test]
    async fn an_ipv4_address_is_refused_where_only_ipv6_is_wanted() {
        for option in ["v6-only", "ipv6"] {
            let error = bind(&format!("tcp://127.0.0.1:0?{option}"), Type::STREAM).await.unwrap_err();
            assert!(error.ends_with("127.0.0.1 is no IPv6 address, and only those are wanted"), "{error}");
        }
    }

    #[tokio::test]
    async fn the_options_of_an_inherited_socket_are_not_ours_to_set() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let fd = listener.as_raw_fd();
        let socket = bind(&format!("tcp://fd:{fd}"), Type::STREAM).await.unwrap();
        assert_eq!(address(&socket), listener.local_addr().unwrap());
        let error = bind(&format!("tcp://fd:{fd}?reuse-port"), Type::STREAM).await.unwrap_err();
        assert_eq!(
            error,
            format!(
                "failed to bind tcp://fd:{fd}: address: `reuse-port` cannot be given for an inherited socket: whoever \
                 opened it set its options"
            )
        );
    }

    #[test]
    fn a_buffer_larger_than_the_kernel_can_count_is_no_failure() {
        let socket = new_socket("127.0.0.1:0".parse().unwrap(), Type::DGRAM).unwrap();
        Buffer::Send.resize(&socket, Size(usize::MAX).bytes()).unwrap();
    }
}
