//! The greeting: a handler of ten lines, served over TCP, over UDP and inside this process.
//!
//! ```sh
//! cargo run --example handler
//! ```

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use greetd::session::Session;
use greetd::{Endpoint, Handler, Registry, Result, Server, async_trait};

struct Greeting;

#[async_trait]
impl Handler for Greeting {
    // One conversation, from its first message to its last. It reads top to bottom and may keep what it likes in
    // local variables. On datagrams it is the same function, once for each peer.
    async fn serve(&self, session: &mut Session) -> Result<()> {
        let connected = session.peer().connected();
        if connected {
            session.send(b"welcome").await?;
        }
        while let Some(message) = session.recv().await? {
            if connected && message == "exit" {
                break;
            }
            session.send_parts(&[if connected { b"Hello " } else { b"Hello," }, &message]).await?;
        }
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::result::Result<(), Box<dyn Error>> {
    let registry = Registry::builtin();
    let greeting = Arc::new(Greeting);

    // Whatever is registered will do: `unix:///tmp/x.sock`, `tcp://[::1]:0?framing=netstring`… Port 0 lets the kernel
    // choose; the listeners know what it chose.
    let mut server = Server::new();
    for endpoint in ["tcp://127.0.0.1:0", "udp://127.0.0.1:0", "memory://greeting"] {
        server = server.serve(registry.service_of(&endpoint.parse()?, "greeting", greeting.clone())?);
    }
    let bound = server.bind().await?;
    let listeners = bound.listeners();
    let running = bound.start();

    for listener in &listeners {
        let endpoint: Endpoint = listener.to_string().parse()?;
        let mut session = registry.dialler(&endpoint)?.dial().await?;
        let separator = if session.peer().connected() {
            assert_eq!(session.recv().await?.expect("it greets"), "welcome");
            ' '
        } else {
            ','
        };
        session.send(b"Genji").await?;
        let reply = session.recv().await?.expect("it answers");
        assert_eq!(reply, format!("Hello{separator}Genji"));
        println!("{listener}: {}", String::from_utf8_lossy(&reply));
    }

    // The last sessions are over, or idle: nothing has to be cut.
    let drained = running.drain(Duration::from_secs(5)).await;
    assert_eq!(drained.cut, 0);
    Ok(())
}
