//! The lab: bind experiments on the kernel that is running, each predicted first, then tried, then explained.
//!
//! Two hosts that exist only inside this process ([`Topology`]) are joined by a virtual cable. Nothing outside of
//! them is touched, and nothing of them is left when the process ends, however it ends.

pub mod host;
pub mod isolation;
mod netlink;
#[cfg(test)]
pub(crate) mod testing;
pub mod topology;

pub use host::Host;
pub use isolation::Unavailable;
pub use topology::{Side, Topology};
