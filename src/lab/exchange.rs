//! Servers that answer and clients that call, all at once, in one loop over poll(2).
//!
//! What each client felt, which server got its call and where the answer came from are found out together, so that
//! hundreds of calls of which some stay without an answer take no longer than one of those.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::Socket;

use super::isolation::errno_of;
use super::model::Proto;
use super::outcome::Outcome;
use super::pktinfo;
use super::socket::{Call, Tracked, canonical};

/// How long after the last event a call without an answer counts as lost. Everything happens inside one kernel,
/// where an answer takes microseconds.
pub(crate) const QUIET: Duration = Duration::from_millis(200);

/// A socket that answers: TCP connections are accepted and kept, UDP datagrams sent back.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) socket: Tracked,
    proto: Proto,
    /// Answer from the address that was asked, with `IP_PKTINFO`.
    with_pktinfo: bool,
    /// Whether it can be called at all: poll(2) says for ever that a TCP socket has hung up that does not listen.
    is_open: bool,
    accepted: Vec<Socket>,
}

/// A socket that calls.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) socket: Tracked,
    proto: Proto,
    state: State,
    /// The place of the server that got the call.
    pub(crate) server: Option<usize>,
    /// Where the answer came from, for a socket that is not connected and takes it from anywhere.
    pub(crate) answered_from: Option<SocketAddr>,
    /// Whom to send to, where the socket is not connected.
    asks: Option<SocketAddr>,
    /// What the server noted of the call.
    heard: Vec<Call>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Waiting,
    Over(Outcome),
}

impl Server {
    pub(crate) fn new(socket: Tracked, proto: Proto) -> Self {
        let is_open = proto == Proto::Udp || socket.inner().is_listener().unwrap_or(false);
        Server { socket, proto, with_pktinfo: false, is_open, accepted: Vec::new() }
    }

    /// A UDP server that answers with `IP_PKTINFO`.
    pub(crate) fn with_pktinfo(mut socket: Tracked) -> io::Result<Self> {
        pktinfo::request(&mut socket)?;
        Ok(Server { with_pktinfo: true, ..Server::new(socket, Proto::Udp) })
    }

    /// Takes one call. Says from whom it came and which client's number it carried.
    fn take(&mut self) -> io::Result<(SocketAddr, Option<usize>)> {
        if self.proto == Proto::Tcp {
            let (stream, peer) = self.socket.accept()?;
            self.accepted.push(stream);
            return Ok((canonical(peer), None));
        }
        let mut number = [0; 8];
        let peer = if self.with_pktinfo {
            pktinfo::echo(&mut self.socket, &mut number)?
        } else {
            let (_, peer) = self.socket.receive_from(&mut number)?;
            self.socket.send_to(&number, peer)?;
            peer
        };
        Ok((canonical(peer), Some(usize::from_le_bytes(number))))
    }
}

impl Client {
    /// Starts a call to an address.
    pub(crate) fn call(mut socket: Tracked, proto: Proto, to: SocketAddr) -> Self {
        let state = match socket.connect(to) {
            Ok(true) if proto == Proto::Tcp => State::Over(Outcome::Connected),
            Ok(_) => State::Waiting,
            Err(error) => State::Over(Outcome::Errno(errno_of(&error))),
        };
        Client { socket, proto, state, server: None, answered_from: None, asks: None, heard: Vec::new() }
    }

    /// Asks over UDP without connecting, so that an answer from any address is taken.
    pub(crate) fn ask(socket: Tracked, to: SocketAddr) -> Self {
        let (state, asks) = (State::Waiting, Some(to));
        Client { socket, proto: Proto::Udp, state, server: None, answered_from: None, asks, heard: Vec::new() }
    }

    /// How the call ended.
    pub(crate) fn outcome(&self) -> Outcome {
        match &self.state {
            State::Over(outcome) => outcome.clone(),
            State::Waiting if self.server.is_some() => Outcome::ReplyLost,
            State::Waiting => Outcome::Timeout,
        }
    }

    /// The calls on the client's socket, and those of the server that belong to them.
    pub(crate) fn evidence(&self) -> Vec<Call> {
        let mut calls = self.socket.calls().to_vec();
        calls.extend(self.heard.iter().cloned());
        if self.state == State::Waiting {
            calls.extend(calls.last().map(|last| Call {
                host: last.host,
                call: format!("poll({}, {} ms)", self.socket.name(), QUIET.as_millis()),
                result: "0".to_owned(),
            }));
        }
        calls
    }

