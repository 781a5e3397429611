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
    assert_eq!(code(&greetd(&["lab", "run", "-"], "{")), 20);
    assert_eq!(code(&greetd(&["lab", "run"], "")), 2);
}

#[test]
fn two_sockets_that_are_only_thought_of_are_told_what_would_mend_them() {
    let output = greetd(&["why", "--bind", "tcp://[::]:80", "--against", "tcp://0.0.0.0:80", "--json"], "");
    assert_eq!(code(&output), 15);
    let first = &object(&output)["addresses"][0];
    assert_eq!(first["rule"], "overlap");
    assert_eq!(first["changes"].as_array().unwrap().len(), 1);
    let output = greetd(&["why", "--bind", "tcp://[::]:80?v6-only", "--against", "tcp://0.0.0.0:80"], "");
    assert_eq!(code(&output), 0, "{output:?}");
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
