//! The server: binds services, runs their sessions, drains them.

pub(crate) mod guard;
