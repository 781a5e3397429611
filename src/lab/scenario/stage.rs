//! Playing the steps of a case on real sockets.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use super::action::{Action, Bind, Target};
use crate::lab::ground::Ground;
use crate::lab::host::Host;
use crate::lab::model::{Binding, Dial, Proto};
use crate::lab::outcome::Outcome;
use crate::lab::socket::{Call, Flag, Tracked, address};
use crate::lab::topology::Side;
use crate::lab::wait;

/// How long something that would come at once is waited for.
const PATIENCE: Duration = Duration::from_millis(300);
/// Above the privileged ports and below those that the kernel hands out.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// The real sockets of a case.
pub(super) struct Stage<'a> {
    ground: &'a Ground,
    proto: Proto,
    port: u16,
    sockets: HashMap<String, (Side, Tracked)>,
    /// Connections that no step can name; they live as long as the case.
    unnamed: Vec<Tracked>,
}

/// What came of a step, and the calls that it made.
type Played = Option<(Outcome, Vec<Call>)>;

impl<'a> Stage<'a> {
    pub(super) fn new(ground: &'a Ground, proto: Proto) -> io::Result<Self> {
        let port = match ground {
            // In a namespace of one's own every port is fresh.
            Ground::Private(_) => PORTS.start,
            Ground::Loopback(..) => fresh_port()?,
        };
        Ok(Stage { ground, proto, port, sockets: HashMap::new(), unnamed: Vec::new() })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Plays one step; `None` where its socket does not exist, or where it may not be tried on this ground.
    pub(super) fn play(&mut self, action: &Action) -> io::Result<Played> {
        match action {
            Action::Bind(bind) => self.bind(bind),
            Action::Connect { socket, from, to } => self.connect(socket.as_deref(), *from, to),
            Action::Accept { socket, name } => Ok(self.accept(socket, name.as_deref().unwrap_or_default())),
            Action::Sysctl { host, name, value } => Ok(self.sysctl(*host, name, value)),
            Action::Close { socket, reset } => Ok(self.close(socket, *reset)),
            Action::Listen { socket, backlog } => Ok(self.on(socket, |one| one.listen(*backlog))),
            Action::Receive { socket } => Ok(self.receive(socket)),
            Action::Set { socket, flags, device } => Ok(self.on(socket, |one| {
                for (flag, on) in flags {
                    one.set(*flag, *on)?;
                }
                device.as_deref().map_or(Ok(()), |device| one.bind_to_device(device))
            })),
            Action::Send { socket, bytes, to } => {
                let to = match (to, self.sockets.get(socket)) {
                    (Some(to), Some((side, _))) => match self.ground.host(*side) {
                        Some(host) => Some(self.address(host, to)?),
                        None => return Ok(None),
                    },
                    _ => None,
                };
                Ok(self.on(socket, |one| match to {
                    Some(to) => one.send_to(bytes, one.in_its_family(to)),
                    None => one.send(bytes),
                }))
            }
        }
    }

    /// One call on a socket that exists.
    fn on(&mut self, socket: &str, call: impl FnOnce(&mut Tracked) -> io::Result<()>) -> Played {
        let (_, socket) = self.sockets.get_mut(socket)?;
        let before = socket.calls().len();
        let result = call(socket);
        Some((Outcome::of_call(&result), socket.calls()[before..].to_vec()))
    }

    fn bind(&mut self, bind: &Bind) -> io::Result<Played> {
        let binding = Binding {
            v6_only: bind.v6_only.unwrap_or(false),
            device: bind.device.clone(),
            ..Binding::new(self.proto, bind.ip)
        };
        let Some(host) = self.ground.host(bind.host).filter(|_| self.ground.may_bind(&binding)) else {
            return Ok(None);
        };
        let port = bind.port.unwrap_or(self.port);
        let (mut socket, before) = match self.sockets.remove(&bind.socket) {
            Some((_, socket)) => {
                let before = socket.calls().len();
                (socket, before)
            }
            None => (Tracked::open(host, bind.host, &bind.socket, self.proto, bind.ip.is_ipv4())?, 0),
        };
        let was_bound = before > 0;
        let result = bind_as_asked(host, &mut socket, bind, &binding, port);
        let calls = socket.calls()[before..].to_vec();
        if result.is_ok() || was_bound {
            self.sockets.insert(bind.socket.clone(), (bind.host, socket));
        }
        Ok(Some((Outcome::of_call(&result), calls)))
    }

    /// TCP: whether the connection comes about. UDP: whether a question is answered, by whichever socket gets it.
    fn connect(&mut self, name: Option<&str>, from: Side, to: &Target) -> io::Result<Played> {
        let existing = name.and_then(|name| self.sockets.remove(name));
        let from = existing.as_ref().map_or(from, |(side, _)| *side);
        let is_allowed = self.ground.may_dial(Dial { from, to: to.ip });
        let Some(host) = self.ground.host(from).filter(|_| is_allowed) else { return Ok(None) };
        let mut socket = match existing {
            Some((_, socket)) => socket,
            None => Tracked::open(host, from, name.unwrap_or("client"), self.proto, to.ip.is_ipv4())?,
        };
        let before = socket.calls().len();
        let result = self.address(host, to).and_then(|to| socket.connect(socket.in_its_family(to)));
        let outcome = match (result, self.proto) {
            (Err(error), _) => Outcome::of_call::<()>(&Err(error)),
            (Ok(true), Proto::Tcp) => Outcome::Connected,
            (Ok(_), Proto::Tcp) => match wait::writable(&socket, PATIENCE).then(|| socket.connected()) {
                Some(Ok(())) => Outcome::Connected,
                Some(error) => Outcome::of_call(&error),
                None => Outcome::Timeout,
            },
            (Ok(_), Proto::Udp) => self.ask(&mut socket),
        };
        let calls = socket.calls()[before..].to_vec();
        match name {
            Some(name) => drop(self.sockets.insert(name.to_owned(), (from, socket))),
            None => self.unnamed.push(socket),
        }
        Ok(Some((outcome, calls)))
    }

    /// Sends a question; whichever server gets it sends it back.
    fn ask(&mut self, client: &mut Tracked) -> Outcome {
        const QUESTION: &[u8] = b"greetd?";
        if let Err(error) = client.send(QUESTION) {
            return Outcome::of_call::<()>(&Err(error));
        }
        let began = Instant::now();
        let mut arrived = false;
        while began.elapsed() < PATIENCE {
            for (_, server) in self.sockets.values_mut() {
                let mut buffer = [0; QUESTION.len()];
                if wait::readable(server, Duration::ZERO)
                    && let Ok((_, peer)) = server.receive_from(&mut buffer)
                    && server.send_to(&buffer, peer).is_ok()
                {
                    arrived = true;
                }
            }
            if wait::readable(client, Duration::from_millis(5)) {
                return match client.receive(&mut [0; QUESTION.len()]) {
                    Ok(_) => Outcome::Reply,
                    Err(error) => Outcome::of_call::<()>(&Err(error)),
                };
            }
        }
        if arrived { Outcome::ReplyLost } else { Outcome::Timeout }
    }

    fn accept(&mut self, socket: &str, name: &str) -> Played {
        let (side, listener) = self.sockets.get_mut(socket)?;
        let before = listener.calls().len();
        if !wait::readable(listener, PATIENCE) {
            // Where nothing listens, the call itself says so.
            return match listener.accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some((Outcome::Timeout, Vec::new())),
                result => Some((Outcome::of_call(&result), listener.calls()[before..].to_vec())),
            };
        }
        let result = listener.accept();
        let outcome = Outcome::of_call(&result);
        let calls = listener.calls()[before..].to_vec();
        let side = *side;
        if let Ok((connection, _)) = result {
            self.sockets.insert(name.to_owned(), (side, Tracked::accepted(connection, side, name)));
        }
        Some((outcome, calls))
    }

