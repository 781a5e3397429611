//! What every [`Transport`] must do, asked through the contract alone and as far as its claims go.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::{sleep, timeout};

use super::conversation::{
    End, PATIENCE, drop_ends, exchange, half_close, large_messages, many_messages, slow_reader, within,
};
use super::{Failure, Outcome, check, in_short, step};
use crate::address::Address;
use crate::endpoint::Endpoint;
use crate::link::Capabilities;
use crate::transport::{Acceptor, DatagramSocket, Datagrams, Dialled, Incoming, Listener, Transmit, Transport};

/// How often a message is sent again on a transport that may lose it, and how long each is waited for.
const ATTEMPTS: usize = 20;
const EACH: Duration = Duration::from_millis(500);

/// How long a call to nobody is given to fail. One that is never answered has not succeeded either.
const UNANSWERED: Duration = Duration::from_secs(2);

/// How many call at once.
const CALLERS: u8 = 20;

/// Binds that endpoint, calls it, and goes through what the transport claims to be able to.
///
/// The endpoint is one that can be bound over and over, on this machine, without disturbing anybody: port 0, a path in
/// a directory of the test's own. It is called where the listener says that it is. Needs a tokio runtime with its
/// clock and, for real sockets, its I/O; takes a second or two.
pub async fn transport_conforms(transport: &dyn Transport, at: &Endpoint) -> Outcome {
    let place = Place::open(transport, at).await?;
    match place.listener {
        Listener::Connections(acceptor) => {
            check(place.claimed.connected, || "it claims no connections, and binds to an acceptor of them".to_owned())?;
            connections(Connections { transport, claimed: place.claimed, to: place.to, acceptor }).await
        }
        Listener::Datagrams(socket) => {
            check(!place.claimed.connected, || "it claims connections, and binds to datagrams".to_owned())?;
            let inbox = VecDeque::new();
            datagrams(DatagramPlace { transport, claimed: place.claimed, to: place.to, socket, inbox }).await
        }
    }
}

/// A listener, and how to call it.
struct Place {
    claimed: Capabilities,
    listener: Listener,
    to: Endpoint,
}

impl Place {
    async fn open(transport: &dyn Transport, at: &Endpoint) -> Result<Self, Failure> {
        let bound = within("bind", transport.bind(at)).await?;
        let listener = bound.map_err(|error| Failure::new(error.to_string()))?;
        let mut to = at.clone();
        let local = match listener.local() {
            Address::Ip(local) if local.ip().is_unspecified() => loopback(local).into(),
            local => local,
        };
        to.authority = local.to_string().parse().map_err(|error| {
            Failure::new(format!("the listener says that it is at `{local}`, which cannot be called: {error}"))
        })?;
        Ok(Place { claimed: transport.capabilities(), listener, to })
    }
}

fn loopback(local: SocketAddr) -> SocketAddr {
    match local {
        SocketAddr::V4(_) => (Ipv4Addr::LOCALHOST, local.port()).into(),
        SocketAddr::V6(_) => (Ipv6Addr::LOCALHOST, local.port()).into(),
    }
}

/// Whether an address is the one that it should be; one that stands for all of a machine's is any of them.
fn is_same(address: &Address, expected: &Address) -> bool {
    let stands_for_all = expected.ip().is_some_and(|ip| ip.ip().is_unspecified());
    address == expected || (stands_for_all && address.ip().map(|ip| ip.port()) == expected.ip().map(|ip| ip.port()))
}

fn same(what: &str, address: &Address, expected: &Address) -> Outcome {
    check(is_same(address, expected), || format!("{what} is said to be `{address}`, and it is `{expected}`"))
}

struct Connections<'a> {
    transport: &'a dyn Transport,
    claimed: Capabilities,
    to: Endpoint,
    acceptor: Box<dyn Acceptor>,
}

