//! What is sent in a turn reaches its own peer, in order, and nobody else.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use std::task::Waker;

/// Runs what a handler does in one turn, as the engine does.
fn in_a_turn<T>(session: &mut Session, act: impl FnOnce(&mut Session) -> T) -> T {
    let wire = session.wire().clone();
    let gathers = wire.lock().lets_gather();
    let turn = gathers.then(|| turn::take(&wire, Waker::noop()));
    let done = act(session);
    drop(wire.lock_settled());
    drop(turn);
    done
}

#[test]
fn what_is_sent_in_a_turn_reaches_the_wire_at_its_end() {
    let link = Scripted::default().brings(&[b"x\n"]);
    let mut session = session(link.clone(), Lines);
    in_a_turn(&mut session, |session| {
        assert_eq!(now(session.recv()).unwrap().unwrap(), "x");
        now(session.send(b"a")).unwrap();
        now(session.send_parts(&[b"b", b"c"])).unwrap();
        assert_eq!(session.wire().lock().buffered(), 0, "it is gathered without the wire");
        assert!(poll_once(session.recv()).is_pending());
        now(session.send(b"d")).unwrap();
    });
    assert_eq!(session.wire().lock().buffered(), 7);
    let totals = session.totals();
    assert_eq!((totals.messages_in, totals.bytes_in, totals.messages_out, totals.bytes_out), (1, 1, 3, 4));
    // It runs once more before that is written.
    in_a_turn(&mut session, |session| now(session.send(b"e")).unwrap());
    assert_eq!(link.writes(), Vec::<Vec<u8>>::new());
    now(session.flush()).unwrap();
    assert_eq!(link.writes(), [b"a\nbc\nd\ne\n".to_vec()]);
}

#[test]
fn a_handler_that_waits_has_what_it_sent_written_where_it_has_no_turn() {
    let link = Scripted::default();
    let mut session = session(link.clone(), Lines);
    now(session.send(b"a")).unwrap();
    assert!(poll_once(session.recv()).is_pending());
    assert_eq!(link.writes(), [b"a\n".to_vec()]);
}

#[test]
fn a_link_that_tells_of_more_is_asked_in_vain_by_nobody_but_another_task_or_one_that_asks_twice() {
    let link = Scripted::default();
    let mut session = told_session(link.clone(), Lines);
    let wire = session.wire().clone();
    let other = std::task::Waker::from(Arc::new(Other));
    let mut told = Context::from_waker(Waker::noop());
    let mut elsewhere = Context::from_waker(&other);
    let mut ask = |cx: &mut Context<'_>| match session.poll_recv(cx) {
        Poll::Pending => None,
        Poll::Ready(message) => Some(message.unwrap().unwrap()),
    };
    let turn = turn::take(&wire, Waker::noop());
    let asked = link.clone().brings(&[b"a\nb\n"]).reads();
    assert_eq!((ask(&mut told), ask(&mut told)), (Some("a".into()), Some("b".into())));
    assert_eq!((ask(&mut told), turn::waits(), link.reads()), (None, true, asked + 1));
    assert_eq!((ask(&mut told), link.reads()), (None, asked + 2));
    drop(turn);
    let turn = turn::take(&wire, Waker::noop());
    let _ = link.clone().brings(&[b"c\n"]);
    assert_eq!(ask(&mut told), Some("c".into()));
    assert_eq!((ask(&mut elsewhere), link.reads()), (None, asked + 4));
    drop(turn);
    let _turn = turn::take(&wire, Waker::noop());
    let _ = link.clone().brings(&[b"d\n"]);
    assert_eq!(ask(&mut elsewhere), Some("d".into()));
    assert_eq!((ask(&mut told), link.reads()), (None, asked + 6));
}

#[test]
fn a_handler_that_looked_for_a_message_in_passing_is_told_of_the_next_all_the_same() {
    let link = Scripted::default().brings(&[b"a\n"]);
    let mut session = told_session(link.clone(), Lines);
    let wire = session.wire().clone();
    let other = Waker::from(Arc::new(Other));
    let mut driver = Context::from_waker(&other);
    let _turn = turn::take(&wire, &other);
    assert!(session.poll_recv(&mut driver).is_ready());
    assert!(poll_once(session.recv()).is_pending(), "with a waker that wakes nobody, which the link knows now");
    let asked = link.reads();
    assert!(session.poll_recv(&mut driver).is_pending());
    assert_eq!(link.reads(), asked + 1, "the link is left the waker of who runs the session");
}

