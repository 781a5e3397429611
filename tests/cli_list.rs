//! What is registered can be listed, and help, completions and the manual come from the same definitions.

#[path = "support/command.rs"]
#[expect(dead_code, reason = "each of the tests of the command line needs a part of it")]
mod command;

use std::process::{Command, Stdio};

use command::{command, greetd};

#[test]
fn everything_is_listed_with_its_options_within_80_columns() {
    let ran = greetd(&["list"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    for expected in
        ["transports:", "layers", "framings:", "handlers:", " tcp ", " udp ", " hello ", " lines ", "backlog=N"]
    {
        assert!(ran.stdout.contains(expected), "{expected}: {}", ran.stdout);
    }
    assert!(ran.stdout.lines().all(|line| line.chars().count() <= 80), "{}", ran.stdout);
}

#[test]
fn one_kind_alone_is_listed_where_it_is_named() {
    let ran = greetd(&["list", "framings"]);
    assert!(ran.stdout.starts_with("framings:\n"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("handlers"), "{}", ran.stdout);
}

#[test]
fn the_object_has_options_and_capabilities() {
    let object = greetd(&["list", "--json"]).json();
    assert_eq!(object["verdict"], "ok");
    let named = |kind: &str, name: &str| {
        let items = object[kind].as_array().unwrap_or_else(|| panic!("{kind}: {object}"));
        items.iter().find(|item| item["name"] == name).unwrap_or_else(|| panic!("{name}: {object}")).clone()
    };
    assert_eq!(named("transports", "tcp")["capabilities"]["half_close"], true);
    assert_eq!(named("transports", "udp")["capabilities"]["largest"], 65_507);
    let backlog = &named("transports", "tcp")["options"][0];
    assert_eq!((&backlog["name"], &backlog["default"]), (&"backlog".into(), &"4096".into()));
    assert_eq!(named("handlers", "hello")["options"].as_array().map(Vec::len), Some(4));
    assert!(object["limits"].as_array().unwrap().iter().any(|limit| limit["name"] == "idle-timeout"));
}

#[test]
fn help_names_the_commands_and_every_option_of_an_endpoint() {
    let help = greetd(&["--help"]);
    assert_eq!((help.code, help.stderr.as_str()), (0, ""));
    for expected in
        ["serve", "call", "--transport", "--backlog", "--idle-timeout", "-4, --ipv4", "--v6-only[=<yes|no|system>]"]
    {
        assert!(help.stdout.contains(expected), "{expected}: {}", help.stdout);
    }
    assert!(greetd(&["serve", "--help"]).stdout.contains("--backlog"));
    assert!(greetd(&["--version"]).stdout.starts_with("greetd "));
}

#[test]
fn the_manual_and_the_completions_know_the_options_of_endpoints() {
    let manual = greetd(&["man"]);
    assert_eq!(manual.code, 0);
    assert!(manual.stdout.contains(".TH greetd 1") && manual.stdout.contains("backlog"), "{}", manual.stdout);
    for shell in ["bash", "zsh", "fish"] {
        let script = greetd(&["completions", shell]);
        assert_eq!(script.code, 0);
        assert!(script.stdout.contains("idle-timeout"), "{shell}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    for arguments in [&["list"][..], &["--help"], &["man"], &["completions", "bash"], &["list", "--json"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{arguments:?}: {output:?}");
    }
}

#[test]
fn no_escape_sequence_reaches_what_is_no_terminal() {
    let mut command: Command = command(&["--no-such-option"]);
    let output = command.env("TERM", "xterm-256color").env("CLICOLOR_FORCE", "1").output().unwrap();
    assert!(!output.stderr.contains(&0x1b), "{output:?}");
    let help = greetd(&["--help"]);
    assert!(!help.stdout.contains('\x1b'));
}
