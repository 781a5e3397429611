//! What is wrong with the words of a command is said with what to write, and with exit code 2.

#[path = "support/command.rs"]
#[expect(dead_code, reason = "each of the tests of the command line needs a part of it")]
mod command;

use command::greetd;

/// The words on stderr of a command that must be refused as `usage`, on nothing else than stderr.
fn refused(line: &str) -> String {
    let ran = greetd(&line.split_whitespace().collect::<Vec<_>>());
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{line}: {ran:?}");
    assert_eq!(ran.verdict(), "usage", "{line}");
    ran.stderr
}

#[test]
fn an_address_that_cannot_be_read_is_refused_with_what_to_write() {
    insta::assert_snapshot!(refused("--bind :::8080"), @"usage: `:::8080` is not an address: an IPv6 address stands in brackets; write [::]:8080");
    insta::assert_snapshot!(refused("-b 127.0.0.1:65536"), @"usage: `127.0.0.1:65536` is not an address: `65536` is not a port; ports are numbers from 0 to 65535");
    insta::assert_snapshot!(refused("-b [::1"), @"usage: `[::1` is not an address: the bracket is never closed; write [ADDRESS]:PORT");
    insta::assert_snapshot!(refused("-b 127.0.0.1"), @"usage: `127.0.0.1` is not an address: a port is missing; write 127.0.0.1:PORT");
    insta::assert_snapshot!(refused("-b 127.0.0.256:80"), @"usage: `127.0.0.256:80` is not an address: `127.0.0.256` is not an IPv4 address");
    insta::assert_snapshot!(refused("-l 8080"), @"usage: `8080` has no scheme; write for example tcp://8080");
    insta::assert_snapshot!(refused("call 127.0.0.1:80"), @"usage: `127.0.0.1:80` has no scheme; write for example tcp://127.0.0.1:80");
    insta::assert_snapshot!(refused("-t unix"), @"usage: failed to bind unix://: address: `unix` needs a path or @name, such as unix:///run/x.sock");
    insta::assert_snapshot!(refused("-b [fe80::1]:0"), @"usage: failed to bind tcp://[fe80::1]:0: address: fe80::1 is link-local and needs its interface, such as [fe80::1%eth0]:0");
}

#[test]
fn a_name_that_nobody_knows_is_refused_with_the_nearest() {
    assert!(refused("-t tpc").starts_with("usage: there is no transport `tpc` (did you mean `tcp`?); known are "));
    assert!(refused("-H helo").starts_with("usage: there is no handler `helo` (did you mean `hello`?); known are "));
    assert!(refused("-f line").starts_with("usage: there is no framing `line` (did you mean `lines`?); known are "));
    assert!(refused("-t tsl+tcp").starts_with("usage: there is no layer `tsl`"));
    assert!(refused("call tpc://127.0.0.1:1 x").starts_with("usage: there is no transport `tpc`"));
}

#[test]
fn an_option_that_does_not_belong_is_refused_by_name() {
    for (line, option) in [("-t udp --nodelay=no", "nodelay"), ("-t udp --backlog 5", "backlog")] {
        let said = refused(line);
        assert!(said.starts_with(&format!("usage: `udp` has no option `{option}`; it is an option of ")), "{said}");
        assert!(said.contains("`tcp`"), "{said}");
    }
    assert!(refused("-l tcp://:0?blacklog=5").contains("has no option `blacklog` (did you mean `backlog`?)"));
    assert!(refused("call udp://127.0.0.1:1?nodelay=yes x").contains("`udp` has no option `nodelay`"));
    assert!(refused("-H hello?wrod=Hi").contains("the handler `hello` has no option `wrod` (did you mean `word`?)"));
}

