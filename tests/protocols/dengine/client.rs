//! Raw stubs of the protocol and of etcd's API beside it, and a shared server. Nothing here retries.

use std::ops::Deref;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use cluster_pb::cluster_management_service_client::ClusterManagementServiceClient;
use kvist::pb::d_engine::client as pb;
use kvist::pb::d_engine::server::cluster as cluster_pb;
use parking_lot::Mutex;
use pb::client_response::SuccessResult;
use pb::raft_client_service_client::RaftClientServiceClient;
use pb::write_command::{CompareAndSwap, Delete, Insert, Operation};
use pb::{ReadConsistencyPolicy as Policy, WatchEventType};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use crate::cluster::Api;
use crate::cluster::api::PATIENCE;
use crate::support::Server;

/// Longest time that a message of a stream may take, unless it waits for something that takes longer.
pub const SOON: Duration = Duration::from_secs(10);

/// One connection to one server.
#[derive(Clone)]
pub struct Client {
    pub kv: RaftClientServiceClient<Channel>,
    pub cluster: ClusterManagementServiceClient<Channel>,
    /// etcd's API of the same server.
    pub etcd: Api,
}

impl Client {
    /// Connects when it is needed, and again when that broke.
    pub fn of(url: &str) -> Client {
        let endpoint = Endpoint::from_shared(url.to_owned()).expect("a URL");
        let channel = endpoint.connect_timeout(Duration::from_secs(1)).connect_lazy();
        Client {
            kv: RaftClientServiceClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            cluster: ClusterManagementServiceClient::new(channel),
            etcd: Api::new(url, PATIENCE),
        }
    }

    pub async fn try_write(&self, operation: Operation) -> Result<pb::ClientResponse, Status> {
        let command = Some(pb::WriteCommand { operation: Some(operation) });
        Ok(self
            .kv
            .clone()
            .handle_client_write(pb::ClientWriteRequest { client_id: 7, command })
            .await?
            .into_inner())
    }

    /// Writes, and returns whether that succeeded.
    pub async fn write(&self, operation: Operation) -> bool {
        let answer = self.try_write(operation).await.expect("write");
        match (answer.error, answer.success_result) {
            (0, Some(SuccessResult::WriteResult(result))) => result.succeeded,
            other => panic!("no result of a write: {other:?}"),
        }
    }

    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        assert!(self.write(insert(key, value, 0)).await);
    }

    pub async fn delete(&self, key: impl Into<Bytes>) {
        assert!(self.write(delete(key)).await);
    }

    pub async fn try_read(
        &self,
        keys: &[&str],
        policy: Option<i32>,
    ) -> Result<Vec<(String, String)>, Status> {
        let keys = keys.iter().map(|key| Bytes::copy_from_slice(key.as_bytes())).collect();
        let request = pb::ClientReadRequest { client_id: 7, keys, consistency_policy: policy };
        let answer = self.kv.clone().handle_client_read(request).await?.into_inner();
        assert_eq!(answer.error, 0);
        match answer.success_result {
            Some(SuccessResult::ReadData(data)) => {
                Ok(data.results.into_iter().map(|r| (text(&r.key), text(&r.value))).collect())
            }
            other => panic!("no result of a read: {other:?}"),
        }
    }

    /// The value of a key, by the default policy.
    pub async fn get(&self, key: &str) -> Option<String> {
        self.try_read(&[key], None).await.expect("read").pop().map(|(_, value)| value)
    }

    pub async fn get_by(&self, key: &str, policy: Policy) -> Result<Option<String>, Status> {
        Ok(self.try_read(&[key], Some(policy as i32)).await?.pop().map(|(_, value)| value))
    }

    pub async fn scan(&self, prefix: &str) -> (Vec<(String, String)>, u64) {
        let request = pb::ScanRequest { client_id: 7, prefix: Bytes::copy_from_slice(prefix.as_bytes()) };
        let answer = self.kv.clone().handle_client_scan(request).await.expect("scan").into_inner();
        (answer.entries.into_iter().map(|e| (text(&e.key), text(&e.value))).collect(), answer.revision)
    }

    pub async fn try_watch(&self, key: &str, prefix: bool, prev_kv: bool) -> Result<Watch, Status> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let request = pb::WatchRequest { client_id: 7, key, prefix, prev_kv };
        Ok(Watch(self.kv.clone().watch(request).await?.into_inner()))
    }

    pub async fn watch(&self, key: &str) -> Watch {
        self.try_watch(key, false, false).await.expect("watch")
    }

    pub async fn watch_prefix(&self, key: &str) -> Watch {
        self.try_watch(key, true, false).await.expect("watch")
    }

    pub async fn metadata(&self) -> cluster_pb::ClusterMembership {
        let request = cluster_pb::MetadataRequest {};
        self.cluster.clone().get_cluster_metadata(request).await.expect("metadata").into_inner()
    }

    pub async fn memberships(&self) -> Streaming<pb::MembershipSnapshot> {
        let request = pb::WatchMembershipRequest { client_id: 7 };
        self.kv.clone().watch_membership(request).await.expect("watch membership").into_inner()
    }
}

