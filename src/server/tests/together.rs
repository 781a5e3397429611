//! Sessions that are run together: none of them changes what becomes of another, nor its clocks.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep};

use super::scripted::{Bench, connections, settle};
use crate::endpoint::Endpoint;
use crate::error::Result;
use crate::handler::{Handler, handler_fn, reply_fn};
use crate::layer::Layer;
use crate::link::{ByteStream, Capabilities, Link, Opened};
use crate::server::Server;

fn echo() -> impl Handler {
    reply_fn(<[u8]>::to_vec)
}

/// Panics at its second read.
struct Fragile;

#[async_trait]
impl Layer for Fragile {
    fn over(&self, inner: Capabilities) -> std::result::Result<Capabilities, String> {
        Ok(inner)
    }

    async fn accept(&self, inner: Opened) -> Result<Opened> {
        let Link::Bytes(io) = inner.link else { unreachable!("the bench has streams of bytes") };
        Ok(Opened { link: Link::Bytes(Box::new(FragileStream { io, reads: 0 })), ..inner })
    }

    async fn connect(&self, _: Opened, _: &Endpoint) -> Result<Opened> {
        unreachable!("the bench only listens")
    }
}

struct FragileStream {
    io: Box<dyn ByteStream>,
    reads: usize,
}

impl AsyncRead for FragileStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut *self.io).poll_read(cx, buffer);
        self.reads += usize::from(read.is_ready());
        if self.reads == 2 {
            self.reads += 1;
            panic!("it is fragile");
        }
        read
    }
}

impl AsyncWrite for FragileStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_shutdown(cx)
    }
}

/// Whether others were woken at the same time changes nothing.
#[tokio::test(start_paused = true)]
async fn a_layer_that_panics_when_it_is_read_is_told_of_in_the_same_way_whoever_reads() {
    for count in [1, 2] {
        let bench = connections(echo()).layer(Fragile).start().await;
        let mut clients: Vec<_> = (0..count).map(|_| bench.connect()).collect();
        for client in &mut clients {
            client.send("x\n").await;
            assert_eq!(client.line().await, "x");
        }
        for client in &mut clients {
            client.send("y\n").await;
        }
        for client in &mut clients {
            assert_eq!(client.rest().await, "");
        }
        drop(clients);
        settle().await;
        let told = ["panicked", "cut"].map(|reason| bench.counters().get("session.closed", reason));
        assert_eq!(told, [count, 0], "panicked, cut");
    }
}

/// It has the watch of one that asked for a later moment.
#[tokio::test(start_paused = true)]
async fn a_session_that_does_not_receive_lasts_no_longer_than_it_may_whoever_had_its_place_before() {
    let lasting = || connections(echo()).limits("idle-timeout=60s");
    let deaf = handler_fn(|_| {
        Box::pin(async {
            sleep(Duration::from_secs(3600)).await;
            Ok(())
        })
    });
    let brief = connections(deaf).limits("total-timeout=5s");
    let bench = Bench::serve_two(Server::new(), lasting(), brief).await;
    for reused in [false, true] {
        if reused {
            let mut former = bench.connect();
            former.send("x\n").await;
            assert_eq!(former.line().await, "x");
            drop(former);
            settle().await;
        }
        let mut client = bench.connect_to_second();
        let start = Instant::now();
        assert_eq!(client.rest().await, "");
        assert_eq!(start.elapsed().as_secs(), 5, "reused: {reused}");
    }
}

/// It was active when it answered, not when the round began.
#[tokio::test]
async fn a_session_that_answers_behind_one_that_takes_long_is_not_idle_before_its_time() {
    let handler = reply_fn(|message: &[u8]| {
        if message == b"slow" {
            std::thread::sleep(Duration::from_millis(1500));
        }
        message.to_vec()
    });
    let bench = connections(handler).limits("idle-timeout=2s").start().await;
    let mut clients: Vec<_> = (0..3).map(|_| bench.connect()).collect();
    for client in &mut clients {
        client.send("x\n").await;
        assert_eq!(client.line().await, "x");
    }
    // In this order: the first looks at the clock, the second takes long.
    for (client, text) in clients.iter_mut().zip(["x\n", "slow\n", "x\n"]) {
        client.send(text).await;
    }
    assert_eq!(clients[2].line().await, "x");
    let start = Instant::now();
    assert_eq!(clients[2].rest().await, "");
    assert!(
        start.elapsed() >= Duration::from_millis(1900),
        "it was closed {:?} after its last answer",
        start.elapsed()
    );
}

