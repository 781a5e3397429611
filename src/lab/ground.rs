//! Where an experiment runs: on the two hosts, or on the loopback of this machine where they cannot be had.

use std::net::IpAddr;

use super::host::Host;
use super::isolation::Unavailable;
use super::model::{Binding, Dial};
use super::topology::{Side, Topology, TopologyError};

/// The hosts of an experiment.
#[derive(Debug)]
pub enum Ground {
    /// The two hosts.
    Private(Topology),
    /// This machine, of which nothing but its loopback addresses is touched, and why.
    Loopback(Host, Unavailable),
}

impl Ground {
    /// Fresh hosts; this machine's loopback where namespaces are not allowed.
    ///
    /// # Errors
    /// Where the namespaces are allowed and could not be set up, or no thread can be had.
    pub fn new() -> Result<Self, TopologyError> {
        match Topology::new() {
            Ok(topology) => Ok(Ground::Private(topology)),
            Err(TopologyError::Unavailable(why)) => Ok(Ground::Loopback(Host::this_machine("server")?, why)),
            Err(error) => Err(error),
        }
    }

    /// The host of that side; without the two hosts there is no client.
    pub fn host(&self, side: Side) -> Option<&Host> {
        match (self, side) {
            (Ground::Private(topology), side) => Some(topology.host(side)),
            (Ground::Loopback(host, _), Side::Server) => Some(host),
            (Ground::Loopback(..), Side::Client) => None,
        }
    }

    /// The two hosts, where they could be had.
    pub fn topology(&self) -> Option<&Topology> {
        match self {
            Ground::Private(topology) => Some(topology),
            Ground::Loopback(..) => None,
        }
    }

    /// Whether a socket may be bound here. On this machine itself only loopback addresses are: even for a moment,
    /// a wildcard would be open to its network.
    pub fn may_bind(&self, binding: &Binding) -> bool {
        match self {
            Ground::Private(_) => true,
            Ground::Loopback(..) => is_loopback(binding.ip) && binding.device.as_deref().is_none_or(|it| it == "lo"),
        }
    }

    /// Whether that call may be made here.
    pub fn may_dial(&self, dial: Dial) -> bool {
        match self {
            Ground::Private(_) => true,
            Ground::Loopback(..) => dial.from == Side::Server && is_loopback(dial.to),
        }
    }

    /// What cannot be tried here, with what would allow it; what may flicker.
    pub fn limits(&self) -> Vec<String> {
        match self {
            Ground::Private(topology) => {
                topology.unset().iter().map(|what| format!("not set, so results may flicker: {what}")).collect()
            }
            Ground::Loopback(_, why) => {
                vec![format!("only loopback addresses were tried, the cells marked ? were not: {why}")]
            }
        }
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}
