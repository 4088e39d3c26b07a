//! A whole command line: one argument a line. It is read, not verified, since that would ask the resolver for hosts.
#![no_main]

use std::ffi::OsString;

use kvist::config::args::{Command, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let words: Vec<OsString> = text.lines().map(OsString::from).collect();
    match parse(words) {
        Ok(Command::Help | Command::Version | Command::Serve(_)) => {}
        Err(error) => assert!(!error.0.is_empty()),
    }
});
