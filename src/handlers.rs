//! The handlers that ship, a file each.

mod announcement;
pub mod chargen;
pub mod chat;
pub mod daytime;
pub mod discard;
pub mod echo;
pub mod forward;
pub mod hello;
mod line_end;
pub mod qotd;
#[cfg(test)]
pub(crate) mod rehearsal;
pub mod time;
pub mod upper;
pub mod whoami;
