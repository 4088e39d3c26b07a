//! `--auth-token`, `--auth-token-ttl` and `--bcrypt-cost`: how users log in.

use super::{Error, Note, value};
use std::path::PathBuf;
use std::time::Duration;

/// Life of a simple token that nobody uses, when 0 is given.
const SIMPLE_TTL_DEFAULT: Duration = Duration::from_secs(300);
/// Life of a signed token, when none is given.
const JWT_TTL_DEFAULT: Duration = Duration::from_secs(300);
/// What bcrypt can do, and what is done instead of what it cannot.
const BCRYPT_COSTS: std::ops::RangeInclusive<u64> = 4..=31;
const BCRYPT_COST_DEFAULT: u32 = 10;

/// How users log in.
#[derive(Clone, PartialEq, Debug)]
pub struct Auth {
    /// What they get for their password.
    pub token: Token,
    /// Rounds of a password's hash, as a power of 2.
    pub bcrypt_cost: u32,
}

/// What users get for their password.
#[derive(Clone, PartialEq, Debug)]
pub enum Token {
    /// A random word that lives for this long after its last use.
    Simple(Duration),
    /// A signed text.
    Jwt(Jwt),
    /// Nothing: only certificates count.
    None,
}

/// How tokens are signed.
#[derive(Clone, PartialEq, Debug)]
pub struct Jwt {
    /// Name of the method.
    pub sign_method: String,
    /// File of the public key.
    pub public_key: Option<PathBuf>,
    /// File of the private key.
    pub private_key: Option<PathBuf>,
    /// Life of a token.
    pub ttl: Duration,
}

impl Auth {
    /// From the flags' values.
    pub(super) fn new(
        token: &str,
        token_ttl_secs: u64,
        bcrypt_cost: u64,
        notes: &mut Vec<Note>,
    ) -> Result<Auth, Error> {
        let bcrypt_cost = if BCRYPT_COSTS.contains(&bcrypt_cost) {
            bcrypt_cost as u32
        } else {
            notes.push(Note::Unwise { flag: "bcrypt-cost", why: "outside 4 to 31; 10 is used instead" });
            BCRYPT_COST_DEFAULT
        };
        let simple_ttl = match token_ttl_secs {
            0 => SIMPLE_TTL_DEFAULT,
            secs => Duration::from_secs(secs),
        };
        Ok(Auth { token: Token::parse(token, simple_ttl, notes)?, bcrypt_cost })
    }
}

impl Token {
    /// `simple`, nothing, or `jwt,KEY=VALUE,...`.
    fn parse(text: &str, simple_ttl: Duration, notes: &mut Vec<Note>) -> Result<Token, Error> {
        let mut words = text.split(',');
        let kind = words.next().unwrap_or_default();
        let mut options: Vec<(&str, &str)> = Vec::new();
        for word in words {
            match word.split('=').collect::<Vec<_>>()[..] {
                [name, value] if !options.iter().any(|(other, _)| *other == name) => {
                    options.push((name, value));
                }
                _ => return Err(invalid()),
            }
        }
        match kind {
            "simple" => Ok(Token::Simple(simple_ttl)),
            "" => Ok(Token::None),
            "jwt" => {
                const KNOWN: [&str; 4] = ["sign-method", "pub-key", "priv-key", "ttl"];
                if options.iter().any(|(name, _)| !KNOWN.contains(name)) {
                    notes.push(Note::Unwise { flag: "auth-token", why: "an option of jwt is not known" });
                }
                Jwt::from_options(&options).map(Token::Jwt)
            }
            _ => Err(invalid()),
        }
    }
}

impl Jwt {
    fn from_options(options: &[(&str, &str)]) -> Result<Jwt, Error> {
        let get = |name| options.iter().find(|(n, v)| *n == name && !v.is_empty()).map(|(_, value)| *value);
        Ok(Jwt {
            sign_method: get("sign-method").ok_or_else(invalid)?.to_owned(),
            public_key: get("pub-key").map(PathBuf::from),
            private_key: get("priv-key").map(PathBuf::from),
            ttl: get("ttl").map_or(Ok(JWT_TTL_DEFAULT), value::duration).map_err(|_| invalid())?,
        })
    }
}

fn invalid() -> Error {
    Error::Invalid("auth: invalid auth options".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Token, Error> {
        Token::parse(text, Duration::from_secs(7), &mut Vec::new())
    }

    #[test]
    fn a8_a9_kinds_of_tokens() {
        assert_eq!(parse("simple"), Ok(Token::Simple(Duration::from_secs(7))));
        assert_eq!(parse(""), Ok(Token::None));
        let jwt = Jwt {
            sign_method: "RS256".into(),
            public_key: Some("a.pub".into()),
            private_key: Some("/k/a".into()),
            ttl: Duration::from_secs(600),
        };
        assert_eq!(
            parse("jwt,pub-key=a.pub,priv-key=/k/a,sign-method=RS256,ttl=10m"),
            Ok(Token::Jwt(jwt.clone()))
        );
        let shortest = Jwt { public_key: None, ttl: JWT_TTL_DEFAULT, ..jwt };
        assert_eq!(parse("jwt,priv-key=/k/a,sign-method=RS256,other=1"), Ok(Token::Jwt(shortest)));
    }

    #[test]
    fn a9_what_etcd_refuses_is_refused() {
        for text in [
            "plain",
            "Simple",
            "simple,ttl",
            "simple,a=b=c",
            "jwt",
            "jwt,priv-key=k",
            "jwt,sign-method=",
            "jwt,sign-method=RS256,sign-method=RS256",
            "jwt,sign-method=RS256,ttl=1x",
        ] {
            assert_eq!(parse(text), Err(invalid()), "{text}");
        }
    }

    #[test]
    fn costs_and_lives_out_of_bounds_become_the_default() {
        let mut notes = Vec::new();
        for (given, used) in [(3, 10), (4, 4), (31, 31), (32, 10), (0, 10)] {
            assert_eq!(Auth::new("simple", 300, given, &mut notes).unwrap().bcrypt_cost, used);
        }
        assert_eq!(notes.len(), 3);
        let auth = Auth::new("simple", 0, 10, &mut notes).unwrap();
        assert_eq!(auth.token, Token::Simple(SIMPLE_TTL_DEFAULT));
    }
}
