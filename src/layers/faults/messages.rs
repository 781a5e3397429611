//! A stream of messages that a seed delays, loses, doubles, reorders and breaks.

use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::{CAPACITY, Direction, reset};
use crate::error::{Error, Result};
use crate::faults::Next;
use crate::framing;
use crate::link::MessageStream;

pub(super) struct FaultyMessages {
    /// Gone once the connection broke.
    inner: Option<Box<dyn MessageStream>>,
    /// The size in bytes of the largest message that the link carries: it is asked only when the message is due.
    largest: Option<usize>,
    incoming: Direction,
    outgoing: Direction,
    /// The link below will bring no more.
    ended: bool,
}

impl FaultyMessages {
    pub(super) fn new(
        inner: Box<dyn MessageStream>,
        largest: Option<usize>,
        incoming: Direction,
        outgoing: Direction,
    ) -> Self {
        FaultyMessages { inner: Some(inner), largest, incoming, outgoing, ended: false }
    }

    /// Takes from the link what it has, while there is room.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while !self.ended && self.incoming.room() > 0 {
            match ready!(self.inner.as_mut().ok_or_else(reset)?.poll_recv(cx))? {
                None => self.ended = true,
                Some(message) => self.incoming.take_message(message)?,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Hands to the link what is due, until nothing is left.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            let inner = self.inner.as_mut().ok_or_else(reset)?;
            if inner.buffered() >= CAPACITY {
                ready!(inner.poll_flush(cx))?;
            }
            match self.outgoing.line.receive(Instant::now()) {
                Next::Item(message) => inner.start_send(&[&message])?,
                Next::Nothing => return Poll::Ready(Ok(())),
                Next::At(at) => {
                    // What came before need not wait for what comes later; whether it is gone shows at the next turn.
                    let _ = inner.poll_flush(cx)?;
                    ready!(self.outgoing.alarm.poll_at(cx, at));
                }
            }
        }
    }
}

impl MessageStream for FaultyMessages {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        if let Poll::Ready(Err(error)) = self.poll_fill(cx) {
            self.inner = None;
            return Poll::Ready(Err(error));
        }
        loop {
            match self.incoming.line.receive(Instant::now()) {
                Next::Item(message) => return Poll::Ready(Ok(Some(message))),
                Next::At(at) => ready!(self.incoming.alarm.poll_at(cx, at)),
                Next::Nothing if self.ended => return Poll::Ready(Ok(None)),
                Next::Nothing => return Poll::Pending,
            }
        }
    }

    fn start_send(&mut self, parts: &[&[u8]]) -> Result<()> {
        if self.inner.is_none() {
            return Err(reset().into());
        }
        let size = framing::length(parts);
        if let Some(limit) = self.largest.filter(|limit| size > *limit) {
            return Err(Error::TooLong { size, limit });
        }
        let mut message = BytesMut::with_capacity(size);
        framing::append(parts, &mut message);
        Ok(self.outgoing.take_message(message.freeze()).inspect_err(|_| self.inner = None)?)
    }

    fn buffered(&self) -> usize {
        self.outgoing.line.cost() + self.inner.as_ref().map_or(0, |inner| inner.buffered())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_drain(cx))?;
        self.inner.as_mut().ok_or_else(reset)?.poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_drain(cx))?;
        self.inner.as_mut().ok_or_else(reset)?.poll_finish(cx)
    }

    fn reply_limit(&self) -> Option<usize> {
        self.inner.as_ref().and_then(|inner| inner.reply_limit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::{Fates, Faults};
    use crate::framings::length::{Length, Prefix};
    use crate::options::Options;
    use crate::session::Framed;
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::io::{DuplexStream, duplex};

    fn framed(io: DuplexStream) -> Framed {
        Framed::new(Box::new(io), Arc::new(Length { prefix: Prefix::U32, largest: 1000 }))
    }

    /// Sends numbered messages through the faults, and gives what arrives and when.
    async fn run(query: &str, count: u32) -> Result<Vec<(u32, Duration)>> {
        let faults: Faults = Options::parse(query).unwrap().read().unwrap();
        let (near, far) = duplex(1 << 20);
        let [incoming, outgoing] = [0, 1].map(|lane| Direction::new(Fates::new(&faults, lane)));
        let mut near = FaultyMessages::new(Box::new(framed(near)), Some(1000), incoming, outgoing);
        let mut far = framed(far);
        let (start, mut arrived) = (Instant::now(), Vec::new());
        let sending = async {
            for number in 0..count {
                near.start_send(&[&number.to_be_bytes()])?;
                poll_fn(|cx| near.poll_flush(cx)).await?;
            }
            poll_fn(|cx| near.poll_finish(cx)).await
        };
        let receiving = async {
            while let Some(message) = poll_fn(|cx| far.poll_recv(cx)).await? {
                arrived.push((u32::from_be_bytes(message[..].try_into().unwrap()), start.elapsed()));
            }
            Ok(())
        };
        tokio::try_join!(sending, receiving)?;
        Ok(arrived)
    }

    async fn numbers(query: &str, count: u32) -> Vec<u32> {
        run(query, count).await.unwrap().into_iter().map(|(number, _)| number).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn each_message_takes_its_time() {
        let millis: Vec<u128> = run("delay=10ms", 3).await.unwrap().iter().map(|(_, at)| at.as_millis()).collect();
        assert_eq!(millis, [10, 20, 30]);
    }

    #[tokio::test(start_paused = true)]
    async fn some_are_lost_and_some_come_twice_and_the_rest_comes_in_order() {
        let all: Vec<u32> = (0..200).collect();
        assert_eq!(numbers("", 200).await, all);
        let lost = numbers("drop=0.2", 200).await;
        assert!((120..190).contains(&lost.len()) && lost.is_sorted());
        let doubled = numbers("duplicate=0.2", 200).await;
        assert!((210..280).contains(&doubled.len()) && doubled.is_sorted());
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_that_breaks_says_so() {
        let error = run("reset=0.1", 200).await.unwrap_err();
        assert!(error.is_disconnect(), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_the_link_does_not_carry_is_refused_when_it_is_given() {
        let faults = Faults { delay: Duration::from_secs(1), ..Faults::default() };
        let [incoming, outgoing] = [0, 1].map(|lane| Direction::new(Fates::new(&faults, lane)));
        let (near, _far) = duplex(1 << 20);
        let mut near = FaultyMessages::new(Box::new(framed(near)), Some(1000), incoming, outgoing);
        assert!(matches!(near.start_send(&[&[0; 1001]]), Err(Error::TooLong { size: 1001, limit: 1000 })));
        assert_eq!(near.buffered(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_seed_repeats_the_same_run() {
        let query = |seed: u64| format!("seed={seed}&jitter=30ms&drop=0.2&duplicate=0.2&reorder=0.2");
        assert_eq!(run(&query(1), 50).await.unwrap(), run(&query(1), 50).await.unwrap());
        assert_ne!(run(&query(1), 50).await.unwrap(), run(&query(2), 50).await.unwrap());
    }
}
