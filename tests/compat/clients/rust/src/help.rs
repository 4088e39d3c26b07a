//! What several cases need: connecting, short forms of answers, waiting with a limit.

use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};

use etcd_client::{
    Client, ConnectOptions, Error, EventType, GetOptions, KeyValue, WatchResponse, WatchStream,
};

use crate::control::Server;

/// For whatever should come at once.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

// gRPC's codes.
pub const CANCELLED: i32 = 1;
pub const UNKNOWN: i32 = 2;
pub const INVALID_ARGUMENT: i32 = 3;
pub const DEADLINE_EXCEEDED: i32 = 4;
pub const NOT_FOUND: i32 = 5;
pub const PERMISSION_DENIED: i32 = 7;
pub const RESOURCE_EXHAUSTED: i32 = 8;
pub const FAILED_PRECONDITION: i32 = 9;
pub const OUT_OF_RANGE: i32 = 11;
pub const UNAUTHENTICATED: i32 = 16;

pub async fn connect(server: &Server) -> Client {
    connect_with(server, ConnectOptions::new()).await
}

pub async fn connect_with(server: &Server, options: ConnectOptions) -> Client {
    let options = options.with_require_leader(true).with_timeout(REPLY_TIMEOUT);
    Client::connect([&server.endpoint], Some(options)).await.expect("connect")
}

/// Code and text of the status that a call was refused with.
pub fn refused<T: Debug>(result: Result<T, Error>) -> (i32, String) {
    match result.expect_err("a refusal") {
        Error::GRpcStatus(status) => (status.code() as i32, status.message().to_owned()),
        other => panic!("no status of gRPC: {other:?}"),
    }
}

/// The same as an expected value.
pub fn status(code: i32, text: &str) -> (i32, String) {
    (code, text.to_owned())
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// `["a=1", "b=2"]`.
pub fn pairs(kvs: &[KeyValue]) -> Vec<String> {
    kvs.iter().map(|kv| format!("{}={}", text(kv.key()), text(kv.value()))).collect()
}

/// Keys that begin so, with their values.
pub async fn all(client: &mut Client, prefix: &str) -> Vec<String> {
    pairs(client.get(prefix, Some(GetOptions::new().with_prefix())).await.expect("get").kvs())
}

/// A key that is there.
pub async fn one(client: &mut Client, key: impl Into<Vec<u8>>) -> KeyValue {
    let found = client.get(key, None).await.expect("get");
    found.kvs().first().expect("the key").clone()
}

/// Puts each "key=value"; the revision of the last.
pub async fn put(client: &mut Client, all: &[&str]) -> i64 {
    let mut revision = 0;
    for pair in all {
        let (key, value) = pair.split_once('=').expect("key=value");
        let answer = client.put(key, value, None).await.expect("put");
        revision = answer.header().expect("a header").revision();
    }
    revision
}

/// The next response of a watch stream.
pub async fn next(stream: &mut WatchStream) -> WatchResponse {
    let message = soon("a response of a watch", stream.message()).await;
    message.expect("a healthy stream").expect("the stream goes on")
}

/// `["put a=1 @2", "delete a @3"]`.
pub fn events(response: &WatchResponse) -> Vec<String> {
    let event = |event: &etcd_client::Event| {
        let kv = event.kv().expect("an event has a key");
        let (key, value, revision) = (text(kv.key()), text(kv.value()), kv.mod_revision());
        match event.event_type() {
            EventType::Put => format!("put {key}={value} @{revision}"),
            EventType::Delete => format!("delete {key} @{revision}"),
        }
    };
    response.events().iter().map(event).collect()
}

/// The next `count` events of a stream, from as many responses as they take.
pub async fn next_events(stream: &mut WatchStream, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let response = next(stream).await;
        assert!(!response.canceled(), "cancelled: {}", response.cancel_reason());
        seen.extend(events(&response));
    }
    seen
}

/// What a future gives, if it does within the usual limit.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(REPLY_TIMEOUT, future).await {
        Ok(output) => output,
        Err(_) => panic!("gave up waiting for {what}"),
    }
}

/// Asks again and again until the answer is yes.
pub async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + REPLY_TIMEOUT;
    while !condition().await {
        assert!(Instant::now() < deadline, "gave up waiting for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
