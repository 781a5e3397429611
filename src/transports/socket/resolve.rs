//! From the address that a person typed to socket addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::{FailedStep, SocketOptions, V6Only};
use crate::endpoint::{Authority, Endpoint};
use crate::transport::ConnectError;
use crate::verdict::Unresolved;

impl SocketOptions {
    /// The addresses to call, in the order in which they are to be tried; never empty. A bare port is this machine's.
    pub async fn remotes(&self, to: &Endpoint) -> Result<Vec<SocketAddr>, ConnectError> {
        let resolved = match &to.authority {
            Authority::Port(port) => Ok(self.either(*port, Ipv6Addr::LOCALHOST, Ipv4Addr::LOCALHOST)),
            Authority::Fd(_) => Err(FailedStep::unsuitable("an inherited socket is there to be listened on")),
            _ => self.resolve(to).await,
        };
        resolved.map_err(|step| step.on_connect(to))
    }

    /// The addresses to bind, the preferred one first: the others are for machines that lack its family. A bare port
    /// is every address of both families.
    pub(super) async fn candidates(&self, at: &Endpoint) -> Result<Vec<SocketAddr>, FailedStep> {
        match &at.authority {
            Authority::Port(port) => Ok(self.either(*port, Ipv6Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED)),
            _ => self.resolve(at).await,
        }
    }

    fn either(&self, port: u16, v6: Ipv6Addr, v4: Ipv4Addr) -> Vec<SocketAddr> {
        let both = [SocketAddr::from((v6, port)), SocketAddr::from((v4, port))];
        both.into_iter().filter(|address| self.allows(address)).collect()
    }

    fn allows(&self, address: &SocketAddr) -> bool {
        match self.family() {
            None => true,
            Some(Family::V4) => address.is_ipv4(),
            Some(Family::V6) => address.is_ipv6(),
        }
    }

    /// The only family that is wanted, if there is one. Who asks for v6-only has no use for an IPv4 address.
    pub(super) fn family(&self) -> Option<Family> {
        match (self.ipv4, self.ipv6 || self.v6_only == Some(V6Only::Yes)) {
            (true, false) => Some(Family::V4),
            (false, true) => Some(Family::V6),
            _ => None,
        }
    }

    async fn resolve(&self, endpoint: &Endpoint) -> Result<Vec<SocketAddr>, FailedStep> {
        let transport = endpoint.transport();
        match &endpoint.authority {
            Authority::Ip { ip, scope, port } => {
                let address = socket_address(*ip, scope.as_deref(), *port)?;
                match self.family() {
                    Some(family) if !self.allows(&address) => {
                        Err(FailedStep::unsuitable(format!("{ip} is no {family} address, and only those are wanted")))
                    }
                    _ => Ok(vec![address]),
                }
            }
            Authority::Host { name, port } => self.look_up(name, *port).await,
            Authority::Name(name) => Err(FailedStep::unsuitable(format!("a port is missing; write {name}:PORT"))),
            _ => Err(FailedStep::unsuitable(format!(
                "`{transport}` needs an address and a port, such as {transport}://127.0.0.1:8080"
            ))),
        }
    }

    async fn look_up(&self, name: &str, port: u16) -> Result<Vec<SocketAddr>, FailedStep> {
        let wanted = self.family().map_or("IP", Family::name);
        let failed = |reason: String| {
            FailedStep::new(format!("resolve({name})"), Unresolved { name: name.to_owned(), wanted, reason })
        };
        let found = tokio::net::lookup_host((name, port)).await.map_err(|error| failed(error.to_string()))?;
        let (fitting, others): (Vec<_>, Vec<_>) = found.partition(|address| self.allows(address));
        if fitting.is_empty() {
            let others: Vec<String> = others.iter().map(|address| address.ip().to_string()).collect();
            let reason =
                if others.is_empty() { "none was found".to_owned() } else { format!("it has {}", others.join(", ")) };
            return Err(failed(reason));
        }
        Ok(fitting)
    }
}

