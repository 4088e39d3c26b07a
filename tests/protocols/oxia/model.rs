//! Random batches against a small model, over the wire.
//!
//! The model knows keys with payload and version. Of the times it knows what follows from that: the first put's is kept, and
//! none runs backwards.

use std::cell::Cell;
use std::collections::BTreeMap;

use kvist::pb::oxia as pb;
use pb::{BatchRequest, BatchResponse, get_response, put_response};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::client::{ABSENT, Client};

const CASES: u32 = 60;
const BATCHES_MAX: usize = 8;
const ITEMS_MAX: usize = 6;
/// So few that batches change the same ones again and again.
const KEYS: u8 = 5;

/// A batch of which the keys are numbers; the ends of ranges may be behind the last key, or before the start.
#[derive(Clone, Debug)]
struct Shape {
    puts: Vec<(u8, String, Option<u64>)>,
    deletes: Vec<(u8, Option<u64>)>,
    delete_ranges: Vec<(u8, u8)>,
    gets: Vec<(u8, bool)>,
    get_ranges: Vec<(u8, u8, bool)>,
}

fn expected() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![4 => Just(None), 4 => (0_u64..4).prop_map(Some), 2 => Just(Some(ABSENT)), 1 => any::<u64>().prop_map(Some)]
}

fn list<T: std::fmt::Debug>(item: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    prop::collection::vec(item, 0..=ITEMS_MAX)
}

fn shape() -> impl Strategy<Value = Shape> {
    let end = || 0..=KEYS;
    (
        list((0..KEYS, "[a-c]{0,3}", expected())),
        list((0..KEYS, expected())),
        prop::collection::vec((end(), end()), 0..2),
        list((0..KEYS, any::<bool>())),
        prop::collection::vec((end(), end(), any::<bool>()), 0..3),
    )
        .prop_map(|(puts, deletes, delete_ranges, gets, get_ranges)| Shape {
            puts,
            deletes,
            delete_ranges,
            gets,
            get_ranges,
        })
}

/// Keys below a prefix of the case's own.
struct Names(String);

impl Names {
    fn key(&self, n: u8) -> String {
        format!("{}{n}", self.0)
    }

    fn request(&self, shape: &Shape) -> BatchRequest {
        let put = |(key, payload, expected): &(u8, String, Option<u64>)| pb::PutRequest {
            key: self.key(*key),
            payload: payload.clone().into(),
            expected_version: *expected,
        };
        let delete = |(key, expected): &(u8, Option<u64>)| pb::DeleteRequest {
            key: self.key(*key),
            expected_version: *expected,
        };
        let delete_range = |(start, end): &(u8, u8)| pb::DeleteRangeRequest {
            start_inclusive: self.key(*start),
            end_exclusive: self.key(*end),
        };
        let get = |(key, include_payload): &(u8, bool)| pb::GetRequest {
            key: self.key(*key),
            include_payload: *include_payload,
        };
        let get_range = |(start, end, include_payloads): &(u8, u8, bool)| pb::GetRangeRequest {
            start_inclusive: self.key(*start),
            end_exclusive: self.key(*end),
            include_payloads: *include_payloads,
        };
        BatchRequest {
            shard_id: None,
            puts: shape.puts.iter().map(put).collect(),
            deletes: shape.deletes.iter().map(delete).collect(),
            delete_ranges: shape.delete_ranges.iter().map(delete_range).collect(),
            gets: shape.gets.iter().map(get).collect(),
            get_ranges: shape.get_ranges.iter().map(get_range).collect(),
        }
    }
}

#[derive(Default)]
struct Model(BTreeMap<String, (String, u64)>);

