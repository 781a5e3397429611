//! greetd as a library, with a session for each peer: what the handlers that ship do not need, and what the suite
//! holds against the shared session.
//!
//!     embedded [ENDPOINT [HANDLER]]      udp://127.0.0.1:0 and per-peer, where they are not given

use greetd::registry::{Item, NoOptions};
use greetd::{Conversation, Registry, Server, Session, handler_fn};
use std::sync::Arc;

fn greet(session: &mut Session) -> Conversation<'_> {
    Box::pin(async move {
        let (welcome, word): (&[u8], &[u8]) =
            if session.peer().connected() { (b"welcome", b"Hello ") } else { (b"", b"Hello,") };
        if !welcome.is_empty() {
            session.send(welcome).await?;
        }
        while let Some(message) = session.recv().await? {
            session.send_parts(&[word, &message]).await?;
        }
        Ok(())
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut registry = Registry::builtin();
    registry.add_handler(Item::new("per-peer", "greets each peer in a session of its own"), |_: NoOptions, _| {
        Ok(Arc::new(handler_fn(greet)))
    })?;
    let mut words = std::env::args().skip(1);
    let endpoint = words.next().unwrap_or_else(|| "udp://127.0.0.1:0".into());
    let handler = words.next().unwrap_or_else(|| "per-peer".into());
    let service = registry.service(&endpoint.parse()?, &handler)?;
    let bound = Server::new().serve(service).bind().await?;
    for listener in bound.listeners() {
        println!("listening {listener} handler={}", listener.handler);
    }
    bound.start().ended().await;
    Ok(())
}
