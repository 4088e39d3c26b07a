//! Every shape of Range against a small model written from the contract (KV-R3, KV-R7 to KV-R17), over a random history.
//!
//! The model knows what may come, not the order among equal sort keys (KV-R15): it checks sort keys, membership, `more`,
//! `count` and the contents of each pair.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, StreamExt};
use kvist::pb::etcdserverpb as pb;
use kvist::pb::mvccpb::KeyValue;
use pb::range_request::{SortOrder, SortTarget};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::client::{Client, ToOp, after, delete, delete_range, prefix, put, range, revision, shared, txn};

const PREFIX: &str = "model/";
const SEED: u64 = 20_260_723;
const REQUESTS_IN_FLIGHT_MAX: usize = 16;

type State = BTreeMap<Vec<u8>, KeyValue>;

/// The state after each write of the history, by revision.
struct Model {
    states: Vec<(i64, State)>,
}

impl Model {
    fn at(&self, revision: i64) -> &State {
        if revision <= 0 {
            return &self.states.last().expect("a history").1;
        }
        let before = self.states.partition_point(|(at, _)| *at <= revision);
        &self.states[before - 1].1
    }

    /// Checks one answer; the panic tells the request.
    fn check(&self, request: &pb::RangeRequest, response: &pb::RangeResponse) {
        let state = self.at(request.revision);
        let end = if request.range_end.is_empty() {
            [request.key.as_slice(), &[0]].concat()
        } else {
            request.range_end.clone()
        };
        let inside: Vec<&KeyValue> =
            state.values().filter(|kv| kv.key >= request.key && kv.key < end).collect();
        assert_eq!(response.count, i64::try_from(inside.len()).expect("small"), "count of {request:?}");
        if request.count_only {
            assert!(response.kvs.is_empty() && !response.more, "{request:?}");
            return;
        }
        let expected = self.selected(request, inside);
        let limit = usize::try_from(request.limit).ok().filter(|l| *l > 0).unwrap_or(usize::MAX);
        assert_eq!(response.more, expected.len() > limit, "more of {request:?}");
        let target = request.sort_target();
        let found: Vec<_> = response.kvs.iter().map(|kv| sort_key(target, &state[&kv.key])).collect();
        let wanted: Vec<_> = expected.iter().take(limit).map(|kv| sort_key(target, kv)).collect();
        assert_eq!(found, wanted, "order of {request:?}");
        let candidates: BTreeSet<&[u8]> = expected.iter().map(|kv| kv.key.as_slice()).collect();
        let distinct: BTreeSet<&[u8]> = response.kvs.iter().map(|kv| kv.key.as_slice()).collect();
        assert!(
            distinct.len() == response.kvs.len() && distinct.is_subset(&candidates),
            "keys of {request:?}"
        );
        for kv in &response.kvs {
            let mut full = state[&kv.key].clone();
            if request.keys_only {
                full.value.clear();
            }
            assert_eq!(*kv, full, "pair of {request:?}");
        }
    }

    /// The pairs in order, filtered and sorted but (except for the quirk KV-R13) before the limit.
    fn selected<'a>(&self, request: &pb::RangeRequest, mut pairs: Vec<&'a KeyValue>) -> Vec<&'a KeyValue> {
        let filters = [
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        ];
        let filtered = filters.iter().any(|bound| *bound != 0);
        if request.sort_order() == SortOrder::None && !filtered && request.limit > 0 {
            pairs.truncate(usize::try_from(request.limit).expect("positive").saturating_add(1));
        }
        pairs.retain(|kv| {
            (filters[0] == 0 || kv.mod_revision >= filters[0])
                && (filters[1] == 0 || kv.mod_revision <= filters[1])
                && (filters[2] == 0 || kv.create_revision >= filters[2])
                && (filters[3] == 0 || kv.create_revision <= filters[3])
        });
        pairs.sort_by_key(|kv| sort_key(request.sort_target(), kv));
        if request.sort_order() == SortOrder::Descend {
            pairs.reverse();
        }
        pairs
    }
}

/// What a target sorts by, as bytes or a number.
fn sort_key(target: SortTarget, kv: &KeyValue) -> (Vec<u8>, i64) {
    match target {
        SortTarget::Key => (kv.key.clone(), 0),
        SortTarget::Value => (kv.value.clone(), 0),
        SortTarget::Version => (Vec::new(), kv.version),
        SortTarget::Create => (Vec::new(), kv.create_revision),
        SortTarget::Mod => (Vec::new(), kv.mod_revision),
    }
}

