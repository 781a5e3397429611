//! Two ends of a link, and what is said between them: what the checks of transports and of layers share.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::{Failure, Outcome, check, in_short};
use crate::error::{Error, Result};
use crate::framings::length::{Length, Prefix};
use crate::framings::raw::Raw;
use crate::link::{Capabilities, Link, MessageStream};
use crate::random::Random;
use crate::session::{Framed, WATERMARK};

/// Far longer than anything here takes; what is awaited in vain then fails with words.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The size in bytes of a large message, where the link has no largest.
const LARGE: usize = 1 << 20;

/// How much a link may take in that nobody reads: far more than the buffers of any kernel.
const TOO_MUCH_UNREAD: usize = 64 << 20;

/// How long nothing must move before it counts as waiting.
pub(super) const STILL: Duration = Duration::from_millis(200);

/// What does not come to an end is a failure that names it.
pub(super) async fn within<T>(what: &str, future: impl Future<Output = T>) -> Result<T, Failure> {
    timeout(PATIENCE, future).await.map_err(|_| Failure::new(format!("{what}: nothing happens in {PATIENCE:?}")))
}

/// One end of a link; bytes are framed by their length, so that both kinds carry messages.
pub(super) struct End(Box<dyn MessageStream>);

impl End {
    /// Takes a link that must be of the kind that is claimed.
    pub(super) fn new(link: Link, claimed: Capabilities) -> Result<Self, Failure> {
        match link {
            Link::Bytes(_) if claimed.boundaries => {
                Err(Failure::new("it claims that messages keep their boundaries, and its link carries bytes"))
            }
            Link::Messages(_) if !claimed.boundaries => {
                Err(Failure::new("it claims that messages lose their boundaries, and its link carries messages"))
            }
            Link::Messages(messages) => Ok(End(messages)),
            Link::Bytes(bytes) => {
                let framing = Length { prefix: Prefix::U32, largest: TOO_MUCH_UNREAD };
                Ok(End(Box::new(Framed::new(bytes, Arc::new(framing)))))
            }
        }
    }

    /// A link as it is, to say things over it that are no messages.
    pub(super) fn unframed(link: Link) -> Self {
        match link {
            Link::Messages(messages) => End(messages),
            Link::Bytes(bytes) => End(Box::new(Framed::new(bytes, Arc::new(Raw { largest: LARGE })))),
        }
    }

    /// Takes a message, waiting while too much is under way, and writes it unless that would wait.
    pub(super) async fn give(&mut self, message: &[u8]) -> Result<()> {
        poll_fn(|cx| {
            if self.0.buffered() < WATERMARK {
                return Poll::Ready(Ok(()));
            }
            self.0.poll_flush(cx)
        })
        .await?;
        self.0.start_send(&[message])
    }

    pub(super) async fn send(&mut self, message: &[u8]) -> Result<()> {
        self.give(message).await?;
        poll_fn(|cx| self.0.poll_flush(cx)).await
    }

    pub(super) async fn receive(&mut self) -> Result<Option<Bytes>> {
        poll_fn(|cx| self.0.poll_recv(cx)).await
    }

    pub(super) async fn finish(&mut self) -> Result<()> {
        poll_fn(|cx| self.0.poll_finish(cx)).await
    }

    /// The next message, which must be this one.
    pub(super) async fn expect(&mut self, expected: &[u8]) -> Outcome {
        let received = within(&format!("the arrival of {}", in_short(expected)), self.receive()).await?;
        match received {
            Ok(Some(message)) if message == expected => Ok(()),
            Ok(Some(message)) => Err(Failure::new(format!("{} arrives as {}", in_short(expected), in_short(&message)))),
            Ok(None) => Err(Failure::new(format!("the link ends before {}", in_short(expected)))),
            Err(error) => Err(Failure::new(format!("the link fails before {}: {error}", in_short(expected)))),
        }
    }

    /// The end of what the other side sends. A reset is one too where `broken` may be.
    pub(super) async fn expect_end(&mut self, broken: bool) -> Outcome {
        match within("the end of the link", self.receive()).await? {
            Ok(None) => Ok(()),
            Err(error) if broken && error.is_disconnect() => Ok(()),
            // Some say in words of their own that the other side is gone.
            Err(Error::Link(_)) if broken => Ok(()),
            Ok(Some(message)) => Err(Failure::new(format!("{} arrives in place of the end", in_short(&message)))),
            Err(error) => Err(Failure::new(format!("the link fails in place of its end: {error}"))),
        }
    }
}

fn sent(outcome: Result<()>) -> Outcome {
    outcome.map_err(|error| Failure::new(format!("sending fails: {error}")))
}

