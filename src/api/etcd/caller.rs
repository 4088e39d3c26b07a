//! Who a request comes from: its token, or the certificate of its connection.

use super::{Etcd, error};
use crate::api::caller::CommonName;
use crate::auth::token::strip_scheme;
use crate::engine::{Caller, Origin};
use http::{Extensions, HeaderMap, HeaderValue};
use tonic::{Request, Status};

/// What a request shows to prove who sent it. Long streams keep it, and are asked again for each message.
#[derive(Clone, Default)]
pub struct Credentials {
    token: Option<HeaderValue>,
    common_name: Option<CommonName>,
}

impl Credentials {
    /// Those of a request's head. A request that came through a gateway has the gateway's certificate, which counts for
    /// nothing.
    pub fn of(headers: &HeaderMap, extensions: &Extensions) -> Credentials {
        let token = headers.get("token").or_else(|| headers.get("authorization")).cloned();
        let is_gateway = headers.contains_key("grpcgateway-accept");
        let common_name = extensions.get::<CommonName>().filter(|_| !is_gateway).cloned();
        Credentials { token, common_name }
    }
}

impl Etcd {
    /// Who shows these; `None` is nobody in particular, or that it does not matter. A token that is not good is an error
    /// even where nobody would have had to be known.
    pub fn caller_with(&self, credentials: &Credentials) -> Result<Option<Caller>, Status> {
        if !self.engine.is_auth_enabled() {
            return Ok(None);
        }
        if let Some(token) = &credentials.token {
            let token = strip_scheme(token.to_str().unwrap_or_default());
            return self.engine.caller_of_token(token).map(Some).map_err(error::status);
        }
        let name = credentials.common_name.as_ref();
        Ok(name.map(|name| self.engine.caller_named(std::sync::Arc::clone(&name.0))))
    }

    /// The entry that a request waits for: its token was given out on another member, and is not known here yet.
    pub fn token_ahead(&self, headers: &HeaderMap) -> Option<u64> {
        let token = Credentials::of(headers, &Extensions::new()).token?;
        self.engine.token_ahead(strip_scheme(token.to_str().ok()?))
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
