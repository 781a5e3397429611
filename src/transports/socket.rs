//! What the transports over sockets share: options, addresses, inherited sockets, accepting.
//!
//! [`SocketOptions`] are read from an endpoint's query. [`SocketOptions::bind`] makes the listening side's socket:
//! names resolved, every option set before `bind`, or a socket adopted that this process inherited.
//! [`SocketOptions::remotes`] and [`SocketOptions::unconnected`] serve the calling side. [`unix::UnixOptions`] do both
//! for Unix sockets. [`SocketAcceptor`] accepts from any socket that listens, and [`links`] makes links of what it
//! accepts. An error names the system call that failed.

mod accept;
mod ahead;
mod bind;
mod file;
mod inherited;
pub mod links;
mod listen;
pub mod names;
mod packets;
mod reactor;
mod resolve;
mod selector;
mod slots;
mod stream;
pub mod unix;

use std::fmt;
use std::io;

use rustix::io::Errno;
use serde::Deserialize;

pub use self::accept::SocketAcceptor;
pub use self::bind::{Bound, Buffer};
pub use self::file::SocketFile;
pub use self::inherited::{Nature, Wanted, adopt};
pub use self::listen::{DEFAULT_BACKLOG, listen, somaxconn};
pub use self::packets::LARGEST_PACKET;
pub(crate) use self::reactor::register;
use crate::endpoint::Endpoint;
use crate::options::{OptionDoc, Size};
use crate::transport::{BindError, ConnectError};

/// The socket options of an endpoint. A transport lists in its table those that it has ([`STREAM_OPTIONS`],
/// [`DATAGRAM_OPTIONS`]); the registry refuses the others by name.
///
/// What is left out keeps its default, which may differ between transports, hence the `Option`s.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own, as it is typed")]
pub struct SocketOptions {
    /// How many connections may wait to be accepted; see listen(2).
    pub backlog: Option<u32>,
    /// `SO_REUSEADDR`; see socket(7).
    pub reuse_addr: Option<bool>,
    /// `SO_REUSEPORT`; see socket(7).
    pub reuse_port: bool,
    /// `IPV6_V6ONLY`; see ipv6(7).
    pub v6_only: Option<V6Only>,
    /// `SO_BINDTODEVICE`: the only interface to be reached through; see socket(7).
    pub device: Option<String>,
    /// `IP_FREEBIND`: the address need not be local yet; see ip(7).
    pub freebind: bool,
    /// `SO_RCVBUF`, in bytes of payload; see socket(7).
    pub recv_buffer: Option<Size>,
    /// `SO_SNDBUF`, in bytes of payload; see socket(7).
    pub send_buffer: Option<Size>,
    /// `TCP_NODELAY`; see tcp(7).
    pub nodelay: Option<bool>,
    /// Only IPv4 addresses; together with `ipv6`, either family.
    pub ipv4: bool,
    /// Only IPv6 addresses.
    pub ipv6: bool,
}

/// Whether an IPv6 socket takes IPv6 alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum V6Only {
    /// IPv6 alone.
    Yes,
    /// IPv4 too, where the address is `::` (dual stack).
    No,
    /// As the sysctl net.ipv6.bindv6only says: the option is not set.
    System,
}

const fn doc(name: &'static str, value: &'static str, default: &'static str, help: &'static str) -> OptionDoc {
    OptionDoc { name, value, default, help }
}

const BACKLOG: OptionDoc = doc("backlog", "N", "4096", "connections that may wait to be accepted");
const DEVICE: OptionDoc = doc("device", "IFACE", "any", "the only network interface to be reached through");
const FREEBIND: OptionDoc = doc("freebind", "yes|no", "no", "bind an address that this machine does not have yet");
const IPV4: OptionDoc = doc("ipv4", "yes|no", "no", "only IPv4 addresses");
const IPV6: OptionDoc = doc("ipv6", "yes|no", "no", "only IPv6 addresses");
const NODELAY: OptionDoc = doc("nodelay", "yes|no", "yes", "send small segments at once");
const RECV_BUFFER: OptionDoc = doc("recv-buffer", "SIZE", "the kernel's", "the kernel's receive buffer");
const RECV_BUFFER_DATAGRAM: OptionDoc = doc("recv-buffer", "SIZE", "4MiB", "the kernel's receive buffer");
const REUSE_ADDR_STREAM: OptionDoc = doc("reuse-addr", "yes|no", "yes", "bind beside connections in TIME_WAIT");
const REUSE_ADDR_DATAGRAM: OptionDoc =
    doc("reuse-addr", "yes|no", "no", "share the port; the last that is bound gets the datagrams");