/// Writes a random history of puts, deletes and transactions, and the model of it.
async fn history(c: &Client, random: &mut StdRng) -> Model {
    let mut model = Model { states: vec![(0, State::new())] };
    let mut state = State::new();
    for _ in 0..150 {
        let changes = random.random_range(1..=3);
        let chosen: BTreeSet<u32> = (0..changes).map(|_| random.random_range(0..24)).collect();
        let (mut ops, mut puts, mut deletes) = (Vec::new(), Vec::new(), Vec::new());
        for number in chosen {
            let key = format!("{PREFIX}{number:02}").into_bytes();
            if random.random_bool(0.3) {
                ops.push(delete(key.clone()).op());
                deletes.push(key);
            } else {
                let value = vec![b'v'; random.random_range(0..3)];
                ops.push(put(key.clone(), value.clone()).op());
                puts.push((key, value));
            }
        }
        let at = revision(&c.txn(txn([], ops, [])).await.header);
        for key in deletes {
            state.remove(&key);
        }
        for (key, value) in puts {
            let old = state.get(&key);
            let (create_revision, version) =
                old.map_or((at, 1), |old| (old.create_revision, old.version + 1));
            state.insert(
                key.clone(),
                KeyValue { key, create_revision, mod_revision: at, version, value, lease: 0 },
            );
        }
        model.states.push((at, state.clone()));
    }
    model
}

/// All shapes: target x order x limit x filter x output x revision, over several ranges in turn.
fn shapes(model: &Model) -> Vec<pb::RangeRequest> {
    let newest = model.states.last().expect("a history").0;
    let (early, middle) = (model.states[60].0, model.states[110].0);
    let ranges = [
        prefix(PREFIX),
        range(format!("{PREFIX}05"), format!("{PREFIX}17")),
        range(format!("{PREFIX}11"), ""),
        range(format!("{PREFIX}x"), after(PREFIX)),
        range(format!("{PREFIX}17"), format!("{PREFIX}05")),
    ];
    let filters = [
        [0; 4],
        [middle, 0, 0, 0],
        [0, middle, 0, 0],
        [0, 0, early, 0],
        [0, 0, 0, middle],
        [early, newest, early, middle],
    ];
    let mut requests = Vec::new();
    for sort_target in 0..5 {
        for sort_order in 0..3 {
            for limit in [0, 1, 4, 30, -1] {
                for bounds in filters {
                    for (keys_only, count_only) in [(false, false), (true, false), (false, true)] {
                        for at in [0, early, middle] {
                            requests.push(pb::RangeRequest {
                                limit,
                                revision: at,
                                sort_order,
                                sort_target,
                                serializable: requests.len() % 3 == 0,
                                keys_only,
                                count_only,
                                min_mod_revision: bounds[0],
                                max_mod_revision: bounds[1],
                                min_create_revision: bounds[2],
                                max_create_revision: bounds[3],
                                ..ranges[requests.len() % 7 % 5].clone()
                            });
                        }
                    }
                }
            }
        }
    }
    requests
}

/// KV-R3, KV-R7 to KV-R17: a few thousand shapes of Range agree with the model.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kv_r7_to_r17_model() {
    let c = shared().await;
    let mut random = StdRng::seed_from_u64(SEED);
    c.delete(delete_range(PREFIX, after(PREFIX))).await;
    let model = history(&c, &mut random).await;
    let requests = shapes(&model);
    stream::iter(&requests)
        .for_each_concurrent(REQUESTS_IN_FLIGHT_MAX, async |request| {
            let response = c.range(request.clone()).await;
            model.check(request, &response);
        })
        .await;
}

/// KV-R3, KV-R19: the state at every single revision of the history.
#[tokio::test]
async fn kv_r3_every_revision() {
    let c = crate::client::own(&[]).await;
    let model = history(&c, &mut StdRng::seed_from_u64(SEED + 1)).await;
    for (at, state) in &model.states[1..] {
        let response = c.range(pb::RangeRequest { revision: *at, ..prefix(PREFIX) }).await;
        assert_eq!(response.kvs, state.values().cloned().collect::<Vec<_>>(), "at revision {at}");
    }
}
