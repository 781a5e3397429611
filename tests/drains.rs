//! What a drain owes to those who spoke before it.

use std::time::Duration;

use greetd::{Registry, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test(start_paused = true)]
async fn all_that_a_peer_sent_before_the_drain_is_answered_however_many_turns_that_takes() {
    // More messages than tokio lets a task receive in one turn, or in two.
    const MESSAGES: usize = 1000;
    let registry = Registry::builtin();
    let endpoint = "memory://busy?kind=messages&buffer=1MiB".parse().unwrap();
    let running = Server::new().serve(registry.service(&endpoint, "hello").unwrap()).bind().await.unwrap().start();
    let mut client = registry.dialler(&endpoint).unwrap().dial().await.unwrap();
    assert_eq!(client.recv().await.unwrap().unwrap(), "welcome");
    // In one turn, so that all of it waits when the drain begins.
    tokio::task::unconstrained(async {
        for _ in 0..MESSAGES {
            client.send(b"x").await.unwrap();
        }
        client.flush().await.unwrap();
    })
    .await;
    let drained = running.drain(Duration::from_secs(5)).await;
    assert_eq!((drained.finished, drained.cut), (1, 0));
    let mut answers = 0;
    while let Some(answer) = client.recv().await.unwrap() {
        assert_eq!(answer, "Hello x");
        answers += 1;
    }
    assert_eq!(answers, MESSAGES);
}

#[tokio::test]
async fn a_peer_that_was_answered_while_it_drained_and_says_no_more_is_let_go_at_once() {
    let registry = Registry::builtin();
    let endpoint = "tcp://127.0.0.1:0?framing=lines".parse().unwrap();
    let server = Server::new().serve(registry.service(&endpoint, "echo").unwrap()).bind().await.unwrap();
    let address = server.listeners()[0].address.ip().unwrap();
    let running = server.start();
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut answer = [0; 4];
    client.write_all(b"one\n").await.unwrap();
    client.read_exact(&mut answer).await.unwrap();
    let (drained, ()) = tokio::join!(running.drain(Duration::from_secs(5)), async {
        for _ in 0..20 {
            client.write_all(b"one\n").await.unwrap();
            client.read_exact(&mut answer).await.unwrap();
        }
        assert_eq!(client.read(&mut answer).await.unwrap(), 0);
        drop(client);
    });
    assert_eq!((drained.finished, drained.cut), (1, 0));
}
