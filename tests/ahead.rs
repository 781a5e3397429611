//! What was read ahead for sessions, and what comes behind it: nothing is lost, whenever they ask for it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use greetd::session::Session;
use greetd::{Handler, Registry, Result, Server, handler_fn, reply_fn};
use tokio::sync::Notify;
use tokio::time::sleep;

/// What all sessions that are over were told to have received and sent.
#[derive(Default)]
struct Sum(Mutex<(u64, [u64; 4])>);

impl greetd::event::Observer for Sum {
    fn observe(&self, event: &greetd::event::Event<'_>) {
        if let greetd::event::Event::SessionClosed { totals, .. } = event {
            let mut sum = self.0.lock().unwrap();
            sum.0 += 1;
            let these = [totals.messages_in, totals.messages_out, totals.bytes_in, totals.bytes_out];
            for (sum, more) in sum.1.iter_mut().zip(these) {
                *sum += more;
            }
        }
    }
}

/// A server within this thread's runtime, whose sessions are a crew.
async fn serve(handler: impl Handler + 'static) -> (greetd::server::Running, SocketAddr) {
    serve_observed(handler, Arc::new(Sum::default())).await
}

async fn serve_observed(handler: impl Handler + 'static, sum: Arc<Sum>) -> (greetd::server::Running, SocketAddr) {
    let endpoint = "tcp://127.0.0.1:0?framing=lines".parse().unwrap();
    let service = Registry::builtin().service_of(&endpoint, "handler", Arc::new(handler)).unwrap();
    let bound = Server::new().observer(sum).serve(service).bind().await.unwrap();
    let address = bound.listeners()[0].address.ip().unwrap();
    (bound.start(), address)
}

struct Client(TcpStream);

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Client(stream)
    }

    fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).unwrap();
    }

    /// All that comes until it ends in that, or for ten seconds, or to the end.
    async fn hears(&mut self, end: &str) -> String {
        self.0.set_nonblocking(true).unwrap();
        let mut heard = String::new();
        for _ in 0..1000 {
            let mut bytes = [0; 4096];
            match self.0.read(&mut bytes) {
                Ok(0) => return heard + "<end>",
                Ok(count) => heard.push_str(std::str::from_utf8(&bytes[..count]).unwrap()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if heard.ends_with(end) && !end.is_empty() {
                        return heard;
                    }
                    sleep(Duration::from_millis(10)).await;
                }
                Err(error) => return format!("{heard}<{error}>"),
            }
        }
        heard + "<nothing>"
    }
}

async fn pause() {
    sleep(Duration::from_millis(30)).await;
}

/// Answers, but does not look at its session while it works.
fn works_until(gate: Arc<Notify>) -> impl Handler {
    handler_fn(move |session: &mut Session| {
        let gate = gate.clone();
        Box::pin(async move {
            while let Some(message) = session.recv().await? {
                if message == "work" {
                    gate.notified().await;
                }
                session.send(&message).await?;
            }
            Ok(())
        })
    })
}

/// The first of two clients, which works; for both of them something came together.
async fn at_work(then: impl FnOnce(&mut Client)) -> (greetd::server::Running, Client, Arc<Notify>) {
    let gate = Arc::new(Notify::new());
    let (running, address) = serve(works_until(gate.clone())).await;
    let (mut one, mut other) = (Client::connect(address), Client::connect(address));
    for client in [&mut one, &mut other] {
        client.send("x\n");
        assert_eq!(client.hears("x\n").await, "x\n");
    }
    one.send("work\n");
    pause().await;
    // Without a turn of the server in between, so that both sessions are woken together.
    then(&mut one);
    other.send("y\n");
    assert_eq!(other.hears("y\n").await, "y\n");
    pause().await;
    (running, one, gate)
}

#[tokio::test]
async fn what_comes_behind_what_was_read_ahead_while_the_handler_works_is_answered() {
    let (_running, mut one, gate) = at_work(|one| one.send("b\n")).await;
    one.send("c\n");
    pause().await;
    gate.notify_one();
    assert_eq!(one.hears("c\n").await, "work\nb\nc\n");
}

#[tokio::test]
async fn the_end_behind_what_was_read_ahead_while_the_handler_works_is_seen() {
    let (_running, mut one, gate) = at_work(|one| {
        one.send("b\n");
        one.0.shutdown(Shutdown::Write).unwrap();
    })
    .await;
    gate.notify_one();
    assert_eq!(one.hears("").await, "work\nb\n<end>");
}

