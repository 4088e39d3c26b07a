//! A server, a stub of the draft's service, and etcd's stubs on the same connection: nothing here retries, so what the
//! server answers is what a test sees. Every wait has a deadline.

use std::time::Duration;

use bytes::Bytes;
use kvist::pb::etcdserverpb as v3;
use kvist::pb::rfc as pb;
use pb::compare::{CompareType, Target};
use pb::etcd_client::EtcdClient;
use pb::event::EventType;
use pb::request_union::Request as Op;
use pb::response_union::Response as OpResponse;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};
use v3::kv_client::KvClient;
use v3::lease_client::LeaseClient;
use v3::watch_client::WatchClient;

use crate::support::Server;

/// How long any single answer may take.
const PATIENCE: Duration = Duration::from_secs(15);

pub const EMPTY_KEY: &str = "etcdserver: key is not provided";
pub const BAD_TOKEN: &str = "etcdserver: consistent token is not valid";
pub const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
pub const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";
pub const LEASE_NOT_FOUND: &str = "etcdserver: requested lease not found";
pub const KEY_NOT_FOUND: &str = "etcdserver: key not found";
pub const DUPLICATE_KEY: &str = "etcdserver: duplicate key given in txn request";
pub const TOO_MANY_OPS: &str = "etcdserver: too many operations in txn request";

/// One connection and its stubs.
#[derive(Clone)]
pub struct Client {
    pub channel: Channel,
    pub rfc: EtcdClient<Channel>,
    pub kv: KvClient<Channel>,
    pub lease: LeaseClient<Channel>,
    pub watch: WatchClient<Channel>,
}

/// A server of the test's own, and a client.
pub async fn start(args: &[&str]) -> (Server, Client) {
    let server = Server::start_with(args);
    let client = Client::connect(server.url()).await;
    (server, client)
}

impl Client {
    pub async fn connect(url: String) -> Client {
        let endpoint = Endpoint::from_shared(url).expect("a URL");
        Client::over(endpoint.connect().await.expect("connect to the server"))
    }

    pub fn over(channel: Channel) -> Client {
        Client {
            rfc: EtcdClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            kv: KvClient::new(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            watch: WatchClient::new(channel.clone()),
            channel,
        }
    }

    pub async fn try_put(&self, key: &str, value: &str) -> Result<pb::PutResponse, Status> {
        Ok(self.rfc.clone().put(put(key, value)).await?.into_inner())
    }

    /// Puts, and returns the index of the write.
    pub async fn put(&self, key: &str, value: &str) -> i64 {
        index(&self.try_put(key, value).await.expect("put").header)
    }

    pub async fn try_range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        Ok(self.rfc.clone().range(request).await?.into_inner())
    }

    pub async fn range(&self, request: pb::RangeRequest) -> pb::RangeResponse {
        self.try_range(request).await.expect("range")
    }

    pub async fn get(&self, key: &str) -> Option<pb::KeyValue> {
        self.range(range(key, "")).await.kvs.pop()
    }

    /// The value of a key that is there.
    pub async fn value(&self, key: &str) -> String {
        text(&self.get(key).await.expect("the key").value)
    }

    /// The current index.
    pub async fn index(&self) -> i64 {
        index(&self.range(range("no such key", "")).await.header)
    }

    pub async fn delete(&self, key: &str, range_end: &str) -> pb::DeleteRangeResponse {
        let request = pb::DeleteRangeRequest { key: bytes(key), range_end: end(range_end) };
        self.rfc.clone().delete_range(request).await.expect("delete range").into_inner()
    }

    pub async fn tnx(&self, request: pb::TnxRequest) -> pb::TnxResponse {
        self.rfc.clone().tnx(request).await.expect("tnx").into_inner()
    }

    pub async fn compact(&self, index: i64) -> pb::CompactionResponse {
        let request = pb::CompactionRequest { index: Some(index) };
        self.rfc.clone().compact(request).await.expect("compact").into_inner()
    }

    pub async fn create(&self, ttl: i64) -> pb::LeaseCreateResponse {
        let request = pb::LeaseCreateRequest { ttl: Some(ttl) };
        self.rfc.clone().lease_create(request).await.expect("create a lease").into_inner()
    }

    /// The id of a lease of ten minutes.
    pub async fn lease(&self) -> i64 {
        self.create(600).await.lease_id.expect("an id")
    }

    pub async fn revoke(&self, lease: i64) -> pb::LeaseRevokeResponse {
        let request = pb::LeaseRevokeRequest { lease_id: Some(lease) };
        self.rfc.clone().lease_revoke(request).await.expect("revoke").into_inner()
    }

