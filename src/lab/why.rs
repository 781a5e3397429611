//! Which rule would stop a bind beside the sockets that are there, and the smallest change that mends it.

use std::fmt;
use std::io;

use nix::errno::Errno;
use serde::Serialize;

use super::isolation::errno_of;
use super::model::{Binding, Proto, Rule, may_bind};
use crate::machine::Holder;
use crate::machine::processes::SharingOptions;
use crate::machine::sockets::{Protocol, State};

/// A socket that is there, as the rules see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The socket.
    pub binding: Binding,
    /// Whether its reuse options are known; the kernel tells them to nobody but those who may trace its process.
    pub options_known: bool,
    /// Whether it is only what a closed connection has left.
    pub time_wait: bool,
}

/// How a bind with certain options would end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// The options of the new socket.
    pub options: &'static str,
    /// `ok`, the errno, or `depends` on options that the kernel does not tell.
    pub result: String,
    /// What decides.
    pub rule: Rule,
    /// Whether the kernel was asked by trying it, because it does not tell otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tried: bool,
    #[serde(skip)]
    sharing: SharingOptions,
}

/// Something that could be otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// `SO_REUSEADDR` on the new socket.
    NewReuseAddr,
    /// `SO_REUSEPORT` on the new socket.
    NewReusePort,
    /// `IPV6_V6ONLY` on the new socket.
    NewV6Only,
    /// `SO_REUSEADDR` on the sockets that are there.
    OldReuseAddr,
    /// `SO_REUSEPORT` on the sockets that are there.
    OldReusePort,
    /// `IPV6_V6ONLY` on the sockets that are there.
    OldV6Only,
}

impl Change {
    /// The cheapest first: one's own socket before those of others.
    const ALL: [Change; 6] = [
        Change::NewReuseAddr,
        Change::NewReusePort,
        Change::NewV6Only,
        Change::OldReuseAddr,
        Change::OldReusePort,
        Change::OldV6Only,
    ];

    fn make(self, existing: &mut [Standing], new: &mut Binding) {
        match self {
            Change::NewReuseAddr => new.reuse_addr = true,
            Change::NewReusePort => new.reuse_port = true,
            Change::NewV6Only => new.v6_only = true,
            Change::OldReuseAddr => existing.iter_mut().for_each(|one| one.binding.reuse_addr = true),
            Change::OldReusePort => existing.iter_mut().for_each(|one| one.binding.reuse_port = true),
            Change::OldV6Only => existing.iter_mut().for_each(|one| one.binding.v6_only = true),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Change::NewReuseAddr => "set SO_REUSEADDR on the new socket (--reuse-addr)",
            Change::NewReusePort => "set SO_REUSEPORT on the new socket (--reuse-port)",
            Change::NewV6Only => "make the new socket v6-only (--v6-only), which leaves IPv4 to the other one",
            Change::OldReuseAddr => "start the other one with SO_REUSEADDR",
            Change::OldReusePort => "start the other one with SO_REUSEPORT",
            Change::OldV6Only => "start the other one v6-only, which leaves IPv4 to the new one",
        })
    }
}

impl Standing {
    /// A socket of this machine.
    pub fn of(holder: &Holder) -> Self {
        let socket = &holder.socket;
        let proto = match socket.protocol {
            Protocol::Tcp => Proto::Tcp,
            Protocol::Udp => Proto::Udp,
        };
        let options = holder.options;
        Standing {
            binding: Binding {
                v6_only: socket.v6_only.unwrap_or(false),
                device: socket.device.clone(),
                listening: socket.state == State::Listening,
                user: socket.uid.unwrap_or(0),
                ..Binding::new(proto, socket.local.ip())
                    .reusing(options.is_some_and(|it| it.reuse_addr), options.is_some_and(|it| it.reuse_port))
            },
            options_known: options.is_some(),
            time_wait: socket.state == State::TimeWait,
        }
    }

    /// A socket that is only thought of.
    pub fn imagined(binding: Binding) -> Self {
        Standing { binding, options_known: true, time_wait: false }
    }
}

/// How a bind would end, with each of the four mixes of reuse options.
pub fn attempts(existing: &[Standing], new: &Binding) -> Vec<Attempt> {
    [
        ("none", false, false),
        ("SO_REUSEADDR", true, false),
        ("SO_REUSEPORT", false, true),
        ("SO_REUSEADDR and SO_REUSEPORT", true, true),
    ]
    .into_iter()
    .map(|(options, addr, port)| attempt(existing, &new.clone().reusing(addr, port), options))
    .collect()
}

/// How this very bind would end.
pub fn attempt(existing: &[Standing], new: &Binding, options: &'static str) -> Attempt {
    let (worst, rule) = decide(existing, new, false);
    let (best, _) = decide(existing, new, true);
    let result = match (worst, best) {
        (Ok(()), _) => "ok".to_owned(),
        (Err(errno), Err(_)) => format!("{errno:?}"),
        (Err(_), Ok(())) => "depends".to_owned(),
    };
    let sharing = SharingOptions { reuse_addr: new.reuse_addr, reuse_port: new.reuse_port };
    Attempt { options, result, rule, tried: false, sharing }
}

