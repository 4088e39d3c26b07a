//! Puts together what knows users: the replicated state, and the tokens and passwords that the flags ask for.

use crate::auth::token::{KeyError, Method, Provider, jwt, simple};
use crate::auth::{Auth, Store, password::Passwords};
use crate::config::{self, Token};
use std::path::Path;
use std::sync::Arc;

/// Why no tokens can be made or checked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The keys are of no use.
    #[error("auth: {0}")]
    Key(#[from] KeyError),
    /// A key file can't be read, which etcd counts as an option that is wrong.
    #[error("auth: invalid auth options: cannot read {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
}

/// What the engine needs to know callers.
pub fn auth(config: &config::Auth, store: Arc<Store>) -> Result<Auth, Error> {
    let tokens = match &config.token {
        Token::Simple(ttl) => {
            tracing::warn!("simple token is not cryptographically signed");
            Provider::Simple(simple::Tokens::new(*ttl))
        }
        Token::Jwt(options) => {
            let read = |path: &Option<_>| path.as_deref().map(read).transpose();
            let (public, private) = (read(&options.public_key)?, read(&options.private_key)?);
            let method = Method::by_name(&options.sign_method).ok_or(KeyError::UnknownMethod)?;
            Provider::Jwt(Box::new(jwt::Tokens::new(
                method,
                public.as_deref(),
                private.as_deref(),
                options.ttl,
            )?))
        }
        Token::None => Provider::None,
    };
    Ok(Auth { store, tokens, passwords: Passwords::new(config.bcrypt_cost) })
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::File { path: path.display().to_string(), source })
}
