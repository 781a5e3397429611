//! The handlers that ship, a file each.

pub mod hello;