/// A family of IP addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The scope is an interface's name or index (RFC 4007, 11.2). A link-local address means nothing without one: every
/// interface has its own `fe80::/64`.
fn socket_address(ip: IpAddr, scope: Option<&str>, port: u16) -> Result<SocketAddr, FailedStep> {
    let IpAddr::V6(v6) = ip else { return Ok(SocketAddr::new(ip, port)) };
    let index = match scope {
        None if v6.is_unicast_link_local() => {
            let hint = format!("{ip} is link-local and needs its interface, such as [{ip}%eth0]:{port}");
            return Err(FailedStep::unsuitable(hint));
        }
        None => 0,
        Some(scope) => match scope.parse() {
            Ok(index) => index,
            Err(_) => nix::net::if_::if_nametoindex(scope)
                .map_err(|errno| FailedStep::new(format!("if_nametoindex({scope})"), io::Error::from(errno)))?,
        },
    };
    Ok(SocketAddrV6::new(v6, port, 0, index).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Verdict;

    async fn remotes(endpoint: &str, options: SocketOptions) -> Result<Vec<String>, String> {
        let found = options.remotes(&endpoint.parse().unwrap()).await.map_err(|error| error.to_string())?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    const ONLY_V4: SocketOptions = SocketOptions { ipv4: true, ..NOTHING };
    const ONLY_V6: SocketOptions = SocketOptions { ipv6: true, ..NOTHING };
    const NOTHING: SocketOptions = SocketOptions {
        backlog: None,
        reuse_addr: None,
        reuse_port: false,
        v6_only: None,
        device: None,
        freebind: false,
        recv_buffer: None,
        send_buffer: None,
        nodelay: None,
        ipv4: false,
        ipv6: false,
    };

    #[tokio::test]
    async fn a_bare_port_is_called_on_this_machine_in_both_families() {
        assert_eq!(remotes("tcp://80", NOTHING).await.unwrap(), ["[::1]:80", "127.0.0.1:80"]);
        assert_eq!(remotes("tcp://80", ONLY_V4).await.unwrap(), ["127.0.0.1:80"]);
        assert_eq!(remotes("tcp://80", ONLY_V6).await.unwrap(), ["[::1]:80"]);
    }

    #[tokio::test]
    async fn a_bare_port_is_bound_on_every_address_of_both_families() {
        let candidates = NOTHING.candidates(&"tcp://80".parse().unwrap()).await.unwrap();
        assert_eq!(candidates, ["[::]:80".parse().unwrap(), "0.0.0.0:80".parse().unwrap()]);
    }

    #[tokio::test]
    async fn a_scope_is_an_interface_by_name_or_by_index() {
        let index = nix::net::if_::if_nametoindex("lo").unwrap();
        let expected = [format!("[fe80::1%{index}]:80")];
        assert_eq!(remotes("tcp://[fe80::1%lo]:80", NOTHING).await.unwrap(), expected);
        assert_eq!(remotes(&format!("tcp://[fe80::1%{index}]:80"), NOTHING).await.unwrap(), expected);
    }

    #[tokio::test]
    async fn an_unsuitable_address_is_refused_in_words() {
        for (endpoint, options, expected) in [
            ("tcp://[fe80::1]:80", NOTHING, "fe80::1 is link-local and needs its interface, such as [fe80::1%eth0]:80"),
            ("tcp://127.0.0.1:80", ONLY_V6, "127.0.0.1 is no IPv6 address, and only those are wanted"),
            ("tcp://[::1]:80", ONLY_V4, "::1 is no IPv4 address, and only those are wanted"),
            ("udp://localhost", NOTHING, "a port is missing; write localhost:PORT"),
            ("udp:///run/x", NOTHING, "`udp` needs an address and a port, such as udp://127.0.0.1:8080"),
            ("tcp://@x", NOTHING, "`tcp` needs an address and a port, such as tcp://127.0.0.1:8080"),
            ("tcp://fd:3", NOTHING, "an inherited socket is there to be listened on"),
        ] {
            let error = options.remotes(&endpoint.parse().unwrap()).await.unwrap_err();
            assert_eq!(error.to_string(), format!("failed to connect to {endpoint}: address: {expected}"));
            assert_eq!(Verdict::of_connect(error.decisive().unwrap()), Verdict::Usage);
        }
    }

    #[tokio::test]
    async fn an_interface_that_is_not_there_is_named() {
        let error = remotes("tcp://[fe80::1%nope0]:80", NOTHING).await.unwrap_err();
        assert!(error.contains("if_nametoindex(nope0): No such device"), "{error}");
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_unresolved() {
        // RFC 6761, 6.4: names below `invalid` never have an address.
        let error = NOTHING.remotes(&"tcp://nothing.invalid:80".parse().unwrap()).await.unwrap_err();
        assert_eq!(Verdict::of_connect(error.decisive().unwrap()), Verdict::Unresolved);
        let text = error.to_string();
        assert!(text.contains("resolve(nothing.invalid): the name `nothing.invalid` has no IP address"), "{text}");
    }

    #[tokio::test]
    async fn a_name_is_looked_up_in_the_wanted_family_alone() {
        let addresses = remotes("tcp://localhost:80", ONLY_V4).await.unwrap();
        assert!(addresses.contains(&"127.0.0.1:80".to_owned()), "{addresses:?}");
        assert!(addresses.iter().all(|address| !address.starts_with('[')), "{addresses:?}");
    }
}
