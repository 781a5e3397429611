//! A whole server on a bad network, on the paused clock: the same seed repeats the same run, to the moment.

use std::time::Duration;

use greetd::{Registry, Server};
use tokio::time::{Instant, timeout};

/// What two peers hear of the names that they say, and when.
async fn run(seed: u64) -> Vec<(usize, String, Duration)> {
    let faults = format!("seed={seed}&delay=30ms&jitter=40ms&drop=0.2&duplicate=0.2&reorder=0.3");
    let at = format!("memory://room?kind=datagrams&{faults}").parse().unwrap();
    let registry = Registry::builtin();
    let running = Server::new().serve(registry.service(&at, "hello").unwrap()).bind().await.unwrap().start();
    let start = Instant::now();
    let mut heard = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..2 {
        peers.push(registry.dialler(&at).unwrap().dial().await.unwrap());
    }
    for number in 0..20 {
        for (index, peer) in peers.iter_mut().enumerate() {
            peer.send(format!("{number}").as_bytes()).await.unwrap();
            while let Ok(received) = timeout(Duration::from_millis(25), peer.recv()).await {
                let message = received.unwrap().unwrap();
                heard.push((index, String::from_utf8_lossy(&message).into_owned(), start.elapsed()));
            }
        }
    }
    running.drain(Duration::from_secs(1)).await;
    heard
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_repeats_the_run_of_a_whole_server() {
    let first = run(1).await;
    assert!((20..60).contains(&first.len()), "some are lost, and some are not: {first:?}");
    assert_eq!(run(1).await, first);
    assert_ne!(run(2).await, first);
}
