//! What is read before a session asks for it reaches the session as if it had read it by itself.

use super::*;

fn read_ahead(session: &Session) {
    session.wire().lock().read_ahead(&mut Context::from_waker(Waker::noop()));
}

#[test]
fn what_was_read_ahead_comes_before_what_is_read_after_it() {
    let link = Scripted::default().brings(&[b"a\nb", b"c\n", b"d\n"]);
    let mut session = session(link.clone(), Lines);
    for expected in ["a", "bc", "d"] {
        read_ahead(&session);
        assert_eq!(now(session.recv()).unwrap().unwrap(), expected);
    }
}

#[test]
fn no_more_than_one_read_is_held_for_a_session_that_does_not_ask() {
    let link = Scripted::default().brings(&[b"a\n", b"b\n"]);
    let session = session(link.clone(), Lines);
    for _ in 0..3 {
        read_ahead(&session);
    }
    assert_eq!(link.reads(), 1);
}

#[test]
fn where_nothing_had_come_yet_the_session_reads_by_itself() {
    let link = Scripted::default();
    let mut session = session(link.clone(), Lines);
    read_ahead(&session);
    let _ = link.brings(&[b"a\n"]);
    assert_eq!(now(session.recv()).unwrap().unwrap(), "a");
}

#[test]
fn the_end_that_was_met_ahead_is_the_end() {
    let link = Scripted::default();
    link.0.lock().unwrap().ended = true;
    let mut session = session(link.clone(), Lines);
    read_ahead(&session);
    // A link may tell of its end only once.
    link.0.lock().unwrap().ended = false;
    assert_eq!(now(session.recv()).unwrap(), None);
    assert_eq!(now(session.recv()).unwrap(), None);
    assert_eq!(link.reads(), 1);
}