#[test]
fn a_handler_that_has_a_message_after_it_asked_in_vain_does_not_wait() {
    let link = Scripted::default().brings(&[b"a\n"]);
    let mut session = told_session(link.clone(), Lines);
    in_a_turn(&mut session, |session| {
        now(session.recv()).unwrap();
        assert!(poll_once(session.recv()).is_pending());
        drop(link.brings(&[b"b\n"]));
        now(session.recv()).unwrap();
    });
    assert!(!session.wire().lock().take_receiving(), "it works on the second");
}

#[test]
fn a_greeting_is_left_to_be_written_behind_the_turn_by_a_handler_that_only_answers_afterwards() {
    let link = Scripted::default();
    let mut session = session(link.clone(), Lines);
    let wire = session.wire().clone();
    let turn = turn::take(&wire, Waker::noop());
    now(session.send(b"welcome")).unwrap();
    assert!(poll_once(session.answer(|_| Ok(()))).is_pending());
    let Ok(sent) = turn.finish() else { panic!("all of it was gathered") };
    assert!(sent.write(&wire, &mut Context::from_waker(Waker::noop())));
    assert_eq!(link.writes(), [b"welcome\n".to_vec()]);
}

struct Other;

impl std::task::Wake for Other {
    fn wake(self: Arc<Self>) {}
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
    let turn = turn::take(&wire, Waker::noop());
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

/// A turn that ends with the handler waiting: what it sent is written behind it.
fn sent_in_a_turn(session: &mut Session) -> turn::Sent {
    let wire = session.wire().clone();
    let turn = turn::take(&wire, Waker::noop());
    now(session.send(b"a")).unwrap();
    now(session.send(b"b")).unwrap();
    assert!(poll_once(session.recv()).is_pending());
    turn.finish().unwrap_or_else(|_| panic!("it waits for a message"))
}

#[test]
fn what_is_written_behind_a_turn_is_written_at_once_and_counted() {
    let link = Scripted::default();
    let mut session = session(link.clone(), Lines);
    let sent = sent_in_a_turn(&mut session);
    assert_eq!((sent.messages(), link.written()), ((0, 2), 0));
    assert!(sent.write(session.wire(), &mut Context::from_waker(Waker::noop())));
    assert_eq!(link.writes(), [b"a\nb\n".to_vec()]);
    let totals = session.totals();
    assert_eq!((totals.messages_out, totals.bytes_out), (2, 2));
}

#[test]
fn what_there_is_no_room_for_behind_a_turn_waits_before_what_is_sent_next() {
    let link = Scripted::default();
    link.set_room(1);
    let mut session = session(link.clone(), Lines);
    let sent = sent_in_a_turn(&mut session);
    assert!(!sent.write(session.wire(), &mut Context::from_waker(Waker::noop())));
    now(session.send(b"c")).unwrap();
    link.set_room(100);
    now(session.flush()).unwrap();
    assert_eq!(link.writes().concat(), b"a\nb\nc\n");
}

#[test]
fn a_turn_that_was_handed_over_or_whose_handler_does_not_wait_is_not_written_behind() {
    let link = Scripted::default();
    let mut session = session(link.clone(), Lines);
    let wire = session.wire().clone();
    let turn = turn::take(&wire, Waker::noop());
    now(session.send(b"a")).unwrap();
    let Err(turn) = turn.finish() else { panic!("the handler does not wait") };
    now(session.flush()).unwrap();
    now(session.send(b"b")).unwrap();
    assert!(poll_once(session.recv()).is_pending());
    assert!(turn.finish().is_err(), "the wire has counted a message of it already");
}

#[test]
fn what_is_given_back_behind_a_turn_is_the_session_s_and_its_handler_waits() {
    let link = Scripted::default();
    let mut session = session(link.clone(), Lines);
    sent_in_a_turn(&mut session).give_back(&session.wire().clone());
    let mut wire = session.wire().lock();
    assert_eq!((wire.buffered(), wire.take_receiving()), (4, true));
}

/// As with the buffers of an output, one that grew is freed rather than kept.
#[test]
fn a_thread_does_not_keep_the_memory_of_large_answers() {
    // As many as a crew runs before it writes.
    let sent: Vec<_> = (0..16)
        .map(|_| {
            let mut session = told_session(Scripted::default().brings(&[b"x\n"]), Lines);
            let wire = session.wire().clone();
            let turn = turn::take(&wire, Waker::noop());
            now(session.recv()).unwrap();
            now(session.send(&vec![b'a'; 1 << 20])).unwrap();
            assert!(poll_once(session.recv()).is_pending());
            let Ok(sent) = turn.finish() else { panic!("it waits") };
            (session, sent)
        })
        .collect();
    for (session, sent) in sent {
        assert!(sent.write(session.wire(), &mut Context::from_waker(Waker::noop())));
    }
    assert!(turn::kept_memory() <= 17 * 64 * 1024, "{} bytes", turn::kept_memory());
}
