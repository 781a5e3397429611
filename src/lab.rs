//! The lab: bind experiments on the kernel that is running, each predicted first, then tried, then explained.
//!
//! Two hosts that exist only inside this process ([`Topology`]) are joined by a virtual cable. Nothing outside of
//! them is touched, and nothing of them is left when the process ends, however it ends.

pub mod doctor;
mod exchange;
pub mod experiments;
pub mod ground;
pub mod host;
pub mod isolation;
pub mod model;
mod netlink;
pub mod outcome;
mod pktinfo;
pub mod quiz;
pub mod report;
pub mod scenario;
pub mod socket;
#[cfg(test)]
pub(crate) mod testing;
pub mod topology;
mod wait;
pub mod why;

pub use experiments::Experiment;
pub use ground::Ground;
pub use host::Host;
pub use isolation::Unavailable;
pub use outcome::Outcome;
pub use topology::{Side, Topology};
