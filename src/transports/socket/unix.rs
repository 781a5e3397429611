//! What the transports over Unix sockets share: their options, their addresses, and the process at the other end.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::io::Errno;
use serde::Deserialize;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::bind::Buffer;
use super::file::{self, SocketFile};
use super::inherited::{Wanted, adopt};
use super::{FailedStep, SocketAcceptor, doc, is, listen, names};
use crate::address::Address;
use crate::endpoint::{Authority, Endpoint};
use crate::link::Link;
use crate::options::{OptionDoc, OptionError, Size};
use crate::transport::{BindError, ConnectError, Dialled, Listener};

/// The mode of a socket's file where none is asked for: its owner alone may call.
pub const DEFAULT_MODE: u32 = 0o600;

/// How long a call waits for a place in a full backlog, and in which steps: a Unix socket that does not block is
/// refused a place at once, and is not told when there is one.
const BACKLOG_PATIENCE: Duration = Duration::from_secs(10);
const BACKLOG_INTERVAL: Duration = Duration::from_millis(10);

/// The options of transports over connected Unix sockets.
pub const UNIX_OPTIONS: &[OptionDoc] = &[super::BACKLOG, MODE, super::SEND_BUFFER];

/// The options of transports over Unix datagram sockets.
pub const UNIX_DATAGRAM_OPTIONS: &[OptionDoc] = &[MODE, super::SEND_BUFFER];

const MODE: OptionDoc = doc("mode", "OCTAL", "0600", "who may call: the permissions of the socket's file");

/// The socket options of an endpoint that is a path or an abstract name. A transport lists in its table those that it
/// has ([`UNIX_OPTIONS`], [`UNIX_DATAGRAM_OPTIONS`]).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct UnixOptions {
    /// How many connections may wait to be accepted; see listen(2).
    pub backlog: Option<u32>,
    /// The mode of the socket's file.
    pub mode: Option<Mode>,
    /// `SO_SNDBUF`, in bytes of payload: it limits the size of a message (unix(7)).
    pub send_buffer: Option<Size>,
}

/// Permissions, written in octal as chmod(1) takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Mode(pub u32);

impl FromStr for Mode {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o777 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Mode(mode)),
            _ => Err(OptionError::Invalid(format!(
                "the option `mode` takes permissions in octal, such as 0660, not `{text}`"
            ))),
        }
    }
}

impl TryFrom<String> for Mode {
    type Error = OptionError;

    fn try_from(text: String) -> Result<Self, OptionError> {
        text.parse()
    }
}

/// How a connected socket becomes a link; see [`links`](super::links).
pub type MakeLink = fn(OwnedFd) -> io::Result<Link>;

/// A Unix socket that has its address, and listens if its type does; it does not block.
#[derive(Debug)]
pub struct BoundUnix {
    /// Its file, to be dropped before the socket is; none for an abstract name or an inherited socket.
    pub file: Option<SocketFile>,
    /// The socket.
    pub socket: Socket,
}

impl UnixOptions {
    /// Binds the endpoint's path or name, or adopts the inherited socket that it names. `kind` is `Type::STREAM`,
    /// `Type::SEQPACKET` or `Type::DGRAM`.
    pub async fn bind(&self, at: &Endpoint, kind: Type) -> Result<BoundUnix, BindError> {
        self.bound(at, kind).await.map_err(|step| step.on_bind(at))
    }

    async fn bound(&self, at: &Endpoint, kind: Type) -> Result<BoundUnix, FailedStep> {
        match &at.authority {
            Authority::Fd(name) => {
                let given = [("backlog", self.backlog.is_some()), ("mode", self.mode.is_some())];
                super::refuse_for_inherited(&given)?;
                Ok(BoundUnix { file: None, socket: adopt(name, Wanted::unix(kind), at.transport())? })
            }
            Authority::Abstract(name) if self.mode.is_some() => Err(FailedStep::unsuitable(format!(
                "`mode` is for paths: @{name} is no file, and everybody in this network namespace may call it"
            ))),
            Authority::Abstract(name) => {
                let socket = self.socket(kind)?;
                let address = abstract_address(name)?;
                socket.bind(&address).map_err(|error| FailedStep::new(format!("bind(@{name})"), error))?;
                self.listen(&socket, kind)?;
                Ok(BoundUnix { file: None, socket })
            }
            Authority::Path(path) => {
                let socket = self.socket(kind)?;
                let mode = self.mode.map_or(DEFAULT_MODE, |mode| mode.0);
                let file = SocketFile::create(path, &socket, mode, || self.listen(&socket, kind)).await?;
                Ok(BoundUnix { file: Some(file), socket })
            }
            _ => Err(unsuitable(at)),
        }
    }

