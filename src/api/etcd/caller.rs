//! Who a request comes from: its token, or the certificate of its connection.

use super::{Etcd, error};
use crate::api::caller::Credentials;
use crate::engine::{Caller, Origin};
use http::{Extensions, HeaderMap};
use tonic::{Request, Status};

impl Etcd {
    /// Who shows these; `None` is nobody in particular, or that it does not matter. A token that is not good is an error
    /// even where nobody would have had to be known.
    pub fn caller_with(&self, credentials: &Credentials) -> Result<Option<Caller>, Status> {
        credentials.caller(&self.engine).map_err(error::status)
    }

    /// The entry that a request waits for: its token was given out on another member, and is not known here yet.
    pub fn token_ahead(&self, headers: &HeaderMap) -> Option<u64> {
        self.engine.token_ahead(Credentials::of(headers, &Extensions::new()).token()?)
    }

    /// Resolves when this member has applied that entry, or will not in time: then the token is not good.
    pub async fn until_known(&self, entry: u64) {
        if let Err(error) = self.engine.until_applied(entry).await {
            tracing::debug!(%error, entry, "a token waits for an entry that does not come");
        }
    }

    /// Who sent a request with this head.
    pub fn caller_from(
        &self,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<Option<Caller>, Status> {
        if !self.engine.is_auth_enabled() {
            return Ok(None);
        }
        self.caller_with(&Credentials::of(headers, extensions))
    }

    /// Who sent a request.
    pub(super) fn caller<T>(&self, request: &Request<T>) -> Result<Option<Caller>, Status> {
        self.caller_from(request.metadata().as_ref(), request.extensions())
    }

    /// Who asks for the command of a request.
    pub(super) fn origin<T>(&self, request: &Request<T>) -> Result<Origin, Status> {
        Ok(Origin::Client(self.caller(request)?))
    }

    /// Refuses a request of anyone without the role root.
    pub(super) fn require_root<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let caller = self.caller(request)?;
        self.engine.permit_root(caller.as_ref()).map_err(error::status)
    }

    /// Refuses a request of nobody in particular.
    pub(super) fn require_user<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let caller = self.caller(request)?;
        self.engine.permit_known(caller.as_ref()).map_err(error::status)
    }
}
