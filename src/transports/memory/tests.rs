//! How the memory network behaves, on the paused clock.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::*;
use crate::Error;
use crate::link::{ByteStream, MessageStream};
use crate::transport::{DatagramSocket, Datagrams, Transmit};

/// A network, and what endpoints come to on it.
#[derive(Default)]
struct World(Network);

impl World {
    fn transport(&self, endpoint: &str) -> (Memory, Endpoint) {
        let mut endpoint: Endpoint = endpoint.parse().unwrap();
        let options = std::mem::take(&mut endpoint.options);
        (Memory::new(self.0.clone(), options).unwrap(), endpoint)
    }

    async fn bind(&self, endpoint: &str) -> Result<Listener, BindError> {
        let (memory, endpoint) = self.transport(endpoint);
        memory.bind(&endpoint).await
    }

    async fn acceptor(&self, endpoint: &str) -> Box<dyn Acceptor> {
        match self.bind(endpoint).await.unwrap() {
            Listener::Connections(acceptor) => acceptor,
            Listener::Datagrams(_) => panic!("{endpoint} yields datagrams"),
        }
    }

    async fn socket(&self, endpoint: &str) -> Box<dyn DatagramSocket> {
        match self.bind(endpoint).await.unwrap() {
            Listener::Datagrams(socket) => socket,
            Listener::Connections(_) => panic!("{endpoint} yields connections"),
        }
    }

    async fn call(&self, endpoint: &str) -> Result<Dialled, ConnectError> {
        let (memory, endpoint) = self.transport(endpoint);
        memory.connect(&endpoint).await
    }

    async fn stream(&self, endpoint: &str) -> (Box<dyn ByteStream>, Box<dyn ByteStream>) {
        let mut acceptor = self.acceptor(endpoint).await;
        let called = self.call(endpoint).await.unwrap();
        (bytes_of(called), bytes_of(accept(&mut *acceptor).await))
    }

    async fn messages(&self, endpoint: &str) -> (Box<dyn MessageStream>, Box<dyn MessageStream>) {
        let mut acceptor = self.acceptor(endpoint).await;
        let called = self.call(endpoint).await.unwrap();
        (messages_of(called), messages_of(accept(&mut *acceptor).await))
    }
}

async fn accept(acceptor: &mut dyn Acceptor) -> Dialled {
    poll_fn(|cx| acceptor.poll_accept(cx)).await.unwrap().unwrap().open().await.unwrap()
}

fn bytes_of(dialled: Dialled) -> Box<dyn ByteStream> {
    match dialled.link {
        Link::Bytes(bytes) => bytes,
        Link::Messages(_) => panic!("it carries messages"),
    }
}

fn messages_of(dialled: Dialled) -> Box<dyn MessageStream> {
    match dialled.link {
        Link::Messages(messages) => messages,
        Link::Bytes(_) => panic!("it carries bytes"),
    }
}

async fn send(link: &mut dyn MessageStream, message: &[u8]) -> crate::Result<()> {
    link.start_send(&[message])?;
    poll_fn(|cx| link.poll_flush(cx)).await
}

async fn receive(link: &mut dyn MessageStream) -> crate::Result<Option<bytes::Bytes>> {
    poll_fn(|cx| link.poll_recv(cx)).await
}

/// Waits for datagrams until none came for a second.
async fn all_that_comes(socket: &mut dyn DatagramSocket) -> VecDeque<Datagrams> {
    let mut came = VecDeque::new();
    while timeout(Duration::from_secs(1), poll_fn(|cx| socket.poll_recv(cx, &mut came))).await.is_ok() {}
    came
}

async fn answer(socket: &mut dyn DatagramSocket, to: &Address, payload: &[u8], segment: usize) -> io::Result<usize> {
    let local = socket.local();
    let transmit = Transmit { remote: to, local: &local, payload, segment };
    poll_fn(|cx| socket.poll_send(cx, &transmit)).await
}

