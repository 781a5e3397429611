//! Bytes that are the same each time but for a number in them: what is sent, and what is predicted to come back.
//!
//! Numbers mostly follow each other, and the next one is made by counting up in the digits themselves, which touches
//! one byte nine times out of ten.

use std::ops::Range;

use memchr::memmem;

use crate::framing::Framing;

/// How long a number is written at most: any 64-bit one fits.
pub(super) const DIGITS: usize = 20;
/// Numbers that a framing is tried with; see [`Pattern::framed`].
const TRIED: [u64; 4] = [0, 11_111_111_111_111_111_111, 1_234_567_890_123_456_789, 9_876_543_210_987_654_321];

/// Bytes with a number in them, or with none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    bytes: Vec<u8>,
    /// Where the number is; empty where there is none.
    digits: Range<usize>,
    /// What is written there now.
    number: u64,
}

impl Pattern {
    /// The same each time.
    pub(super) fn constant(bytes: impl Into<Vec<u8>>) -> Self {
        Pattern { bytes: bytes.into(), digits: 0..0, number: 0 }
    }

    /// With a number of so many digits between the two.
    pub(super) fn numbered(before: &[u8], width: usize, after: &[u8]) -> Self {
        let bytes = [before, &vec![b'0'; width], after].concat();
        Pattern { bytes, digits: before.len()..before.len() + width, number: 0 }
    }

    /// How many bytes it has.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// How many digits its number has.
    pub(super) fn width(&self) -> usize {
        self.digits.len()
    }

    /// How many different ones there are: numbers beyond begin at 0 again. `None` where all of 64 bits fit.
    pub(super) fn distinct(&self) -> Option<u64> {
        (self.width() < DIGITS).then(|| 10_u64.pow(self.width() as u32))
    }

    /// With that number in it.
    #[inline]
    pub(super) fn at(&mut self, number: u64) -> &[u8] {
        if number != self.number && !self.digits.is_empty() {
            let digits = &mut self.bytes[self.digits.clone()];
            if number == self.number.wrapping_add(1) {
                count_up(digits);
            } else {
                write_digits(number, digits);
            }
            self.number = number;
        }
        &self.bytes
    }

    /// The number that some bytes say which hold such digits; the last ones where there are several.
    pub(super) fn number_in(&self, bytes: &[u8]) -> Option<u64> {
        if self.digits.is_empty() {
            return None;
        }
        let digits = bytes.windows(self.width()).rfind(|window| window.iter().all(u8::is_ascii_digit))?;
        digits.iter().try_fold(0_u64, |number, digit| number.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
    }

    /// What `whole` is in general, where it holds this pattern with that number at such a place or behind it: the same,
    /// but for the number.
    pub(super) fn within(&mut self, number: u64, whole: &[u8], least: usize) -> Option<Pattern> {
        let at = least + memmem::find(whole.get(least..)?, self.at(number))?;
        let digits = at + self.digits.start..at + self.digits.end;
        Some(Pattern { bytes: whole.to_vec(), digits, number })
    }

    /// What the framing makes of it, where that is again the same but for the number.
    ///
    /// It is tried with several numbers, which a checksum or an escape would give away; and where what stands behind the
    /// number has digits too, the number could run into a delimiter, so there is no pattern then.
    pub(super) fn framed(&self, framing: &dyn Framing) -> Option<Pattern> {
        let mut plain = self.clone();
        let mut encode = |number| {
            let mut output = Vec::new();
            framing.encode(&[plain.at(number)], &mut output).ok().map(|()| output)
        };
        let first = encode(TRIED[0])?;
        if self.digits.is_empty() {
            return Some(Pattern::constant(first));
        }
        let other = encode(TRIED[1])?;
        let start = first.iter().zip(&other).position(|(one, other)| one != other)?;
        // The second has another digit than the first in every place.
        let digits = start..start + self.width();
        let mut framed = Pattern { digits: digits.clone(), number: TRIED[0], bytes: first.clone() };
        let is_sound = TRIED.iter().all(|number| encode(*number).is_some_and(|encoded| encoded == framed.at(*number)));
        (is_sound && !first[digits.end..].iter().any(u8::is_ascii_digit)).then_some(framed)
    }
}

fn count_up(digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        if *digit != b'9' {
            *digit += 1;
            return;
        }
        *digit = b'0';
    }
}

