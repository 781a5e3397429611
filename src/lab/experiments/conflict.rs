//! `conflict`: two sockets on one port, in every mix of addresses and options.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::json;

use super::Sections;
use super::reach::LOOPBACK_SECOND;
use crate::lab::ground::Ground;
use crate::lab::model::{Binding, Proto, may_bind};
use crate::lab::outcome::Outcome;
use crate::lab::report::{Case, Column, Row, Section, Shown};
use crate::lab::socket::{Tracked, address};
use crate::lab::topology::{SERVER_V4, SERVER_V6, Side};

pub(super) const ABOUT: &str = "Two sockets want the same port. The second bind succeeds if no address belongs to \
    both, if both set SO_REUSEPORT (and have one user), or if both set SO_REUSEADDR and the first is not in LISTEN. \
    One that sets an option alone gains nothing by it.";

/// What the first socket is when the second one binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    TcpBound,
    TcpListening,
    Udp,
}

impl First {
    const ALL: [First; 3] = [First::TcpBound, First::TcpListening, First::Udp];

    fn proto(self) -> Proto {
        if self == First::Udp { Proto::Udp } else { Proto::Tcp }
    }

    fn in_words(self) -> &'static str {
        match self {
            First::TcpBound => "TCP, the first bound",
            First::TcpListening => "TCP, the first listening",
            First::Udp => "UDP",
        }
    }
}

/// The reuse options of both sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mix {
    first: (bool, bool),
    second: (bool, bool),
}

impl Mix {
    fn all() -> Vec<Mix> {
        let each = [(false, false), (true, false), (false, true), (true, true)];
        each.into_iter().flat_map(|first| each.map(|second| Mix { first, second })).collect()
    }

    fn first_in_words(self) -> String {
        format!("the first sets {}", in_words(self.first))
    }

    fn second_in_words(self) -> String {
        in_words(self.second).to_owned()
    }
}

fn in_words((addr, port): (bool, bool)) -> &'static str {
    match (addr, port) {
        (false, false) => "none",
        (true, false) => "reuse-addr",
        (false, true) => "reuse-port",
        (true, true) => "both",
    }
}

/// The nine addresses.
fn addresses(proto: Proto) -> Vec<Binding> {
    let new = |ip: IpAddr| Binding::new(proto, ip);
    vec![
        new(Ipv4Addr::LOCALHOST.into()),
        new(LOOPBACK_SECOND.into()),
        new(Ipv4Addr::UNSPECIFIED.into()),
        new(Ipv6Addr::LOCALHOST.into()),
        new(Ipv6Addr::UNSPECIFIED.into()).v6_only(),
        new(Ipv6Addr::UNSPECIFIED.into()),
        new(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()),
        new(SERVER_V4.into()),
        new(SERVER_V6.into()),
    ]
}

/// The two sockets of a case.
fn pair(first: First, mix: Mix, one: &Binding, two: &Binding) -> (Binding, Binding) {
    let one = one.clone().reusing(mix.first.0, mix.first.1);
    let one = if first == First::TcpListening { one.listening() } else { one };
    (one, two.clone().reusing(mix.second.0, mix.second.1))
}

pub(super) fn predict() -> Sections {
    let mut sections: Vec<Section> =
        First::ALL.into_iter().flat_map(|first| Mix::all().into_iter().map(move |mix| section(first, mix))).collect();
    // The very first table, of TCP without any option, says who overlaps with whom. All others either come out like
    // it, or refuse nothing.
    sections[0].shown = Shown::Glyphs;
    "Who overlaps with whom".clone_into(&mut sections[0].title);
    sections
}

fn section(first: First, mix: Mix) -> Section {
    let all = addresses(first.proto());
    let rows = all.iter().map(|one| {
        let cells = all.iter().map(|two| {
            let (one, two) = pair(first, mix, one, two);
            let decision = may_bind([&one], &two);
            let options = |binding: &Binding| {
                json!({
                    "address": binding.ip, "v6_only": binding.v6_only,
                    "reuse_addr": binding.reuse_addr, "reuse_port": binding.reuse_port,
                })
            };
            let what = vec![
                ("proto", json!(one.proto)),
                ("listening", json!(one.listening)),
                ("first", options(&one)),
                ("second", options(&two)),
            ];
            Some(Case::predicted(what, decision.result.into(), decision.rule))
        });
        let (cells, shares): (Vec<_>, Vec<_>) = cells
            .zip(&all)
            .map(|(cell, two)| {
                let refused = cell.as_ref().is_some_and(|case| matches!(case.predicted, Outcome::Errno(_)));
                (cell, refused.then(|| two.to_string()))
            })
            .unzip();
        let refused: Vec<_> = shares.into_iter().flatten().collect();
        Row { name: one.to_string(), cells, why: why(&refused, all.len()) }
    });
    Section {
        title: format!("{}: {}, {}", first.in_words(), mix.first_in_words(), mix.second_in_words()),
        about: "Without any option, the second bind is refused wherever an address belongs to both sockets.".to_owned(),
        shown: Shown::Summed,
        summed_at: Some([first.in_words().to_owned(), mix.first_in_words(), mix.second_in_words()]),
        row_head: "first socket",
        columns: all.iter().map(|two| Column { group: "second socket".to_owned(), name: two.to_string() }).collect(),
        rows: rows.collect(),
    }
}

