//! How a session behaves over a link that its test controls.

mod receiving;
mod turns;

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::*;
use crate::address::Address;
use crate::framing::{Frame, FramingError};
use crate::framings::raw::Raw;
use crate::link::{ByteStream, Capabilities, MessageStream, Route};

/// A stream whose reads and writes are scripted: each read brings one chunk, each write is recorded.
#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    reads: VecDeque<Vec<u8>>,
    ended: bool,
    /// What the next read fails with.
    failure: Option<io::ErrorKind>,
    /// How often it was asked for something.
    asked: usize,
    writes: Vec<Vec<u8>>,
    /// How many bytes may still be written.
    room: Option<usize>,
    /// What was written is held below, as by a layer that encrypts.
    held: bool,
    /// How often it was shut.
    shut: usize,
}

impl Scripted {
    fn brings(self, chunks: &[&[u8]]) -> Self {
        self.0.lock().unwrap().reads.extend(chunks.iter().map(|chunk| chunk.to_vec()));
        self
    }

    fn reads(&self) -> usize {
        self.0.lock().unwrap().asked
    }

    fn writes(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap().writes.clone()
    }

    fn written(&self) -> usize {
        self.0.lock().unwrap().writes.iter().map(Vec::len).sum()
    }

    fn set_room(&self, room: usize) {
        self.0.lock().unwrap().room = Some(room);
    }
}

