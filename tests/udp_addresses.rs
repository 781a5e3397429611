//! UDP between two hosts: from which address answers leave, what long ones do, what is refused and what is lost.

#![cfg(feature = "cli")]

mod support;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::task::Poll;
use std::time::Duration;

use greetd::lab::Host;
use greetd::lab::topology::{
    SERVER_LINK_LOCAL, SERVER_V4, SERVER_V4_FAR, SERVER_V4_SECOND, SERVER_V6, SERVER_V6_SECOND,
};
use greetd::transport::{Datagrams, Transmit};
use greetd::transports::udp::Udp;
use greetd::{Address, DatagramSocket, Link, Listener, MessageStream, Registry, Server, Transport};
use support::netns::{on, set_mtu, two_hosts};
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// How long to wait for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

type Port = Box<dyn DatagramSocket>;

fn listen(host: &Host, at: &str) -> (Port, u16) {
    let endpoint = format!("udp://{at}:0").parse().unwrap();
    let listener = on(host, async move { Udp::default().bind(&endpoint).await.unwrap() });
    let Listener::Datagrams(socket) = listener else { panic!("udp has no connections") };
    let port = socket.local().ip().unwrap().port();
    (socket, port)
}

fn call(host: &Host, to: SocketAddr) -> Box<dyn MessageStream> {
    let endpoint = format!("udp://{to}").parse().unwrap();
    let dialled = on(host, async move { Udp::default().connect(&endpoint).await.unwrap() });
    let Link::Messages(messages) = dialled.link else { panic!("udp carries messages") };
    messages
}

/// A socket of the operating system's own, connected or not: it knows nothing of what is tested.
fn plain(host: &Host, connected_to: Option<SocketAddr>) -> UdpSocket {
    on(host, async move {
        let any: SocketAddr = match connected_to {
            Some(SocketAddr::V6(_)) => "[::]:0".parse().unwrap(),
            _ => "0.0.0.0:0".parse().unwrap(),
        };
        let socket = UdpSocket::bind(any).await.unwrap();
        if let Some(peer) = connected_to {
            socket.connect(peer).await.unwrap();
        }
        socket
    })
}

async fn receive(server: &mut Port) -> Datagrams {
    let mut came = VecDeque::new();
    let received = timeout(PATIENCE, poll_fn(|cx| server.poll_recv(cx, &mut came)));
    received.await.expect("a datagram comes").unwrap();
    assert_eq!(came.len(), 1);
    came.remove(0).unwrap()
}

async fn answer(server: &mut Port, to: &Datagrams, payload: &[u8]) -> io::Result<usize> {
    let transmit = Transmit { remote: &to.remote, local: &to.local, payload, segment: payload.len().max(1) };
    poll_fn(|cx| server.poll_send(cx, &transmit)).await
}

async fn hear(client: &UdpSocket) -> (usize, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    timeout(PATIENCE, client.recv_from(&mut buffer)).await.expect("an answer comes").unwrap()
}

async fn send(client: &mut dyn MessageStream, message: &[u8]) {
    client.start_send(&[message]).unwrap();
    poll_fn(|cx| client.poll_flush(cx)).await.unwrap();
}

#[tokio::test]
async fn an_answer_leaves_from_the_address_that_was_asked() {
    let Some(lab) = two_hosts() else { return };
    let eth0 = lab.client().run(|| nix::net::if_::if_nametoindex("eth0").unwrap());
    let v4 = [SERVER_V4, SERVER_V4_SECOND, SERVER_V4_FAR].map(IpAddr::from);
    let v6 = [SERVER_V6, SERVER_V6_SECOND, SERVER_LINK_LOCAL].map(IpAddr::from);
    let both: Vec<IpAddr> = v4.into_iter().chain(v6).collect();
    for (bound, addresses) in [("0.0.0.0", &v4[..]), ("[::ffff:0.0.0.0]", &v4), ("[::]", &both)] {
        let (mut server, port) = listen(lab.server(), bound);
        for asked in addresses {
            let asked = match asked {
                IpAddr::V6(SERVER_LINK_LOCAL) => SocketAddrV6::new(SERVER_LINK_LOCAL, port, 0, eth0).into(),
                ip => SocketAddr::new(*ip, port),
            };
            // Connected, so that it hears nobody but whom it asked.
            let client = plain(lab.client(), Some(asked));
            client.send(b"x").await.unwrap();
            let came = receive(&mut server).await;
            assert_eq!(came.local.canonical_ip(), Some(asked.ip()), "{asked} on {bound}");
            assert_eq!(came.local.ip().unwrap().port(), port);
            answer(&mut server, &came, b"y").await.unwrap();
            assert_eq!(hear(&client).await, (1, asked), "{asked} on {bound}");
        }
    }
}