fn why(refused: &[String], of: usize) -> String {
    match refused.len() {
        0 => "No second bind is refused: they do not overlap, or the options let them share.".to_owned(),
        all if all == of => "Every second bind meets it, so all are refused.".to_owned(),
        _ => format!("It shares addresses with {}.", refused.join(", ")),
    }
}

pub(super) fn run(ground: &Ground, sections: &mut Sections) -> io::Result<()> {
    let mut tables = sections.iter_mut();
    for first in First::ALL {
        let all = addresses(first.proto());
        for mix in Mix::all() {
            let Some(section) = tables.next() else { return Ok(()) };
            for (row, one) in section.rows.iter_mut().zip(&all) {
                for (cell, two) in row.cells.iter_mut().zip(&all) {
                    let (one, two) = pair(first, mix, one, two);
                    if let Some(case) = cell
                        && ground.may_bind(&one)
                        && ground.may_bind(&two)
                    {
                        try_pair(ground, &one, &two, case)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// The first socket gets a port from the kernel, the second one asks for the same.
fn try_pair(ground: &Ground, one: &Binding, two: &Binding, case: &mut Case) -> io::Result<()> {
    let host = ground.host(Side::Server).ok_or(io::ErrorKind::NotFound)?;
    let mut first = Tracked::prepare(host, Side::Server, "first", one)?;
    first.bind(address(host, one.ip, 0, None)?)?;
    if one.listening {
        first.listen(1)?;
    }
    let mut second = Tracked::prepare(host, Side::Server, "second", two)?;
    let result = second.bind(address(host, two.ip, first.local()?.port(), None)?);
    case.observe(Outcome::of_call(&result), [first.calls(), second.calls()].concat());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::experiments::Experiment;
    use crate::lab::testing;

    #[test]
    fn every_mix_refuses_whoever_overlaps_or_nobody() {
        let sections = predict();
        let outcomes = |section: &Section| section.cases().map(|case| case.predicted.clone()).collect::<Vec<_>>();
        let overlap = outcomes(&sections[0]);
        for section in &sections {
            let all = outcomes(section);
            assert!(all == overlap || all.iter().all(|one| *one == Outcome::Ok), "{}", section.title);
        }
    }

    #[test]
    fn reuse_port_is_shared_by_sockets_of_one_user_alone() {
        let Some(topology) = testing::topology() else { return };
        if !nix::unistd::geteuid().is_root() {
            eprintln!("left out: only root can be another user");
            return;
        }
        let of_root = topology.server();
        // The user is a matter of the thread, and this thread is nobody else's.
        let of_nobody = topology.server().helper().unwrap();
        of_nobody.run(|| {
            let nobody = rustix::thread::Uid::from_raw(65534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        });
        for proto in [Proto::Tcp, Proto::Udp] {
            let bind = |host, user, port| {
                let binding = Binding { user, ..Binding::new(proto, Ipv4Addr::LOCALHOST).reusing(false, true) };
                let mut socket = Tracked::prepare(host, Side::Server, "socket", &binding).unwrap();
                let result = socket.bind((Ipv4Addr::LOCALHOST, port).into());
                (socket, binding, Outcome::of_call(&result))
            };
            let (first, standing, _) = bind(of_root, 0, 0);
            let port = first.local().unwrap().port();
            for (host, user) in [(of_root, 0), (&of_nobody, 65534)] {
                let (_second, new, outcome) = bind(host, user, port);
                let decision = may_bind([&standing], &new);
                assert_eq!(outcome, decision.result.into(), "{proto} of user {user}: {}", decision.rule);
            }
        }
    }

    #[test]
    fn the_model_agrees_with_the_kernel_on_all_3888_pairs() {
        testing::agrees(Experiment::Conflict, 3888);
    }
}
