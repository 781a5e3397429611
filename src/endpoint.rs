//! An [`Endpoint`] is what a person types: `SCHEME://AUTHORITY[/PATH][?option=value&…]`.
//!
//! Parsing it does no I/O and asks no registry: names are resolved, schemes looked up and options read later, each
//! where it is known. What is printed reads back as the same endpoint.
//!
//! ```
//! use greetd::Endpoint;
//! let endpoint: Endpoint = "tls+tcp://[::1]:443?backlog=5".parse()?;
//! assert_eq!(endpoint.transport(), "tcp");
//! assert_eq!(endpoint.layers().collect::<Vec<_>>(), ["tls"]);
//! assert_eq!(endpoint.to_string(), "tls+tcp://[::1]:443?backlog=5");
//! # Ok::<(), greetd::EndpointError>(())
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::options::{OptionError, Options};

/// Where to listen or whom to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    scheme: Scheme,
    /// The address, as it was written.
    pub authority: Authority,
    /// What follows the authority, with its leading slash; empty where there is none.
    pub path: String,
    /// The query.
    pub options: Options,
}

/// A transport and the layers in front of it, the outermost first, as in `ws+tls+tcp`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Scheme(Vec<String>);

/// The address part of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Authority {
    /// `8080` or `:8080`: that port on every address of both families.
    Port(u16),
    /// `127.0.0.1:8080`, `[::1]:8080`, `[fe80::1%eth0]:8080`: an address, the scope (interface) it is meant in, a port.
    Ip {
        /// The address.
        ip: IpAddr,
        /// The interface's name or index, for link-local IPv6 addresses (RFC 4007).
        scope: Option<String>,
        /// The port; 0 lets the kernel choose.
        port: u16,
    },
    /// `localhost:8080`: a name to be resolved, and a port.
    Host {
        /// The name.
        name: String,
        /// The port.
        port: u16,
    },
    /// `/run/x.sock` or `./x.sock`: a path in the file system.
    Path(PathBuf),
    /// `@name`: Linux's abstract socket namespace.
    Abstract(String),
    /// `fd:3` or `fd:NAME`: a socket that this process inherited, by number or by the name systemd gave it.
    Fd(String),
    /// A bare word, for transports that name their ends themselves.
    Name(String),
    /// Nothing, as in `stdio://`.
    Empty,
}

/// Why a text is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// There is no `://`.
    #[error("`{text}` has no scheme; write for example {}", with_scheme(.text))]
    NoScheme {
        /// What was given.
        text: String,
    },
    /// A scheme that is not names joined by `+`.
    #[error("`{scheme}` is not a scheme; write a transport with its layers in front, such as tcp or tls+tcp")]
    Scheme {
        /// What was given.
        scheme: String,
    },
    /// An address that cannot be read.
    #[error("`{address}` is not an address: {reason}")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it, and what to write.
        reason: String,
    },
    /// A query that cannot be read.
    #[error(transparent)]
    Options(#[from] OptionError),
}

/// What was perhaps meant: `unix:/run/x.sock` has a scheme and lacks the slashes.
fn with_scheme(text: &str) -> String {
    match text.split_once(':') {
        Some((scheme, rest)) if rest.starts_with(['/', '@', '.']) && scheme.parse::<Scheme>().is_ok() => {
            format!("{scheme}://{rest}")
        }
        _ => format!("tcp://{text}"),
    }
}

impl Endpoint {
    /// An endpoint of a scheme (`udp`, `tls+tcp`, or a short name such as `wss`) and an address.
    pub fn new(scheme: &str, authority: Authority) -> Result<Self, EndpointError> {
        Ok(Endpoint { scheme: scheme.parse()?, authority, path: String::new(), options: Options::default() })
    }

    /// The transport's name: the last of the scheme.
    pub fn transport(&self) -> &str {
        self.scheme.0.last().map_or("", String::as_str)
    }

    /// The layers' names, the outermost first.
    pub fn layers(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.scheme.0[..self.scheme.0.len() - 1].iter().map(String::as_str)
    }

    /// The whole scheme, layers and transport joined by `+`.
    pub fn scheme(&self) -> String {
        self.scheme.to_string()
    }

    /// The same endpoint without its options: what error messages and logs name.
    pub fn brief(&self) -> String {
        format!("{}://{}{}", self.scheme, self.authority, self.path)
    }
}