#[tokio::test]
async fn a_batch_of_answers_leaves_from_the_address_that_was_asked() {
    let Some(lab) = two_hosts() else { return };
    let (mut server, port) = listen(lab.server(), "[::]");
    for asked in [IpAddr::from(SERVER_V4_SECOND), SERVER_V6_SECOND.into()] {
        let asked = SocketAddr::new(asked, port);
        let client = plain(lab.client(), Some(asked));
        client.send(b"x").await.unwrap();
        let came = receive(&mut server).await;
        let transmit = Transmit { remote: &came.remote, local: &came.local, payload: &[7; 640], segment: 10 };
        assert_eq!(poll_fn(|cx| server.poll_send(cx, &transmit)).await.unwrap(), 640);
        for _ in 0..64 {
            assert_eq!(hear(&client).await, (10, asked));
        }
    }
}

#[tokio::test]
async fn a_request_to_a_broadcast_address_is_answered_from_an_address_of_the_host() {
    let Some(lab) = two_hosts() else { return };
    for bound in ["0.0.0.0", "[::]"] {
        let (mut server, port) = listen(lab.server(), bound);
        for everybody in [Ipv4Addr::new(198, 51, 100, 255), Ipv4Addr::BROADCAST] {
            let client = plain(lab.client(), None);
            client.set_broadcast(true).unwrap();
            // The limited broadcast address needs a device to leave by.
            client.bind_device(Some(b"eth0")).unwrap();
            client.send_to(b"who is there?", (everybody, port)).await.unwrap();
            let came = receive(&mut server).await;
            assert_eq!(came.local.canonical_ip(), Some(everybody.into()));
            answer(&mut server, &came, b"I am").await.unwrap();
            assert_eq!(hear(&client).await, (4, (SERVER_V4, port).into()));
            let transmit = Transmit { remote: &came.remote, local: &came.local, payload: b"aabbcc", segment: 2 };
            assert_eq!(poll_fn(|cx| server.poll_send(cx, &transmit)).await.unwrap(), 6);
            for _ in 0..3 {
                assert_eq!(hear(&client).await, (2, (SERVER_V4, port).into()));
            }
        }
        assert_eq!(server.max_segments(), 64, "a broadcast must not take batches from everybody");
    }
}

#[tokio::test]
async fn an_answer_longer_than_the_path_takes_comes_in_fragments() {
    let Some(lab) = two_hosts() else { return };
    let (mut server, port) = listen(lab.server(), "[::]");
    for asked in [IpAddr::from(SERVER_V4), SERVER_V6.into()] {
        let client = plain(lab.client(), Some((asked, port).into()));
        client.send(b"x").await.unwrap();
        let came = receive(&mut server).await;
        // The cable takes 1,500 bytes at once, headers included.
        for size in [1400, 1473, 3000, 65_507] {
            assert_eq!(answer(&mut server, &came, &vec![7; size]).await.unwrap(), size);
            assert_eq!(hear(&client).await.0, size, "from {asked}");
        }
        // A batch of segments that fit no packet: each is sent by itself, and comes in fragments.
        let transmit = Transmit { remote: &came.remote, local: &came.local, payload: &[7; 6000], segment: 2000 };
        assert_eq!(poll_fn(|cx| server.poll_send(cx, &transmit)).await.unwrap(), 6000);
        for _ in 0..3 {
            assert_eq!(hear(&client).await.0, 2000, "from {asked}");
        }
        assert_eq!(server.max_segments(), 64);
    }
}

