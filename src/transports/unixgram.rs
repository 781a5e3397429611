//! `unixgram`: datagrams between processes of one machine, by path or by abstract name (unix(7)).
//!
//! - A caller takes a name of its own, which the kernel chooses, so that it can be answered. A peer without a name can
//!   be heard and not answered.
//! - The kernel loses nothing and keeps the order. A datagram waits in the receiver's queue, in memory of the sender's
//!   send buffer. A caller waits for room. A listener does not: one peer that does not read must not hold up the
//!   others, so its datagram is lost, which is an error of kind `WouldBlock`. The kernel bounds the queue of a peer
//!   (net.unix.max_dgram_qlen), though not that of one which is connected to us: such a peer can fill the listener's
//!   send buffer, which is therefore large, and answers to others are lost until it reads or goes.
//! - A datagram may be as large as the sender's send buffer allows. One that is larger than the receiver expects loses
//!   its end; the receiver sees that.

mod client;
mod listener;
mod receive;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram as StdUnixDatagram;

use async_trait::async_trait;
use rustix::net::SocketAddrUnix;
use socket2::{Socket, Type};
use tokio::net::UnixDatagram;

use self::client::Client;
use self::listener::Listener as UnixgramListener;
/// The options of [`Unixgram`].
pub use super::socket::unix::UNIX_DATAGRAM_OPTIONS as OPTIONS;
use super::socket::unix::UnixOptions;
use super::socket::{FailedStep, LARGEST_PACKET, names};
use crate::endpoint::{Authority, Endpoint};
use crate::link::{Capabilities, Link};
use crate::options::Size;
use crate::transport::{BindError, ConnectError, Dialled, Listener, Transport};

/// The send buffer of a listener where none is asked for; the kernel gives less where net.core.wmem_max says so.
const LISTENER_SEND_BUFFER: usize = 4 << 20;

/// Unix datagram sockets.
#[derive(Debug, Clone, Default)]
pub struct Unixgram {
    options: UnixOptions,
}

impl Unixgram {
    /// With these socket options.
    pub fn new(options: UnixOptions) -> Self {
        Unixgram { options }
    }

    fn sizes(&self) -> Sizes {
        // The kernel doubles what is asked for, and needs 32 bytes of it itself.
        let of_buffer = |size: Size| size.bytes().saturating_mul(2).saturating_sub(32);
        let sent = self.options.send_buffer.map_or(LARGEST_PACKET, of_buffer);
        Sizes { sent, received: sent.max(LARGEST_PACKET) }
    }
}

/// The largest messages, in bytes.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    /// What is sent, which must fit into the send buffer at once.
    sent: usize,
    /// What is received whole. What others send does not depend on our send buffer.
    received: usize,
}

#[async_trait]
impl Transport for Unixgram {
    fn capabilities(&self) -> Capabilities {
        Capabilities { ordered: true, largest: Some(self.sizes().sent), ..Capabilities::DATAGRAMS }
    }

    async fn bind(&self, at: &Endpoint) -> Result<Listener, BindError> {
        let bound = self.options.bind(at, Type::DGRAM).await?;
        let failed = |step: FailedStep| step.on_bind(at);
        if self.options.send_buffer.is_none() && !matches!(at.authority, Authority::Fd(_)) {
            bound
                .socket
                .set_send_buffer_size(LISTENER_SEND_BUFFER)
                .map_err(|error| BindError::new(at, "setsockopt(SO_SNDBUF)", error))?;
        }
        let local = names::local(&bound.socket).map_err(|error| BindError::new(at, "getsockname", error))?;
        let io = registered(bound.socket).map_err(failed)?;
        let listener = UnixgramListener::new(io, bound.file, local, self.sizes());
        Ok(Listener::Datagrams(Box::new(listener)))
    }

    async fn connect(&self, to: &Endpoint) -> Result<Dialled, ConnectError> {
        let socket = self.options.connect(to, Type::DGRAM).await?;
        let failed = |step: FailedStep| step.on_connect(to);
        // Autobind: five hexadecimal digits in the abstract namespace (unix(7)).
        rustix::net::bind(&socket, &SocketAddrUnix::new_unnamed())
            .map_err(|error| failed(FailedStep::new("bind(autobind)", error)))?;
        let local = names::local(&socket).map_err(|error| failed(FailedStep::new("getsockname", error)))?;
        let remote = names::remote(&socket).map_err(|error| failed(FailedStep::new("getpeername", error)))?;
        let io = registered(socket).map_err(failed)?;
        let client = Client::new(io, self.sizes());
        Ok(Dialled::new(Link::Messages(Box::new(client)), local, remote))
    }
}

