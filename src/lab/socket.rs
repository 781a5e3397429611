//! A [`Tracked`] socket notes every system call made on it and what it said: the evidence behind a result.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{SockaddrStorage, recvfrom};
use serde::Serialize;
use socket2::{Domain, SockAddr, Socket, Type};

use super::host::Host;
use super::isolation::errno_of;
use super::model::{Binding, Proto};
use super::topology::Side;

/// A system call and what it said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Call {
    /// Whose call it was.
    pub host: Side,
    /// The call, as strace would write it, with the socket's name in place of its number.
    pub call: String,
    /// `0`, the value that came back, or the errno's name.
    pub result: String,
}

/// A socket of a host of the lab, never blocking, with the calls made on it so far.
#[derive(Debug)]
pub struct Tracked {
    socket: Socket,
    name: String,
    side: Side,
    calls: Vec<Call>,
}

/// A boolean socket option, by the name it has in the manual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// `SO_REUSEADDR`.
    ReuseAddr,
    /// `SO_REUSEPORT`.
    ReusePort,
    /// `IPV6_V6ONLY`.
    V6Only,
    /// `IP_FREEBIND`, or `IPV6_FREEBIND`.
    Freebind,
}

impl Flag {
    /// The option's name in the manual.
    pub fn name(self) -> &'static str {
        match self {
            Flag::ReuseAddr => "SO_REUSEADDR",
            Flag::ReusePort => "SO_REUSEPORT",
            Flag::V6Only => "IPV6_V6ONLY",
            Flag::Freebind => "IP_FREEBIND",
        }
    }
}

/// An address with the device that a link-local one is meant on, on a certain host.
pub(crate) fn address(host: &Host, ip: IpAddr, port: u16, device: Option<&str>) -> io::Result<SocketAddr> {
    Ok(match ip {
        IpAddr::V4(ip) => SocketAddrV4::new(ip, port).into(),
        IpAddr::V6(ip) => {
            let scope = match device.filter(|_| ip.is_unicast_link_local()) {
                Some(device) => host.index_of(device)?,
                None => 0,
            };
            SocketAddrV6::new(ip, port, 0, scope).into()
        }
    })
}

impl Tracked {
    /// A socket on a host.
    ///
    /// # Errors
    /// What socket(2) says.
    pub fn open(host: &Host, side: Side, name: &str, proto: Proto, is_ipv4: bool) -> io::Result<Self> {
        let (domain, family) = if is_ipv4 { (Domain::IPV4, "AF_INET") } else { (Domain::IPV6, "AF_INET6") };
        let (kind, what) = match proto {
            Proto::Tcp => (Type::STREAM, "SOCK_STREAM"),
            Proto::Udp => (Type::DGRAM, "SOCK_DGRAM"),
        };
        let socket = host.run(move || Socket::new(domain, kind.nonblocking().cloexec(), None))?;
        let made = Call { host: side, call: format!("socket({family}, {what})"), result: name.to_owned() };
        Ok(Tracked { socket, name: name.to_owned(), side, calls: vec![made] })
    }

    /// A socket with the options of a binding, not yet bound.
    ///
    /// # Errors
    /// What socket(2) or setsockopt(2) says.
    pub fn prepare(host: &Host, side: Side, name: &str, binding: &Binding) -> io::Result<Self> {
        let mut socket = Tracked::open(host, side, name, binding.proto, binding.ip.is_ipv4())?;
        if binding.ip.is_ipv6() {
            socket.set(Flag::V6Only, binding.v6_only)?;
        }
        if binding.reuse_addr {
            socket.set(Flag::ReuseAddr, true)?;
        }
        if binding.reuse_port {
            socket.set(Flag::ReusePort, true)?;
        }
        if let Some(device) = binding.device.as_deref().filter(|_| !binding.is_link_local()) {
            socket.bind_to_device(device)?;
        }
        Ok(socket)
    }

    /// A connection that was accepted.
    pub(crate) fn accepted(socket: Socket, side: Side, name: &str) -> Self {
        Tracked { socket, name: name.to_owned(), side, calls: Vec::new() }
    }

    /// Its name in the evidence.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The socket itself, for calls that need no trace.
    pub fn inner(&self) -> &Socket {
        &self.socket
    }

    /// Turns an option on or off.
    ///
    /// # Errors
    /// What setsockopt(2) says.
    pub fn set(&mut self, flag: Flag, on: bool) -> io::Result<()> {
        let is_ipv4 = self.socket.domain()? == Domain::IPV4;
        let result = match flag {
            Flag::ReuseAddr => self.socket.set_reuse_address(on),
            Flag::ReusePort => self.socket.set_reuse_port(on),
            Flag::V6Only => self.socket.set_only_v6(on),
            Flag::Freebind if is_ipv4 => self.socket.set_freebind_v4(on),
            Flag::Freebind => self.socket.set_freebind_v6(on),
        };
        self.note(format!("setsockopt({}, {}, {})", self.name, flag.name(), u8::from(on)), &result);
        result
    }

    /// `SO_BINDTODEVICE`.
    ///
    /// # Errors
    /// What setsockopt(2) says.
    pub fn bind_to_device(&mut self, device: &str) -> io::Result<()> {
        let result = self.socket.bind_device(Some(device.as_bytes()));
        self.note(format!("setsockopt({}, SO_BINDTODEVICE, \"{device}\")", self.name), &result);
        result
    }