async fn connections(mut place: Connections<'_>) -> Outcome {
    let claimed = place.claimed;
    step("addresses", place.addresses().await)?;
    if !(claimed.reliable && claimed.ordered) {
        let (a, b) = place.ends().await?;
        return step("drop of the caller's end", drop_ends(a, b).await);
    }
    let (mut a, mut b) = place.ends().await?;
    step("exchange", exchange(&mut a, &mut b).await)?;
    step("large messages", large_messages(&mut a, &mut b, claimed).await)?;
    step("many messages", many_messages(&mut a, &mut b).await)?;
    step("a slow caller", slow_reader(&mut b, &mut a).await)?;
    step("a slow listener", slow_reader(&mut a, &mut b).await)?;
    if claimed.half_close {
        step("half-close by the caller", half_close(a, b).await)?;
        let (a, b) = place.ends().await?;
        step("half-close by the listener", half_close(b, a).await)?;
    }
    let (a, b) = place.ends().await?;
    step("drop of the caller's end", drop_ends(a, b).await)?;
    let (a, b) = place.ends().await?;
    step("drop of the listener's end", drop_ends(b, a).await)?;
    step("many at once", place.many_at_once().await)?;
    step("a connection that is not opened", place.unopened().await)?;
    step("a listener that is gone", place.gone().await)
}

impl Connections<'_> {
    /// A call and its acceptance, at the same time, since either may need the other.
    async fn meet(&mut self) -> Result<(Dialled, Dialled), Failure> {
        let calling = async {
            let called = self.transport.connect(&self.to).await;
            called.map_err(|error| Failure::new(error.to_string()))
        };
        let accepting = async {
            let incoming = accept(&mut *self.acceptor).await?;
            let remote = incoming.remote().clone();
            let opened = incoming.open().await;
            let opened = opened.map_err(|error| Failure::new(format!("opening an accepted connection: {error}")))?;
            same("before it is opened the caller", &remote, &opened.remote)?;
            Ok(opened)
        };
        within("a call", async { tokio::try_join!(calling, accepting) }).await?
    }

    async fn ends(&mut self) -> Result<(End, End), Failure> {
        let claimed = self.claimed;
        let (called, accepted) = self.meet().await?;
        Ok((End::new(called.link, claimed)?, End::new(accepted.link, claimed)?))
    }

    async fn addresses(&mut self) -> Outcome {
        let listening = self.acceptor.local();
        let (called, accepted) = self.meet().await?;
        same("to the caller, the listener", &called.remote, &listening)?;
        same("to the accepted, its own address", &accepted.local, &listening)?;
        same("to the accepted, the caller", &accepted.remote, &called.local)
    }

    /// Each caller hears what was said to it, and nothing else.
    async fn many_at_once(&mut self) -> Outcome {
        let claimed = self.claimed;
        let (transport, to, acceptor) = (self.transport, &self.to, &mut *self.acceptor);
        let call = async |number: u8| {
            let called = within("one of many calls", transport.connect(to)).await?;
            let called = called.map_err(|error| Failure::new(error.to_string()))?;
            let mut end = End::new(called.link, claimed)?;
            let sent = within("one of many greetings", end.send(&[number])).await?;
            sent.map_err(|error| Failure::new(format!("sending fails: {error}")))?;
            end.expect(&[number, number]).await
        };
        let answer = async |incoming: Box<dyn Incoming>| {
            let opened = within("opening one of many", incoming.open().into_future()).await?;
            let opened = opened.map_err(|error| Failure::new(format!("opening an accepted connection: {error}")))?;
            let mut end = End::new(opened.link, claimed)?;
            let greeting = within("one of many greetings", end.receive()).await?;
            let Ok(Some(greeting)) = greeting else {
                return Err(Failure::new(format!("a greeting comes to {greeting:?}")));
            };
            let sent = within("one of many answers", end.send(&[greeting[0], greeting[0]])).await?;
            sent.map_err(|error| Failure::new(format!("sending fails: {error}")))?;
            // Held until the caller has what it was sent.
            end.expect_end(true).await
        };
        let answering = async {
            let mut accepted = Vec::new();
            for _ in 0..CALLERS {
                accepted.push(answer(within("one of many accepts", accept(acceptor)).await??));
            }
            // A handshake may need both sides at work, so all are answered at the same time.
            try_join_all(accepted).await
        };
        tokio::try_join!(try_join_all((0..CALLERS).map(call)), answering)?;
        Ok(())
    }

    /// Whoever is accepted and dropped before it is opened sees that.
    async fn unopened(&mut self) -> Outcome {
        let calling = timeout(PATIENCE, self.transport.connect(&self.to));
        let accepting = async { within("an accept", accept(&mut *self.acceptor)).await?.map(drop) };
        let (called, accepted) = tokio::join!(calling, accepting);
        accepted?;
        match called {
            Ok(Ok(called)) => End::new(called.link, self.claimed)?.expect_end(true).await,
            Ok(Err(_)) => Ok(()),
            Err(_) => Err(Failure::new(format!("the caller is told nothing in {PATIENCE:?}"))),
        }
    }

    /// A listener that was dropped answers no more, and leaves its address to the next.
    async fn gone(self) -> Outcome {
        let Connections { transport, claimed, to, acceptor } = self;
        drop(acceptor);
        match timeout(UNANSWERED, transport.connect(&to)).await {
            Ok(Err(error)) => {
                check(!error.attempts.is_empty(), || {
                    "a call to nobody fails without saying what was tried".to_owned()
                })?;
            }
            Ok(Ok(called)) => End::new(called.link, claimed)?.expect_end(true).await?,
            Err(_) => {}
        }
        for _ in 0..ATTEMPTS {
            match transport.bind(&to).await {
                Ok(_) => return Ok(()),
                // Some close in the background.
                Err(_) => sleep(EACH / 10).await,
            }
        }
        transport.bind(&to).await.map(drop).map_err(|error| Failure::new(format!("its address stays taken: {error}")))
    }
}

