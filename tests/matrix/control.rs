//! The control service: how a suite gets servers, and kills, stops, starts and pauses them. JSON over HTTP/1.1.
//!
//! | request | what it does |
//! |---|---|
//! | `POST /servers` `{"tls": false, "client_cert_auth": false, "flags": []}` | starts a fresh server, answers with its addresses |
//! | `POST /clusters` `{"members": 3, "flags": []}` | starts fresh servers that are one cluster, answers with the addresses of all |
//! | `POST /servers/1/kill` | SIGKILL |
//! | `POST /servers/1/stop` | SIGTERM, waits for the end |
//! | `POST /servers/1/start` | starts it again on its data and ports |
//! | `POST /servers/1/pause`, `/resume` | SIGSTOP (answers when all of it stands still), SIGCONT |
//! | `DELETE /servers/1` | kills it and removes its data |
//!
//! Each suite has a service of its own, so that what it leaves behind goes with it. Called by `suite.rs`.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as Segments, State};
use axum::http::{StatusCode, header::CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::servers::{Refused, Servers};

/// A running service; its servers are killed when it is dropped.
pub struct Control {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    servers: Arc<Servers>,
    task: JoinHandle<()>,
}

impl Control {
    /// Listens on a port of loopback.
    pub fn start(runtime: &Runtime, binary: &Path, logs: &Path) -> std::io::Result<Control> {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let url = format!("http://{}", listener.local_addr()?);
        let servers = Arc::new(Servers::new(binary, logs));
        let router = Router::new()
            .route("/servers", post(create))
            .route("/clusters", post(create_cluster))
            .route("/servers/{id}", delete(remove))
            .route("/servers/{id}/{verb}", post(act))
            .with_state(Arc::clone(&servers));
        let task = runtime.spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("the control service ended: {error}");
            }
        });
        Ok(Control { url, servers, task })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        self.servers.clear();
    }
}

async fn create(State(servers): State<Arc<Servers>>, body: Bytes) -> Response {
    made(&body, move |wish| servers.create(wish)).await
}

async fn create_cluster(State(servers): State<Arc<Servers>>, body: Bytes) -> Response {
    made(&body, move |wish| servers.create_cluster(wish)).await
}

/// What comes of a wish, which an empty body leaves to the defaults.
async fn made<W, A>(body: &[u8], make: impl FnOnce(W) -> Result<A, Refused> + Send + 'static) -> Response
where
    W: Default + DeserializeOwned + Send + 'static,
    A: Serialize,
{
    let wish = if body.is_empty() { Ok(W::default()) } else { serde_json::from_slice(body) };
    match wish {
        Err(error) => refuse((400, format!("the body: {error}\n"))),
        Ok(wish) => blocking(move || Ok(serde_json::to_string(&make(wish)?).expect("plain data"))).await,
    }
}

fn act(
    State(servers): State<Arc<Servers>>,
    Segments((id, verb)): Segments<(u32, String)>,
) -> impl Future<Output = Response> {
    blocking(move || servers.act(id, &verb).map(|()| "{}".to_owned()))
}

fn remove(
    State(servers): State<Arc<Servers>>,
    Segments(id): Segments<u32>,
) -> impl Future<Output = Response> {
    blocking(move || servers.remove(id).map(|()| "{}".to_owned()))
}

/// Processes are waited for on a thread that may block.
async fn blocking(work: impl FnOnce() -> Result<String, Refused> + Send + 'static) -> Response {
    match spawn_blocking(work).await {
        Ok(Ok(json)) => ([(CONTENT_TYPE, "application/json")], format!("{json}\n")).into_response(),
        Ok(Err(refused)) => refuse(refused),
        Err(error) => refuse((500, format!("{error}\n"))),
    }
}

fn refuse((status, text): Refused) -> Response {
    (StatusCode::from_u16(status).expect("a status"), text).into_response()
}
