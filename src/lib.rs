//! Write a handler once, serve it over anything.
//!
//! A [`Transport`] moves messages, a [`Handler`] answers them, a [`Registry`] pairs any handler with any transport by
//! name. This page is the map; `ARCHITECTURE.md` is the picture.

pub mod address;
mod builtin;
#[cfg(feature = "cli")]
mod cli;
pub mod endpoint;
pub mod error;
pub mod escape;
pub mod event;
pub mod faults;
pub mod framing;
pub mod framings;
pub mod handler;
pub mod handlers;
pub mod hosts;
#[cfg(feature = "cli")]
pub mod lab;
pub mod layer;
pub mod layers;
pub mod limits;
pub mod link;
#[cfg(feature = "cli")]
pub mod load;
#[cfg(feature = "cli")]
pub mod machine;
pub mod options;
mod random;
pub mod registry;
pub mod server;
pub mod service;
pub mod session;
pub mod testing;
pub mod timestamp;
pub mod transport;
pub mod transports;
pub mod verdict;

pub use address::Address;
#[cfg(feature = "cli")]
pub use cli::main_with;
pub use endpoint::{Authority, Endpoint, EndpointError};
pub use error::{Error, Result};
pub use framing::{Framing, FramingError};
pub use handler::{Conversation, Handler, Needs, Sessions, handler_fn, reply_fn};
pub use layer::Layer;
pub use limits::Limits;
pub use link::{ByteStream, Capabilities, Link, MessageStream, Opened, Peer, Route};
pub use registry::{Registry, ResolveError};
pub use server::Server;
pub use service::{DialError, Dialler, Service};
pub use session::{PushError, Pusher, Session};
pub use transport::{Acceptor, BindError, ConnectError, DatagramSocket, Listener, Transport};
pub use verdict::Verdict;

/// The attribute that a `Handler`, a `Transport` or a `Layer` is written with.
pub use async_trait::async_trait;
/// The crate whose `Bytes` messages are.
pub use bytes;

/// The README's examples, so that they compile.
#[cfg(all(doctest, feature = "cli"))]
#[doc = include_str!("../README.md")]
struct Readme;
