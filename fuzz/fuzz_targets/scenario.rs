//! No text makes the reader of the lab's scenarios panic, in either format, and what it takes can be predicted.
#![no_main]

use greetd::lab::scenario::{Format, Scenario};

libfuzzer_sys::fuzz_target!(|text: &str| {
    for format in [Format::Json, Format::Toml] {
        match Scenario::parse(text, format) {
            Ok(scenario) => assert_eq!(scenario.predict().cases.len(), scenario.len()),
            Err(error) => assert!(error.line >= 1 && error.column >= 1),
        }
    }
});