impl AsyncRead for Scripted {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut script = self.0.lock().unwrap();
        script.asked += 1;
        if let Some(failure) = script.failure.take() {
            return Poll::Ready(Err(failure.into()));
        }
        match script.reads.pop_front() {
            Some(chunk) => buffer.put_slice(&chunk),
            None if script.ended => {}
            None => return Poll::Pending,
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Scripted {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut script = self.0.lock().unwrap();
        let count = script.room.map_or(bytes.len(), |room| room.min(bytes.len()));
        if count == 0 {
            return Poll::Pending;
        }
        script.room = script.room.map(|room| room - count);
        script.writes.push(bytes[..count].to_vec());
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.lock().unwrap().held { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().unwrap().shut += 1;
        Poll::Ready(Ok(()))
    }
}

/// A message is a line; what stands in the way of the real framings here is that the session must not import them.
struct Lines;

impl Framing for Lines {
    fn decode(&self, input: &[u8], searched: &mut usize) -> Result<Option<Frame>, FramingError> {
        if input.starts_with(b"!") {
            return Err(FramingError::Malformed { framing: "lines", reason: "it begins with a mark" });
        }
        let Some(end) = input[*searched..].iter().position(|byte| *byte == b'\n') else {
            *searched = input.len();
            return Ok(None);
        };
        let end = *searched + end;
        Ok(Some(Frame::new(0..end, end + 1)))
    }

    fn decode_end(&self, input: &[u8]) -> Result<Option<Frame>, FramingError> {
        if input.is_empty() { Ok(None) } else { Err(FramingError::Incomplete { missing: 1 }) }
    }

    fn encode(&self, parts: &[&[u8]], output: &mut Vec<u8>) -> Result<(), FramingError> {
        for part in parts {
            output.extend_from_slice(part);
        }
        output.extend_from_slice(b"\n");
        Ok(())
    }
}

fn nobody() -> Peer {
    let route =
        Route { scheme: "test".into(), framing: None, capabilities: Capabilities::BYTES, keeps_messages: false };
    Peer::new(Address::Unnamed, Address::Unnamed, Arc::new(route))
}

fn session(link: impl ByteStream + 'static, framing: impl Framing + 'static) -> Session {
    Session::new(Opened { link: Link::Bytes(Box::new(link)), peer: nobody() }, Some(Arc::new(framing))).unwrap()
}

/// The same, over a link that tells of more by itself.
fn told_session(link: impl ByteStream + 'static, framing: impl Framing + 'static) -> Session {
    let mut session = session(link, framing);
    session.let_be_told();
    session
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn now<F: Future>(future: F) -> F::Output {
    match poll_once(future) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

#[test]
fn a_batch_of_pipelined_messages_is_answered_in_one_write() {
    let link = Scripted::default().brings(&[b"a\nb\nc\nd"]);
    let mut session = session(link.clone(), Lines);
    for _ in 0..3 {
        let message = now(session.recv()).unwrap().unwrap();
        now(session.send_parts(&[b"Hello ", &message])).unwrap();
    }
    assert_eq!(link.writes().len(), 0, "nothing is written while there is more to answer");
    assert!(poll_once(session.recv()).is_pending());
    assert_eq!(link.writes(), [b"Hello a\nHello b\nHello c\n".to_vec()]);
}

#[test]
fn a_message_in_pieces_is_whole_when_it_arrives() {
    let mut session = session(Scripted::default().brings(&[b"He", b"llo\nwor", b"ld\n"]), Lines);
    assert_eq!(now(session.recv()).unwrap().unwrap(), "Hello");
    assert_eq!(now(session.recv()).unwrap().unwrap(), "world");
}

#[test]
fn nothing_more_is_received_once_the_framing_was_broken() {
    // At the beginning of what one read brought, behind a message, and in a read after it.
    for chunks in [&[&b"!\nb\n"[..]][..], &[b"a\n!\nb\n"], &[b"a\n", b"!\nb\n"], &[b"a\n!", b"b\n"]] {
        let mut session = session(Scripted::default().brings(chunks), Lines);
        while let Ok(message) = now(session.recv()) {
            assert_eq!(message.unwrap(), "a");
        }
        assert_eq!(now(session.recv()).unwrap(), None, "{chunks:?}");
        assert_eq!(now(session.recv()).unwrap(), None, "{chunks:?}");
        assert_eq!(session.totals().messages_in, u64::from(chunks[0].starts_with(b"a")));
    }
}

#[test]
fn a_piece_of_a_message_is_kept_while_its_session_waits_and_others_read() {
    let first_link = Scripted::default().brings(&[b"one and"]);
    let mut first = session(first_link.clone(), Lines);
    assert!(poll_once(first.recv()).is_pending());
    let mut second = session(Scripted::default().brings(&[b"other\n"]), Lines);
    assert_eq!(now(second.recv()).unwrap().unwrap(), "other");
    drop(first_link.brings(&[b" two\n"]));
    assert_eq!(now(first.recv()).unwrap().unwrap(), "one and two");
}

#[test]
fn messages_that_are_kept_are_not_overwritten_by_later_reads() {
    let chunks: Vec<Vec<u8>> = (0..200u32).map(|n| vec![n as u8; 3000]).collect();
    let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    let mut session = session(Scripted::default().brings(&chunks), Raw { largest: 1 << 20 });
    let kept: Vec<Bytes> = chunks.iter().map(|_| now(session.recv()).unwrap().unwrap()).collect();
    assert!(kept.iter().zip(&chunks).all(|(kept, chunk)| kept == *chunk));
}

#[test]
fn a_slow_reader_stops_its_sender_at_the_watermark_and_no_byte_is_lost() {
    let link = Scripted::default();
    link.set_room(0);
    let mut session = session(link.clone(), Raw { largest: 1 << 20 });
    let block = [b'x'; 1000];
    let mut taken = 0;
    while poll_once(session.send(&block)).is_ready() {
        taken += 1;
    }
    assert!((WATERMARK..WATERMARK + 1000).contains(&(taken * 1000)), "{taken} blocks were taken");
    link.set_room(usize::MAX);
    now(session.flush()).unwrap();
    assert_eq!(link.written(), taken * 1000);
}

/// Finds messages without an end to it.
struct TakesNothing;

impl Framing for TakesNothing {
    fn decode(&self, _: &[u8], _: &mut usize) -> Result<Option<Frame>, FramingError> {
        Ok(Some(Frame::new(0..0, 0)))
    }

    fn decode_end(&self, _: &[u8]) -> Result<Option<Frame>, FramingError> {
        Ok(None)
    }

    fn encode(&self, _: &[&[u8]], _: &mut Vec<u8>) -> Result<(), FramingError> {
        Ok(())
    }
}

#[test]
fn a_framing_that_takes_nothing_ends_its_session_rather_than_to_run_for_ever() {
    let mut session = session(Scripted::default().brings(&[b"x"]), TakesNothing);
    assert!(matches!(now(session.recv()), Err(Error::Framing(FramingError::Malformed { .. }))));
}

#[test]
fn a_session_that_waits_holds_no_more_than_it_has_of_a_message() {
    let mut long = vec![b'x'; 60_000];
    long.extend_from_slice(b"\nrest");
    let mut session = session(Scripted::default().brings(&[&long]), Lines);
    assert_eq!(now(session.recv()).unwrap().unwrap().len(), 60_000);
    assert!(poll_once(session.recv()).is_pending());
    let Source::Stream(input) = &session.inbound.source else { panic!("it is a stream") };
    assert!(input.capacity() < 1024, "it holds {} bytes", input.capacity());
}

#[tokio::test]
async fn a_session_that_is_to_end_lets_the_reactor_look_once_more_after_each_message() {
    let link = Scripted::default().brings(&[b"a\n"]);
    let mut session = session(link.clone(), Lines);
    session.wire().lock().end();
    assert_eq!(session.recv().await.unwrap().unwrap(), "a");
    assert!(poll_once(session.recv()).is_pending());
    // It came while the first was answered, and only the reactor's turn tells of it.
    let _ = link.clone().brings(&[b"b\n"]);
    assert_eq!(now(session.recv()).unwrap().unwrap(), "b");
    assert_eq!(session.recv().await.unwrap(), None);
}

/// Lines in which `+` stands for a line feed.
struct Plus;

impl Framing for Plus {
    fn decode(&self, input: &[u8], searched: &mut usize) -> Result<Option<Frame>, FramingError> {
        let frame = Lines.decode(input, searched)?;
        Ok(frame.map(|frame| Frame { escaped: input[frame.start..frame.end].contains(&b'+'), ..frame }))
    }

    fn decode_end(&self, input: &[u8]) -> Result<Option<Frame>, FramingError> {
        Lines.decode_end(input)
    }

    fn unescape(&self, bytes: &[u8]) -> Result<Bytes, FramingError> {
        if bytes == b"+" {
            return Err(FramingError::Malformed { framing: "plus", reason: "there is nothing else" });
        }
        Ok(bytes.iter().map(|byte| if *byte == b'+' { b'\n' } else { *byte }).collect())
    }

    fn encode(&self, parts: &[&[u8]], output: &mut Vec<u8>) -> Result<(), FramingError> {
        Lines.encode(parts, output)
    }
}

#[test]
fn an_escaped_message_is_received_as_it_was_before_and_one_that_cannot_be_is_refused() {
    let mut session = session(Scripted::default().brings(&[b"a+b\nc\nd+", b"\ne\n+\nf\n"]), Plus);
    let mut lent = Vec::new();
    let answer = |exchange: &mut Exchange<'_>| {
        lent.push(exchange.message().to_vec());
        if lent.len() == 2 {
            exchange.end();
        }
        Ok(())
    };
    now(session.answer(answer)).unwrap();
    assert_eq!(lent, [&b"a\nb"[..], b"c"]);
    assert_eq!(now(session.recv()).unwrap().unwrap(), "d\n");
    assert_eq!(now(session.recv()).unwrap().unwrap(), "e");
    assert!(matches!(now(session.recv()), Err(Error::Framing(FramingError::Malformed { .. }))));
    assert_eq!(now(session.recv()).unwrap(), None);
}

#[test]
fn messages_are_answered_as_they_came_wherever_the_answering_is_taken_up_again() {
    let mut session = session(Scripted::default().brings(&[b"a+\nb\nc+\nd\n+e\nf\ng\n"]), Plus);
    let mut lent = Vec::new();
    for mut left in 1..=3 {
        let answer = |exchange: &mut Exchange<'_>| {
            lent.push(exchange.message().to_vec());
            left -= 1;
            if left == 0 {
                exchange.end();
            }
            Ok(())
        };
        now(session.answer(answer)).unwrap();
    }
    assert_eq!(lent, [&b"a\n"[..], b"b", b"c\n", b"d", b"\ne", b"f"]);
    assert_eq!(now(session.recv()).unwrap().unwrap(), "g");
}

#[test]
fn a_message_counts_as_received_from_when_it_is_looked_at() {
    let mut session = session(Scripted::default().brings(&[b"one\ntwo\nthree\nfour\n"]), Lines);
    let received = |session: &mut Session| (session.totals().messages_in, session.totals().bytes_in);
    let fails = |exchange: &mut Exchange<'_>| match exchange.message() {
        b"two" => Err(Error::handler("as it was told")),
        _ => Ok(()),
    };
    assert!(now(session.answer(fails)).is_err());
    assert_eq!(received(&mut session), (2, 6));
    assert_eq!(now(session.recv()).unwrap().unwrap(), "three");
    assert_eq!(received(&mut session), (3, 11));
    let ends = |exchange: &mut Exchange<'_>| {
        exchange.end();
        Ok(())
    };
    now(session.answer(ends)).unwrap();
    assert_eq!(received(&mut session), (4, 15));
}

