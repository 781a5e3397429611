//! What the framings share that say a message's length before it.

use bytes::{Buf, Bytes, BytesMut};

use crate::framing::{self, FramingError};

/// The shape of the message at the front of the input, as its header tells it. Sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// What stands before the message.
    pub(super) header: usize,
    /// The message.
    pub(super) size: usize,
    /// What stands after it.
    pub(super) trailer: usize,
}

impl Shape {
    /// A claim beyond all memory is never met, and overflows nothing.
    fn whole(self) -> usize {
        self.size.saturating_add(self.header + self.trailer)
    }
}

/// Takes the message off the front once all of it is there.
///
/// Nothing is reserved for a length that was only claimed: memory grows with what the peer has really sent.
pub(super) fn decode(input: &mut BytesMut, shape: Option<Shape>) -> Option<Bytes> {
    let shape = shape.filter(|shape| input.len() >= shape.whole())?;
    let mut message = framing::take_front(input, shape.whole());
    message.advance(shape.header);
    message.truncate(shape.size);
    Some(message.freeze())
}

/// The same at the end of the stream, where a message that is not whole is an error.
pub(super) fn decode_end(input: &mut BytesMut, shape: Option<Shape>) -> Result<Option<Bytes>, FramingError> {
    match decode(input, shape) {
        None if input.is_empty() => Ok(None),
        None => Err(FramingError::Incomplete { missing: shape.map_or(1, |shape| shape.whole() - input.len()) }),
        message => Ok(message),
    }
}
