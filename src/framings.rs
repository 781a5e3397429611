//! The framings that ship: each file one of them, or a family that differs in a parameter.

pub mod raw;
