//! Answering from the address that was asked: `IP_PKTINFO` and `IPV6_RECVPKTINFO`, see ip(7) and ipv6(7).

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, cmsg_space, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::Domain;

use super::socket::{Tracked, plain};

/// Asks the kernel to tell the destination address of each datagram. An IPv6 socket asks for both families: what it
/// gets from IPv4 clients comes with an IPv4-mapped one.
pub(crate) fn request(socket: &mut Tracked) -> io::Result<()> {
    let name = socket.name().to_owned();
    if socket.inner().domain()? == Domain::IPV4 {
        let result = setsockopt(socket.inner(), sockopt::Ipv4PacketInfo, &true).map_err(io::Error::from);
        socket.note(format!("setsockopt({name}, IP_PKTINFO, 1)"), &result);
        return result;
    }
    let result = setsockopt(socket.inner(), sockopt::Ipv6RecvPacketInfo, &true).map_err(io::Error::from);
    socket.note(format!("setsockopt({name}, IPV6_RECVPKTINFO, 1)"), &result);
    result
}

/// Receives one datagram and sends it back from the address to which it came.
pub(crate) fn echo(socket: &mut Tracked, buffer: &mut [u8]) -> io::Result<SocketAddr> {
    let fd = socket.inner().as_raw_fd();
    let mut space = vec![0; cmsg_space::<nix::libc::in6_pktinfo>() + cmsg_space::<nix::libc::in_pktinfo>()];
    let (peer, info) = {
        let mut parts = [IoSliceMut::new(buffer)];
        let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut space), MsgFlags::empty())?;
        let info = message
            .cmsgs()?
            .find(|one| matches!(one, ControlMessageOwned::Ipv4PacketInfo(_) | ControlMessageOwned::Ipv6PacketInfo(_)));
        (message.address, info)
    };
    let to = peer.as_ref().and_then(plain).ok_or(io::ErrorKind::InvalidData)?;
    let (asked, answer) = match &info {
        Some(ControlMessageOwned::Ipv4PacketInfo(info)) => {
            let mut info = *info;
            let asked = std::net::Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)).to_string();
            // On the way back the source goes into ipi_spec_dst; the device is routing's choice.
            info.ipi_spec_dst = info.ipi_addr;
            info.ipi_ifindex = 0;
            (asked, Info::V4(info))
        }
        Some(ControlMessageOwned::Ipv6PacketInfo(info)) => {
            let mut info = *info;
            let asked = std::net::Ipv6Addr::from(info.ipi6_addr.s6_addr);
            if !asked.is_unicast_link_local() {
                info.ipi6_ifindex = 0;
            }
            (asked.to_canonical().to_string(), Info::V6(info))
        }
        _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel told no destination address")),
    };
    let name = socket.name().to_owned();
    socket.note(format!("recvmsg({name}) from {to}, asked for {asked}"), &Ok(()));
    let control = match &answer {
        Info::V4(info) => ControlMessage::Ipv4PacketInfo(info),
        Info::V6(info) => ControlMessage::Ipv6PacketInfo(info),
    };
    let result = sendmsg(fd, &[IoSlice::new(buffer)], &[control], MsgFlags::empty(), peer.as_ref())
        .map(drop)
        .map_err(io::Error::from);
    socket.note(format!("sendmsg({name}, from {asked}, to {to})"), &result);
    result.map(|()| to)
}

enum Info {
    V4(nix::libc::in_pktinfo),
    V6(nix::libc::in6_pktinfo),
}
