//! A UDP socket that sends and receives many datagrams with one system call.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use nix::sys::socket::{setsockopt, sockopt as nix_sockopt};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::receive::receive;
use super::room::Room;
use crate::transports::socket::{FailedStep, register};

/// The most bytes in one UDP datagram over IPv4: 65,535 without an IP and a UDP header. Segments that are sent
/// together may not be more either.
pub(super) const LARGEST: usize = 65_507;

/// The socket, registered with the reactor: for reading alone, see [`Room`].
#[derive(Debug)]
pub(super) struct BatchSocket {
    io: Arc<AsyncFd<OwnedFd>>,
    local: SocketAddr,
    batches: UdpSocketState,
    room: Room,
    /// How many datagrams the device takes at once; 1 after it took none.
    segments: usize,
}

/// Datagrams of one size to one peer, as in [`Transmit`](crate::transport::Transmit).
#[derive(Debug, Clone, Copy)]
pub(super) struct Segments<'a> {
    pub(super) to: SocketAddr,
    /// The address to send them from; the kernel's choice where none is given.
    pub(super) from: Option<IpAddr>,
    pub(super) payload: &'a [u8],
    pub(super) segment: usize,
}

impl BatchSocket {
    /// Takes over a socket that does not block, and has it tell where each datagram was sent to.
    pub(super) fn new(socket: Socket) -> Result<Self, FailedStep> {
        let batches = UdpSocketState::new((&socket).into())
            .map_err(|error| FailedStep::new("setsockopt(IP_PKTINFO, UDP_GRO)", error))?;
        let local = ip(&socket).map_err(|error| FailedStep::new("getsockname", error))?;
        settle(&socket, local)?;
        let segments = batches.max_gso_segments();
        let io = register(socket.into(), Interest::READABLE).map_err(|error| FailedStep::new("epoll_ctl", error))?;
        Ok(BatchSocket { io: Arc::new(io), local, batches, room: Room::default(), segments })
    }

    pub(super) fn io(&self) -> &Arc<AsyncFd<OwnedFd>> {
        &self.io
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    pub(super) fn max_segments(&self) -> usize {
        self.segments
    }

    /// Hands on what came, at least one datagram: all of a payload that have one sender and one size, which is the stride of
    /// what is told of them; the last may be shorter.
    pub(super) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        mut deliver: impl FnMut(&RecvMeta, Bytes),
    ) -> Poll<io::Result<()>> {
        loop {
            // Takes from the task's budget, so that a flood on this socket lets other tasks run.
            let mut ready = ready!(self.io.poll_read_ready(cx))?;
            let received =
                receive(|buffers, metas| self.batches.recv(ready.get_inner().into(), buffers, metas), &mut deliver);
            match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) => return Poll::Ready(Err(error)),
                Ok(count) => {
                    // The kernel stopped because there was no more: the next call would say so, and need not be made.
                    if count < BATCH_SIZE {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    /// Sends as many as the kernel takes at once, and says how many bytes are gone: whole datagrams, at least one. An
    /// error is about the first datagram alone.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, segments: Segments<'_>) -> Poll<io::Result<usize>> {
        if segments.to.port() == 0 {
            // The kernel says EINVAL, which does not tell it from a device that takes no batches.
            let error = io::Error::new(io::ErrorKind::InvalidInput, "port 0 cannot be sent to");
            return Poll::Ready(Err(error));
        }
        let BatchSocket { io, batches, room, segments: max_segments, .. } = self;
        let sent = room.poll_send(cx, io.get_ref(), || send(batches, io.get_ref(), *max_segments, segments));
        sent.map_ok(|Sent { bytes, device_takes_batches }| {
            if !device_takes_batches {
                tracing::debug!("the device takes no batches of datagrams; sending them one by one");
                *max_segments = 1;
            }
            bytes
        })
    }

    /// Sends one datagram to the peer that the socket is connected to.
    pub(super) fn poll_send_connected(&mut self, cx: &mut Context<'_>, payload: &[u8]) -> Poll<io::Result<usize>> {
        let socket = self.io.get_ref();
        self.room.poll_send(cx, socket, || Ok(rustix::net::send(socket, payload, SendFlags::empty())?))
    }
}

struct Sent {
    bytes: usize,
    device_takes_batches: bool,
}

fn send(
    batches: &UdpSocketState,
    socket: &OwnedFd,
    max_segments: usize,
    Segments { to, from, payload, segment }: Segments<'_>,
) -> io::Result<Sent> {
    let call = |contents, segment_size: Option<usize>, src_ip: Option<IpAddr>| {
        if segment_size.is_none() && src_ip.is_none() {
            // The kernel has less to read where there is nothing else to tell it.
            return Ok(rustix::net::sendto(socket, contents, SendFlags::empty(), &to).map(drop)?);
        }
        let transmit = quinn_udp::Transmit { destination: to, ecn: None, contents, segment_size, src_ip };
        batches.try_send(socket.into(), &transmit)
    };
    let at_once = max_segments.min(LARGEST / segment).max(1);
    let batch = &payload[..payload.len().min(at_once * segment)];
    if batch.len() <= segment {
        return send_one(batch, from, call).map(|()| Sent { bytes: batch.len(), device_takes_batches: true });
    }
    match call(batch, Some(segment), from) {
        Ok(()) => Ok(Sent { bytes: batch.len(), device_takes_batches: true }),
        Err(error) if is_about_the_batch(&error) || is_about_a_broadcast(&error, from) => {
            let mut bytes = 0;
            for datagram in batch.chunks(segment) {
                match send_one(datagram, from, call) {
                    Ok(()) => bytes += datagram.len(),
                    // What is gone is reported first; this one is met again.
                    Err(_) if bytes > 0 => break,
                    Err(error) => return Err(error),
                }
            }
            // Other errors are about this peer's path or this size: the next batch may well be taken.
            let device_takes_batches = error.raw_os_error() != Some(Errno::IO.raw_os_error());
            Ok(Sent { bytes, device_takes_batches })
        }
        Err(error) => Err(error),
    }
}

/// A request to a broadcast address is answered from an address that the kernel picks: the one that was asked belongs
/// to no host. (What is broadcast to all networks is told apart before; to one network, only the kernel can.)
fn send_one<'a>(
    datagram: &'a [u8],
    from: Option<IpAddr>,
    call: impl Fn(&'a [u8], Option<usize>, Option<IpAddr>) -> io::Result<()>,
) -> io::Result<()> {
    match call(datagram, None, from) {
        Err(error) if is_about_a_broadcast(&error, from) => call(datagram, None, None),
        sent => sent,
    }
}

fn is_about_a_broadcast(error: &io::Error, from: Option<IpAddr>) -> bool {
    let from_ipv4 = from.is_some_and(|ip| ip.to_canonical().is_ipv4());
    from_ipv4 && is_one_of(error, &[Errno::INVAL, Errno::NETUNREACH])
}

/// EIO: the device computes no checksums; EINVAL and EMSGSIZE: a segment is longer than the path's MTU.
fn is_about_the_batch(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::IO, Errno::INVAL, Errno::MSGSIZE])
}

