//! What is sent in a turn reaches its own peer, in order, and nobody else.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::session::turn::Gathering;

/// Runs what a handler does in one turn, as the engine does.
fn in_a_turn<T>(session: &mut Session, act: impl FnOnce(&mut Session) -> T) -> T {
    let wire = session.wire().clone();
    let gathering = if wire.lock().lets_gather() { Gathering::ToWrite } else { Gathering::No };
    let turn = turn::take(&wire, gathering);
    let done = act(session);
    drop(wire.lock_settled());
    drop(turn);
    done
}

#[test]
fn what_is_sent_in_a_turn_that_settles_later_waits_in_the_wire_in_order() {
    let link = Scripted::default().brings(&[b"x\n"]);
    let mut session = session(link.clone(), Lines);
    let wire = session.wire().clone();
    let turn = turn::take(&wire, Gathering::ForLater);
    now(session.recv()).unwrap().unwrap();
    now(session.send(b"a")).unwrap();
    assert!(!turn::is_for_later(), "the handler does not wait");
    assert!(poll_once(session.recv()).is_pending());
    assert!(turn::is_for_later());
    drop(turn);
    assert_eq!(link.writes(), Vec::<Vec<u8>>::new());
    // It runs once more before it settles.
    let turn = turn::take(&wire, Gathering::No);
    now(session.send(b"b")).unwrap();
    assert!(!turn::is_for_later());
    drop(wire.lock_settled());
    drop(turn);
    assert!(poll_once(session.flush()).is_ready());
    assert_eq!(link.writes(), [b"a\nb\n".to_vec()]);
}

#[test]
fn what_is_sent_in_a_turn_reaches_the_wire_when_the_handler_waits_or_ends_its_turn() {
    let link = Scripted::default().brings(&[b"x\n"]);
    let mut session = session(link.clone(), Lines);
    in_a_turn(&mut session, |session| {
        assert_eq!(now(session.recv()).unwrap().unwrap(), "x");
        now(session.send(b"a")).unwrap();
        now(session.send_parts(&[b"b", b"c"])).unwrap();
        assert_eq!(session.wire().lock().buffered(), 0, "it is gathered without the wire");
        assert!(poll_once(session.recv()).is_pending());
        assert_eq!(link.writes(), [b"a\nbc\n".to_vec()]);
        now(session.send(b"d")).unwrap();
    });
    assert_eq!(session.wire().lock().buffered(), 2);
    let totals = session.totals();
    assert_eq!((totals.messages_in, totals.bytes_in, totals.messages_out, totals.bytes_out), (1, 1, 3, 4));
}

#[test]
fn what_is_sent_keeps_its_order_whichever_way_it_is_sent() {
    let link = Scripted::default();
    let mut session = session(link.clone(), Lines);
    in_a_turn(&mut session, |session| {
        now(session.send(b"a")).unwrap();
        let pusher = session.pusher();
        pusher.try_push(&[b"b"]).unwrap();
        now(session.send(b"c")).unwrap();
        pusher.try_push(&[b"d"]).unwrap();
        now(session.split().1.send(b"e")).unwrap();
        now(session.send(b"f")).unwrap();
        now(session.flush()).unwrap();
        now(session.send(b"g")).unwrap();
        now(session.finish()).unwrap();
        assert!(matches!(now(session.send(b"h")), Err(Error::Closed)));
    });
    assert_eq!(link.writes().concat(), b"a\nb\nc\nd\ne\nf\ng\n");
}

#[test]
fn a_turn_has_the_same_watermark_and_loses_nothing_at_it() {
    let link = Scripted::default();
    link.set_room(0);
    let mut session = session(link.clone(), Raw { largest: 1 << 20 });
    let block = [b'x'; 1000];
    let taken = in_a_turn(&mut session, |session| {
        let taken = (0..100).take_while(|_| poll_once(session.send(&block)).is_ready()).count();
        link.set_room(usize::MAX);
        assert!(poll_once(session.send(&block)).is_ready(), "there is room again");
        taken
    });
    assert!((WATERMARK..WATERMARK + 1000).contains(&(taken * 1000)), "{taken} blocks were taken");
    now(session.flush()).unwrap();
    assert_eq!(link.written(), (taken + 1) * 1000);
}

