//! Sockets that this process inherited: `fd:3` by number, `fd:web` by the name that systemd gave it.
//!
//! Names come from `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES`; see `sd_listen_fds(3)`. Whoever opened the socket
//! decided its options: none is set here. `O_NONBLOCK` is: without it another process that shares the socket could take
//! the connection that this one was woken for, and leave its thread blocked.

use std::env;
use std::fmt;
use std::io;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use socket2::{Domain, SockRef, Socket, Type};

use super::FailedStep;
use crate::escape::Escaped;

/// The descriptor of the first socket that is passed: `SD_LISTEN_FDS_START`.
const FIRST: i32 = 3;

/// What an inherited socket must be. Sockets of connected types must also be listening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    families: &'static [Domain],
    kind: Type,
}

impl Wanted {
    /// An IPv4 or IPv6 socket of that type.
    pub const fn ip(kind: Type) -> Self {
        Wanted { families: &[Domain::IPV4, Domain::IPV6], kind }
    }

    /// A Unix socket of that type.
    pub const fn unix(kind: Type) -> Self {
        Wanted { families: &[Domain::UNIX], kind }
    }
}

/// Takes the inherited socket of that number or name for a transport. What is returned is a duplicate: the inherited
/// descriptor stays open, so that the socket can be taken again when its listener is bound anew.
pub fn adopt(name: &str, wanted: Wanted, transport: &str) -> Result<Socket, FailedStep> {
    let number = match name.parse() {
        Ok(number) => number,
        Err(_) => Passed::to_this_process().find(name)?,
    };
    let socket = duplicate(number)?;
    let nature =
        Nature::of(&socket).map_err(|step| match step.source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOTSOCK) => FailedStep::unsuitable(format!("fd:{number} is not a socket")),
            _ => step,
        })?;
    if !nature.is(wanted) {
        return Err(FailedStep::unsuitable(format!("fd:{number} is {nature}; `{transport}` needs {wanted}")));
    }
    socket.set_nonblocking(true).map_err(|error| FailedStep::new("fcntl(O_NONBLOCK)", error))?;
    Ok(socket)
}

/// A duplicate of a descriptor that is known by its number alone: the kernel, asked through a handle to this very
/// process, says whether it is open.
fn duplicate(number: i32) -> Result<Socket, FailedStep> {
    let this = pidfd_open(getpid(), PidfdFlags::empty()).map_err(|errno| FailedStep::new("pidfd_open", errno))?;
    match pidfd_getfd(&this, number, PidfdGetfdFlags::empty()) {
        Ok(descriptor) => Ok(Socket::from(descriptor)),
        Err(Errno::BADF) => Err(FailedStep::unsuitable(format!("fd:{number} is not open in this process"))),
        Err(errno) => Err(FailedStep::new(format!("pidfd_getfd({number})"), errno)),
    }
}

/// What a socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nature {
    /// The family.
    pub domain: Domain,
    /// The type.
    pub kind: Type,
    /// Whether it was told to listen.
    pub listening: bool,
}

impl Nature {
    /// Asks the kernel.
    pub fn of(socket: &impl AsFd) -> Result<Self, FailedStep> {
        let socket = SockRef::from(socket);
        let failed =
            |option: &'static str| move |error: io::Error| FailedStep::new(format!("getsockopt({option})"), error);
        Ok(Nature {
            domain: socket.domain().map_err(failed("SO_DOMAIN"))?,
            kind: socket.r#type().map_err(failed("SO_TYPE"))?,
            listening: socket.is_listener().map_err(failed("SO_ACCEPTCONN"))?,
        })
    }

    /// Whether it can be taken where that is wanted.
    pub fn is(self, wanted: Wanted) -> bool {
        wanted.families.contains(&self.domain)
            && wanted.kind == self.kind
            && (self.listening || self.kind == Type::DGRAM)
    }
}

impl fmt::Display for Nature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} socket", family(self.domain), kind(self.kind))?;
        match (self.kind == Type::DGRAM, self.listening) {
            (true, _) => Ok(()),
            (false, true) => f.write_str(" that listens"),
            (false, false) => f.write_str(" that does not listen"),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let families: Vec<_> = self.families.iter().map(|domain| family(*domain)).collect();
        let listens = if self.kind == Type::DGRAM { "" } else { " that listens" };
        write!(f, "{} {} socket{listens}", families.join(" or "), kind(self.kind))
    }
}

fn family(domain: Domain) -> &'static str {
    match domain {
        Domain::IPV4 => "an IPv4",
        Domain::IPV6 => "an IPv6",
        Domain::UNIX => "a Unix",
        _ => "some other",
    }
}

fn kind(kind: Type) -> &'static str {
    match kind {
        Type::STREAM => "stream",
        Type::DGRAM => "datagram",
        Type::SEQPACKET => "sequenced-packet",
        _ => "raw",
    }
}

