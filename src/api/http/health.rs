//! `/health`: whether alarms are off, somebody leads, and a key can be read; the answer of etcd since 3.0.

use super::checks::{alarm_name, queries, read};
use super::reply;
use crate::engine::Engine;
use crate::metrics::METRICS;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use std::time::Duration;

/// Longest time for the read: 5 s and two election timeouts of etcd's default.
const TIMEOUT: Duration = Duration::from_secs(7);

/// The routes of this file.
pub fn routes() -> Router<Engine> {
    Router::new().route("/health", reply::get_only(health))
}

async fn health(State(engine): State<Engine>, request: Request) -> Response {
    #[derive(Serialize)]
    struct Health {
        health: &'static str,
        reason: String,
    }
    let excluded = queries(&request, "exclude");
    let serializable = queries(&request, "serializable").first().is_some_and(|value| value == "true");
    match reason(&engine, &excluded, serializable).await {
        None => {
            METRICS.server.health_success.inc();
            let text = reply::written(&Health { health: "true", reason: String::new() });
            reply::json(StatusCode::OK, text, "text/plain; charset=utf-8")
        }
        Some(reason) => {
            METRICS.server.health_failures.inc();
            tracing::warn!(%reason, "serving /health false");
            let text = reply::written(&Health { health: "false", reason });
            reply::text(StatusCode::SERVICE_UNAVAILABLE, text + "\n")
        }
    }
}

/// Why the server is not healthy.
async fn reason(engine: &Engine, excluded: &[String], serializable: bool) -> Option<String> {
    let mut alarms = engine.alarms().into_iter().map(|(_, kind)| alarm_name(kind));
    if let Some(name) = alarms.find(|name| !excluded.iter().any(|excluded| excluded == name)) {
        return Some(format!("ALARM {name}"));
    }
    if !serializable && engine.status().leader == 0 {
        return Some("RAFT NO LEADER".to_owned());
    }
    let error = match tokio::time::timeout(TIMEOUT, read(engine, serializable)).await {
        Ok(Ok(())) => return None,
        Ok(Err(error)) => error,
        Err(_) => "context deadline exceeded".to_owned(),
    };
    Some(format!("RANGE ERROR:{error}"))
}
