//! The listening side: datagrams from anybody, each with the address that it was sent to.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::task::{Context, Poll};

use quinn_udp::RecvMeta;

use super::batch::{BatchSocket, Segments};
use crate::address::Address;
use crate::transport::{DatagramSocket, Datagrams, Transmit};

pub(super) struct Listener {
    socket: BatchSocket,
}

impl Listener {
    pub(super) fn new(socket: BatchSocket) -> Self {
        Listener { socket }
    }
}

impl DatagramSocket for Listener {
    fn local(&self) -> Address {
        Address::Ip(self.socket.local())
    }

    fn max_segments(&self) -> usize {
        self.socket.max_segments()
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, into: &mut VecDeque<Datagrams>) -> Poll<io::Result<()>> {
        let bound = self.socket.local();
        self.socket.poll_recv(cx, |meta, payload| {
            let (remote, local) = (Address::Ip(meta.addr), Address::Ip(sent_to(meta, bound)));
            // The buffers hold whatever the kernel can bring, so nothing is ever cut.
            into.push_back(Datagrams { payload, segment: meta.stride.max(1), remote, local, truncated: false });
        })
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let Address::Ip(to) = *transmit.remote else {
            let error = format!("`{}` is no IP address", transmit.remote);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidInput, error)));
        };
        let from = transmit.local.ip().and_then(|asked| source(asked.ip(), self.socket.local().ip()));
        self.socket.poll_send(cx, Segments { to, from, payload: transmit.payload, segment: transmit.segment.max(1) })
    }
}

/// The address that a datagram was sent to, with the port that the socket is bound to.
fn sent_to(meta: &RecvMeta, bound: SocketAddr) -> SocketAddr {
    match meta.dst_ip {
        // A link-local address is one only together with its interface.
        Some(IpAddr::V6(ip)) if ip.is_unicast_link_local() => {
            SocketAddrV6::new(ip, bound.port(), 0, meta.interface_index.unwrap_or(0)).into()
        }
        Some(ip) => SocketAddr::new(ip, bound.port()),
        None => bound,
    }
}

/// The address to answer from: the one that was asked. None where the socket has only one anyway, and where the one
/// that was asked belongs to no single host: then the kernel picks one.
fn source(asked: IpAddr, bound: IpAddr) -> Option<IpAddr> {
    let belongs_to_a_host = match asked.to_canonical() {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    };
    (bound.to_canonical().is_unspecified() && belongs_to_a_host).then_some(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_answer_leaves_from_the_address_that_was_asked_where_there_are_several() {
        for (asked, bound, expected) in [
            ("198.51.100.2", "0.0.0.0", Some("198.51.100.2")),
            ("198.51.100.2", "198.51.100.2", None),
            ("2001:db8::2", "::", Some("2001:db8::2")),
            ("::ffff:198.51.100.2", "::", Some("::ffff:198.51.100.2")),
            ("::ffff:198.51.100.2", "::ffff:0.0.0.0", Some("::ffff:198.51.100.2")),
            ("224.0.0.1", "0.0.0.0", None),
            ("255.255.255.255", "0.0.0.0", None),
            ("::ffff:255.255.255.255", "::", None),
            ("ff02::1", "::", None),
            ("::", "::", None),
        ] {
            assert_eq!(source(ip(asked), ip(bound)), expected.map(ip), "{asked} on {bound}");
        }
    }

    #[test]
    fn a_link_local_address_is_told_with_its_interface() {
        let mut meta = RecvMeta::default();
        meta.dst_ip = Some(ip("fe80::1"));
        meta.interface_index = Some(7);
        assert_eq!(sent_to(&meta, "[::]:80".parse().unwrap()).to_string(), "[fe80::1%7]:80");
        meta.dst_ip = Some(ip("2001:db8::1"));
        assert_eq!(sent_to(&meta, "[::]:80".parse().unwrap()).to_string(), "[2001:db8::1]:80");
    }
}
