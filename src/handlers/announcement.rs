//! Saying one thing, whatever was asked: what `qotd`, `daytime` and `time` have in common.

use crate::error::Result;
use crate::link::Peer;
use crate::session::Session;

/// Sends the answer once to whoever connects, who then sees the close; on datagrams in reply to each. `write` appends
/// it to a buffer that is used again.
pub(super) async fn tell(session: &mut Session, write: impl Fn(&Peer, &mut Vec<u8>)) -> Result<()> {
    let mut answer = Vec::new();
    if session.peer().connected() {
        write(session.peer(), &mut answer);
        return send_what_fits(session, &answer).await;
    }
    while session.recv().await?.is_some() {
        answer.clear();
        write(session.peer(), &mut answer);
        send_what_fits(session, &answer).await?;
    }
    Ok(())
}

/// Sends the message, or as much from its front as may be sent: a source that may be forged is not sent much more
/// than it asked with. UTF-8 is not cut inside of a character.
pub(super) async fn send_what_fits(session: &mut Session, message: &[u8]) -> Result<()> {
    let limit = session.reply_limit().unwrap_or(usize::MAX);
    session.send(front(message, limit)).await
}

fn front(message: &[u8], limit: usize) -> &[u8] {
    let limit = limit.min(message.len());
    let begins = |&end: &usize| message.get(end).is_none_or(|byte| byte & 0b1100_0000 != 0b1000_0000);
    // A character has four bytes at most: what goes on for longer is no UTF-8.
    let boundary = (0..=limit).rev().take(4).find(begins);
    &message[..boundary.unwrap_or(limit)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_before_a_character_and_bytes_are_cut_anywhere() {
        let text = "a\u{e9}\u{1f600}".as_bytes();
        for (limit, expected) in [(0, 0), (1, 1), (2, 1), (3, 3), (4, 3), (6, 3), (7, 7), (9, 7)] {
            assert_eq!(front(text, limit).len(), expected, "at {limit}");
        }
        assert_eq!(front(&[0x80; 9], 5).len(), 5);
    }
}