/// A message from one end to the other, while both are at work.
pub(super) async fn carry(from: &mut End, to: &mut End, message: &[u8]) -> Outcome {
    let sending = async { sent(within("sending", from.send(message)).await?) };
    tokio::try_join!(sending, to.expect(message))?;
    Ok(())
}

/// Both ends speak and are heard, whoever begins.
pub(super) async fn exchange(a: &mut End, b: &mut End) -> Outcome {
    carry(a, b, b"a question").await?;
    carry(b, a, b"an answer").await?;
    carry(b, a, b"and another word").await?;
    carry(a, b, b"").await?;
    carry(b, a, b"").await
}

/// The largest message arrives, in both directions at once; one byte more is refused, and the link goes on.
pub(super) async fn large_messages(a: &mut End, b: &mut End, claimed: Capabilities) -> Outcome {
    let mut random = Random::new(1);
    let size = claimed.largest.unwrap_or(LARGE).min(LARGE);
    let (there, back) = (random.bytes(size), random.bytes(size));
    let talk = async |end: &mut End, mine: &[u8], theirs: &[u8]| {
        sent(within("sending a large message", end.give(mine)).await?)?;
        // Both write before they read, and must still come to an end: reading goes on while writing waits.
        let mut received = None;
        let both = poll_fn(|cx| {
            if received.is_none()
                && let Poll::Ready(message) = end.0.poll_recv(cx)
            {
                received = Some(message);
            }
            let flushed = end.0.poll_flush(cx);
            if received.is_some() { flushed } else { Poll::Pending }
        });
        sent(within("a large message", both).await?)?;
        let arrived = matches!(&received, Some(Ok(Some(message))) if message == theirs);
        check(arrived, || format!("a message of {} bytes does not arrive as it was", theirs.len()))
    };
    let (first, second) = tokio::join!(talk(a, &there, &back), talk(b, &back, &there));
    first.and(second)?;
    if let Some(largest) = claimed.largest.filter(|_| claimed.boundaries) {
        let refused = a.0.start_send(&[&vec![0; largest + 1]]);
        check(matches!(refused, Err(Error::TooLong { .. })), || {
            format!("a message of {} bytes, one over the largest, comes to {refused:?}", largest + 1)
        })?;
    }
    carry(a, b, b"it goes on").await
}

/// Many messages, sent before any is read, arrive in order.
pub(super) async fn many_messages(a: &mut End, b: &mut End) -> Outcome {
    const COUNT: u32 = 2000;
    let sending = async {
        for number in 0..COUNT {
            sent(within("one of many messages", a.give(&number.to_be_bytes())).await?)?;
        }
        sent(within("the last of many messages", poll_fn(|cx| a.0.poll_flush(cx))).await?)
    };
    let receiving = async {
        for number in 0..COUNT {
            b.expect(&number.to_be_bytes()).await?;
        }
        Ok(())
    };
    tokio::try_join!(sending, receiving)?;
    Ok(())
}

/// Whoever sends waits for a reader that does not read, and loses nothing by it.
pub(super) async fn slow_reader(a: &mut End, b: &mut End) -> Outcome {
    let message = vec![7; 60_000];
    let mut count = 0;
    loop {
        check(count * message.len() < TOO_MUCH_UNREAD, || {
            format!("it takes {TOO_MUCH_UNREAD} bytes that nobody reads, and goes on taking")
        })?;
        match timeout(STILL, a.give(&message)).await {
            Ok(given) => sent(given)?,
            Err(_) => break,
        }
        count += 1;
    }
    let flushing = async { sent(within("what waited for the reader", poll_fn(|cx| a.0.poll_flush(cx))).await?) };
    let reading = async {
        for _ in 0..count {
            b.expect(&message).await?;
        }
        Ok(())
    };
    tokio::try_join!(flushing, reading)?;
    carry(a, b, b"it goes on").await
}

/// One side ends, hears the other on, and that one ends too.
pub(super) async fn half_close(mut a: End, mut b: End) -> Outcome {
    let sending = async { sent(within("sending", a.send(b"last words")).await?) };
    tokio::try_join!(sending, b.expect(b"last words"))?;
    sent(within("ending one direction", a.finish()).await?)?;
    b.expect_end(false).await?;
    carry(&mut b, &mut a, b"heard").await?;
    carry(&mut b, &mut a, b"and more").await?;
    sent(within("ending the other direction", b.finish()).await?)?;
    a.expect_end(false).await
}

/// An end that is dropped ends the other one.
pub(super) async fn drop_ends(a: End, mut b: End) -> Outcome {
    drop(a);
    b.expect_end(true).await
}
