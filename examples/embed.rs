//! The server inside a program of one's own: with its state, its runtime, its shutdown and its log.
//!
//! The library takes addresses, shutdown and clock from its caller. It has no global, takes no signal and never exits
//! the process, so it goes where the program goes.
//!
//! ```sh
//! cargo run --example embed
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use greetd::session::Session;
use greetd::{Endpoint, Registry, Server, handler_fn};
use tokio::sync::oneshot;

/// What the program is about: here, a count of words that many peers keep together.
#[derive(Default)]
struct Words(Mutex<BTreeMap<String, u64>>);

impl Words {
    fn count(&self, line: &[u8]) -> u64 {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for word in String::from_utf8_lossy(line).split_whitespace() {
            *counts.entry(word.to_lowercase()).or_default() += 1;
        }
        counts.values().sum()
    }
}

/// Serves until it is told to stop; an ordinary part of a larger program.
async fn serve(
    words: Arc<Words>,
    ready: oneshot::Sender<Vec<Endpoint>>,
    stop: oneshot::Receiver<()>,
) -> Result<greetd::server::Drained, Box<dyn Error + Send + Sync>> {
    // A handler is a closure where that is enough. It captures the program's state like any other.
    let handler = Arc::new(handler_fn(move |session: &mut Session| {
        let words = words.clone();
        Box::pin(async move {
            while let Some(line) = session.recv().await? {
                let total = words.count(&line);
                session.send(format!("{total} words so far").as_bytes()).await?;
            }
            Ok(())
        })
    }));

    let registry = Registry::builtin();
    let mut server = Server::new();
    for endpoint in ["tcp://127.0.0.1:0?framing=lines&idle-timeout=10s", "udp://127.0.0.1:0"] {
        server = server.serve(registry.service_of(&endpoint.parse()?, "words", handler.clone())?);
    }
    // All listeners, or none: a fault here has opened nothing, and says what to change.
    let bound = server.bind().await?;
    let listening = bound.listeners().iter().map(|listener| listener.to_string().parse()).collect::<Result<_, _>>()?;
    // Whoever waits for readiness is told once the addresses are known: no sleep, no guess.
    let _ = ready.send(listening);

    let running = bound.start();
    let _ = stop.await;
    // No more is accepted, idle sessions end at once, busy ones have a second to finish.
    Ok(running.drain(Duration::from_secs(1)).await)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let words = Arc::new(Words::default());
    let (ready, listening) = oneshot::channel();
    let (stop, stopped) = oneshot::channel();
    let server = tokio::spawn(serve(words.clone(), ready, stopped));

    let registry = Registry::builtin();
    let endpoints = listening.await?;
    let mut sessions = Vec::new();
    for (mut endpoint, expected) in endpoints.into_iter().zip(["2 words so far", "4 words so far"]) {
        if endpoint.transport() == "tcp" {
            endpoint.options.set("framing", "lines");
        }
        let mut session = registry.dialler(&endpoint)?.dial().await?;
        session.send(b"hello world").await?;
        let reply = session.recv().await?.expect("it answers");
        println!("{}: {}", endpoint.brief(), String::from_utf8_lossy(&reply));
        assert_eq!(reply, expected);
        sessions.push(session);
    }
    assert_eq!(words.0.lock().unwrap_or_else(PoisonError::into_inner)["hello"], 2, "both peers keep one count");

    // The program decides when it ends. The connection is open still, and idle: it hears the end, and closes its side.
    let _ = stop.send(());
    assert!(sessions[0].recv().await?.is_none());
    drop(sessions);
    let drained = server.await??;
    println!("{} sessions finished, {} were cut", drained.finished, drained.cut);
    assert_eq!(drained.cut, 0);
    Ok(())
}
