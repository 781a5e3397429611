//! `timewait`: a server restarts; who may bind again after whose close, with which options?

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use serde_json::json;
use socket2::Socket;

use super::Sections;
use crate::lab::ground::Ground;
use crate::lab::host::Host;
use crate::lab::model::{Binding, Decision, Proto, Rule, may_bind};
use crate::lab::outcome::Outcome;
use crate::lab::report::{Case, Column, Row, Section, Shown};
use crate::lab::socket::{Tracked, address};
use crate::lab::topology::{SERVER_V4, SERVER_V4_SECOND, Side, Topology};
use crate::lab::wait;
use crate::machine::sockets::{self, Protocol, State};

pub(super) const ABOUT: &str = "A server has had one connection, to 198.51.100.1, and is gone; another one binds the \
    port again. Whoever closes first keeps TIME_WAIT, for a minute. If that is the server, the address is held, \
    unless the old and the new listener both set SO_REUSEADDR, or both SO_REUSEPORT.";

/// How the connection ended before the new server came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    ServerFirst,
    ClientFirst,
    Reset,
    StillOpen,
}

impl End {
    const ALL: [End; 4] = [End::ServerFirst, End::ClientFirst, End::Reset, End::StillOpen];

    fn in_words(self) -> &'static str {
        match self {
            End::ServerFirst => "The server closed first",
            End::ClientFirst => "The client closed first",
            End::Reset => "The server reset the connection",
            End::StillOpen => "The connection is still open in another process",
        }
    }

    /// Whether something of the connection is left on the server.
    fn leaves_something(self) -> bool {
        matches!(self, End::ServerFirst | End::StillOpen)
    }
}

/// SO_REUSEADDR and SO_REUSEPORT of the old listener and of the new one.
const OPTIONS: [[(bool, bool); 2]; 6] = [
    [(false, false), (false, false)],
    [(true, false), (false, false)],
    [(false, false), (true, false)],
    [(true, false), (true, false)],
    [(false, true), (false, true)],
    [(true, false), (false, true)],
];

fn new_addresses() -> [IpAddr; 4] {
    [SERVER_V4.into(), Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into(), SERVER_V4_SECOND.into()]
}

fn in_words([old, new]: [(bool, bool); 2]) -> String {
    let one = |options| match options {
        (true, _) => "reuse-addr",
        (_, true) => "reuse-port",
        _ => "no option",
    };
    if old == new { format!("{} on both", one(old)) } else { format!("{}, then {}", one(old), one(new)) }
}

pub(super) fn predict() -> Sections {
    End::ALL.map(section).into()
}

fn section(end: End) -> Section {
    let rows = OPTIONS.map(|options| {
        let cells = new_addresses().map(|ip| {
            let Decision { result, rule } = predict_one(end, options, ip);
            let [old, new] = options;
            let what = vec![
                ("end", json!(end.in_words())),
                ("old", json!({ "reuse_addr": old.0, "reuse_port": old.1 })),
                ("new", json!({ "address": ip, "reuse_addr": new.0, "reuse_port": new.1 })),
            ];
            Some(Case::predicted(what, result.into(), rule))
        });
        let why = cells[0].as_ref().map_or("", |case| case.rule.sentence()).to_owned();
        Row { name: in_words(options), cells: cells.into(), why }
    });
    Section {
        title: end.in_words().to_owned(),
        about: String::new(),
        shown: Shown::Glyphs,
        summed_at: None,
        row_head: "old and new listener",
        columns: new_addresses()
            .map(|ip| Column { group: "the new one binds".to_owned(), name: ip.to_string() })
            .into(),
        rows: rows.into(),
    }
}

/// What is left of the connection conflicts like a bound socket with the old listener's options.
fn predict_one(end: End, [old, new]: [(bool, bool); 2], ip: IpAddr) -> Decision {
    if !end.leaves_something() {
        let rule = if end == End::Reset { Rule::ResetLeavesNothing } else { Rule::ClientWaits };
        return Decision::allowed(rule);
    }
    let left = Binding::new(Proto::Tcp, SERVER_V4).reusing(old.0, old.1);
    let decision = may_bind([&left], &Binding::new(Proto::Tcp, ip).reusing(new.0, new.1));
    let rule = match decision.rule {
        Rule::NoOverlap => Rule::TimeWaitElsewhere,
        _ if end == End::StillOpen => decision.rule,
        _ if decision.result.is_ok() => Rule::TimeWaitReused,
        _ => Rule::TimeWait,
    };
    Decision { rule, ..decision }
}

pub(super) fn run(ground: &Ground, sections: &mut Sections) -> io::Result<()> {
    let Some(topology) = ground.topology() else { return Ok(()) };
    for (section, end) in sections.iter_mut().zip(End::ALL) {
        for (row, options) in section.rows.iter_mut().zip(OPTIONS) {
            for (case, ip) in row.cells.iter_mut().flatten().zip(new_addresses()) {
                restart(topology, end, options, ip, case)?;
            }
        }
    }
    Ok(())
}

