//! No text makes the parsers of options, sizes and durations panic, and what they take reads back as it is printed.
#![no_main]

use greetd::testing::text::options_read_back;

libfuzzer_sys::fuzz_target!(|text: &str| options_read_back(text).unwrap());