#[test]
fn what_a_layer_below_holds_is_flushed_until_it_is_gone() {
    let link = Scripted::default();
    link.0.lock().unwrap().held = true;
    let mut session = session(link.clone(), Raw { largest: 99 });
    now(session.send(b"secret")).unwrap();
    for _ in 0..2 {
        assert!(poll_once(session.flush()).is_pending(), "all is written, and some of it is held below");
        assert_eq!(link.writes(), [b"secret".to_vec()]);
    }
    assert!(session.wire().lock().buffered() > 0, "the write clock runs");
    link.0.lock().unwrap().held = false;
    now(session.flush()).unwrap();
    assert_eq!(session.wire().lock().buffered(), 0);
}

#[test]
fn half_a_close_still_receives() {
    let link = Scripted::default().brings(&[b"late"]);
    let mut session = session(link.clone(), Raw { largest: 99 });
    now(session.send(b"last words")).unwrap();
    now(session.finish()).unwrap();
    now(session.finish()).unwrap();
    assert_eq!(link.0.lock().unwrap().shut, 1, "the peer is told once");
    assert_eq!(link.writes(), [b"last words".to_vec()]);
    assert!(matches!(now(session.send(b"more")), Err(Error::Closed)));
    assert_eq!(now(session.recv()).unwrap().unwrap(), "late");
}

