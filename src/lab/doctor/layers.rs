//! One layer after the other, seen from this host.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::time::{Duration, Instant};

use super::{Finding, Health, Layer};
use crate::lab::model::Proto;
use crate::machine::addresses::{is_local, local_addresses};
use crate::machine::sockets::{Protocol, State};
use crate::machine::{self, Holder};
use crate::verdict::Verdict;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// The addresses of the name, in the order in which a client is told to try them (RFC 6724).
pub(super) fn name(host: &str, port: u16, findings: &mut Vec<Finding>) -> Vec<SocketAddr> {
    let began = Instant::now();
    let asked = format!("getaddrinfo(\"{host}\")");
    let mut addresses: Vec<SocketAddr> = Vec::new();
    match (host, port).to_socket_addrs() {
        Ok(found) => {
            for address in found {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        Err(error) => {
            let says = format!("the name {host} has no address");
            findings.push(Finding::fails(Layer::Name, Verdict::Unresolved, says).with(format!("{asked} = {error}")));
            return addresses;
        }
    }
    let list: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    let says = match &list[..] {
        [] => format!("the name {host} has no address"),
        [one] if one == host => format!("{host} is an address, and needs no name"),
        some => format!("{host} means {}", some.join(", ")),
    };
    let took = began.elapsed().as_millis();
    let health = if list.is_empty() { Health::Fails } else { Health::Fine };
    let finding = Finding { verdict: Verdict::Unresolved, ..Finding::new(Layer::Name, health, says) };
    findings.push(finding.with(format!("{asked} = {} in {took} ms", list.join(", "))));
    addresses
}

/// A client that tries only the first address meets one family alone.
pub(super) fn family(addresses: &[SocketAddr], findings: &mut Vec<Finding>) {
    let Some(first) = addresses.first() else { return };
    let word = |address: &SocketAddr| if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let other = addresses.iter().find(|address| address.is_ipv4() != first.is_ipv4());
    let says = match other {
        Some(other) => format!("{} is tried first, then {}", word(first), word(other)),
        None => format!("only {}", word(first)),
    };
    findings.push(Finding::new(Layer::Family, Health::Fine, says));
}

/// Everything about one address, up to the first layer that fails.
pub(super) fn address(proto: Proto, to: SocketAddr, findings: &mut Vec<Finding>) {
    let route = route(to);
    let failed = route.health == Health::Fails;
    findings.push(route);
    if failed {
        return;
    }
    let here = is_local(to.ip(), &local_addresses().unwrap_or_default());
    let servers = if here { servers(proto, to.port()) } else { Vec::new() };
    match proto {
        Proto::Tcp => tcp(to, here, &servers, findings),
        Proto::Udp => udp(to, here, &servers, findings),
    }
}

/// Connecting a UDP socket sends nothing: it only asks the routing table.
fn route(to: SocketAddr) -> Finding {
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let asked = UdpSocket::bind(any).and_then(|socket| {
        socket.connect(to)?;
        socket.local_addr()
    });
    match asked {
        Ok(from) => Finding::new(Layer::Route, Health::Fine, format!("the way there leaves from {}", from.ip()))
            .at(to)
            .with(format!("connect(udp, {to}) = 0, getsockname = {}", from.ip())),
        Err(error) => {
            let says = format!("this host has no way to {}", to.ip());
            Finding::fails(Layer::Route, Verdict::of_connect(&error), says).at(to).with(shown(
                "connect(udp)",
                to,
                &error,
            ))
        }
    }
}

fn tcp(to: SocketAddr, here: bool, servers: &[Holder], findings: &mut Vec<Finding>) {
    let began = Instant::now();
    let result = TcpStream::connect_timeout(&to, PATIENCE);
    let took = format!("connect({to}) took {} ms", began.elapsed().as_millis());
    match result {
        Ok(_) => {
            findings.push(Finding::new(Layer::Filter, Health::Fine, "nothing on the way says no").at(to));
            findings.push(Finding::new(Layer::Listen, Health::Fine, listening(servers)).at(to).with(took));
            findings.push(backlog(to, servers));
        }
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            findings.push(Finding::new(Layer::Filter, Health::Fine, "an answer came, so nothing drops it").at(to));
            findings.push(refused(to, here, servers).with(shown("connect", to, &error)));
        }
        Err(error) if error.kind() == ErrorKind::TimedOut => {
            let full = backlog(to, servers);
            if full.health == Health::Fails {
                findings.push(full.with(took));
                return;
            }
            let says = "nothing comes back: a filter drops it, or the host is down; both look the same from here";
            findings.push(Finding::fails(Layer::Filter, Verdict::Timeout, says).at(to).with(took));
        }
        Err(error) => findings.push(blocked(to, &error)),
    }
}

fn udp(to: SocketAddr, here: bool, servers: &[Holder], findings: &mut Vec<Finding>) {
    match ask(to) {
        Ok(Some(from)) if from == to => {
            findings.push(Finding::new(Layer::Listen, Health::Fine, listening(servers)).at(to));
            let says = "the reply comes from the address that was asked";
            findings.push(Finding::new(Layer::Reply, Health::Fine, says).at(to));
        }
        Ok(Some(from)) => {
            let says = format!(
                "the reply comes from {} and not from {}: a connected client drops it; the server is bound to a \
                 wildcard and does not use IP_PKTINFO",
                from.ip(),
                to.ip()
            );
            findings.push(
                Finding::fails(Layer::Reply, Verdict::Unexpected, says).at(to).with(format!("recvfrom = {from}")),
            );
        }
        Ok(None) if here && servers.iter().any(|server| takes(server, to)) => {
            let says = "somebody is there and does not answer what it was sent: it may not be asked like this";
            findings.push(Finding::new(Layer::Listen, Health::Fine, listening(servers)).at(to));
            findings.push(Finding::new(Layer::Reply, Health::Unknown, says).at(to));
        }
        Ok(None) => {
            let says = "nothing comes back: dropped, lost, or a server that does not answer such a datagram";
            findings.push(Finding::fails(Layer::Filter, Verdict::Timeout, says).at(to));
        }
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            findings.push(Finding::new(Layer::Filter, Health::Fine, "an answer came, so nothing drops it").at(to));
            findings.push(refused(to, here, servers).with(shown("recv", to, &error)));
        }
        Err(error) => findings.push(blocked(to, &error)),
    }
}

