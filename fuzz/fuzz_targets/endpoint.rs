//! No text makes the parser of endpoints panic, and what it takes reads back as it is printed.
#![no_main]

use greetd::testing::text::endpoint_reads_back;

libfuzzer_sys::fuzz_target!(|text: &str| endpoint_reads_back(text).unwrap());
