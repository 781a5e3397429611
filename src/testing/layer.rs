//! What every [`Layer`] must do, over bytes or messages, whichever it takes.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::time::timeout;

use super::conversation::{
    End, PATIENCE, STILL, drop_ends, exchange, half_close, large_messages, many_messages, slow_reader, within,
};
use super::{Failure, Outcome, check, guarded, step};
use crate::address::Address;
use crate::endpoint::Endpoint;
use crate::error::Result;
use crate::layer::Layer;
use crate::link::{Capabilities, Link, Opened, Peer, Route};
use crate::random::Random;
use crate::transports::memory;

/// What a peer may say that never was a handshake, before the layer must have given it up.
const TOO_MUCH_GARBAGE: usize = 1 << 20;

/// How many messages a peer's garbage may come to.
const MOST_MESSAGES: usize = 1 << 20;

/// Opens both sides of a layer over links in memory, and goes through what it claims to be able to; then lets its peer
/// be silent, leave, and talk nonsense.
///
/// `server` and `client` are the same layer with the settings of either side, `to` is the endpoint that the client
/// means to call. The links are said to be between 127.0.0.1 and itself. Needs a tokio runtime with its clock; takes a
/// second or two, and none where the clock is paused.
pub async fn layer_conforms(server: &dyn Layer, client: &dyn Layer, to: &Endpoint) -> Outcome {
    let mut reasons = Vec::new();
    let mut opened = false;
    for inner in [Capabilities::BYTES, memory::MESSAGES, Capabilities::DATAGRAMS] {
        match server.over(inner) {
            Ok(claimed) => {
                check(client.over(inner) == Ok(claimed), || "its two sides claim different things".to_owned())?;
                if inner.connected {
                    let name = if inner.boundaries { "over messages" } else { "over bytes" };
                    step(name, Layered { server, client, to, inner, claimed }.conforms().await)?;
                    opened = true;
                }
            }
            Err(reason) => {
                check(!reason.is_empty(), || "it refuses what it is put over without a reason".to_owned())?;
                reasons.push(reason);
            }
        }
    }
    check(opened, || format!("it goes over neither bytes nor messages: {}", reasons.join("; ")))
}

struct Layered<'a> {
    server: &'a dyn Layer,
    client: &'a dyn Layer,
    to: &'a Endpoint,
    inner: Capabilities,
    claimed: Capabilities,
}