    fn proceed(&mut self) {
        let over = match self.proto {
            Proto::Tcp => match self.socket.connected() {
                Ok(()) => Some(Outcome::Connected),
                Err(error) => Some(Outcome::Errno(errno_of(&error))),
            },
            Proto::Udp => match self.take_answer() {
                Ok(()) => Some(Outcome::Reply),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                Err(error) => Some(Outcome::Errno(errno_of(&error))),
            },
        };
        if let Some(outcome) = over {
            self.state = State::Over(outcome);
        }
    }

    fn question(&mut self, number: usize) -> io::Result<()> {
        match self.asks {
            Some(to) => self.socket.send_to(&number.to_le_bytes(), to),
            None => self.socket.send(&number.to_le_bytes()),
        }
    }

    fn take_answer(&mut self) -> io::Result<()> {
        if self.asks.is_none() {
            return self.socket.receive(&mut [0; 8]).map(drop);
        }
        let (_, from) = self.socket.receive_from(&mut [0; 8])?;
        self.answered_from = Some(canonical(from));
        Ok(())
    }
}

/// Lets all clients finish their calls. UDP clients send now.
pub(crate) fn run(servers: &mut [Server], clients: &mut [Client]) -> io::Result<()> {
    run_until_quiet(servers, clients, QUIET)
}

/// The same, where an answer may take longer than [`QUIET`].
pub(crate) fn run_until_quiet(servers: &mut [Server], clients: &mut [Client], quiet: Duration) -> io::Result<()> {
    let mut by_address = HashMap::new();
    for (number, client) in clients.iter_mut().enumerate() {
        if client.state == State::Waiting && client.proto == Proto::Udp {
            // An ICMP error for an earlier datagram cannot be there yet: this is the first.
            if let Err(error) = client.question(number) {
                client.state = State::Over(Outcome::Errno(errno_of(&error)));
            }
        }
        if let Ok(local) = client.socket.local() {
            by_address.insert(canonical(local), number);
        }
    }
    let mut last_event = Instant::now();
    loop {
        let left = quiet.saturating_sub(last_event.elapsed());
        let (ready_servers, ready_clients) = wait(servers, clients, left)?;
        if ready_servers.is_empty() && ready_clients.is_empty() {
            let is_open = clients.iter().any(|client| client.state == State::Waiting);
            if left.is_zero() || !is_open {
                return Ok(());
            }
            continue;
        }
        last_event = Instant::now();
        for place in ready_servers {
            let server = &mut servers[place];
            loop {
                let before = server.socket.calls().len();
                let Ok((peer, number)) = server.take() else { break };
                let number = number.or_else(|| by_address.get(&peer).copied());
                if let Some(client) = number.and_then(|number| clients.get_mut(number)) {
                    client.server = Some(place);
                    client.heard.extend_from_slice(&server.socket.calls()[before..]);
                }
            }
        }
        for place in ready_clients {
            clients[place].proceed();
        }
    }
}

/// Waits for something to happen; gives the places of the servers and clients to which it did.
fn wait(servers: &[Server], clients: &[Client], left: Duration) -> io::Result<(Vec<usize>, Vec<usize>)> {
    let waiting: Vec<usize> = (0..clients.len()).filter(|&place| clients[place].state == State::Waiting).collect();
    let open: Vec<usize> = (0..servers.len()).filter(|&place| servers[place].is_open).collect();
    let mut polled: Vec<PollFd<'_>> =
        open.iter().map(|&place| PollFd::new(servers[place].socket.as_fd(), PollFlags::POLLIN)).collect();
    polled.extend(waiting.iter().map(|&place| {
        let for_what = match clients[place].proto {
            Proto::Tcp => PollFlags::POLLOUT,
            Proto::Udp => PollFlags::POLLIN,
        };
        PollFd::new(clients[place].socket.as_fd(), for_what)
    }));
    // When nobody waits any more, what has arrived at the servers is still to be counted.
    let timeout = if waiting.is_empty() { 0 } else { left.as_millis() as u16 };
    match poll(&mut polled, PollTimeout::from(timeout)) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let is_ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
    let (of_servers, of_clients) = polled.split_at(open.len());
    let ready = |places: &[usize], polled: &[PollFd<'_>]| {
        places.iter().zip(polled).filter(|(_, fd)| is_ready(fd)).map(|(&place, _)| place).collect()
    };
    Ok((ready(&open, of_servers), ready(&waiting, of_clients)))
}
