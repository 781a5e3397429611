//! What every parser of text must do: whatever it takes, it prints so that it reads back the same; and it never panics.

use std::time::Duration;

use super::{Outcome, check};
use crate::endpoint::Endpoint;
use crate::hosts::transcript::Transcript;
use crate::options::{Options, Period, Size};

/// Holds it for [`Endpoint`].
pub fn endpoint_reads_back(text: &str) -> Outcome {
    let Ok(endpoint) = text.parse::<Endpoint>() else { return Ok(()) };
    let printed = endpoint.to_string();
    let again = printed.parse::<Endpoint>();
    check(again.as_ref() == Ok(&endpoint), || format!("{text:?} is printed as {printed:?}, which reads as {again:?}"))
}

/// What a plugin writes reads the same however it is cut.
pub fn plugin_reads_the_same(bytes: &[u8], piece: usize) -> Outcome {
    let (cut, whole) = (Transcript::read(bytes, piece), Transcript::read(bytes, 0));
    check(cut == whole, || format!("{bytes:?} reads as {whole:?}, and in pieces of {piece} as {cut:?}"))
}

/// Holds it for [`Options`], and for the sizes and durations in them.
pub fn options_read_back(text: &str) -> Outcome {
    if let Ok(size) = text.parse::<Size>() {
        check(size.to_string().parse() == Ok(size), || {
            format!("{text:?} is printed as {size}, which reads otherwise")
        })?;
    }
    if let Ok(period) = text.parse::<Period>() {
        let read = period.to_string().parse::<Period>();
        // It is printed in whole microseconds, and read through a fraction of a second.
        let difference = read.as_ref().map(|read| read.duration().abs_diff(period.duration()));
        let tolerance = period.duration() / 1_000_000_000 + Duration::from_micros(1);
        check(difference.is_ok_and(|difference| difference <= tolerance), || {
            format!("{text:?} is printed as {period}, which reads as {read:?}")
        })?;
    }
    let Ok(options) = Options::parse(text) else { return Ok(()) };
    let printed = options.to_string();
    let again = Options::parse(&printed);
    check(again.as_ref() == Ok(&options), || format!("{text:?} is printed as {printed:?}, which reads as {again:?}"))
}