#[tokio::test]
async fn what_comes_later_than_what_was_lost_is_answered_at_least() {
    let (_running, mut one, gate) = at_work(|one| one.send("b\n")).await;
    one.send("c\n");
    pause().await;
    gate.notify_one();
    pause().await;
    for _ in 0..5 {
        one.send("d\n");
        pause().await;
    }
    assert_eq!(one.hears("d\n").await, "work\nb\nc\nd\nd\nd\nd\nd\n");
}

/// What the kernel holds for the sessions of a port.
#[cfg(target_os = "linux")]
fn unread(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let fields = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let established = fields.filter(|fields| fields[1].ends_with(&format!(":{port:04X}")) && fields[3] == "01");
    established.map(|fields| u64::from_str_radix(&fields[4][9..], 16).unwrap()).sum()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_has_come_for_those_that_wait_is_read_before_the_first_of_them_runs_each_time() {
    let (port, seen) = (Arc::new(AtomicU16::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (at, note) = (port.clone(), seen.clone());
    let noting = reply_fn(move |message| {
        note.lock().unwrap().push(unread(at.load(Ordering::Relaxed)));
        message.to_vec()
    });
    let (_running, address) = serve(noting).await;
    port.store(address.port(), Ordering::Relaxed);
    let mut clients: Vec<_> = (0..8).map(|_| Client::connect(address)).collect();
    pause().await;
    for round in 0..4 {
        for client in &mut clients {
            client.send("x\n");
        }
        for client in &mut clients {
            assert_eq!(client.hears("x\n").await, "x\n");
        }
        assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), [0; 8], "in round {round}");
    }
}

/// Receives in a future that has a waker of its own, and is run by a timer as well.
fn receives_apart(tick: Arc<Notify>) -> impl Handler {
    handler_fn(move |session: &mut Session| {
        let tick = tick.clone();
        Box::pin(async move {
            loop {
                let message = {
                    let mut parts = FuturesUnordered::<Pin<Box<dyn Future<Output = Result<_>> + Send>>>::new();
                    parts.push(Box::pin(session.recv()));
                    loop {
                        tokio::select! {
                            Some(message) = parts.next() => break message?,
                            // What else it has to do from time to time.
                            () = tick.notified() => {}
                        }
                    }
                };
                let Some(message) = message else { return Ok(()) };
                session.send(&message).await?;
            }
        })
    })
}

#[tokio::test]
async fn a_session_that_is_run_for_something_else_still_wakes_the_future_that_receives() {
    let tick = Arc::new(Notify::new());
    let (_running, address) = serve(receives_apart(tick.clone())).await;
    let (mut one, mut other) = (Client::connect(address), Client::connect(address));
    for round in 0..3 {
        for client in [&mut one, &mut other] {
            client.send("x\n");
            assert_eq!(client.hears("x\n").await, "x\n", "in round {round}");
        }
        // Both sessions are woken together, and nothing has come for them.
        tick.notify_waiters();
        pause().await;
    }
}

/// Nothing is lost whatever sizes things come in.
#[tokio::test]
async fn bursts_around_what_is_read_ahead_are_all_answered() {
    let (_running, address) = serve(reply_fn(<[u8]>::to_vec)).await;
    let mut clients: Vec<_> = (0..20).map(|_| Client::connect(address)).collect();
    for client in &mut clients {
        client.send("x\n");
        assert_eq!(client.hears("x\n").await, "x\n");
    }
    for size in [1, 2, 4094, 4095, 4096, 4097, 4098, 8191, 8192, 8193] {
        for (index, client) in clients.iter_mut().enumerate() {
            let line = "a".repeat(if size > 8192 { 4000 } else { size - 1 }) + "\n";
            client.send(&line);
            client.send(&format!("{index}\n"));
        }
        for (index, client) in clients.iter_mut().enumerate() {
            let heard = client.hears(&format!("\n{index}\n")).await;
            assert!(heard.ends_with(&format!("\n{index}\n")), "{size}: {} bytes", heard.len());
        }
    }
    for (index, client) in clients.iter_mut().enumerate() {
        client.send(&"a".repeat(4096 - index));
        client.0.shutdown(Shutdown::Write).unwrap();
    }
    for (index, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.hears("").await.len(), 4096 - index + "\n<end>".len());
    }
}

