//! A client of Oxia's early protocol, with etcd's services on the same connection: raw tonic stubs, no client library.
//!
//! Nothing here retries: what the server answers is what a test sees. Tests that need a store of their own start a server;
//! all others share one, each below a prefix of its own.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::BufMut;
use kvist::pb::etcdserverpb as etcd;
use kvist::pb::mvccpb::{Event, KeyValue, event::EventType};
use kvist::pb::oxia as pb;
use parking_lot::Mutex;
use pb::oxia_client_client::OxiaClientClient;
use pb::{get_response, put_response};
use prost::Message;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::cluster::{Api, api::WatchStream};
use crate::support::Server;

/// How long any single answer may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// The expected version that means "no such key".
pub const ABSENT: u64 = u64::MAX;

/// One connection to a server.
#[derive(Clone)]
pub struct Client {
    pub oxia: OxiaClientClient<Channel>,
    channel: Channel,
    /// etcd's API of the same server.
    pub etcd: Api,
    token: Option<String>,
    server: Option<Arc<Server>>,
}

impl Client {
    /// Of the server at a URL.
    pub async fn connect(url: &str) -> Client {
        let endpoint = Endpoint::from_shared(url.to_owned()).expect("a URL");
        let channel = endpoint.connect().await.expect("connect to the server");
        let oxia = OxiaClientClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
        Client { oxia, channel, etcd: Api::new(url, PATIENCE), token: None, server: None }
    }

    /// Of a server that ends with its clients.
    pub async fn of(server: Server) -> Client {
        Client::sharing(Arc::new(server)).await
    }

    async fn sharing(server: Arc<Server>) -> Client {
        Client { server: Some(Arc::clone(&server)), ..Client::connect(&server.url()).await }
    }

    /// Of the server that tests share.
    pub async fn shared() -> Client {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let server = {
            let mut shared = SHARED.lock();
            shared.upgrade().unwrap_or_else(|| {
                let server = Arc::new(Server::start());
                *shared = Arc::downgrade(&server);
                server
            })
        };
        Client::sharing(server).await
    }

    /// `host:port` of the server, which must be one of the test's or the shared one.
    pub fn endpoint(&self) -> String {
        self.server.as_ref().expect("a server of ours").endpoint()
    }

    /// The same, as whoever has this token.
    pub fn with_token(&self, token: &str) -> Client {
        Client { token: Some(token.to_owned()), ..self.clone() }
    }

    /// A request with the token.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.parse().expect("a token is ASCII"));
        }
        request
    }

    pub async fn try_batch(&self, request: pb::BatchRequest) -> Result<pb::BatchResponse, Status> {
        self.oxia.clone().batch(self.request(request)).await.map(Response::into_inner)
    }

    pub async fn batch(&self, request: pb::BatchRequest) -> pb::BatchResponse {
        self.try_batch(request).await.expect("a batch")
    }

    /// Puts one key, and gives what became of it.
    pub async fn put(&self, request: pb::PutRequest) -> pb::PutResponse {
        let answer = self.batch(pb::BatchRequest { puts: vec![request], ..Default::default() }).await;
        only(answer.puts)
    }

    pub async fn delete(&self, request: pb::DeleteRequest) -> pb::DeleteResponse {
        let answer = self.batch(pb::BatchRequest { deletes: vec![request], ..Default::default() }).await;
        only(answer.deletes)
    }

    /// Reads one key with its payload.
    pub async fn get(&self, key: &str) -> pb::GetResponse {
        let answer = self.batch(pb::BatchRequest { gets: vec![get(key)], ..Default::default() }).await;
        only(answer.gets)
    }

    /// Reads a range without payloads.
    pub async fn list(&self, start: &str, end: &str) -> Vec<pb::GetResponse> {
        let get_ranges = vec![get_range(start, end, false)];
        let answer = self.batch(pb::BatchRequest { get_ranges, ..Default::default() }).await;
        only(answer.get_ranges).gets
    }

    /// Deletes a range, and gives the keys that it names.
    pub async fn delete_range(&self, start: &str, end: &str) -> Vec<String> {
        let delete_ranges = vec![delete_range(start, end)];
        let answer = self.batch(pb::BatchRequest { delete_ranges, ..Default::default() }).await;
        only(answer.delete_ranges).deletes.into_iter().map(|delete| delete.key).collect()
    }

    pub async fn assignments(&self) -> Result<Streaming<pb::ShardAssignmentsResponse>, Status> {
        let request = self.request(pb::ShardAssignmentsRequest {});
        self.oxia.clone().shard_assignments(request).await.map(Response::into_inner)
    }

    /// The revision of etcd's store.
    pub async fn revision(&self) -> i64 {
        self.etcd.status().await.expect("status").header.expect("a header").revision
    }

    /// The pair of a key by etcd's API.
    pub async fn pair(&self, key: &str) -> Option<KeyValue> {
        self.etcd.get(key, false).await.expect("a read by etcd's API")
    }

    /// A watch by etcd's API of all keys with a prefix, from a revision on.
    pub async fn watch(&self, prefix: &str, from: i64) -> WatchStream {
        self.etcd.watch(prefix.as_bytes(), after(prefix).as_bytes(), from).await.expect("a watch")
    }
}

/// The next list of assignments, which must come in time.
pub async fn next_assignments(
    stream: &mut Streaming<pb::ShardAssignmentsResponse>,
) -> Vec<pb::ShardAssignment> {
    let next = tokio::time::timeout(PATIENCE, stream.message()).await.expect("assignments in time");
    next.expect("the stream is healthy").expect("the stream goes on").assignments
}

