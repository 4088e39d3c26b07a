//! Clients, request builders and a shared server for the KV, Compact and Cluster tests: raw tonic stubs, no client library.
//!
//! Nothing here retries: what the server answers is what a test sees. A test that compacts, needs absolute revisions, or
//! touches keys outside a prefix of its own starts a server of its own; all others share one.

use parking_lot::Mutex;
use std::fmt::Debug;
use std::ops::Deref;
use std::sync::{Arc, Weak};

use kvist::pb::etcdserverpb as pb;
use kvist::pb::mvccpb::KeyValue;
use kvist::pb::v3electionpb::election_client::ElectionClient;
use kvist::pb::v3lockpb::lock_client::LockClient;
use pb::cluster_client::ClusterClient;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::maintenance_client::MaintenanceClient;
use pb::request_op::Request as Op;
use pb::response_op::Response as OpResponse;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::support::Server;

pub const EMPTY_KEY: &str = "etcdserver: key is not provided";
pub const KEY_NOT_FOUND: &str = "etcdserver: key not found";
pub const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
pub const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";
pub const LEASE_NOT_FOUND: &str = "etcdserver: requested lease not found";
pub const DUPLICATE_KEY: &str = "etcdserver: duplicate key given in txn request";
pub const TOO_MANY_OPS: &str = "etcdserver: too many operations in txn request";
pub const TOO_LARGE: &str = "etcdserver: request is too large";
pub const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";

/// One connection and a stub for each service on it.
#[derive(Clone)]
pub struct Client {
    pub kv: KvClient<Channel>,
    pub cluster: ClusterClient<Channel>,
    pub lease: LeaseClient<Channel>,
    pub maintenance: MaintenanceClient<Channel>,
    pub lock: LockClient<Channel>,
    pub election: ElectionClient<Channel>,
}

impl Client {
    /// Connects to a URL; messages of any size are accepted.
    pub async fn connect(url: String) -> Client {
        let channel =
            Endpoint::from_shared(url).expect("a URL").connect().await.expect("connect to the server");
        Client {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            cluster: ClusterClient::new(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel.clone()),
            lock: LockClient::new(channel.clone()),
            election: ElectionClient::new(channel),
        }
    }

    pub async fn try_range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        Ok(self.kv.clone().range(request).await?.into_inner())
    }

    pub async fn range(&self, request: pb::RangeRequest) -> pb::RangeResponse {
        self.try_range(request).await.expect("range")
    }

    pub async fn get(&self, key: impl Into<Vec<u8>>) -> Option<KeyValue> {
        self.range(get(key)).await.kvs.pop()
    }

    pub async fn try_put(&self, request: pb::PutRequest) -> Result<pb::PutResponse, Status> {
        Ok(self.kv.clone().put(request).await?.into_inner())
    }

    /// Puts and returns the revision of the write.
    pub async fn put(&self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> i64 {
        revision(&self.try_put(put(key, value)).await.expect("put").header)
    }

    pub async fn try_delete(
        &self,
        request: pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, Status> {
        Ok(self.kv.clone().delete_range(request).await?.into_inner())
    }

    pub async fn delete(&self, request: pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        self.try_delete(request).await.expect("delete range")
    }

    pub async fn try_txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
        Ok(self.kv.clone().txn(request).await?.into_inner())
    }

    pub async fn txn(&self, request: pb::TxnRequest) -> pb::TxnResponse {
        self.try_txn(request).await.expect("txn")
    }

    /// True when the compare holds now.
    pub async fn holds(&self, compare: pb::Compare) -> bool {
        self.txn(txn([compare], [], [])).await.succeeded
    }

    pub async fn try_compact(&self, revision: i64, physical: bool) -> Result<pb::CompactionResponse, Status> {
        Ok(self.kv.clone().compact(pb::CompactionRequest { revision, physical }).await?.into_inner())
    }

    /// Compacts physically.
    pub async fn compact(&self, revision: i64) -> pb::CompactionResponse {
        self.try_compact(revision, true).await.expect("compact")
    }

    /// The current revision of the store.
    pub async fn revision(&self) -> i64 {
        revision(&self.range(get("revision-probe")).await.header)
    }

    /// Grants a lease of ten minutes and returns its id.
    pub async fn grant(&self) -> i64 {
        let request = pb::LeaseGrantRequest { ttl: 600, id: 0 };
        self.lease.clone().lease_grant(request).await.expect("grant").into_inner().id
    }

    pub async fn revoke(&self, id: i64) -> pb::LeaseRevokeResponse {
        self.lease.clone().lease_revoke(pb::LeaseRevokeRequest { id }).await.expect("revoke").into_inner()
    }

    /// The keys attached to a lease, sorted.
    pub async fn attached(&self, id: i64) -> Vec<String> {
        let request = pb::LeaseTimeToLiveRequest { id, keys: true };
        let answer = self.lease.clone().lease_time_to_live(request).await.expect("time to live").into_inner();
        let mut keys: Vec<String> = answer.keys.iter().map(|k| text(k)).collect();
        keys.sort();
        keys
    }
}

/// A server and a client of it; the last session on a server ends its process.
pub struct Session {
    client: Client,
    server: Arc<Server>,
}

impl Deref for Session {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Session {
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Stops the server, which must be this session's alone, starts it again and connects. Wants a runtime of several
    /// threads: the connection must be able to take the server's goodbye.
    pub async fn restart(&mut self, stop: Stop) {
        let server = Arc::get_mut(&mut self.server).expect("a server that is not shared");
        tokio::task::block_in_place(|| {
            match stop {
                Stop::Terminate => drop(server.terminate()),
                Stop::Kill => server.kill(),
            }
            server.restart();
        });
        self.client = Client::connect(self.server.url()).await;
    }
}

/// How a server ends: asked to, or as in a crash.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    Terminate,
    Kill,
}

