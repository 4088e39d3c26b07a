//! One member's API as the tests of clusters use it: raw tonic stubs on a connection that comes back by itself.

use std::future::Future;
use std::time::Duration;

use kvist::pb::etcdserverpb as pb;
use kvist::pb::mvccpb::KeyValue;
use pb::auth_client::AuthClient;
use pb::cluster_client::ClusterClient;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::maintenance_client::MaintenanceClient;
use pb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status, Streaming};

/// Longest time that an answer may take; a server without a quorum says so after 7 s.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Stubs of one member. No call is repeated; the connection is made when it is needed, and again when it broke.
#[derive(Clone)]
pub struct Api {
    pub kv: KvClient<Channel>,
    pub cluster: ClusterClient<Channel>,
    pub lease: LeaseClient<Channel>,
    pub maintenance: MaintenanceClient<Channel>,
    pub watch: WatchClient<Channel>,
    pub auth: AuthClient<Channel>,
}

impl Api {
    /// The API at a URL; a call without an answer fails after `timeout`.
    pub fn new(url: &str, timeout: Duration) -> Api {
        let endpoint = Endpoint::from_shared(url.to_owned()).expect("a URL");
        let channel = endpoint.timeout(timeout).connect_timeout(Duration::from_secs(1)).connect_lazy();
        Api {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            cluster: ClusterClient::new(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel.clone()),
            watch: WatchClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            auth: AuthClient::new(channel),
        }
    }

    /// Puts and returns the revision of the write.
    pub async fn put(&self, key: &str, value: &str) -> Result<i64, Status> {
        let request = pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() };
        let answer = self.kv.clone().put(request).await?.into_inner();
        Ok(answer.header.expect("a header").revision)
    }

    /// The pair of a key.
    pub async fn get(&self, key: &str, serializable: bool) -> Result<Option<KeyValue>, Status> {
        let request = pb::RangeRequest { key: key.into(), serializable, ..Default::default() };
        Ok(self.kv.clone().range(request).await?.into_inner().kvs.pop())
    }

    /// The value of a key, by a linearizable read.
    pub async fn value(&self, key: &str) -> Option<String> {
        let pair = self.get(key, false).await.expect("a linearizable read");
        pair.map(|pair| String::from_utf8(pair.value).expect("text"))
    }

    pub async fn status(&self) -> Result<pb::StatusResponse, Status> {
        Ok(self.maintenance.clone().status(pb::StatusRequest {}).await?.into_inner())
    }

    pub async fn hash_kv(&self, revision: i64) -> Result<pb::HashKvResponse, Status> {
        let request = pb::HashKvRequest { revision };
        Ok(self.maintenance.clone().hash_kv(request).await?.into_inner())
    }

    /// The members as this one knows them now.
    pub async fn members(&self) -> Result<Vec<pb::Member>, Status> {
        let request = pb::MemberListRequest { linearizable: false };
        Ok(self.cluster.clone().member_list(request).await?.into_inner().members)
    }

    pub async fn member_add(&self, url: &str, is_learner: bool) -> Result<pb::MemberAddResponse, Status> {
        let request = pb::MemberAddRequest { peer_ur_ls: vec![url.into()], is_learner };
        self.cluster.clone().member_add(request).await.map(Response::into_inner)
    }

    pub async fn member_remove(&self, id: u64) -> Result<(), Status> {
        self.cluster.clone().member_remove(pb::MemberRemoveRequest { id }).await.map(drop)
    }

    pub async fn member_promote(&self, id: u64) -> Result<(), Status> {
        self.cluster.clone().member_promote(pb::MemberPromoteRequest { id }).await.map(drop)
    }

    pub async fn move_leader(&self, target_id: u64) -> Result<(), Status> {
        self.maintenance.clone().move_leader(pb::MoveLeaderRequest { target_id }).await.map(drop)
    }

    /// Grants a lease of `ttl` seconds and returns its id.
    pub async fn grant(&self, ttl: i64) -> Result<i64, Status> {
        let request = pb::LeaseGrantRequest { ttl, id: 0 };
        Ok(self.lease.clone().lease_grant(request).await?.into_inner().id)
    }

    /// Renews a lease once; the TTL of the answer, 0 when there is no such lease.
    pub async fn keep_alive(&self, id: i64) -> Result<i64, Status> {
        let requests = tokio_stream::iter([pb::LeaseKeepAliveRequest { id }]);
        let mut answers = self.lease.clone().lease_keep_alive(requests).await?.into_inner();
        let answer = answers.message().await?;
        Ok(answer.ok_or_else(|| Status::unavailable("the stream ended without an answer"))?.ttl)
    }

    pub async fn time_to_live(&self, id: i64) -> Result<pb::LeaseTimeToLiveResponse, Status> {
        let request = pb::LeaseTimeToLiveRequest { id, keys: true };
        Ok(self.lease.clone().lease_time_to_live(request).await?.into_inner())
    }

    /// Starts a watch on the half-open range; `\0` as end means every key from `key` on.
    pub async fn watch(&self, key: &[u8], end: &[u8], from: i64) -> Result<WatchStream, Status> {
        let create = pb::WatchCreateRequest {
            key: key.to_vec(),
            range_end: end.to_vec(),
            start_revision: from,
            ..Default::default()
        };
        let (requests, receiver) = mpsc::channel(1);
        let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        requests.send(request).await.expect("the receiver is here");
        let answers = self.watch.clone().watch(ReceiverStream::new(receiver)).await?.into_inner();
        Ok(WatchStream { _requests: requests, answers })
    }
}

/// A watch; ends when dropped.
pub struct WatchStream {
    _requests: mpsc::Sender<pb::WatchRequest>,
    pub answers: Streaming<pb::WatchResponse>,
}

/// A request that wants a member with a leader.
pub fn with_leader<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("hasleader", "true".parse().expect("plain text"));
    request
}

/// Asks again and again until there is an answer; panics with `what` when `timeout` has passed.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    timeout: Duration,
    mut ask: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + timeout;
    loop {
        if let Ok(Some(answer)) = tokio::time::timeout_at(deadline, ask()).await {
            return answer;
        }
        assert!(Instant::now() < deadline, "gave up waiting for {what}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