/// Answers each message in one of many ways, as a stream of numbers has it.
fn strange() -> impl Handler {
    use std::sync::atomic::{AtomicU64, Ordering};
    static SEED: AtomicU64 = AtomicU64::new(1);
    handler_fn(|session: &mut Session| {
        let mut state = SEED.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        Box::pin(async move {
            let mut roll = move |sides: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % sides
            };
            loop {
                let message = match roll(8) {
                    0 => {
                        let mut parts = FuturesUnordered::<Pin<Box<dyn Future<Output = Result<_>> + Send>>>::new();
                        parts.push(Box::pin(session.recv()));
                        loop {
                            tokio::select! {
                                Some(message) = parts.next() => break message?,
                                () = sleep(Duration::from_millis(1)) => {}
                            }
                        }
                    }
                    1 => loop {
                        tokio::select! {
                            message = session.recv() => break message?,
                            () = sleep(Duration::from_millis(roll(3))) => {}
                        }
                        if roll(2) == 0 {
                            sleep(Duration::from_millis(roll(3))).await;
                        }
                    },
                    2 => {
                        let mut left = roll(5) + 1;
                        let mut seen = 0;
                        session
                            .answer(|exchange| {
                                exchange.reply(&[exchange.message()])?;
                                (left, seen) = (left - 1, seen + 1);
                                if left == 0 {
                                    exchange.end();
                                }
                                Ok(())
                            })
                            .await?;
                        if left > 0 {
                            return Ok(());
                        }
                        continue;
                    }
                    3 => {
                        let (mut receiving, mut sending) = session.split();
                        let Some(message) = receiving.recv().await? else { return Ok(()) };
                        sending.send(&message).await?;
                        if roll(2) == 0 {
                            sending.flush().await?;
                        }
                        continue;
                    }
                    4 => {
                        tokio::task::yield_now().await;
                        session.recv().await?
                    }
                    _ => session.recv().await?,
                };
                let Some(message) = message else { return Ok(()) };
                match roll(12) {
                    0 => sleep(Duration::from_millis(roll(4))).await,
                    1 => {
                        while tokio::task::coop::has_budget_remaining() {
                            tokio::task::consume_budget().await;
                        }
                    }
                    2 if roll(40) == 0 => {
                        let pusher = session.pusher();
                        pusher.push(&[&message]).await.unwrap();
                        continue;
                    }
                    3 => {
                        session.send(&message).await?;
                        session.flush().await?;
                        sleep(Duration::from_millis(roll(3))).await;
                        continue;
                    }
                    _ => {}
                }
                session.send(&message).await?;
            }
        })
    })
}

#[tokio::test]
async fn whatever_handlers_do_each_peer_has_all_its_answers_in_order_and_the_end() {
    each_peer_has_all_its_answers().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_handlers_do_each_peer_has_all_its_answers_also_where_each_session_is_a_task() {
    each_peer_has_all_its_answers().await;
}

async fn each_peer_has_all_its_answers() {
    let sum = Arc::new(Sum::default());
    let (_running, address) = serve_observed(strange(), sum.clone()).await;
    let (mut sessions, mut messages, mut bytes) = (0, 0, 0);
    for round in 0..40_u64 {
        let mut state = round.wrapping_mul(0x2545_f491_4f6c_dd1d) + 77;
        let mut roll = move |sides: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % sides
        };
        let mut clients: Vec<_> = (0..24).map(|_| (Client::connect(address), String::new(), String::new())).collect();
        for _ in 0..40 {
            for (client, sent, heard) in &mut clients {
                if roll(3) > 0 {
                    let size = [1, 3, 30, 4094, 4095, 4096, 4097][roll(7) as usize];
                    let text = if roll(4) == 0 {
                        "part".to_owned()
                    } else {
                        (0..=roll(3)).map(|_| "m".repeat(size % 1000) + "\n").collect()
                    };
                    client.send(&text);
                    sent.push_str(&text);
                }
                client.0.set_nonblocking(true).unwrap();
                let mut bytes = vec![0; 65536];
                if let Ok(count) = client.0.read(&mut bytes) {
                    heard.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
                }
                client.0.set_nonblocking(false).unwrap();
            }
            if roll(2) == 0 {
                sleep(Duration::from_millis(roll(4))).await;
            }
        }
        for (client, sent, _) in &mut clients {
            let last = if roll(2) == 0 { "last\n" } else { "last" };
            client.send(last);
            sent.push_str("last\n");
            client.0.shutdown(Shutdown::Write).unwrap();
        }
        for (index, (client, sent, heard)) in clients.iter_mut().enumerate() {
            heard.push_str(&client.hears("").await);
            assert_eq!(
                (heard.len(), &heard[heard.len().saturating_sub(30)..]),
                (sent.len() + 5, &(sent.clone() + "<end>")[(sent.len() + 5).saturating_sub(30)..]),
                "client {index} in round {round}"
            );
            assert!(*heard == sent.clone() + "<end>");
            let lines = sent.matches('\n').count() as u64;
            (sessions, messages, bytes) = (sessions + 1, messages + lines, bytes + sent.len() as u64 - lines);
        }
        drop(clients);
        pause().await;
        let counted = *sum.0.lock().unwrap();
        assert_eq!(counted, (sessions, [messages, messages, bytes, bytes]), "in round {round}");
    }
}
