//! What the framings share that say a message's length before it.

use crate::framing::{Frame, FramingError};

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

/// The message, once all of it is there.
///
/// Nothing is reserved for a length that was only claimed: memory grows with what the peer has really sent.
pub(super) fn decode(input: &[u8], shape: Option<Shape>) -> Option<Frame> {
    let Shape { header, size, .. } = shape?;
    let whole = shape?.whole();
    (input.len() >= whole).then(|| Frame::new(header..header + size, whole))
}

/// The same at the end of the stream, where a message that is not whole is an error.
pub(super) fn decode_end(input: &[u8], shape: Option<Shape>) -> Result<Option<Frame>, FramingError> {
    match decode(input, shape) {
        None if input.is_empty() => Ok(None),
        None => Err(FramingError::Incomplete { missing: shape.map_or(1, |shape| shape.whole() - input.len()) }),
        message => Ok(message),
    }
}