#[tokio::test]
async fn bytes_go_both_ways_and_one_direction_may_end_before_the_other() {
    let world = World::default();
    let mut acceptor = world.acceptor("memory://room").await;
    let called = world.call("memory://room").await.unwrap();
    let accepted = accept(&mut *acceptor).await;
    assert_eq!((&*called.local, &called.remote), (&accepted.remote, &*accepted.local));
    assert_eq!((called.remote.to_string().as_str(), called.local.to_string().as_str()), ("room", "room#1"));
    let (mut near, mut far) = (bytes_of(called), bytes_of(accepted));
    near.write_all(b"question").await.unwrap();
    near.shutdown().await.unwrap();
    let mut all = String::new();
    far.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "question");
    far.write_all(b"answer").await.unwrap();
    drop(far);
    near.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "questionanswer");
    assert_eq!(near.write_all(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_name_is_bound_once_and_free_again_afterwards() {
    let world = World::default();
    let first = world.acceptor("memory://room").await;
    let error = world.bind("memory://room?kind=datagrams").await.err().unwrap();
    assert_eq!(error.to_string(), "failed to bind memory://room: bind(room): Address already in use (EADDRINUSE)");
    drop(first);
    assert!(world.bind("memory://room?kind=datagrams").await.is_ok());
}

#[tokio::test]
async fn a_call_to_nobody_is_refused_and_so_is_one_of_another_kind() {
    let world = World::default();
    let error = world.call("memory://room").await.err().unwrap();
    assert_eq!(
        error.to_string(),
        "failed to connect to memory://room: connect(room): Connection refused (ECONNREFUSED)"
    );
    let _socket = world.socket("memory://room?kind=datagrams").await;
    assert!(world.call("memory://room").await.is_err());
    assert!(world.call("memory://room?kind=datagrams").await.is_ok());
}

#[tokio::test]
async fn two_registries_do_not_see_each_other() {
    let (here, there) = (crate::Registry::builtin(), crate::Registry::builtin());
    let endpoint: Endpoint = "memory://room".parse().unwrap();
    let service = here.service(&endpoint, "hello").unwrap();
    let _listener = service.transport.bind(&endpoint).await.unwrap();
    assert!(here.clone().dialler(&endpoint).unwrap().dial().await.is_ok());
    assert!(there.dialler(&endpoint).unwrap().dial().await.is_err());
}

#[tokio::test]
async fn where_no_name_is_given_one_is_made_up_that_can_be_called() {
    let world = World::default();
    let (first, second) = (world.acceptor("memory://").await, world.acceptor("memory://").await);
    assert_ne!(first.local(), second.local());
    assert!(world.call(&format!("memory://{}", first.local())).await.is_ok());
    let error = world.bind("memory://127.0.0.1:80").await.err().unwrap();
    assert!(error.to_string().ends_with("a memory endpoint has a name, such as memory://room"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_sender_waits_until_its_receiver_makes_room() {
    let (mut near, mut far) = World::default().stream("memory://room?buffer=1000").await;
    let writing = tokio::spawn(async move {
        near.write_all(&vec![7; 100_000]).await.unwrap();
        near
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!writing.is_finished());
    let mut all = vec![0; 100_000];
    far.read_exact(&mut all).await.unwrap();
    writing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_while_the_backlog_is_full_and_is_refused_when_the_listener_goes() {
    let world = World::default();
    let mut acceptor = world.acceptor("memory://room?backlog=1").await;
    let mut first = bytes_of(world.call("memory://room").await.unwrap());
    let second = world.call("memory://room");
    tokio::pin!(second);
    assert!(timeout(Duration::from_secs(1), &mut second).await.is_err());
    drop(accept(&mut *acceptor).await);
    let mut second = bytes_of(second.await.unwrap());
    assert_eq!(first.read(&mut [0; 9]).await.unwrap(), 0, "it was accepted and closed");
    let third = world.call("memory://room");
    drop(acceptor);
    assert_eq!(second.read(&mut [0; 9]).await.unwrap(), 0, "it was never accepted");
    assert!(third.await.is_err());
}

#[tokio::test]
async fn a_backlog_beyond_all_reason_is_only_large() {
    let world = World::default();
    let _acceptor = world.acceptor(&format!("memory://room?backlog={}", usize::MAX)).await;
    assert!(world.call("memory://room").await.is_ok());
}

#[tokio::test]
async fn an_end_that_is_dropped_with_unread_bytes_breaks_the_connection() {
    let (mut near, far) = World::default().stream("memory://room").await;
    near.write_all(b"unread").await.unwrap();
    drop(far);
    assert_eq!(near.read(&mut [0; 9]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(near.write(b"x").await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn messages_arrive_as_they_were_sent() {
    let (mut near, mut far) = World::default().messages("memory://room?kind=messages&buffer=100").await;
    for message in [&b"one"[..], b"", &[7; 1000]] {
        near.start_send(&[message, b"!"]).unwrap();
    }
    assert!(near.buffered() > 1000);
    let sending = async {
        poll_fn(|cx| near.poll_finish(cx)).await.unwrap();
        near
    };
    let receiving = async {
        let mut lengths = Vec::new();
        while let Some(message) = receive(&mut *far).await.unwrap() {
            lengths.push(message.len());
        }
        lengths
    };
    let (mut near, lengths) = tokio::join!(sending, receiving);
    assert_eq!((lengths, near.buffered()), (vec![4, 1, 1001], 0));
    send(&mut *far, b"late").await.unwrap();
    assert_eq!(receive(&mut *near).await.unwrap().unwrap(), "late");
    let refused = far.start_send(&[&vec![0; LARGEST_MESSAGE + 1]]);
    assert!(matches!(refused, Err(Error::TooLong { limit: LARGEST_MESSAGE, .. })));
}

#[tokio::test(start_paused = true)]
async fn datagrams_come_from_the_callers_and_answers_go_back_to_each() {
    let world = World::default();
    let mut socket = world.socket("memory://room?kind=datagrams").await;
    let mut callers = Vec::new();
    for name in ["alice", "bob"] {
        let mut caller = messages_of(world.call("memory://room?kind=datagrams").await.unwrap());
        send(&mut *caller, name.as_bytes()).await.unwrap();
        callers.push(caller);
    }
    for datagram in all_that_comes(&mut *socket).await {
        assert_eq!((datagram.local, datagram.truncated), (socket.local(), false));
        answer(&mut *socket, &datagram.remote, &datagram.payload, 100).await.unwrap();
    }
    for (caller, name) in callers.iter_mut().zip(["alice", "bob"]) {
        assert_eq!(receive(&mut **caller).await.unwrap().unwrap(), name);
    }
}

#[tokio::test(start_paused = true)]
async fn one_transmit_carries_many_datagrams_and_the_empty_one() {
    let world = World::default();
    let mut socket = world.socket("memory://room?kind=datagrams").await;
    let mut caller = messages_of(world.call("memory://room?kind=datagrams").await.unwrap());
    send(&mut *caller, b"").await.unwrap();
    let datagram = all_that_comes(&mut *socket).await.pop_front().unwrap();
    assert_eq!(datagram.payload, "");
    assert_eq!(answer(&mut *socket, &datagram.remote, b"aabbc", 2).await.unwrap(), 5);
    assert_eq!(answer(&mut *socket, &datagram.remote, b"", 2).await.unwrap(), 0);
    for expected in ["aa", "bb", "c", ""] {
        assert_eq!(receive(&mut *caller).await.unwrap().unwrap(), expected);
    }
    let error = answer(&mut *socket, &datagram.remote, &vec![0; 70_000], 70_000).await.unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::MSGSIZE.raw_os_error()));
}

#[tokio::test(start_paused = true)]
async fn a_datagram_without_room_is_lost_and_one_to_nobody_is_refused() {
    let world = World::default();
    let mut socket = world.socket("memory://room?kind=datagrams&buffer=1000").await;
    let mut caller = messages_of(world.call("memory://room?kind=datagrams").await.unwrap());
    for _ in 0..100 {
        send(&mut *caller, &[0; 100]).await.unwrap();
    }
    let came = all_that_comes(&mut *socket).await.len();
    assert!((1..10).contains(&came), "{came}");
    drop(socket);
    caller.start_send(&[b"anybody?"]).unwrap();
    let refused = receive(&mut *caller).await.unwrap_err();
    assert!(matches!(refused, Error::Link(error) if error.kind() == io::ErrorKind::ConnectionRefused));
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_somebody_who_left_is_lost() {
    let world = World::default();
    let mut socket = world.socket("memory://room?kind=datagrams").await;
    let mut caller = messages_of(world.call("memory://room?kind=datagrams").await.unwrap());
    send(&mut *caller, b"bye").await.unwrap();
    drop(caller);
    let datagram = all_that_comes(&mut *socket).await.pop_front().unwrap();
    assert_eq!(answer(&mut *socket, &datagram.remote, b"bye", 9).await.unwrap(), 3);
}

/// Sends numbered datagrams, and gives what arrives and when.
async fn datagram_run(query: &str) -> Vec<(u8, Duration)> {
    let world = World::default();
    let mut socket = world.socket(&format!("memory://room?kind=datagrams{query}")).await;
    let mut caller = messages_of(world.call("memory://room?kind=datagrams").await.unwrap());
    let start = Instant::now();
    for number in 0..100 {
        send(&mut *caller, &[number]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut came = Vec::new();
    loop {
        let mut batch = VecDeque::new();
        if timeout(Duration::from_secs(1), poll_fn(|cx| socket.poll_recv(cx, &mut batch))).await.is_err() {
            return came;
        }
        came.extend(batch.iter().map(|datagram| (datagram.payload[0], start.elapsed())));
    }
}

#[tokio::test(start_paused = true)]
async fn datagrams_are_lost_doubled_and_reordered_and_the_seed_repeats_it() {
    let clean: Vec<u8> = datagram_run("").await.into_iter().map(|(number, _)| number).collect();
    assert!(clean.iter().copied().eq(0..100));
    let query = |seed| format!("&seed={seed}&delay=1s&jitter=5ms&drop=0.2&duplicate=0.2&reorder=0.2");
    let run = datagram_run(&query(1)).await;
    let numbers: Vec<u8> = run.iter().map(|(number, _)| *number).collect();
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    assert_ne!(sorted, numbers, "some are overtaken");
    assert!(sorted.windows(2).any(|pair| pair[0] == pair[1]), "some come twice");
    assert!((0..100).any(|number| !numbers.contains(&number)), "some are lost");
    assert_eq!(datagram_run(&query(1)).await, run);
    assert_ne!(datagram_run(&query(2)).await, run);
}

#[tokio::test(start_paused = true)]
async fn the_listener_s_faults_befall_both_directions_and_a_caller_may_have_its_own() {
    let world = World::default();
    let mut acceptor = world.acceptor("memory://room?delay=1s").await;
    for (endpoint, expected) in [("memory://room", 2), ("memory://room?delay=10s", 20), ("memory://room?delay=0", 0)] {
        let mut near = bytes_of(world.call(endpoint).await.unwrap());
        let mut far = bytes_of(accept(&mut *acceptor).await);
        let start = Instant::now();
        near.write_all(b"ping").await.unwrap();
        let mut four = [0; 4];
        far.read_exact(&mut four).await.unwrap();
        far.write_all(&four).await.unwrap();
        near.read_exact(&mut four).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), expected, "{endpoint}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_break_is_a_reset_for_both_ends() {
    let (mut near, mut far) = World::default().stream("memory://room?reset=1").await;
    let reading = tokio::spawn(async move { far.read(&mut [0; 9]).await.unwrap_err().kind() });
    tokio::task::yield_now().await;
    assert_eq!(near.write(b"x").await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(reading.await.unwrap(), io::ErrorKind::ConnectionReset);
}

#[test]
fn what_it_claims_is_what_it_carries() {
    let world = World::default();
    let claims = |query: &str| world.transport(&format!("memory://room{query}")).0.capabilities();
    assert_eq!(claims(""), Capabilities::BYTES);
    assert_eq!(claims("?kind=datagrams&drop=0.5"), Capabilities::DATAGRAMS);
    let messages = claims("?kind=messages");
    assert!(messages.boundaries && messages.connected && messages.reliable && messages.ordered);
    assert!(!claims("?kind=messages&drop=0.1").reliable);
    assert!(!claims("?kind=messages&reorder=0.1").ordered);
}

#[test]
fn options_that_cannot_be_are_refused_by_name() {
    let refused = |query: &str| Memory::new(Network::new(), Options::parse(query).unwrap()).unwrap_err().to_string();
    assert!(refused("drop=0.1").starts_with("`drop` cannot befall a stream of bytes"));
    assert!(refused("kind=datagrams&split=0.1").starts_with("`split` cannot befall messages"));
    assert_eq!(refused("buffer=0"), "the option `buffer` takes a number above 0");
    assert_eq!(refused("kind=post"), "the option `kind` takes stream or messages or datagrams, not `post`");
    assert!(refused("sed=1").contains("unknown field `sed`"));
}

#[test]
fn every_option_that_it_takes_is_documented_once() {
    let names: Vec<&str> = OPTIONS.iter().map(|option| option.name).collect();
    let mut once = names.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!((once.len(), names[0], names[3]), (names.len(), "kind", "seed"));
}
