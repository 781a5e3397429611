//! `greetd lab` and `greetd why` as a user or a script meets them: words, exit codes, one JSON object.

#![cfg(feature = "cli")]

use std::io::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn greetd(words: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_greetd"))
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads no input may be gone before it is written.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn object(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn reach_gives_its_cells_and_the_kernel_agrees_with_the_model() {
    let output = greetd(&["lab", "--json"], "");
    let object = object(&output);
    assert_eq!((code(&output), &object["verdict"]), (0, &Value::from("ok")), "{object}");
    let cells = object["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 468);
    assert!(cells.iter().all(|cell| cell["observed"].is_null() || cell["observed"] == cell["predicted"]));
}

#[test]
fn a_prediction_runs_nothing() {
    let output = greetd(&["lab", "all", "--predict", "--json"], "");
    let object = object(&output);
    assert_eq!(object["experiments"].as_array().unwrap().len(), 8);
    assert!(object["kernel"].is_null());
}

#[test]
fn a_scenario_that_comes_out_otherwise_than_expected_exits_1_with_one_object() {
    let scenario = |expect: &str| {
        format!(
            r#"{{"cases": [{{"id": "x", "proto": "tcp", "steps": [
                {{"op": "bind", "socket": "a", "address": "127.0.0.1"}},
                {{"op": "bind", "socket": "b", "address": "127.0.0.1", "expect": "{expect}"}}]}}]}}"#
        )
    };
    let good = greetd(&["lab", "run", "-", "--json"], &scenario("EADDRINUSE"));
    assert_eq!(code(&good), 0, "{good:?}");
    let bad = greetd(&["lab", "run", "-", "--json"], &scenario("ok"));
    assert_eq!(code(&bad), 1, "{bad:?}");
    let object = object(&bad);
    assert_eq!(object["verdict"], "failed");
    let step = &object["cases"][0]["steps"][1];
    assert_eq!((&step["as_expected"], &step["observed"]), (&Value::from(false), &Value::from("EADDRINUSE")));
    let text = greetd(&["lab", "run", "-"], &scenario("ok"));
    let text = String::from_utf8_lossy(&text.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("expected ok, observed EADDRINUSE (the model's rule: overlap)"), "{text}");
    assert_eq!(code(&greetd(&["lab", "run", "-"], "{")), 20);
    assert_eq!(code(&greetd(&["lab", "run"], "")), 2);
}

#[test]
fn two_sockets_that_are_only_thought_of_are_told_what_would_mend_them() {
    let output = greetd(&["why", "--bind", "tcp://[::]:80", "--against", "tcp://0.0.0.0:80", "--json"], "");
    assert_eq!(code(&output), 15);
    let first = &object(&output)["addresses"][0];
    // Both set SO_REUSEADDR unless they say otherwise, as greetd's listeners do.
    assert_eq!((&first["rule"], &first["reuse_addr"]), (&Value::from("listener-blocks"), &Value::from(true)));
    assert_eq!(first["changes"].as_array().unwrap().len(), 1);
    let without = "tcp://0.0.0.0:80?reuse-addr=no";
    let output = greetd(&["why", "--bind", "tcp://[::]:80", "--against", without, "--json"], "");
    assert_eq!(object(&output)["addresses"][0]["rule"], "overlap");
    let output = greetd(&["why", "--bind", "tcp://[::]:80?v6-only", "--against", "tcp://0.0.0.0:80"], "");
    assert_eq!(code(&output), 0, "{output:?}");
}

#[test]
fn why_says_that_no_option_helps_where_the_address_is_of_another_host() {
    // Of a block that is kept for documentation.
    let output = greetd(&["why", "192.0.2.77:8080", "--json"], "");
    assert_eq!(code(&output), 16);
    let answer = &object(&output)["addresses"][0];
    for attempt in answer["attempts"].as_array().unwrap() {
        assert_eq!((&attempt["result"], &attempt["rule"]), (&"EADDRNOTAVAIL".into(), &"not-local".into()), "{answer}");
    }
    let mend = answer["mend"].as_str().unwrap();
    assert!(mend.contains("bind an address that this machine has") && mend.contains("--freebind"), "{answer}");
    assert_eq!(code(&greetd(&["why", "tcp://192.0.2.77:8080?freebind"], "")), 0);
}

