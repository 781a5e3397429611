//! Every framing that ships keeps the rules that the conformance kit holds, also for messages that nobody thought of.

use std::collections::BTreeSet;
use std::sync::Arc;

use greetd::registry::Kind;
use greetd::testing::framing::{SHIPPED, Trial, framing_conforms};
use greetd::{Framing, Registry};
use proptest::collection::vec;
use proptest::prelude::*;

/// The limit under which they are tried.
const LARGEST: usize = 64;

fn framing(spec: &str, largest: usize) -> Arc<dyn Framing> {
    Registry::builtin().framing(spec, largest).unwrap_or_else(|error| panic!("{spec}: {error}"))
}

#[test]
fn every_framing_that_ships_is_tried() {
    let tried: BTreeSet<&str> = SHIPPED.iter().map(|spec| spec.split('?').next().unwrap()).collect();
    let shipped: BTreeSet<&str> = Registry::builtin().items(Kind::Framing).iter().map(|item| item.name).collect();
    assert_eq!(tried, shipped);
}

#[test]
fn every_framing_that_ships_conforms_at_a_small_and_at_a_large_limit() {
    for spec in SHIPPED {
        for largest in [5, 1000] {
            framing_conforms(&*framing(spec, largest), largest).unwrap_or_else(|failure| panic!("{spec}: {failure}"));
        }
    }
}

/// Bytes in which what means something to a framing is frequent.
fn telling_bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![2 => any::<u8>(), 3 => proptest::sample::select(&b"\r\n\0:,ab0123\x80\x01"[..])];
    vec(byte, 0..2 * LARGEST)
}

proptest! {
    #[test]
    fn any_bytes_read_the_same_however_they_are_cut(bytes in telling_bytes(), seed: u64) {
        for spec in SHIPPED {
            let outcome = Trial::new(&*framing(spec, LARGEST), LARGEST).survives(&bytes, seed);
            prop_assert!(outcome.is_ok(), "{}: {:?}", spec, outcome);
        }
    }

    #[test]
    fn any_messages_arrive_as_they_were_or_are_refused(messages in vec(telling_bytes(), 0..6)) {
        let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        for spec in SHIPPED {
            let outcome = Trial::new(&*framing(spec, LARGEST), LARGEST).round_trips(&messages);
            prop_assert!(outcome.is_ok(), "{}: {:?}", spec, outcome);
        }
    }
}