#[test]
fn after_the_end_there_is_only_the_end_and_sending_goes_on() {
    let link = Scripted::default();
    link.0.lock().unwrap().ended = true;
    let mut session = session(link.clone(), Raw { largest: 99 });
    assert_eq!(now(session.recv()).unwrap(), None);
    assert_eq!(now(session.recv()).unwrap(), None);
    now(session.send(b"bye")).unwrap();
    now(session.flush()).unwrap();
    assert_eq!(link.writes(), [b"bye".to_vec()]);
}

#[test]
fn a_stream_that_ends_inside_a_message_says_so() {
    let link = Scripted::default().brings(&[b"whole\nhal"]);
    link.0.lock().unwrap().ended = true;
    let mut session = session(link, Lines);
    assert_eq!(now(session.recv()).unwrap().unwrap(), "whole");
    assert!(matches!(now(session.recv()), Err(Error::Framing(FramingError::Incomplete { .. }))));
}

#[test]
fn a_pusher_is_refused_when_the_peer_does_not_read_and_when_the_session_is_over() {
    let link = Scripted::default();
    link.set_room(0);
    let session = session(link, Raw { largest: 1 << 20 });
    let pusher = session.pusher();
    let block = [b'x'; 1000];
    let taken = (0..1000).take_while(|_| pusher.try_push(&[&block]).is_ok()).count();
    assert!((WATERMARK..WATERMARK + 1000).contains(&(taken * 1000)));
    assert!(matches!(pusher.try_push(&[b"x"]), Err(PushError::Full)));
    drop(session);
    assert!(pusher.is_closed());
    assert!(matches!(pusher.try_push(&[b"x"]), Err(PushError::Closed)));
}

#[tokio::test]
async fn a_pusher_that_waits_goes_on_when_the_peer_reads_or_leaves() {
    let (near, mut far) = tokio::io::duplex(1024);
    let mut session = session(near, Raw { largest: 1 << 20 });
    let pusher = session.pusher();
    while pusher.try_push(&[&[b'x'; 1000]]).is_ok() {}
    let waiting = tokio::spawn({
        let pusher = pusher.clone();
        async move { pusher.push(&[b"finally"]).await }
    });
    let mut all = vec![0; WATERMARK];
    let (read, flushed) = tokio::join!(far.read_exact(&mut all), session.flush());
    read.unwrap();
    flushed.unwrap();
    waiting.await.unwrap().unwrap();

    while pusher.try_push(&[&[b'x'; 1000]]).is_ok() {}
    let waiting = tokio::spawn(async move { pusher.push(&[b"never"]).await });
    tokio::task::yield_now().await;
    drop(session);
    assert!(matches!(waiting.await.unwrap(), Err(PushError::Closed)));
}

#[test]
fn answers_wait_for_room_also_where_each_is_asked_for_anew() {
    let link = Scripted::default().brings(&[&b"x\n".repeat(100)]);
    link.set_room(0);
    let mut session = session(link.clone(), Lines);
    let block = [b'y'; 999];
    let mut answered = 0;
    let mut answer_one = || {
        let answer = session.answer(|exchange| {
            exchange.end();
            exchange.reply(&[&block])
        });
        poll_once(answer).is_ready()
    };
    while answered < 100 && answer_one() {
        answered += 1;
    }
    assert!((WATERMARK..WATERMARK + 1000).contains(&(answered * 1000)), "{answered} were answered");
    link.set_room(usize::MAX);
    assert!(answer_one(), "there is room again");
}