fn error(kind: pb::ErrorType, message: &str) -> pb::Error {
    pb::Error { r#type: kind.into(), message: message.into() }
}

fn not_found() -> pb::Error {
    error(pb::ErrorType::KeyNotFound, "key not found")
}

fn mismatch() -> pb::Error {
    error(pb::ErrorType::Unspecified, "unexpected version")
}

/// A stat without its times.
fn stat(version: u64) -> pb::Stat {
    pb::Stat { version, ..Default::default() }
}

impl Model {
    fn put(&mut self, put: pb::PutRequest) -> pb::PutResponse {
        let version = self.0.get(&put.key).map(|(_, version)| *version);
        let fits = match put.expected_version {
            None => true,
            Some(ABSENT) => version.is_none(),
            Some(expected) => version == Some(expected),
        };
        let result = if fits {
            let version = version.map_or(0, |version| version + 1);
            let payload = String::from_utf8(put.payload.to_vec()).expect("text");
            self.0.insert(put.key.clone(), (payload, version));
            put_response::Result::Stat(stat(version))
        } else {
            put_response::Result::Error(mismatch())
        };
        pb::PutResponse { key: put.key, result: Some(result) }
    }

    fn delete(&mut self, delete: pb::DeleteRequest) -> pb::DeleteResponse {
        let version = self.0.get(&delete.key).map(|(_, version)| *version);
        let error = match (version, delete.expected_version) {
            (None, None | Some(ABSENT)) => Some(not_found()),
            (Some(_), None) => None,
            (version, expected) if version == expected => None,
            _ => Some(mismatch()),
        };
        if error.is_none() {
            self.0.remove(&delete.key);
        }
        pb::DeleteResponse { key: delete.key, error }
    }

    fn inside(&self, start: &str, end: &str) -> Vec<String> {
        self.0.keys().filter(|key| key.as_str() >= start && key.as_str() < end).cloned().collect()
    }

    fn get(&self, key: String, with_payload: bool) -> pb::GetResponse {
        match self.0.get(&key) {
            Some((payload, version)) => pb::GetResponse {
                payload: with_payload.then(|| payload.clone().into()),
                result: Some(get_response::Result::Stat(stat(*version))),
                key,
            },
            None => {
                pb::GetResponse { key, payload: None, result: Some(get_response::Result::Error(not_found())) }
            }
        }
    }

    fn batch(&mut self, request: BatchRequest) -> BatchResponse {
        let puts = request.puts.into_iter().map(|put| self.put(put)).collect();
        let deletes = request.deletes.into_iter().map(|delete| self.delete(delete)).collect();
        let mut delete_ranges = Vec::new();
        for range in request.delete_ranges {
            let gone = self.inside(&range.start_inclusive, &range.end_exclusive);
            gone.iter().for_each(|key| drop(self.0.remove(key)));
            let deletes = gone.into_iter().map(|key| pb::DeleteResponse { key, error: None }).collect();
            delete_ranges.push(pb::DeleteRangeResponse { deletes });
        }
        let gets = request.gets.into_iter().map(|get| self.get(get.key, get.include_payload)).collect();
        let range = |range: pb::GetRangeRequest| {
            let inside = self.inside(&range.start_inclusive, &range.end_exclusive).into_iter();
            let gets = inside.map(|key| self.get(key, range.include_payloads)).collect();
            pb::GetRangeResponse { gets }
        };
        let get_ranges = request.get_ranges.into_iter().map(range).collect();
        BatchResponse { puts, deletes, delete_ranges, gets, get_ranges }
    }
}

/// Takes the times out of an answer, and checks them.
fn without_times(answer: &mut BatchResponse) -> Result<(), TestCaseError> {
    let puts = answer.puts.iter_mut().filter_map(|put| match &mut put.result {
        Some(put_response::Result::Stat(stat)) => Some(stat),
        _ => None,
    });
    let ranges = answer.get_ranges.iter_mut().flat_map(|range| &mut range.gets);
    let gets = answer.gets.iter_mut().chain(ranges).filter_map(|get| match &mut get.result {
        Some(get_response::Result::Stat(stat)) => Some(stat),
        _ => None,
    });
    for stat in puts.chain(gets) {
        prop_assert!(stat.created_timestamp > 0 && stat.created_timestamp <= stat.modified_timestamp);
        prop_assert!(stat.version > 0 || stat.created_timestamp == stat.modified_timestamp);
        (stat.created_timestamp, stat.modified_timestamp) = (0, 0);
    }
    Ok(())
}

#[test]
fn random_batches_are_answered_as_the_model_answers() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let client = runtime.block_on(Client::shared());
    let case = Cell::new(0);
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let batches = prop::collection::vec(shape(), 1..=BATCHES_MAX);
    let result = runner.run(&batches, |batches| {
        case.set(case.get() + 1);
        let (names, mut model) = (Names(format!("model/{:05}/", case.get())), Model::default());
        for (number, shape) in batches.iter().enumerate() {
            let request = names.request(shape);
            let mut answer = runtime.block_on(client.batch(request.clone()));
            without_times(&mut answer)?;
            prop_assert_eq!(answer, model.batch(request), "batch {}", number);
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