fn restart(
    topology: &Topology,
    end: End,
    [old, new]: [(bool, bool); 2],
    ip: IpAddr,
    case: &mut Case,
) -> io::Result<()> {
    let host = topology.server();
    let old = Binding::new(Proto::Tcp, Ipv4Addr::UNSPECIFIED).reusing(old.0, old.1);
    let mut listener = Tracked::prepare(host, Side::Server, "old", &old)?;
    listener.bind((Ipv4Addr::UNSPECIFIED, 0).into())?;
    listener.listen(1)?;
    let port = listener.local()?.port();
    let mut client = Tracked::open(topology.client(), Side::Client, "client", Proto::Tcp, true)?;
    client.connect((SERVER_V4, port).into())?;
    wait::readable(&listener, Duration::from_secs(2));
    let (connection, _) = listener.accept()?;
    let mut evidence = [listener.calls(), client.calls()].concat();
    drop(listener);
    let kept = finish(end, connection, client, &mut evidence)?;
    let left = settle(host, end, port)?;
    let mut note = |call: String, result: String| {
        evidence.push(crate::lab::socket::Call { host: Side::Server, call, result });
    };
    note("close(old)".to_owned(), "0".to_owned());
    note(format!("sock_diag, port {port}"), left);
    let mut socket = Tracked::prepare(host, Side::Server, "new", &Binding::new(Proto::Tcp, ip).reusing(new.0, new.1))?;
    let result = socket.bind(address(host, ip, port, None)?).and_then(|()| socket.listen(1));
    evidence.extend_from_slice(socket.calls());
    case.observe(Outcome::of_call(&result), evidence);
    drop(kept);
    Ok(())
}

/// Ends the connection in that way. What stays open is given back.
fn finish(
    end: End,
    connection: Socket,
    client: Tracked,
    evidence: &mut Vec<crate::lab::socket::Call>,
) -> io::Result<Option<(Socket, Tracked)>> {
    let mut note = |host, call: &str| {
        evidence.push(crate::lab::socket::Call { host, call: call.to_owned(), result: "0".to_owned() });
    };
    let over = Duration::from_secs(2);
    match end {
        End::StillOpen => return Ok(Some((connection, client))),
        End::ServerFirst => {
            drop(connection);
            note(Side::Server, "close(connection)");
            wait::readable(&client, over);
            drop(client);
            note(Side::Client, "close(client)");
        }
        End::ClientFirst => {
            drop(client);
            note(Side::Client, "close(client)");
            wait::readable(&connection, over);
            drop(connection);
            note(Side::Server, "close(connection)");
        }
        End::Reset => {
            connection.set_linger(Some(Duration::ZERO))?;
            note(Side::Server, "setsockopt(connection, SO_LINGER, {1, 0})");
            drop(connection);
            note(Side::Server, "close(connection)");
            wait::readable(&client, over);
        }
    }
    Ok(None)
}

/// Waits until the last segments are exchanged; says what the kernel still has on the port.
fn settle(host: &Host, end: End, port: u16) -> io::Result<String> {
    let began = Instant::now();
    loop {
        let left: Vec<State> = host.run(move || {
            Ok::<_, io::Error>(sockets::sockets(Protocol::Tcp, port)?.iter().map(|socket| socket.state).collect())
        })?;
        let settled = match end {
            End::ServerFirst => left == [State::TimeWait],
            End::StillOpen => left == [State::Established],
            End::ClientFirst | End::Reset => left.is_empty(),
        };
        if settled || began.elapsed() > Duration::from_secs(2) {
            let words: Vec<_> = left.iter().map(ToString::to_string).collect();
            return Ok(if words.is_empty() { "nothing".to_owned() } else { words.join(", ") });
        }
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::experiments::Experiment;
    use crate::lab::testing;

    #[test]
    fn all_sixteen_mixes_of_options_come_out_as_predicted_after_every_end() {
        let Some(topology) = testing::topology() else { return };
        let each = [(false, false), (true, false), (false, true), (true, true)];
        for end in End::ALL {
            for options in each.into_iter().flat_map(|old| each.map(|new| [old, new])) {
                for ip in new_addresses() {
                    let Decision { result, rule } = predict_one(end, options, ip);
                    let mut case = Case::predicted(Vec::new(), result.into(), rule);
                    restart(&topology, end, options, ip, &mut case).unwrap();
                    assert!(!case.differs(), "{end:?} {options:?} {ip}: {case:?}");
                }
            }
        }
    }

    #[test]
    fn a_port_is_free_again_exactly_when_the_model_says() {
        testing::agrees(Experiment::TimeWait, 4 * 6 * 4);
    }
}
