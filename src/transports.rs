//! The transports that ship, a file each, and the socket options that they share.

mod arena;
pub mod memory;
mod outgoing;
pub mod socket;
pub mod stdio;
pub mod tcp;
pub mod udp;
pub mod unix;
pub mod unixgram;
pub mod unixpacket;
