//! What every [`Framing`] must do, however the bytes between the two sides are cut.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{Bytes, BytesMut};

use super::{Failure, Outcome, check, in_short};
use crate::framing::{Frame, Framing, FramingError, SLACK};
use crate::random::Random;

/// Every framing that ships, with the options under which tests and fuzz targets try it; as
/// [`Registry::framing`](crate::Registry::framing) takes them.
pub const SHIPPED: &[&str] = &[
    "crlf",
    "delimiter?delimiter=\\0",
    "delimiter?delimiter=aba",
    "fixed?size=5",
    "length16",
    "length16le",
    "length32",
    "length32le",
    "length8",
    "lines",
    "netstring",
    "raw",
    "varint",
];

/// Checks a framing that was made for messages of at most `largest` bytes, with messages and with bytes of every sort.
///
/// The time that it takes grows with `largest`; a thousand shows all there is to see.
pub fn framing_conforms(framing: &dyn Framing, largest: usize) -> Outcome {
    let trial = Trial::new(framing, largest);
    let mut random = Random::new(largest as u64);
    let mut samples = messages(largest, &mut random);
    samples.push(vec![trial.widest; largest]);
    let mut accepted = Vec::new();
    for sample in &samples {
        guarded("carries", sample, || trial.round_trips(&[sample]))?;
        guarded("reads", sample, || trial.survives(sample, 1))?;
        if !sample.is_empty() && framing.encode(&[sample], &mut Vec::new()).is_ok() {
            accepted.push(sample.as_slice());
        }
    }
    check(!accepted.is_empty(), || format!("it carries none of {} messages of up to {largest} bytes", samples.len()))?;
    trial.round_trips(&accepted)?;
    if framing.boundaries() {
        trial.refuses_over_long()?;
    }
    for seed in 0..1000 {
        let sample = damaged(framing, &accepted, &mut random);
        guarded("reads", &sample, || trial.survives(&sample, seed))?;
    }
    Ok(())
}

/// The rules that a framing must keep, for whatever it is given: for tests by property, and fuzz targets.
pub struct Trial<'a> {
    framing: &'a dyn Framing,
    largest: usize,
    /// The byte that takes most room when it is encoded.
    widest: u8,
    /// The most that may be held before a message is whole.
    held: usize,
}

impl<'a> Trial<'a> {
    /// Of a framing that was made for messages of at most `largest` bytes.
    pub fn new(framing: &'a dyn Framing, largest: usize) -> Self {
        let encoded = |byte: u8| {
            let mut output = Vec::new();
            framing.encode(&[&vec![byte; largest]], &mut output).map_or(0, |()| output.len())
        };
        // A framing that escapes some bytes needs the more room, the more of them there are.
        let (longest, widest) = (0..=u8::MAX).map(|byte| (encoded(byte), byte)).max().unwrap_or_default();
        let held = longest.max(largest).saturating_add(SLACK);
        Trial { framing, largest, widest, held }
    }

    /// Whatever bytes come and however they are cut (by that seed): it gives the same messages, or the same error; no
    /// message is over the limit or stands where nothing is, and no more is held than [`framing`](crate::framing) allows.
    pub fn survives(&self, bytes: &[u8], seed: u64) -> Outcome {
        let mut random = Random::new(seed);
        let whole = self.read(&[bytes])?;
        for pieces in [crumbs(bytes), cut(bytes, &mut random)] {
            let pieced = self.read(&pieces)?;
            if self.framing.boundaries() {
                check(pieced == whole, || {
                    format!("{} reads as {whole:?} when it comes at once, as {pieced:?} in pieces", in_short(bytes))
                })?;
            } else {
                check(pieced.messages.concat() == whole.messages.concat(), || {
                    format!("{} loses bytes when it comes in pieces", in_short(bytes))
                })?;
            }
        }
        Ok(())
    }