    /// Calls the endpoint's path or name.
    pub async fn connect(&self, to: &Endpoint, kind: Type) -> Result<Socket, ConnectError> {
        self.connected(to, kind).await.map_err(|step| step.on_connect(to))
    }

    async fn connected(&self, to: &Endpoint, kind: Type) -> Result<Socket, FailedStep> {
        let address = match &to.authority {
            Authority::Path(path) => file::address(path)?,
            Authority::Abstract(name) => abstract_address(name)?,
            Authority::Fd(_) => return Err(FailedStep::unsuitable("an inherited socket is there to be listened on")),
            _ => return Err(unsuitable(to)),
        };
        let socket = self.socket(kind)?;
        let deadline = tokio::time::Instant::now() + BACKLOG_PATIENCE;
        loop {
            let error = match socket.connect(&address) {
                Ok(()) => return Ok(socket),
                Err(error) if !is(&error, Errno::AGAIN) => error,
                Err(_) if tokio::time::Instant::now() >= deadline => {
                    io::Error::new(io::ErrorKind::TimedOut, "its backlog is full")
                }
                Err(_) => {
                    tokio::time::sleep(BACKLOG_INTERVAL).await;
                    continue;
                }
            };
            return Err(FailedStep::new(format!("connect({})", to.authority), error));
        }
    }

    /// The listener of a transport whose connected sockets become links in this way.
    pub async fn accept(&self, at: &Endpoint, kind: Type, link: MakeLink) -> Result<Listener, BindError> {
        let BoundUnix { file, socket } = self.bind(at, kind).await?;
        let local = names::local(&socket).map_err(|error| BindError::new(at, "getsockname", error))?;
        let local = Arc::new(local);
        let send_buffer = self.send_buffer;
        let open = move |socket: OwnedFd, remote| {
            if let Some(size) = send_buffer {
                // Not inherited from the one that listens: it was made when its peer called.
                Buffer::Send.resize(&SockRef::from(&socket), size.bytes()).map_err(|step| step.source)?;
            }
            conversation(socket, link, local.clone(), remote)
        };
        let acceptor = SocketAcceptor::new(socket, open).map_err(|step| step.on_bind(at))?;
        Ok(Listener::Connections(Box::new(acceptor.with_file(file))))
    }

    /// The call of such a transport.
    pub async fn call(&self, to: &Endpoint, kind: Type, link: MakeLink) -> Result<Dialled, ConnectError> {
        let socket = self.connect(to, kind).await?;
        conversation(socket.into(), link, Address::Unnamed, named(&to.authority))
            .map_err(|error| ConnectError::new(to, "getsockopt(SO_PEERCRED)", error))
    }

    fn socket(&self, kind: Type) -> Result<Socket, FailedStep> {
        let socket = Socket::new(Domain::UNIX, kind.nonblocking(), None)
            .map_err(|error| FailedStep::new("socket(AF_UNIX)", error))?;
        if let Some(size) = self.send_buffer {
            Buffer::Send.resize(&socket, size.bytes())?;
        }
        Ok(socket)
    }

    fn listen(&self, socket: &Socket, kind: Type) -> Result<(), FailedStep> {
        if kind == Type::DGRAM { Ok(()) } else { listen(socket, self.backlog) }
    }
}

/// A connected socket as a conversation with a process that is known.
pub fn conversation(
    socket: OwnedFd,
    link: MakeLink,
    local: impl Into<Arc<Address>>,
    remote: Address,
) -> io::Result<Dialled> {
    let facts = peer_facts(&socket)?;
    Ok(Dialled { facts, ..Dialled::new(link(socket)?, local, remote) })
}

/// Who opened the other end of a connected socket, as it was when it connected or listened (`SO_PEERCRED`; unix(7)):
/// facts for its session.
fn peer_facts(socket: impl AsFd) -> io::Result<Vec<(&'static str, String)>> {
    let peer = getsockopt(&socket, PeerCredentials)?;
    Ok(vec![
        ("unix.pid", peer.pid().to_string()),
        ("unix.uid", peer.uid().to_string()),
        ("unix.gid", peer.gid().to_string()),
    ])
}

/// The address that an endpoint calls by, where it is a path or a name.
fn named(authority: &Authority) -> Address {
    match authority {
        Authority::Path(path) => Address::UnixPath(Arc::from(path.as_path())),
        Authority::Abstract(name) => Address::UnixAbstract(Arc::from(name.as_bytes())),
        _ => Address::Unnamed,
    }
}

/// Linux's abstract namespace: a name after a leading NUL.
fn abstract_address(name: &str) -> Result<SockAddr, FailedStep> {
    let bytes = [&[0], name.as_bytes()].concat();
    SockAddr::unix(Path::new(OsStr::from_bytes(&bytes))).map_err(|_| {
        let length = name.len();
        FailedStep::unsuitable(format!("the name is {length} bytes long, and an abstract one has room for 107"))
    })
}