impl Attempt {
    /// Settles what depends on options that nobody tells, by trying it.
    pub fn settle(&mut self, is_left_alone: bool, bind: impl FnOnce(SharingOptions) -> io::Result<()>) {
        if self.result != "depends" || !is_left_alone {
            return;
        }
        match bind(self.sharing) {
            Ok(()) => {
                "ok".clone_into(&mut self.result);
                if self.rule == Rule::TimeWait {
                    self.rule = Rule::TimeWaitReused;
                }
            }
            Err(error) => self.result = format!("{:?}", errno_of(&error)),
        }
        self.tried = true;
    }
}

/// Whether nothing but connections is there, of a listener that is gone: nobody is called on the address.
pub fn are_leftovers(holders: &[Holder]) -> bool {
    !holders.is_empty() && holders.iter().all(|holder| !holder.socket.state.is_server())
}

/// The decision if the options that nobody tells are off, or on.
fn decide(existing: &[Standing], new: &Binding, unknown: bool) -> (Result<(), Errno>, Rule) {
    let mut rule = Rule::NoOverlap;
    for one in existing {
        let mut binding = one.binding.clone();
        if !one.options_known {
            (binding.reuse_addr, binding.reuse_port) = (unknown, unknown);
        }
        if one.time_wait {
            // The kernel does not ask whose connection it was.
            binding.user = new.user;
        }
        let decision = may_bind([&binding], new);
        match decision.result {
            Err(errno) => return (Err(errno), if one.time_wait { Rule::TimeWait } else { decision.rule }),
            Ok(()) if decision.rule != Rule::NoOverlap && one.time_wait => rule = Rule::TimeWaitReused,
            Ok(()) if decision.rule != Rule::NoOverlap => rule = decision.rule,
            Ok(()) => {}
        }
    }
    (Ok(()), rule)
}

/// The fewest changes with which the bind succeeds for certain, one's own before those of others; empty where it does
/// as it is, `None` where none helps.
pub fn smallest_change(existing: &[Standing], new: &Binding) -> Option<Vec<Change>> {
    let mut choices: Vec<Vec<Change>> = (0..1_u32 << Change::ALL.len())
        .map(|chosen| {
            Change::ALL.into_iter().enumerate().filter(|(bit, _)| chosen & (1 << bit) != 0).map(|(_, it)| it).collect()
        })
        .collect();
    let cost = |changes: &Vec<Change>| {
        let others = changes.iter().filter(|change| **change as usize >= Change::OldReuseAddr as usize).count();
        (changes.len() + 2 * others, changes.len())
    };
    choices.sort_by_key(cost);
    choices.into_iter().find(|changes| {
        let (mut existing, mut new) = (existing.to_vec(), new.clone());
        for change in changes {
            change.make(&mut existing, &mut new);
        }
        decide(&existing, &new, false).0.is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn tcp(ip: &str) -> Binding {
        Binding::new(Proto::Tcp, ip.parse::<IpAddr>().unwrap())
    }

    fn mended(existing: Binding, new: &Binding) -> Option<Vec<Change>> {
        smallest_change(&[Standing::imagined(existing)], new)
    }

    #[test]
    fn the_smallest_change_is_ones_own_where_that_is_enough() {
        assert_eq!(mended(tcp("127.0.0.1"), &tcp("127.0.0.2")), Some(vec![]));
        assert_eq!(mended(tcp("0.0.0.0").reusing(true, false), &tcp("127.0.0.1")), Some(vec![Change::NewReuseAddr]));
        assert_eq!(mended(tcp("0.0.0.0").listening(), &tcp("::")), Some(vec![Change::NewV6Only]));
        let shared = tcp("0.0.0.0").reusing(true, true).listening();
        assert_eq!(mended(shared, &tcp("127.0.0.1")), Some(vec![Change::NewReusePort]));
    }

    #[test]
    fn both_must_change_where_neither_shares() {
        let listening = tcp("0.0.0.0").listening();
        assert_eq!(mended(listening.clone(), &tcp("0.0.0.0")), Some(vec![Change::NewReusePort, Change::OldReusePort]));
        let stranger = Binding { user: 7, ..listening };
        assert_eq!(mended(stranger, &tcp("0.0.0.0")), None);
    }

    #[test]
    fn what_the_kernel_does_not_tell_makes_an_answer_depend_on_it() {
        let standing = Standing { options_known: false, ..Standing::imagined(tcp("0.0.0.0")) };
        let results: Vec<_> = attempts(&[standing], &tcp("0.0.0.0")).into_iter().map(|one| one.result).collect();
        assert_eq!(results, ["EADDRINUSE", "depends", "depends", "depends"]);
    }
}
