//! The accept loop: its limits, and every kind of error.

use std::time::Duration;

use nix::errno::Errno;
use tokio::time::Instant;

use super::scripted::{Bench, connections, settle};
use crate::handler::{Handler, reply_fn};
use crate::server::Server;

fn echo() -> impl Handler {
    reply_fn(<[u8]>::to_vec)
}

#[tokio::test(start_paused = true)]
async fn a_connection_over_the_limit_is_closed_at_once_and_counted() {
    let bench = connections(echo()).limits("max-sessions=2").start().await;
    let (mut first, mut second) = (bench.connect(), bench.connect());
    let mut third = bench.connect();
    assert_eq!(third.rest().await, "");
    assert_eq!(bench.counters().get("connection.refused", "max-sessions"), 1);
    for client in [&mut first, &mut second] {
        client.send("x\n").await;
        assert_eq!(client.line().await, "x");
    }
    drop(first);
    settle().await;
    let mut fourth = bench.connect();
    fourth.send("x\n").await;
    assert_eq!(fourth.line().await, "x");
}

#[tokio::test(start_paused = true)]
async fn a_connection_over_the_limit_may_wait_in_the_backlog_instead() {
    let bench = connections(echo()).limits("max-sessions=1&when-full=wait").start().await;
    let mut first = bench.connect();
    first.send("x\n").await;
    assert_eq!(first.line().await, "x");
    let mut second = bench.connect();
    second.send("y\n").await;
    settle().await;
    assert_eq!(bench.counters().total("session.opened"), 1);
    drop(first);
    assert_eq!(second.line().await, "y");
    assert_eq!(bench.counters().total("connection.refused"), 0);
}

#[tokio::test(start_paused = true)]
async fn listeners_that_wait_hold_none_of_the_sessions_that_they_share() {
    for options in ["", "when-full=wait"] {
        let setup = || connections(echo()).limits(options);
        let bench = Bench::serve_two(Server::new().max_sessions(1), setup(), setup()).await;
        settle().await;
        for _ in 0..3 {
            let (mut first, mut second) = (bench.connect_to_second(), bench.connect());
            for client in [&mut first, &mut second] {
                client.send("x\n").await;
            }
            assert_eq!(first.line().await, "x");
            drop(first);
            if options.is_empty() {
                assert_eq!(second.line().await, "<end>");
            } else {
                assert_eq!(second.line().await, "x");
            }
            drop(second);
            settle().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_source_cannot_take_all_the_sessions() {
    let bench = connections(echo()).limits("max-sessions-per-ip=1").start().await;
    let mut first = bench.connect_from("198.51.100.7:1000");
    assert_eq!(bench.connect_from("198.51.100.7:1001").rest().await, "");
    let mut other = bench.connect_from("198.51.100.8:1000");
    for client in [&mut first, &mut other] {
        client.send("x\n").await;
        assert_eq!(client.line().await, "x");
    }
    assert_eq!(bench.counters().get("connection.refused", "max-sessions-per-ip"), 1);
}

#[tokio::test(start_paused = true)]
async fn errors_of_single_connections_are_skipped_at_once() {
    let bench = connections(echo()).start().await;
    let start = Instant::now();
    for errno in [Errno::ECONNABORTED, Errno::EPROTO, Errno::ENETUNREACH, Errno::EINTR] {
        bench.accept_fails(errno);
    }
    let mut client = bench.connect();
    client.send("x\n").await;
    assert_eq!(client.line().await, "x");
    assert!(start.elapsed() < Duration::from_millis(5));
    assert_eq!(bench.counters().get("accept.failed", "transient"), 4);
}

#[tokio::test(start_paused = true)]
async fn exhaustion_is_waited_out_longer_each_time_up_to_a_second() {
    let bench = connections(echo()).start().await;
    let start = Instant::now();
    for _ in 0..12 {
        bench.accept_fails(Errno::ENOMEM);
    }
    let mut client = bench.connect();
    client.send("x\n").await;
    assert_eq!(client.line().await, "x");
    // 5 + 10 + … + 640 ms, then 1 s each.
    let waited = start.elapsed().as_millis();
    assert!((1275 + 4000..1275 + 4100).contains(&waited), "{waited} ms");
    assert_eq!(bench.counters().get("accept.failed", "exhausted"), 12);
}

#[tokio::test(start_paused = true)]
async fn exhaustion_is_over_as_soon_as_a_session_ends() {
    let bench = connections(echo()).start().await;
    let mut first = bench.connect();
    first.send("x\n").await;
    assert_eq!(first.line().await, "x");
    // The eighth is waited out for 640 ms, from 635 ms on.
    for _ in 0..8 {
        bench.accept_fails(Errno::ENOBUFS);
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    let start = Instant::now();
    drop(first);
    let mut second = bench.connect();
    second.send("y\n").await;
    assert_eq!(second.line().await, "y");
    assert!(start.elapsed() < Duration::from_millis(50), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn at_the_end_of_descriptors_a_spare_one_lets_a_peer_see_a_close() {
    let bench = connections(echo()).start().await;
    bench.accept_fails(Errno::EMFILE);
    let mut client = bench.connect();
    assert_eq!(client.rest().await, "");
    assert_eq!(bench.counters().get("connection.refused", "no-descriptor"), 1);
    let mut next = bench.connect();
    next.send("x\n").await;
    assert_eq!(next.line().await, "x");
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_breaks_is_bound_again_and_its_sessions_go_on() {
    let bench = connections(echo()).start().await;
    let mut old = bench.connect();
    old.send("x\n").await;
    assert_eq!(old.line().await, "x");
    bench.accept_fails(Errno::EBADF);
    let mut new = bench.connect();
    new.send("y\n").await;
    assert_eq!(new.line().await, "y");
    old.send("x\n").await;
    assert_eq!(old.line().await, "x");
    assert_eq!(bench.counters().total("listener.rebound"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_breaks_time_and_again_is_given_up_and_the_server_ends() {
    let mut bench = connections(echo()).start().await;
    for _ in 0..6 {
        bench.accept_fails(Errno::EBADF);
    }
    bench.running.ended().await;
    assert_eq!(bench.counters().total("listener.rebound"), 5);
    assert_eq!(bench.counters().total("listener.failed"), 1);
    assert!(bench.running.drain(Duration::ZERO).await.failed);
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_cannot_be_bound_again_is_given_up() {
    let mut bench = connections(echo()).binds(1).start().await;
    bench.accept_fails(Errno::EBADF);
    bench.running.ended().await;
    assert_eq!(bench.counters().total("listener.failed"), 1);
}
