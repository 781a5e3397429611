//! Whatever a plugin writes reads the same however it is cut, and makes nothing panic.
#![no_main]

use greetd::testing::text::plugin_reads_the_same;

libfuzzer_sys::fuzz_target!(|input: (u8, &[u8])| plugin_reads_the_same(input.1, input.0.into()).unwrap());
