//! One step: the fields that its operation may have, and what they come to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::errno::Errno;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::lab::scenario::PlannedStep;
use crate::lab::scenario::action::{Action, Bind, Target};
use crate::lab::socket::Flag;
use crate::lab::topology::Side;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Op {
    Bind,
    Listen,
    Connect,
    Accept,
    Send,
    Receive,
    Set,
    Sysctl,
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Family {
    Inet,
    Inet6,
}

/// Every field of every operation; which of them an operation has is said in [`Op::fields`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StepText {
    op: Op,
    expect: Option<String>,
    socket: Option<String>,
    address: Option<String>,
    port: Option<u16>,
    family: Option<Family>,
    v6_only: Option<bool>,
    reuse_addr: Option<bool>,
    reuse_port: Option<bool>,
    freebind: Option<bool>,
    device: Option<String>,
    host: Option<Side>,
    privileged: Option<bool>,
    backlog: Option<u32>,
    from: Option<Side>,
    to: Option<String>,
    #[serde(rename = "as")]
    known_as: Option<String>,
    #[serde(alias = "key")]
    name: Option<String>,
    data: Option<String>,
    option: Option<String>,
    value: Option<Value>,
    reset: Option<bool>,
}

impl Op {
    fn word(self) -> &'static str {
        match self {
            Op::Bind => "bind",
            Op::Listen => "listen",
            Op::Connect => "connect",
            Op::Accept => "accept",
            Op::Send => "send",
            Op::Receive => "receive",
            Op::Set => "set",
            Op::Sysctl => "sysctl",
            Op::Close => "close",
        }
    }

    /// The fields it may have, beside `op` and `expect`.
    fn fields(self) -> &'static [&'static str] {
        match self {
            Op::Bind => &[
                "socket",
                "address",
                "port",
                "family",
                "v6_only",
                "reuse_addr",
                "reuse_port",
                "freebind",
                "device",
                "host",
                "privileged",
            ],
            Op::Listen => &["socket", "backlog"],
            Op::Connect => &["socket", "from", "to", "port"],
            Op::Accept => &["socket", "as"],
            Op::Send => &["socket", "data", "to", "port"],
            Op::Receive => &["socket"],
            Op::Set => &["socket", "v6_only", "reuse_addr", "reuse_port", "freebind", "device", "option", "value"],
            Op::Sysctl => &["name", "value", "host"],
            Op::Close => &["socket", "reset"],
        }
    }
}

/// A step that makes no sense fails where it stands, so that the error knows the place.
impl<'de> Deserialize<'de> for PlannedStep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        StepText::deserialize(deserializer)?.understood().map_err(D::Error::custom)
    }
}

impl StepText {
    /// What it comes to, where it makes sense.
    pub(super) fn understood(self) -> Result<PlannedStep, String> {
        let step = self;
        let op = step.op;
        for given in step.given() {
            if !op.fields().contains(&given) {
                return Err(format!("`{}` has no field `{given}`; it takes {}", op.word(), op.fields().join(", ")));
            }
        }
        if let Some(expect) = &step.expect
            && !is_outcome(expect)
        {
            let known = "ok, connected, reply, timeout, or the name of an errno such as EADDRINUSE";
            return Err(format!("`{expect}` is nothing that a step ends with; write {known}"));
        }
        let (socket, expect) = (step.socket.clone(), step.expect.clone());
        let in_words = step.in_words();
        let action = step.action()?;
        Ok(PlannedStep { op: op.word(), socket, in_words, expect, action })
    }
}

/// Whether a step can be expected to end like this.
fn is_outcome(word: &str) -> bool {
    // Linux numbers its errors from 1; what it does not have is UnknownErrno, which nobody may expect.
    const LAST_ERRNO: i32 = 133;
    matches!(word, "ok" | "connected" | "reply" | "timeout")
        || (1..=LAST_ERRNO).map(Errno::from_raw).any(|errno| format!("{errno:?}") == word && word.starts_with('E'))
}

