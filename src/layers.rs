//! The layers that ship, a file each.
