//! The wire as the load and the checks use it: raw tonic stubs, nothing that retries or reconnects.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use kvist::pb::etcdserverpb as pb;
use kvist::pb::mvccpb::{self, KeyValue, event::EventType};
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::maintenance_client::MaintenanceClient;
use pb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status, Streaming};

use crate::journal::{Change, Event, Key, Pair};

/// Longest time that any answer may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// One connection and a stub for each service on it.
#[derive(Clone)]
pub struct Clients {
    pub kv: KvClient<Channel>,
    pub watch: WatchClient<Channel>,
    pub lease: LeaseClient<Channel>,
    pub maintenance: MaintenanceClient<Channel>,
}

impl Clients {
    pub async fn connect(url: &str) -> Clients {
        let endpoint = Endpoint::from_shared(url.to_owned()).expect("a URL");
        let channel = endpoint.connect().await.expect("connect to the server");
        Clients {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            watch: WatchClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            lease: LeaseClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            maintenance: MaintenanceClient::new(channel),
        }
    }

    /// Everything there is, and the revision of the answer.
    pub async fn all(&self) -> (i64, BTreeMap<Key, Pair>) {
        let request = pb::RangeRequest { key: vec![0], range_end: vec![0], ..Default::default() };
        let answer = patient(self.kv.clone().range(request)).await.expect("range").into_inner();
        let revision = answer.header.as_ref().expect("header").revision;
        (revision, answer.kvs.iter().map(|kv| (kv.key.clone(), pair(kv))).collect())
    }

    pub async fn hash_kv(&self, revision: i64) -> Result<pb::HashKvResponse, Status> {
        let request = pb::HashKvRequest { revision };
        patient(self.maintenance.clone().hash_kv(request)).await.map(Response::into_inner)
    }

    /// Starts a watch on a half-open range.
    pub async fn watch(&self, range: (&[u8], &[u8]), from: i64) -> WatchStream {
        let create = pb::WatchCreateRequest {
            key: range.0.to_vec(),
            range_end: range.1.to_vec(),
            start_revision: from,
            prev_kv: true,
            ..Default::default()
        };
        let union = Some(RequestUnion::CreateRequest(create));
        let (requests, receiver) = mpsc::channel(1);
        requests.send(pb::WatchRequest { request_union: union }).await.expect("the receiver is here");
        let answer = patient(self.watch.clone().watch(ReceiverStream::new(receiver))).await.expect("watch");
        let mut stream = WatchStream { _requests: requests, answers: answer.into_inner() };
        let created =
            patient(stream.answers.message()).await.expect("watch").expect("an answer to the create request");
        assert!(created.created && created.events.is_empty(), "{created:?}");
        stream
    }
}

/// A watch; ends when dropped.
pub struct WatchStream {
    _requests: mpsc::Sender<pb::WatchRequest>,
    pub answers: Streaming<pb::WatchResponse>,
}

/// Waits for an answer, but not for ever.
pub async fn patient<T>(answer: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, answer).await.expect("an answer in time")
}

/// What a pair of the wire says besides its key.
pub fn pair(kv: &KeyValue) -> Pair {
    Pair {
        value: kv.value.clone(),
        created: kv.create_revision,
        modified: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    }
}

/// An event of the wire, with its revision.
pub fn event(event: &mvccpb::Event) -> (i64, Event) {
    let kv = event.kv.as_ref().expect("an event has a key");
    let change = match event.r#type() {
        EventType::Put => Change::Put { key: kv.key.clone(), value: kv.value.clone(), lease: kv.lease },
        EventType::Delete => Change::Delete { key: kv.key.clone() },
    };
    let previous = event.prev_kv.as_ref().map(pair);
    (kv.mod_revision, Event { change, created: kv.create_revision, version: kv.version, previous })
}
