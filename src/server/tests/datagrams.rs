//! Datagram sockets: shared sessions, sessions per peer, the bounds of both.

use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use nix::errno::Errno;
use tokio::io::AsyncReadExt;

use super::super::listening::Hub;
use super::scripted::{datagrams, settle};
use crate::address::Address;
use crate::error::Result;
use crate::handler::{Handler, Sessions, reply_fn};
use crate::session::Session;

const A: &str = "192.168.0.1:40001";
const B: &str = "192.168.0.2:40002";
const STRANGER: &str = "203.0.113.9:40000";

/// Counts the messages of each peer.
struct Counting;

#[async_trait]
impl Handler for Counting {
    async fn serve(&self, session: &mut Session) -> Result<()> {
        let mut count = 0;
        while let Some(message) = session.recv().await? {
            count += 1;
            assert!(message != "panic", "as it was told");
            if message == "work" {
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
            if message == "leave" {
                break;
            }
            session.send(format!("{count}").as_bytes()).await?;
        }
        session.send(b"goodbye").await
    }
}

fn echo() -> impl Handler {
    reply_fn(|message| {
        assert!(message != b"panic", "as it was told");
        message.to_vec()
    })
}

#[tokio::test(start_paused = true)]
async fn a_shared_session_answers_whoever_spoke_last() {
    let bench = datagrams(echo()).start().await;
    bench.receive(A, b"a1");
    bench.receive(B, b"b1");
    bench.receive(A, b"a2");
    assert_eq!(bench.answers(A).await, ["a1", "a2"]);
    assert_eq!(bench.answers(B).await, ["b1"]);
}

#[tokio::test(start_paused = true)]
async fn a_shared_session_that_panics_is_begun_anew_and_the_others_lose_nothing() {
    let bench = datagrams(echo()).start().await;
    for _ in 0..10 {
        bench.receive(A, b"before");
        bench.receive(B, b"panic");
        bench.receive(A, b"after");
    }
    assert_eq!(bench.answers(A).await.len(), 20);
    assert_eq!(bench.counters().get("session.closed", "panicked"), 10);
}

#[tokio::test(start_paused = true)]
async fn datagrams_that_come_together_are_received_one_by_one_by_a_shared_session_and_by_one_of_their_own() {
    let shared = datagrams(echo()).start().await;
    shared.receive(B, b"b1");
    shared.receive_together(A, 2, b"a1a2a");
    shared.receive(B, b"b2");
    assert_eq!(shared.answers(A).await, ["a1", "a2", "a"]);
    assert_eq!(shared.answers(B).await, ["b1", "b2"]);
    let apart = datagrams(Counting).start().await;
    apart.receive_together(A, 2, b"a1a2a");
    assert_eq!(apart.answers(A).await, ["1", "2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn a_shared_session_that_panics_takes_only_one_of_those_that_came_together_with_it() {
    let bench = datagrams(echo()).start().await;
    bench.receive_together(A, 5, b"firstpaniclast.panic!");
    bench.receive(B, b"b");
    assert_eq!(bench.answers(A).await, ["first", "last.", "!"]);
    assert_eq!(bench.answers(B).await, ["b"]);
    assert_eq!(bench.counters().get("session.closed", "panicked"), 2);
}

/// Never receives: a shared session of it is over before it began.
struct Absent;

#[async_trait]
impl Handler for Absent {
    async fn serve(&self, _: &mut Session) -> Result<()> {
        Ok(())
    }

    fn sessions(&self) -> Sessions {
        Sessions::Shared
    }
}

#[tokio::test(start_paused = true)]
async fn a_shared_session_that_ends_at_once_is_not_begun_anew_in_a_spin() {
    let bench = datagrams(Absent).start().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let begun = bench.counters().total("session.opened");
    assert!((5..25).contains(&begun), "{begun} sessions");
}

#[tokio::test(start_paused = true)]
async fn each_peer_has_a_session_with_its_own_state() {
    let bench = datagrams(Counting).start().await;
    for _ in 0..3 {
        bench.receive(A, b"x");
    }
    bench.receive(B, b"x");
    assert_eq!(bench.answers(A).await, ["1", "2", "3"]);
    assert_eq!(bench.answers(B).await, ["1"]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_whose_session_is_over_begins_a_new_one() {
    let bench = datagrams(Counting).start().await;
    bench.receive(A, b"x");
    bench.receive(A, b"leave");
    assert_eq!(bench.answers(A).await, ["1", "goodbye"]);
    bench.receive(A, b"x");
    assert_eq!(bench.answers(A).await, ["1"]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_one_peer_s_session_leaves_the_others_alone() {
    let bench = datagrams(Counting).start().await;
    bench.receive(A, b"x");
    bench.receive(B, b"panic");
    bench.receive(A, b"x");
    assert_eq!(bench.answers(A).await, ["1", "2"]);
}

/// Leaves with a panic, whatever ends it.
struct Slamming;

struct Door;

impl Drop for Door {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "slam");
    }
}

#[async_trait]
impl Handler for Slamming {
    async fn serve(&self, session: &mut Session) -> Result<()> {
        let _door = Door;
        while let Some(message) = session.recv().await? {
            session.send(&message).await?;
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_what_a_cut_session_drops_leaves_the_others_alone() {
    let bench = datagrams(Slamming).limits("max-sessions=1").start().await;
    bench.receive(A, b"a");
    assert_eq!(bench.answers(A).await, ["a"]);
    bench.receive(B, b"b");
    assert_eq!(bench.answers(B).await, ["b"]);
    assert_eq!(bench.counters().get("session.closed", "evicted"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_session_that_ended_had_not_received_is_counted_as_lost() {
    let bench = datagrams(Counting).start().await;
    for payload in [&b"x"[..], b"leave", b"x", b"x"] {
        bench.receive(A, payload);
    }
    assert_eq!(bench.answers(A).await, ["1", "goodbye"]);
    assert_eq!(bench.counters().get("datagram.lost", "overflow"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_busy_peer_loses_its_own_datagrams_and_delays_nobody() {
    let bench = datagrams(Counting).start().await;
    bench.receive(A, b"work");
    settle().await;
    for _ in 0..100 {
        bench.receive(A, b"x");
    }
    bench.receive(B, b"x");
    assert_eq!(bench.answers(B).await, ["1"]);
    // The first one is being worked on, 64 wait, the rest is lost.
    assert_eq!(bench.counters().get("datagram.lost", "overflow"), 36);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(bench.answers(A).await.len(), 65);
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_s_session_expires() {
    let bench = datagrams(Counting).limits("idle-timeout=10s").start().await;
    bench.receive(A, b"x");
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(bench.answers(A).await, ["1", "goodbye"]);
    assert_eq!(bench.counters().get("session.closed", "idle-timeout"), 1);
}

/// Sends every second, whatever comes.
struct Talkative;

#[async_trait]
impl Handler for Talkative {
    async fn serve(&self, session: &mut Session) -> Result<()> {
        let (mut receiving, mut sending) = session.split();
        let talking = async {
            loop {
                sending.send(b"and another thing").await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let listening = async {
            while receiving.recv().await?.is_some() {}
            Ok(())
        };
        tokio::select! { ended = listening => ended, failed = talking => failed }
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_s_session_expires_however_much_it_is_sent() {
    let bench = datagrams(Talkative).limits("idle-timeout=60s").start().await;
    bench.receive(A, b"tell me");
    tokio::time::sleep(Duration::from_secs(50)).await;
    bench.receive(A, b"go on");
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(bench.counters().get("session.closed", "idle-timeout"), 0);
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(bench.counters().get("session.closed", "idle-timeout"), 1);
    assert!(bench.answers(A).await.len() >= 100);
}

#[tokio::test(start_paused = true)]
async fn in_a_full_table_the_peer_that_was_silent_for_longest_makes_room() {
    let bench = datagrams(Counting).limits("max-sessions=2").start().await;
    bench.receive(A, b"x");
    bench.receive(B, b"x");
    settle().await;
    for port in 1..10u16 {
        bench.receive(A, b"x");
        let passer_by = Address::Ip(std::net::SocketAddr::from(([192, 168, 1, 1], port + 1024)));
        bench.receive_bytes(passer_by, Bytes::from_static(b"x"));
        settle().await;
    }
    assert_eq!(bench.answers(A).await.last().unwrap(), "10", "who keeps talking keeps its session");
    assert_eq!(bench.counters().get("session.closed", "evicted"), 9);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_sources_hold_no_more_sessions_than_the_table_has() {
    let bench = datagrams(Counting).limits("max-sessions=100").start().await;
    for number in 0..100_000u32 {
        let source =
            Address::Ip(std::net::SocketAddr::from((std::net::Ipv4Addr::from(number.swap_bytes() | 0x0b), 5000)));
        bench.receive_bytes(source, Bytes::from_static(b"x"));
        if number % 1000 == 0 {
            settle().await;
            bench.sent().lock().unwrap().clear();
        }
    }
    settle().await;
    let counters = bench.counters();
    let open = counters.total("session.opened") - counters.total("session.closed");
    assert_eq!(open, 100);
}

#[tokio::test(start_paused = true)]
async fn cut_and_overlong_datagrams_are_counted_and_never_handed_on() {
    let bench = datagrams(echo()).limits("max-message=4").start().await;
    bench.receive_truncated(A);
    bench.receive(A, b"12345");
    bench.receive(A, b"1234");
    assert_eq!(bench.answers(A).await, ["1234"]);
    assert_eq!(bench.counters().get("datagram.lost", "too-long"), 2);
}

#[tokio::test(start_paused = true)]
async fn no_receive_error_ends_the_loop_or_makes_it_spin() {
    let bench = datagrams(echo()).start().await;
    let start = tokio::time::Instant::now();
    for _ in 0..640 {
        bench.receive_fails(Errno::ECONNREFUSED);
    }
    bench.receive(A, b"x");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.answers(A).await, ["x"]);
    assert_eq!(bench.counters().total("socket.failed"), 640);
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_stranger_gets_no_more_than_three_times_what_it_sent() {
    let long = reply_fn(|message| vec![b'x'; message.len() * 100]);
    let bench = datagrams(long).start().await;
    bench.receive(STRANGER, b"x");
    bench.receive(STRANGER, b"xx");
    bench.receive(A, b"xx");
    assert_eq!(bench.answers(STRANGER).await.iter().map(String::len).collect::<Vec<_>>(), [100]);
    assert_eq!(bench.answers(A).await[0].len(), 200);
    assert_eq!(bench.counters().get("datagram.lost", "amplification"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_responder_ignores_what_must_not_be_answered_and_counts_why() {
    let bench = datagrams(echo()).start().await;
    bench.receive("203.0.113.9:53", b"x");
    bench.receive("0.0.0.1:5000", b"x");
    for _ in 0..50 {
        bench.receive(STRANGER, b"x");
    }
    assert_eq!(bench.answers(STRANGER).await.len(), 40);
    assert_eq!(bench.counters().get("datagram.ignored", "service-port"), 1);
    assert_eq!(bench.counters().get("datagram.ignored", "not-unicast"), 1);
    assert_eq!(bench.counters().get("datagram.ignored", "rate"), 10);
}

#[tokio::test(start_paused = true)]
async fn the_rules_hold_for_each_of_the_datagrams_that_come_together() {
    let bench = datagrams(reply_fn(|message| vec![b'x'; message.len() * 100])).start().await;
    // The last of them is shorter: what may be said to the others is too long, to it not.
    bench.receive_together(STRANGER, 2, b"aabbc");
    assert_eq!(bench.answers(STRANGER).await.iter().map(String::len).collect::<Vec<_>>(), [100]);
    assert_eq!(bench.counters().get("datagram.lost", "amplification"), 2);
    bench.receive_together(STRANGER, 1, &[b'x'; 50]);
    assert_eq!(bench.answers(STRANGER).await.len(), 37);
    assert_eq!(bench.counters().get("datagram.ignored", "rate"), 13);
    bench.receive_together("203.0.113.9:53", 1, b"xxx");
    bench.receive(A, b"x");
    assert_eq!(bench.answers(A).await.len(), 1);
    assert_eq!(bench.counters().get("datagram.ignored", "service-port"), 3);
    let bench = datagrams(echo()).limits("max-message=2").start().await;
    bench.receive_together(A, 3, b"aaabbbcc");
    assert_eq!(bench.answers(A).await, ["cc"]);
    assert_eq!(bench.counters().get("datagram.lost", "too-long"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_drain_answers_what_came_and_ends() {
    for handler in [Box::new(echo()) as Box<dyn Handler>, Box::new(Counting)] {
        let bench = datagrams(Boxed(handler)).start().await;
        bench.receive(A, b"x");
        settle().await;
        let sent = bench.sent();
        let drained = bench.running.drain(Duration::from_secs(5)).await;
        assert_eq!((drained.finished, drained.cut), (1, 0));
        assert!(!sent.lock().unwrap().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_cuts_busy_peers_at_its_deadline() {
    let bench = datagrams(Counting).start().await;
    bench.receive(A, b"work");
    bench.receive(B, b"x");
    settle().await;
    let drained = bench.running.drain(Duration::from_secs(1)).await;
    assert_eq!((drained.finished, drained.cut), (1, 1));
}

struct Boxed(Box<dyn Handler>);

#[async_trait]
impl Handler for Boxed {
    async fn serve(&self, session: &mut Session) -> Result<()> {
        self.0.serve(session).await
    }

    fn sessions(&self) -> Sessions {
        self.0.sessions()
    }
}

/// Begins the drain with the first message of any peer.
struct LastOrders(Arc<OnceLock<Arc<Hub>>>);

#[async_trait]
impl Handler for LastOrders {
    async fn serve(&self, session: &mut Session) -> Result<()> {
        while let Some(message) = session.recv().await? {
            self.0.get().unwrap().shutdown.drain();
            session.send(&message).await?;
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_received_with_others_before_the_drain_is_answered() {
    let hub = Arc::new(OnceLock::new());
    let bench = datagrams(LastOrders(hub.clone())).start().await;
    assert!(hub.set(bench.running.hub.clone()).is_ok());
    // One batch, and more than is taken from it before the sessions are polled.
    for peer in 0..1000u16 {
        bench.receive_bytes(Address::Ip(([192, 168, 0, 1], 10_000 + peer).into()), Bytes::from_static(b"x"));
    }
    settle().await;
    assert_eq!(bench.sent().lock().unwrap().len(), 1000);
}

#[tokio::test]
async fn a_flood_of_datagrams_leaves_the_reactor_its_turn() {
    let bench = datagrams(Counting).start().await;
    let (near, mut far) = tokio::net::UnixStream::pair().unwrap();
    near.writable().await.unwrap();
    for _ in 0..50_000 {
        bench.receive(A, b"x");
    }
    near.try_write(b"x").unwrap();
    far.read_u8().await.unwrap();
    let served = bench.sent().lock().unwrap().len() as u64 + bench.counters().total("datagram.lost");
    assert!(served < 5_000, "{served} datagrams came first");
}

#[tokio::test(start_paused = true)]
async fn what_comes_in_one_batch_is_received_however_much_more_than_the_mailbox_holds_it_is() {
    let bench = datagrams(Counting).start().await;
    for _ in 0..1000 {
        bench.receive(A, b"x");
    }
    assert_eq!(bench.answers(A).await.len(), 1000);
    assert_eq!(bench.counters().total("datagram.lost"), 0);
}

/// Receives in a future that has a waker of its own, as those of a `FuturesUnordered` have.
struct Apart;

#[async_trait]
impl Handler for Apart {
    async fn serve(&self, session: &mut Session) -> Result<()> {
        loop {
            let mut receiving = std::iter::once(session.recv()).collect::<FuturesUnordered<_>>();
            let Some(Ok(Some(message))) = receiving.next().await else { return Ok(()) };
            drop(receiving);
            session.send(&message).await?;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_of_a_session_that_has_a_waker_of_its_own_is_woken_by_what_comes() {
    let bench = datagrams(Apart).start().await;
    for message in [b"1", b"2", b"3"] {
        bench.receive(A, message);
        settle().await;
    }
    assert_eq!(bench.answers(A).await, ["1", "2", "3"]);
}

/// Never waits: it is woken again as soon as it has run.
struct Restless;

#[async_trait]
impl Handler for Restless {
    async fn serve(&self, session: &mut Session) -> Result<()> {
        loop {
            let message = poll_fn(|cx| {
                cx.waker().wake_by_ref();
                session.poll_recv(cx)
            });
            if message.await?.is_none_or(|message| message == "leave") {
                return Ok(());
            }
        }
    }
}

#[tokio::test]
async fn a_session_that_never_waits_holds_up_neither_what_comes_nor_the_other_tasks() {
    let bench = datagrams(Restless).start().await;
    bench.receive(A, b"x");
    bench.receive(B, b"leave");
    while bench.counters().get("session.closed", "finished") == 0 {
        tokio::task::yield_now().await;
    }
}

/// Is woken by a thread of its own.
struct Helped;

#[async_trait]
impl Handler for Helped {
    async fn serve(&self, session: &mut Session) -> Result<()> {
        while let Some(message) = session.recv().await? {
            let (give, take) = tokio::sync::oneshot::channel();
            std::thread::spawn(move || give.send(message));
            session.send(&take.await.unwrap()).await?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_session_may_be_woken_by_another_thread() {
    let bench = datagrams(Helped).start().await;
    for round in 1..=100 {
        bench.receive(A, b"x");
        bench.receive(B, b"x");
        while bench.sent().lock().unwrap().len() < 2 * round {
            tokio::task::yield_now().await;
        }
    }
}

/// Says more at once than may wait to leave.
struct Verbose;

#[async_trait]
impl Handler for Verbose {
    async fn serve(&self, session: &mut Session) -> Result<()> {
        while session.recv().await?.is_some() {
            for number in 0..100_u32 {
                session.send(format!("{number:01000}").as_bytes()).await?;
            }
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_says_more_than_may_wait_to_leave_goes_on_once_it_has_left() {
    let bench = datagrams(Verbose).start().await;
    bench.receive(A, b"x");
    bench.receive(B, b"x");
    settle().await;
    for peer in [A, B] {
        let joined = bench.answers(peer).await.concat();
        let said: Vec<String> = (0..100).map(|number| format!("{number:01000}")).collect();
        assert_eq!(joined, said.concat());
    }
}
