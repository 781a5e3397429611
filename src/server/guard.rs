//! The [`Guard`] of a datagram service that answers whoever asks.
//!
//! The source address of a datagram is whatever its sender wrote there. Who answers it may be made to answer a victim:
//! with more than was asked (amplification), as often as the forger likes (reflection), or for ever, when the victim
//! is a responder too (a loop, CVE-2024-2169). So a [responder](crate::Needs::responder) asks before each answer:
//!
//! 1. May this source be answered at all? ([`sources`])
//! 2. Was its network answered too often lately? ([`rate`])
//! 3. How long may the answer be? ([`Answer::limit`])
//!
//! The second and the third hold for sources that a stranger could forge from afar, not for [local](crate::Address::is_local)
//! ones. Nothing here does I/O or reads a clock, and no datagram costs an allocation.

mod rate;
mod sources;

use std::sync::Arc;

use tokio::time::Instant;

use crate::limits::{Limits, ResponseRate};
use crate::transport::Datagrams;

use rate::RateTable;
pub(crate) use sources::OwnListeners;

/// What an answer may have however short its request was: the greeting and the time of day fit in.
const SMALLEST_ALLOWANCE: usize = 128;

/// Decides which datagrams one responder answers.
pub(crate) struct Guard {
    own: Arc<OwnListeners>,
    source_ports: bool,
    rate: Option<RateTable>,
    rate_is_enforced: bool,
    amplification: usize,
}

/// What becomes of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The handler gets it.
    Answer(Answer),
    /// It is dropped in silence, and counted.
    Ignore(Reason),
}

/// How a datagram may be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The most bytes that all messages in answer to it may have together; none where its source cannot be forged
    /// from afar.
    pub(crate) limit: Option<usize>,
    /// It is over the rate, which is only watched (`response-rate=log`).
    pub(crate) over_rate: bool,
}

/// Why a datagram is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    /// It came from port 0, which nothing can be sent to.
    PortZero,
    /// It came from a port that other responders answer from.
    ServicePort,
    /// Its source is no address of a single host: multicast, broadcast, 0/8, 255/8, `::`.
    NotUnicast,
    /// Its source is of another family than the address that it was sent to.
    FamilyMismatch,
    /// It claims to come from this host's loopback, and was not sent there.
    ForgedLoopback,
    /// It claims to come from a listener of this very daemon.
    OwnListener,
    /// Its source prefix was answered too often.
    Rate,
}

impl Reason {
    /// The value of the metric's label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Reason::PortZero => "port-zero",
            Reason::ServicePort => "service-port",
            Reason::NotUnicast => "not-unicast",
            Reason::FamilyMismatch => "family-mismatch",
            Reason::ForgedLoopback => "forged-loopback",
            Reason::OwnListener => "own-listener",
            Reason::Rate => "rate",
        }
    }
}

impl Guard {
    /// A guard that holds a service to its limits.
    pub(crate) fn new(limits: &Limits, own: Arc<OwnListeners>) -> Self {
        let per_second = match limits.response_rate {
            ResponseRate::PerSecond(rate) => Some(rate),
            ResponseRate::LogOnly => Some(ResponseRate::STANDARD),
            ResponseRate::Off => None,
        };
        Guard {
            own,
            source_ports: limits.source_ports,
            rate: per_second.map(RateTable::new),
            rate_is_enforced: limits.response_rate != ResponseRate::LogOnly,
            amplification: limits.amplification as usize,
        }
    }

    /// Decides about the first of these datagrams, and counts it against its source's rate when it may be answered. What is
    /// [unlimited](Answer::UNLIMITED) is decided for all of them.
    pub(crate) fn admit(&mut self, datagrams: &Datagrams, now: impl FnOnce() -> Instant) -> Decision {
        if self.own.contains(&datagrams.remote, &datagrams.local) {
            return Decision::Ignore(Reason::OwnListener);
        }
        // Other sources than IP addresses are named by the kernel, not by the sender.
        let Some(source) = datagrams.remote.ip() else { return Decision::Answer(Answer::UNLIMITED) };
        if let Err(reason) = sources::check(source, datagrams.local.ip(), self.source_ports) {
            return Decision::Ignore(reason);
        }
        if datagrams.remote.is_local() {
            return Decision::Answer(Answer::UNLIMITED);
        }
        let ip = source.ip().to_canonical();
        let over_rate = self.rate.as_mut().is_some_and(|rate| !rate.take(ip, now()));
        if over_rate && self.rate_is_enforced {
            return Decision::Ignore(Reason::Rate);
        }
        let size = datagrams.payload.len().min(datagrams.segment);
        let limit = size.saturating_mul(self.amplification).max(SMALLEST_ALLOWANCE);
        Decision::Answer(Answer { limit: Some(limit), over_rate })
    }
}

impl Answer {
    /// Its source cannot be forged from afar, so neither it nor what else comes from there is counted.
    pub(crate) const UNLIMITED: Answer = Answer { limit: None, over_rate: false };
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::address::Address;

    fn ip(text: &str) -> Address {
        Address::Ip(text.parse().unwrap())
    }

    fn datagram(remote: &str, size: usize) -> Datagrams {
        let local = if remote.starts_with('[') { "[2001:db8:1::1]:8080" } else { "198.51.100.1:8080" };
        Datagrams::one(Bytes::from(vec![b'x'; size]), ip(remote), ip(local))
    }

