//! Clients and small readers for the watch, lease and maintenance tests: raw tonic stubs, no client library logic.
//!
//! Nothing here retries or reconnects: what the server sends is what a test sees. Every wait has a deadline.

use std::future::Future;
use std::time::{Duration, Instant};

use kvist::pb::etcdserverpb as pb;
use kvist::pb::mvccpb::{Event, KeyValue, event::EventType};
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::maintenance_client::MaintenanceClient;
use pb::request_op::Request as Op;
use pb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::support::Server;

/// How long any single answer may take before the test fails.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(15);

/// One connection and a stub for each service on it.
#[derive(Clone)]
pub struct Clients {
    pub channel: Channel,
    pub kv: KvClient<Channel>,
    pub watch: WatchClient<Channel>,
    pub lease: LeaseClient<Channel>,
    pub maintenance: MaintenanceClient<Channel>,
}

impl Clients {
    pub async fn connect(server: &Server) -> Clients {
        Clients::connect_with(server, |endpoint| endpoint).await
    }

    /// The same with another setting of the connection, such as its flow-control window.
    pub async fn connect_with(server: &Server, tune: impl FnOnce(Endpoint) -> Endpoint) -> Clients {
        let endpoint = tune(Endpoint::from_shared(server.url()).expect("a URL"));
        let channel = endpoint.connect().await.expect("connect to the server");
        Clients {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            watch: WatchClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            lease: LeaseClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            maintenance: MaintenanceClient::new(channel.clone()),
            channel,
        }
    }

    pub async fn try_put(&self, request: pb::PutRequest) -> Result<pb::PutResponse, Status> {
        self.kv.clone().put(request).await.map(Response::into_inner)
    }

    /// Puts and returns the revision of the write.
    pub async fn put(&self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> i64 {
        self.put_leased(key, value, 0).await
    }

    pub async fn put_leased(&self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>, lease: i64) -> i64 {
        let response = self.try_put(put_request(key, value, lease)).await.expect("put");
        response.header.expect("header").revision
    }

    pub async fn try_delete(&self, key: &str, range_end: &str) -> Result<pb::DeleteRangeResponse, Status> {
        let request = delete_request(key, range_end);
        self.kv.clone().delete_range(request).await.map(Response::into_inner)
    }

    /// Deletes one key and returns the revision of the write.
    pub async fn delete(&self, key: &str) -> i64 {
        self.try_delete(key, "").await.expect("delete").header.expect("header").revision
    }

    pub async fn get(&self, key: &str) -> Option<KeyValue> {
        self.range(key, "").await.kvs.pop()
    }

    pub async fn range(&self, key: &str, range_end: &str) -> pb::RangeResponse {
        let request = pb::RangeRequest { key: key.into(), range_end: range_end.into(), ..Default::default() };
        self.kv.clone().range(request).await.expect("range").into_inner()
    }

    pub async fn revision(&self) -> i64 {
        self.range("revision-probe", "").await.header.expect("header").revision
    }

    pub async fn try_txn(&self, success: Vec<pb::RequestOp>) -> Result<pb::TxnResponse, Status> {
        let request = pb::TxnRequest { success, ..Default::default() };
        self.kv.clone().txn(request).await.map(Response::into_inner)
    }

    /// Runs the operations as one transaction and returns its revision.
    pub async fn txn(&self, success: Vec<pb::RequestOp>) -> i64 {
        self.try_txn(success).await.expect("txn").header.expect("header").revision
    }

    pub async fn compact(&self, revision: i64) {
        let request = pb::CompactionRequest { revision, physical: true };
        self.kv.clone().compact(request).await.expect("compact");
    }

    pub async fn try_grant(&self, ttl: i64, id: i64) -> Result<pb::LeaseGrantResponse, Status> {
        let request = pb::LeaseGrantRequest { ttl, id };
        self.lease.clone().lease_grant(request).await.map(Response::into_inner)
    }

    /// Grants a lease under an id that the server picks.
    pub async fn grant(&self, ttl: i64) -> i64 {
        self.try_grant(ttl, 0).await.expect("grant").id
    }

    pub async fn try_revoke(&self, id: i64) -> Result<pb::LeaseRevokeResponse, Status> {
        self.lease.clone().lease_revoke(pb::LeaseRevokeRequest { id }).await.map(Response::into_inner)
    }

    pub async fn time_to_live(&self, id: i64, keys: bool) -> pb::LeaseTimeToLiveResponse {
        let request = pb::LeaseTimeToLiveRequest { id, keys };
        self.lease.clone().lease_time_to_live(request).await.expect("time to live").into_inner()
    }

    pub async fn leases(&self) -> Vec<i64> {
        let response = self.lease.clone().lease_leases(pb::LeaseLeasesRequest {}).await.expect("leases");
        response.into_inner().leases.iter().map(|l| l.id).collect()
    }

    pub async fn status(&self) -> pb::StatusResponse {
        self.maintenance.clone().status(pb::StatusRequest {}).await.expect("status").into_inner()
    }

    pub fn watch_stream(&self) -> WatchStream {
        let mut client = self.watch.clone();
        Duplex::open(|requests| async move { client.watch(requests).await })
    }

    pub fn keep_alive_stream(&self) -> Duplex<pb::LeaseKeepAliveRequest, pb::LeaseKeepAliveResponse> {
        let mut client = self.lease.clone();
        Duplex::open(|requests| async move { client.lease_keep_alive(requests).await })
    }
}

/// A bidirectional call. The response headers may come only with the first message, so opening never waits.
pub struct Duplex<Q, R> {
    requests: Option<mpsc::Sender<Q>>,
    opening: Option<JoinHandle<Result<Response<Streaming<R>>, Status>>>,
    responses: Option<Streaming<R>>,
}

pub type WatchStream = Duplex<pb::WatchRequest, pb::WatchResponse>;

impl<Q: Send + 'static, R: Send + 'static> Duplex<Q, R> {
    /// Starts `call` on a stream of requests.
    pub fn open<F>(call: impl FnOnce(Request<ReceiverStream<Q>>) -> F) -> Duplex<Q, R>
    where
        F: Future<Output = Result<Response<Streaming<R>>, Status>> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(4096);
        let opening = tokio::spawn(call(Request::new(ReceiverStream::new(receiver))));
        Duplex { requests: Some(sender), opening: Some(opening), responses: None }
    }

