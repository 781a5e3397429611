//! Messages are received in order, once each and counted, whatever way they come and are received.

use super::*;
use crate::random::Random;

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

/// However what comes is cut, and however it is received, in turns or not.
#[test]
fn messages_are_received_in_order_once_each_and_counted_whatever_way_they_are_received() {
    for seed in 1..4000_u64 {
        let mut random = Random::new(seed);
        let mut roll = |sides| random.below(sides);
        let (stream, expected) = some_lines(&mut roll);
        let link = Scripted::default();
        let mut session = told_session(link.clone(), Plus);
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
