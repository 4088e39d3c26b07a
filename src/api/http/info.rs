//! What the server says of itself: `/version`, `/metrics`, and `/debug/vars` in the shape of Go's expvar.

use super::reply;
use crate::engine::Engine;
use crate::metrics;
use crate::version::{CLUSTER_VERSION, ETCD_VERSION, STORAGE_VERSION};
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::any;
use http::StatusCode;
use serde::Serialize;
use serde_json::json;

/// Bytes of a page of memory, as `/proc` counts them.
const PAGE: u64 = 4096;

/// The routes of this file.
pub fn routes() -> Router<Engine> {
    version_route().merge(metrics_route()).route("/debug/vars", reply::get_only(vars))
}

/// `/version` alone.
pub fn version_route() -> Router<Engine> {
    Router::new().route("/version", reply::get_only(version))
}

/// `/metrics` alone.
pub fn metrics_route() -> Router<Engine> {
    Router::new().route("/metrics", any(metrics))
}

/// Everything that is counted. The text is made on a thread that may block: it takes milliseconds.
async fn metrics() -> Response {
    match tokio::task::spawn_blocking(metrics::render).await {
        Ok((content_type, text)) => reply::bytes(text, content_type),
        Err(_) => reply::text(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping\n"),
    }
}

async fn version() -> Response {
    #[derive(Serialize)]
    struct Versions {
        etcdserver: &'static str,
        etcdcluster: &'static str,
        storage: &'static str,
    }
    let versions =
        Versions { etcdserver: ETCD_VERSION, etcdcluster: CLUSTER_VERSION, storage: STORAGE_VERSION };
    reply::bytes(reply::written(&versions), "application/json")
}

async fn vars(State(engine): State<Engine>) -> Response {
    let status = engine.status();
    let [total, resident] = memory_pages().unwrap_or_default().map(|pages| pages * PAGE);
    let arguments: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let state = if status.leader == engine.identity().member { "StateLeader" } else { "StateFollower" };
    let vars = json!({
        "cmdline": arguments,
        "memstats": { "Alloc": resident, "Sys": total },
        "raft.status": {
            "id": format!("{:x}", engine.identity().member),
            "term": status.term,
            "commit": status.committed,
            "applied": status.applied,
            "lead": format!("{:x}", status.leader),
            "raftState": state,
        },
    });
    reply::bytes(vars.to_string(), "application/json; charset=utf-8")
}

/// Pages of address space, and pages in memory.
fn memory_pages() -> Option<[u64; 2]> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut numbers = text.split_whitespace().map_while(|number| number.parse().ok());
    Some([numbers.next()?, numbers.next()?])
}
