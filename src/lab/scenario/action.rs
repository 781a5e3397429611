//! What a step does, once it is read and understood.

use std::net::IpAddr;

use crate::lab::socket::Flag;
use crate::lab::topology::Side;

/// What a step does.
#[derive(Debug, Clone)]
pub(super) enum Action {
    Bind(Bind),
    Listen {
        socket: String,
        backlog: u32,
    },
    Connect {
        socket: Option<String>,
        from: Side,
        to: Target,
    },
    /// The connection's name is missing only until the whole case is read.
    Accept {
        socket: String,
        name: Option<String>,
    },
    Send {
        socket: String,
        bytes: Vec<u8>,
        to: Option<Target>,
    },
    Receive {
        socket: String,
    },
    Set {
        socket: String,
        flags: Vec<(Flag, bool)>,
        device: Option<String>,
    },
    Sysctl {
        host: Side,
        name: String,
        value: String,
    },
    Close {
        socket: String,
        reset: bool,
    },
}

/// A socket to be made and bound.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "they are options of a socket, independent of each other")]
pub(super) struct Bind {
    pub(super) socket: String,
    pub(super) host: Side,
    pub(super) ip: IpAddr,
    /// `None`: the case's port.
    pub(super) port: Option<u16>,
    /// `None`: as the sysctl `net.ipv6.bindv6only` says.
    pub(super) v6_only: Option<bool>,
    pub(super) reuse_addr: bool,
    pub(super) reuse_port: bool,
    pub(super) freebind: bool,
    pub(super) device: Option<String>,
    /// Whether the caller has `CAP_NET_BIND_SERVICE`.
    pub(super) privileged: bool,
}

/// Whom to call.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) ip: IpAddr,
    /// The device that a link-local address is meant on.
    pub(super) device: Option<String>,
    /// `None`: the case's port.
    pub(super) port: Option<u16>,
}
