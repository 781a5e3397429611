//! Whether a second socket may have a port: overlap, and what lets two sockets overlap.
//!
//! Sources: socket(7) on `SO_REUSEADDR` and `SO_REUSEPORT`, ipv6(7) on `IPV6_V6ONLY`, and in the kernel
//! `inet_bind_conflict` (`net/ipv4/inet_connection_sock.c`), `inet_rcv_saddr_equal` and `udp_lib_lport_inuse`.

use std::net::IpAddr;

use nix::errno::Errno;

use super::{Binding, Proto, Rule};

/// What the model says about a call, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// `Ok`, or the errno with which the call fails.
    pub result: Result<(), Errno>,
    /// The rule that decided it.
    pub rule: Rule,
}

impl Decision {
    pub(crate) fn allowed(rule: Rule) -> Self {
        Decision { result: Ok(()), rule }
    }

    pub(crate) fn refused(errno: Errno, rule: Rule) -> Self {
        Decision { result: Err(errno), rule }
    }
}

/// Whether two sockets on one port stand for some address in common; the rule says what keeps them apart or joins
/// them.
pub fn overlap(one: &Binding, two: &Binding) -> (bool, Rule) {
    if one.proto != two.proto {
        return (false, Rule::OtherProtocol);
    }
    if !one.shares_device(two) {
        return (false, Rule::OtherDevice);
    }
    let in_v4 =
        matches!((one.v4(), two.v4()), (Some(a), Some(b)) if a == b || a.is_unspecified() || b.is_unspecified());
    let in_v6 =
        matches!((one.v6(), two.v6()), (Some(a), Some(b)) if a == b || a.is_unspecified() || b.is_unspecified());
    if in_v4 || in_v6 { (true, Rule::Overlap) } else { (false, Rule::NoOverlap) }
}

/// Whether `new` may bind beside the sockets that are there.
///
/// All of them are looked at with the options they have now, not those they had when they were bound.
pub fn may_bind<'a>(existing: impl IntoIterator<Item = &'a Binding>, new: &Binding) -> Decision {
    if let IpAddr::V6(ip) = new.ip
        && ip.to_ipv4_mapped().is_some()
        && new.v6_only
    {
        return Decision::refused(Errno::EINVAL, Rule::MappedButV6Only);
    }
    let mut apart = Rule::NoOverlap;
    let mut shared = None;
    for other in existing {
        match beside(other, new) {
            (Ok(()), rule @ (Rule::NoOverlap | Rule::OtherDevice | Rule::OtherProtocol)) => {
                if rule == Rule::OtherDevice {
                    apart = rule;
                }
            }
            (Ok(()), rule) => shared = shared.or(Some(rule)),
            (Err(errno), rule) => return Decision::refused(errno, rule),
        }
    }
    Decision::allowed(shared.unwrap_or(apart))
}

/// Whether `socket`, which is bound, may listen beside the others: `listen` makes the same check as `bind` once more,
/// and by now others may be listening.
pub fn may_listen<'a>(others: impl IntoIterator<Item = &'a Binding>, socket: &Binding) -> Decision {
    let decision = may_bind(others, socket);
    match decision.result {
        Ok(()) => decision,
        Err(errno) => Decision::refused(errno, Rule::ListenChecksAgain),
    }
}

/// One socket beside one other.
fn beside(existing: &Binding, new: &Binding) -> (Result<(), Errno>, Rule) {
    let (overlaps, rule) = overlap(existing, new);
    if !overlaps {
        return (Ok(()), rule);
    }
    if existing.reuse_port && new.reuse_port && existing.user == new.user {
        return (Ok(()), Rule::BothReusePort);
    }
    let both_reuse_addr = existing.reuse_addr && new.reuse_addr;
    if both_reuse_addr && (new.proto == Proto::Udp || !existing.listening) {
        return (Ok(()), Rule::BothReuseAddr);
    }
    let rule = match () {
        () if both_reuse_addr => Rule::ListenerBlocks,
        () if existing.reuse_port && new.reuse_port => Rule::OtherUser,
        () => Rule::Overlap,
    };
    (Err(Errno::EADDRINUSE), rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(ip: &str) -> Binding {
        Binding::new(Proto::Tcp, ip.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn overlap_is_the_same_seen_from_either_side() {
        let all = ["127.0.0.1", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "::ffff:0.0.0.0", "2001:db8::1"];
        for one in all {
            for two in all {
                for (a, b) in [(true, false), (false, true), (true, true), (false, false)] {
                    let (one, two) = (Binding { v6_only: a, ..tcp(one) }, Binding { v6_only: b, ..tcp(two) });
                    assert_eq!(overlap(&one, &two).0, overlap(&two, &one).0, "{one} {two}");
                }
            }
        }
    }

    #[test]
    fn a_device_keeps_apart_only_from_another_device() {
        let (lo, eth0, none) = (tcp("0.0.0.0").on("lo"), tcp("0.0.0.0").on("eth0"), tcp("0.0.0.0"));
        assert_eq!(may_bind([&lo], &eth0), Decision::allowed(Rule::OtherDevice));
        assert_eq!(may_bind([&lo], &none), Decision::refused(Errno::EADDRINUSE, Rule::Overlap));
    }

    #[test]
    fn a_listener_is_shared_by_reuse_port_of_one_user_alone() {
        let first = tcp("0.0.0.0").reusing(true, true).listening();
        let with = |addr, port| may_bind([&first], &tcp("127.0.0.1").reusing(addr, port));
        assert_eq!(with(true, false), Decision::refused(Errno::EADDRINUSE, Rule::ListenerBlocks));
        assert_eq!(with(false, true), Decision::allowed(Rule::BothReusePort));
        let stranger = Binding { user: 7, ..tcp("127.0.0.1").reusing(false, true) };
        assert_eq!(may_bind([&first], &stranger).rule, Rule::OtherUser);
    }

    #[test]
    fn two_sockets_that_may_both_bind_may_not_both_listen() {
        let (first, second) = (tcp("0.0.0.0").reusing(true, false), tcp("127.0.0.1").reusing(true, false));
        assert!(may_bind([&first], &second).result.is_ok());
        assert!(may_listen([&second], &first).result.is_ok());
        let refused = may_listen([&first.listening()], &second);
        assert_eq!(refused, Decision::refused(Errno::EADDRINUSE, Rule::ListenChecksAgain));
    }

    #[test]
    fn a_mapped_address_on_a_v6_only_socket_is_no_address() {
        assert_eq!(may_bind([], &tcp("::ffff:127.0.0.1").v6_only()).result, Err(Errno::EINVAL));
    }
}
