//! The rules by name, each with the sentence that explains it.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! rules {
    ($($(#[$doc:meta])* $variant:ident $name:literal $sentence:literal;)*) => {
        /// What decided an outcome.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Rule {
            $(
                #[doc = $sentence]
                $variant,
            )*
        }

        impl Rule {
            /// All of them.
            pub const ALL: &'static [Rule] = &[$(Rule::$variant,)*];

            /// Its name, as the output shows it.
            pub fn name(self) -> &'static str {
                match self { $(Rule::$variant => $name,)* }
            }

            /// The rule in one sentence.
            pub fn sentence(self) -> &'static str {
                match self { $(Rule::$variant => $sentence,)* }
            }
        }
    };
}

rules! {
    NoOverlap "no-overlap" "No address belongs to both sockets, so they do not meet.";
    OtherProtocol "other-protocol" "A port of TCP and the same port of UDP are two ports.";
    OtherDevice "other-device" "Sockets bound to different devices never conflict.";
    BothReusePort "both-reuse-port" "Both have SO_REUSEPORT and one user, so they share the port.";
    BothReuseAddr "both-reuse-addr" "Both have SO_REUSEADDR, and the first one is not in LISTEN.";
    Overlap "overlap" "They have an address in common, and no option that both set lets them share it.";
    OtherUser "other-user" "SO_REUSEPORT shares a port only among sockets of one effective user.";
    ListenerBlocks "listener-blocks" "SO_REUSEADDR on both is not enough beside a socket in LISTEN.";
    ListenChecksAgain "listen-checks-again" "listen() makes the same check as bind() once more, and now another socket listens.";
    MappedButV6Only "mapped-but-v6-only" "A v6-only socket cannot have an IPv4-mapped address.";
    ReusePortRemembered "reuse-port-remembered" "TCP remembers that the port was bound with SO_REUSEPORT, and lets another such socket in without a look at what the others have set since.";
    ReusePortEndsSearch "reuse-port-ends-search" "UDP looks at the newest socket first, and stops looking at one that shares SO_REUSEPORT with the new one.";
    NotLocal "not-local" "The address is on no device of this host; IP_FREEBIND or ip_nonlocal_bind would allow it.";
    NonLocalAllowed "non-local-allowed" "IP_FREEBIND or ip_nonlocal_bind lets a socket bind an address that is not there yet.";
    NoSuchDevice "no-such-device" "No device of that name is on this host.";
    AlreadyBound "already-bound" "A socket is bound once.";
    AlreadyConnected "already-connected" "A socket is connected once.";
    CallSucceeds "nothing-against-it" "Nothing stands in the way of this call.";
    NoListenOnUdp "no-listen-on-udp" "UDP has no connections to listen for.";
    NothingWaits "nothing-waits" "Nothing has come that could be taken.";
    SomethingWaits "something-waits" "Something has come and can be taken.";
    NoPeer "no-peer" "The socket has no peer to which this could go.";
    ScopeNeeded "scope-needed" "A link-local address means nothing without its device.";
    PrivilegedPort "privileged-port" "Ports below ip_unprivileged_port_start need CAP_NET_BIND_SERVICE.";
    Mine "address-matches" "The socket is bound to the very address that was dialled.";
    Wildcard "wildcard-matches" "A wildcard takes in every address of its family on this host.";
    DualStack "dual-stack" "An IPv6 wildcard that is not v6-only takes in IPv4 as well.";
    Mapped "mapped-is-ipv4" "An IPv4-mapped address on an IPv6 socket is that IPv4 address.";
    LoopbackStaysHome "loopback-stays-home" "A loopback address means the dialling host itself, where nobody listens.";
    OtherAddress "other-address" "The socket is bound to another address.";
    OtherFamily "other-family" "The socket takes in no address of this family.";
    ArrivesElsewhere "arrives-on-other-device" "The packet arrives on another device than the one that the socket is bound to.";
    NobodyHas "nobody-has-it" "Neither host has that address.";
    NobodyListens "nobody-listens" "No socket stands for that address and port.";
    BoundNotListening "bound-not-listening" "A TCP socket that is bound and not listening holds the port and answers nobody.";
    ReplyFromOtherAddress "reply-from-other-address" "The reply leaves from the address that routing picks, not the one that was asked, and the client drops it.";
    PktInfo "pktinfo" "IP_PKTINFO told the server which address was asked, and it answers from that one.";
    RoutePicksAsked "route-picks-asked" "The address that routing picks happens to be the one that was asked.";
    BoundSource "bound-source" "A socket bound to one address answers from it.";
    SpecificFirst "specific-beats-wildcard" "A socket bound to the address comes before any wildcard.";
    DeviceFirst "device-beats-any-device" "Among equals, a socket bound to the arriving device comes first.";
    InetFirst "inet-beats-dual-stack" "For IPv4, an AF_INET socket comes before a dual-stack one.";
    LastBound "last-bound-wins" "Among equal UDP sockets with SO_REUSEADDR, the one bound last gets everything.";
    Spread "reuse-port-spreads" "Sockets of a SO_REUSEPORT group get the flows by a hash of addresses and ports.";
    FirstMet "reuse-port-first-met" "Among SO_REUSEPORT sockets of one family the search ends at the first it meets, which is the one bound last (IPv6: first); it never gets to compare devices.";
    Sticky "flows-stick" "The hash of one flow is always the same, so its datagrams stay with one member.";
    StalledMember "stalled-member-keeps-its-share" "The hash does not know who is slow: a stalled member keeps its share, and its clients wait.";
    CloseLosesQueue "close-loses-queue" "Closing one listener resets the connections in its queue; the other members never see them.";
    CloseLosesDatagrams "close-loses-datagrams" "Closing a UDP member throws away what waits in its buffer and tells nobody; the next datagram of the flow goes to another member.";
    QueueMigrates "queue-migrates" "With tcp_migrate_req, what waits in the queue of a closed listener moves to another of its group.";
    OnlySocket "only-match" "No other socket takes in that packet.";
    BacklogPlusOne "backlog-plus-one" "listen(n) lets n + 1 connections complete before anybody accepts.";
    BacklogClamped "backlog-clamped" "listen(n) counts at most somaxconn.";
    BacklogAnew "backlog-set-anew" "A socket that listens already takes the new backlog, and nothing is checked again.";
    BacklogFull "backlog-full" "The queue is full, so the SYN is dropped in silence and sent again after about a second.";
    RoomAgain "retransmit-finds-room" "After an accept there is room, and the next SYN retransmit gets in.";
    TimeWait "time-wait-holds" "The closed connection stays in TIME_WAIT on the server and holds its address, unless old and new listener both set SO_REUSEADDR, or both SO_REUSEPORT.";
    TimeWaitReused "time-wait-reused" "The old and the new listener both set the same reuse option, so TIME_WAIT does not stand in the way.";
    ClientWaits "client-has-time-wait" "Who closes first keeps TIME_WAIT: here the client does, and the server's port is free.";
    ResetLeavesNothing "reset-leaves-nothing" "A reset ends both sides at once, without TIME_WAIT.";
    TimeWaitElsewhere "time-wait-elsewhere" "TIME_WAIT holds the one address of the connection, which the new socket does not take in.";
    PortUnreachable "port-closed" "The host answers that nobody is there: a reset for TCP, ICMP port unreachable for UDP.";
    DropIsSilence "drop-is-silence" "What is dropped looks the same as what is lost: nothing comes back.";
    HardError "icmp-ends-connect" "An ICMP error ends a connect that is waiting for its answer.";
    SoftForUdp "udp-ignores-soft-errors" "A UDP socket without IP_RECVERR hears only ICMP errors that the kernel counts as final.";
    Recverr "recverr-hears-all" "With IP_RECVERR a UDP socket hears every ICMP error.";
    LocalRoute "local-route-decides" "The client's own routing table refuses before any packet leaves.";
    UnconnectedDeaf "unconnected-hears-nothing" "An ICMP error reaches only a UDP socket that is connected to where it came from.";
    HeardOnce "heard-once" "A connected UDP socket hears the refusal once, with its next call.";
    Sysctl "sysctl-decides" "A setting of this network decides.";
    Unmodelled "no-prediction" "The model says nothing about this step.";
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_a_name_of_its_own_and_a_sentence() {
        let mut names: Vec<_> = Rule::ALL.iter().map(|rule| rule.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Rule::ALL.len());
        assert!(Rule::ALL.iter().all(|rule| rule.sentence().ends_with('.')));
    }
}
