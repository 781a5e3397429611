//! `udp`: single datagrams (RFC 768, udp(7)).
//!
//! - A reply leaves from the address that its request was sent to, on wildcard sockets too: the kernel tells it with
//!   each datagram (`IP_PKTINFO`, `IPV6_PKTINFO`).
//! - Datagrams come and go in batches: `recvmmsg`, and segmentation left to the kernel (`UDP_GRO`, `UDP_SEGMENT`).
//! - A datagram above the path's MTU is fragmented, or its sender hears an error; it is never dropped in silence.
//! - No error of one datagram ends anything. A listener hears no ICMP errors; a connected client does, from whichever
//!   call meets them first.

mod batch;
mod client;
mod listener;
mod receive;
mod refusals;
mod room;

use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;
use socket2::{Socket, Type};

use self::batch::BatchSocket;
use self::client::Client;
use self::listener::Listener as UdpListener;
/// The options of [`Udp`].
pub use super::socket::DATAGRAM_OPTIONS as OPTIONS;
use super::socket::{DATAGRAM_RECEIVE_BUFFER, FailedStep, SocketOptions};
use crate::address::Address;
use crate::endpoint::Endpoint;
use crate::link::{Capabilities, Link};
use crate::transport::{Attempt, BindError, ConnectError, Dialled, Listener, Transport};

/// UDP over IPv4 and IPv6.
#[derive(Debug, Clone, Default)]
pub struct Udp {
    options: SocketOptions,
}

impl Udp {
    /// With these socket options.
    pub fn new(options: SocketOptions) -> Self {
        Udp { options }
    }

    fn connected(&self, remote: SocketAddr) -> Result<Dialled, FailedStep> {
        let socket = self.options.unconnected(remote, Type::DGRAM)?;
        self.enlarge_receive_buffer(&socket)?;
        socket.connect(&remote.into()).map_err(|error| FailedStep::new(format!("connect({remote})"), error))?;
        let socket = BatchSocket::new(socket)?;
        let local = socket.local();
        let link = Link::Messages(Box::new(Client::new(socket, remote)));
        Ok(Dialled::new(link, Address::Ip(local), Address::Ip(remote)))
    }

    fn enlarge_receive_buffer(&self, socket: &Socket) -> Result<(), FailedStep> {
        if self.options.recv_buffer.is_some() {
            return Ok(());
        }
        let failed = |error: io::Error| FailedStep::new("setsockopt(SO_RCVBUF)", error);
        // The kernel gives less where net.core.rmem_max says so, and doubles what it gives (socket(7)).
        socket.set_recv_buffer_size(DATAGRAM_RECEIVE_BUFFER).map_err(failed)?;
        let given = socket.recv_buffer_size().map_err(failed)? / 2;
        if given < DATAGRAM_RECEIVE_BUFFER {
            tracing::debug!(
                asked = DATAGRAM_RECEIVE_BUFFER,
                given,
                "the kernel limits SO_RCVBUF; raise net.core.rmem_max"
            );
        }
        Ok(())
    }
}

#[async_trait]
impl Transport for Udp {
    fn capabilities(&self) -> Capabilities {
        Capabilities::DATAGRAMS
    }

    async fn bind(&self, at: &Endpoint) -> Result<Listener, BindError> {
        let bound = self.options.bind(at, Type::DGRAM).await?;
        let failed = |step: FailedStep| step.on_bind(at);
        if !bound.inherited {
            self.enlarge_receive_buffer(&bound.socket).map_err(failed)?;
        }
        let socket = BatchSocket::new(bound.socket).map_err(failed)?;
        Ok(Listener::Datagrams(Box::new(UdpListener::new(socket))))
    }

