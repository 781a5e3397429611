//! `backlog`: how many connects complete while nobody accepts, what the others feel, and what lets them in.

use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Sections;
use crate::lab::ground::Ground;
use crate::lab::host::Host;
use crate::lab::model::{Proto, Rule};
use crate::lab::outcome::Outcome;
use crate::lab::report::{Case, Column, Row, Section, Shown};
use crate::lab::socket::{Call, Tracked};
use crate::lab::topology::{SERVER_V4, Side};
use crate::lab::wait;

pub(super) const ABOUT: &str = "A server listens and never accepts, while clients connect one after the other. \
    listen(n) lets n + 1 connects complete (n is clamped to somaxconn), and sends the rest no word: their SYN is \
    dropped, they stay in SYN_SENT without an error, and get in with the next retransmit once there is room.";

/// What is asked of listen, in the order in which it is tried; the last one after somaxconn has been lowered.
const BACKLOGS: [u32; 6] = [0, 1, 2, 5, 128, 1000];
/// What somaxconn is set to for the last one.
const SOMAXCONN: u32 = 16;
/// How many more clients come than complete.
const MORE: u64 = 3;
/// How long a client that is not answered at once is given before the next one comes.
const AT_ONCE: Duration = Duration::from_millis(50);
/// The SYN is sent again after one second, then (since Linux 6.5) four times more at the same pace.
const RETRANSMIT: Duration = Duration::from_millis(3500);

fn completing(backlog: u32) -> (u64, Rule) {
    if backlog > 128 {
        (u64::from(SOMAXCONN) + 1, Rule::BacklogClamped)
    } else {
        (u64::from(backlog) + 1, Rule::BacklogPlusOne)
    }
}

pub(super) fn predict() -> Sections {
    let rows = BACKLOGS.map(|backlog| {
        let (complete, rule) = completing(backlog);
        let case = |what: &'static str, count, rule| {
            Some(Case::predicted(
                vec![("backlog", json!(backlog)), ("clients", json!(complete + MORE)), ("count", json!(what))],
                Outcome::Count(count),
                rule,
            ))
        };
        let clamped = if rule == Rule::BacklogClamped { format!(", somaxconn {SOMAXCONN}") } else { String::new() };
        Row {
            name: format!("listen({backlog}){clamped}"),
            cells: vec![
                case("complete", complete, rule),
                case("wait", MORE, Rule::BacklogFull),
                case("refused", 0, Rule::BacklogFull),
                case("let in", MORE, Rule::RoomAgain),
            ],
            why: format!("{} + 1 connects complete; {MORE} more wait in SYN_SENT and feel nothing.", complete - 1),
        }
    });
    let column = |name: &str| Column { group: "of the clients".to_owned(), name: name.to_owned() };
    vec![Section {
        title: "Clients that connect while nobody accepts".to_owned(),
        about: "\"let in\": after the server has accepted at last, with the next SYN retransmit.".to_owned(),
        shown: Shown::Words,
        summed_at: None,
        row_head: "the server",
        columns: vec![column("complete"), column("wait"), column("refused"), column("let in later")],
        rows: rows.into(),
    }]
}

/// One server and its clients.
struct Crowd {
    server: Tracked,
    clients: Vec<Tracked>,
    waiting: Vec<Tracked>,
    refused: Vec<Tracked>,
    /// How many SYNs the kernel says it has dropped for want of room.
    dropped: u64,
}

pub(super) fn run(ground: &Ground, sections: &mut Sections) -> io::Result<()> {
    // On this machine itself the crowd would count its own loopback alone, but somaxconn must not be touched.
    let Some(topology) = ground.topology() else { return Ok(()) };
    let mut crowds = Vec::new();
    for backlog in BACKLOGS {
        let (complete, rule) = completing(backlog);
        if rule == Rule::BacklogClamped {
            topology.server().sysctl("net.core.somaxconn", &SOMAXCONN.to_string())?;
        }
        crowds.push(gather(topology.server(), topology.client(), backlog, complete + MORE)?);
    }
    for crowd in &mut crowds {
        // Nobody may be closed while it is counted: every connection that was accepted is kept.
        let counts = [crowd.clients.len(), crowd.waiting.len(), crowd.refused.len()];
        crowd.note(counts);
    }
    let let_in = accept_all(&mut crowds)?;
    let rows = sections.iter_mut().flat_map(|section| section.rows.iter_mut());
    for ((row, crowd), later) in rows.zip(&crowds).zip(let_in) {
        let counts = [crowd.clients.len(), crowd.waiting.len(), crowd.refused.len(), later];
        for (cell, count) in row.cells.iter_mut().flatten().zip(counts) {
            cell.observe(Outcome::Count(count as u64), crowd.evidence());
        }
    }
    Ok(())
}

