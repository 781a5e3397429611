//! Sessions that share a task: none of them takes the others' turn, and each ends alone.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::coop::has_budget_remaining;
use tokio::task::{consume_budget, yield_now};
use tokio::time::{Instant, sleep};

use super::scripted::{Bench, Client, connections, settle};
use crate::address::Address;
use crate::endpoint::Endpoint;
use crate::error::Result;
use crate::event::{Event, Observer};
use crate::handler::{Handler, handler_fn, reply_fn};
use crate::layer::Layer;
use crate::link::{ByteStream, Capabilities, Link, Opened};
use crate::server::{Server, connection};

fn echo() -> impl Handler {
    reply_fn(<[u8]>::to_vec)
}

/// Answers, until it is told to work, which it then does for ever.
fn tireless() -> impl Handler {
    handler_fn(|session| {
        Box::pin(async move {
            while let Some(message) = session.recv().await? {
                session.send(&message).await?;
                session.flush().await?;
                if message == "work" {
                    loop {
                        consume_budget().await;
                    }
                }
            }
            Ok(())
        })
    })
}

/// The next line, though the runtime is never idle: within that many turns of it.
async fn line_within(turns: usize, client: &mut Client) -> Option<String> {
    let turns = async {
        for _ in 0..turns {
            yield_now().await;
        }
    };
    tokio::select! {
        line = client.line() => Some(line),
        () = turns => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_never_waits_holds_up_no_other() {
    let bench = connections(tireless()).start().await;
    let mut clients: Vec<_> = (0..6).map(|_| bench.connect()).collect();
    settle().await;
    // Every third works, so that there is one on either side of those that do not.
    for client in clients.iter_mut().step_by(3) {
        client.send("work\n").await;
        assert_eq!(line_within(100, client).await.as_deref(), Some("work"));
    }
    for round in 0..100 {
        for (index, client) in clients.iter_mut().enumerate().filter(|(index, _)| index % 3 != 0) {
            client.send("x\n").await;
            assert_eq!(line_within(100, client).await.as_deref(), Some("x"), "client {index} in round {round}");
        }
    }
    // The others of the runtime have their turns too: the accept loop, the timers.
    let mut late = bench.connect();
    late.send("x\n").await;
    assert_eq!(line_within(100, &mut late).await.as_deref(), Some("x"));
    let cut = bench.running.drain_until(Duration::from_secs(30), async {
        for _ in 0..1000 {
            yield_now().await;
        }
    });
    assert_eq!(cut.await.cut, 2);
}

#[tokio::test(start_paused = true)]
async fn all_of_more_sessions_than_run_at_once_are_answered() {
    let bench = connections(echo()).start().await;
    let mut clients: Vec<_> = (0..500).map(|_| bench.connect()).collect();
    for round in 0..3 {
        for client in &mut clients {
            client.send(&format!("{round}\n")).await;
        }
        for client in &mut clients {
            assert_eq!(client.line().await, round.to_string());
        }
    }
}

/// Notes at each write how many handlers have run by then.
#[derive(Clone, Default)]
struct Log {
    run: Arc<AtomicUsize>,
    /// Whether writing fails.
    fails: bool,
    writes: Arc<Mutex<Vec<usize>>>,
}

#[async_trait]
impl Layer for Log {
    fn over(&self, inner: Capabilities) -> std::result::Result<Capabilities, String> {
        Ok(inner)
    }

    async fn accept(&self, inner: Opened) -> Result<Opened> {
        let Link::Bytes(io) = inner.link else { unreachable!("the bench has streams of bytes") };
        Ok(Opened { link: Link::Bytes(Box::new(Logged { io, log: self.clone() })), ..inner })
    }

    async fn connect(&self, _: Opened, _: &Endpoint) -> Result<Opened> {
        unreachable!("the bench only listens")
    }
}

struct Logged {
    io: Box<dyn ByteStream>,
    log: Log,
}

impl AsyncRead for Logged {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Logged {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.log.fails {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let written = Pin::new(&mut *self.io).poll_write(cx, bytes);
        if written.is_ready() {
            self.log.writes.lock().unwrap().push(self.log.run.load(Ordering::Relaxed));
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn sixteen_handlers_run_before_what_the_first_of_them_sent_is_written_and_no_more() {
    let log = Log::default();
    let run = log.run.clone();
    let counting = reply_fn(move |message| {
        run.fetch_add(1, Ordering::Relaxed);
        message.to_vec()
    });
    let bench = connections(counting).layer(log.clone()).start().await;
    let mut clients: Vec<_> = (0..40).map(|_| bench.connect()).collect();
    settle().await;
    for client in &mut clients {
        client.send("x\n").await;
    }
    for client in &mut clients {
        assert_eq!(client.line().await, "x");
    }
    let expected: Vec<_> = (0..40).map(|write| (write / 16 * 16 + 16).min(40)).collect();
    assert_eq!(*log.writes.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_waits_for_a_message_is_told_that_its_answer_could_not_be_written() {
    let told = Arc::new(Mutex::new(None));
    let tell = told.clone();
    let handler = handler_fn(move |session| {
        let tell = tell.clone();
        Box::pin(async move {
            loop {
                match session.recv().await {
                    Ok(Some(message)) => session.send(&message).await?,
                    Ok(None) => return Ok(()),
                    Err(error) => {
                        *tell.lock().unwrap() = Some(error.to_string());
                        return Err(error);
                    }
                }
            }
        })
    });
    let bench = connections(handler).layer(Log { fails: true, ..Log::default() }).start().await;
    let mut client = bench.connect();
    client.send("x\n").await;
    assert_eq!(client.rest().await, "");
    assert!(told.lock().unwrap().as_ref().is_some_and(|error| error.contains("broken pipe")), "{told:?}");
    assert_eq!(bench.counters().get("session.closed", "disconnected"), 1);
}

/// Uses up the crew's budget when it is told to, once for each message, and counts how often any handler is run.
fn hungry(runs: Arc<AtomicUsize>) -> impl Handler {
    handler_fn(move |session| {
        let runs = runs.clone();
        Box::pin(async move {
            loop {
                let message = poll_fn(|cx| {
                    runs.fetch_add(1, Ordering::Relaxed);
                    session.poll_recv(cx)
                });
                let Some(message) = message.await? else { return Ok(()) };
                session.send(&message).await?;
                while message == "work" && has_budget_remaining() {
                    consume_budget().await;
                }
            }
        })
    })
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_before_the_budget_was_used_up_is_written_before_anybody_runs_again() {
    let runs = Arc::new(AtomicUsize::new(0));
    let bench = connections(hungry(runs.clone())).start().await;
    let mut clients: Vec<_> = (0..4).map(|_| bench.connect()).collect();
    settle().await;
    runs.store(0, Ordering::Relaxed);
    for (index, client) in clients.iter_mut().enumerate() {
        client.send(if index == 3 { "work\n" } else { "x\n" }).await;
    }
    for client in &mut clients[..3] {
        assert_eq!(client.line().await, "x");
    }
    settle().await;
    // Each for its message and to wait for the next, and once more after the work.
    assert_eq!(runs.load(Ordering::Relaxed), 9);
}

/// Fails at the beginning of a session with one whose name says so: that is no handler's panic.
struct Touchy;

impl Observer for Touchy {
    fn observe(&self, event: &Event<'_>) {
        if let Event::SessionOpened { remote, .. } = event {
            assert!(**remote != Address::named("unwanted"), "it is unwanted");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_outside_the_handler_ends_its_own_session_alone_and_gives_the_permit_back() {
    let server = Server::new().observer(Arc::new(Touchy));
    let bench = Bench::serve(server, connections(echo()).limits("max-sessions=2")).await;
    let mut other = bench.connect();
    for round in 1..=3 {
        assert_eq!(bench.connect_from("unwanted").rest().await, "");
        other.send("and you?\n").await;
        assert_eq!(other.line().await, "and you?");
        assert_eq!(bench.counters().get("session.closed", "panicked"), round);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_server_that_has_drained_or_was_dropped() {
    let alive = || Handle::current().metrics().num_alive_tasks();
    let before = alive();
    for drains in [true, false] {
        let bench = connections(echo()).start().await;
        let mut client = bench.connect();
        client.send("x\n").await;
        assert_eq!(client.line().await, "x");
        assert!(alive() > before);
        if drains {
            let (drained, rest) = tokio::join!(bench.running.drain(Duration::from_secs(30)), async {
                let rest = client.rest().await;
                drop(client);
                rest
            });
            assert_eq!((drained.finished, drained.cut, rest.as_str()), (1, 0, ""));
        } else {
            drop(bench);
            assert_eq!(client.rest().await, "");
        }
        settle().await;
        assert_eq!(alive(), before);
    }
}

#[tokio::test]
async fn a_worker_that_goes_closes_its_connections_and_says_so() {
    let worker = Builder::new_current_thread().enable_all().build().unwrap();
    let server = Server::new().workers(vec![worker.handle().clone()]);
    let bench = Bench::serve(server, connections(echo())).await;
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::spawn(move || {
        let _: Result<(), _> = worker.block_on(stopped);
        worker
    });
    let mut first = bench.connect();
    first.send("x\n").await;
    assert_eq!(first.line().await, "x");
    stop.send(()).unwrap();
    let worker = thread.join().unwrap();
    // One that the worker has not begun yet goes with it as well, and so does one that comes after it.
    let mut waiting = bench.connect();
    yield_now().await;
    worker.shutdown_background();
    let mut late = bench.connect();
    for client in [&mut first, &mut waiting, &mut late] {
        assert_eq!(client.rest().await, "");
    }
    assert_eq!(bench.counters().get("session.closed", "cut"), 1);
    let drained = bench.running.drain(Duration::from_secs(30)).await;
    assert_eq!((drained.finished, drained.cut), (0, 1));
}

/// A session has the watch of the one that was in its place before, which asked to be woken at another moment.
#[tokio::test(start_paused = true)]
async fn a_session_ends_at_its_own_time_whoever_had_its_place_before() {
    let lasting = || connections(echo()).limits("idle-timeout=60s");
    let bench = Bench::serve_two(Server::new(), lasting(), connections(echo()).limits("idle-timeout=5s")).await;
    for second in [false, true, false] {
        let mut former = bench.connect();
        former.send("x\n").await;
        assert_eq!(former.line().await, "x");
        sleep(Duration::from_secs(30)).await;
        drop(former);
        settle().await;
        let (mut client, limit) = if second { (bench.connect_to_second(), 5) } else { (bench.connect(), 60) };
        let start = Instant::now();
        assert_eq!(client.rest().await, "");
        assert_eq!(start.elapsed().as_secs(), limit);
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_a_session_in_a_place_that_was_another_s() {
    let bench = connections(echo()).start().await;
    for _ in 0..2 {
        let mut former = bench.connect();
        former.send("x\n").await;
        assert_eq!(former.line().await, "x");
        drop(former);
        settle().await;
    }
    let mut client = bench.connect();
    client.send("x\n").await;
    assert_eq!(client.line().await, "x");
    let drained = bench.running.drain(Duration::from_secs(30)).await;
    assert_eq!((drained.finished, drained.cut), (1, 0));
    assert_eq!(client.rest().await, "");
}

/// What an idle connection costs is this future, what its link and its handler hold, and little else.
#[test]
fn the_future_of_a_connection_is_small() {
    fn size_of_future<A, B, F: Future>(_: fn(A, B) -> F) -> usize {
        // As a crew holds it.
        size_of::<Option<F>>()
    }
    let size = size_of_future(connection::run);
    assert!(size <= 232, "{size} bytes");
}
