//! Plain HTTP beside gRPC (contract 4.1 and 4.2): versions, health, and the JSON gateway for clients; health alone for
//! monitoring; what members ask each other for peers. Paths, texts and header fields are those of etcd, since probes
//! and scripts match them.
//!
//! Called by `connection` with everything that is no gRPC; put together by `server`.

mod access;
mod checks;
mod health;
mod info;
mod metrics;
mod peer;
mod reply;

use super::gateway::{self, Gateway};
use super::grpc::Front;
use crate::engine::Engine;
use access::Access;
use axum::Router;
use axum::body::Body as Incoming;
use axum::extract::Request;
use axum::routing::any;
use bytes::Bytes;
use http::{Response, StatusCode};
use std::sync::Arc;
use tonic::body::Body;
use tower_service::Service;

/// What is served to clients, and to whom.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether the JSON gateway is served.
    pub gateway: bool,
    /// Origins that browsers may come from.
    pub origins: Vec<String>,
    /// Host names that requests in plain text may use.
    pub hosts: Vec<String>,
}

/// The HTTP side of a port. Cheap to clone.
#[derive(Clone)]
pub struct Http {
    router: Router,
    access: Option<Arc<Access>>,
}

impl Http {
    /// What clients get.
    pub fn for_clients(engine: &Engine, front: &Front, options: &Options) -> Http {
        let mut router = info::routes()
            .merge(metrics::routes())
            .merge(health::routes())
            .merge(checks::routes())
            .with_state(engine.clone());
        if options.gateway {
            let gateway = Gateway::new(front.clone());
            let serve = move |request: Request| gateway.clone().serve(request);
            router = router
                .route("/v3", any(|| std::future::ready(reply::redirect(gateway::PREFIX))))
                .route("/v3/", any(serve.clone()))
                .route("/v3/{*path}", any(serve));
        }
        Http {
            router: router.fallback(reply::not_found),
            access: Some(Arc::new(Access::new(options, {
                let engine = engine.clone();
                move || engine.is_auth_enabled()
            }))),
        }
    }

    /// What is there for monitoring.
    pub fn for_metrics(engine: &Engine) -> Http {
        let routes = metrics::routes().merge(health::routes()).merge(checks::routes());
        let router = routes.with_state(engine.clone());
        Http { router: router.fallback(reply::not_found), access: None }
    }

    /// What members ask each other.
    pub fn for_peers(engine: &Engine) -> Http {
        let router = info::version_route().merge(peer::routes()).with_state(engine.clone());
        Http { router: router.fallback(reply::not_found), access: None }
    }

    /// Answers one request. `secure`: it came over TLS.
    pub async fn serve<B>(mut self, request: http::Request<B>, secure: bool) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut request = request.map(Incoming::new);
        let headers = match &self.access {
            Some(access) => match access.admit(&mut request, secure) {
                Ok(headers) => headers,
                Err(refused) => return reply::text(refused.status, refused.text).map(Body::new),
            },
            None => http::HeaderMap::new(),
        };
        let mut response = if self.access.is_some() && request.method() == http::Method::OPTIONS {
            reply::empty(StatusCode::OK)
        } else {
            match self.router.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        };
        response.headers_mut().extend(headers);
        response.map(Body::new)
    }
}
