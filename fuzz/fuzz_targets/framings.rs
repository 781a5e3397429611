//! Any bytes read the same however they are cut, and any message that is taken arrives as it was.
//!
//! The first byte of the input says which framing, the second where the bytes are cut, the rest are the bytes.
#![no_main]

use std::sync::LazyLock;

use greetd::Registry;
use greetd::testing::framing::{SHIPPED, Trial};

/// Small, so that the fuzzer reaches the limit often.
const LARGEST: usize = 200;

static TRIALS: LazyLock<Vec<Trial<'static>>> = LazyLock::new(|| {
    let registry = Registry::builtin();
    // Leaked: they live as long as the fuzzer does.
    let framing = |spec| Box::leak(Box::new(registry.framing(spec, LARGEST).unwrap()));
    SHIPPED.iter().map(|spec| Trial::new(&**framing(spec), LARGEST)).collect()
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let [which, seed, bytes @ ..] = input else { return };
    let trial = &TRIALS[usize::from(*which) % TRIALS.len()];
    trial.survives(bytes, u64::from(*seed)).unwrap();
    trial.round_trips(&[bytes]).unwrap();
});