    /// Messages that it takes arrive as they were, however they are given in parts and the bytes are cut; messages that
    /// it refuses leave no trace.
    pub fn round_trips(&self, messages: &[&[u8]]) -> Outcome {
        let mut stream = Vec::new();
        let mut sent: Vec<&[u8]> = Vec::new();
        for message in messages {
            let before = stream.len();
            let mut in_parts = stream.clone();
            let encoded = self.framing.encode(&[message], &mut stream);
            let (start, end) = message.split_at(message.len() / 2);
            let encoded_in_parts = self.framing.encode(&[start, b"", end], &mut in_parts);
            check(encoded.is_ok() || stream.len() == before, || {
                format!("it refuses {} and writes something all the same", in_short(message))
            })?;
            check(encoded == encoded_in_parts && stream == in_parts, || {
                format!("{} is encoded otherwise when it is given in parts", in_short(message))
            })?;
            match encoded {
                // The handler's own affair: it may send what this side would not take.
                Ok(()) if message.len() > self.largest => stream.truncate(before),
                Ok(()) => sent.push(message),
                Err(_) => {}
            }
        }
        let mut random = Random::new(stream.len() as u64);
        for pieces in [vec![&stream[..]], crumbs(&stream), cut(&stream, &mut random)] {
            let received = self.read(&pieces)?;
            check(received.end.is_ok(), || format!("it sent what it cannot read: {:?}", received.end))?;
            if self.framing.boundaries() {
                arrived(&sent, &received.messages)?;
            } else {
                check(received.messages.concat() == sent.concat(), || {
                    "bytes that were sent did not arrive".to_owned()
                })?;
            }
        }
        Ok(())
    }

    /// A message over the limit is refused, at the latest when so many bytes came that it must be over.
    fn refuses_over_long(&self) -> Outcome {
        let (mut stream, size) = (Vec::new(), self.largest + 1);
        if self.framing.encode(&[&vec![b'x'; size]], &mut stream).is_err() {
            return Ok(());
        }
        let received = self.read(&crumbs(&stream))?;
        check(matches!(received.end, Err(FramingError::TooLong { .. })), || {
            format!("a message of {size} bytes, one over the limit, comes to {received:?}")
        })
    }

    /// Reads as a session does, and looks at every step.
    fn read(&self, pieces: &[&[u8]]) -> Result<Received, Failure> {
        let Trial { framing, largest, held, .. } = *self;
        let mut input = BytesMut::new();
        let mut received = Received { messages: Vec::new(), end: Ok(()) };
        let mut searched = 0;
        for piece in pieces {
            input.extend_from_slice(piece);
            while !input.is_empty() {
                self.finds_many_as_one(&input, searched)?;
                match framing.decode(&input, &mut searched) {
                    Ok(Some(frame)) => {
                        match take(framing, frame, &mut input, largest)? {
                            Ok(message) => received.messages.push(message),
                            Err(error) => return Ok(Received { end: Err(error), ..received }),
                        }
                        searched = 0;
                    }
                    Ok(None) => {
                        check(searched <= input.len(), || "it says that it searched more than there is".to_owned())?;
                        check(input.len() <= held, || {
                            format!("it holds {} bytes and asks for more, at a limit of {largest}", input.len())
                        })?;
                        break;
                    }
                    Err(error) => return Ok(Received { end: Err(error), ..received }),
                }
            }
        }
        loop {
            match framing.decode_end(&input) {
                Ok(Some(frame)) => match take(framing, frame, &mut input, largest)? {
                    Ok(message) => received.messages.push(message),
                    Err(error) => return Ok(Received { end: Err(error), ..received }),
                },
                Ok(None) => return Ok(received),
                Err(error) => return Ok(Received { end: Err(error), ..received }),
            }
        }
    }
}