pub fn insert(key: impl Into<Bytes>, value: impl Into<Bytes>, ttl_secs: u64) -> Operation {
    Operation::Insert(Insert { key: key.into(), value: value.into(), ttl_secs })
}

pub fn delete(key: impl Into<Bytes>) -> Operation {
    Operation::Delete(Delete { key: key.into() })
}

/// `expected`: `None` for a key that must not exist.
pub fn swap(key: &'static str, expected: Option<&'static str>, value: &'static str) -> Operation {
    let expected_value = expected.map(Bytes::from);
    Operation::CompareAndSwap(CompareAndSwap { key: key.into(), expected_value, new_value: value.into() })
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Pairs as `scan` and `try_read` give them.
pub fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// The messages of a watch.
pub struct Watch(Streaming<pb::WatchResponse>);

impl Watch {
    /// The next message; the status that ends the stream; `None` if it ends without one.
    pub async fn next(&mut self) -> Result<Option<pb::WatchResponse>, Status> {
        tokio::time::timeout(SOON, self.0.message()).await.expect("a message of the watch")
    }

    /// The next message that is not PROGRESS.
    pub async fn event(&mut self) -> pb::WatchResponse {
        loop {
            let message = self.next().await.expect("no end").expect("a message");
            if message.event_type() != WatchEventType::Progress {
                return message;
            }
        }
    }

    /// The next event: kind, key, value, value before.
    pub async fn told(&mut self) -> (WatchEventType, String, String, String) {
        let event = self.event().await;
        assert_eq!(event.error, 0);
        (event.event_type(), text(&event.key), text(&event.value), text(&event.prev_value))
    }

    /// Asserts that the next event is this put.
    #[track_caller]
    pub fn expect_put(&mut self, key: &str, value: &str) -> impl Future<Output = u64> {
        let (key, value) = (key.to_owned(), value.to_owned());
        async move {
            let event = self.event().await;
            assert_eq!(event.event_type(), WatchEventType::Put);
            assert_eq!((text(&event.key), text(&event.value)), (key, value));
            event.revision
        }
    }

    /// Asserts that the next event is a delete of this key.
    pub async fn expect_delete(&mut self, key: &str) -> u64 {
        let event = self.event().await;
        assert_eq!(event.event_type(), WatchEventType::Delete);
        assert_eq!((text(&event.key), event.value.len()), (key.to_owned(), 0));
        event.revision
    }
}

/// Asserts that a call failed with this code.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code) -> String {
    let status = answer.expect_err("the call must fail");
    assert_eq!(status.code(), code, "{status:?}");
    status.message().to_owned()
}

/// A server and a client of it; the last session on a server ends its process.
pub struct Session {
    client: Client,
    pub server: Arc<Server>,
}

impl Deref for Session {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

/// A session on a server of the test's own.
pub fn own(args: &[&str]) -> Session {
    on(Arc::new(Server::start_with(args)))
}

/// A session on the shared server. Nothing may compact it or touch keys outside the test's prefix.
pub fn shared() -> Session {
    static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock();
    let server = shared.upgrade().unwrap_or_else(|| {
        let server = Arc::new(Server::start());
        *shared = Arc::downgrade(&server);
        server
    });
    on(server)
}

fn on(server: Arc<Server>) -> Session {
    Session { client: Client::of(&server.url()), server }
}
