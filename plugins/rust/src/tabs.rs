//! A framing: a tab ends a message.

use bytes::{Buf as _, Bytes, BytesMut};
use greetd::framing::{append, length};
use greetd::{Framing, FramingError};

/// Messages without tabs, each with one behind it.
#[derive(Debug)]
pub(crate) struct Tabs {
    pub(crate) largest: usize,
}

impl Tabs {
    fn check(&self, size: usize) -> Result<(), FramingError> {
        if size > self.largest { Err(FramingError::TooLong { size, limit: self.largest }) } else { Ok(()) }
    }
}

impl Framing for Tabs {
    fn decode(&self, input: &mut BytesMut, searched: &mut usize) -> Result<Option<Bytes>, FramingError> {
        let Some(end) = input[*searched..].iter().position(|byte| *byte == b'\t') else {
            *searched = input.len();
            return self.check(input.len()).map(|()| None);
        };
        let end = *searched + end;
        self.check(end)?;
        let message = input.split_to(end).freeze();
        input.advance(1);
        Ok(Some(message))
    }

    fn decode_end(&self, input: &mut BytesMut) -> Result<Option<Bytes>, FramingError> {
        // The last message may lack its tab, as a last line may lack its end.
        if input.is_empty() {
            return Ok(None);
        }
        match self.decode(input, &mut 0)? {
            Some(message) => Ok(Some(message)),
            None => Ok(Some(input.split().freeze())),
        }
    }

    fn encode(&self, parts: &[&[u8]], output: &mut BytesMut) -> Result<(), FramingError> {
        if parts.iter().any(|part| part.contains(&b'\t')) {
            return Err(FramingError::Unencodable { framing: "tabs", reason: "it holds a tab" });
        }
        output.reserve(length(parts) + 1);
        append(parts, output);
        output.extend_from_slice(b"\t");
        Ok(())
    }
}