    pub async fn attach(&self, lease: i64, key: &str) -> pb::LeaseAttachResponse {
        self.rfc.clone().lease_attach(attachment(lease, key)).await.expect("attach").into_inner()
    }

    pub async fn lease_tnx(&self, request: pb::LeaseTnxRequest) -> pb::LeaseTnxResponse {
        self.rfc.clone().lease_tnx(request).await.expect("lease tnx").into_inner()
    }

    pub async fn keep_alives(&self) -> Stream<pb::LeaseKeepAliveRequest, pb::LeaseKeepAliveResponse> {
        let (requests, receiver) = mpsc::channel(16);
        let answers = self.rfc.clone().lease_keep_alive(ReceiverStream::new(receiver)).await;
        Stream { requests: Some(requests), answers: answers.expect("a stream").into_inner() }
    }

    pub async fn watches(&self) -> Watches {
        let (requests, receiver) = mpsc::channel(16);
        let answers = self.rfc.clone().watch_range(ReceiverStream::new(receiver)).await;
        Stream { requests: Some(requests), answers: answers.expect("a stream").into_inner() }
    }

    /// A stream with one watch that is in place.
    pub async fn watching(&self, request: pb::WatchRangeRequest) -> Watches {
        let mut watches = self.watches().await;
        watches.open(request).await;
        watches
    }

    /// The keys that etcd's API finds attached to a lease, sorted.
    pub async fn attached(&self, lease: i64) -> Vec<String> {
        let request = v3::LeaseTimeToLiveRequest { id: lease, keys: true };
        let answer = self.lease.clone().lease_time_to_live(request).await.expect("time to live").into_inner();
        let mut keys: Vec<String> =
            answer.keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect();
        keys.sort();
        keys
    }
}

/// A call with streams both ways.
pub struct Stream<Q, A> {
    pub requests: Option<mpsc::Sender<Q>>,
    pub answers: Streaming<A>,
}

pub type Watches = Stream<pb::WatchRangeRequest, pb::WatchRangeResponse>;

impl<Q, A> Stream<Q, A> {
    pub async fn send(&self, request: Q) {
        let requests = self.requests.as_ref().expect("not half-closed");
        assert!(requests.send(request).await.is_ok(), "the server takes requests");
    }

    pub fn half_close(&mut self) {
        self.requests = None;
    }

    /// The next message, the end, or why it is one.
    pub async fn try_next(&mut self) -> Result<Option<A>, Status> {
        tokio::time::timeout(PATIENCE, self.answers.message()).await.expect("a message before the deadline")
    }

    pub async fn next(&mut self) -> A {
        self.try_next().await.expect("the stream is healthy").expect("the stream goes on")
    }

    /// The stream ends in good order, with nothing before that.
    pub async fn expect_end(&mut self) {
        assert!(self.try_next().await.expect("a good end").is_none(), "nothing but the end");
    }
}

impl Watches {
    /// Opens a watch, and waits until it is in place. The draft has no answer to that; but requests are taken in
    /// order, and one without a key is refused.
    pub async fn open(&mut self, request: pb::WatchRangeRequest) {
        self.send(request).await;
        self.send(pb::WatchRangeRequest::default()).await;
        refused(&self.next().await.header, EMPTY_KEY);
    }

    /// The next message, in short; see [`brief`].
    pub async fn brief(&mut self, base: i64) -> String {
        brief(&self.next().await, base)
    }
}

/// A message in short, indexes relative to `base`: `+1: put k=v@+1 v1, expire l=w@0 v2`.
pub fn brief(message: &pb::WatchRangeResponse, base: i64) -> String {
    let at = sound(&message.header) - base;
    let events: Vec<String> = message.events.iter().map(|event| brief_event(event, base)).collect();
    format!("{at:+}: {}", events.join(", "))
}

fn brief_event(event: &pb::Event, base: i64) -> String {
    let kind = match event.event_type.map(EventType::try_from).expect("the type is there, zero or not") {
        Ok(EventType::Put) => "put",
        Ok(EventType::Delete) => "delete",
        Ok(EventType::Expire) => "expire",
        Err(_) => "?",
    };
    let kv = event.kv.as_ref().expect("a pair");
    let at = kv.mod_index.expect("a number") - base;
    format!("{kind} {}={}@{at:+} v{}", text(&kv.key), text(&kv.value), kv.version.expect("a version"))
}

/// The index of a header that has everything, and no error.
#[track_caller]
pub fn sound(header: &Option<pb::ResponseHeader>) -> i64 {
    let header = header.as_ref().expect("a header");
    assert_eq!(header.error, None);
    complete(header)
}