/// Asks from a connected socket, which hears refusals, and from one that takes an answer from any address.
fn ask(to: SocketAddr) -> io::Result<Option<SocketAddr>> {
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let (connected, free) = (UdpSocket::bind(any)?, UdpSocket::bind(any)?);
    connected.connect(to)?;
    connected.set_read_timeout(Some(PATIENCE))?;
    free.set_read_timeout(Some(PATIENCE / 4))?;
    free.send_to(b"greetd?", to)?;
    connected.send(b"greetd?")?;
    let mut buffer = [0; 2048];
    match free.recv_from(&mut buffer) {
        Ok((_, from)) => return Ok(Some(from)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
        Err(error) => return Err(error),
    }
    match connected.recv(&mut buffer) {
        Ok(_) => Ok(Some(to)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
        Err(error) => Err(error),
    }
}

fn refused(to: SocketAddr, here: bool, servers: &[Holder]) -> Finding {
    let fails = |says: String| Finding::fails(Layer::Listen, Verdict::Refused, says).at(to);
    if !here {
        return fails(format!("the host answers, and nobody listens on {to}"));
    }
    if let Some(bound) = servers.iter().find(|server| server.socket.state == State::Bound && takes(server, to)) {
        return fails(format!("{} is bound there and does not listen", of(bound)));
    }
    match servers {
        [] => fails(format!("nobody on this machine has port {}", to.port())),
        some => {
            let where_to: Vec<String> =
                some.iter().map(|server| format!("{} by {}", server.socket.local, of(server))).collect();
            fails(format!("nobody takes in {}; the port is open elsewhere: {}", to.ip(), where_to.join(", ")))
        }
    }
}

/// The queue of the listener, where it is on this machine.
fn backlog(to: SocketAddr, servers: &[Holder]) -> Finding {
    let listener = servers.iter().find(|server| server.socket.state == State::Listening && takes(server, to));
    let Some(queue) = listener.and_then(|listener| listener.socket.backlog) else {
        return Finding::new(Layer::Backlog, Health::Unknown, "the queue of another machine cannot be seen").at(to);
    };
    let shown = format!("sock_diag: {} wait, {} may", queue.waiting, queue.limit);
    // listen(n) lets n + 1 in.
    if queue.waiting > queue.limit {
        let says = "the server does not accept and its queue is full, so the kernel drops new connections in silence";
        return Finding::fails(Layer::Backlog, Verdict::Timeout, says).at(to).with(shown);
    }
    Finding::new(Layer::Backlog, Health::Fine, format!("{} of {} wait to be accepted", queue.waiting, queue.limit))
        .at(to)
        .with(shown)
}

fn blocked(to: SocketAddr, error: &io::Error) -> Finding {
    let verdict = Verdict::of_connect(error);
    let says = match verdict {
        Verdict::Prohibited => "a filter says no: a rule or a route that prohibits it",
        Verdict::Unreachable => "somebody on the way says that the host or its network cannot be reached",
        Verdict::Timeout => "nothing comes back",
        _ => "the call fails",
    };
    Finding::fails(Layer::Filter, verdict, says).at(to).with(shown("connect", to, error))
}

/// Who is on the port of this machine; nobody where the kernel does not tell.
fn servers(proto: Proto, port: u16) -> Vec<Holder> {
    let protocol = match proto {
        Proto::Tcp => Protocol::Tcp,
        Proto::Udp => Protocol::Udp,
    };
    machine::servers(protocol, port).unwrap_or_default()
}

fn takes(server: &Holder, to: SocketAddr) -> bool {
    crate::lab::why::Standing::of(server).binding.covers(to.ip())
}

fn listening(servers: &[Holder]) -> String {
    match servers {
        [] => "somebody listens".to_owned(),
        some => {
            let all: Vec<String> =
                some.iter().map(|server| format!("{} by {}", server.socket.local, of(server))).collect();
            format!("somebody listens: {}", all.join(", "))
        }
    }
}

fn of(server: &Holder) -> String {
    server.processes.first().map_or_else(
        || format!("a process of user {}", server.user.as_deref().unwrap_or("nobody")),
        |process| format!("{} (pid {})", crate::escape::Escaped::new(process.name.as_bytes()), process.pid),
    )
}

fn shown(call: &str, to: SocketAddr, error: &io::Error) -> String {
    let name = error.raw_os_error().map(|number| format!("{:?}", nix::errno::Errno::from_raw(number)));
    format!("{call}({to}) = {}", name.unwrap_or_else(|| error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::doctor::examine;
    use std::net::TcpListener;

    #[test]
    fn a_server_that_answers_is_fine_at_every_layer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let diagnosis = examine(Proto::Tcp, "127.0.0.1", listener.local_addr().unwrap().port());
        assert_eq!(diagnosis.verdict(), Verdict::Ok, "{diagnosis:#?}");
        assert!(diagnosis.findings.iter().any(|one| one.layer == Layer::Backlog && one.health == Health::Fine));
    }

    #[test]
    fn a_server_on_another_address_of_this_machine_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let diagnosis = examine(Proto::Tcp, "127.0.0.2", listener.local_addr().unwrap().port());
        let first = diagnosis.first_failure().unwrap();
        assert_eq!((first.layer, first.verdict), (Layer::Listen, Verdict::Refused));
        assert!(first.says.contains("open elsewhere: 127.0.0.1:"), "{}", first.says);
    }

    #[test]
    fn a_udp_server_that_answers_from_another_address_is_found() {
        let server = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = server.local_addr().unwrap().port();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let echo = std::thread::spawn(move || {
            for _ in 0..2 {
                let (count, from) = server.recv_from(&mut [0; 16]).unwrap();
                server.send_to(&[0; 16][..count], from).unwrap();
            }
        });
        let diagnosis = examine(Proto::Udp, "127.0.0.2", port);
        echo.join().unwrap();
        let first = diagnosis.first_failure().unwrap();
        assert_eq!((first.layer, first.verdict), (Layer::Reply, Verdict::Unexpected), "{diagnosis:#?}");
    }

    #[test]
    fn a_full_queue_is_told_from_a_filter() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // The standard library asks for more; listening again sets it anew, see listen(2).
        socket2::SockRef::from(&listener).listen(0).unwrap();
        let to = listener.local_addr().unwrap();
        let _waiting = TcpStream::connect(to).unwrap();
        let diagnosis = examine(Proto::Tcp, "127.0.0.1", to.port());
        let first = diagnosis.first_failure().unwrap();
        assert_eq!((first.layer, first.verdict), (Layer::Backlog, Verdict::Timeout), "{diagnosis:#?}");
    }

    #[test]
    fn a_name_without_an_address_fails_first() {
        let diagnosis = examine(Proto::Tcp, "no-such-name.invalid", 1);
        assert_eq!(diagnosis.first_failure().map(|one| one.layer), Some(Layer::Name));
        assert_eq!(diagnosis.verdict(), Verdict::Unresolved);
    }
}