impl Layered<'_> {
    async fn conforms(&self) -> Outcome {
        let claimed = self.claimed;
        let (mut a, mut b) = self.ends().await?;
        if claimed.reliable && claimed.ordered {
            step("exchange", exchange(&mut a, &mut b).await)?;
            step("large messages", large_messages(&mut a, &mut b, claimed).await)?;
            step("many messages", many_messages(&mut a, &mut b).await)?;
            step("a slow client", slow_reader(&mut b, &mut a).await)?;
            step("a slow server", slow_reader(&mut a, &mut b).await)?;
            if claimed.half_close {
                step("half-close by the client", half_close(a, b).await)?;
                let (a, b) = self.ends().await?;
                step("half-close by the server", half_close(b, a).await)?;
            }
            (a, b) = self.ends().await?;
        }
        step("drop of the client's end", drop_ends(a, b).await)?;
        let (a, b) = self.ends().await?;
        step("drop of the server's end", drop_ends(b, a).await)?;
        step("a peer that is silent", self.silent().await)?;
        step("a peer that leaves", self.leaves().await)?;
        for seed in 0..20 {
            step("a peer that talks nonsense", self.nonsense(seed).await)?;
        }
        step("a peer that never ends its nonsense", self.endless().await)
    }

    /// The two ends of a link, as a transport hands them on.
    fn link(&self) -> (Opened, Opened) {
        let (near, far) = if self.inner.boundaries { memory::messages_pair() } else { memory::bytes_pair() };
        let route = Arc::new(Route {
            scheme: self.to.scheme(),
            framing: None,
            capabilities: self.claimed,
            keeps_messages: self.claimed.boundaries,
        });
        let at = |port| Address::Ip(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let opened = |link, local, remote| Opened { link, peer: Peer::new(at(local), at(remote), route.clone()) };
        (opened(near, 40_001, 40_002), opened(far, 40_002, 40_001))
    }

    /// Both sides, opened at the same time.
    async fn ends(&self) -> Result<(End, End), Failure> {
        let (near, far) = self.link();
        let opening = async { tokio::join!(self.client.connect(near, self.to), self.server.accept(far)) };
        let (near, far) = within("opening both sides", opening).await?;
        let failed = |side: &str, error| Failure::new(format!("the {side} does not open: {error}"));
        let near = near.map_err(|error| failed("client", error))?;
        let far = far.map_err(|error| failed("server", error))?;
        Ok((End::new(near.link, self.claimed)?, End::new(far.link, self.claimed)?))
    }

    /// Who only waits is not given up: how long a handshake may take is for the engine to say.
    async fn silent(&self) -> Outcome {
        let (_near, far) = self.link();
        waits("server", self.server.accept(far)).await?;
        let (near, _far) = self.link();
        waits("client", self.client.connect(near, self.to)).await
    }

    async fn leaves(&self) -> Outcome {
        let (near, far) = self.link();
        drop(near);
        self.ends_somehow(self.server.accept(far)).await?;
        let (near, far) = self.link();
        drop(far);
        self.ends_somehow(self.client.connect(near, self.to)).await
    }

    async fn nonsense(&self, seed: u64) -> Outcome {
        let mut random = Random::new(seed);
        let length = random.below(2000);
        let mut nonsense = random.bytes(length);
        if seed.is_multiple_of(2) {
            // Text, in lines: what those say who took the port for another.
            for byte in &mut nonsense {
                *byte = b" GETPROXY/1.\r\n"[usize::from(*byte) % 14];
            }
        }
        let (near, far) = self.link();
        tokio::try_join!(say(near.link, &nonsense), self.ends_somehow(self.server.accept(far)))?;
        let (near, far) = self.link();
        tokio::try_join!(say(far.link, &nonsense), self.ends_somehow(self.client.connect(near, self.to)))?;
        Ok(())
    }

    /// What can be no handshake any more is refused, and not read for ever.
    async fn endless(&self) -> Outcome {
        let (near, far) = self.link();
        let (mut peer, nonsense) = (End::unframed(near.link), vec![b'a'; TOO_MUCH_GARBAGE]);
        tokio::select! {
            biased;
            opened = guarded(self.server.accept(far)) => opened.map(drop),
            () = talk(&mut peer, &nonsense) => {
                Err(Failure::new(format!("{TOO_MUCH_GARBAGE} bytes are no handshake, and it waits for more")))
            }
        }
    }

    /// A side whose peer ends opens, and then ends too; or it does not open.
    async fn ends_somehow(&self, opening: impl Future<Output = Result<Opened>>) -> Outcome {
        let Ok(opened) = within("giving up", guarded(opening)).await?? else { return Ok(()) };
        let mut end = End::new(opened.link, self.claimed)?;
        for _ in 0..MOST_MESSAGES {
            match within("ending", guarded(end.receive())).await?? {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return Ok(()),
            }
        }
        Err(Failure::new(format!("a peer that left still brings messages after {MOST_MESSAGES}")))
    }
}

/// Opens while the peer says nothing, or waits for it.
async fn waits(side: &str, opening: impl Future<Output = Result<Opened>>) -> Outcome {
    match timeout(STILL, guarded(opening)).await {
        Ok(Ok(Err(error))) => Err(Failure::new(format!("the {side} gives up at once: {error}"))),
        Ok(Err(panicked)) => Err(panicked),
        Ok(Ok(Ok(_))) | Err(_) => Ok(()),
    }
}

/// Says those bytes, or a message of each few of them; whether anybody listens does not matter.
async fn talk(peer: &mut End, nonsense: &[u8]) {
    for piece in nonsense.chunks(1000) {
        if !matches!(timeout(PATIENCE, peer.send(piece)).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// The same, and then the end.
async fn say(link: Link, nonsense: &[u8]) -> Outcome {
    let mut peer = End::unframed(link);
    talk(&mut peer, nonsense).await;
    let _ = timeout(STILL, peer.finish()).await;
    // Held while the other side reads it: a drop at once would be a reset, which is another test.
    while let Ok(Ok(Some(_))) = timeout(STILL, peer.receive()).await {}
    Ok(())
}
