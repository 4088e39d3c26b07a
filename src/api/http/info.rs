//! What the server says of itself: `/version`, and `/debug/vars` in the shape of Go's expvar.

use super::reply;
use crate::engine::Engine;
use crate::version::ETCD_VERSION;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use serde_json::json;

/// Bytes of a page of memory, as `/proc` counts them.
const PAGE: u64 = 4096;

/// The routes of this file.
pub fn routes() -> Router<Engine> {
    version_route().route("/debug/vars", reply::get_only(vars))
}

/// `/version` alone.
pub fn version_route() -> Router<Engine> {
    Router::new().route("/version", reply::get_only(version))
}

async fn version(State(engine): State<Engine>) -> Response {
    #[derive(Serialize)]
    struct Versions {
        etcdserver: &'static str,
        etcdcluster: String,
        storage: String,
    }
    let cluster = engine.versions().cluster.to_string();
    let versions = Versions { etcdserver: ETCD_VERSION, etcdcluster: cluster.clone(), storage: cluster };
    reply::json(StatusCode::OK, reply::written(&versions), "application/json")
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
    reply::json(StatusCode::OK, vars.to_string(), "application/json; charset=utf-8")
}

/// Pages of address space, and pages in memory.
fn memory_pages() -> Option<[u64; 2]> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut numbers = text.split_whitespace().map_while(|number| number.parse().ok());
    Some([numbers.next()?, numbers.next()?])
}