fn is_one_of(error: &io::Error, errnos: &[Errno]) -> bool {
    errnos.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn ip(socket: &Socket) -> io::Result<SocketAddr> {
    let local = socket.local_addr()?;
    local.as_socket().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the socket has no IP address"))
}

/// Takes back what quinn-udp sets for QUIC and a service of datagrams does not want.
fn settle(io: &Socket, local: SocketAddr) -> Result<(), FailedStep> {
    let failed = |option: &str, error: Errno| FailedStep::new(format!("setsockopt({option})"), error);
    // Long answers are fragmented rather than refused. What the path's MTU is said to be is left out of account, since
    // anybody can say it; routers fragment further where they must (ip(7)).
    sockopt::set_ip_mtu_discover(io, Ipv4PathMtuDiscovery::OMIT).map_err(|error| failed("IP_MTU_DISCOVER", error))?;
    if local.is_ipv6() {
        // In IPv6 only the sender fragments, so it must know the path's MTU (RFC 8201).
        sockopt::set_ipv6_mtu_discover(io, Ipv6PathMtuDiscovery::WANT)
            .map_err(|error| failed("IPV6_MTU_DISCOVER", error))?;
        setsockopt(io, nix_sockopt::Ipv6DontFrag, &false)
            .map_err(|errno| FailedStep::new("setsockopt(IPV6_DONTFRAG)", errno))?;
        sockopt::set_ipv6_recvtclass(io, false).map_err(|error| failed("IPV6_RECVTCLASS", error))?;
    }
    if !local.ip().to_canonical().is_unspecified() {
        // Where it was bound is where each datagram was sent to.
        let untold = if local.is_ipv6() {
            setsockopt(io, nix_sockopt::Ipv6RecvPacketInfo, &false)
        } else {
            setsockopt(io, nix_sockopt::Ipv4PacketInfo, &false)
        };
        untold.map_err(|errno| FailedStep::new("setsockopt(IP_PKTINFO)", errno))?;
    }
    // Nobody reads the time of arrival nor the congestion marks, and each costs the kernel a little per datagram.
    sockopt::set_ip_recvtos(io, false).map_err(|error| failed("IP_RECVTOS", error))?;
    setsockopt(io, nix_sockopt::ReceiveTimestampns, &false)
        .map_err(|errno| FailedStep::new("setsockopt(SO_TIMESTAMPNS)", errno))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use rustix::event::epoll::EventFlags;
    use socket2::{Domain, Type};

    use super::*;

    /// It would be told so after each datagram that it sends.
    #[tokio::test]
    async fn the_reactor_is_not_told_that_there_is_room() {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        let socket = BatchSocket::new(socket).unwrap();
        let entry = format!("tfd:{:>9} events:", socket.io.as_raw_fd());
        let events = std::fs::read_dir("/proc/self/fdinfo").unwrap().flatten().find_map(|file| {
            let text = std::fs::read_to_string(file.path()).unwrap_or_default();
            let events = text.lines().find_map(|line| line.strip_prefix(&*entry))?.split_whitespace().next()?;
            u32::from_str_radix(events, 16).ok()
        });
        let events = EventFlags::from_bits_retain(events.expect("it is registered"));
        assert!(events.contains(EventFlags::IN), "{events:?}");
        assert!(!events.contains(EventFlags::OUT), "{events:?}");
    }
}
