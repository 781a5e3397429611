//! The arithmetic of a load, on the paused clock: what is known to stall shows, what is known to be lost is counted.

use std::sync::Arc;
use std::time::Duration;

use super::message::{Expectation, Source};
use super::report::Report;
use super::{Length, Load, Mode, Unreached, run};
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

#[tokio::test(start_paused = true)]
async fn what_the_network_loses_is_what_the_load_misses() {
    let mode = Mode::Closed { depth: 4 };
    let endpoint = "memory://lossy?kind=datagrams&seed=7&drop=0.1";
    let report = measure(endpoint, crate::handlers::echo::Echo, load(mode, Length::Count(2000))).await;
    let counts = report.counts;
    assert_eq!((counts.sent, counts.answered + counts.missing, counts.wrong), (2000, 2000, 0), "{counts:?}");
    // Each way loses a tenth: nineteen in a hundred.
    assert!((300..460).contains(&counts.missing), "{counts:?}");
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