impl StepText {
    fn given(&self) -> Vec<&'static str> {
        [
            ("socket", self.socket.is_some()),
            ("address", self.address.is_some()),
            ("port", self.port.is_some()),
            ("family", self.family.is_some()),
            ("v6_only", self.v6_only.is_some()),
            ("reuse_addr", self.reuse_addr.is_some()),
            ("reuse_port", self.reuse_port.is_some()),
            ("freebind", self.freebind.is_some()),
            ("device", self.device.is_some()),
            ("host", self.host.is_some()),
            ("privileged", self.privileged.is_some()),
            ("backlog", self.backlog.is_some()),
            ("from", self.from.is_some()),
            ("to", self.to.is_some()),
            ("as", self.known_as.is_some()),
            ("name", self.name.is_some()),
            ("data", self.data.is_some()),
            ("option", self.option.is_some()),
            ("value", self.value.is_some()),
            ("reset", self.reset.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, is_given)| is_given.then_some(name))
        .collect()
    }

    /// As a line of a table.
    fn in_words(&self) -> String {
        let mut words = vec![self.op.word().to_owned()];
        words.extend(self.socket.clone());
        words.extend(self.address.clone());
        let flags = [
            ("v6-only", self.v6_only),
            ("reuse-addr", self.reuse_addr),
            ("reuse-port", self.reuse_port),
            ("freebind", self.freebind),
        ];
        words.extend(
            flags
                .into_iter()
                .filter_map(|(name, flag)| flag.map(|on| if on { name.to_owned() } else { format!("no-{name}") })),
        );
        words.extend(self.port.map(|port| format!("port {port}")));
        words.extend(self.device.as_ref().map(|device| format!("on {device}")));
        words.extend(self.backlog.map(|backlog| backlog.to_string()));
        words.extend(self.host.map(|host| format!("at the {host}")));
        words.extend(self.from.map(|from| format!("from the {from}")));
        words.extend(self.to.as_ref().map(|to| format!("to {to}")));
        words.extend(self.known_as.as_ref().map(|name| format!("as {name}")));
        words.extend(self.name.clone());
        words.extend(self.option.clone());
        words.extend(self.value.as_ref().map(|value| format!("= {value}")));
        words.extend((self.reset == Some(true)).then(|| "with a reset".to_owned()));
        words.extend((self.privileged == Some(false)).then(|| "unprivileged".to_owned()));
        words.join(" ")
    }

    fn action(self) -> Result<Action, String> {
        let op = self.op.word();
        let needed = |what: &Option<String>, name: &str| what.clone().ok_or_else(|| format!("`{op}` needs `{name}`"));
        let socket = || needed(&self.socket, "socket");
        let target = |text: &str| read_target(text, self.port);
        Ok(match self.op {
            Op::Bind => Action::Bind(self.bind()?),
            Op::Listen => Action::Listen { socket: socket()?, backlog: self.backlog.unwrap_or(128) },
            Op::Connect => Action::Connect {
                socket: self.socket.clone(),
                from: self.from.unwrap_or(Side::Server),
                to: target(&needed(&self.to, "to")?)?,
            },
            Op::Accept => {
                let socket = socket()?;
                Action::Accept { socket, name: self.known_as }
            }
            Op::Send => Action::Send {
                socket: socket()?,
                to: self.to.as_deref().map(target).transpose()?,
                bytes: self.data.clone().unwrap_or_else(|| "hello".to_owned()).into_bytes(),
            },
            Op::Receive => Action::Receive { socket: socket()? },
            Op::Set => {
                let (socket, flags) = (socket()?, self.flags()?);
                let device = self.device;
                if flags.is_empty() && device.is_none() {
                    return Err("`set` needs an option, such as \"reuse_addr\": true".to_owned());
                }
                Action::Set { socket, flags, device }
            }
            Op::Sysctl => Action::Sysctl {
                host: self.host.unwrap_or(Side::Server),
                name: needed(&self.name, "name").map_err(|fault| format!("{fault}, such as net.ipv6.bindv6only"))?,
                value: match self.value {
                    Some(Value::String(text)) => text,
                    Some(Value::Bool(on)) => u8::from(on).to_string(),
                    Some(value @ Value::Number(_)) => value.to_string(),
                    _ => return Err("`sysctl` needs a `value`: a text or a number".to_owned()),
                },
            },
            Op::Close => Action::Close { socket: socket()?, reset: self.reset.unwrap_or(false) },
        })
    }

    fn bind(self) -> Result<Bind, String> {
        let (address, scope) = match self.address.as_deref().map(|text| text.split_once('%').unwrap_or((text, ""))) {
            Some((address, scope)) => (address, (!scope.is_empty()).then(|| scope.to_owned())),
            None => ("*", None),
        };
        let ip = match (address, self.family) {
            ("*" | "", Some(Family::Inet6)) => Ipv6Addr::UNSPECIFIED.into(),
            ("*" | "", _) => Ipv4Addr::UNSPECIFIED.into(),
            (text, family) => in_family(read_ip(text)?, family)?,
        };
        Ok(Bind {
            socket: self.socket.ok_or("`bind` needs `socket`: a name for later steps")?,
            host: self.host.unwrap_or(Side::Server),
            ip,
            port: self.port,
            v6_only: self.v6_only,
            reuse_addr: self.reuse_addr.unwrap_or(false),
            reuse_port: self.reuse_port.unwrap_or(false),
            freebind: self.freebind.unwrap_or(false),
            device: self.device.or(scope),
            privileged: self.privileged.unwrap_or(true),
        })
    }

    /// Written as `"reuse_addr": true`, or as `"option": "reuse_addr", "value": true`.
    fn flags(&self) -> Result<Vec<(Flag, bool)>, String> {
        let mut flags: Vec<(Flag, bool)> = [
            (Flag::V6Only, self.v6_only),
            (Flag::ReuseAddr, self.reuse_addr),
            (Flag::ReusePort, self.reuse_port),
            (Flag::Freebind, self.freebind),
        ]
        .into_iter()
        .filter_map(|(flag, on)| on.map(|on| (flag, on)))
        .collect();
        if let Some(option) = &self.option {
            let known = [Flag::V6Only, Flag::ReuseAddr, Flag::ReusePort, Flag::Freebind];
            let flag = known.into_iter().find(|flag| flag.name() == option || word(*flag) == option);
            let flag = flag.ok_or_else(|| {
                format!("`{option}` is no option that `set` knows; it knows {}", known.map(word).join(", "))
            })?;
            let on = match &self.value {
                Some(Value::Bool(on)) => *on,
                Some(Value::Number(number)) => number.as_u64() == Some(1),
                _ => return Err("`value` is true or false".to_owned()),
            };
            flags.push((flag, on));
        }
        Ok(flags)
    }
}

