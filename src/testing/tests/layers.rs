//! Layers that wait for ever, read without a bound, panic, or claim what they are not.

use std::future::pending;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::link::{Capabilities, Link, Opened};
use crate::testing::layer_conforms;

/// The client says a line before anything else, and the server reads it; with a fault or without.
struct Greeting(Fault);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    GoesNowhere,
    RefusesWithoutReason,
    ClaimsMessages,
    SaysNothing,
    GivesUpAtOnce,
    WaitsForThoseWhoLeft,
    Panics,
    ReadsWithoutBound,
}

const LONGEST: usize = 100;

#[async_trait]
impl crate::Layer for Greeting {
    fn over(&self, inner: Capabilities) -> Result<Capabilities, String> {
        match self.0 {
            Fault::GoesNowhere => Err("it goes nowhere".to_owned()),
            Fault::RefusesWithoutReason => Err(String::new()),
            _ if inner.boundaries => Err("it greets in a stream".to_owned()),
            Fault::ClaimsMessages => Ok(Capabilities { boundaries: true, ..inner }),
            _ => Ok(inner),
        }
    }

    async fn accept(&self, mut inner: Opened) -> Result<Opened> {
        let failed = |reason: &str| Error::Handshake { layer: "greeting", reason: reason.to_owned() };
        let Link::Bytes(bytes) = &mut inner.link else { return Err(failed("it is over messages")) };
        if self.0 == Fault::GivesUpAtOnce {
            return Err(failed("nothing is said"));
        }
        let mut line = Vec::new();
        loop {
            match bytes.read_u8().await {
                Ok(b'\n') if line == b"hello" => return Ok(inner),
                Ok(b'\n') => return Err(failed("it is another greeting")),
                Ok(byte) => line.push(byte),
                Err(_) if self.0 == Fault::WaitsForThoseWhoLeft => pending().await,
                Err(error) => return Err(error.into()),
            }
            assert!(self.0 != Fault::Panics || line.is_ascii(), "as it was told");
            if line.len() > LONGEST && self.0 != Fault::ReadsWithoutBound {
                return Err(failed("it is too long"));
            }
        }
    }

    async fn connect(&self, mut inner: Opened, _: &Endpoint) -> Result<Opened> {
        if let (Link::Bytes(bytes), true) = (&mut inner.link, self.0 != Fault::SaysNothing) {
            bytes.write_all(b"hello\n").await?;
            bytes.flush().await?;
        }
        Ok(inner)
    }
}

async fn outcome_of(fault: Fault) -> Result<(), String> {
    let to = "greeting+memory://somewhere".parse().unwrap();
    layer_conforms(&Greeting(fault), &Greeting(fault), &to).await.map_err(|failure| failure.to_string())
}

#[tokio::test(start_paused = true)]
async fn a_sound_layer_conforms() {
    assert_eq!(outcome_of(Fault::None).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn each_fault_of_a_layer_is_seen_and_named() {
    for (fault, expected) in [
        (Fault::GoesNowhere, "it goes over neither bytes nor messages: it goes nowhere"),
        (Fault::RefusesWithoutReason, "it refuses what it is put over without a reason"),
        (Fault::ClaimsMessages, "and its link carries bytes"),
        (Fault::SaysNothing, "over bytes: opening both sides: nothing happens in 10s"),
        (Fault::GivesUpAtOnce, "the server does not open: the greeting handshake failed: nothing is said"),
        (Fault::WaitsForThoseWhoLeft, "a peer that leaves: giving up: nothing happens in 10s"),
        (Fault::Panics, "a peer that talks nonsense: it panics"),
        (Fault::ReadsWithoutBound, "1048576 bytes are no handshake, and it waits for more"),
    ] {
        let failure = outcome_of(fault).await.expect_err("the fault is not seen");
        assert!(failure.contains(expected), "{fault:?}: {failure}");
    }
}