fn registered(socket: Socket) -> Result<UnixDatagram, FailedStep> {
    let register = |socket: Socket| -> io::Result<UnixDatagram> {
        UnixDatagram::from_std(StdUnixDatagram::from(OwnedFd::from(socket)))
    };
    register(socket).map_err(|error| FailedStep::new("epoll_ctl", error))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;
    use crate::address::Address;
    use crate::link::MessageStream;
    use crate::transport::{DatagramSocket, Datagrams, Transmit};

    /// A name that no other test and no other process has.
    fn unique(name: &str) -> String {
        format!("unixgram://@greetd-test-{}-{name}", std::process::id())
    }

    async fn listen(endpoint: &str) -> Box<dyn DatagramSocket> {
        match Unixgram::default().bind(&endpoint.parse().unwrap()).await.unwrap() {
            Listener::Datagrams(socket) => socket,
            Listener::Connections(_) => panic!("unixgram has no connections"),
        }
    }

    async fn call(endpoint: &str) -> Dialled {
        Unixgram::default().connect(&endpoint.parse().unwrap()).await.unwrap()
    }

    fn messages(dialled: Dialled) -> Box<dyn MessageStream> {
        match dialled.link {
            Link::Messages(messages) => messages,
            Link::Bytes(_) => panic!("unixgram carries messages"),
        }
    }

    async fn receive(socket: &mut dyn DatagramSocket) -> VecDeque<Datagrams> {
        let mut came = VecDeque::new();
        poll_fn(|cx| socket.poll_recv(cx, &mut came)).await.unwrap();
        came
    }

    /// It must never wait, so one poll is enough, save where the task has used up its budget.
    async fn answer(socket: &mut dyn DatagramSocket, to: &Datagrams, payload: &[u8]) -> io::Result<usize> {
        let transmit = Transmit { remote: &to.remote, local: &to.local, payload, segment: payload.len().max(1) };
        let once = poll_fn(|cx| Poll::Ready(socket.poll_send(cx, &transmit)));
        match tokio::task::coop::unconstrained(once).await {
            Poll::Ready(sent) => sent,
            Poll::Pending => panic!("it waits for a peer"),
        }
    }

    async fn send(messages: &mut dyn MessageStream, message: &[u8]) {
        messages.start_send(&[message]).unwrap();
        poll_fn(|cx| messages.poll_flush(cx)).await.unwrap();
    }

    async fn next(messages: &mut dyn MessageStream) -> crate::Result<bytes::Bytes> {
        poll_fn(|cx| messages.poll_recv(cx)).await.map(|message| message.expect("datagrams never end"))
    }

    #[tokio::test]
    async fn a_caller_is_answered_by_path_and_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        for endpoint in [format!("unixgram://{}", path.display()), unique("greeting")] {
            let mut server = listen(&endpoint).await;
            assert_eq!(format!("unixgram://{}", server.local()), endpoint);
            let dialled = call(&endpoint).await;
            let (own, called) = (Address::clone(&dialled.local), dialled.remote.clone());
            assert_eq!(called, server.local());
            let mut client = messages(dialled);
            for text in ["one", "", "two"] {
                send(&mut *client, text.as_bytes()).await;
                let came = receive(&mut *server).await;
                assert_eq!((came.len(), &came[0].payload[..]), (1, text.as_bytes()));
                assert_eq!((&came[0].remote, &came[0].local), (&own, &called));
                assert_eq!(answer(&mut *server, &came[0], text.as_bytes()).await.unwrap(), text.len());
                assert_eq!(next(&mut *client).await.unwrap(), text);
            }
            drop(server);
            assert!(!path.exists());
        }
    }

    #[tokio::test]
    async fn what_came_in_between_comes_in_one_batch_and_in_order() {
        let endpoint = unique("batch");
        let mut server = listen(&endpoint).await;
        let mut client = messages(call(&endpoint).await);
        let mut other = messages(call(&endpoint).await);
        for number in 0..4_u8 {
            send(&mut *client, &[number]).await;
            send(&mut *other, &[number]).await;
        }
        let came = receive(&mut *server).await;
        assert_eq!(came.iter().map(|datagram| datagram.payload[0]).collect::<Vec<_>>(), [0, 0, 1, 1, 2, 2, 3, 3]);
        assert_ne!(came[0].remote, came[1].remote);
        assert_eq!(came[0].remote, came[2].remote);
    }

    /// Answers until there is no room, and says how often there was.
    async fn fill(server: &mut dyn DatagramSocket, to: &Datagrams) -> usize {
        for taken in 0..1_000_000 {
            if let Err(error) = answer(server, to, b"y").await {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                return taken;
            }
        }
        panic!("there is no end to its queue")
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_loses_its_datagrams_and_delays_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let endpoint = format!("unixgram://{}", directory.path().join("x.sock").display());
        let mut server = listen(&endpoint).await;
        let lazy = StdUnixDatagram::bind(directory.path().join("lazy.sock")).unwrap();
        lazy.send_to(b"x", directory.path().join("x.sock")).unwrap();
        let to_lazy = receive(&mut *server).await.remove(0).unwrap();
        let taken = fill(&mut *server, &to_lazy).await;

        let mut eager = messages(call(&endpoint).await);
        send(&mut *eager, b"x").await;
        let to_eager = receive(&mut *server).await.remove(0).unwrap();
        answer(&mut *server, &to_eager, b"z").await.unwrap();
        assert_eq!(next(&mut *eager).await.unwrap(), "z");

        // What it had room for is still there, and then it has room again.
        for _ in 0..taken {
            assert_eq!(lazy.recv(&mut [0; 8]).unwrap(), 1);
        }
        answer(&mut *server, &to_lazy, b"w").await.unwrap();
    }

    #[tokio::test]
    async fn a_connected_peer_that_does_not_read_delays_nobody_until_it_has_a_large_buffer_full() {
        let endpoint = unique("full");
        let mut server = listen(&endpoint).await;
        let mut lazy = messages(call(&endpoint).await);
        send(&mut *lazy, b"x").await;
        let to_lazy = receive(&mut *server).await.remove(0).unwrap();
        let taken = fill(&mut *server, &to_lazy).await;
        assert!(taken > 300, "{taken}");
        for _ in 0..taken {
            assert_eq!(next(&mut *lazy).await.unwrap(), "y");
        }
        answer(&mut *server, &to_lazy, b"w").await.unwrap();
        assert_eq!(next(&mut *lazy).await.unwrap(), "w");
    }

    #[tokio::test]
    async fn a_caller_waits_for_room_and_loses_nothing() {
        let endpoint = unique("patient");
        let mut server = listen(&endpoint).await;
        let mut client = messages(call(&endpoint).await);
        for number in 0..10_000_u32 {
            client.start_send(&[&number.to_be_bytes()]).unwrap();
        }
        assert!(poll_fn(|cx| Poll::Ready(client.poll_flush(cx).is_pending())).await);
        let flush = async { poll_fn(|cx| client.poll_flush(cx)).await.unwrap() };
        let drain = async {
            let mut came = Vec::new();
            while came.len() < 10_000 {
                came.extend(receive(&mut *server).await);
            }
            came
        };
        let ((), came) = tokio::join!(flush, drain);
        for (number, datagram) in (0..10_000_u32).zip(came) {
            assert_eq!(datagram.payload, number.to_be_bytes().as_slice());
        }
    }

    #[tokio::test]
    async fn the_largest_message_comes_whole_and_one_byte_more_is_refused() {
        let endpoint = unique("largest");
        let mut server = listen(&endpoint).await;
        let mut client = messages(call(&endpoint).await);
        let largest = vec![7; Unixgram::default().capabilities().largest.unwrap()];
        send(&mut *client, &largest).await;
        let came = receive(&mut *server).await;
        assert_eq!(came[0].payload, largest);
        assert!(!came[0].truncated);
        assert_eq!(answer(&mut *server, &came[0], &largest).await.unwrap(), largest.len());
        assert_eq!(next(&mut *client).await.unwrap(), largest);
        let more = vec![7; largest.len() + 1];
        assert!(matches!(client.start_send(&[&more]), Err(crate::Error::TooLong { .. })));
        let error = answer(&mut *server, &came[0], &more).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::MSGSIZE.raw_os_error()));
    }

    #[tokio::test]
    async fn a_larger_send_buffer_allows_larger_messages() {
        let endpoint = unique("larger");
        let options = UnixOptions { send_buffer: Some(Size(128 * 1024)), ..UnixOptions::default() };
        let large = Unixgram::new(options);
        assert_eq!(large.capabilities().largest, Some(256 * 1024 - 32));
        let Listener::Datagrams(mut server) = large.bind(&endpoint.parse().unwrap()).await.unwrap() else {
            panic!("unixgram has no connections")
        };
        let mut client = messages(large.connect(&endpoint.parse().unwrap()).await.unwrap());
        let message = vec![7; 256 * 1024 - 32];
        send(&mut *client, &message).await;
        assert_eq!(receive(&mut *server).await[0].payload, message);
    }

    #[tokio::test]
    async fn a_datagram_that_lost_its_end_is_told_from_a_whole_one() {
        let endpoint = unique("truncated");
        let mut server = listen(&endpoint).await;
        // Who sends decides the size, and this one has a larger buffer than the receiver reckons with.
        let options = UnixOptions { send_buffer: Some(Size(128 * 1024)), ..UnixOptions::default() };
        let mut client = messages(Unixgram::new(options).connect(&endpoint.parse().unwrap()).await.unwrap());
        send(&mut *client, &vec![7; LARGEST_PACKET + 1]).await;
        let came = receive(&mut *server).await;
        assert!(came[0].truncated);
        assert_eq!(came[0].payload.len(), LARGEST_PACKET);
        send(&mut *client, b"whole").await;
        let came = receive(&mut *server).await;
        assert!(!came[0].truncated);
        assert_eq!(came[0].payload, "whole");
    }

    #[tokio::test]
    async fn an_answer_that_lost_its_end_is_an_error_and_the_next_one_comes() {
        let endpoint = unique("truncated-answer");
        let options = UnixOptions { send_buffer: Some(Size(128 * 1024)), ..UnixOptions::default() };
        let Listener::Datagrams(mut server) = Unixgram::new(options).bind(&endpoint.parse().unwrap()).await.unwrap()
        else {
            panic!("unixgram has no connections")
        };
        let mut client = messages(call(&endpoint).await);
        send(&mut *client, b"x").await;
        let came = receive(&mut *server).await;
        answer(&mut *server, &came[0], &vec![7; LARGEST_PACKET + 1]).await.unwrap();
        let error = next(&mut *client).await.unwrap_err();
        assert!(matches!(error, crate::Error::Link(error) if error.kind() == io::ErrorKind::InvalidData));
        answer(&mut *server, &came[0], b"whole").await.unwrap();
        assert_eq!(next(&mut *client).await.unwrap(), "whole");
    }

    #[tokio::test]
    async fn a_peer_without_a_name_is_heard_and_cannot_be_answered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let mut server = listen(&format!("unixgram://{}", path.display())).await;
        StdUnixDatagram::unbound().unwrap().send_to(b"x", &path).unwrap();
        let came = receive(&mut *server).await;
        assert_eq!((&came[0].payload[..], &came[0].remote), (&b"x"[..], &Address::Unnamed));
        let error = answer(&mut *server, &came[0], b"y").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_is_an_error_of_its_own_datagram() {
        let endpoint = unique("gone");
        let mut server = listen(&endpoint).await;
        let mut client = messages(call(&endpoint).await);
        send(&mut *client, b"x").await;
        let came = receive(&mut *server).await;
        drop(client);
        let error = answer(&mut *server, &came[0], b"y").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let mut next_client = messages(call(&endpoint).await);
        send(&mut *next_client, b"z").await;
        assert_eq!(receive(&mut *server).await[0].payload, "z");
    }

    #[tokio::test]
    async fn a_caller_hears_when_the_listener_is_gone() {
        let endpoint = unique("refused");
        let server = listen(&endpoint).await;
        let mut client = messages(call(&endpoint).await);
        drop(server);
        client.start_send(&[b"x"]).unwrap();
        let error = poll_fn(|cx| client.poll_flush(cx)).await.unwrap_err();
        assert!(matches!(error, crate::Error::Link(error) if error.kind() == io::ErrorKind::ConnectionRefused));
        let Err(error) = Unixgram::default().connect(&endpoint.parse().unwrap()).await else {
            panic!("nobody is there")
        };
        assert_eq!(error.decisive().unwrap().kind(), io::ErrorKind::ConnectionRefused);
    }
}