/// A session on a server of the test's own.
pub async fn own(args: &[&str]) -> Session {
    on(Arc::new(Server::start_with(args))).await
}

/// A session on the shared server. Nothing may compact it or touch keys outside the test's prefix.
pub async fn shared() -> Session {
    static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
    let server = {
        let mut shared = SHARED.lock();
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Server::start());
            *shared = Arc::downgrade(&server);
            server
        })
    };
    on(server).await
}

async fn on(server: Arc<Server>) -> Session {
    Session { client: Client::connect(server.url()).await, server }
}

/// Checks that a call failed with exactly this code and text.
#[track_caller]
pub fn expect_error<T: Debug>(result: Result<T, Status>, code: Code, text: &str) {
    let status = result.expect_err("the call must fail");
    assert_eq!((status.code(), status.message()), (code, text));
}

#[track_caller]
pub fn revision(header: &Option<pb::ResponseHeader>) -> i64 {
    header.as_ref().expect("a header").revision
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The keys as text, in the order given.
pub fn keys(kvs: &[KeyValue]) -> Vec<String> {
    kvs.iter().map(|kv| text(&kv.key)).collect()
}

/// The numbers that etcd keeps of a key: create revision, mod revision, version, lease.
pub fn numbers(kv: &KeyValue) -> (i64, i64, i64, i64) {
    (kv.create_revision, kv.mod_revision, kv.version, kv.lease)
}

pub fn get(key: impl Into<Vec<u8>>) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), ..Default::default() }
}

pub fn range(key: impl Into<Vec<u8>>, range_end: impl Into<Vec<u8>>) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), range_end: range_end.into(), ..Default::default() }
}

/// Everything that starts with a prefix that does not end in 0xff.
pub fn prefix(prefix: &str) -> pb::RangeRequest {
    range(prefix, after(prefix))
}

/// The first key after all that start with `prefix`.
pub fn after(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().expect("a prefix") += 1;
    end
}

pub fn put(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

pub fn delete(key: impl Into<Vec<u8>>) -> pb::DeleteRangeRequest {
    delete_range(key, "")
}

pub fn delete_range(key: impl Into<Vec<u8>>, range_end: impl Into<Vec<u8>>) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: key.into(), range_end: range_end.into(), prev_kv: false }
}

pub fn txn(
    compare: impl Into<Vec<pb::Compare>>,
    success: impl Into<Vec<pb::RequestOp>>,
    failure: impl Into<Vec<pb::RequestOp>>,
) -> pb::TxnRequest {
    pb::TxnRequest { compare: compare.into(), success: success.into(), failure: failure.into() }
}

/// What a transaction can hold as an operation.
pub trait ToOp {
    fn op(self) -> pb::RequestOp;
}

macro_rules! to_op {
    ($($request:ty => $variant:ident),*) => {$(
        impl ToOp for $request {
            fn op(self) -> pb::RequestOp {
                pb::RequestOp { request: Some(Op::$variant(self)) }
            }
        }
    )*};
}
to_op!(pb::RangeRequest => RequestRange, pb::PutRequest => RequestPut,
    pb::DeleteRangeRequest => RequestDeleteRange, pb::TxnRequest => RequestTxn);

/// A compare whose target follows from the kind of the value.
pub fn compare(key: impl Into<Vec<u8>>, result: CompareResult, value: TargetUnion) -> pb::Compare {
    let target = match &value {
        TargetUnion::Version(_) => CompareTarget::Version,
        TargetUnion::CreateRevision(_) => CompareTarget::Create,
        TargetUnion::ModRevision(_) => CompareTarget::Mod,
        TargetUnion::Value(_) => CompareTarget::Value,
        TargetUnion::Lease(_) => CompareTarget::Lease,
    };
    pb::Compare {
        result: result as i32,
        target: target as i32,
        key: key.into(),
        target_union: Some(value),
        range_end: Vec::new(),
    }
}

pub fn mod_revision_is(key: impl Into<Vec<u8>>, revision: i64) -> pb::Compare {
    compare(key, CompareResult::Equal, TargetUnion::ModRevision(revision))
}

pub fn value_is(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> pb::Compare {
    compare(key, CompareResult::Equal, TargetUnion::Value(value.into()))
}

/// A compare that never holds.
pub fn never() -> pb::Compare {
    mod_revision_is("no-such-key", 1)
}

#[track_caller]
pub fn as_range(response: &pb::ResponseOp) -> &pb::RangeResponse {
    match &response.response {
        Some(OpResponse::ResponseRange(range)) => range,
        other => panic!("expected the answer to a range, got {other:?}"),
    }
}

#[track_caller]
pub fn as_put(response: &pb::ResponseOp) -> &pb::PutResponse {
    match &response.response {
        Some(OpResponse::ResponsePut(put)) => put,
        other => panic!("expected the answer to a put, got {other:?}"),
    }
}

#[track_caller]
pub fn as_delete(response: &pb::ResponseOp) -> &pb::DeleteRangeResponse {
    match &response.response {
        Some(OpResponse::ResponseDeleteRange(delete)) => delete,
        other => panic!("expected the answer to a delete, got {other:?}"),
    }
}

#[track_caller]
pub fn as_txn(response: &pb::ResponseOp) -> &pb::TxnResponse {
    match &response.response {
        Some(OpResponse::ResponseTxn(txn)) => txn,
        other => panic!("expected the answer to a transaction, got {other:?}"),
    }
}