#[test]
fn no_message_is_received_to_be_answered_while_others_fill_the_link() {
    let filled = Arc::new(std::sync::atomic::AtomicUsize::new(WATERMARK));
    let opened = Opened { link: Link::Messages(Box::new(Crowded(filled.clone()))), peer: nobody() };
    let mut session = Session::new(opened, None).unwrap();
    let mut answered = 0;
    {
        let mut answering = pin!(session.answer(|exchange| {
            answered += 1;
            // Others fill it once more.
            filled.store(WATERMARK, std::sync::atomic::Ordering::Relaxed);
            exchange.reply(&[b"y"])
        }));
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..3 {
            assert!(answering.as_mut().poll(&mut cx).is_pending());
            filled.store(0, std::sync::atomic::Ordering::Relaxed);
        }
    }
    assert_eq!(answered, 2, "one each time that there was room");
}

/// A link that waits for what others fill and empty.
struct Crowded(Arc<std::sync::atomic::AtomicUsize>);

impl MessageStream for Crowded {
    fn poll_recv(&mut self, _: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        Poll::Ready(Ok(Some(Bytes::from_static(b"x"))))
    }

    fn start_send(&mut self, _: &[&[u8]]) -> Result<()> {
        Ok(())
    }

    fn buffered(&self) -> usize {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        if self.buffered() < WATERMARK { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_flush(cx)
    }
}

#[tokio::test]
async fn a_pusher_that_waits_goes_on_when_somebody_else_makes_room() {
    let filled = Arc::new(std::sync::atomic::AtomicUsize::new(WATERMARK));
    let opened = Opened { link: Link::Messages(Box::new(Crowded(filled.clone()))), peer: nobody() };
    let mut session = Session::new(opened, None).unwrap();
    let pusher = session.pusher();
    let waiting = tokio::spawn(async move { pusher.push(&[b"finally"]).await });
    tokio::task::yield_now().await;
    filled.store(0, std::sync::atomic::Ordering::Relaxed);
    session.flush().await.unwrap();
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn both_directions_run_apart_when_a_session_is_split() {
    let (near, mut far) = tokio::io::duplex(16);
    let mut session = session(near, Raw { largest: 1 << 20 });
    let (mut receiving, mut sending) = session.split();
    let sent = async {
        for _ in 0..100 {
            sending.send(&[b'o'; 1000]).await.unwrap();
        }
        sending.finish().await.unwrap();
    };
    let received = async {
        let mut total = 0;
        while let Some(message) = receiving.recv().await.unwrap() {
            total += message.len();
        }
        total
    };
    let peer = async {
        // It writes all before it reads any: this must not stop the other direction from being read.
        far.write_all(&[b'i'; 5000]).await.unwrap();
        let mut all = Vec::new();
        far.shutdown().await.unwrap();
        far.read_to_end(&mut all).await.unwrap();
        all.len()
    };
    let ((), total, all) = tokio::join!(sent, received, peer);
    assert_eq!((total, all), (5000, 100_000));
}

#[tokio::test(start_paused = true)]
async fn a_close_reads_on_for_a_moment_so_that_nothing_is_reset() {
    let (near, mut far) = tokio::io::duplex(1024);
    let mut session = session(near, Raw { largest: 1 << 20 });
    session.send(b"bye").await.unwrap();
    let closing = tokio::spawn(session.close());
    let mut all = Vec::new();
    far.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"bye");
    // Still open for what the peer was sending, then closed without waiting for it for ever.
    far.write_all(b"late").await.unwrap();
    closing.await.unwrap().unwrap();
    assert!(far.write_all(&[0; 2048]).await.is_err());
}

#[test]
fn a_link_that_fails_while_the_session_is_finished_is_broken() {
    let (near, far) = tokio::io::duplex(64);
    let mut session = session(near, Lines);
    drop(far);
    assert!(matches!(poll_once(session.send(b"x")), Poll::Ready(Ok(()))));
    assert!(matches!(poll_once(session.finish()), Poll::Ready(Err(Error::Link(_)))));
    assert!(session.wire().lock().is_broken());
}