impl Trial<'_> {
    /// Messages that are found at once are those that are found one by one.
    fn finds_many_as_one(&self, input: &[u8], searched: usize) -> Outcome {
        let (mut alone, mut together, mut many) = (searched, searched, Vec::new());
        let found = self.framing.decode_many(input, &mut together, &mut many).map(|()| many.first().copied());
        let first = self.framing.decode(input, &mut alone);
        check(found == first && (found.is_ok() || many.is_empty()), || {
            format!("of {} it finds {first:?} first, and {found:?} where it finds many", in_short(input))
        })?;
        for (before, next) in many.iter().zip(many.iter().skip(1)) {
            let rest = input.get(before.taken..).unwrap_or_default();
            let one = self.framing.decode(rest, &mut 0).map(|one| one.map(|frame| frame.behind(before.taken)));
            check(one == Ok(Some(*next)), || {
                format!("of {} it finds {one:?}, and {next:?} where it finds many", in_short(rest))
            })?;
        }
        Ok(())
    }
}

/// Names the first message that did not arrive as it was sent.
fn arrived(sent: &[&[u8]], received: &[Bytes]) -> Outcome {
    let show = |message: Option<&[u8]>| message.map_or("nothing".to_owned(), in_short);
    for index in 0..sent.len().max(received.len()) {
        let (sent, received) = (sent.get(index).copied(), received.get(index).map(|message| &message[..]));
        check(sent == received, || format!("{} arrived as {}", show(sent), show(received)))?;
    }
    Ok(())
}

/// A panic is a failure like any other, and names what it was given.
fn guarded(what: &str, sample: &[u8], run: impl FnOnce() -> Outcome) -> Outcome {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err(Failure::new(format!("it panics when it {what} {}", in_short(sample)))))
}

/// What a stream of bytes came to.
#[derive(Debug, PartialEq)]
struct Received {
    messages: Vec<Bytes>,
    end: Result<(), FramingError>,
}

/// Takes a message off, and holds it for one.
fn take(
    framing: &dyn Framing,
    frame: Frame,
    input: &mut BytesMut,
    largest: usize,
) -> Result<Result<Bytes, FramingError>, Failure> {
    let (Frame { start, end, taken, .. }, there) = (frame, input.len());
    check((1..=there).contains(&taken), || format!("it takes {taken} bytes for a message, of {there}"))?;
    check(start <= end && end <= taken, || {
        format!("it says that a message stands at {start} to {end}, and takes {taken} bytes")
    })?;
    let message = frame.take(framing, input);
    let size = message.as_ref().map_or(0, Bytes::len);
    check(size <= largest, || format!("it gives a message of {size} bytes, at a limit of {largest}"))?;
    Ok(message)
}

/// One byte at a time; of a long text the middle in larger pieces, to end within a moment.
fn crumbs(bytes: &[u8]) -> Vec<&[u8]> {
    const EACH: usize = 600;
    if bytes.len() <= 3 * EACH {
        return bytes.chunks(1).collect();
    }
    let (start, rest) = bytes.split_at(EACH);
    let (middle, end) = rest.split_at(rest.len() - EACH);
    start.chunks(1).chain(middle.chunks(997)).chain(end.chunks(1)).collect()
}

/// Pieces of any size.
fn cut<'a>(mut bytes: &'a [u8], random: &mut Random) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let most = 1 + random.below(bytes.len() + 1);
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(bytes.len().min(1 + random.below(most)));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// Messages of every sort: each short length, the lengths around each limit, and what may mean something to a framing.
fn messages(largest: usize, random: &mut Random) -> Vec<Vec<u8>> {
    let around = |limit: usize| [limit.saturating_sub(1), limit, limit.saturating_add(1)];
    let lengths = (0..20).chain([127, 255, 16_383, 65_535, largest].into_iter().flat_map(around));
    let mut messages: Vec<Vec<u8>> = Vec::new();
    for length in lengths.filter(|length| *length <= largest) {
        let mut ended = vec![b'b'; length];
        ended.splice(length.saturating_sub(1).., *b"\r");
        messages.extend([vec![b'a'; length], vec![0; length], random.bytes(length), ended]);
    }
    let telling: &[&[u8]] = &[b"\n", b"\r", b"\r\n", b"a\nb", b"a\rb", b"0:,", b"1:a,", b"\0\x01a", b",", b"\xff\xff"];
    messages.extend(telling.iter().map(|message| message.to_vec()));
    messages.retain(|message| message.len() <= largest);
    messages
}

