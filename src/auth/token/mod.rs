//! Tokens: what a client shows instead of its password.
//!
//! Three kinds, one to a server. *Simple* ones are random, mean something only to the members that were told of them, and
//! go with the process ([`simple`]). *JWT* are signed and say by themselves who and when ([`jwt`]). With *none*, nobody
//! can log in, and only certificates tell who a caller is. Finding out whose a token is takes one look into a hash table.

pub mod jwt;
mod keys;
pub mod simple;

use super::store::{State, TokenChange};
use super::{Caller, Error};
pub use keys::{KeyError, Method};
pub use simple::index_of;

/// The kind of tokens that this server deals in.
pub enum Provider {
    /// Random ones.
    Simple(simple::Tokens),
    /// Signed ones.
    Jwt(Box<jwt::Tokens>),
    /// No tokens at all.
    None,
}

impl Provider {
    /// Whose token this is, as of the present state.
    pub fn caller(&self, token: &str, state: &State) -> Result<Caller, Error> {
        let found = match self {
            Provider::Simple(tokens) => {
                let user = tokens.user(token);
                user.map(|user| Caller { user, revision: state.revision(), is_pinned: false })
            }
            Provider::Jwt(tokens) => tokens.caller(token),
            Provider::None => None,
        };
        found.ok_or(Error::InvalidToken)
    }

    /// The random part of the token of a login that is about to be proposed; empty where there is none.
    pub fn prefix(&self) -> String {
        match self {
            Provider::Simple(_) => simple::random_prefix(),
            Provider::Jwt(_) | Provider::None => String::new(),
        }
    }

    /// The token of a login that was applied at `index` of the log and at `revision` of the users.
    pub fn issue(&self, user: &str, prefix: &str, index: u64, revision: u64) -> Result<String, Error> {
        match self {
            Provider::Simple(_) => Ok(simple::token(prefix, index)),
            Provider::Jwt(tokens) => tokens.sign(user, revision),
            Provider::None => Err(Error::Failed),
        }
    }

    /// Takes in what was applied.
    pub fn learn(&self, changes: Vec<TokenChange>) {
        let Provider::Simple(tokens) = self else { return };
        for change in changes {
            match change {
                TokenChange::Assigned { token, user } => tokens.assign(token, &user),
                TokenChange::Revoked { user } => tokens.revoke(&user),
                TokenChange::RevokedAll => tokens.revoke_all(),
            }
        }
    }
}

/// The token in a header's text, which may name its scheme.
pub fn strip_scheme(text: &str) -> &str {
    text.strip_prefix("Bearer ").unwrap_or(text)
}