/// The names of the sockets that were passed, from [`FIRST`] on.
#[derive(Debug, PartialEq, Eq)]
struct Passed(Vec<String>);

impl Passed {
    fn to_this_process() -> Self {
        let variable = |name| env::var(name).unwrap_or_default();
        Passed::read(&variable("LISTEN_PID"), &variable("LISTEN_FDS"), &variable("LISTEN_FDNAMES"), std::process::id())
    }

    /// The variables outlive the process that they are meant for: what names another one is not for us.
    fn read(pid: &str, count: &str, names: &str, own_pid: u32) -> Self {
        let meant_for_us = pid.parse() == Ok(own_pid);
        let count = count.parse().ok().filter(|_| meant_for_us).unwrap_or(0);
        Passed(names.split(':').take(count).map(str::to_owned).collect())
    }

    fn find(&self, name: &str) -> Result<i32, FailedStep> {
        let numbered = || (FIRST..).zip(&self.0);
        let mut found = numbered().filter(|(_, known)| *known == name).map(|(number, _)| number);
        match (found.next(), found.next()) {
            (Some(number), None) => Ok(number),
            (Some(first), Some(second)) => Err(FailedStep::unsuitable(format!(
                "several inherited sockets are named `{name}`; write fd:{first} or fd:{second}"
            ))),
            (None, _) if self.0.is_empty() => Err(FailedStep::unsuitable(format!(
                "there is no inherited socket `{name}`: LISTEN_FDNAMES names none for this process"
            ))),
            (None, _) => {
                let known: Vec<_> = numbered()
                    .map(|(number, name)| format!("`{}` (fd:{number})", Escaped::new(name.as_bytes())))
                    .collect();
                let known = known.join(", ");
                Err(FailedStep::unsuitable(format!("there is no inherited socket `{name}`; there are {known}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::AsRawFd;

    fn refusal(name: &str, wanted: Wanted) -> String {
        adopt(name, wanted, "tcp").unwrap_err().source.to_string()
    }

    #[test]
    fn a_listening_socket_is_taken_by_its_number() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = adopt(&listener.as_raw_fd().to_string(), Wanted::ip(Type::STREAM), "tcp").unwrap();
        assert_eq!(socket.local_addr().unwrap().as_socket().unwrap(), listener.local_addr().unwrap());
        assert!(socket.nonblocking().unwrap());
        assert_ne!(socket.as_raw_fd(), listener.as_raw_fd());
    }

    #[test]
    fn a_socket_of_another_kind_is_refused_in_words() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let number = udp.as_raw_fd();
        assert_eq!(
            refusal(&number.to_string(), Wanted::ip(Type::STREAM)),
            format!(
                "fd:{number} is an IPv4 datagram socket; `tcp` needs an IPv4 or an IPv6 stream socket that listens"
            )
        );
        assert!(adopt(&number.to_string(), Wanted::ip(Type::DGRAM), "udp").is_ok());

        let bound = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        let number = bound.as_raw_fd();
        assert_eq!(
            refusal(&number.to_string(), Wanted::unix(Type::STREAM)),
            format!(
                "fd:{number} is an IPv6 stream socket that does not listen; `tcp` needs a Unix stream socket that listens"
            )
        );
        assert!(refusal(&number.to_string(), Wanted::ip(Type::STREAM)).contains("does not listen"));
    }

    #[test]
    fn what_is_no_socket_is_refused_in_words() {
        let file = tempfile::tempfile().unwrap();
        let number = file.as_raw_fd();
        assert_eq!(refusal(&number.to_string(), Wanted::ip(Type::STREAM)), format!("fd:{number} is not a socket"));
        assert_eq!(refusal("1000000", Wanted::ip(Type::STREAM)), "fd:1000000 is not open in this process");
    }

    #[test]
    fn names_count_from_the_third_descriptor_on() {
        let passed = Passed::read("7", "2", "web:admin", 7);
        assert_eq!(passed.find("web").unwrap(), 3);
        assert_eq!(passed.find("admin").unwrap(), 4);
    }

    #[test]
    fn a_name_that_was_not_passed_is_refused_with_those_that_were() {
        let refusal = |passed: &Passed, name| passed.find(name).unwrap_err().source.to_string();
        let passed = Passed::read("7", "3", "web:web:admin", 7);
        assert_eq!(
            refusal(&passed, "http"),
            "there is no inherited socket `http`; there are `web` (fd:3), `web` (fd:4), `admin` (fd:5)"
        );
        assert_eq!(refusal(&passed, "web"), "several inherited sockets are named `web`; write fd:3 or fd:4");
        for none in [Passed::read("8", "1", "web", 7), Passed::read("7", "", "web", 7), Passed::read("", "", "", 7)] {
            assert_eq!(
                refusal(&none, "web"),
                "there is no inherited socket `web`: LISTEN_FDNAMES names none for this process"
            );
        }
    }
}
