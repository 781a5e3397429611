//! Two hosts in private network namespaces, for tests that need more than loopback.

use std::future::Future;
use std::process::Command;

use greetd::lab::Host;
use greetd::lab::topology::{Topology, TopologyError};
use tokio::runtime::Handle;

/// The lab's two hosts. Where this process may not have them, a word on stderr says what the test leaves out; with
/// `GREETD_REQUIRE_TOOLS` set the test fails instead.
pub(crate) fn two_hosts() -> Option<Topology> {
    match Topology::new() {
        Ok(topology) => Some(topology),
        Err(TopologyError::Unavailable(why)) => left_out(&why),
        Err(error) => panic!("{error}"),
    }
}

/// Runs something asynchronous on a host: sockets that it makes belong there, and to the reactor of the caller.
pub(crate) fn on<T: Send + 'static>(host: &Host, work: impl Future<Output = T> + Send + 'static) -> T {
    let reactor = Handle::current();
    host.run(move || reactor.block_on(work))
}

/// Sets the MTU of a device on a host, with the `ip` command.
pub(crate) fn set_mtu(host: &Host, device: &'static str, mtu: u32) -> Option<()> {
    let status = host.run(move || Command::new("ip").args(["link", "set", device, "mtu", &mtu.to_string()]).status());
    match status {
        Ok(status) => {
            assert!(status.success(), "ip link set {device} mtu {mtu}: {status}");
            Some(())
        }
        Err(error) => left_out(&format!("ip(8): {error}")),
    }
}

fn left_out<T>(why: &dyn std::fmt::Display) -> Option<T> {
    assert!(std::env::var_os("GREETD_REQUIRE_TOOLS").is_none(), "{why}");
    eprintln!("left out: {why}");
    None
}
