//! The framings that ship: each file one of them, or a family that differs in a parameter.

mod counted;
pub mod crlf;
pub mod delimiter;
pub mod fixed;
pub mod length;
pub mod lines;
pub mod netstring;
pub mod raw;
pub mod varint;
