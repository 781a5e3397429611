//! A framing: a tab ends a message.

use greetd::framing::{Frame, append, length};
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
    fn decode(&self, input: &[u8], searched: &mut usize) -> Result<Option<Frame>, FramingError> {
        let Some(end) = input[*searched..].iter().position(|byte| *byte == b'\t') else {
            *searched = input.len();
            return self.check(input.len()).map(|()| None);
        };
        let end = *searched + end;
        self.check(end)?;
        Ok(Some(Frame::new(0..end, end + 1)))
    }

    fn decode_end(&self, input: &[u8]) -> Result<Option<Frame>, FramingError> {
        // The last message may lack its tab, as a last line may lack its end.
        if input.is_empty() {
            return Ok(None);
        }
        match self.decode(input, &mut 0)? {
            Some(message) => Ok(Some(message)),
            None => Ok(Some(Frame::new(0..input.len(), input.len()))),
        }
    }

    fn encode(&self, parts: &[&[u8]], output: &mut Vec<u8>) -> Result<(), FramingError> {
        if parts.iter().any(|part| part.contains(&b'\t')) {
            return Err(FramingError::Unencodable { framing: "tabs", reason: "it holds a tab" });
        }
        output.reserve(length(parts) + 1);
        append(parts, output);
        output.extend_from_slice(b"\t");
        Ok(())
    }
}