    /// bind(2).
    ///
    /// # Errors
    /// What bind(2) says.
    pub fn bind(&mut self, to: SocketAddr) -> io::Result<()> {
        let result = self.socket.bind(&to.into());
        self.note(format!("bind({}, {to})", self.name), &result);
        result
    }

    /// bind(2), called on the host's thread under the conditions that `under` makes there.
    pub(crate) fn bind_on(
        &mut self,
        host: &Host,
        to: SocketAddr,
        under: fn(&mut dyn FnMut() -> io::Result<()>) -> io::Result<()>,
    ) -> io::Result<()> {
        let socket = self.socket.try_clone()?;
        let result = host.run(move || under(&mut || socket.bind(&to.into())));
        self.note(format!("bind({}, {to}), unprivileged", self.name), &result);
        result
    }

    /// listen(2).
    ///
    /// # Errors
    /// What listen(2) says.
    pub fn listen(&mut self, backlog: u32) -> io::Result<()> {
        let result = self.socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX));
        self.note(format!("listen({}, {backlog})", self.name), &result);
        result
    }

    /// connect(2), which for TCP usually says that it is under way: `Ok(false)`.
    ///
    /// # Errors
    /// What connect(2) says.
    pub fn connect(&mut self, to: SocketAddr) -> io::Result<bool> {
        let result = self.socket.connect(&to.into());
        self.note(format!("connect({}, {to})", self.name), &result);
        match result {
            Ok(()) => Ok(true),
            Err(error) if errno_of(&error) == nix::errno::Errno::EINPROGRESS => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// How a connect that was under way ended (`SO_ERROR`).
    ///
    /// # Errors
    /// The error of the connect.
    pub fn connected(&mut self) -> io::Result<()> {
        let result = self.socket.take_error().and_then(|error| error.map_or(Ok(()), Err));
        self.note(format!("getsockopt({}, SO_ERROR)", self.name), &result);
        result
    }

    /// accept(2): the connection and who it is from.
    ///
    /// # Errors
    /// What accept(2) says.
    pub fn accept(&mut self) -> io::Result<(Socket, SocketAddr)> {
        let result = self.socket.accept().and_then(|(socket, peer)| {
            socket.set_nonblocking(true)?;
            Ok((socket, peer.as_socket().ok_or(io::ErrorKind::InvalidData)?))
        });
        let said = result.as_ref().map_or_else(said, |(_, peer)| format!("from {}", canonical(*peer)));
        self.note_as(format!("accept({})", self.name), said);
        result
    }

    /// send(2) on a connected socket.
    ///
    /// # Errors
    /// What send(2) says.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let result = (&self.socket).write(bytes).map(drop);
        self.note(format!("send({}, {} bytes)", self.name, bytes.len()), &result);
        result
    }

    /// recv(2).
    ///
    /// # Errors
    /// What recv(2) says; "would block" is not noted.
    pub fn receive(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let result = (&self.socket).read(into);
        self.note_received(format!("recv({})", self.name), result.as_ref().map(|count| format!("{count} bytes")));
        result
    }

    /// recvfrom(2).
    ///
    /// # Errors
    /// What recvfrom(2) says; "would block" is not noted.
    pub fn receive_from(&mut self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let result = recvfrom::<SockaddrStorage>(self.socket.as_raw_fd(), into)
            .map_err(io::Error::from)
            .and_then(|(count, from)| Ok((count, from.as_ref().and_then(plain).ok_or(io::ErrorKind::InvalidData)?)));
        self.note_received(
            format!("recvfrom({})", self.name),
            result.as_ref().map(|(count, from)| format!("{count} bytes from {}", canonical(*from))),
        );
        result
    }

    /// sendto(2).
    ///
    /// # Errors
    /// What sendto(2) says.
    pub fn send_to(&mut self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        let result = self.socket.send_to(bytes, &SockAddr::from(to)).map(drop);
        self.note(format!("sendto({}, {} bytes, {})", self.name, bytes.len(), canonical(to)), &result);
        result
    }

    /// An address as this socket takes it: an IPv6 one speaks to IPv4 by IPv4-mapped addresses alone.
    pub(crate) fn in_its_family(&self, to: SocketAddr) -> SocketAddr {
        match to {
            SocketAddr::V4(v4) if self.socket.domain().is_ok_and(|domain| domain == Domain::IPV6) => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            to => to,
        }
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// What getsockname(2) says.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidData.into())
    }

    /// The calls so far.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// Notes a call that was made on the socket by other means.
    pub fn note<T>(&mut self, call: String, result: &io::Result<T>) {
        let said = result.as_ref().map_or_else(said, |_| "0".to_owned());
        self.note_as(call, said);
    }

    fn note_received(&mut self, call: String, result: Result<String, &io::Error>) {
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => self.note_as(call, result.unwrap_or_else(said)),
        }
    }

    fn note_as(&mut self, call: String, result: String) {
        self.calls.push(Call { host: self.side, call, result });
    }
}

impl AsFd for Tracked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// An IPv4 peer of an IPv6 socket as the IPv4 address that it is.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

/// An address as the standard library has it.
pub(crate) fn plain(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::from(SocketAddrV4::from(*v4)));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6).into()))
}

fn said(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("{:?}", nix::errno::Errno::from_raw(number)),
        None => error.to_string(),
    }
}
