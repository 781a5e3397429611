//! Devices, addresses and routes of a [`Host`], over rtnetlink(7).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, State};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteType};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::time::{Instant, sleep};

use super::host::Host;

/// How long the kernel may take to put something to use; it takes a few milliseconds.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

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
    /// Waits until an IPv6 address of this host is in use, which the kernel sees to after it has been added.
    WaitUsable(Ipv6Addr),
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
                request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
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
            Step::WaitUp(device) => return until(&what, async || is_up(netlink, device).await).await,
            Step::WaitUsable(ip) => return until(&what, async || has_local_route(netlink, ip).await).await,
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

/// Asks again until it is so. The kernel's workers take some milliseconds.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> io::Result<bool>) -> io::Result<()> {
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    while !is_so().await? {
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{what}: it does not happen")));
        }
        sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// The first end of a cable to be switched on gets its queue only when the kernel's link watcher has run.
async fn is_up(netlink: &Handle, device: &str) -> io::Result<bool> {
    let mut links = netlink.link().get().match_name(device).execute();
    let link = links.try_next().await.map_err(|error| failed(&format!("asking for {device}"), &error))?;
    Ok(link.is_some_and(|link| link.attributes.contains(&LinkAttribute::OperState(State::Up))))
}

/// An IPv6 address gets its local route, and answers neighbours, only when its worker has run.
async fn has_local_route(netlink: &Handle, ip: Ipv6Addr) -> io::Result<bool> {
    let destination = RouteAttribute::Destination(RouteAddress::Inet6(ip));
    let mut routes = netlink.route().get(RouteMessageBuilder::<Ipv6Addr>::new().build()).execute();
    while let Some(route) = routes.try_next().await.map_err(|error| failed("asking for routes", &error))? {
        if route.header.kind == RouteType::Local && route.attributes.contains(&destination) {
            return Ok(true);
        }
    }
    Ok(false)
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
