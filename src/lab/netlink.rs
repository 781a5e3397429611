//! Devices, addresses and routes of a [`Host`], over rtnetlink(7).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::AddressFlags;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkFlags, State};
use rtnetlink::packet_route::route::RouteType;
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::time::{Instant, sleep};

use super::host::Host;

/// How long a cable may take to come up; it takes a few milliseconds.
const UP_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// Through another host.
    Gateway(IpAddr),
    /// Nowhere, in silence.
    Blackhole,
    /// Nowhere; the sender hears "host unreachable".
    Unreachable,
    /// Nowhere; the sender hears "administratively prohibited".
    Prohibit,
}

/// A step in setting up a host.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Lets a device carry traffic.
    Up(&'static str),
    /// Gives a device an address, with the length of its prefix.
    Address(&'static str, IpAddr, u8),
    /// Sends what goes to a prefix somewhere.
    Route(IpAddr, u8, Via),
    /// Waits until a device is connected.
    WaitUp(&'static str),
}

/// Joins two hosts by a cable: a device of that name appears on each.
pub(crate) fn join(one: &Host, other: &Host, device: &'static str) -> io::Result<()> {
    let other = other.namespace().try_clone()?;
    configure(one, async move |netlink| {
        let mut far = LinkMessageBuilder::<LinkUnspec>::new().setns_by_fd(other.as_raw_fd()).build();
        far.attributes.push(LinkAttribute::IfName(device.to_owned()));
        let near = LinkVeth::new(device, device).set_info_data(InfoData::Veth(InfoVeth::Peer(far))).build();
        netlink.link().add(near).execute().await.map_err(|error| failed(&format!("adding the cable {device}"), &error))
    })
}

/// Does the steps in order.
pub(crate) fn set_up(host: &Host, steps: Vec<Step>) -> io::Result<()> {
    configure(host, async move |netlink| {
        for step in steps {
            step.take(&netlink).await?;
        }
        Ok(())
    })
}

impl Step {
    async fn take(self, netlink: &Handle) -> io::Result<()> {
        let what = format!("{self:?}");
        let done = match self {
            Step::Up(device) => {
                let index = index_of(device)?;
                netlink.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await
            }
            Step::Address(device, address, prefix) => {
                let mut request = netlink.address().add(index_of(device)?, address, prefix);
                // No duplicate can exist here, so the address works at once.
                request.message_mut().header.flags |= rtnetlink::packet_route::address::AddressHeaderFlags::Nodad;
                request
                    .message_mut()
                    .attributes
                    .push(rtnetlink::packet_route::address::AddressAttribute::Flags(AddressFlags::Nodad));
                request.execute().await
            }
            Step::Route(IpAddr::V4(to), prefix, via) => {
                let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, prefix);
                let route = match via {
                    Via::Gateway(IpAddr::V4(gateway)) => route.gateway(gateway),
                    Via::Gateway(IpAddr::V6(gateway)) => route.via(gateway),
                    nowhere => route.kind(nowhere.kind()),
                };
                netlink.route().add(route.build()).execute().await
            }
            Step::Route(IpAddr::V6(to), prefix, via) => {
                let route = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(to, prefix);
                let route = match via {
                    Via::Gateway(IpAddr::V6(gateway)) => route.gateway(gateway),
                    Via::Gateway(IpAddr::V4(_)) => return Err(io::Error::from(io::ErrorKind::InvalidInput)),
                    nowhere => route.kind(nowhere.kind()),
                };
                netlink.route().add(route.build()).execute().await
            }
            Step::WaitUp(device) => return wait_up(netlink, device).await,
        };
        done.map_err(|error| failed(&what, &error))
    }
}

impl Via {
    fn kind(self) -> RouteType {
        match self {
            Via::Gateway(_) => RouteType::Unicast,
            Via::Blackhole => RouteType::BlackHole,
            Via::Unreachable => RouteType::Unreachable,
            Via::Prohibit => RouteType::Prohibit,
        }
    }
}

/// The first end of a cable to be switched on gets its queue only when the kernel's link watcher has run.
async fn wait_up(netlink: &Handle, device: &str) -> io::Result<()> {
    let deadline = Instant::now() + UP_TIMEOUT;
    loop {
        let mut links = netlink.link().get().match_name(device).execute();
        let link = links.try_next().await.map_err(|error| failed(&format!("asking for {device}"), &error))?;
        let is_up = link.is_some_and(|link| {
            let state = link.attributes.iter().any(|one| matches!(one, LinkAttribute::OperState(State::Up)));
            state || link.header.flags.contains(LinkFlags::Loopback)
        });
        if is_up {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("the cable {device} does not come up")));
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// Runs netlink requests in the namespace of a host.
fn configure(host: &Host, work: impl AsyncFnOnce(Handle) -> io::Result<()> + Send + 'static) -> io::Result<()> {
    host.run(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async move {
            let (connection, netlink, _) = rtnetlink::new_connection()?;
            tokio::spawn(connection);
            work(netlink).await
        })
    })
}

fn index_of(device: &str) -> io::Result<u32> {
    Ok(nix::net::if_::if_nametoindex(device)?)
}

fn failed(what: &str, error: &rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => {
            let error = message.to_io();
            io::Error::new(error.kind(), format!("{what}: {error}"))
        }
        other => io::Error::other(format!("{what}: {other}")),
    }
}