    fn receive(&mut self, socket: &str) -> Played {
        let (_, socket) = self.sockets.get_mut(socket)?;
        let before = socket.calls().len();
        // poll(2) is silent about a socket that can never receive, where the call itself says so.
        let mut result = socket.receive(&mut [0; 2048]);
        if matches!(&result, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            if !wait::readable(socket, PATIENCE) {
                return Some((Outcome::Timeout, Vec::new()));
            }
            result = socket.receive(&mut [0; 2048]);
        }
        Some((Outcome::of_call(&result), socket.calls()[before..].to_vec()))
    }

    fn sysctl(&self, host: Side, name: &str, value: &str) -> Played {
        // Only a network that is the lab's own is changed, and nothing but its network.
        let host = self.ground.topology()?.host(host);
        if !name.starts_with("net.") {
            return None;
        }
        let result = host.sysctl(name, value);
        let said = result.as_ref().map_or_else(ToString::to_string, |()| "0".to_owned());
        let outcome = Outcome::of_call(&result);
        Some((outcome, vec![Call { host: Side::Server, call: format!("sysctl {name}={value}"), result: said }]))
    }

    fn close(&mut self, socket: &str, reset: bool) -> Played {
        let (side, socket) = self.sockets.remove(socket)?;
        if reset {
            // Closing with a linger time of nothing sends a reset; see socket(7).
            let _ = socket.inner().set_linger(Some(Duration::ZERO));
        }
        let call = Call { host: side, call: format!("close({})", socket.name()), result: "0".to_owned() };
        drop(socket);
        Some((Outcome::Ok, vec![call]))
    }