#[tokio::test]
async fn a_small_mtu_on_loopback_loses_no_answer_in_silence() {
    let Some(lab) = two_hosts() else { return };
    let Some(()) = set_mtu(lab.server(), "lo", 1500) else { return };
    for bound in ["127.0.0.1", "0.0.0.0", "[::1]", "[::]"] {
        let (mut server, port) = listen(lab.server(), bound);
        let here: &str = if bound.starts_with('[') { "::1" } else { "127.0.0.1" };
        let client = plain(lab.server(), Some((here.parse::<IpAddr>().unwrap(), port).into()));
        client.send(b"x").await.unwrap();
        let came = receive(&mut server).await;
        for size in [1473, 9000, 65_507] {
            assert_eq!(answer(&mut server, &came, &vec![7; size]).await.unwrap(), size);
            assert_eq!(hear(&client).await.0, size, "on {bound}");
        }
        if !bound.starts_with('[') {
            let error = answer(&mut server, &came, &vec![7; 65_508]).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::EMSGSIZE as i32), "on {bound}");
        }
    }
}

#[tokio::test]
async fn a_closed_port_refuses_and_a_silent_host_does_not() {
    let Some(lab) = two_hosts() else { return };
    for ip in [IpAddr::from(SERVER_V4), SERVER_V6.into()] {
        let (server, port) = listen(lab.server(), "[::]");
        drop(server);
        let mut client = call(lab.client(), (ip, port).into());
        send(&mut *client, b"x").await;
        let heard = timeout(PATIENCE, poll_fn(|cx| client.poll_recv(cx))).await.expect("the refusal is heard");
        match heard {
            Err(greetd::Error::Link(error)) => assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{ip}"),
            other => panic!("{ip}: {other:?}"),
        }

        let (mut server, port) = listen(lab.server(), "[::]");
        let mut client = call(lab.client(), (ip, port).into());
        send(&mut *client, b"x").await;
        receive(&mut server).await;
        // It was heard, and not answered: there is nothing for the client to hear, not even an error.
        assert!(poll_fn(|cx| Poll::Ready(client.poll_recv(cx).is_pending())).await, "{ip}");
    }
}

#[tokio::test]
async fn a_host_that_does_not_exist_is_unreachable_and_costs_the_listener_nothing() {
    let Some(lab) = two_hosts() else { return };
    let (mut server, port) = listen(lab.server(), "0.0.0.0");
    let client = plain(lab.client(), Some((SERVER_V4, port).into()));
    client.send(b"x").await.unwrap();
    let came = receive(&mut server).await;
    let elsewhere = Datagrams { remote: Address::Ip(([192, 0, 2, 1], 40_000).into()), ..came.clone() };
    let error = answer(&mut server, &elsewhere, b"y").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NetworkUnreachable);
    answer(&mut server, &came, b"y").await.unwrap();
    assert_eq!(hear(&client).await.0, 1);
}

#[tokio::test]
async fn a_client_is_answered_though_a_listener_for_connections_has_the_same_port() {
    // An address of this test's own, so that no other's connection has the port that the client is given.
    let client = UdpSocket::bind("127.83.0.1:0").await.unwrap();
    let own = client.local_addr().unwrap();
    let registry = Registry::builtin();
    let service = |endpoint: &str| registry.service(&endpoint.parse().unwrap(), "echo").unwrap();
    let server = Server::new().serve(service(&format!("tcp://{own}"))).serve(service("udp://127.83.0.1:0"));
    let bound = server.bind().await.unwrap();
    let responder = bound.listeners()[1].address.ip().unwrap();
    let _running = bound.start();
    client.send_to(b"x", responder).await.unwrap();
    assert_eq!(hear(&client).await, (1, responder));
}
