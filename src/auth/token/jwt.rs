//! Signed tokens: who, as of which auth revision, until when. Any server with the key can check them.
//!
//! A checked token is remembered until it expires, since checking a signature takes far longer than a request. Nothing
//! that changes later can make it wrong: its revision is compared with the present one at every use.

use super::keys::{KeyError, Keys, Method};
use crate::auth::{Caller, Error};
use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use parking_lot::RwLock;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Checked tokens remembered; when there are more, all are checked anew.
const CHECKED_MAX: usize = 10_000;
/// Bytes of a token that is worth remembering.
const REMEMBERED_BYTES_MAX: usize = 4096;

/// Unpadded, and as careless about the last bits as other readers of such tokens.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// Makes and checks tokens.
pub struct Tokens {
    method: Method,
    keys: Keys,
    ttl: Duration,
    checked: RwLock<HashMap<Box<str>, Claims>>,
}

/// What a good token says.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims {
    user: Arc<str>,
    revision: u64,
    /// Seconds since 1970 before which it is not valid, and from which on it is no more.
    not_before: Option<f64>,
    expires: Option<f64>,
}

impl Claims {
    /// Reads the middle part of a token. The times are optional, but must be numbers.
    pub fn parse(json: &[u8]) -> Option<Claims> {
        let claims: Map<String, Value> = serde_json::from_slice(json).ok()?;
        let time = |name| match claims.get(name) {
            None => Some(None),
            Some(value) => value.as_f64().map(Some),
        };
        Some(Claims {
            user: claims.get("username")?.as_str()?.into(),
            revision: claims.get("revision")?.as_f64()? as u64,
            not_before: time("nbf")?,
            expires: time("exp")?,
        })
    }

    fn is_valid_at(&self, now_secs: f64) -> bool {
        self.expires.is_none_or(|time| now_secs < time) && self.not_before.is_none_or(|time| now_secs >= time)
    }

    fn caller(&self) -> Caller {
        Caller { user: Arc::clone(&self.user), revision: self.revision, is_pinned: true }
    }
}

impl Tokens {
    /// Over the contents of key files, either of which may be missing. Tokens will be valid for `ttl`.
    pub fn new(
        method: Method,
        public: Option<&[u8]>,
        private: Option<&[u8]>,
        ttl: Duration,
    ) -> Result<Tokens, KeyError> {
        let keys = Keys::new(method, public, private)?;
        Ok(Tokens { method, keys, ttl, checked: RwLock::default() })
    }

    /// A token for a user as of an auth revision.
    pub fn sign(&self, user: &str, revision: u64) -> Result<String, Error> {
        let expires = now_secs() + self.ttl.as_secs_f64();
        let header = json!({ "alg": self.method.name, "typ": "JWT" });
        let claims = json!({ "username": user, "revision": revision, "exp": expires as u64 });
        let text = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = self.keys.sign(text.as_bytes()).ok_or(Error::VerifyOnly)?;
        Ok(format!("{text}.{}", BASE64.encode(signature)))
    }

    /// Whose token it is; nobody's if it is not signed by us or not valid now.
    pub fn caller(&self, token: &str) -> Option<Caller> {
        let now_secs = now_secs();
        if let Some(claims) = self.checked.read().get(token) {
            return claims.is_valid_at(now_secs).then(|| claims.caller());
        }
        let claims = self.check(token)?;
        if !claims.is_valid_at(now_secs) {
            return None;
        }
        let caller = claims.caller();
        if token.len() <= REMEMBERED_BYTES_MAX {
            let mut checked = self.checked.write();
            if checked.len() >= CHECKED_MAX {
                checked.clear();
            }
            checked.insert(token.into(), claims);
        }
        Some(caller)
    }

    /// What a rightly signed token says, whatever the time.
    fn check(&self, token: &str) -> Option<Claims> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        if claims.contains('.') {
            return None;
        }
        let header: Map<String, Value> = serde_json::from_slice(&BASE64.decode(header).ok()?).ok()?;
        if header.get("alg")?.as_str()? != self.method.name {
            return None; // also what keeps a public key from being taken for an HMAC key
        }
        let signature = BASE64.decode(signature).ok()?;
        if !self.keys.verify(message.as_bytes(), &signature) {
            return None;
        }
        Claims::parse(&BASE64.decode(claims).ok()?)
    }
}

fn now_secs() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tokens(ttl_secs: u64) -> Tokens {
        let method = Method::by_name("HS256").unwrap();
        Tokens::new(method, None, Some(b"secret"), Duration::from_secs(ttl_secs)).unwrap()
    }

    #[test]
    fn a9_a_token_tells_user_and_revision_and_is_checked_once() {
        let tokens = tokens(60);
        let token = tokens.sign("ann", 7).unwrap();
        let caller = Caller { user: "ann".into(), revision: 7, is_pinned: true };
        assert_eq!(tokens.caller(&token), Some(caller.clone()));
        assert_eq!(tokens.checked.read().len(), 1);
        assert_eq!(tokens.caller(&token), Some(caller));
        assert_eq!(tokens.caller(&format!("{token}A")), None);
        assert_eq!(tokens.checked.read().len(), 1, "what is wrong is not remembered");
    }

    #[test]
    fn a9_a_remembered_token_ends_too() {
        let tokens = tokens(0);
        let token = tokens.sign("ann", 7).unwrap();
        assert_eq!(tokens.caller(&token), None);
        let claims = tokens.check(&token).unwrap();
        let expires = claims.expires.unwrap();
        tokens.checked.write().insert(token.as_str().into(), claims.clone());
        assert_eq!(tokens.caller(&token), None);
        assert!(claims.is_valid_at(expires - 0.1) && !claims.is_valid_at(expires));
        let later = Claims { not_before: Some(5.0), expires: None, ..claims };
        assert!(later.is_valid_at(5.0) && !later.is_valid_at(4.9));
    }

    #[test]
    fn the_memory_is_bounded() {
        let tokens = tokens(60);
        for n in 0..=CHECKED_MAX as u64 {
            assert!(tokens.caller(&tokens.sign("ann", n).unwrap()).is_some());
        }
        assert_eq!(tokens.checked.read().len(), 1);
    }

    proptest! {
        #[test]
        fn any_text_is_a_token_or_none(text: String, parts in prop::array::uniform3("[A-Za-z0-9_-]{0,40}")) {
            let tokens = tokens(60);
            prop_assert_eq!(tokens.caller(&text), None);
            prop_assert_eq!(tokens.caller(&parts.join(".")), None);
        }

        #[test]
        fn any_claims_parse_or_do_not(bytes: Vec<u8>, revision: f64) {
            let _ = Claims::parse(&bytes);
            let _ = Claims::parse(json!({ "username": "u", "revision": revision }).to_string().as_bytes());
        }
    }
}
