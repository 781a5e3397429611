//! The model: what Linux does with bound addresses, as a few pure functions with a name for every rule.
//!
//! Nothing here opens a socket. [`may_bind`] says whether a bind or a listen beside other sockets succeeds,
//! [`deliver`] which of several sockets a packet goes to, and [`reach`] what a client of the lab's two hosts feels.
//! Every answer names the [`Rule`] that decided it.

mod binding;
mod conflict;
mod reach;
mod rule;

pub use binding::{Binding, Proto};
pub use conflict::{Decision, may_bind, may_listen, overlap};
pub use reach::{Delivery, Dial, Packet, Reach, arrival, deliver, device_of, reach, reply_source};
pub use rule::Rule;
