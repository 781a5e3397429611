//! `raw`: whatever one read brings is a message, as programs do that know no framing.

use bytes::{Bytes, BytesMut};

use crate::framing::{self, Framing, FramingError};

/// Bytes as they arrive. A read that brings more than the largest message is cut there, and nothing is lost.
#[derive(Debug, Clone, Copy)]
pub struct Raw {
    /// The size in bytes of the largest message.
    pub largest: usize,
}

impl Framing for Raw {
    fn decode(&self, input: &mut BytesMut, _: &mut usize) -> Result<Option<Bytes>, FramingError> {
        let size = input.len().min(self.largest);
        Ok((size > 0).then(|| framing::take_front(input, size).freeze()))
    }

    fn decode_end(&self, input: &mut BytesMut) -> Result<Option<Bytes>, FramingError> {
        self.decode(input, &mut 0)
    }

    fn encode(&self, parts: &[&[u8]], output: &mut BytesMut) -> Result<(), FramingError> {
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

    #[test]
    fn a_read_longer_than_the_largest_message_becomes_several_and_loses_nothing() {
        let raw = Raw { largest: 4 };
        let mut input = BytesMut::from(&b"abcdef"[..]);
        assert_eq!(raw.decode(&mut input, &mut 0).unwrap().unwrap(), "abcd");
        assert_eq!(raw.decode(&mut input, &mut 0).unwrap().unwrap(), "ef");
        assert_eq!(raw.decode(&mut input, &mut 0).unwrap(), None);
    }
}
