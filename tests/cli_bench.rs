//! The load generator as a person or a script runs it: its modes, its files, its objectives, how it ends.

#[path = "support/command.rs"]
#[expect(dead_code, reason = "each of the tests of the command line needs a part of it")]
mod command;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;

use command::{Daemon, Ran, command, greetd};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

static FILES: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

fn file(name: &str, holds: &[u8]) -> String {
    let path: PathBuf = FILES.path().join(name);
    std::fs::write(&path, holds).unwrap();
    path.to_str().unwrap().to_owned()
}

fn path(name: &str) -> String {
    FILES.path().join(name).to_str().unwrap().to_owned()
}

fn serving(arguments: &[&str]) -> (Daemon, String) {
    let mut daemon = Daemon::start(arguments);
    let endpoint = daemon.endpoint();
    (daemon, endpoint)
}

/// An echo of lines.
fn lines() -> (Daemon, String) {
    serving(&["-l", "tcp://127.0.0.1:0?framing=lines=echo"])
}

/// A server that does this with each connection.
fn each(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(connection));
        }
    });
    format!("tcp://{address}")
}

/// Runs a load and gives its one object.
fn measured(arguments: &[&str]) -> Value {
    let ran = greetd(&[&["bench", "--json"], arguments].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.json()
}

fn count(report: &Value, name: &str) -> u64 {
    report["counts"][name].as_u64().unwrap_or_else(|| panic!("{name} in {report}"))
}

#[test]
fn so_many_requests_as_were_asked_for_are_sent_and_answered() {
    let (_daemon, endpoint) = lines();
    let report = measured(&[&endpoint, "-f", "lines", "-c", "3", "-d", "4", "-n", "500"]);
    assert_eq!((count(&report, "sent"), count(&report, "answered")), (500, 500), "{report}");
    assert_eq!(report["verdict"], "ok");
    assert_eq!(report["complete"], true);
    let histogram = report["histogram"].as_array().unwrap();
    assert_eq!(histogram.iter().map(|pair| pair[1].as_u64().unwrap()).sum::<u64>(), 500);
    assert_eq!(report["latency"]["count"], 500);
}

#[test]
fn the_result_in_words_has_units_percentiles_and_a_histogram() {
    let (_daemon, endpoint) = lines();
    let ran = greetd(&["bench", &endpoint, "-f", "lines", "-c", "2", "-n", "100"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for wanted in ["2 connections, closed", "replies a second", "100 in ", "MB/s", "p50", "p99.99", "max", "µs", "■"]
    {
        assert!(ran.stdout.contains(wanted), "{wanted}: {}", ran.stdout);
    }
    assert!(!ran.stdout.contains('\x1b') && !ran.stderr.contains('\x1b'), "{ran:?}");
}

#[test]
fn a_run_by_time_tells_each_second_in_a_plain_line() {
    let (_daemon, endpoint) = lines();
    let ran = greetd(&["bench", &endpoint, "-f", "lines", "-c", "1", "-z", "2100ms", "--warm-up", "100ms"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let told: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(told.len(), 2, "{ran:?}");
    assert!(told[1].trim_start().starts_with("2 s") && told[1].contains("/s  p50"), "{told:?}");
}

#[test]
fn the_hello_of_a_tutorial_is_measured_without_any_option() {
    let (_daemon, endpoint) = serving(&["-b", "127.0.0.1:0"]);
    let report = measured(&[&endpoint, "-n", "60", "--expect", "Hello {message}"]);
    assert_eq!((count(&report, "answered"), report["connecting"]["count"].as_u64()), (60, Some(50)), "{report}");
}

#[test]
fn a_rate_is_kept_and_latencies_run_from_when_requests_were_due() {
    let (_daemon, endpoint) = lines();
    let report = measured(&[&endpoint, "-f", "lines", "-c", "4", "--rate", "400", "-z", "500ms", "--warm-up", "50ms"]);
    let due = count(&report, "sent") + count(&report, "unsent");
    assert!((199..=201).contains(&due), "{report}");
    assert_eq!(report["settings"]["load"], "open, 400 requests a second");
}

#[test]
fn a_file_is_sent_as_it_is_and_a_template_with_its_number() {
    let (_daemon, endpoint) = lines();
    let body = file("body", b"{n} is sent as it is");
    let report = measured(&[
        &endpoint,
        "-f",
        "lines",
        "-c",
        "1",
        "-n",
        "5",
        "--file",
        &body,
        "--expect",
        "{n} is sent as it is",
    ]);
    assert_eq!((count(&report, "answered"), count(&report, "bytes_out")), (5, 100), "{report}");
    let template = file("template", b"number {n}!");
    let twelfth = "number 00000000000000000000!";
    let report =
        measured(&[&endpoint, "-f", "lines", "-c", "1", "-n", "1", "--template", &template, "--expect", twelfth]);
    assert_eq!(count(&report, "answered"), 1, "{report}");
    let report = measured(&[&endpoint, "-f", "lines", "-c", "1", "-n", "9", "-m", "a{n}b"]);
    assert_eq!((count(&report, "answered"), count(&report, "bytes_out")), (9, 9 * 22), "{report}");
    let report = measured(&[&endpoint, "-f", "lines", "-c", "1", "-n", "9", "--size", "1000"]);
    assert_eq!(count(&report, "bytes_out"), 9000, "{report}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let ran = greetd(&["bench", "tcp://127.0.0.1:1", "--file", "/nowhere/at-all"]);
    assert!(ran.stderr.contains("failed to read /nowhere/at-all"), "{ran:?}");
    assert_ne!(ran.code, 0);
}

#[test]
fn the_files_hold_all_latencies_and_a_page_that_needs_nothing_else() {
    let (_daemon, endpoint) = lines();
    let (hgrm, html) = (path("out.hgrm"), path("out.html"));
    let arguments = ["-f", "lines", "-c", "2", "-n", "300", "--hgrm", &hgrm, "--html", &html];
    measured(&[&[endpoint.as_str()], &arguments[..]].concat());
    let hgrm = std::fs::read_to_string(hgrm).unwrap();
    assert!(hgrm.contains("Value     Percentile TotalCount 1/(1-Percentile)"), "{hgrm}");
    assert!(hgrm.contains("Total count    =          300]"), "{hgrm}");
    let html = std::fs::read_to_string(html).unwrap();
    for wanted in ["<svg", "p99.99", "in flight on each connection", "warm-up", &endpoint] {
        assert!(html.contains(wanted), "{wanted}");
    }
    for unwanted in ["<script", "<link", "src=", "href="] {
        assert!(!html.contains(unwanted), "{unwanted}");
    }
    let ran = greetd(&["bench", &endpoint, "-f", "lines", "-n", "1", "-c", "1", "--html", "/nowhere/at-all"]);
    assert!(ran.code != 0 && ran.stderr.contains("failed to write /nowhere/at-all"), "{ran:?}");
}

#[test]
fn a_result_is_compared_with_another() {
    let (_daemon, endpoint) = lines();
    let run = |name: &str, requests: &str| {
        let ran = greetd(&["bench", "--json", &endpoint, "-f", "lines", "-c", "2", "-n", requests]);
        file(name, ran.stdout.as_bytes())
    };
    let (a, b) = (run("a.json", "200"), run("b.json", "300"));
    let ran = greetd(&["bench", "--compare", &a, &b]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for wanted in
        ["length differs: 200 requests and 300 requests", "replies a second", "p99.9", "failures", "too short"]
    {
        assert!(ran.stdout.contains(wanted), "{wanted}: {}", ran.stdout);
    }
    let ran = greetd(&["bench", "--json", "--compare", &a, &b]);
    let rows = ran.json()["rows"].clone();
    assert_eq!(rows[0]["metric"], "replies a second");
    assert_eq!((rows[0]["judgement"].as_str(), &rows[0]["spread"]), (Some("unknown"), &Value::Null), "{rows}");
    let broken = file("broken.json", b"{}");
    let ran = greetd(&["bench", "--compare", &a, &broken]);
    assert_eq!((ran.code, ran.verdict()), (2, "usage"), "{ran:?}");
}

#[test]
fn an_objective_that_is_missed_is_named_and_ends_with_19() {
    let (_daemon, endpoint) = lines();
    let met = [
        "bench",
        &endpoint,
        "-f",
        "lines",
        "-c",
        "1",
        "-n",
        "50",
        "--fail-if",
        "p99 > 5s",
        "--fail-if",
        "failures > 0",
    ];
    assert_eq!(greetd(&met).code, 0);
    let missed = ["bench", &endpoint, "-f", "lines", "-c", "1", "-n", "50", "--fail-if", "p50 > 1us"];
    let ran = greetd(&missed);
    assert_eq!((ran.code, ran.verdict()), (19, "missed"), "{ran:?}");
    assert!(ran.stderr.contains("`p50 > 1us`: it was "), "{ran:?}");
    assert!(ran.stdout.contains("replies a second"), "the result is printed all the same: {ran:?}");
    let ran = greetd(&[&missed[..], &["--json"]].concat());
    assert_eq!((ran.code, ran.json()["verdict"].as_str().map(str::to_owned)), (19, Some("missed".into())), "{ran:?}");
    let ran = greetd(&["bench", &endpoint, "--fail-if", "p99"]);
    assert_eq!(ran.code, 2, "{ran:?}");
}

#[test]
fn connections_are_made_and_closed_as_often_as_was_asked_for() {
    let (_daemon, endpoint) = serving(&["-b", "127.0.0.1:0"]);
    let report = measured(&[&endpoint, "--connect", "-c", "4", "-n", "100"]);
    assert_eq!((count(&report, "answered"), report["connecting"]["count"].as_u64()), (100, Some(100)), "{report}");
    let report = measured(&[&endpoint, "--connect", "-c", "4", "--rate", "200", "-z", "250ms"]);
    let due = count(&report, "sent") + count(&report, "unsent");
    assert!((49..=51).contains(&due), "{report}");
    let ran = greetd(&["bench", &endpoint, "--connect", "-c", "2", "-n", "10"]);
    assert!(ran.stdout.contains("connections a second"), "{ran:?}");
}

#[test]
fn connections_are_held_and_those_that_the_server_ends_are_counted() {
    let (_daemon, endpoint) = serving(&["-b", "127.0.0.1:0"]);
    let report = measured(&[&endpoint, "--idle", "-c", "30", "-z", "300ms"]);
    assert_eq!((report["open_at_end"].as_u64(), report["connecting"]["count"].as_u64()), (Some(30), Some(30)));
    let (_daemon, endpoint) = serving(&["-b", "127.0.0.1:0", "--idle-timeout", "200ms"]);
    let ran = greetd(&["bench", &endpoint, "--idle", "-c", "3", "-z", "500ms"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("failed: failed") && ran.stdout.contains("the server ended the connection"), "{ran:?}");
}

#[test]
fn connections_are_opened_little_by_little() {
    let opened = Arc::new(AtomicU64::new(0));
    let counted = opened.clone();
    let endpoint = each(move |mut connection| {
        counted.fetch_add(1, Ordering::Relaxed);
        let _ = std::io::copy(&mut connection.try_clone().unwrap(), &mut connection);
    });
    let arguments = ["--ramp", "400ms", "--warm-up", "0s", "-c", "8", "-n", "200", "--greeting", "10ms"];
    let report = measured(&[&[endpoint.as_str()], &arguments[..]].concat());
    assert_eq!((opened.load(Ordering::Relaxed), count(&report, "answered")), (8, 200), "{report}");
    assert_eq!(report["settings"]["ramp"], "400ms");
}

#[test]
fn replies_that_are_not_as_expected_are_wrong_and_no_latencies() {
    let (_daemon, endpoint) = lines();
    let arguments = ["bench", "--json", &endpoint, "-f", "lines", "-c", "2", "-n", "40", "--expect", "Hello {message}"];
    let ran = greetd(&arguments);
    assert_eq!(ran.code, 18, "{ran:?}");
    let report = ran.json();
    assert_eq!(
        (report["verdict"].as_str(), count(&report, "wrong"), count(&report, "answered")),
        (Some("unexpected"), 40, 0)
    );
    assert_eq!(report["latency"]["count"], 0);
    let report = measured(&[&endpoint, "-f", "lines", "-c", "2", "-n", "40", "--no-check"]);
    assert_eq!(count(&report, "answered"), 40);
}

#[test]
fn who_takes_a_late_greeting_for_a_reply_is_told_to_wait_longer_for_it() {
    let endpoint = each(|mut connection| {
        // It greets when it is asked: whoever does not wait for that has asked by then.
        let mut request = [0; 17];
        let mut answer = b"welcome\n".to_vec();
        while connection.read_exact(&mut request).is_ok() {
            answer.extend_from_slice(&request);
            let line = answer.iter().position(|byte| *byte == b'\n').unwrap() + 1;
            connection.write_all(&answer.drain(..line).collect::<Vec<u8>>()).unwrap();
        }
    });
    let ran = greetd(&["bench", &endpoint, "-f", "lines", "-c", "2", "-n", "10", "--greeting", "10ms"]);
    assert_eq!(ran.code, 18, "{ran:?}");
    let words = "a greeting that comes after more than 10ms counts as a reply: wait longer with --greeting";
    assert!(ran.stderr.contains(words), "{ran:?}");
}

/// A UDP server that loses the first of ten datagrams, doubles the second, and answers the third after the fourth.
fn unreliable() -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let (mut buffer, mut held, mut count) = ([0; 2048], None, 0);
        while let Ok((size, peer)) = socket.recv_from(&mut buffer) {
            let message = &buffer[..size];
            match count % 10 {
                0 => {}
                1 => [(); 2].iter().for_each(|()| drop(socket.send_to(message, peer))),
                2 => held = Some(message.to_vec()),
                3 => [message, &held.take().unwrap_or_default()]
                    .iter()
                    .for_each(|reply| drop(socket.send_to(reply, peer))),
                _ => drop(socket.send_to(message, peer)),
            }
            count += 1;
        }
    });
    format!("udp://{address}")
}

#[test]
fn datagrams_that_are_lost_doubled_and_reordered_are_counted() {
    let report = measured(&[&unreliable(), "-c", "1", "--rate", "1000", "-n", "200", "--timeout", "500ms"]);
    let counts = ["sent", "answered", "missing", "duplicates", "reordered", "wrong"].map(|name| count(&report, name));
    assert_eq!(counts, [200, 180, 20, 20, 20, 0], "{report}");
    let ran = greetd(&[
        "bench",
        &unreliable(),
        "-c",
        "1",
        "-d",
        "4",
        "-n",
        "40",
        "--timeout",
        "200ms",
        "--fail-if",
        "missing > 5%",
    ]);
    assert_eq!(ran.code, 19, "{ran:?}");
}

#[test]
fn nobody_there_is_told_as_a_call_tells_it() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = format!("udp://{}", socket.local_addr().unwrap());
    let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (endpoint, code, verdict) in [
        (format!("tcp://{closed}"), 10, "refused"),
        (format!("udp://{gone}"), 10, "refused"),
        (silent, 11, "timeout"),
        ("tcp://no-such-name.invalid:80".to_owned(), 14, "unresolved"),
        ("tcp://127.0.0.1:x".to_owned(), 2, "usage"),
    ] {
        let arguments = ["bench", &endpoint, "-c", "2", "-z", "300ms", "--warm-up", "0s", "--timeout", "300ms"];
        let ran = greetd(&arguments);
        assert_eq!((ran.code, ran.verdict()), (code, verdict), "{endpoint}: {ran:?}");
        let ran = greetd(&[&arguments[..], &["--json"]].concat());
        assert_eq!((ran.code, ran.json()["verdict"].as_str()), (code, Some(verdict)), "{endpoint}: {ran:?}");
    }
}

/// Runs a short load against a server that means no good, which must end in time.
fn against(endpoint: &str, more: &[&str]) -> (Ran, Value) {
    let arguments = ["bench", "--json", endpoint, "-c", "4", "-z", "500ms", "--warm-up", "0s", "--timeout", "300ms"];
    let ran = greetd(&[&arguments[..], more].concat());
    let report = ran.json();
    (ran, report)
}

#[test]
fn a_server_that_never_replies_is_a_timeout() {
    let endpoint = each(|mut connection| drop(std::io::copy(&mut connection, &mut std::io::sink())));
    let (ran, report) = against(&endpoint, &["-f", "lines", "--greeting", "10ms"]);
    assert_eq!((ran.code, report["verdict"].as_str()), (11, Some("timeout")), "{report}");
    assert_eq!(count(&report, "missing"), count(&report, "sent"), "{report}");
}

#[test]
fn a_server_that_never_replies_is_a_timeout_though_all_that_was_asked_was_asked_in_the_warm_up() {
    let endpoint = each(|mut connection| drop(std::io::copy(&mut connection, &mut std::io::sink())));
    let length = ["-z", "100ms", "--warm-up", "250ms", "--timeout", "300ms", "--greeting", "10ms"];
    let ran = greetd(&[&["bench", &endpoint, "-c", "4"], &length[..]].concat());
    assert_eq!((ran.code, ran.verdict()), (11, "timeout"), "{ran:?}");
    assert!(ran.stderr.contains("--framing lines"), "{ran:?}");
}

#[test]
fn a_datagram_server_that_never_replies_is_a_timeout_also_where_nothing_was_asked_after_the_warm_up() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("udp://{}", silent.local_addr().unwrap());
    let ran = greetd(&["bench", &endpoint, "-c", "4", "-z", "100ms", "--warm-up", "100ms", "--timeout", "2s"]);
    assert_eq!((ran.code, ran.verdict()), (11, "timeout"), "{ran:?}");
}

#[test]
fn a_server_that_sends_half_of_a_reply_is_a_timeout_and_one_that_then_goes_is_unexpected() {
    // All of a request is read: what is not would be answered with a reset.
    let half = |request: usize, and_stays: bool| {
        each(move |mut connection| {
            let mut message = vec![0; request];
            while connection.read_exact(&mut message).is_ok()
                && connection.write_all(&message[..9]).is_ok()
                && and_stays
            {}
        })
    };
    let (ran, report) = against(&half(17, true), &["-f", "lines", "--greeting", "10ms"]);
    assert_eq!(ran.code, 11, "{report}");
    let (ran, report) = against(&half(18, false), &["-f", "length16", "--greeting", "10ms"]);
    assert_eq!(ran.code, 18, "{report}");
}

#[test]
fn a_server_that_resets_is_a_failure_in_words() {
    let endpoint = each(|mut connection| {
        let _ = connection.read(&mut [0; 4]);
        // What is not read is answered with a reset.
    });
    let (ran, report) = against(&endpoint, &["-f", "lines", "--greeting", "10ms"]);
    assert_eq!(ran.code, 1, "{report}");
    assert!(report["reasons"]["failed"].as_str().unwrap().contains("ECONNRESET"), "{report}");
}

#[test]
fn endless_bytes_cost_neither_memory_nor_the_end() {
    let endpoint = each(|mut connection| while connection.write_all(&b"x".repeat(65536)).is_ok() {});
    for framing in ["raw", "lines", "length32", "netstring"] {
        let (ran, report) = against(&endpoint, &["-f", framing, "--greeting", "10ms"]);
        assert_ne!(ran.code, 0, "{framing}: {report}");
    }
    let mut bench = command(&["bench", "--json", &endpoint, "-c", "8", "-z", "1s", "--timeout", "300ms"]);
    let mut child = bench.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap_or_default();
        most = most.max(line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0));
        thread::yield_now();
    }
    assert!(most < 32 * 1024, "{most} KiB");
}

#[test]
fn a_server_that_hangs_up_after_each_reply_is_called_again_at_once() {
    let endpoint = each(|mut connection| {
        let mut message = [0; 17];
        let _ = connection.read_exact(&mut message).and_then(|()| connection.write_all(&message));
    });
    let (ran, report) = against(&endpoint, &["-f", "lines", "--greeting", "10ms"]);
    assert_eq!(ran.code, 0, "{report}");
    // With a pause of 100 ms after each there would be twenty.
    assert!(count(&report, "answered") > 40, "{report}");
}

#[test]
fn an_interrupt_ends_it_with_what_it_has() {
    let (_daemon, endpoint) = lines();
    let mut bench = Daemon::start(&["bench", &endpoint, "-f", "lines", "-c", "2", "-z", "60s", "--warm-up", "0s"]);
    bench.wait_for("/s  p50");
    bench.signal(Signal::SIGINT);
    let ran = bench.wait();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("stopped before its end") && ran.stdout.contains("replies a second"), "{ran:?}");
}