#[test]
fn a_value_that_does_not_fit_is_named_with_its_option() {
    insta::assert_snapshot!(refused("--backlog five"), @"usage: the option `backlog` takes a number, not `five`");
    insta::assert_snapshot!(refused("--idle-timeout soon"), @"usage: the option `idle-timeout`: `soon` is not a duration; write a number and a unit, such as 500ms");
    insta::assert_snapshot!(refused("--max-message 1XB"), @"usage: the option `max-message`: `1XB` is not a size; write bytes or a unit, such as 64KiB");
    insta::assert_snapshot!(refused("--nodelay=maybe"), @"usage: the option `nodelay` takes yes or no, not `maybe`");
    insta::assert_snapshot!(refused("--max-sessions 0"), @"usage: the option `max-sessions` takes a number above 0");
    assert!(refused("--workers 0").starts_with("usage: invalid value '0' for '--workers <N|auto>'"));
    assert!(refused("--drain-timeout x").contains("`x` is not a duration; write a number and a unit, such as 500ms"));
    assert!(refused("--log-level loud").starts_with("usage: invalid value 'loud' for '--log-level <LEVEL>'"));
}

#[test]
fn what_cannot_work_together_is_refused_with_the_nearest_that_works() {
    insta::assert_snapshot!(refused("-t udp -f lines"), @"usage: `lines` cannot frame `udp`: a datagram is already a message. Leave framing out.");
    insta::assert_snapshot!(refused("call udp://127.0.0.1:1?framing=lines x"), @"usage: `lines` cannot frame `udp`: a datagram is already a message. Leave framing out.");
}

#[test]
fn an_option_that_there_is_not_is_refused_with_the_nearest() {
    insta::assert_snapshot!(refused("--hander echo"), @r"
    usage: unexpected argument '--hander' found
      tip: a similar argument exists: '--handler'
      Usage: greetd --handler <NAME[?option=value&…]>
      For more information, try '--help'.
    ");
    assert!(refused("call").starts_with("usage: the following required arguments were not provided: <ENDPOINT>"));
    assert!(refused("list teapots").starts_with("usage: invalid value 'teapots' for '[WHAT]'"));
}

#[test]
fn an_option_of_serve_before_another_command_is_refused_rather_than_ignored() {
    insta::assert_snapshot!(refused("--transport udp list"), @r"
    usage: `--transport` stands before `list`, where it means nothing
      write it behind: greetd list --transport …, where `list` takes it
    ");
    assert_eq!(greetd(&["-v", "--log-format", "json", "list", "framings"]).code, 0);
}

#[test]
fn every_fault_is_listed_at_once() {
    let ran = greetd(&["--check", "-l", "udp://:0?backlog=x&nodelay=no=nobody", "-l", "tcp://:::80"]);
    assert_eq!(ran.code, 2);
    let faults: Vec<_> = ran.stderr.lines().collect();
    assert_eq!(faults.len(), 4, "{ran:?}");
    assert!(faults[0].starts_with("usage: `udp` has no option `backlog`"), "{ran:?}");
    assert!(faults[1].starts_with("  also: `udp` has no option `nodelay`"), "{ran:?}");
    assert!(faults[2].starts_with("  also: there is no handler `nobody`"), "{ran:?}");
    assert!(faults[3].starts_with("  also: `:::80` is not an address"), "{ran:?}");
    assert!(faults[3].ends_with("(in tcp://:::80)"), "{ran:?}");
}

#[test]
fn a_refusal_is_one_object_where_json_was_asked_for() {
    let ran = greetd(&["--json", "--check", "-t", "udp", "--backlog=5", "-H", "nobody"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (2, ""));
    let object = ran.json();
    assert_eq!(object["verdict"], "usage");
    assert_eq!(object["faults"].as_array().map(Vec::len), Some(2), "{object}");

    let ran = greetd(&["call", "--json", "--no-such-option"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (2, ""));
    assert_eq!(ran.json()["verdict"], "usage");
    assert!(ran.json()["message"].as_str().unwrap().starts_with("unexpected argument '--no-such-option'"));
}
