//! What several cases need: connecting, clusters, errors, messages with a limit.

use std::future::Future;
use std::time::Duration;

use d_engine_client::protocol::{WatchEventType, WatchResponse};
use d_engine_client::{Client, ClientApiError, ClientBuilder, ErrorCode};
use serde_json::json;
use tonic::Streaming;

use crate::control::{Server, call};

/// For whatever should come soon.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(100);

pub async fn connect(server: &Server) -> Client {
    builder(std::slice::from_ref(server)).build().await.expect("connect")
}

pub fn builder(servers: &[Server]) -> ClientBuilder {
    let builder = Client::builder(servers.iter().map(|server| server.endpoint.clone()).collect());
    builder.cluster_ready_timeout(REPLY_TIMEOUT)
}

/// Three servers that are one cluster.
pub async fn three() -> Vec<Server> {
    let answer = call("POST", "/clusters", &json!({ "members": 3 }).to_string()).await;
    answer.as_array().expect("a list of servers").iter().map(Server::of).collect()
}

/// What kind of error it is.
pub fn code(error: &ClientApiError) -> ErrorCode {
    match error {
        ClientApiError::Network { code, .. }
        | ClientApiError::Protocol { code, .. }
        | ClientApiError::Storage { code, .. }
        | ClientApiError::Business { code, .. }
        | ClientApiError::General { code, .. } => *code,
    }
}

/// The next message of a stream.
pub async fn next<T>(stream: &mut Streaming<T>) -> Result<Option<T>, tonic::Status> {
    tokio::time::timeout(REPLY_TIMEOUT, stream.message()).await.expect("a message in time")
}

/// The next event: kind, key, value.
pub async fn event(stream: &mut Streaming<WatchResponse>) -> (WatchEventType, String, String) {
    loop {
        let message = next(stream).await.expect("no end of the watch").expect("an event");
        assert_eq!(message.error, 0);
        match message.event_type() {
            WatchEventType::Progress => {}
            kind => return (kind, text(&message.key), text(&message.value)),
        }
    }
}

pub fn put(key: &str, value: &str) -> (WatchEventType, String, String) {
    (WatchEventType::Put, key.to_owned(), value.to_owned())
}

pub fn delete(key: &str) -> (WatchEventType, String, String) {
    (WatchEventType::Delete, key.to_owned(), String::new())
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asks again and again until there is an answer.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let ask = async {
        loop {
            match ask().await {
                Some(answer) => return answer,
                None => tokio::time::sleep(LOOK).await,
            }
        }
    };
    match tokio::time::timeout(REPLY_TIMEOUT, ask).await {
        Ok(answer) => answer,
        Err(_) => panic!("gave up waiting for {what}"),
    }
}
