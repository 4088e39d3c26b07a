//! Values of flags: durations, numbers, URLs. Whatever a URL is read from, its text reads as the same URL again.
#![no_main]

use kvist::config::url::{EndpointUrl, ListenUrl};
use kvist::config::value::{boolean, duration, human_duration, integer, unsigned, unsigned32};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = (boolean(text), human_duration(text));
    if let Ok(value) = duration(text) {
        assert!(value.as_nanos() <= i64::MAX as u128);
    }
    if let (Ok(value), Ok(signed)) = (unsigned(text), integer(text)) {
        assert_eq!(u64::try_from(signed), Ok(value));
    }
    if let Ok(small) = unsigned32(text) {
        assert_eq!(unsigned(text), Ok(u64::from(small)));
    }
    let _ = EndpointUrl::parse_list(text);
    if let Ok(url) = EndpointUrl::parse(text) {
        assert_eq!(EndpointUrl::parse(&url.to_string()), Ok(url.clone()));
        let _ = ListenUrl::new(url);
    }
});