    pub async fn send(&self, request: Q) {
        let sender = self.requests.as_ref().expect("the request side is open");
        assert!(sender.send(request).await.is_ok(), "the server ended the stream");
    }

    /// Ends the request side; the response side stays open.
    pub fn half_close(&mut self) {
        self.requests = None;
    }

    /// The next message; `None` at a clean end.
    pub async fn try_next(&mut self) -> Result<Option<R>, Status> {
        if let Some(opening) = self.opening.as_mut() {
            let opened = opening.await.expect("the call task ends");
            self.opening = None;
            self.responses = Some(opened?.into_inner());
        }
        self.responses.as_mut().expect("a stream that failed is not read again").message().await
    }

    /// The next message, which must come before the deadline.
    pub async fn next(&mut self) -> R {
        self.next_within(REPLY_TIMEOUT).await.expect("a message before the deadline")
    }

    /// The next message, or `None` when nothing came in time.
    pub async fn next_within(&mut self, timeout: Duration) -> Option<R> {
        let next = tokio::time::timeout(timeout, self.try_next()).await.ok()?;
        Some(next.expect("the stream is healthy").expect("the stream goes on"))
    }
}

impl WatchStream {
    pub async fn request(&self, union: RequestUnion) {
        self.send(pb::WatchRequest { request_union: Some(union) }).await;
    }

    /// Sends a create request and returns the answer, which must be the very next message.
    pub async fn create(&mut self, request: pb::WatchCreateRequest) -> pb::WatchResponse {
        self.request(RequestUnion::CreateRequest(request)).await;
        let response = self.next().await;
        assert!(response.created, "expected the answer to the create request, got {response:?}");
        response
    }

    pub async fn cancel(&self, watch_id: i64) {
        self.request(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id })).await;
    }

    pub async fn request_progress(&self) {
        self.request(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    }

    /// Reads responses until `count` events have come; they must be plain event responses.
    pub async fn events(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            let response = self.next().await;
            assert!(!response.created && !response.canceled, "expected events, got {response:?}");
            events.extend(response.events);
        }
        assert_eq!(events.len(), count, "more events than expected: {:?}", brief(&events));
        events
    }

    /// Reads `count` events and returns them in the short form of [`brief`].
    pub async fn briefs(&mut self, count: usize) -> Vec<String> {
        brief(&self.events(count).await)
    }
}

/// A create request for one key from the next revision on.
pub fn watch_key(key: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: key.into(), ..Default::default() }
}

/// A create request for a half-open range.
pub fn watch_range(key: &str, range_end: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: key.into(), range_end: range_end.into(), ..Default::default() }
}

/// The events as text: `put key=value@mod_revision` and `delete key@mod_revision`.
pub fn brief(events: &[Event]) -> Vec<String> {
    events.iter().map(brief_event).collect()
}

fn brief_event(event: &Event) -> String {
    let kv = event.kv.as_ref().expect("an event has a key");
    let (key, revision) = (text(&kv.key), kv.mod_revision);
    match event.r#type() {
        EventType::Put => format!("put {key}={}@{revision}", text(&kv.value)),
        EventType::Delete => format!("delete {key}@{revision}"),
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn put_request(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>, lease: i64) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: value.into(), lease, ..Default::default() }
}

pub fn delete_request(key: &str, range_end: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: key.into(), range_end: range_end.into(), ..Default::default() }
}

pub fn put_op(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> pb::RequestOp {
    put_leased_op(key, value, 0)
}

pub fn put_leased_op(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>, lease: i64) -> pb::RequestOp {
    pb::RequestOp { request: Some(Op::RequestPut(put_request(key, value, lease))) }
}

pub fn delete_op(key: &str) -> pb::RequestOp {
    pb::RequestOp { request: Some(Op::RequestDeleteRange(delete_request(key, ""))) }
}

/// Checks that a call failed with exactly this code and text.
pub fn assert_refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, message: &str) {
    let status = result.expect_err("the call must fail");
    assert_eq!((status.code(), status.message()), (code, message));
}

/// Bytes of anonymous memory of the server process.
pub fn rss_anon_bytes(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("process status");
    let line = status.lines().find(|l| l.starts_with("RssAnon:")).expect("RssAnon line");
    let kib = line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).expect("a number of KiB");
    kib * 1024
}

/// Polls until `condition` holds; panics with `what` when the reply timeout has passed.
pub async fn poll(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + REPLY_TIMEOUT;
    while !condition().await {
        assert!(Instant::now() < deadline, "gave up waiting for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
