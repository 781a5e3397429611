//! The frames of process protocol 1; `plugins/PROTOCOL.md` is its specification.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::escape::Escaped;
use crate::framing;

/// The version that this greetd speaks.
pub(super) const VERSION: &str = "1";
/// Length, type and session.
pub(super) const HEADER: usize = 9;
/// The most bytes behind a header. A larger length is taken for what it nearly always is: text that does not belong
/// into the protocol.
pub(super) const LARGEST: usize = 16 << 20;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Type {
    Open = 1,
    Message = 2,
    Reply = 3,
    Push = 4,
    Close = 5,
    Error = 6,
    Silent = 7,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    /// The number of its type, known or not.
    pub(super) kind: u8,
    pub(super) session: u32,
    pub(super) payload: Bytes,
}

/// Appends a frame; the payload is given in parts.
pub(super) fn encode(kind: Type, session: u32, parts: &[&[u8]], output: &mut BytesMut) {
    header(kind as u8, session, framing::length(parts) as u32, output);
    framing::append(parts, output);
}

/// Appends a header of whatever content.
pub(super) fn header(kind: u8, session: u32, length: u32, output: &mut BytesMut) {
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4] = kind;
    header[5..].copy_from_slice(&session.to_le_bytes());
    output.extend_from_slice(&header);
}

/// Takes the first whole frame off the front; `None` asks for more.
pub(super) fn decode(input: &mut BytesMut) -> Result<Option<Frame>, Malformed> {
    let Some(header) = input.first_chunk::<HEADER>() else { return Ok(None) };
    let [length @ .., kind, s0, s1, s2, s3] = *header;
    let length = u32::from_le_bytes(length) as usize;
    let session = u32::from_le_bytes([s0, s1, s2, s3]);
    if length > LARGEST {
        return Err(Malformed { begins: input.split_to(input.len().min(32)).freeze(), length });
    }
    if input.len() < HEADER + length {
        return Ok(None);
    }
    input.advance(HEADER);
    let payload = input.split_to(length).freeze();
    Ok(Some(Frame { kind, session, payload }))
}

/// Bytes that are no frame.
#[derive(Debug, thiserror::Error)]
#[error(
    "wrote {:?}, which would be a frame of {length} bytes, where at most {LARGEST} are allowed; stdout is the \
     protocol, print to stderr",
    Escaped::new(.begins)
)]
pub(super) struct Malformed {
    begins: Bytes,
    length: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bytes_are_those_of_the_specification() {
        let mut output = BytesMut::new();
        encode(Type::Message, 7, &[b"Gen", b"ji"], &mut output);
        assert_eq!(&output[..], b"\x05\0\0\0\x02\x07\0\0\0Genji");
    }

    #[test]
    fn text_on_stdout_is_recognised() {
        let error = decode(&mut BytesMut::from("Hello, world\n")).unwrap_err().to_string();
        assert!(error.starts_with("wrote \"Hello, world\\n\", which would be a frame of 1819043144 bytes"), "{error}");
    }

    proptest! {
        #[test]
        fn frames_come_apart_as_they_were_put_together_wherever_the_bytes_are_cut(
            frames in proptest::collection::vec((any::<u32>(), proptest::collection::vec(any::<u8>(), 0..50)), 0..20),
            piece in 1usize..40,
        ) {
            let mut wire = BytesMut::new();
            for (session, payload) in &frames {
                encode(Type::Reply, *session, &[payload], &mut wire);
            }
            let (mut input, mut decoded) = (BytesMut::new(), Vec::new());
            for piece in wire.chunks(piece) {
                input.extend_from_slice(piece);
                while let Some(frame) = decode(&mut input).unwrap() {
                    prop_assert_eq!(frame.kind, Type::Reply as u8);
                    decoded.push((frame.session, frame.payload.to_vec()));
                }
            }
            prop_assert_eq!(decoded, frames);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut input = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(&mut input) {}
        }
    }
}
