//! The arithmetic of a load, on the paused clock: what is known to stall shows, what is known to be lost is counted.

use std::sync::Arc;
use std::time::Duration;

use super::message::{Expectation, Source};
use super::report::Report;
use super::{Length, Load, Mode, Unreached, run};
use crate::faults::{Fate, Fates, Faults};
use crate::handler::{Handler, handler_fn};
use crate::registry::{Item, NoOptions, Registry};
use crate::server::Server;

const SECOND: Duration = Duration::from_secs(1);

fn load(mode: Mode, length: Length) -> Load {
    Load {
        mode,
        connections: 1,
        length,
        warm_up: Duration::ZERO,
        ramp: Duration::ZERO,
        patience: 2 * SECOND,
        greeting: Duration::ZERO,
        source: Source::Numbered(16),
        expectation: Expectation::Holds,
    }
}

async fn measure(endpoint: &str, handler: impl Handler + 'static, load: Load) -> Report {
    let handler: Arc<dyn Handler> = Arc::new(handler);
    let mut registry = Registry::builtin();
    registry.add_handler(Item::new("tried", "is tried"), move |_: NoOptions, _| Ok(handler.clone())).unwrap();
    let endpoint = endpoint.parse().unwrap();
    let service = registry.service(&endpoint, "tried").unwrap();
    let running = Server::new().serve(service).bind().await.unwrap().start();
    let report = run(registry.dialler(&endpoint).unwrap(), load, std::future::pending(), |_| {}).await.unwrap();
    drop(running);
    report
}

/// Echoes, and sleeps for a second before the reply to that message.
fn stalls_at(message: u64) -> impl Handler {
    handler_fn(move |session| {
        Box::pin(async move {
            let mut count = 0;
            while let Some(message_in) = session.recv().await? {
                if count == message {
                    tokio::time::sleep(SECOND).await;
                }
                count += 1;
                session.send(&message_in).await?;
            }
            Ok(())
        })
    })
}

#[tokio::test(start_paused = true)]
async fn a_stall_shows_in_all_requests_that_it_delays_when_the_load_is_open() {
    let mode = Mode::Open { rate: 100.0, precise: false };
    let report = measure("memory://stall?framing=lines", stalls_at(500), load(mode, Length::Time(10 * SECOND))).await;
    let counts = report.counts;
    assert_eq!((counts.sent, counts.answered, counts.missing), (1000, 1000, 0));
    // A hundred requests were due while it slept: the first waited for all of it, the last for next to nothing.
    let delayed: u64 = report.histogram.iter().filter(|(value, _)| *value > 5_000_000).map(|(_, count)| count).sum();
    assert!((98..=101).contains(&delayed), "{delayed}");
    assert!((890_000_000..=1_010_000_000).contains(&report.latency.p99), "{:?}", report.latency);
    assert!(report.latency.p50 < 5_000_000, "{:?}", report.latency);
}

#[tokio::test(start_paused = true)]
async fn a_closed_load_asks_a_stalling_server_less_often_and_meets_the_stall_once() {
    let mode = Mode::Closed { depth: 1 };
    let report = measure("memory://stall?framing=lines", stalls_at(500), load(mode, Length::Count(1000))).await;
    assert_eq!(report.counts.answered, 1000);
    let delayed: u64 = report.histogram.iter().filter(|(value, _)| *value > 5_000_000).map(|(_, count)| count).sum();
    assert_eq!(delayed, 1);
}

