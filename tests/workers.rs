//! Several workers, and one that looks rather than sleeps: the binary, as the kernel sees it.

#[path = "support/command.rs"]
#[expect(dead_code, reason = "each of the tests of the command line needs a part of it")]
mod command;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use command::{Daemon, greetd, until};
use greetd::session::Session;
use greetd::{Registry, Server, handler_fn};
use nix::sys::signal::Signal;
use tokio::runtime::Builder;

/// A connection that was greeted, so that a worker has it.
fn greeted(address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut welcome = [0; 7];
    client.read_exact(&mut welcome).unwrap();
    assert_eq!(&welcome, b"welcome");
    client
}

/// The sets of descriptors that each epoll instance of the daemon watches (proc(5), fdinfo): two a worker, the reactor's and
/// beneath it that of the connections. The one beneath is no connection.
fn watched(daemon: &Daemon) -> BTreeSet<BTreeSet<u32>> {
    let mut sets = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{}/fdinfo", daemon.pid())).unwrap() {
        let entry = entry.unwrap();
        let number: u32 = entry.file_name().to_str().unwrap().parse().unwrap();
        // A descriptor may be closed meanwhile.
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let targets =
            text.lines().filter_map(|line| line.strip_prefix("tfd:")?.split_whitespace().next()?.parse().ok());
        let set: BTreeSet<u32> = targets.collect();
        if !set.is_empty() {
            sets.insert(number, set);
        }
    }
    let instances: BTreeSet<u32> = sets.keys().copied().collect();
    sets.into_values().map(|set| &set - &instances).collect()
}

#[test]
fn connections_are_spread_evenly_and_each_stays_with_its_worker() {
    let (daemon, address) = Daemon::serving(&["--bind", "127.0.0.1:0", "--workers", "2"]);
    let before = watched(&daemon);
    let mut clients: Vec<_> = (0..40).map(|_| greeted(address)).collect();
    let sessions = || {
        let known: BTreeSet<u32> = before.iter().flatten().copied().collect();
        watched(&daemon).iter().map(|set| set.difference(&known).copied().collect()).collect::<Vec<BTreeSet<u32>>>()
    };
    let spread = sessions();
    let sizes: Vec<_> = spread.iter().map(BTreeSet::len).filter(|size| *size > 0).collect();
    assert_eq!(sizes, [20, 20], "one worker each other connection");
    for client in &mut clients {
        client.write_all(b"Genji").unwrap();
        let mut answer = [0; 11];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"Hello Genji");
    }
    assert_eq!(sessions(), spread, "none has moved");
}

/// Each holds its thread until the other one is held too: on one thread neither would ever be answered.
#[test]
fn two_workers_work_at_the_same_time() {
    let runtimes: Vec<_> =
        (0..2).map(|_| Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()).collect();
    let both = Arc::new(Barrier::new(2));
    let meet = handler_fn(move |session: &mut Session| {
        let both = both.clone();
        Box::pin(async move {
            session.send(b"welcome").await?;
            let message = session.recv().await?.unwrap_or_default();
            both.wait();
            session.send(&message).await
        })
    });
    let service =
        Registry::builtin().service_of(&"tcp://127.0.0.1:0".parse().unwrap(), "meet", Arc::new(meet)).unwrap();
    let handles = runtimes.iter().map(|runtime| runtime.handle().clone()).collect();
    let bound = runtimes[0].block_on(Server::new().workers(handles).serve(service).bind()).unwrap();
    let address = bound.listeners()[0].address.ip().unwrap();
    let _context = runtimes[0].enter();
    let _running = bound.start();
    let mut clients = [greeted(address), greeted(address)];
    for client in &mut clients {
        client.write_all(b"now").unwrap();
    }
    for client in &mut clients {
        client.read_exact(&mut [0; 3]).unwrap();
    }
}

#[test]
fn however_many_workers_there_are_the_port_is_held_by_one_socket() {
    let (_daemon, address) = Daemon::serving(&["--bind", "127.0.0.1:0", "--workers", "4"]);
    let second = greetd(&["--bind", &address.to_string(), "--workers", "4"]);
    assert_eq!((second.code, second.verdict()), (15, "in-use"), "{}", second.stderr);
}

/// How many connections wait to be accepted at that port (proc(5), net/tcp: what a listening socket has received).
fn waiting_at(address: SocketAddr) -> u32 {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{:04X}", address.port());
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let queues = rows.filter(|row| row[1].ends_with(&port) && row[3] == "0A").map(|row| row[4]).next().unwrap();
    u32::from_str_radix(queues.split_once(':').unwrap().1, 16).unwrap()
}

#[test]
fn a_shutdown_of_several_workers_loses_nobody_who_had_connected() {
    let (daemon, address) = Daemon::serving(&["--bind", "127.0.0.1:0", "--workers", "2"]);
    let mut clients: Vec<_> = (0..10).map(|_| greeted(address)).collect();
    // The others come while it does not run, and wait to be accepted.
    daemon.signal(Signal::SIGSTOP);
    clients.extend((0..40).map(|_| TcpStream::connect(address).unwrap()));
    for client in &mut clients {
        client.write_all(b"Genji").unwrap();
    }
    until("all of them wait", || waiting_at(address) == 40);
    daemon.signal(Signal::SIGTERM);
    daemon.signal(Signal::SIGCONT);
    for (index, mut client) in clients.into_iter().enumerate() {
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut all = String::new();
        let read = client.read_to_string(&mut all);
        assert!(read.is_ok(), "client {index}: {read:?} after {all:?}");
        assert_eq!(all, if index < 10 { "Hello Genji" } else { "welcomeHello Genji" });
    }
    assert_eq!(daemon.stop().code, 0);
}

#[test]
fn a_busy_worker_sleeps_when_nothing_has_come_for_as_long_as_was_asked() {
    let (daemon, address) = Daemon::serving(&["--bind", "127.0.0.1:0", "--workers", "1", "--busy-poll", "20ms"]);
    let mut client = greeted(address);
    for _ in 0..100 {
        client.write_all(b"Genji").unwrap();
        client.read_exact(&mut [0; 11]).unwrap();
    }
    let asleep = || fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap().contains(") S ");
    until("it sleeps", || {
        let spent = daemon.cpu_time();
        std::thread::sleep(Duration::from_millis(100));
        asleep() && daemon.cpu_time() == spent
    });
    client.write_all(b"Hanzo").unwrap();
    client.read_exact(&mut [0; 11]).unwrap();
}

#[test]
fn nobody_is_kept_awake_for_ever() {
    let refused = greetd(&["--busy-poll", "1m"]);
    assert_eq!((refused.code, refused.verdict()), (2, "usage"));
    assert!(refused.stderr.contains("1s or less"), "{}", refused.stderr);
}