/// Fails when what was written is to leave.
struct Leaky;

#[async_trait]
impl Layer for Leaky {
    fn over(&self, inner: Capabilities) -> std::result::Result<Capabilities, String> {
        Ok(inner)
    }

    async fn accept(&self, inner: Opened) -> Result<Opened> {
        let Link::Bytes(io) = inner.link else { unreachable!("the bench has streams of bytes") };
        Ok(Opened { link: Link::Bytes(Box::new(LeakyStream { io, held: Vec::new() })), ..inner })
    }

    async fn connect(&self, _: Opened, _: &Endpoint) -> Result<Opened> {
        unreachable!("the bench only listens")
    }
}

struct LeakyStream {
    io: Box<dyn ByteStream>,
    held: Vec<u8>,
}

impl AsyncRead for LeakyStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for LeakyStream {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.held.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(if self.held.is_empty() { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) })
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_shutdown(cx)
    }
}

/// Not only the idle clock does, an hour later.
#[tokio::test(start_paused = true)]
async fn an_answer_that_a_layer_fails_to_flush_ends_the_session() {
    let bench = connections(echo()).layer(Leaky).limits("idle-timeout=1h").start().await;
    let mut client = bench.connect();
    client.send("x\n").await;
    let start = Instant::now();
    assert_eq!(client.rest().await, "");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(bench.counters().get("session.closed", "disconnected"), 1);
}

/// Also where many are run together, each by its own last message.
#[tokio::test(start_paused = true)]
async fn each_session_is_idle_for_as_long_as_it_may_whoever_it_was_run_with() {
    for seed in 1..20_u64 {
        let mut state = seed * 0x9e37_79b9;
        let mut roll = move |sides: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % sides
        };
        let bench = connections(echo()).limits("idle-timeout=5s").start().await;
        let mut clients: Vec<_> = (0..20).map(|_| bench.connect()).collect();
        let mut last = vec![Instant::now(); clients.len()];
        for _ in 0..20 {
            sleep(Duration::from_millis(500)).await;
            for (index, client) in clients.iter_mut().enumerate() {
                if last[index].elapsed() > Duration::from_secs(4) || roll(4) == 0 {
                    client.send("x\n").await;
                    last[index] = Instant::now();
                }
            }
            for (index, client) in clients.iter_mut().enumerate() {
                if last[index] == Instant::now() {
                    assert_eq!(client.line().await, "x");
                }
            }
        }
        let ends = clients.into_iter().zip(last).map(|(mut client, last)| {
            tokio::spawn(async move {
                assert_eq!(client.rest().await, "");
                let lasted = last.elapsed();
                assert!((4_990..5_010).contains(&lasted.as_millis()), "{lasted:?}");
            })
        });
        for end in ends.collect::<Vec<_>>() {
            end.await.unwrap();
        }
    }
}

/// Whose answers are written later is under the write clock all the same.
#[tokio::test(start_paused = true)]
async fn peers_that_do_not_take_their_answers_are_cut_and_those_that_take_some_are_not() {
    let bench = connections(echo()).limits("write-timeout=10s&idle-timeout=1h").start().await;
    let mut clients: Vec<_> = (0..6).map(|_| bench.connect()).collect();
    for client in &mut clients {
        client.send("x\n").await;
        assert_eq!(client.line().await, "x");
    }
    let line = "y".repeat(4095) + "\n";
    // More than the pipe holds, together with what the session holds, and less than both pipes hold.
    for _ in 0..20 {
        for client in &mut clients {
            client.send(&line).await;
        }
    }
    let start = Instant::now();
    let ends = clients.into_iter().enumerate().map(|(index, mut client)| {
        tokio::spawn(async move {
            if index % 2 == 0 {
                for _ in 0..20 {
                    sleep(Duration::from_secs(9)).await;
                    assert_eq!(client.line().await.len(), 4095, "after {:?}", start.elapsed());
                }
                return;
            }
            sleep(Duration::from_secs(11)).await;
            let rest = client.rest().await;
            assert!(rest.len() < 20 * 4096, "{}", rest.len());
        })
    });
    for end in ends.collect::<Vec<_>>() {
        end.await.unwrap();
    }
    assert_eq!(bench.counters().get("session.closed", "write-timeout"), 3);
}
