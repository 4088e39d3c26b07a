//! Who a request comes from: its token, or the certificate of its connection.

use crate::auth::token::strip_scheme;
use crate::engine::{Caller, Engine, Result};
use http::{Extensions, HeaderMap, HeaderValue};
use std::sync::Arc;

/// Common name of the verified certificate that the client of this connection has shown; absent without one. `listen` puts it
/// into the extensions of every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommonName(pub Arc<str>);

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

    /// Those of a call that generated code has taken in.
    pub fn of_call<T>(request: &tonic::Request<T>) -> Credentials {
        Credentials::of(request.metadata().as_ref(), request.extensions())
    }

    /// The token, without the word in front of it.
    pub fn token(&self) -> Option<&str> {
        Some(strip_scheme(self.token.as_ref()?.to_str().ok()?))
    }

    /// Whose they are; `None` is nobody in particular, or that it does not matter. A token that is not good is an error
    /// even where nobody would have had to be known.
    pub fn caller(&self, engine: &Engine) -> Result<Option<Caller>> {
        if !engine.is_auth_enabled() {
            return Ok(None);
        }
        if let Some(token) = &self.token {
            return engine.caller_of_token(strip_scheme(token.to_str().unwrap_or_default())).map(Some);
        }
        Ok(self.common_name.as_ref().map(|name| engine.caller_named(Arc::clone(&name.0))))
    }
}