#[tokio::test(start_paused = true)]
async fn so_many_requests_are_sent_as_were_asked_for_over_all_connections() {
    for depth in [1, 7] {
        let load = Load { connections: 3, ..load(Mode::Closed { depth }, Length::Count(100)) };
        let report = measure("memory://count?framing=lines", crate::handlers::echo::Echo, load).await;
        assert_eq!((report.counts.sent, report.counts.answered), (100, 100));
        assert_eq!(report.connecting.count, 3);
        assert_eq!(report.failures(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_reply_is_counted_apart_from_the_latencies() {
    let load = Load {
        expectation: Expectation::text("Hello {message}"),
        ..load(Mode::Closed { depth: 2 }, Length::Count(50))
    };
    let report = measure("memory://wrong?framing=lines", crate::handlers::echo::Echo, load).await;
    assert_eq!((report.counts.wrong, report.counts.answered, report.latency.count), (50, 0, 0));
}

/// Of ten datagrams: the first is not answered, the second twice, the third after the fourth.
fn unreliable() -> impl Handler {
    handler_fn(move |session| {
        Box::pin(async move {
            let (mut count, mut held) = (0_u64, None);
            while let Some(message) = session.recv().await? {
                match count % 10 {
                    0 => {}
                    2 => held = Some(message),
                    _ => session.send(&message).await?,
                }
                match count % 10 {
                    1 => session.send(&message_again(count)).await?,
                    3 => {
                        if let Some(held) = held.take() {
                            session.send(&held).await?;
                        }
                    }
                    _ => {}
                }
                count += 1;
            }
            Ok(())
        })
    })
}

fn message_again(number: u64) -> Vec<u8> {
    let mut message = Vec::new();
    message.extend_from_slice(Source::Numbered(16).pattern().at(number));
    message
}

#[tokio::test(start_paused = true)]
async fn losses_duplicates_and_changes_of_order_are_counted_exactly() {
    let mode = Mode::Open { rate: 1000.0, precise: false };
    let report = measure("memory://udp?kind=datagrams", unreliable(), load(mode, Length::Count(1000))).await;
    let counts = report.counts;
    assert_eq!((counts.sent, counts.answered, counts.missing), (1000, 900, 100), "{counts:?}");
    assert_eq!((counts.duplicates, counts.reordered, counts.late, counts.unasked), (100, 100, 0, 0), "{counts:?}");
}

/// What becomes of so many messages and their replies on the first link to a listener with those faults: how many
/// replies come, and how many messages have none.
fn foretold(faults: &Faults, messages: u64) -> (u64, u64) {
    let (mut there, mut back) = (Fates::new(faults, 0), Fates::new(faults, 1));
    let copies = |fate: Fate| if fate.drop { 0 } else { 1 + u64::from(fate.duplicate) };
    let each: Vec<u64> = (0..messages).map(|_| (0..copies(there.draw())).map(|_| copies(back.draw())).sum()).collect();
    (each.iter().sum(), each.iter().filter(|replies| **replies == 0).count() as u64)
}

#[tokio::test(start_paused = true)]
async fn what_the_network_loses_is_what_the_load_misses() {
    for seed in 1..5 {
        let faults = Faults { seed, drop: 0.1, ..Faults::default() };
        let (replies, lost) = foretold(&faults, 2000);
        let endpoint = format!("memory://lossy?kind=datagrams&seed={seed}&drop=0.1");
        let load = load(Mode::Closed { depth: 4 }, Length::Count(2000));
        let counts = measure(&endpoint, crate::handlers::echo::Echo, load).await.counts;
        assert_eq!((counts.sent, counts.answered, counts.missing), (2000, replies, lost), "{counts:?}");
        assert_eq!((counts.wrong, counts.duplicates, counts.late, counts.unasked), (0, 0, 0, 0), "{counts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_network_doubles_is_counted_as_doubled() {
    for seed in 1..5 {
        let faults = Faults { seed, duplicate: 0.2, ..Faults::default() };
        let (replies, lost) = foretold(&faults, 1000);
        let endpoint = format!("memory://doubles?kind=datagrams&seed={seed}&duplicate=0.2");
        let mode = Mode::Open { rate: 1000.0, precise: false };
        let counts = measure(&endpoint, crate::handlers::echo::Echo, load(mode, Length::Count(1000))).await.counts;
        // Nobody waits for the copies of the very last replies.
        assert!((replies - 1000 - 3..=replies - 1000).contains(&counts.duplicates), "{counts:?}");
        assert_eq!((counts.sent, counts.answered, counts.missing, lost), (1000, 1000, 0, 0), "{counts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_the_network_changes_the_order_nothing_is_lost() {
    let endpoint = "memory://mixed?kind=datagrams&seed=3&reorder=0.1";
    let mode = Mode::Open { rate: 1000.0, precise: false };
    let counts = measure(endpoint, crate::handlers::echo::Echo, load(mode, Length::Count(1000))).await.counts;
    assert_eq!((counts.answered, counts.missing, counts.duplicates), (1000, 0, 0), "{counts:?}");
    // Each way holds back a tenth.
    assert!((120..=260).contains(&counts.reordered), "{counts:?}");
}

/// Echoes, but every seventh time with something else.
fn seventh_is_wrong() -> impl Handler {
    handler_fn(|session| {
        Box::pin(async move {
            let mut count = 0;
            while let Some(message) = session.recv().await? {
                count += 1;
                let mut reply = message.to_vec();
                if count % 7 == 0 {
                    reply.reverse();
                }
                session.send(&reply).await?;
            }
            Ok(())
        })
    })
}

#[tokio::test(start_paused = true)]
async fn replies_that_are_wrong_among_right_ones_are_found_one_by_one() {
    for framing in ["lines", "length16", "netstring", "fixed&size=16"] {
        let endpoint = format!("memory://seventh?framing={framing}");
        let load = load(Mode::Closed { depth: 16 }, Length::Count(700));
        let counts = measure(&endpoint, seventh_is_wrong(), load).await.counts;
        // A number that reads the same both ways is right either way.
        let palindromes = (1..=100_u64).filter(|seventh| {
            let text = format!("{:016}", seventh * 7 - 1);
            text.bytes().eq(text.bytes().rev())
        });
        let wrong = 100 - palindromes.count() as u64;
        assert_eq!((counts.answered, counts.wrong, counts.missing), (700 - wrong, wrong, 0), "{framing}: {counts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn replies_of_any_length_are_right_when_they_hold_the_message() {
    let varying = || {
        handler_fn(|session| {
            Box::pin(async move {
                let mut count = 0;
                while let Some(message) = session.recv().await? {
                    count += 1;
                    session.send_parts(&[&b"x".repeat(count % 5), &message, &b"y".repeat(count % 3)]).await?;
                }
                Ok(())
            })
        })
    };
    for endpoint in ["memory://v?framing=lines", "memory://v?framing=lines&split=0.5&coalesce=0.3&seed=5"] {
        let report = measure(endpoint, varying(), load(Mode::Closed { depth: 9 }, Length::Count(500))).await;
        assert_eq!((report.counts.answered, report.failures()), (500, 0), "{endpoint}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_framing_a_reply_ends_where_it_is_right() {
    let in_pieces = handler_fn(|session| {
        Box::pin(async move {
            let mut count = 0;
            while let Some(message) = session.recv().await? {
                count += 1;
                session.send(b"Hello ").await?;
                if count % 3 == 0 {
                    session.flush().await?;
                    tokio::time::sleep(SECOND / 1000).await;
                }
                session.send(&message).await?;
            }
            Ok(())
        })
    });
    let load = Load {
        expectation: Expectation::text("Hello {message}"),
        ..load(Mode::Closed { depth: 1 }, Length::Count(300))
    };
    let report = measure("memory://pieces", in_pieces, load).await;
    assert_eq!((report.counts.answered, report.failures(), report.counts.unasked), (300, 0, 0), "{:?}", report.counts);
}

#[tokio::test(start_paused = true)]
async fn what_is_due_and_finds_no_room_is_counted_as_not_sent() {
    let deaf = || handler_fn(|_| Box::pin(async move { std::future::pending().await }));
    let mode = Mode::Open { rate: 100.0, precise: false };
    let load = Load { source: Source::Numbered(32 * 1024), ..load(mode, Length::Time(10 * SECOND)) };
    let report = measure("memory://deaf?framing=length32", deaf(), load).await;
    let counts = report.counts;
    assert_eq!((counts.sent + counts.unsent, counts.answered), (1000, 0), "{counts:?}");
    assert!(counts.unsent > 900 && counts.missing == counts.sent, "{counts:?}");
    assert!(report.errors["timeout"] >= 3, "{:?}", report.errors);
}

#[tokio::test(start_paused = true)]
async fn what_is_due_just_before_the_end_is_still_sent_when_the_load_wakes_late() {
    // The last is due within the last millisecond, which is as exactly as tokio's clock wakes.
    let mode = Mode::Open { rate: 1500.0, precise: false };
    let load = load(mode, Length::Time(SECOND));
    let report = measure("memory://late?framing=lines", crate::handlers::echo::Echo, load).await;
    let counts = report.counts;
    assert_eq!((counts.answered, counts.unsent, report.failures()), (1500, 0, 0), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn an_open_load_keeps_its_schedule_when_connections_break() {
    let breaks = || {
        handler_fn(|session| {
            Box::pin(async move {
                for _ in 0..10 {
                    let Some(message) = session.recv().await? else { return Ok(()) };
                    session.send(&message).await?;
                }
                Ok(())
            })
        })
    };
    let mode = Mode::Open { rate: 100.0, precise: false };
    let report = measure("memory://breaks?framing=lines", breaks(), load(mode, Length::Time(10 * SECOND))).await;
    let counts = report.counts;
    assert_eq!(counts.sent + counts.unsent, 1000, "{counts:?}");
    assert_eq!(counts.answered + counts.missing, counts.sent, "{counts:?}");
    assert!(report.connecting.count >= 99, "{:?}", report.connecting);
    assert_eq!(report.reasons["failed"], "the server ended the connection");
}

#[tokio::test(start_paused = true)]
async fn connections_are_made_at_a_rate_and_their_latency_runs_from_when_they_were_due() {
    let mode = Mode::Connect { rate: Some(50.0), precise: false };
    let load = Load { connections: 4, ..load(mode, Length::Time(2 * SECOND)) };
    let report = measure("memory://rated?framing=lines", crate::handlers::echo::Echo, load).await;
    assert_eq!((report.counts.answered, report.counts.unsent, report.failures()), (100, 0, 0));
    assert!(report.latency.max < 5_000_000, "{:?}", report.latency);
}

#[tokio::test(start_paused = true)]
async fn each_connection_at_a_rate_is_made_when_it_is_due_the_first_too() {
    let greets_late = handler_fn(|session| {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            session.send(b"welcome").await?;
            session.recv().await.map(drop)
        })
    });
    let mode = Mode::Connect { rate: Some(50.0), precise: false };
    let load = Load { greeting: SECOND, ..load(mode, Length::Count(20)) };
    let report = measure("memory://greets-late?framing=lines", greets_late, load).await;
    assert_eq!((report.counts.answered, report.counts.unsent, report.failures()), (20, 0, 0));
    let least = report.histogram.iter().map(|(value, _)| *value).min();
    assert!(least >= Some(4_900_000), "{least:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_need_not_hold_its_message_answers_the_oldest_of_the_datagrams() {
    let says_ok = || {
        handler_fn(|session| {
            Box::pin(async move {
                while session.recv().await?.is_some() {
                    session.send(b"ok").await?;
                }
                Ok(())
            })
        })
    };
    for expectation in [Expectation::Anything, Expectation::text("ok")] {
        let load = Load { expectation, ..load(Mode::Closed { depth: 4 }, Length::Count(100)) };
        let report = measure("memory://says-ok?kind=datagrams", says_ok(), load).await;
        let counts = report.counts;
        assert_eq!((counts.answered, counts.unasked, report.failures()), (100, 0, 0), "{counts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_counted_load_ends_when_nothing_comes_any_more() {
    let left = Arc::new(std::sync::atomic::AtomicI64::new(5));
    let falls_silent = handler_fn(move |session| {
        let left = left.clone();
        Box::pin(async move {
            while let Some(message) = session.recv().await? {
                if left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) > 0 {
                    session.send(&message).await?;
                }
            }
            Ok(())
        })
    });
    let started = tokio::time::Instant::now();
    let load = load(Mode::Closed { depth: 1 }, Length::Count(1_000_000));
    let report = measure("memory://silent?framing=lines", falls_silent, load).await;
    assert!(started.elapsed() < 20 * SECOND);
    assert_eq!((report.counts.answered, report.complete), (5, false));
    assert!(report.counts.missing >= 1);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_is_stopped_tells_what_it_has() {
    let registry = Registry::builtin();
    let endpoint = "memory://stopped?framing=lines".parse().unwrap();
    let service = registry.service(&endpoint, "echo").unwrap();
    let running = Server::new().serve(service).bind().await.unwrap().start();
    let mode = Mode::Open { rate: 100.0, precise: false };
    let stop = tokio::time::sleep(2 * SECOND);
    let load = load(mode, Length::Time(60 * SECOND));
    let report = run(registry.dialler(&endpoint).unwrap(), load, stop, |_| {}).await.unwrap();
    drop(running);
    assert!(!report.complete && (1.9..2.1).contains(&report.seconds), "{}", report.seconds);
    assert!((199..=201).contains(&report.counts.answered) && report.failures() == 0, "{:?}", report.counts);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_first_is_waited_for_once() {
    let load = Load {
        greeting: SECOND,
        connections: 4,
        ..load(Mode::Connect { rate: None, precise: false }, Length::Count(40))
    };
    let report = measure("memory://quiet?framing=lines", crate::handlers::echo::Echo, load).await;
    assert_eq!(report.counts.answered, 40);
    assert!(report.connecting.max < 1_000_000, "{:?}", report.connecting);
}

#[tokio::test(start_paused = true)]
async fn a_greeting_that_is_known_to_come_is_no_reply_however_late_it_comes() {
    let count = std::sync::atomic::AtomicU32::new(0);
    let greets_later_and_later = handler_fn(move |session| {
        let late = SECOND / 10 * count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Box::pin(async move {
            tokio::time::sleep(late).await;
            session.send(b"welcome").await?;
            while let Some(message) = session.recv().await? {
                session.send(&message).await?;
            }
            Ok(())
        })
    });
    let load = Load {
        greeting: SECOND / 20,
        connections: 16,
        ..load(Mode::Open { rate: 100.0, precise: false }, Length::Time(2 * SECOND))
    };
    let report = measure("memory://later?framing=lines", greets_later_and_later, load).await;
    assert!(report.counts.answered > 0 && report.errors.is_empty(), "{report:?}");
    assert_eq!((report.counts.unasked, report.failures()), (0, 0), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn connections_are_counted_and_held() {
    let endpoint = "memory://held?framing=lines";
    let hold = Load { connections: 20, ..load(Mode::Idle, Length::Time(5 * SECOND)) };
    let report = measure(endpoint, crate::handlers::echo::Echo, hold).await;
    assert_eq!((report.open_at_end, report.connecting.count, report.failures()), (20, 20, 0));
    let connect = Load { connections: 4, ..load(Mode::Connect { rate: None, precise: false }, Length::Count(40)) };
    let report = measure(endpoint, crate::handlers::echo::Echo, connect).await;
    assert_eq!((report.counts.answered, report.latency.count, report.failures()), (40, 40, 0));
}

#[tokio::test(start_paused = true)]
async fn where_nobody_is_there_nothing_is_measured() {
    let registry = Registry::builtin();
    let dialler = registry.dialler(&"memory://nobody?framing=lines".parse().unwrap()).unwrap();
    let load = load(Mode::Closed { depth: 1 }, Length::Time(SECOND));
    let unreached = run(dialler, load, std::future::pending(), |_| {}).await.unwrap_err();
    assert!(matches!(unreached, Unreached::Failed(_)), "{unreached:?}");
}
