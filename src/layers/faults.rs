//! `faults`: makes the way bad, by a seed, so that what is built over it can be seen to bear it.
//!
//! What can befall bytes and messages, and what cannot, is said in [`faults`](crate::faults). Both directions are
//! affected, each in its own way; the links of a layer are numbered as they open, and each has fates of its own.
//!
//! The transport `memory` takes the same options itself: in `faults+memory://…` they are the transport's.
//!
//! A break is an `ECONNRESET` on this side. The link below is dropped, which shows to the peer as such a link shows
//! that: as an end, or as a reset.

mod bytes;
mod messages;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;

use ::bytes::Bytes;
use tokio::time::Instant;

use self::bytes::FaultyBytes;
use self::messages::FaultyMessages;
use crate::endpoint::Endpoint;
use crate::error::Result;
use crate::faults::{Alarm, Carried, Fates, Faults, Line};
use crate::layer::Layer;
use crate::link::{Capabilities, Link, Opened};

/// How much one direction of a link holds before whoever sends waits, in bytes.
const CAPACITY: usize = 64 * 1024;

/// The layer.
#[derive(Debug)]
pub struct FaultLayer {
    faults: Faults,
    links: AtomicU64,
}

impl FaultLayer {
    /// A layer that does this to every link.
    pub fn new(faults: Faults) -> Self {
        FaultLayer { faults, links: AtomicU64::new(0) }
    }

    fn wrap(&self, mut opened: Opened) -> Opened {
        let lane = 2 * self.links.fetch_add(1, Ordering::Relaxed);
        let [incoming, outgoing] = [lane, lane + 1].map(|lane| Direction::new(Fates::new(&self.faults, lane)));
        let largest = opened.peer.route.capabilities.largest;
        opened.link = match opened.link {
            Link::Bytes(inner) => Link::Bytes(Box::new(FaultyBytes::new(inner, incoming, outgoing))),
            Link::Messages(inner) => Link::Messages(Box::new(FaultyMessages::new(inner, largest, incoming, outgoing))),
        };
        opened
    }
}

#[async_trait]
impl Layer for FaultLayer {
    fn over(&self, inner: Capabilities) -> Result<Capabilities, String> {
        if !inner.connected {
            return Err("`faults` wraps connections, and datagrams come without one. \
                        The transport `memory` makes datagrams go astray: memory://name?kind=datagrams&drop=0.1"
                .to_owned());
        }
        self.faults.check(if inner.boundaries { Carried::Messages } else { Carried::Bytes })?;
        Ok(Capabilities {
            reliable: inner.reliable && self.faults.is_reliable(),
            ordered: inner.ordered && self.faults.is_ordered(),
            ..inner
        })
    }

    async fn accept(&self, inner: Opened) -> Result<Opened> {
        Ok(self.wrap(inner))
    }

    async fn connect(&self, inner: Opened, _: &Endpoint) -> Result<Opened> {
        Ok(self.wrap(inner))
    }
}

/// One direction of a link.
struct Direction {
    line: Line<Bytes>,
    fates: Fates,
    alarm: Alarm,
}

impl Direction {
    fn new(fates: Fates) -> Self {
        Direction { line: Line::default(), fates, alarm: Alarm::default() }
    }

    /// How many more bytes it takes.
    fn room(&self) -> usize {
        CAPACITY.saturating_sub(self.line.cost())
    }

    fn take_piece(&mut self, piece: &[u8]) -> io::Result<()> {
        let piece = Bytes::copy_from_slice(piece);
        self.line.write(Instant::now(), piece, &mut self.fates).map_err(|_| reset())
    }

    fn take_message(&mut self, message: Bytes) -> io::Result<()> {
        let fate = self.fates.draw();
        if fate.reset {
            return Err(reset());
        }
        let size = message.len();
        self.line.send(Instant::now(), message, size, &fate);
        Ok(())
    }
}

/// What a broken connection says.
fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(query: &str, inner: Capabilities) -> Result<Capabilities, String> {
        let faults: Faults = crate::options::Options::parse(query).unwrap().read().unwrap();
        FaultLayer::new(faults).over(inner)
    }

    #[test]
    fn what_it_does_to_messages_shows_in_what_it_claims() {
        let messages = Capabilities { boundaries: true, ..Capabilities::BYTES };
        assert_eq!(over("delay=1s&reset=0.1", messages), Ok(messages));
        assert_eq!(over("drop=0.1", messages), Ok(Capabilities { reliable: false, ..messages }));
        assert_eq!(over("reorder=0.1", messages), Ok(Capabilities { ordered: false, ..messages }));
    }

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_bound() {
        assert!(over("drop=0.1", Capabilities::BYTES).unwrap_err().starts_with("`drop` cannot befall a stream"));
        assert!(over("delay=1s", Capabilities::DATAGRAMS).unwrap_err().starts_with("`faults` wraps connections"));
    }
}