async fn accept(acceptor: &mut dyn Acceptor) -> Result<Box<dyn Incoming>, Failure> {
    match poll_fn(|cx| acceptor.poll_accept(cx)).await {
        Ok(Some(incoming)) => Ok(incoming),
        Ok(None) => Err(Failure::new("the acceptor says that no more will come, though it was not closed")),
        Err(error) => Err(Failure::new(format!("accept fails: {error}"))),
    }
}

struct DatagramPlace<'a> {
    transport: &'a dyn Transport,
    claimed: Capabilities,
    to: Endpoint,
    socket: Box<dyn DatagramSocket>,
    inbox: VecDeque<Datagrams>,
}

async fn datagrams(mut place: DatagramPlace<'_>) -> Outcome {
    let claimed = place.claimed;
    let mut caller = place.caller().await?;
    step("exchange", place.exchange(&mut caller, b"a question").await)?;
    step("an empty datagram", place.exchange(&mut caller, b"").await)?;
    if let Some(largest) = claimed.largest {
        step("the largest datagram", place.exchange(&mut caller, &vec![7; largest]).await)?;
        step("a datagram over the largest", place.too_large(&mut caller, largest + 1).await)?;
    }
    step("many datagrams in one transmit", place.segments(&mut caller).await)?;
    step("several callers", place.several(&mut caller).await)?;
    step("a caller that is gone", place.vanished(caller).await)
}

/// Somebody who sends datagrams and is answered.
struct Caller {
    end: End,
    local: Address,
    /// What it was sent so far: some of it may come late, or twice.
    sent: Vec<Vec<u8>>,
}

impl Caller {
    /// Whether the answer comes within a moment; anything but what it was ever sent is a failure.
    async fn hears(&mut self, answer: &[u8]) -> Result<bool, Failure> {
        while let Ok(received) = timeout(EACH, self.end.receive()).await {
            match received {
                Ok(Some(message)) if message == answer => return Ok(true),
                Ok(Some(message)) if self.sent.iter().any(|sent| message == sent) => {}
                other => return Err(Failure::new(format!("{} is answered by {other:?}", in_short(answer)))),
            }
        }
        Ok(false)
    }
}