#[test]
fn a_turn_within_a_turn_is_another_session_s() {
    let (outer_link, inner_link) = (Scripted::default(), Scripted::default());
    let (mut outer, mut inner) = (session(outer_link.clone(), Lines), session(inner_link.clone(), Lines));
    in_a_turn(&mut outer, |outer| {
        now(outer.send(b"a")).unwrap();
        in_a_turn(&mut inner, |inner| now(inner.send(b"b")).unwrap());
        now(outer.send(b"c")).unwrap();
    });
    now(outer.flush()).unwrap();
    now(inner.flush()).unwrap();
    assert_eq!((outer_link.writes().concat(), inner_link.writes().concat()), (b"a\nc\n".to_vec(), b"b\n".to_vec()));
}

/// What another session's peer gets that is served next on this thread.
fn next_peer_gets() -> Vec<u8> {
    let link = Scripted::default();
    let mut session = session(link.clone(), Lines);
    in_a_turn(&mut session, |session| now(session.send(b"mine")).unwrap());
    now(session.flush()).unwrap();
    link.writes().concat()
}

/// Writes half a message, and then fails or panics.
struct Breaks {
    panics: bool,
}

impl Framing for Breaks {
    fn decode(&self, input: &[u8], searched: &mut usize) -> Result<Option<Frame>, FramingError> {
        Lines.decode(input, searched)
    }

    fn decode_end(&self, input: &[u8]) -> Result<Option<Frame>, FramingError> {
        Lines.decode_end(input)
    }

    fn encode(&self, parts: &[&[u8]], output: &mut Vec<u8>) -> Result<(), FramingError> {
        Lines.encode(parts, output)?;
        match parts {
            [b"whole"] => Ok(()),
            _ if self.panics => panic!("as it was told"),
            _ => Err(FramingError::Unencodable { framing: "breaks", reason: "as it was told" }),
        }
    }
}

#[test]
fn what_a_framing_leaves_when_it_fails_or_panics_is_no_message_and_reaches_nobody() {
    for panics in [false, true] {
        let link = Scripted::default();
        let mut session = session(link.clone(), Breaks { panics });
        let sent = in_a_turn(&mut session, |session| {
            now(session.send(b"whole")).unwrap();
            catch_unwind(AssertUnwindSafe(|| now(session.send(b"secret"))))
        });
        assert!(sent.is_err() == panics && sent.is_ok_and(|sent| sent.is_err()) != panics);
        now(session.flush()).unwrap();
        assert_eq!(link.writes().concat(), b"whole\n");
        assert_eq!(next_peer_gets(), b"mine\n");
    }
}

#[test]
fn what_a_session_sent_that_is_dropped_in_its_turn_reaches_nobody_else() {
    let mut session = session(Scripted::default(), Lines);
    let wire = session.wire().clone();
    let turn = turn::take(&wire, Gathering::ToWrite);
    now(session.send(b"secret")).unwrap();
    drop(session);
    drop(wire.lock_settled());
    drop(turn);
    assert_eq!(next_peer_gets(), b"mine\n");
}

/// Sends to another session whenever it encodes.
struct Tells(Mutex<Session>);

impl Framing for Tells {
    fn decode(&self, input: &[u8], searched: &mut usize) -> Result<Option<Frame>, FramingError> {
        Lines.decode(input, searched)
    }

    fn decode_end(&self, input: &[u8]) -> Result<Option<Frame>, FramingError> {
        Lines.decode_end(input)
    }

    fn encode(&self, parts: &[&[u8]], output: &mut Vec<u8>) -> Result<(), FramingError> {
        now(self.0.lock().unwrap().send(b"told")).unwrap();
        Lines.encode(parts, output)
    }
}

#[test]
fn a_framing_may_itself_send_elsewhere() {
    let (told, link) = (Scripted::default(), Scripted::default());
    let framing = Tells(Mutex::new(session(told, Lines)));
    let mut session = session(link.clone(), framing);
    in_a_turn(&mut session, |session| {
        now(session.send(b"a")).unwrap();
        now(session.send(b"b")).unwrap();
    });
    now(session.flush()).unwrap();
    assert_eq!(link.writes().concat(), b"a\nb\n");
}
