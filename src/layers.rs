//! The layers that ship, a file each.

pub mod faults;