    fn address(&self, host: &Host, to: &Target) -> io::Result<SocketAddr> {
        let device = to.device.as_deref().or(Some("eth0"));
        address(host, to.ip, to.port.unwrap_or(self.port), device)
    }
}

fn bind_as_asked(host: &Host, socket: &mut Tracked, bind: &Bind, binding: &Binding, port: u16) -> io::Result<()> {
    for (flag, on) in [
        (Flag::V6Only, bind.v6_only.filter(|_| bind.ip.is_ipv6())),
        (Flag::ReuseAddr, bind.reuse_addr.then_some(true)),
        (Flag::ReusePort, bind.reuse_port.then_some(true)),
        (Flag::Freebind, bind.freebind.then_some(true)),
    ] {
        match on.map(|on| socket.set(flag, on)) {
            // A socket that is bound already takes no V6ONLY; bind itself is to say so.
            None | Some(Ok(())) => {}
            Some(Err(_)) if flag == Flag::V6Only => {}
            Some(Err(error)) => return Err(error),
        }
    }
    if let Some(device) = bind.device.as_deref().filter(|_| !binding.is_link_local()) {
        socket.bind_to_device(device)?;
    }
    let to = address(host, bind.ip, port, bind.device.as_deref())?;
    if bind.privileged { socket.bind(to) } else { socket.bind_on(host, to, unprivileged) }
}

/// Runs a call without `CAP_NET_BIND_SERVICE`, which is a matter of the calling thread alone.
fn unprivileged(call: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
    let had = capabilities(None)?;
    let effective = had.effective.difference(CapabilitySet::NET_BIND_SERVICE);
    set_capabilities(None, CapabilitySets { effective, ..had })?;
    let result = call();
    set_capabilities(None, had)?;
    result
}

/// A port of this machine that nobody has, neither of TCP nor of UDP.
fn fresh_port() -> io::Result<u16> {
    for _ in 0..16 {
        let tcp = TcpListener::bind((IpAddr::from([127, 0, 0, 1]), 0))?;
        let port = tcp.local_addr()?.port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::from(io::ErrorKind::AddrInUse))
}
