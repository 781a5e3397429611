//! All that a plugin wrote, read as greetd reads it: for tests of plugins, and of greetd.

use bytes::{Bytes, BytesMut};

use super::frame;
use super::process::greeting::Greeting;

/// What greetd makes of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transcript {
    /// The names in the first line; none where it is not whole or no first line.
    pub names: Vec<String>,
    /// The type, the session and the payload of each whole frame behind it, up to the first that is none.
    pub frames: Vec<(u8, u32, Bytes)>,
    /// Whether something stands there that is neither.
    pub broken: bool,
}

impl Transcript {
    /// Of bytes that come in pieces of that size, or at once where it is 0.
    pub fn read(bytes: &[u8], piece: usize) -> Self {
        let (mut transcript, mut input) = (Transcript::default(), BytesMut::new());
        for piece in bytes.chunks(if piece == 0 { bytes.len().max(1) } else { piece }) {
            input.extend_from_slice(piece);
            if transcript.names.is_empty() {
                match Greeting::take(&mut input) {
                    Ok(Some(greeting)) => transcript.names = greeting.names,
                    Ok(None) => continue,
                    Err(_) => return Transcript { broken: true, ..transcript },
                }
            }
            loop {
                match frame::decode(&mut input) {
                    Ok(Some(frame)) => transcript.frames.push((frame.kind, frame.session, frame.payload)),
                    Ok(None) => break,
                    Err(_) => return Transcript { broken: true, ..transcript },
                }
            }
        }
        transcript
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_first_line_and_frames_are_told_apart() {
        let bytes = b"greetd-plugin 1 hello\n\x02\0\0\0\x03\x07\0\0\0hi\0\0\0\0\x07";
        let transcript = Transcript::read(bytes, 0);
        assert_eq!(transcript.names, ["hello"]);
        assert_eq!(transcript.frames, [(3, 7, Bytes::from_static(b"hi"))]);
        assert!(!transcript.broken && Transcript::read(b"Hello\n", 0).broken);
    }

    proptest! {
        #[test]
        fn any_bytes_read_the_same_however_they_are_cut(
            first_line in prop_oneof!["greetd-plugin 1( [a-z0-9-]{1,9}){1,3}\r?\n", "[ -~]{0,600}\n?"],
            rest in proptest::collection::vec(prop_oneof![Just(0u8), 0..9u8, any::<u8>()], 0..300),
            piece in 1usize..50,
        ) {
            let bytes = [first_line.as_bytes(), &rest].concat();
            prop_assert_eq!(Transcript::read(&bytes, piece), Transcript::read(&bytes, 0));
        }
    }
}
