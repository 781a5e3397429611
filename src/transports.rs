//! The transports that ship, a file each, and the socket options that they share.

pub mod socket;
pub mod tcp;
