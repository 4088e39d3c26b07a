//! `/metrics`: everything that a monitor may know, in Prometheus' text format. Answers without a leader, too.

use super::reply;
use crate::engine::Engine;
use crate::metrics;
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::any;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};

/// The route of this file. Every method is served, as by etcd.
pub fn routes() -> Router<Engine> {
    Router::new().route("/metrics", any(serve))
}

/// Gathers on a thread that may block: locks are taken, and requests should not wait for a few thousand lines.
async fn serve() -> Response {
    let Ok((content_type, text)) = tokio::task::spawn_blocking(metrics::render).await else {
        return reply::text(StatusCode::INTERNAL_SERVER_ERROR, "could not gather metrics\n");
    };
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