/// With zeros before it, cut off in front where there is no room.
fn write_digits(mut number: u64, into: &mut [u8]) {
    for digit in into.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::{Frame, FramingError};
    use proptest::prelude::*;

    #[test]
    fn the_number_is_in_its_place_and_nothing_else_changes() {
        let mut pattern = Pattern::numbered(b"a", 4, b"b");
        for (number, expected) in [(0, "a0000b"), (7, "a0007b"), (8, "a0008b"), (9_999, "a9999b"), (10_000, "a0000b")] {
            assert_eq!(pattern.at(number), expected.as_bytes());
        }
        assert_eq!(Pattern::constant("ping").at(7), b"ping");
    }

    #[test]
    fn the_number_is_found_in_whatever_stands_around_it() {
        let pattern = Pattern::numbered(b"", 4, b"");
        assert_eq!(pattern.number_in(b"Hello 12, 0042!"), Some(42));
        assert_eq!(pattern.number_in(b"123"), None);
        assert_eq!(Pattern::constant("ping").number_in(b"0001"), None);
    }

    #[test]
    fn what_one_reply_was_tells_what_the_next_will_be() {
        let mut message = Pattern::numbered(b"", 4, b".");
        let mut reply = message.within(7, b"Hello 0007.!", 0).unwrap();
        assert_eq!(reply.at(8), b"Hello 0008.!");
        assert_eq!(message.within(8, b"Hello 0007.!", 0), None);
        let mut second = message.within(7, b"0007.0007.", 1).unwrap();
        assert_eq!(second.at(8), b"0007.0008.");
    }

    #[test]
    fn framings_that_only_wrap_keep_the_pattern() {
        let pattern = Pattern::numbered(b"x", 16, b"y");
        let framings: [(Box<dyn Framing>, &[u8]); 3] = [
            (Box::new(crate::framings::lines::Lines { longest: 100 }), b"x0000000000000042y\n"),
            (Box::new(crate::framings::netstring::Netstring { largest: 100 }), b"18:x0000000000000042y,"),
            (Box::new(crate::framings::raw::Raw { largest: 100 }), b"x0000000000000042y"),
        ];
        for (framing, expected) in framings {
            assert_eq!(pattern.framed(&*framing).unwrap().at(42), expected);
        }
    }

    /// Adds up the bytes, and writes the sum behind them.
    struct Summed;

    impl Framing for Summed {
        fn decode(&self, _: &[u8], _: &mut usize) -> Result<Option<Frame>, FramingError> {
            Ok(None)
        }

        fn decode_end(&self, _: &[u8]) -> Result<Option<Frame>, FramingError> {
            Ok(None)
        }

        fn encode(&self, parts: &[&[u8]], output: &mut Vec<u8>) -> Result<(), FramingError> {
            let sum = parts.concat().iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
            output.extend_from_slice(&parts.concat());
            output.extend_from_slice(&[sum]);
            Ok(())
        }
    }

    #[test]
    fn a_framing_that_looks_into_the_message_has_no_pattern() {
        assert_eq!(Pattern::numbered(b"", 16, b"").framed(&Summed), None);
        // The delimiter could begin inside the number.
        let digits = crate::framings::delimiter::Delimiter::new("00").unwrap();
        let delimited = crate::framings::delimiter::Delimited::new(&digits, 100);
        assert_eq!(Pattern::numbered(b"", 1, b"").framed(&delimited), None);
    }

    proptest! {
        #[test]
        fn counting_up_and_writing_anew_are_the_same(width in 1_usize..=DIGITS, start: u64, steps in 1_u64..200) {
            let mut counted = Pattern::numbered(b"<", width, b">");
            for number in (0..steps).map(|step| start.saturating_add(step)) {
                let mut written = Pattern::numbered(b"<", width, b">");
                prop_assert_eq!(counted.at(number), written.at(number));
            }
        }
    }
}
