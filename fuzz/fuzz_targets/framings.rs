//! Any bytes read the same however they are cut, and any message that is taken arrives as it was.
//!
//! The first byte of the input says which framing, the second where the bytes are cut, the rest are the bytes.
#![no_main]

use std::sync::{Arc, LazyLock};

use greetd::testing::framing::{SHIPPED, round_trips, survives};
use greetd::{Framing, Registry};

/// Small, so that the fuzzer reaches the limit often.
const LARGEST: usize = 200;

static FRAMINGS: LazyLock<Vec<Arc<dyn Framing>>> = LazyLock::new(|| {
    let registry = Registry::builtin();
    SHIPPED.iter().map(|spec| registry.framing(spec, LARGEST).unwrap()).collect()
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let [which, seed, bytes @ ..] = input else { return };
    let framing = &*FRAMINGS[usize::from(*which) % FRAMINGS.len()];
    survives(framing, LARGEST, bytes, u64::from(*seed)).unwrap();
    round_trips(framing, LARGEST, &[bytes]).unwrap();
});