#[test]
fn who_holds_a_port_is_named_with_its_process_and_its_options() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let output = greetd(&["why", &format!("127.0.0.1:{port}"), "--json"], "");
    assert_eq!(code(&output), 15);
    let object = object(&output);
    let holder = &object["addresses"][0]["holders"][0];
    assert_eq!(holder["state"], "listening", "{object}");
    assert_eq!(holder["processes"][0]["pid"], std::process::id());
    // The standard library sets SO_REUSEADDR, which is not enough beside a listener.
    assert_eq!(object["addresses"][0]["attempts"][1]["rule"], "listener-blocks");
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let udp = format!("udp://127.0.0.1:{}", socket.local_addr().unwrap().port());
    assert_eq!(code(&greetd(&["why", &udp], "")), 15);
}

/// A port of 127.0.0.1 on which a server with SO_REUSEADDR, or without, has closed first.
fn port_in_time_wait(reuse_addr: bool) -> u16 {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.set_reuse_address(reuse_addr).unwrap();
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(1).unwrap();
    let at = listener.local_addr().unwrap().as_socket().unwrap();
    let mut client = std::net::TcpStream::connect(at).unwrap();
    drop(listener.accept().unwrap());
    drop(listener);
    std::io::Read::read_to_end(&mut client, &mut Vec::new()).unwrap();
    at.port()
}

#[test]
fn what_a_closed_server_has_left_stops_the_next_one_only_where_one_of_them_lacks_the_option() {
    let careless = format!("127.0.0.1:{}", port_in_time_wait(false));
    let output = greetd(&["why", &careless, "--json"], "");
    assert_eq!(code(&output), 15, "{output:?}");
    let first = object(&output)["addresses"][0].clone();
    assert_eq!(first["holders"][0]["state"], "time-wait", "{first}");
    assert!(first["holders"][0]["ends_in_ms"].as_u64().is_some_and(|left| left <= 60_000), "{first}");
    assert!(first["mend"].as_str().unwrap().starts_with("wait "), "{first}");

    let careful = format!("127.0.0.1:{}", port_in_time_wait(true));
    let output = greetd(&["why", &careful, "--json"], "");
    assert_eq!(code(&output), 0, "{output:?}");
    let output = greetd(&["why", &format!("{careful}?reuse-addr=no"), "--json"], "");
    assert_eq!(code(&output), 15);
    assert_eq!(object(&output)["addresses"][0]["mend"], "set SO_REUSEADDR on the new socket");
}

#[test]
fn no_line_of_why_or_of_the_doctor_is_wider_than_a_terminal() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
    for words in [&["why", &*at][..], &["lab", "--against", &at]] {
        let output = greetd(words, "");
        let text = String::from_utf8_lossy(&output.stdout);
        // A path in a command line may be longer than a line, and is not broken.
        let wide = |line: &&str| line.chars().count() > 80 && line.split_whitespace().count() > 1;
        assert_eq!(text.lines().find(wide), None, "{text}");
    }
}

#[test]
fn the_doctor_tells_of_a_server_that_is_bound_and_does_not_listen() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let at = socket.local_addr().unwrap().as_socket().unwrap();
    let output = greetd(&["lab", "--against", &at.to_string()], "");
    assert_eq!(code(&output), 10);
    assert!(String::from_utf8_lossy(&output.stderr).contains("does not listen"), "{output:?}");
}

#[test]
fn a_malformed_scenario_is_answered_with_its_place() {
    let text = "{\"cases\": [{\"id\": \"x\", \"steps\": [\n  {\"op\": \"bind\", \"sockt\": \"a\"}]}]}";
    let output = greetd(&["lab", "run", "-", "--json"], text);
    assert_eq!(code(&output), 20);
    let object = object(&output);
    assert_eq!((&object["verdict"], &object["line"]), (&Value::from("invalid"), &Value::from(2)), "{object}");
    assert!(object["message"].as_str().unwrap().contains("did you mean `socket`"), "{object}");
}

#[test]
fn the_doctor_names_the_first_layer_that_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let fine = greetd(&["lab", "--against", &format!("127.0.0.1:{port}")], "");
    assert_eq!(code(&fine), 0, "{fine:?}");
    let elsewhere = greetd(&["lab", "--against", &format!("127.0.0.2:{port}")], "");
    assert_eq!(code(&elsewhere), 10);
    assert!(String::from_utf8_lossy(&elsewhere.stderr).contains("the first layer that fails is listen"));
}

#[test]
fn a_quiz_keeps_score_and_ends_with_its_input() {
    let output = greetd(&["lab", "delivery", "--quiz"], "a\nb\n?\na\n");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("write one of the letters"), "{said}");
    assert!(said.contains("your score: "), "{said}");
    assert_eq!(code(&output), 0);
}
