//! Stderr for the log, held back until the command has said how it went: the first word on stderr of a command that
//! failed is its verdict, whatever was logged on the way there.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

/// What is more than this is not held back.
const MOST_BYTES: usize = 64 * 1024;

/// Standard error, at first into memory.
#[derive(Debug)]
pub(super) struct Held<W> {
    /// `None` once it is released.
    kept: Mutex<Option<Vec<u8>>>,
    output: fn() -> W,
}

impl<W: Write> Held<W> {
    /// Holds back what is for `output`.
    pub(super) const fn new(output: fn() -> W) -> Self {
        Held { kept: Mutex::new(Some(Vec::new())), output }
    }

    /// Writes what was held back; from now on nothing is.
    pub(super) fn release(&self) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Where nobody reads the log any more there is nobody to tell.
        let _ = (self.output)().write_all(&kept.unwrap_or_default());
    }
}

impl<W: Write> Write for &Held<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *kept {
                None => return (self.output)().write(bytes),
                Some(kept) if kept.len() + bytes.len() <= MOST_BYTES => {
                    kept.extend_from_slice(bytes);
                    return Ok(bytes.len());
                }
                Some(_) => {}
            }
        }
        self.release();
        (self.output)().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (self.output)().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static WRITTEN: Mutex<Vec<u8>> = Mutex::new(Vec::new());

    struct Kept;

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            WRITTEN.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_held_back_comes_in_order_when_it_is_released_or_grows_too_long() {
        let written = || WRITTEN.lock().unwrap().clone();
        let held = Held::new(|| Kept);
        (&held).write_all(b"a").unwrap();
        assert_eq!(written(), b"");
        held.release();
        (&held).write_all(b"b").unwrap();
        assert_eq!(written(), b"ab");

        let held = Held::new(|| Kept);
        (&held).write_all(b"c").unwrap();
        (&held).write_all(&vec![b'd'; MOST_BYTES]).unwrap();
        assert_eq!(written().len(), 3 + MOST_BYTES);
        assert_eq!(&written()[..4], b"abcd");
    }
}
