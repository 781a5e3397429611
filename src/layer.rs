//! A [`Layer`] wraps a link in another: TLS, WebSocket, PROXY, faults.
//!
//! An endpoint lists layers in front of a transport, the outermost first (`ws+tls+tcp`). When a conversation opens,
//! each layer opens in turn, the innermost first, in the session's own turns and under the handshake clock.

use async_trait::async_trait;

use crate::endpoint::Endpoint;
use crate::error::Result;
use crate::link::{Capabilities, Opened};

/// Something that wraps links.
#[async_trait]
pub trait Layer: Send + Sync {
    /// What a link of these capabilities can do once it is wrapped, or in words why it cannot be wrapped. Asked before
    /// anything is bound.
    fn over(&self, inner: Capabilities) -> Result<Capabilities, String>;

    /// Opens the server's side over a link: a handshake, a header, nothing. May leave facts with the peer.
    async fn accept(&self, inner: Opened) -> Result<Opened>;

    /// Opens the client's side over a link to that endpoint.
    async fn connect(&self, inner: Opened, to: &Endpoint) -> Result<Opened>;
}
