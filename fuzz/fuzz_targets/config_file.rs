//! A whole configuration file. It is read, not verified, since that would ask the resolver for hosts.
#![no_main]

use kvist::config::args::Settings;
use libfuzzer_sys::fuzz_target;

/// Bytes that are tried; longer texts find nothing new and are slow to nest.
const BYTES_MAX: usize = 4096;

fuzz_target!(|text: &str| {
    if text.len() > BYTES_MAX {
        return;
    }
    if let Err(error) = Settings::from_yaml(text) {
        assert!(!error.is_empty());
    }
});