impl FromStr for Scheme {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let text = text.to_ascii_lowercase();
        // The only abbreviations there are: what everybody writes for the layers over TCP.
        let long = match text.as_str() {
            "tls" => "tls+tcp",
            "ws" => "ws+tcp",
            "wss" => "ws+tls+tcp",
            other => other,
        };
        let names: Vec<String> = long.split('+').map(str::to_owned).collect();
        let is_name = |name: &String| {
            name.starts_with(|c: char| c.is_ascii_alphabetic())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        };
        if names.iter().all(is_name) { Ok(Scheme(names)) } else { Err(EndpointError::Scheme { scheme: text }) }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("+"))
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(EndpointError::NoScheme { text: text.to_owned() });
        };
        let scheme = scheme.parse()?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let options = Options::parse(query)?;
        // A slash ends the authority, unless the authority is itself a path, a name or a descriptor.
        let has_path = !place.starts_with(['/', '.', '@']) && !place.starts_with("fd:");
        let (authority, path) = match place.find('/').filter(|_| has_path) {
            Some(slash) => place.split_at(slash),
            None => (place, ""),
        };
        Ok(Endpoint { scheme, authority: authority.parse()?, path: path.to_owned(), options })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.brief())?;
        if self.options.is_empty() { Ok(()) } else { write!(f, "?{}", self.options) }
    }
}

impl Authority {
    /// The port, where the address has one.
    pub fn port(&self) -> Option<u16> {
        match self {
            Authority::Port(port) | Authority::Ip { port, .. } | Authority::Host { port, .. } => Some(*port),
            _ => None,
        }
    }
}

impl From<std::net::SocketAddr> for Authority {
    fn from(address: std::net::SocketAddr) -> Self {
        let scope = match address {
            std::net::SocketAddr::V6(v6) if v6.scope_id() != 0 => Some(v6.scope_id().to_string()),
            _ => None,
        };
        Authority::Ip { ip: address.ip(), scope, port: address.port() }
    }
}

impl FromStr for Authority {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let wrong = |reason: &str| EndpointError::Address { address: text.to_owned(), reason: reason.to_owned() };
        if text.contains(|c: char| c.is_control() || c == '?') {
            return Err(wrong("it holds a control character or a question mark"));
        }
        if text.is_empty() {
            return Ok(Authority::Empty);
        }
        if text.starts_with(['/', '.']) {
            return Ok(Authority::Path(PathBuf::from(text)));
        }
        if let Some(name) = text.strip_prefix('@') {
            return match name {
                "" => Err(wrong("a name must follow the `@`")),
                name => Ok(Authority::Abstract(name.to_owned())),
            };
        }
        if let Some(name) = text.strip_prefix("fd:") {
            return match name {
                "" => Err(wrong("a number or a name must follow `fd:`")),
                name => Ok(Authority::Fd(name.to_owned())),
            };
        }
        if text.contains('/') {
            return Err(wrong("a path starts with `/` or `./`"));
        }
        let port = |digits: &str| match digits.parse::<u16>() {
            Ok(port) if digits.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
            _ if digits.is_empty() => Err(wrong("a port must follow the colon")),
            _ => Err(wrong(&format!("`{digits}` is not a port; ports are numbers from 0 to 65535"))),
        };
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return port(text).map(Authority::Port);
        }
        if let Some(bracketed) = text.strip_prefix('[') {
            let Some((inside, after)) = bracketed.split_once(']') else {
                return Err(wrong("the bracket is never closed; write [ADDRESS]:PORT"));
            };
            let (ip, scope) = match inside.split_once('%') {
                Some((_, "")) => return Err(wrong("an interface must follow the `%`, such as [fe80::1%eth0]")),
                Some((ip, scope)) => (ip, Some(scope.to_owned())),
                None => (inside, None),
            };
            let ip: Ipv6Addr = ip.parse().map_err(|_| wrong(&format!("`{ip}` is not an IPv6 address")))?;
            let Some(digits) = after.strip_prefix(':') else {
                return Err(wrong("a port is missing; write [ADDRESS]:PORT"));
            };
            return Ok(Authority::Ip { ip: ip.into(), scope, port: port(digits)? });
        }
        match text.bytes().filter(|b| *b == b':').count() {
            0 if text.parse::<IpAddr>().is_ok() => Err(wrong(&format!("a port is missing; write {text}:PORT"))),
            0 => Ok(Authority::Name(text.to_owned())),
            1 => {
                let (name, digits) = text.split_once(':').unwrap_or((text, ""));
                let port = port(digits)?;
                Ok(match name.parse::<Ipv4Addr>() {
                    Ok(ip) => Authority::Ip { ip: ip.into(), scope: None, port },
                    Err(_) if name.is_empty() => Authority::Port(port),
                    Err(_) if looks_like_ipv4(name) => {
                        return Err(wrong(&format!("`{name}` is not an IPv4 address")));
                    }
                    Err(_) => Authority::Host { name: name.to_owned(), port },
                })
            }
            _ => Err(wrong(&hint_at_brackets(text))),
        }
    }
}

