//! The load: clients that write, compare, delete and read a few keys, and note what they did and were told.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kvist::pb::etcdserverpb as pb;
use parking_lot::Mutex;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;
use pb::response_op::Response;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tonic::Status;

use crate::cluster::Api;
use crate::journal::{Answer, Call, Journal, LeaseRecord, Operation, Pair, bytes};

/// The keys that all clients fight for.
pub const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];
/// A client waits no longer for an answer: then nobody knows.
const PATIENCE: Duration = Duration::from_secs(1);
/// Seconds of a lease.
const TTL: i64 = 2;

/// What the clients share.
pub struct Shared {
    pub journal: Journal,
    /// Client URLs of the members.
    pub urls: Mutex<Vec<String>>,
    pub is_over: AtomicBool,
    /// Longest value.
    pub length_max: usize,
}

impl Shared {
    /// The API of some member.
    pub fn api(&self, rng: &mut StdRng) -> Api {
        let url = self.urls.lock().choose(rng).expect("members").clone();
        Api::new(&url, PATIENCE)
    }

    /// Sends a request, waits for its answer and notes both.
    pub async fn perform(&self, client: u32, api: &Api, call: Call, length: usize) -> Option<Answer> {
        let invoked = self.journal.now();
        let answer = tokio::time::timeout(PATIENCE, request(api, &call, length)).await;
        let answer = answer.ok().and_then(Result::ok);
        let at = self.journal.now();
        let operation =
            Operation { client, call, invoked, answer: answer.clone().map(|answer| (at, answer)) };
        self.journal.operations.lock().push(operation);
        answer
    }
}

/// One client until the load is over.
pub async fn client(shared: Arc<Shared>, id: u32, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed ^ u64::from(id) << 32);
    let mut api = shared.api(&mut rng);
    // The modification revision of each key as it was last seen here.
    let mut seen: HashMap<String, i64> = HashMap::new();
    let mut count = 0;
    while !shared.is_over.load(Ordering::SeqCst) {
        count += 1;
        let value = u64::from(id) << 32 | count;
        let key = (*KEYS.choose(&mut rng).expect("keys")).to_owned();
        let call = match rng.random_range(0..100) {
            0..25 => Call::Put { keys: vec![key.clone()], value, lease: 0 },
            25..32 => Call::Put { keys: two_keys(&mut rng), value, lease: 0 },
            32..40 => Call::Delete { key: key.clone() },
            40..65 => Call::Swap { guard: seen.get(&key).copied().unwrap_or(0), key: key.clone(), value },
            65..72 => Call::Get { key: key.clone(), is_local: true },
            _ => Call::Get { key: key.clone(), is_local: false },
        };
        let is_local = matches!(call, Call::Get { is_local: true, .. });
        let length = rng.random_range(16..=shared.length_max);
        match shared.perform(id, &api, call, length).await {
            Some(answer) if !is_local => {
                let modified =
                    if answer.has_changed { answer.revision } else { answer.pair.map_or(0, |p| p.modified) };
                seen.insert(key, modified);
            }
            Some(_) => {}
            None => {
                api = shared.api(&mut rng);
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..12))).await;
    }
}

/// Two neighbours, in order.
fn two_keys(rng: &mut StdRng) -> Vec<String> {
    let first = rng.random_range(0..KEYS.len() - 1);
    KEYS[first..first + 2].iter().map(|key| (*key).to_owned()).collect()
}

/// A client that takes leases, puts a key with each, renews them for a while and leaves them to end.
pub async fn lessee(shared: Arc<Shared>, id: u32, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed ^ u64::from(id) << 32);
    let mut count = 0;
    while !shared.is_over.load(Ordering::SeqCst) {
        let api = shared.api(&mut rng);
        count += 1;
        let sent = shared.journal.now();
        let Ok(Ok(lease)) = tokio::time::timeout(PATIENCE, api.grant(TTL)).await else {
            tokio::time::sleep(Duration::from_millis(30)).await;
            continue;
        };
        let key = format!("leased-{id}-{count}");
        let mut record = LeaseRecord { id: lease, ttl: TTL, key: key.clone(), renewed: sent, gone: None };
        let call = Call::Put { keys: vec![key], value: u64::from(id) << 32 | count, lease };
        let is_put = shared.perform(id, &api, call, 16).await.is_some();
        for _ in 0..rng.random_range(0..8) {
            tokio::time::sleep(Duration::from_millis(rng.random_range(50..300))).await;
            if shared.is_over.load(Ordering::SeqCst) || !is_put {
                break;
            }
            let api = shared.api(&mut rng);
            let sent = shared.journal.now();
            match tokio::time::timeout(PATIENCE, api.keep_alive(lease)).await {
                Ok(Ok(0)) => {
                    record.gone = Some(shared.journal.now());
                    break;
                }
                Ok(Ok(_)) => record.renewed = sent,
                _ => {}
            }
        }
        shared.journal.leases.lock().push(record);
    }
}

/// Sends one request; an error says nothing of what became of it.
async fn request(api: &Api, call: &Call, length: usize) -> Result<Answer, Status> {
    if let Call::Get { key, is_local } = call {
        let request =
            pb::RangeRequest { key: key.clone().into(), serializable: *is_local, ..Default::default() };
        let answer = api.kv.clone().range(request).await?.into_inner();
        let revision = answer.header.as_ref().expect("a header").revision;
        return Ok(Answer { revision, has_changed: false, pair: answer.kvs.first().map(Pair::of) });
    }
    if let Call::Delete { key } = call {
        let request = pb::DeleteRangeRequest { key: key.clone().into(), ..Default::default() };
        let answer = api.kv.clone().delete_range(request).await?.into_inner();
        let revision = answer.header.as_ref().expect("a header").revision;
        return Ok(Answer { revision, has_changed: answer.deleted > 0, pair: None });
    }
    let answer = api.kv.clone().txn(transaction(call, length)).await?.into_inner();
    let revision = answer.header.as_ref().expect("a header").revision;
    let pair = match answer.responses.first().and_then(|r| r.response.as_ref()) {
        Some(Response::ResponseRange(range)) => range.kvs.first().map(Pair::of),
        _ => None,
    };
    Ok(Answer { revision, has_changed: answer.succeeded, pair })
}

fn transaction(call: &Call, length: usize) -> pb::TxnRequest {
    let op = |request| pb::RequestOp { request: Some(request) };
    let put = |key: &String, value, lease| {
        let value = bytes(value, length);
        op(Request::RequestPut(pb::PutRequest {
            key: key.clone().into(),
            value,
            lease,
            ..Default::default()
        }))
    };
    match call {
        Call::Put { keys, value, lease } => pb::TxnRequest {
            success: keys.iter().map(|key| put(key, *value, *lease)).collect(),
            ..Default::default()
        },
        Call::Swap { key, guard, value } => {
            let compare = pb::Compare {
                result: CompareResult::Equal as i32,
                target: CompareTarget::Mod as i32,
                key: key.clone().into(),
                target_union: Some(TargetUnion::ModRevision(*guard)),
                range_end: Vec::new(),
            };
            let get = pb::RangeRequest { key: key.clone().into(), ..Default::default() };
            pb::TxnRequest {
                compare: vec![compare],
                success: vec![put(key, *value, 0)],
                failure: vec![op(Request::RequestRange(get))],
            }
        }
        Call::Delete { .. } | Call::Get { .. } => unreachable!("sent as requests of their own"),
    }
}