    fn guard(limits: &Limits) -> Guard {
        Guard::new(limits, Arc::new(OwnListeners::default()))
    }

    fn limit_for(limits: &Limits, remote: &str, size: usize) -> Option<usize> {
        match guard(limits).admit(&datagram(remote, size), Instant::now) {
            Decision::Answer(answer) => answer.limit,
            Decision::Ignore(reason) => panic!("{remote} was ignored: {reason:?}"),
        }
    }

    #[test]
    fn an_answer_to_a_stranger_is_at_most_128_bytes_or_three_times_its_request() {
        let standard = Limits::default();
        for (size, allowed) in [(0, 128), (1, 128), (42, 128), (43, 129), (1000, 3000)] {
            assert_eq!(limit_for(&standard, "203.0.113.9:40000", size), Some(allowed), "{size}");
            assert_eq!(limit_for(&standard, "[2001:db8::9]:40000", size), Some(allowed), "{size}");
        }
        let raised = Limits { amplification: 10, ..Limits::default() };
        assert_eq!(limit_for(&raised, "203.0.113.9:40000", 100), Some(1000));
        let endless = Limits { amplification: u32::MAX, ..Limits::default() };
        assert!(limit_for(&endless, "203.0.113.9:40000", 65_507) >= Some(65_507));
    }

    #[test]
    fn an_answer_to_a_local_source_may_have_any_length() {
        for remote in ["10.0.0.9:40000", "192.168.1.9:40000", "169.254.0.9:40000", "[fd00::9]:40000", "[fe80::9]:40000"]
        {
            assert_eq!(limit_for(&Limits::default(), remote, 1), None, "{remote}");
        }
    }

    #[test]
    fn a_source_that_asks_too_often_is_ignored_until_its_time_comes() {
        let mut guard = guard(&Limits::default());
        let start = Instant::now();
        let asked = datagram("203.0.113.9:40000", 5);
        let answered = |guard: &mut Guard, now| (0..100).filter(|_| is_answered(guard.admit(&asked, || now))).count();
        assert_eq!(answered(&mut guard, start), 40);
        assert_eq!(guard.admit(&asked, || start), Decision::Ignore(Reason::Rate));
        assert_eq!(answered(&mut guard, start + Duration::from_secs(1)), 20);
        assert_eq!(answered(&mut guard, start + Duration::from_secs(60)), 40);
    }

    #[test]
    fn a_rate_that_is_only_watched_or_switched_off_drops_nothing() {
        let asked = datagram("203.0.113.9:40000", 5);
        let over_rate = |response_rate| {
            let mut guard = guard(&Limits { response_rate, ..Limits::default() });
            let now = Instant::now();
            let decisions: Vec<Decision> = (0..100).map(|_| guard.admit(&asked, || now)).collect();
            assert!(decisions.iter().all(|decision| is_answered(*decision)));
            let over = |decision: &&Decision| matches!(decision, Decision::Answer(answer) if answer.over_rate);
            decisions.iter().filter(over).count()
        };
        assert_eq!(over_rate(ResponseRate::LogOnly), 60);
        assert_eq!(over_rate(ResponseRate::Off), 0);
    }

    #[test]
    fn a_local_source_may_ask_as_often_as_it_likes() {
        let mut guard = guard(&Limits::default());
        let asked = datagram("192.168.1.9:40000", 5);
        assert!((0..10_000).all(|_| is_answered(guard.admit(&asked, Instant::now))));
    }

    #[test]
    fn a_socket_in_the_file_system_is_answered_without_limit_unless_it_is_our_own() {
        let name = |name: &[u8]| Address::UnixAbstract(Arc::from(name));
        let own = OwnListeners::default();
        own.replace([name(b"one"), name(b"two")]);
        let mut guard = Guard::new(&Limits::default(), Arc::new(own));
        let mut from =
            |remote| guard.admit(&Datagrams::one(Bytes::from_static(b"x"), remote, name(b"one")), Instant::now);
        assert_eq!(from(name(b"client")), Decision::Answer(Answer::UNLIMITED));
        assert_eq!(from(Address::Unnamed), Decision::Answer(Answer::UNLIMITED));
        assert_eq!(from(name(b"two")), Decision::Ignore(Reason::OwnListener));
    }

    /// Two responders on high ports of two hosts, and one datagram that claims to come from the other of them.
    #[test]
    fn two_responders_that_a_forger_set_upon_each_other_fall_silent() {
        let mut guards = [guard(&Limits::default()), guard(&Limits::default())];
        let hosts = ["198.51.100.1:40001", "203.0.113.1:40002"];
        let (mut now, mut packets, mut at) = (Instant::now(), 1, 0);
        let start = now;
        loop {
            let asked =
                Datagrams { remote: ip(hosts[1 - at]), local: ip(hosts[at]), ..datagram("203.0.113.9:40000", 5) };
            if !is_answered(guards[at].admit(&asked, || now)) {
                break;
            }
            packets += 1;
            at = 1 - at;
            now += Duration::from_millis(1);
        }
        assert!(packets <= 100, "{packets} packets");
        assert!(now - start <= Duration::from_secs(2), "{:?}", now - start);
    }

    fn is_answered(decision: Decision) -> bool {
        matches!(decision, Decision::Answer(_))
    }
}
