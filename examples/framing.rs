//! A framing from outside: SLIP (RFC 1055), where one byte ends a message and is escaped inside of it.
//!
//! ```sh
//! cargo run --example framing
//! ```

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use greetd::bytes::{BufMut, Bytes};
use greetd::framing::{Frame, SLACK};
use greetd::registry::{Item, NoOptions};
use greetd::{Endpoint, Framing, FramingError, Registry, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const END: u8 = 0o300;
const ESC: u8 = 0o333;
/// What follows an ESC in place of an END, and of an ESC.
const ESC_END: u8 = 0o334;
const ESC_ESC: u8 = 0o335;

/// Messages between END bytes. Empty ones are no messages: an END more than needed clears noise off the line.
struct Slip {
    /// The size in bytes of the largest message.
    largest: usize,
}

impl Slip {
    fn too_long(&self) -> FramingError {
        FramingError::TooLong { size: self.largest + 1, limit: self.largest }
    }
}

// A framing has no state: what must be remembered between two calls, how far the input was searched, the session
// keeps. So one serves all sessions of a listener.
impl Framing for Slip {
    fn decode(&self, input: &[u8], searched: &mut usize) -> Result<Option<Frame>, FramingError> {
        // No more than this is ever held while the end is missing: all of the message may be escapes.
        let most = 2 * self.largest + SLACK;
        let window = &input[..input.len().min(most)];
        let start = window.iter().take_while(|byte| **byte == END).count();
        let from = start.max(*searched);
        match window[from..].iter().position(|byte| *byte == END) {
            Some(found) => {
                let end = from + found;
                let escaped = input[start..end].contains(&ESC);
                // A message is read where it stands; only one with escapes is made anew, and only then has its size.
                if !escaped && end - start > self.largest {
                    return Err(self.too_long());
                }
                Ok(Some(Frame { start, end, taken: end + 1, escaped }))
            }
            None if window.len() == most => Err(self.too_long()),
            None => {
                *searched = window.len();
                Ok(None)
            }
        }
    }

    fn unescape(&self, escaped: &[u8]) -> Result<Bytes, FramingError> {
        let mut message = Vec::with_capacity(escaped.len());
        let mut bytes = escaped.iter();
        while let Some(byte) = bytes.next() {
            message.put_u8(match (byte, *byte == ESC) {
                (byte, false) => *byte,
                (_, true) => match bytes.next() {
                    Some(&ESC_END) => END,
                    Some(&ESC_ESC) => ESC,
                    _ => return Err(FramingError::Malformed { framing: "slip", reason: "an escape of nothing known" }),
                },
            });
        }
        if message.len() > self.largest { Err(self.too_long()) } else { Ok(message.into()) }
    }

    // The peer will send no more. Only ENDs may be left; anything else was a message once.
    fn decode_end(&self, input: &[u8]) -> Result<Option<Frame>, FramingError> {
        match self.decode(input, &mut 0)? {
            None if input.iter().any(|byte| *byte != END) => Err(FramingError::Incomplete { missing: 1 }),
            message => Ok(message),
        }
    }

    // A message may come in parts, so that nobody has to join them first.
    fn encode(&self, parts: &[&[u8]], output: &mut Vec<u8>) -> Result<(), FramingError> {
        if parts.iter().all(|part| part.is_empty()) {
            return Err(FramingError::Unencodable { framing: "slip", reason: "it is empty" });
        }
        output.put_u8(END);
        for byte in parts.iter().copied().flatten() {
            match *byte {
                END => output.put_slice(&[ESC, ESC_END]),
                ESC => output.put_slice(&[ESC, ESC_ESC]),
                plain => output.put_u8(plain),
            }
        }
        output.put_u8(END);
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // The conformance kit tries messages of every sort, cut everywhere, and damaged bytes. It belongs into a test.
    greetd::testing::framing_conforms(&Slip { largest: 1000 }, 1000)?;

    let mut registry = Registry::builtin();
    registry.add_framing(Item::new("slip", "RFC 1055: an END byte ends a message"), |_: NoOptions, largest| {
        Ok(Arc::new(Slip { largest }))
    })?;
    let endpoint: Endpoint = "tcp://127.0.0.1:0?framing=slip&max-message=1KiB".parse()?;
    let bound = Server::new().serve(registry.service(&endpoint, "hello?welcome=")?).bind().await?;
    let address = bound.listeners()[0].address.ip().expect("it is an IP address");
    let running = bound.start();

    // What is on the wire, byte for byte; here the message comes in two pieces.
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.write_all(&[END, b'x', ESC]).await?;
    stream.write_all(&[ESC_END, END]).await?;
    let expected = [&[END][..], b"Hello x", &[ESC, ESC_END, END]].concat();
    let mut reply = vec![0; expected.len()];
    stream.read_exact(&mut reply).await?;
    assert_eq!(reply, expected);
    println!("on the wire: {reply:02x?}");

    // The client's side comes with it.
    let mut at: Endpoint = format!("tcp://{address}").parse()?;
    at.options.set("framing", "slip");
    let mut session = registry.dialler(&at)?.dial().await?;
    session.send(&[ESC, END]).await?;
    assert_eq!(session.recv().await?.expect("it answers"), [b"Hello ", &[ESC, END][..]].concat());

    let drained = running.drain(Duration::from_secs(5)).await;
    assert_eq!(drained.cut, 0);
    Ok(())
}