#[test]
fn nobody_who_reads_the_result_is_no_failure() {
    let (_daemon, endpoint) = lines();
    let mut bench = command(&["bench", &endpoint, "-f", "lines", "-c", "1", "-n", "2000", "--json"]);
    let mut child = bench.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(!told.contains("failed to write") && !told.contains("panicked"), "{told}");
    assert_ne!(child.wait().unwrap().code(), Some(101));
}

#[test]
fn what_cannot_be_meant_is_refused_with_what_to_do() {
    for (arguments, word) in [
        (&["tcp://127.0.0.1:1", "-d", "4"][..], "framing"),
        (&["tcp://127.0.0.1:1", "--rate", "10"], "framing"),
        (&["tcp://127.0.0.1:1", "--rate", "0", "-f", "lines"], "--rate"),
        (&["tcp://127.0.0.1:1", "-c", "0"], "--connections"),
        (&["tcp://127.0.0.1:1", "--timeout", "0s"], "--timeout"),
        (&["tcp://127.0.0.1:1", "-z", "soon"], "soon"),
        (&["udp://127.0.0.1:1", "-f", "lines"], "datagram"),
        (&[], "ENDPOINT"),
    ] {
        let ran = greetd(&[&["bench"], arguments].concat());
        assert_eq!(ran.code, 2, "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains(word), "{arguments:?}: {ran:?}");
    }
}