const REUSE_PORT: OptionDoc = doc("reuse-port", "yes|no", "no", "share the port; the kernel spreads the load");
const SEND_BUFFER: OptionDoc = doc("send-buffer", "SIZE", "the kernel's", "the kernel's send buffer");
const V6_ONLY: OptionDoc = doc("v6-only", "yes|no|system", "no", "whether [::] leaves IPv4 out");

/// The socket options of transports over TCP.
pub const STREAM_OPTIONS: &[OptionDoc] =
    &[BACKLOG, DEVICE, FREEBIND, IPV4, IPV6, NODELAY, RECV_BUFFER, REUSE_ADDR_STREAM, REUSE_PORT, SEND_BUFFER, V6_ONLY];

/// The receive buffer of a datagram socket where none is asked for: what comes while the task is busy must wait there,
/// and the kernel's own default of 208 KiB is a few hundred small datagrams.
pub const DATAGRAM_RECEIVE_BUFFER: usize = 4 << 20;

/// The socket options of transports over UDP.
pub const DATAGRAM_OPTIONS: &[OptionDoc] =
    &[DEVICE, FREEBIND, IPV4, IPV6, RECV_BUFFER_DATAGRAM, REUSE_ADDR_DATAGRAM, REUSE_PORT, SEND_BUFFER, V6_ONLY];

/// A step that failed on the way to a socket, before it is known whether it was to be bound or connected.
#[derive(Debug)]
pub struct FailedStep {
    /// The step, for example `setsockopt(SO_BINDTODEVICE, eth9)`.
    pub call: String,
    /// What it said.
    pub source: io::Error,
}

impl FailedStep {
    /// A failure of a named step.
    pub fn new(call: impl Into<String>, source: impl Into<io::Error>) -> Self {
        FailedStep { call: call.into(), source: source.into() }
    }

    /// An address or an option that does not suit, in words.
    pub fn unsuitable(reason: impl fmt::Display) -> Self {
        FailedStep::new("address", io::Error::new(io::ErrorKind::InvalidInput, reason.to_string()))
    }

    /// As the failure of a bind.
    pub fn on_bind(self, at: &Endpoint) -> BindError {
        BindError::new(at, self.call, self.source)
    }

    /// As the failure of a call.
    pub fn on_connect(self, to: &Endpoint) -> ConnectError {
        ConnectError::new(to, self.call, self.source)
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// Refuses, by its name, an option that was given and would have to be set on an inherited socket.
fn refuse_for_inherited(options: &[(&str, bool)]) -> Result<(), FailedStep> {
    match options.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((name, _)) => Err(FailedStep::unsuitable(format!(
            "`{name}` cannot be given for an inherited socket: whoever opened it set its options"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    fn read(query: &str) -> Result<SocketOptions, String> {
        Options::parse(query).and_then(|options| options.read()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_option_that_is_documented_can_be_read() {
        for option in STREAM_OPTIONS.iter().chain(DATAGRAM_OPTIONS) {
            let value = match option.value {
                "N" => "7",
                "SIZE" => "64KiB",
                "IFACE" => "lo",
                _ => "yes",
            };
            assert!(read(&format!("{}={value}", option.name)).is_ok(), "{}", option.name);
        }
    }

    #[test]
    fn an_option_named_without_a_value_is_switched_on() {
        let options = read("reuse-port&v6-only&ipv6").unwrap();
        assert!(options.reuse_port && options.ipv6);
        assert_eq!(options.v6_only, Some(V6Only::Yes));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        assert_eq!(read("v6-only=maybe").unwrap_err(), "the option `v6-only` takes yes or no or system, not `maybe`");
        assert_eq!(read("backlog=-1").unwrap_err(), "the option `backlog` takes a number, not `-1`");
    }
}
