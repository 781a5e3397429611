//! The clocks, the drain and the panics of single conversations.

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::scripted::{Knock, connections, datagrams, settle};
use crate::address::Address;
use crate::error::Result;
use crate::handler::{Handler, handler_fn, reply_fn};
use crate::session::Session;

fn echo() -> impl Handler {
    reply_fn(<[u8]>::to_vec)
}

/// Answers, and says goodbye when the conversation ends.
struct Polite;

#[async_trait]
impl Handler for Polite {
    async fn serve(&self, session: &mut Session) -> Result<()> {
        while let Some(message) = session.recv().await? {
            session.send(&message).await?;
        }
        session.send(b"goodbye").await
    }
}

/// Works for as many seconds as each message says.
struct Slow;

#[async_trait]
impl Handler for Slow {
    async fn serve(&self, session: &mut Session) -> Result<()> {
        while let Some(message) = session.recv().await? {
            let seconds = std::str::from_utf8(&message).unwrap().parse().unwrap();
            session.send(b"working").await?;
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            session.send(b"done").await?;
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_is_written_when_the_handler_waits_for_something_else() {
    let bench = connections(Slow).start().await;
    let mut client = bench.connect();
    let start = Instant::now();
    client.send("30\n").await;
    assert_eq!(client.line().await, "working");
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(client.line().await, "done");
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_ends_after_the_idle_time_and_its_handler_may_say_goodbye() {
    let bench = connections(Polite).limits("idle-timeout=60s").start().await;
    let mut client = bench.connect();
    let start = Instant::now();
    tokio::time::advance(Duration::from_secs(50)).await;
    client.send("still here\n").await;
    assert_eq!(client.line().await, "still here");
    assert_eq!(client.rest().await, "goodbye\n");
    let lasted = start.elapsed();
    assert!((Duration::from_secs(110)..Duration::from_secs(111)).contains(&lasted), "{lasted:?}");
    drop(client);
    settle().await;
    assert_eq!(bench.counters().get("session.closed", "idle-timeout"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_byte_a_second_that_never_completes_a_message_holds_no_session_open() {
    let bench = connections(echo()).limits("idle-timeout=10s").start().await;
    let mut client = bench.connect();
    let start = Instant::now();
    for _ in 0..9 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.send("x").await;
    }
    assert_eq!(client.rest().await, "");
    assert!(start.elapsed() < Duration::from_secs(11), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_works_is_not_idle() {
    let bench = connections(Slow).limits("idle-timeout=5s").start().await;
    let mut client = bench.connect();
    client.send("60\n").await;
    assert_eq!(client.line().await, "working");
    assert_eq!(client.line().await, "done");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_cut_by_the_write_clock() {
    let flood = handler_fn(|session| {
        Box::pin(async move {
            loop {
                session.send(&[b'x'; 1000]).await?;
            }
        })
    });
    let bench = connections(flood).limits("write-timeout=30s").start().await;
    let client = bench.connect();
    let start = Instant::now();
    while bench.counters().get("session.closed", "write-timeout") == 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(start.elapsed() < Duration::from_secs(32));
    }
    assert!(start.elapsed() >= Duration::from_secs(30));
    drop(client);
}

/// tokio lets a task that has used up its turn wait, and a timer that is asked then is not set.
#[tokio::test(start_paused = true)]
async fn the_clocks_run_also_where_a_handler_has_used_up_its_turn() {
    let busy = handler_fn(|session| {
        Box::pin(async move {
            while tokio::task::coop::has_budget_remaining() {
                tokio::task::consume_budget().await;
            }
            loop {
                session.send(&[b'x'; 1000]).await?;
            }
        })
    });
    let bench = connections(busy).limits("write-timeout=3s").start().await;
    let client = bench.connect();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(bench.counters().get("session.closed", "write-timeout"), 1);
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_slowly_is_served_as_long_as_it_reads() {
    let flood = handler_fn(|session| {
        Box::pin(async move {
            for _ in 0..400 {
                session.send(&[b'x'; 999]).await?;
            }
            Ok(())
        })
    });
    let bench = connections(flood).limits("write-timeout=30s").start().await;
    let mut client = bench.connect();
    let mut read = 0;
    while read < 400 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(client.line().await.len(), 999, "after {read} lines");
        read += 1;
    }
}

#[tokio::test(start_paused = true)]
async fn no_session_lasts_longer_than_the_total_time() {
    let bench = connections(echo()).limits("total-timeout=10s&idle-timeout=60s").start().await;
    let mut client = bench.connect();
    let start = Instant::now();
    for _ in 0..9 {
        client.send("x\n").await;
        assert_eq!(client.line().await, "x");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(client.rest().await, "");
    assert_eq!(start.elapsed().as_secs(), 10);
    settle().await;
    assert_eq!(bench.counters().get("session.closed", "total-timeout"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_has_one_clock_which_no_byte_arms_again_and_it_delays_nobody() {
    let bench = connections(echo()).layer(Knock).limits("handshake-timeout=5s").start().await;
    let mut silent = bench.connect();
    let mut dribbling = bench.connect();
    let mut quick = bench.connect();
    let start = Instant::now();
    quick.send("abcdhello\n").await;
    assert_eq!(quick.line().await, "hello");
    assert!(start.elapsed() < Duration::from_secs(1));
    for _ in 0..3 {
        dribbling.send("x").await;
        tokio::time::sleep(Duration::from_millis(1600)).await;
    }
    assert_eq!(dribbling.rest().await, "");
    assert_eq!(silent.rest().await, "");
    assert_eq!(start.elapsed().as_secs(), 5);
    assert_eq!(bench.counters().get("connection.refused", "handshake-timeout"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_panic_at_any_message_ends_its_own_session_alone() {
    for fatal in 0..20 {
        let fragile = reply_fn(move |message| {
            assert!(message != fatal.to_string().as_bytes(), "it is {fatal}");
            message.to_vec()
        });
        let bench = connections(fragile).start().await;
        let (mut victim, mut other) = (bench.connect(), bench.connect());
        for number in 0..=fatal {
            victim.send(&format!("{number}\n")).await;
        }
        let echoed: Vec<String> = (0..fatal).map(|number| number.to_string()).collect();
        let answered = victim.rest().await;
        assert_eq!(answered.lines().collect::<Vec<_>>(), echoed, "what was answered before arrives");
        other.send("and you?\n").await;
        assert_eq!(other.line().await, "and you?");
        drop(victim);
        settle().await;
        assert_eq!(bench.counters().get("session.closed", "panicked"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_over_the_limit_ends_the_session_and_is_counted() {
    let bench = connections(echo()).limits("max-message=1KiB").start().await;
    let mut client = bench.connect();
    client.send("fits\n").await;
    assert_eq!(client.line().await, "fits");
    client.send(&"x".repeat(2000)).await;
    assert_eq!(client.rest().await, "");
    drop(client);
    settle().await;
    assert_eq!(bench.counters().get("session.closed", "protocol"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_idle_sessions_at_once_and_lets_busy_ones_finish() {
    let bench = connections(Slow).start().await;
    let (mut idle, mut busy) = (bench.connect(), bench.connect());
    busy.send("7\n").await;
    assert_eq!(busy.line().await, "working");
    let start = Instant::now();
    let (drained, (), ()) = tokio::join!(
        bench.running.drain(Duration::from_secs(30)),
        async {
            assert_eq!(idle.rest().await, "");
            assert!(start.elapsed() < Duration::from_secs(1), "the idle one ends at once");
            drop(idle);
        },
        async {
            assert_eq!(busy.rest().await, "done\n");
            assert_eq!(start.elapsed().as_secs(), 7);
            drop(busy);
        }
    );
    assert_eq!((drained.finished, drained.cut, drained.failed), (2, 0, false));
}

#[tokio::test(start_paused = true)]
async fn a_drain_cuts_at_its_deadline_and_says_how_many() {
    let bench = connections(Slow).start().await;
    let mut clients = [bench.connect(), bench.connect(), bench.connect()];
    clients[0].send("1000\n").await;
    clients[1].send("1000\n").await;
    settle().await;
    let start = Instant::now();
    let [first, second, third] = clients;
    let third = tokio::spawn(async move { { third }.rest().await });
    let drained = bench.running.drain(Duration::from_secs(30)).await;
    assert_eq!((drained.finished, drained.cut), (1, 2));
    assert_eq!(start.elapsed().as_secs(), 30);
    assert_eq!(third.await.unwrap(), "");
    drop((first, second));
}

#[tokio::test(start_paused = true)]
async fn what_a_peer_sent_before_the_drain_is_still_answered() {
    let bench = connections(echo()).start().await;
    let mut client = bench.connect();
    client.send("one\ntwo\n").await;
    let (drained, rest) = tokio::join!(bench.running.drain(Duration::from_secs(30)), async {
        let rest = client.rest().await;
        drop(client);
        rest
    });
    assert_eq!(rest, "one\ntwo\n");
    assert_eq!((drained.finished, drained.cut), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_a_handler_s_other_link_is_no_disconnect_of_the_peer_who_still_gets_its_answers() {
    let relay = handler_fn(|session| {
        Box::pin(async move {
            let message = session.recv().await?.unwrap_or_default();
            session.send(&message).await?;
            Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into())
        })
    });
    let bench = connections(relay).start().await;
    let mut client = bench.connect();
    client.send("answer\n").await;
    assert_eq!(client.rest().await, "answer\n");
    drop(client);
    settle().await;
    assert_eq!(bench.counters().get("session.closed", "failed"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_stopped_waiting_for_a_message_is_not_idle() {
    let impatient = handler_fn(|session| {
        Box::pin(async move {
            let waited = tokio::time::timeout(Duration::from_secs(1), session.recv()).await;
            assert!(waited.is_err(), "nobody says anything");
            tokio::time::sleep(Duration::from_secs(60)).await;
            session.send(b"done").await
        })
    });
    let bench = connections(impatient).limits("idle-timeout=5s&write-timeout=1s").start().await;
    assert_eq!(bench.connect().line().await, "done");
}

#[tokio::test(start_paused = true)]
async fn a_drain_takes_all_that_waits_to_be_accepted() {
    let bench = connections(echo()).start().await;
    let mut clients: Vec<_> = (0..300).map(|_| bench.connect()).collect();
    let counters = bench.running.counters().total("session.opened");
    assert_eq!(counters, 0, "none is accepted yet");
    let (drained, ()) = tokio::join!(bench.running.drain(Duration::from_secs(30)), async {
        for client in &mut clients {
            assert_eq!(client.rest().await, "");
        }
    });
    assert_eq!((drained.finished, drained.cut), (300, 0));
}

/// Sends much while it receives, each in a future that is woken by itself.
struct Apart;

#[async_trait]
impl Handler for Apart {
    async fn serve(&self, session: &mut Session) -> Result<()> {
        let (mut receiving, mut sending) = session.split();
        let mut both = FuturesUnordered::<Pin<Box<dyn Future<Output = Result<()>> + Send>>>::new();
        both.push(Box::pin(async move { receiving.recv().await.map(drop) }));
        both.push(Box::pin(async move {
            for _ in 0..100 {
                sending.send(&[b'x'; 4096]).await?;
            }
            sending.finish().await
        }));
        while let Some(done) = both.next().await {
            done?;
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_woken_by_itself_hears_that_there_is_room_again() {
    let bench = connections(Apart).start().await;
    let mut client = bench.connect();
    settle().await;
    for _ in 0..100 {
        let line = tokio::time::timeout(Duration::from_secs(5), client.line()).await.expect("room was made");
        assert_eq!(line.len(), 4096);
        settle().await;
    }
}

/// Answers all but one, with whom it does not even begin: it fails before it has made a conversation.
fn moody(unwanted: Address) -> impl Handler {
    handler_fn(move |session| {
        assert!(session.peer().remote != unwanted, "it is unwanted");
        Box::pin(async move {
            while let Some(message) = session.recv().await? {
                session.send(&message).await?;
            }
            Ok(())
        })
    })
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_before_its_conversation_begins_ends_its_own_session_alone() {
    let bench = connections(moody(Address::named("unwanted"))).start().await;
    let mut other = bench.connect();
    assert_eq!(bench.connect_from("unwanted").rest().await, "");
    other.send("and you?\n").await;
    assert_eq!(other.line().await, "and you?");
    assert_eq!(bench.counters().get("session.closed", "panicked"), 1);

    let (unwanted, other) = ("127.0.0.1:40001", "127.0.0.1:40002");
    let bench = datagrams(moody(Address::Ip(unwanted.parse().unwrap()))).start().await;
    for (from, message) in [(other, b"1"), (unwanted, b"2"), (other, b"3")] {
        bench.receive(from, message);
        settle().await;
    }
    assert_eq!(bench.answers(other).await, ["1", "3"]);
    assert_eq!(bench.counters().get("session.closed", "panicked"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_keeps_its_order_among_what_is_pushed_also_where_the_pusher_came_before_the_conversation() {
    let pushes = handler_fn(|session| {
        let pusher = session.pusher();
        Box::pin(async move {
            session.send(b"sent").await?;
            pusher.try_push(&[b"pushed"]).unwrap();
            session.send(b"sent again").await
        })
    });
    let bench = connections(pushes).start().await;
    assert_eq!(bench.connect().rest().await, "sent\npushed\nsent again\n");
}
