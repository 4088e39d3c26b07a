//! What members of etcd ask each other over HTTP, as far as tools ask it, too (contract 4.3).

use super::reply;
use crate::api::etcd::error;
use crate::engine::Engine;
use crate::version::KVIST_VERSION;
use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

const CLUSTER_ID: &str = "x-etcd-cluster-id";
/// Tells members of kvist from those of etcd, who can't be in one cluster.
const VERSION: &str = "x-kvist-version";
/// Bytes of a request.
const BODY_MAX: usize = 4096;

/// The routes of this file.
pub fn routes() -> Router<Engine> {
    Router::new()
        .route("/members", reply::get_only(members))
        .route("/members/hashkv", reply::get_only(hash_kv))
        .route("/downgrade/enabled", reply::get_only(downgrade_enabled))
}

#[derive(Serialize)]
struct Member<'a> {
    id: u64,
    #[serde(rename = "peerURLs")]
    peer_urls: &'a [String],
    #[serde(rename = "isLearner", skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(rename = "clientURLs", skip_serializing_if = "<[String]>::is_empty")]
    client_urls: &'a [String],
}

async fn members(State(engine): State<Engine>) -> Response {
    let members = engine.members();
    let members: Vec<Member<'_>> = members
        .iter()
        .map(|member| Member {
            id: member.id,
            peer_urls: &member.peer_urls,
            is_learner: member.is_learner,
            name: &member.name,
            client_urls: &member.client_urls,
        })
        .collect();
    let text = reply::written(&members) + "\n";
    signed(&engine, reply::json(StatusCode::OK, text, "application/json"))
}

/// Digest of the keys up to a revision, which the body of the request names.
async fn hash_kv(State(engine): State<Engine>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let asked = parts.headers.get(CLUSTER_ID).map(HeaderValue::as_bytes).unwrap_or_default();
    if !asked.is_empty() && asked != cluster_id(&engine).as_bytes() {
        return reply::text(StatusCode::PRECONDITION_FAILED, "cluster ID mismatch\n");
    }
    let body = to_bytes(body, BODY_MAX).await.unwrap_or_default();
    let Some(revision) = revision(&body) else {
        return reply::text(StatusCode::BAD_REQUEST, "error unmarshalling request\n");
    };
    match engine.hash(revision).await {
        Ok(hash) => {
            #[derive(Serialize)]
            struct Header {
                revision: i64,
            }
            #[derive(Serialize)]
            struct Answer {
                header: Header,
                hash: u32,
                compact_revision: i64,
                hash_revision: i64,
            }
            let answer = Answer {
                header: Header { revision: engine.revision() },
                hash: hash.hash,
                compact_revision: hash.compacted,
                hash_revision: hash.revision,
            };
            signed(&engine, reply::json(StatusCode::OK, reply::written(&answer), "application/json"))
        }
        Err(error) => {
            let status = error::status(error);
            let text = status.message().strip_prefix("etcdserver: ").unwrap_or(status.message());
            reply::text(StatusCode::BAD_REQUEST, format!("{text}\n"))
        }
    }
}

fn revision(body: &Bytes) -> Option<i64> {
    #[derive(Deserialize)]
    struct Asked {
        #[serde(default)]
        revision: i64,
    }
    serde_json::from_slice::<Asked>(body).ok().map(|asked| asked.revision)
}

/// Whether the cluster is on its way to an older version.
async fn downgrade_enabled(State(engine): State<Engine>) -> Response {
    let answer = match engine.read_index().await {
        Ok(()) => {
            let under_way = engine.versions().downgrade.is_some();
            reply::json(StatusCode::OK, under_way.to_string(), "text/plain")
        }
        Err(error) => {
            let text = format!("failed linearized read: {}\n", error::status(error).message());
            reply::text(StatusCode::INTERNAL_SERVER_ERROR, text)
        }
    };
    signed(&engine, answer)
}

fn signed(engine: &Engine, mut response: Response) -> Response {
    if let Ok(id) = HeaderValue::try_from(cluster_id(engine)) {
        response.headers_mut().insert(CLUSTER_ID, id);
    }
    response.headers_mut().insert(VERSION, HeaderValue::from_static(KVIST_VERSION));
    response
}

fn cluster_id(engine: &Engine) -> String {
    format!("{:x}", engine.identity().cluster)
}