impl DatagramPlace<'_> {
    async fn caller(&self) -> Result<Caller, Failure> {
        let called = within("a call", self.transport.connect(&self.to)).await?;
        let called = called.map_err(|error| Failure::new(error.to_string()))?;
        same("to the caller, the socket", &called.remote, &self.socket.local())?;
        Ok(Caller { end: End::new(called.link, self.claimed)?, local: Address::clone(&called.local), sent: Vec::new() })
    }

    /// What comes within a moment; errors of the socket concern one datagram, and it goes on.
    async fn receive(&mut self) -> Option<Datagrams> {
        let (socket, inbox) = (&mut self.socket, &mut self.inbox);
        let arriving = async {
            while inbox.is_empty() {
                let _ = poll_fn(|cx| socket.poll_recv(cx, inbox)).await;
            }
        };
        timeout(EACH, arriving).await.ok()?;
        inbox.front_mut()?.split_first().or_else(|| inbox.pop_front())
    }

    async fn send(&mut self, to: &Address, payload: &[u8], segment: usize) -> Result<std::io::Result<usize>, Failure> {
        let local = self.socket.local();
        let transmit = Transmit { remote: to, local: &local, payload, segment };
        within("sending a datagram", poll_fn(|cx| self.socket.poll_send(cx, &transmit))).await
    }

    /// A datagram there, and the same back; again where one was lost.
    async fn exchange(&mut self, caller: &mut Caller, payload: &[u8]) -> Outcome {
        let mut answered = 0;
        caller.sent.push(payload.to_vec());
        for _ in 0..ATTEMPTS {
            let sent = caller.end.send(payload).await;
            sent.map_err(|error| Failure::new(format!("sending fails: {error}")))?;
            while let Some(datagram) = self.receive().await {
                if datagram.payload != payload {
                    continue;
                }
                check(!datagram.truncated, || format!("{} is said to be truncated", in_short(payload)))?;
                same("to the socket, the caller", &datagram.remote, &caller.local)?;
                same("to the socket, its own address", &datagram.local, &self.socket.local())?;
                let transmit = Transmit {
                    remote: &datagram.remote,
                    local: &datagram.local,
                    payload,
                    segment: payload.len().max(1),
                };
                let sent = within("an answer", poll_fn(|cx| self.socket.poll_send(cx, &transmit))).await?;
                check(sent.as_ref().is_ok_and(|count| *count == payload.len()), || {
                    format!("sending an answer of {} bytes comes to {sent:?}", payload.len())
                })?;
                answered += 1;
                if caller.hears(payload).await? {
                    return Ok(());
                }
            }
        }
        Err(Failure::new(format!("of {ATTEMPTS} requests of {} bytes {answered} arrive, and no answer", payload.len())))
    }

    async fn too_large(&mut self, caller: &mut Caller, size: usize) -> Outcome {
        let payload = vec![0; size];
        let refused = caller.end.give(&payload).await;
        check(matches!(refused, Err(crate::Error::TooLong { .. })), || {
            format!("to a caller, one of {size} bytes comes to {refused:?}")
        })?;
        // A socket of another family may carry more; what it takes, it must not cut.
        if self.send(&caller.local.clone(), &payload, size).await?.is_ok()
            && let Ok(received) = timeout(EACH, caller.end.receive()).await
        {
            let whole = matches!(&received, Ok(Some(message)) if message.len() == size);
            check(whole, || format!("one of {size} bytes is sent, and does not arrive whole"))?;
        }
        self.exchange(caller, b"it goes on").await
    }

    /// As many as the socket takes at once, the last of them shorter. They may be lost, and never joined or cut.
    async fn segments(&mut self, caller: &mut Caller) -> Outcome {
        let count = self.socket.max_segments();
        check(count > 0, || "it takes no datagram at all".to_owned())?;
        let payload: Vec<u8> = (0..count).flat_map(|number| [number as u8; 10]).collect();
        let payload = &payload[..payload.len() - 3];
        let expected: Vec<&[u8]> = payload.chunks(10).collect();
        let mut missing = expected.clone();
        caller.sent.extend(expected.iter().map(|datagram| datagram.to_vec()));
        for _ in 0..ATTEMPTS {
            let mut gone = 0;
            while gone < payload.len() {
                let sent = self.send(&caller.local.clone(), &payload[gone..], 10).await?;
                gone += sent.map_err(|error| Failure::new(format!("sending {count} fails: {error}")))?;
                check(gone == payload.len() || (gone > 0 && gone % 10 == 0), || {
                    format!("{gone} bytes of datagrams of 10 bytes are said to be gone")
                })?;
            }
            while let Ok(Ok(Some(message))) = timeout(EACH, caller.end.receive()).await {
                check(expected.contains(&&message[..]), || format!("one arrives as {}", in_short(&message)))?;
                missing.retain(|datagram| *datagram != message);
                if missing.is_empty() {
                    return Ok(());
                }
            }
        }
        Err(Failure::new(format!("{} of {count} datagrams never arrive", missing.len())))
    }

    async fn several(&mut self, first: &mut Caller) -> Outcome {
        let mut second = self.caller().await?;
        check(first.local != second.local, || format!("two callers are both at `{}`", first.local))?;
        self.exchange(&mut second, b"the second").await?;
        self.exchange(first, b"the first").await?;
        self.exchange(&mut second, b"the second again").await
    }

    /// A peer that left costs at most what is sent to it.
    async fn vanished(&mut self, caller: Caller) -> Outcome {
        let gone = caller.local.clone();
        drop(caller);
        for _ in 0..3 {
            let _ = self.send(&gone, b"anybody?", 8).await?;
        }
        let mut next = self.caller().await?;
        self.exchange(&mut next, b"it goes on").await
    }
}