fn gather(server: &Host, from: &Host, backlog: u32, clients: u64) -> io::Result<Crowd> {
    let mut listener = Tracked::open(server, Side::Server, "server", Proto::Tcp, true)?;
    listener.bind((Ipv4Addr::UNSPECIFIED, 0).into())?;
    listener.listen(backlog)?;
    let to = (SERVER_V4, listener.local()?.port()).into();
    let before = overflows(server)?;
    let (mut complete, mut waiting, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=clients {
        let mut client = Tracked::open(from, Side::Client, &format!("client {number}"), Proto::Tcp, true)?;
        client.connect(to)?;
        match wait::writable(&client, AT_ONCE) {
            true if client.connected().is_ok() => complete.push(client),
            true => refused.push(client),
            false => waiting.push(client),
        }
    }
    let dropped = overflows(server)? - before;
    Ok(Crowd { server: listener, clients: complete, waiting, refused, dropped })
}

/// Accepts everything, also what comes in later; gives for each crowd how many of those who waited got in.
fn accept_all(crowds: &mut [Crowd]) -> io::Result<Vec<usize>> {
    let began = Instant::now();
    let mut accepted = Vec::new();
    let mut let_in = vec![0; crowds.len()];
    while began.elapsed() < RETRANSMIT {
        for (crowd, count) in crowds.iter_mut().zip(&mut let_in) {
            while wait::readable(&crowd.server, Duration::ZERO) {
                accepted.push(crowd.server.inner().accept()?.0);
            }
            *count = crowd.waiting.iter().filter(|client| wait::writable(*client, Duration::ZERO)).count();
        }
        if crowds.iter().zip(&let_in).all(|(crowd, count)| crowd.waiting.len() == *count) {
            break;
        }
        // Whoever waits comes in with a retransmit, which the listener's queue shows.
        if let Some(crowd) = crowds.iter().zip(&let_in).find(|(crowd, count)| crowd.waiting.len() != **count) {
            wait::readable(&crowd.0.server, Duration::from_millis(50));
        }
    }
    let seconds = began.elapsed().as_secs_f32();
    for crowd in crowds {
        crowd
            .server
            .note(format!("accept(server), again and again; the others came in within {seconds:.1} s"), &Ok(()));
    }
    Ok(let_in)
}

impl Crowd {
    fn note(&mut self, [complete, waiting, refused]: [usize; 3]) {
        let dropped = self.dropped;
        self.server.note(
            format!(
                "{complete} clients complete, {waiting} wait, {refused} are refused; ListenOverflows grew by {dropped}"
            ),
            &Ok(()),
        );
    }

    /// The server's calls, and those of the first client and of the first that waits.
    fn evidence(&self) -> Vec<Call> {
        let some = self.clients.first().into_iter().chain(self.waiting.first());
        self.server.calls().iter().chain(some.flat_map(Tracked::calls)).cloned().collect()
    }
}

/// The kernel's count of connections for which a listener's queue had no room (netstat -s calls it "times the listen
/// queue of a socket overflowed").
fn overflows(host: &Host) -> io::Result<u64> {
    let text = host.run(|| std::fs::read_to_string("/proc/thread-self/net/netstat"))?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let count = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "ListenOverflows");
    Ok(count.and_then(|(_, value)| value.parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use crate::lab::experiments::Experiment;
    use crate::lab::testing;

    #[test]
    fn one_more_than_the_backlog_completes_and_the_others_wait_for_room() {
        testing::agrees(Experiment::Backlog, 24);
    }
}
