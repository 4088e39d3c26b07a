//! Entries of the replicated log: what decodes must encode to the same command again.
#![no_main]

use kvist::engine::entry::Entry;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: Vec<u8>| {
    let Ok(entry) = Entry::decode(bytes.into()) else { return };
    let _ = entry.to_string();
    let again = Entry::new(entry.origin().clone(), entry.command().clone(), entry.time_ms());
    let decoded = Entry::decode(again.bytes().clone()).expect("what we encode, we decode");
    assert!(decoded == again && again.command() == entry.command());
});