    /// Connecting sends nothing, so it fails only where there is no way to the address; whether anybody listens there
    /// shows when something is sent.
    async fn connect(&self, to: &Endpoint) -> Result<Dialled, ConnectError> {
        let mut attempts = Vec::new();
        for remote in self.options.remotes(to).await? {
            match self.connected(remote) {
                Ok(dialled) => return Ok(dialled),
                Err(step) => attempts.push(Attempt { call: step.call, error: step.source }),
            }
        }
        Err(ConnectError { endpoint: to.brief(), attempts })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::poll_fn;
    use std::net::UdpSocket;
    use std::task::Poll;
    use std::time::Duration;

    use super::*;
    use crate::link::MessageStream;
    use crate::transport::{DatagramSocket, Datagrams, Transmit};

    async fn listen(endpoint: &str) -> Box<dyn DatagramSocket> {
        match Udp::default().bind(&endpoint.parse().unwrap()).await.unwrap() {
            Listener::Datagrams(socket) => socket,
            Listener::Connections(_) => panic!("udp has no connections"),
        }
    }

    async fn call(to: &Address) -> Box<dyn MessageStream> {
        let endpoint = format!("udp://{to}").parse().unwrap();
        match Udp::default().connect(&endpoint).await.unwrap().link {
            Link::Messages(messages) => messages,
            Link::Bytes(_) => panic!("udp carries messages"),
        }
    }

    async fn receive(socket: &mut dyn DatagramSocket) -> VecDeque<Datagrams> {
        let mut came = VecDeque::new();
        poll_fn(|cx| socket.poll_recv(cx, &mut came)).await.unwrap();
        came
    }

    async fn receive_many(socket: &mut dyn DatagramSocket, count: usize) -> Vec<Datagrams> {
        let mut all = Vec::new();
        while all.len() < count {
            for mut datagrams in receive(socket).await {
                while let Some(first) = datagrams.split_first() {
                    all.push(first);
                }
                all.push(datagrams);
            }
        }
        all
    }

    async fn answer(
        socket: &mut dyn DatagramSocket,
        to: &Datagrams,
        payload: &[u8],
        segment: usize,
    ) -> io::Result<usize> {
        let transmit = Transmit { remote: &to.remote, local: &to.local, payload, segment };
        poll_fn(|cx| socket.poll_send(cx, &transmit)).await
    }

    async fn send(messages: &mut dyn MessageStream, message: &[u8]) {
        messages.start_send(&[message]).unwrap();
        poll_fn(|cx| messages.poll_flush(cx)).await.unwrap();
    }

    async fn next(messages: &mut dyn MessageStream) -> crate::Result<bytes::Bytes> {
        poll_fn(|cx| messages.poll_recv(cx)).await.map(|message| message.expect("datagrams never end"))
    }

    fn plain_client() -> UdpSocket {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client
    }

    #[tokio::test]
    async fn a_datagram_tells_who_sent_it_and_where_to() {
        for (bound, asked) in [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.2"), ("[::]", "[::1]")] {
            let mut server = listen(&format!("udp://{bound}:0")).await;
            let port = server.local().ip().unwrap().port();
            assert_ne!(port, 0);
            let asked = Address::Ip(format!("{asked}:{port}").parse().unwrap());
            let mut client = call(&asked).await;
            send(&mut *client, b"x").await;
            let came = receive(&mut *server).await;
            assert_eq!(came[0].local, asked);
            assert_eq!(came[0].payload, "x");
            answer(&mut *server, &came[0], b"y", 1).await.unwrap();
            assert_eq!(next(&mut *client).await.unwrap(), "y");
        }
    }

    #[tokio::test]
    async fn an_ipv4_client_of_a_dual_stack_socket_is_answered_from_the_address_that_it_asked() {
        for bound in ["[::]", "[::ffff:0.0.0.0]"] {
            let mut server = listen(&format!("udp://{bound}:0")).await;
            let port = server.local().ip().unwrap().port();
            let client = plain_client();
            client.connect(("127.0.0.9", port)).unwrap();
            client.send(b"x").unwrap();
            let came = receive(&mut *server).await;
            assert_eq!(came[0].local.to_string(), format!("[::ffff:127.0.0.9]:{port}"));
            answer(&mut *server, &came[0], b"y", 1).await.unwrap();
            // The client is connected: it hears nobody else.
            assert_eq!(client.recv(&mut [0; 8]).unwrap(), 1);
        }
    }

    #[tokio::test]
    async fn many_datagrams_of_one_size_leave_together_and_come_apart() {
        let mut server = listen("udp://127.0.0.1:0").await;
        assert_eq!(server.max_segments(), 64);
        let mut client = call(&server.local()).await;
        // 200 are more than fit into one group; two empty ones are no group at all.
        for number in 0..200_u32 {
            client.start_send(&[format!("{number:06}").as_bytes()]).unwrap();
        }
        client.start_send(&[b"odd"]).unwrap();
        client.start_send(&[]).unwrap();
        client.start_send(&[]).unwrap();
        poll_fn(|cx| client.poll_flush(cx)).await.unwrap();
        assert_eq!(client.buffered(), 0);
        let came = receive_many(&mut *server, 203).await;
        for (number, datagram) in came[..200].iter().enumerate() {
            assert_eq!(datagram.payload, format!("{number:06}"));
        }
        assert_eq!(came[200].payload, "odd");
        assert!(came[201..].iter().all(|datagram| datagram.payload.is_empty()));

        let batch: Vec<u8> = (0..64_u8).flat_map(|number| [number; 20]).collect();
        assert_eq!(answer(&mut *server, &came[0], &batch, 20).await.unwrap(), batch.len());
        for number in 0..64 {
            assert_eq!(next(&mut *client).await.unwrap(), [number; 20].as_slice());
        }
    }

    #[tokio::test]
    async fn segments_that_no_device_takes_together_are_sent_one_by_one() {
        let mut server = listen("udp://0.0.0.0:0").await;
        let port = server.local().ip().unwrap().port();
        let mut client = call(&Address::Ip(([127, 0, 0, 1], port).into())).await;
        send(&mut *client, b"x").await;
        let came = receive(&mut *server).await;
        // Three of them are more than a group may have.
        let long = vec![7; 90_000];
        let mut gone = 0;
        while gone < long.len() {
            gone += answer(&mut *server, &came[0], &long[gone..], 30_000).await.unwrap();
        }
        for _ in 0..3 {
            assert_eq!(next(&mut *client).await.unwrap(), long[..30_000]);
        }
        assert_eq!(server.max_segments(), 64);
    }

    #[tokio::test]
    async fn the_longest_datagram_comes_whole_and_a_longer_one_is_an_error() {
        let mut server = listen("udp://127.0.0.1:0").await;
        let mut client = call(&server.local()).await;
        let longest = vec![7; 65_507];
        send(&mut *client, &longest).await;
        let came = receive(&mut *server).await;
        assert_eq!(came[0].payload, longest);
        assert!(!came[0].truncated);
        answer(&mut *server, &came[0], &longest, longest.len()).await.unwrap();
        assert_eq!(next(&mut *client).await.unwrap(), longest);

        let too_long = vec![7; 65_508];
        let error = client.start_send(&[&too_long]).unwrap_err();
        assert!(matches!(error, crate::Error::TooLong { size: 65_508, limit: 65_507 }), "{error}");
        let error = answer(&mut *server, &came[0], &too_long, too_long.len()).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::MSGSIZE.raw_os_error()));
        send(&mut *client, b"still there").await;
        assert_eq!(receive(&mut *server).await[0].payload, "still there");
    }

    #[tokio::test]
    async fn a_datagram_that_cannot_be_sent_costs_only_itself() {
        let mut server = listen("udp://0.0.0.0:0").await;
        let port = server.local().ip().unwrap().port();
        let mut client = call(&Address::Ip(([127, 0, 0, 1], port).into())).await;
        send(&mut *client, b"x").await;
        let came = receive(&mut *server).await.remove(0).unwrap();
        let nobody = Datagrams { remote: Address::Ip(([127, 0, 0, 1], 0).into()), ..came.clone() };
        assert_eq!(answer(&mut *server, &nobody, b"xy", 1).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let named = Datagrams { remote: Address::named("x"), ..came.clone() };
        assert_eq!(answer(&mut *server, &named, b"xy", 1).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(server.max_segments(), 64, "one bad peer must not take batches from all others");
        answer(&mut *server, &came, b"y", 1).await.unwrap();
        assert_eq!(next(&mut *client).await.unwrap(), "y");
    }

    #[tokio::test]
    async fn a_listener_outlives_clients_that_are_gone() {
        let mut server = listen("udp://127.0.0.1:0").await;
        let gone = plain_client();
        gone.send_to(b"x", server.local().ip().unwrap()).unwrap();
        let came = receive(&mut *server).await;
        drop(gone);
        for _ in 0..3 {
            answer(&mut *server, &came[0], b"y", 1).await.unwrap();
        }
        let mut client = call(&server.local()).await;
        send(&mut *client, b"z").await;
        assert_eq!(receive(&mut *server).await[0].payload, "z");
    }

    #[tokio::test]
    async fn a_client_that_waits_hears_that_nobody_listens() {
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut client = call(&Address::Ip(closed)).await;
        // Twice, because the first error must not be the last that is heard.
        for _ in 0..2 {
            // It waits before there is anything to hear.
            let waits = poll_fn(|cx| Poll::Ready(client.poll_recv(cx).is_pending())).await;
            assert!(waits);
            send(&mut *client, b"x").await;
            match next(&mut *client).await {
                Err(crate::Error::Link(error)) => assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_client_that_nobody_answers_waits() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut client = call(&Address::Ip(silent.local_addr().unwrap())).await;
        send(&mut *client, b"x").await;
        assert_eq!(silent.recv(&mut [0; 8]).unwrap(), 1);
        assert!(poll_fn(|cx| Poll::Ready(client.poll_recv(cx).is_pending())).await);
    }

    #[tokio::test]
    async fn a_flood_lets_other_tasks_run() {
        let mut server = listen("udp://127.0.0.1:0").await;
        let client = plain_client();
        let to = server.local().ip().unwrap();
        let mut came = VecDeque::new();
        let polls = poll_fn(|cx| {
            for round in 0..100_000 {
                client.send_to(b"x", to).unwrap();
                match server.poll_recv(cx, &mut came) {
                    Poll::Ready(received) => received.unwrap(),
                    Poll::Pending => return Poll::Ready(round),
                }
                came.clear();
            }
            Poll::Ready(usize::MAX)
        });
        assert!(polls.await < 1000);
    }

    #[tokio::test]
    async fn what_comes_while_nobody_receives_waits_in_a_large_buffer() {
        let mut server = listen("udp://127.0.0.1:0").await;
        let limit: usize = std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap().trim().parse().unwrap();
        if limit < DATAGRAM_RECEIVE_BUFFER {
            eprintln!("left out: net.core.rmem_max is {limit}, below {DATAGRAM_RECEIVE_BUFFER}");
            assert!(std::env::var_os("GREETD_REQUIRE_TOOLS").is_none());
            return;
        }
        let client = plain_client();
        for _ in 0..5000 {
            client.send_to(&[7; 16], server.local().ip().unwrap()).unwrap();
        }
        assert_eq!(receive_many(&mut *server, 5000).await.len(), 5000);
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_named_with_the_call() {
        let server = listen("udp://127.0.0.1:0").await;
        let taken = server.local();
        let Err(error) = Udp::default().bind(&format!("udp://{taken}").parse().unwrap()).await else {
            panic!("two sockets on one address")
        };
        assert!(error.to_string().starts_with(&format!("failed to bind udp://{taken}: bind({taken}): Address al")));
    }

    #[tokio::test]
    async fn an_inherited_socket_is_served_as_it_is() {
        use std::os::fd::AsRawFd;
        let inherited = UdpSocket::bind("127.0.0.1:0").unwrap();
        let before = socket2::SockRef::from(&inherited).recv_buffer_size().unwrap();
        let mut server = listen(&format!("udp://fd:{}", inherited.as_raw_fd())).await;
        assert_eq!(server.local(), Address::Ip(inherited.local_addr().unwrap()));
        assert_eq!(socket2::SockRef::from(&inherited).recv_buffer_size().unwrap(), before);
        let mut client = call(&server.local()).await;
        send(&mut *client, b"x").await;
        assert_eq!(receive(&mut *server).await[0].payload, "x");
    }
}