fn word(flag: Flag) -> &'static str {
    match flag {
        Flag::ReuseAddr => "reuse_addr",
        Flag::ReusePort => "reuse_port",
        Flag::V6Only => "v6_only",
        Flag::Freebind => "freebind",
    }
}

fn read_ip(text: &str) -> Result<IpAddr, String> {
    let text = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    text.parse().map_err(|_| format!("`{text}` is not an address"))
}

/// An IPv4 address on an IPv6 socket is an IPv4-mapped one.
fn in_family(ip: IpAddr, family: Option<Family>) -> Result<IpAddr, String> {
    match (ip, family) {
        (IpAddr::V4(ip), Some(Family::Inet6)) => Ok(ip.to_ipv6_mapped().into()),
        (IpAddr::V6(ip), Some(Family::Inet)) => Err(format!("`{ip}` is no address of the family inet")),
        (ip, _) => Ok(ip),
    }
}

/// An address, which may have a device (`fe80::1%eth0`) and a port (`127.0.0.1:80`, `[::1]:80`).
fn read_target(text: &str, port: Option<u16>) -> Result<Target, String> {
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Ok(Target { ip: address.ip(), device: None, port: Some(address.port()) });
    }
    let (address, device) = text.split_once('%').map_or((text, None), |(address, device)| (address, Some(device)));
    Ok(Target { ip: read_ip(address)?, device: device.map(str::to_owned), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_name_its_device_and_its_port() {
        let target = read_target("fe80::1%eth0", Some(9)).unwrap();
        assert_eq!((target.device.as_deref(), target.port), (Some("eth0"), Some(9)));
        assert_eq!(read_target("[::1]:80", None).unwrap().port, Some(80));
    }
}
