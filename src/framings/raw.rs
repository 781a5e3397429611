//! `raw`: whatever one read brings is a message, as programs do that know no framing.

use crate::framing::{self, Frame, Framing, FramingError};

/// Bytes as they arrive. A read that brings more than the largest message is cut there, and nothing is lost.
#[derive(Debug, Clone, Copy)]
pub struct Raw {
    /// The size in bytes of the largest message.
    pub largest: usize,
}

impl Framing for Raw {
    fn decode(&self, input: &[u8], _: &mut usize) -> Result<Option<Frame>, FramingError> {
        let size = input.len().min(self.largest);
        Ok((size > 0).then(|| Frame::new(0..size, size)))
    }

    fn decode_end(&self, input: &[u8]) -> Result<Option<Frame>, FramingError> {
        self.decode(input, &mut 0)
    }

    fn encode(&self, parts: &[&[u8]], output: &mut Vec<u8>) -> Result<(), FramingError> {
        framing::append(parts, output);
        Ok(())
    }

    fn boundaries(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    #[test]
    fn a_read_longer_than_the_largest_message_becomes_several_and_loses_nothing() {
        let raw = Raw { largest: 4 };
        let mut input = BytesMut::from(&b"abcdef"[..]);
        assert_eq!(raw.decode(&input, &mut 0).unwrap().unwrap().take(&raw, &mut input).unwrap(), "abcd");
        assert_eq!(raw.decode(&input, &mut 0).unwrap().unwrap().take(&raw, &mut input).unwrap(), "ef");
        assert_eq!(raw.decode(&input, &mut 0).unwrap(), None);
    }
}