#[test]
fn a_failure_that_was_met_ahead_is_the_session_s() {
    let link = Scripted::default();
    link.0.lock().unwrap().failure = Some(io::ErrorKind::ConnectionReset);
    let mut session = session(link.clone(), Lines);
    read_ahead(&session);
    let error = now(session.recv()).unwrap_err();
    assert!(error.to_string().contains("reset"), "{error}");
    assert!(session.wire().lock().is_broken());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_lets_go_of_what_was_read_ahead_and_takes_no_end_for_more() {
    let link = Scripted::default().brings(&[b"a\n"]);
    link.0.lock().unwrap().ended = true;
    let mut ends = session(link.clone(), Lines);
    read_ahead(&ends);
    ends.end().await.unwrap();
    assert_eq!(link.reads(), 2, "it read on to the end");

    let link = Scripted::default();
    link.0.lock().unwrap().ended = true;
    let mut ended = session(link.clone(), Lines);
    read_ahead(&ended);
    link.0.lock().unwrap().ended = false;
    ended.end().await.unwrap();
    assert_eq!(link.reads(), 1);
}

#[test]
fn what_broke_the_framing_is_the_last_that_is_read() {
    let link = Scripted::default().brings(&[b"!\n", b"a\n"]);
    let mut session = session(link.clone(), Lines);
    read_ahead(&session);
    assert!(now(session.recv()).is_err());
    read_ahead(&session);
    assert_eq!((now(session.recv()).unwrap(), link.reads()), (None, 1));
}

#[test]
fn more_than_is_read_ahead_is_read_by_the_session_even_of_a_link_that_tells_of_more() {
    let long = [vec![b'a'; 4095], b"\n".to_vec()].concat();
    let link = Scripted::default().brings(&[&long, b"b\n"]);
    let mut session = session(link.clone(), Lines).that_is_told();
    let wire = session.wire().clone();
    read_ahead(&session);
    let turn = turn::take(&wire, Waker::noop());
    assert_eq!(now(session.recv()).unwrap().unwrap().len(), 4095);
    assert_eq!(now(session.recv()).unwrap().unwrap(), "b");
    assert!(poll_once(session.recv()).is_pending());
    assert_eq!(link.reads(), 2, "and not in vain");
    drop(turn);
}

/// Lines as they come, some of them escaped, and what they mean.
fn some_lines(roll: &mut impl FnMut(usize) -> usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut stream = Vec::new();
    let mut expected: Vec<Vec<u8>> = Vec::new();
    for _ in 0..roll(60) {
        let mut line: Vec<u8> = (0..roll(6)).map(|_| b"ab+"[roll(3)]).collect();
        if line == b"+" {
            line = b"x".to_vec();
        }
        stream.extend_from_slice(&line);
        stream.push(b'\n');
        expected.push(line.iter().map(|byte| if *byte == b'+' { b'\n' } else { *byte }).collect());
    }
    (stream, expected)
}

/// However what comes is cut, whoever reads it, and however it is received, in turns or not.
#[test]
fn messages_are_received_in_order_once_each_and_counted_whatever_way_they_are_received() {
    for seed in 1..4000_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut roll = move |sides: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % sides as u64) as usize
        };
        let (stream, expected) = some_lines(&mut roll);
        let link = Scripted::default();
        let mut session = session(link.clone(), Plus).that_is_told();
        let wire = session.wire().clone();
        let mut rest = &stream[..];
        let (mut received, mut sent) = (Vec::<Vec<u8>>::new(), 0);
        let mut idle = 0;
        let mut later: Option<turn::Sent> = None;
        while idle < 50 {
            if let Some(sent) = later.take() {
                if roll(4) == 0 {
                    sent.give_back(&wire);
                } else {
                    sent.write(&wire, &mut Context::from_waker(Waker::noop()));
                }
            }
            if roll(2) == 0 {
                let (now, then) = rest.split_at(rest.len().min(roll(20) + 1));
                if !now.is_empty() {
                    let _ = link.clone().brings(&[now]);
                }
                rest = then;
            }
            link.set_room(if roll(3) == 0 { 3 } else { usize::MAX });
            if roll(2) == 0 {
                read_ahead(&session);
            }
            let gathers = wire.lock().lets_gather();
            let turn = (gathers && roll(5) > 0).then(|| turn::take(&wire, Waker::noop()));
            let before = received.len();
            for _ in 0..roll(4) {
                if roll(2) == 0 {
                    let (mut left, how) = (roll(5) + 1, roll(3));
                    let answering = session.answer(|exchange| {
                        received.push(exchange.message().to_vec());
                        left -= 1;
                        if how != 0 {
                            exchange.reply(&[b"r"])?;
                            sent += 1;
                        }
                        match (left, how) {
                            (0, 2) => Err(Error::Closed),
                            (0, _) => {
                                exchange.end();
                                Ok(())
                            }
                            _ => Ok(()),
                        }
                    });
                    let _ = poll_once(answering);
                } else if let Poll::Ready(message) = poll_once(session.recv()) {
                    received.push(message.unwrap().unwrap().to_vec());
                    if roll(2) == 0 && poll_once(session.send(b"r")).is_ready() {
                        sent += 1;
                    }
                }
            }
            idle = if received.len() == before && rest.is_empty() { idle + 1 } else { 0 };
            if let Some(turn) = turn {
                match turn.finish() {
                    Ok(sent) => later = Some(sent),
                    Err(turn) => {
                        drop(wire.lock_settled());
                        drop(turn);
                    }
                }
            }
        }
        if let Some(sent) = later.take() {
            sent.give_back(&wire);
        }
        assert_eq!(received, expected, "seed {seed}");
        link.set_room(usize::MAX);
        now(session.flush()).unwrap();
        assert_eq!(link.writes().concat(), b"r\n".repeat(sent), "seed {seed}");
        let totals = session.totals();
        let bytes: usize = expected.iter().map(Vec::len).sum();
        assert_eq!(
            (totals.messages_in, totals.bytes_in, totals.messages_out, totals.bytes_out),
            (expected.len() as u64, bytes as u64, sent as u64, sent as u64),
            "seed {seed}"
        );
    }
}