fn unsuitable(endpoint: &Endpoint) -> FailedStep {
    let transport = endpoint.transport();
    FailedStep::unsuitable(format!("`{transport}` needs a path or @name, such as {transport}:///run/x.sock"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::verdict::Verdict;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixListener;

    fn read(query: &str) -> Result<UnixOptions, String> {
        Options::parse(query).and_then(|options| options.read()).map_err(|error| error.to_string())
    }

    async fn bind(endpoint: &str) -> Result<BoundUnix, BindError> {
        let mut endpoint: Endpoint = endpoint.parse().unwrap();
        let options: UnixOptions = std::mem::take(&mut endpoint.options).read().unwrap();
        options.bind(&endpoint, Type::STREAM).await
    }

    async fn connect(endpoint: &str) -> Result<Socket, ConnectError> {
        UnixOptions::default().connect(&endpoint.parse().unwrap(), Type::STREAM).await
    }

    /// A name that no other test and no other process has.
    fn unique(name: &str) -> String {
        format!("greetd-test-{}-{name}", std::process::id())
    }

    #[test]
    fn a_mode_is_octal() {
        for (text, mode) in [("0660", 0o660), ("660", 0o660), ("0", 0)] {
            assert_eq!(read(&format!("mode={text}")).unwrap().mode, Some(Mode(mode)));
        }
        for text in ["rw", "0888", "+660", "1777", "yes"] {
            assert_eq!(
                read(&format!("mode={text}")).unwrap_err(),
                format!("the option `mode` takes permissions in octal, such as 0660, not `{text}`")
            );
        }
    }

    #[tokio::test]
    async fn an_abstract_name_is_bound_called_and_taken_once() {
        let endpoint = format!("unix://@{}", unique("abstract"));
        let bound = bind(&endpoint).await.unwrap();
        connect(&endpoint).await.unwrap();
        let error = bind(&endpoint).await.unwrap_err();
        assert_eq!(Verdict::of_bind(&error.source), Verdict::InUse);
        drop(bound);
        let error = connect(&endpoint).await.unwrap_err();
        assert_eq!(Verdict::of_connect(error.decisive().unwrap()), Verdict::Refused);
    }

    #[tokio::test]
    async fn what_is_no_path_and_no_name_is_refused_in_words() {
        for endpoint in ["unix://127.0.0.1:80", "unix://80", "unix://localhost:80", "unix://room", "unix://"] {
            let reason = "address: `unix` needs a path or @name, such as unix:///run/x.sock";
            let brief = endpoint.parse::<Endpoint>().unwrap();
            let error = bind(endpoint).await.unwrap_err();
            assert_eq!(error.to_string(), format!("failed to bind {brief}: {reason}"));
            assert_eq!(Verdict::of_bind(&error.source), Verdict::Usage);
            let error = connect(endpoint).await.unwrap_err();
            assert_eq!(error.to_string(), format!("failed to connect to {brief}: {reason}"));
        }
    }

    #[tokio::test]
    async fn a_mode_is_refused_where_there_is_no_file() {
        let error = bind("unix://@x?mode=0660").await.unwrap_err();
        assert!(error.to_string().contains("`mode` is for paths: @x is no file"), "{error}");
    }

    #[tokio::test]
    async fn an_inherited_socket_is_adopted_and_its_file_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let inherited = UnixListener::bind(&path).unwrap();
        let endpoint = format!("unix://fd:{}", inherited.as_raw_fd());
        drop(bind(&endpoint).await.unwrap());
        assert!(path.exists());
        let error = bind(&format!("{endpoint}?mode=0660")).await.unwrap_err();
        assert!(error.to_string().contains("`mode` cannot be given for an inherited socket"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_for_a_place_in_a_full_backlog() {
        let endpoint = format!("unix://@{}", unique("backlog"));
        let bound = bind(&format!("{endpoint}?backlog=0")).await.unwrap();
        let _first = connect(&endpoint).await.unwrap();
        let error = connect(&endpoint).await.unwrap_err();
        assert!(error.to_string().ends_with("its backlog is full"), "{error}");
        assert_eq!(Verdict::of_connect(error.decisive().unwrap()), Verdict::Timeout);

        let second = tokio::spawn(async move { connect(&endpoint).await });
        tokio::time::sleep(BACKLOG_INTERVAL * 3).await;
        bound.socket.accept().unwrap();
        second.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_peer_is_known_by_its_process() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let facts = peer_facts(&ours).unwrap();
        assert_eq!(facts[0], ("unix.pid", std::process::id().to_string()));
        assert_eq!(facts[1], ("unix.uid", nix::unistd::getuid().to_string()));
        assert_eq!(facts[2], ("unix.gid", nix::unistd::getgid().to_string()));
    }
}