/// Events of a watch until there are `count`, as `put key=value` or `delete key`, and their revisions.
pub async fn events(watch: &mut WatchStream, count: usize) -> Vec<(String, i64)> {
    let mut found = Vec::new();
    while found.len() < count {
        let next = tokio::time::timeout(PATIENCE, watch.answers.message()).await.expect("events in time");
        found.extend(next.expect("a healthy watch").expect("a watch that goes on").events.iter().map(brief));
    }
    assert_eq!(found.len(), count, "more events than expected: {found:?}");
    found
}

fn brief(event: &Event) -> (String, i64) {
    let kv = event.kv.as_ref().expect("an event has a key");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let told = match event.r#type() {
        EventType::Put => format!("put {}={}", text(&kv.key), text(&kv.value)),
        EventType::Delete => format!("delete {}", text(&kv.key)),
    };
    (told, kv.mod_revision)
}

/// The only element.
#[track_caller]
pub fn only<T>(mut list: Vec<T>) -> T {
    assert_eq!(list.len(), 1, "one answer for one question");
    list.remove(0)
}

/// The first key after all with a prefix of ASCII.
pub fn after(prefix: &str) -> String {
    let (head, last) = prefix.split_at(prefix.len() - 1);
    format!("{head}{}", char::from(last.as_bytes()[0] + 1))
}

pub fn put(key: impl Into<String>, payload: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), payload: payload.to_owned().into(), expected_version: None }
}

pub fn put_if(key: impl Into<String>, payload: &str, expected: u64) -> pb::PutRequest {
    pb::PutRequest { expected_version: Some(expected), ..put(key, payload) }
}

pub fn delete(key: impl Into<String>) -> pb::DeleteRequest {
    pb::DeleteRequest { key: key.into(), expected_version: None }
}

pub fn delete_if(key: impl Into<String>, expected: u64) -> pb::DeleteRequest {
    pb::DeleteRequest { key: key.into(), expected_version: Some(expected) }
}

pub fn get(key: impl Into<String>) -> pb::GetRequest {
    pb::GetRequest { key: key.into(), include_payload: true }
}

pub fn delete_range(start: impl Into<String>, end: impl Into<String>) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { start_inclusive: start.into(), end_exclusive: end.into() }
}

pub fn get_range(
    start: impl Into<String>,
    end: impl Into<String>,
    include_payloads: bool,
) -> pb::GetRangeRequest {
    pb::GetRangeRequest { start_inclusive: start.into(), end_exclusive: end.into(), include_payloads }
}

/// The stat of a put that was done.
#[track_caller]
pub fn stat(put: &pb::PutResponse) -> pb::Stat {
    match &put.result {
        Some(put_response::Result::Stat(stat)) => *stat,
        other => panic!("a stat was expected of the put, not {other:?}"),
    }
}

/// The stat of a key that was found.
#[track_caller]
pub fn found(get: &pb::GetResponse) -> pb::Stat {
    match &get.result {
        Some(get_response::Result::Stat(stat)) => *stat,
        other => panic!("a stat was expected of the get, not {other:?}"),
    }
}

pub fn put_error(put: &pb::PutResponse) -> Option<&pb::Error> {
    match &put.result {
        Some(put_response::Result::Error(error)) => Some(error),
        _ => None,
    }
}

pub fn get_error(get: &pb::GetResponse) -> Option<&pb::Error> {
    match &get.result {
        Some(get_response::Result::Error(error)) => Some(error),
        _ => None,
    }
}

#[track_caller]
pub fn is_not_found(error: Option<&pb::Error>) {
    let error = error.expect("an error");
    assert_eq!((error.r#type(), error.message.as_str()), (pb::ErrorType::KeyNotFound, "key not found"));
}

#[track_caller]
pub fn is_mismatch(error: Option<&pb::Error>) {
    let error = error.expect("an error");
    assert_eq!((error.r#type(), error.message.as_str()), (pb::ErrorType::Unspecified, "unexpected version"));
}

/// The keys of gets, in order.
pub fn keys(gets: &[pb::GetResponse]) -> Vec<&str> {
    gets.iter().map(|get| get.key.as_str()).collect()
}

/// Checks that a call failed with exactly this code and text.
#[track_caller]
pub fn refuses<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, text: &str) {
    let status = answer.expect_err("the call must fail");
    assert_eq!((status.code(), status.message()), (code, text));
}

/// A put by etcd's API of any bytes, under a lease or 0.
pub async fn etcd_put(client: &Client, key: &[u8], value: &str, lease: i64) {
    let request = etcd::PutRequest { key: key.into(), value: value.into(), lease, ..Default::default() };
    client.etcd.kv.clone().put(request).await.expect("a put by etcd's API");
}

/// Calls a method of the service with these bytes as its message; the answer is that of a batch.
pub async fn raw_call(client: &Client, method: &str, message: Vec<u8>) -> Result<pb::BatchResponse, Status> {
    let path = format!("/io.streamnative.oxia.client.OxiaClient/{method}").parse().expect("a path");
    let mut grpc = tonic::client::Grpc::new(client.channel.clone());
    grpc.ready().await.expect("a connection");
    grpc.unary(Request::new(message), path, Raw).await.map(Response::into_inner)
}

/// Sends bytes as they are.
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = pb::BatchResponse;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = pb::BatchResponse;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<pb::BatchResponse>, Status> {
        pb::BatchResponse::decode(buffer).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
