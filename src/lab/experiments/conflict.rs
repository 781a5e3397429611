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

    /// The mixes that the text shows; the other ones come out like one of them.
    fn is_telling(self) -> bool {
        self.first == self.second && self.first != (true, true)
    }

    fn in_words(self) -> String {
        let one = |(addr, port)| match (addr, port) {
            (false, false) => "none",
            (true, false) => "reuse-addr",
            (false, true) => "reuse-port",
            (true, true) => "both",
        };
        match (one(self.first), one(self.second)) {
            ("none", "none") => "no option".to_owned(),
            (first, second) if first == second => format!("{first} on both"),
            (first, second) => format!("{first}, then {second}"),
        }
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
    let mut sections = Vec::new();
    for first in First::ALL {
        let begin = sections.len();
        sections.extend(Mix::all().into_iter().map(|mix| section(first, mix)));
        let telling: Vec<usize> =
            (begin..sections.len()).filter(|&place| Mix::all()[place - begin].is_telling()).collect();
        for place in begin..sections.len() {
            let like =
                telling.iter().find(|&&shown| shown != place && come_out_alike(&sections[shown], &sections[place]));
            if let (false, Some(&like)) = (telling.contains(&place), like) {
                sections[place].shown = Shown::Like(like);
            }
        }
    }
    sections
}

fn come_out_alike(one: &Section, other: &Section) -> bool {
    one.cases().map(|case| &case.predicted).eq(other.cases().map(|case| &case.predicted))
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
        title: format!("{}: {}", first.in_words(), mix.in_words()),
        about: String::new(),
        shown: Shown::Glyphs,
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
    fn every_mix_comes_out_like_one_of_three() {
        for (place, section) in predict().iter().enumerate() {
            let is_telling = Mix::all()[place % 16].is_telling();
            assert_eq!(section.shown == Shown::Glyphs, is_telling, "{}", section.title);
        }
    }

    #[test]
    fn the_model_agrees_with_the_kernel_on_all_3888_pairs() {
        testing::agrees(Experiment::Conflict, 3888);
    }
}
