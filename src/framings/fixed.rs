//! `fixed`: every message has the same size, and nothing stands between them.

use serde::Deserialize;

use super::counted::{self, Shape};
use crate::framing::{self, Frame, Framing, FramingError};
use crate::options::{OptionDoc, OptionError, Size};

/// Messages of one size.
#[derive(Debug, Clone, Copy)]
pub struct Fixed {
    /// The size in bytes of every message; above 0.
    pub size: usize,
}

/// The options of [`Fixed`].
pub const OPTIONS: &[OptionDoc] =
    &[OptionDoc { name: "size", value: "SIZE", default: "none; it must be given", help: "the size of every message" }];

/// [`OPTIONS`] as they are read.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    size: Option<Size>,
}

impl Settings {
    /// The framing, under a limit for all messages.
    pub fn framing(self, largest_message: usize) -> Result<Fixed, OptionError> {
        match self.size {
            None => Err(OptionError::Invalid("`fixed` must know the size of its messages; add size=N".to_owned())),
            Some(Size(0)) => Err(OptionError::Invalid("the option `size` takes a size above 0".to_owned())),
            Some(size) if size.bytes() > largest_message => Err(OptionError::Invalid(format!(
                "`size` is {size} and `max-message` is {}; raise that too",
                Size(largest_message)
            ))),
            Some(size) => Ok(Fixed { size: size.bytes() }),
        }
    }
}

impl Fixed {
    fn shape(self) -> Shape {
        Shape { header: 0, size: self.size, trailer: 0 }
    }
}

impl Framing for Fixed {
    fn decode(&self, input: &[u8], _: &mut usize) -> Result<Option<Frame>, FramingError> {
        Ok(counted::decode(input, Some(self.shape())))
    }

    fn decode_end(&self, input: &[u8]) -> Result<Option<Frame>, FramingError> {
        counted::decode_end(input, Some(self.shape()))
    }

    fn encode(&self, parts: &[&[u8]], output: &mut Vec<u8>) -> Result<(), FramingError> {
        if framing::length(parts) != self.size {
            return Err(FramingError::Unencodable { framing: "fixed", reason: "it has another size" });
        }
        framing::append(parts, output);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_another_size_is_refused() {
        let mut output = Vec::new();
        let fixed = Fixed { size: 3 };
        assert!(fixed.encode(&[b"ab"], &mut output).is_err());
        assert!(fixed.encode(&[b"ab", b"cd"], &mut output).is_err());
        assert!(fixed.encode(&[b"ab", b"c"], &mut output).is_ok());
        assert_eq!(output, b"abc");
    }

    #[test]
    fn the_size_must_be_given_and_fit_the_limit() {
        let make = |size| Settings { size }.framing(100).map(|fixed| fixed.size).map_err(|error| error.to_string());
        assert_eq!(make(Some(Size(100))), Ok(100));
        assert_eq!(make(None).unwrap_err(), "`fixed` must know the size of its messages; add size=N");
        assert_eq!(make(Some(Size(0))).unwrap_err(), "the option `size` takes a size above 0");
        assert_eq!(make(Some(Size(101))).unwrap_err(), "`size` is 101 and `max-message` is 100; raise that too");
    }
}
