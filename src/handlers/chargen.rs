//! `chargen`: the Character Generator Protocol, RFC 864.

use std::hash::{BuildHasher, RandomState};

use async_trait::async_trait;
use serde::Deserialize;

use super::announcement::send_what_fits;
use crate::error::Result;
use crate::handler::{Handler, Needs, Sessions};
use crate::options::{OptionDoc, OptionError};
use crate::session::{Receiving, Sending, Session};

/// How many characters a line has, and in how many bytes lines follow each other: its end is CR LF.
const WIDTH: usize = 72;
const STRIDE: usize = WIDTH + 2;
/// The printable characters of ASCII, from the space to the tilde. After as many lines the pattern begins anew.
const CHARACTERS: usize = 95;
/// All lines, one after the other.
static PATTERN: [u8; CHARACTERS * STRIDE] = pattern();
/// The most characters in an answer whose size is left to chance.
const LARGEST_BY_CHANCE: usize = 512;

/// What [`Chargen`] is made from.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How many characters answer a datagram.
    pub size: Option<usize>,
}

/// The options of [`Chargen`].
pub const OPTIONS: &[OptionDoc] = &[OptionDoc {
    name: "size",
    value: "N",
    default: "by chance, from 1 to 512",
    help: "how many characters answer a datagram, at most 7030",
}];

/// Sends lines of characters: without end to whoever connects, as fast as they are read; one answer to each datagram.
#[derive(Debug, Clone)]
pub struct Chargen {
    size: Option<usize>,
    chance: RandomState,
}

impl Chargen {
    /// With a size that the pattern can fill once.
    pub fn new(settings: Settings) -> Result<Self, OptionError> {
        if settings.size.is_some_and(|size| size > PATTERN.len()) {
            return Err(OptionError::Invalid(format!("the option `size` takes a number up to {}", PATTERN.len())));
        }
        Ok(Chargen { size: settings.size, chance: RandomState::new() })
    }

    /// How many characters answer that datagram. The RFC counts from 0; an empty answer would look like a lost one.
    fn size(&self, turn: u64) -> usize {
        self.size.unwrap_or_else(|| 1 + (self.chance.hash_one(turn) % LARGEST_BY_CHANCE as u64) as usize)
    }
}

#[async_trait]
impl Handler for Chargen {
    async fn serve(&self, session: &mut Session) -> Result<()> {
        if session.peer().connected() {
            let lines_end_themselves = session.peer().route.keeps_messages;
            let (ears, mouth) = session.split();
            // Neither first: each direction must be looked at, however busy the other one is.
            return tokio::select! {
                ended = ignore(ears) => ended,
                failed = generate(mouth, lines_end_themselves) => failed,
            };
        }
        let mut turn = 0;
        while session.recv().await?.is_some() {
            send_what_fits(session, &PATTERN[..self.size(turn)]).await?;
            turn += 1;
        }
        Ok(())
    }

    fn sessions(&self) -> Sessions {
        Sessions::Shared
    }

    fn needs(&self) -> Needs {
        Needs { responder: true, ..Needs::default() }
    }
}

/// Throws away what comes, until no more does.
async fn ignore(mut ears: Receiving<'_>) -> Result<()> {
    while ears.recv().await?.is_some() {
        tokio::task::consume_budget().await;
    }
    Ok(())
}

/// Sends without end; [`Sending::send`] waits for the reader.
async fn generate(mut mouth: Sending<'_>, lines_end_themselves: bool) -> Result<()> {
    loop {
        if lines_end_themselves {
            for line in PATTERN.chunks_exact(STRIDE) {
                mouth.send(&line[..WIDTH]).await?;
            }
        } else {
            mouth.send(&PATTERN).await?;
        }
        // A peer that takes everything at once must not keep the others from their turn.
        tokio::task::consume_budget().await;
    }
}

const fn pattern() -> [u8; CHARACTERS * STRIDE] {
    let mut pattern = [0; CHARACTERS * STRIDE];
    let mut line = 0;
    while line < CHARACTERS {
        let start = line * STRIDE;
        let mut column = 0;
        while column < WIDTH {
            pattern[start + column] = b' ' + ((line + column) % CHARACTERS) as u8;
            column += 1;
        }
        pattern[start + WIDTH] = b'\r';
        pattern[start + WIDTH + 1] = b'\n';
        line += 1;
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handlers::rehearsal::{Rehearsal, Stage};
    use crate::session::WATERMARK;

    fn chargen(size: Option<usize>) -> Chargen {
        Chargen::new(Settings { size }).unwrap()
    }

    #[tokio::test]
    async fn lines_rotate_by_one_character_and_come_round_after_ninety_five() {
        let mut talk = Rehearsal::of(chargen(None), Stage::Messages);
        let mut lines = Vec::new();
        for _ in 0..=CHARACTERS {
            lines.push(talk.hears().await);
        }
        let printable: String = (' '..='~').collect();
        assert_eq!(lines[0], printable[..WIDTH]);
        assert_eq!(lines[1], printable[1..=WIDTH]);
        assert_eq!(lines[94], format!("~{}", &printable[..WIDTH - 1]));
        assert_eq!(lines[95], lines[0]);
    }

    #[tokio::test]
    async fn plain_bytes_carry_the_line_ends_and_never_stop_by_themselves() {
        let mut talk = Rehearsal::of(chargen(None), Stage::Raw);
        let mut heard = Vec::new();
        while heard.len() < 100_000 {
            heard.extend(talk.hears_bytes().await);
        }
        for (index, line) in heard.chunks_exact(STRIDE).enumerate() {
            assert!(line.ends_with(b"\r\n"));
            assert_eq!(line[0], b' ' + (index % CHARACTERS) as u8, "line {index}");
        }
    }

    #[tokio::test]
    async fn input_is_ignored_and_its_end_ends_the_stream() {
        let mut talk = Rehearsal::of(chargen(None), Stage::Raw);
        for _ in 0..100 {
            talk.says("stop it").await;
        }
        talk.hears().await;
        talk.falls_silent().await;
        talk.hears_the_rest().await;
        talk.ends().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_stops_the_generator_within_a_bounded_buffer() {
        let mut talk = Rehearsal::of(chargen(None), Stage::Raw);
        talk.lets_time_pass().await;
        let kept = talk.bytes_kept_for_it();
        assert!((WATERMARK..WATERMARK + PATTERN.len()).contains(&kept), "{kept} bytes are kept");
    }

    #[tokio::test]
    async fn each_datagram_has_one_answer_of_bounded_size() {
        let mut talk = Rehearsal::of(chargen(None), Stage::Datagrams);
        let mut sizes = std::collections::BTreeSet::new();
        for _ in 0..100 {
            talk.says("").await;
            let answer = talk.hears_bytes().await;
            assert!((1..=LARGEST_BY_CHANCE).contains(&answer.len()));
            assert!(PATTERN.starts_with(&answer));
            sizes.insert(answer.len());
        }
        assert!(sizes.len() > 20, "the sizes vary: {sizes:?}");
        assert!(talk.hears_nothing_more().await);
    }

    #[tokio::test]
    async fn the_size_of_an_answer_can_be_fixed_and_is_held_to_what_may_be_sent() {
        let mut talk = Rehearsal::of(chargen(Some(1000)), Stage::DatagramsUpTo(128));
        talk.says("").await;
        assert_eq!(talk.hears_bytes().await.len(), 128);
        assert!(Chargen::new(Settings { size: Some(7031) }).is_err());
    }
}