#[track_caller]
fn complete(header: &pb::ResponseHeader) -> i64 {
    for id in [header.cluster_id, header.member_id, header.raft_term] {
        assert!(id.is_some_and(|id| id != 0), "{header:?}");
    }
    header.index.expect("an index")
}

#[track_caller]
pub fn index(header: &Option<pb::ResponseHeader>) -> i64 {
    sound(header)
}

/// Checks that a request was refused for this reason; returns the index.
#[track_caller]
pub fn refused(header: &Option<pb::ResponseHeader>, error: &str) -> i64 {
    let header = header.as_ref().expect("a header");
    assert_eq!(header.error.as_deref(), Some(error));
    complete(header)
}

#[track_caller]
pub fn text(bytes: &Option<Bytes>) -> String {
    String::from_utf8_lossy(bytes.as_ref().expect("the field is there, empty or not")).into_owned()
}

pub fn keys(kvs: &[pb::KeyValue]) -> Vec<String> {
    kvs.iter().map(|kv| text(&kv.key)).collect()
}

/// What the draft keeps of a key: create index, mod index (relative to `base`), version.
pub fn numbers(kv: &pb::KeyValue, base: i64) -> (i64, i64, i64) {
    let number = |n: Option<i64>| n.expect("a number");
    (number(kv.create_index) - base, number(kv.mod_index) - base, number(kv.version))
}

pub fn bytes(text: &str) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(text.as_bytes()))
}

/// An end of a range; none for an empty text.
fn end(text: &str) -> Option<Bytes> {
    bytes(text).filter(|end| !end.is_empty())
}

pub fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: bytes(key), value: bytes(value) }
}

pub fn range(key: &str, range_end: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: bytes(key), range_end: end(range_end), ..Default::default() }
}

pub fn attachment(lease: i64, key: &str) -> pb::LeaseAttachRequest {
    pb::LeaseAttachRequest { lease_id: Some(lease), key: bytes(key) }
}

pub fn watch(key: &str, range_end: &str) -> pb::WatchRangeRequest {
    pb::WatchRangeRequest { key: bytes(key), range_end: end(range_end), ..Default::default() }
}

pub fn watch_from(key: &str, range_end: &str, start: i64) -> pb::WatchRangeRequest {
    pb::WatchRangeRequest { start_index: Some(start), ..watch(key, range_end) }
}

pub fn tnx(
    compare: impl Into<Vec<pb::Compare>>,
    success: impl Into<Vec<pb::RequestUnion>>,
    failure: impl Into<Vec<pb::RequestUnion>>,
) -> pb::TnxRequest {
    pb::TnxRequest { compare: compare.into(), success: success.into(), failure: failure.into() }
}

pub fn compare(kind: CompareType, key: &str, target: Target) -> pb::Compare {
    pb::Compare { r#type: Some(kind as i32), key: bytes(key), target: Some(target) }
}

/// A compare that holds while a key is not there.
pub fn missing(key: &str) -> pb::Compare {
    compare(CompareType::Equal, key, Target::Version(0))
}

pub fn range_op(key: &str, range_end: &str) -> pb::RequestUnion {
    pb::RequestUnion { request: Some(Op::RequestRange(range(key, range_end))) }
}

pub fn put_op(key: &str, value: &str) -> pb::RequestUnion {
    pb::RequestUnion { request: Some(Op::RequestPut(put(key, value))) }
}

pub fn delete_op(key: &str, range_end: &str) -> pb::RequestUnion {
    let request = pb::DeleteRangeRequest { key: bytes(key), range_end: end(range_end) };
    pb::RequestUnion { request: Some(Op::RequestDeleteRange(request)) }
}

/// The answers in a transaction, in short: `range a=1 b=2`, `put`, `delete`. All must have the header of the whole.
#[track_caller]
pub fn answers(response: &pb::TnxResponse) -> Vec<String> {
    let whole = &response.header;
    let one = |response: &pb::ResponseUnion| {
        let (header, text) = match response.response.as_ref().expect("an answer") {
            OpResponse::ReponseRange(range) => {
                assert!(range.consistent_token.as_ref().is_some_and(|token| !token.is_empty()));
                let pairs = range.kvs.iter().map(|kv| format!(" {}={}", text(&kv.key), text(&kv.value)));
                (&range.header, format!("range{}", pairs.collect::<String>()))
            }
            OpResponse::ResponsePut(put) => (&put.header, "put".to_owned()),
            OpResponse::ResponseDeleteRange(delete) => (&delete.header, "delete".to_owned()),
        };
        assert_eq!(header, whole);
        text
    };
    response.responses.iter().map(one).collect()
}