/// A few messages, encoded, with a few bytes changed, lost or added.
fn damaged(framing: &dyn Framing, messages: &[&[u8]], random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.below(4) {
        let message = messages[random.below(messages.len().min(40))];
        // One that it refuses is left out: the bytes are to be damaged in any case.
        let _ = framing.encode(&[message], &mut bytes);
    }
    for _ in 0..=random.below(3) {
        let place = random.below(bytes.len() + 1);
        match random.below(3) {
            0 => bytes.insert(place, random.next() as u8),
            1 => bytes.truncate(place),
            _ if place < bytes.len() => bytes[place] ^= 1 << random.below(8),
            _ => {}
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framings::length::{Length, Prefix};

    /// A framing with one fault, to see that the kit sees it.
    struct Faulty {
        sound: Length,
        fault: Fault,
    }

    #[derive(Debug, Clone, Copy)]
    enum Fault {
        TakesMoreThanThereIs,
        StandsBeyond,
        TrustsAnyLength,
        WritesBeforeItRefuses,
        LosesTheLastPart,
        FindsOthersTogether,
        Panics,
        CarriesNothing,
    }

    impl Framing for Faulty {
        fn decode(&self, input: &[u8], searched: &mut usize) -> Result<Option<Frame>, FramingError> {
            match self.fault {
                Fault::TakesMoreThanThereIs => Ok(Some(Frame::new(0..0, input.len() + 1))),
                Fault::StandsBeyond => Ok(Some(Frame::new(0..input.len(), input.len() - 1))),
                Fault::Panics if input.len() > 2 => panic!("as it was told"),
                _ => self.sound.decode(input, searched),
            }
        }

        fn decode_many(&self, input: &[u8], searched: &mut usize, found: &mut Vec<Frame>) -> Result<(), FramingError> {
            found.extend(self.decode(input, searched)?);
            if matches!(self.fault, Fault::FindsOthersTogether) {
                found.push(Frame::new(0..0, 1));
            }
            Ok(())
        }

        fn decode_end(&self, input: &[u8]) -> Result<Option<Frame>, FramingError> {
            self.sound.decode_end(input)
        }

        fn encode(&self, parts: &[&[u8]], output: &mut Vec<u8>) -> Result<(), FramingError> {
            let refused = FramingError::Unencodable { framing: "faulty", reason: "as it was told" };
            match self.fault {
                Fault::WritesBeforeItRefuses => {
                    output.extend_from_slice(b"x");
                    Err(refused)
                }
                Fault::CarriesNothing => Err(refused),
                Fault::LosesTheLastPart => self.sound.encode(&parts[..parts.len().min(2)], output),
                _ => self.sound.encode(parts, output),
            }
        }
    }

    #[test]
    fn each_fault_is_seen_and_named() {
        for (fault, expected) in [
            (Fault::TakesMoreThanThereIs, "bytes for a message, of"),
            (Fault::StandsBeyond, "it says that a message stands at"),
            (Fault::TrustsAnyLength, "at a limit of 100"),
            (Fault::WritesBeforeItRefuses, "and writes something all the same"),
            (Fault::LosesTheLastPart, "is encoded otherwise when it is given in parts"),
            (Fault::FindsOthersTogether, "where it finds many"),
            (Fault::Panics, "it panics when it carries"),
            (Fault::CarriesNothing, "it carries none of"),
        ] {
            let largest = if matches!(fault, Fault::TrustsAnyLength) { 60_000 } else { 100 };
            let faulty = Faulty { sound: Length { prefix: Prefix::U16, largest }, fault };
            let failure = framing_conforms(&faulty, 100).unwrap_err().to_string();
            assert!(failure.contains(expected), "{fault:?}: {failure}");
        }
    }
}