/// Digits and dots alone are meant as an address: a resolver must not be asked for them.
fn looks_like_ipv4(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// Several colons without brackets: an IPv6 address whose port cannot be told from its last group.
fn hint_at_brackets(text: &str) -> String {
    let Some((ip, port)) = text.rsplit_once(':') else { return String::new() };
    let ip = if ip == ":" { "::" } else { ip };
    if ip.parse::<Ipv6Addr>().is_ok() && port.bytes().all(|b| b.is_ascii_digit()) && !port.is_empty() {
        format!("an IPv6 address stands in brackets; write [{ip}]:{port}")
    } else {
        "an IPv6 address stands in brackets; write [ADDRESS]:PORT".to_owned()
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Authority::Port(port) => write!(f, ":{port}"),
            Authority::Ip { ip: IpAddr::V4(ip), port, .. } => write!(f, "{ip}:{port}"),
            Authority::Ip { ip: IpAddr::V6(ip), scope: None, port } => write!(f, "[{ip}]:{port}"),
            Authority::Ip { ip: IpAddr::V6(ip), scope: Some(scope), port } => write!(f, "[{ip}%{scope}]:{port}"),
            Authority::Host { name, port } => write!(f, "{name}:{port}"),
            Authority::Path(path) => path.display().fmt(f),
            Authority::Abstract(name) => write!(f, "@{name}"),
            Authority::Fd(name) => write!(f, "fd:{name}"),
            Authority::Name(name) => f.write_str(name),
            Authority::Empty => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Endpoint, String> {
        text.parse().map_err(|error: EndpointError| error.to_string())
    }

    #[test]
    fn every_form_of_an_address_reads_back_as_it_was_written() {
        for text in [
            "tcp://:8080",
            "tcp://127.0.0.1:8080",
            "tcp://[::1]:8080",
            "tcp://[fe80::1%eth0]:8080",
            "tcp://localhost:8080",
            "unix:///run/x.sock",
            "unix://./x.sock?mode=0660",
            "unixgram://@abstract",
            "tcp://fd:3",
            "tcp://fd:web",
            "memory://room",
            "stdio://",
            "ws+tls+tcp://example.org:443/chat/room?max-message=64KiB",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_bare_port_and_a_colon_before_it_mean_the_same() {
        assert_eq!(parse("tcp://8080"), parse("tcp://:8080"));
    }

    #[test]
    fn short_schemes_are_spelled_out() {
        assert_eq!(parse("wss://h:1").unwrap().scheme(), "ws+tls+tcp");
        assert_eq!(parse("TLS://h:1").unwrap().scheme(), "tls+tcp");
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_write() {
        for (text, expected) in [
            ("8080", "`8080` has no scheme; write for example tcp://8080"),
            ("unix:/run/x", "`unix:/run/x` has no scheme; write for example unix:///run/x"),
            ("tcp://:::8080", "`:::8080` is not an address: an IPv6 address stands in brackets; write [::]:8080"),
            ("tcp://::1:8080", "`::1:8080` is not an address: an IPv6 address stands in brackets; write [::1]:8080"),
            (
                "tcp://127.0.0.1:65536",
                "`127.0.0.1:65536` is not an address: `65536` is not a port; ports are numbers from 0 to 65535",
            ),
            ("tcp://[::1", "`[::1` is not an address: the bracket is never closed; write [ADDRESS]:PORT"),
            ("tcp://[::1]", "`[::1]` is not an address: a port is missing; write [ADDRESS]:PORT"),
            ("tcp://127.0.0.1", "`127.0.0.1` is not an address: a port is missing; write 127.0.0.1:PORT"),
            ("tcp://127.0.0.256:1", "`127.0.0.256:1` is not an address: `127.0.0.256` is not an IPv4 address"),
            (
                "tcp://[fe80::1%]:1",
                "`[fe80::1%]:1` is not an address: an interface must follow the `%`, such as [fe80::1%eth0]",
            ),
            (
                "t c p://x:1",
                "`t c p` is not a scheme; write a transport with its layers in front, such as tcp or tls+tcp",
            ),
            ("tcp://x:+1", "`x:+1` is not an address: `+1` is not a port; ports are numbers from 0 to 65535"),
        ] {
            assert_eq!(parse(text).unwrap_err(), expected);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_what_parses_reads_back(text in "[a-z+]{0,6}(://)?[\\[\\]:%@/.?=&0-9a-z\u{e9} ]{0,24}") {
            prop_assert_eq!(crate::testing::text::endpoint_reads_back(&text), Ok(()));
        }
    }
}
