//! Tokens that clients send: no text is taken for a good one without the key, and none brings the server down.
#![no_main]

use kvist::auth::State;
use kvist::auth::token::{Method, Provider, jwt, simple, strip_scheme};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use std::time::Duration;

const TTL: Duration = Duration::from_secs(60);

static PROVIDERS: LazyLock<[Provider; 3]> = LazyLock::new(|| {
    let method = Method::by_name("HS256").expect("a method");
    let signed = jwt::Tokens::new(method, None, Some(b"secret"), TTL).expect("a key");
    [Provider::Jwt(Box::new(signed)), Provider::Simple(simple::Tokens::new(TTL)), Provider::None]
});

fuzz_target!(|bytes: &[u8]| {
    let _ = jwt::Claims::parse(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for provider in PROVIDERS.iter() {
        assert!(provider.caller(strip_scheme(text), &State::default()).is_err());
    }
});
