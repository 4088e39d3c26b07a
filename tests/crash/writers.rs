//! Tasks that write keys.

use kvist::pb::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request as Op;
use rand::Rng;

use crate::journal::{Change, Journal, Key, Outcome};
use crate::load::Worker;

/// The key that tasks contend for.
const CONTENDED: &[u8] = b"cas/shared";
const KEYS: u32 = 40;

/// Puts on a few own keys, one after the other.
pub async fn count(mut worker: Worker) -> Journal {
    loop {
        let key = worker.key(worker.journal.attempts.len() as u32 % 7);
        let value = worker.value();
        let request = pb::PutRequest { key: key.clone(), value: value.clone(), ..Default::default() };
        let mut kv = worker.shared.clients.kv.clone();
        if worker.write(vec![Change::Put { key, value, lease: 0 }], kv.put(request)).await.is_none() {
            return worker.journal;
        }
    }
}

/// Reads a shared key and writes it if nobody else has meanwhile.
pub async fn contend(mut worker: Worker) -> Journal {
    loop {
        let mut kv = worker.shared.clients.kv.clone();
        let read = pb::RangeRequest { key: CONTENDED.to_vec(), ..Default::default() };
        let Some(found) = worker.call(kv.range(read)).await else { return worker.journal };
        let guard = found.kvs.first().map_or(0, |kv| kv.mod_revision);
        let value = worker.value();
        let request = pb::TxnRequest {
            compare: vec![pb::Compare {
                result: CompareResult::Equal as i32,
                target: CompareTarget::Mod as i32,
                key: CONTENDED.to_vec(),
                target_union: Some(TargetUnion::ModRevision(guard)),
                ..Default::default()
            }],
            success: vec![put(CONTENDED, &value)],
            ..Default::default()
        };
        let at = worker.attempt(vec![Change::Put { key: CONTENDED.to_vec(), value, lease: 0 }]);
        worker.journal.attempts[at].guard = Some(guard);
        let Some(answer) = worker.call(kv.txn(request)).await else { return worker.journal };
        let revision = answer.header.expect("header").revision;
        let outcome = if answer.succeeded { Outcome::Done(revision) } else { Outcome::Nothing };
        worker.journal.attempts[at].outcome = outcome;
    }
}

/// Puts, deletes of one key, deletes of a range.
pub async fn put_and_delete(mut worker: Worker) -> Journal {
    loop {
        let mut kv = worker.shared.clients.kv.clone();
        let first = worker.rng.random_range(0..KEYS);
        let count = if worker.rng.random_ratio(1, 4) { 6 } else { 1 };
        let (first, end) = (worker.key(first), worker.key(first + count));
        let there: Vec<Key> =
            worker.own.range(first.clone()..end.clone()).map(|(key, _)| key.clone()).collect();
        let done = if !there.is_empty() && worker.rng.random_ratio(1, 2) {
            let deleted = there.len() as i64;
            let changes = there.into_iter().map(|key| Change::Delete { key }).collect();
            let request = pb::DeleteRangeRequest { key: first, range_end: end, ..Default::default() };
            let answer = worker.write(changes, kv.delete_range(request)).await;
            answer.map(|answer| assert_eq!(answer.deleted, deleted))
        } else {
            let value = worker.value();
            let request = pb::PutRequest { key: first.clone(), value: value.clone(), ..Default::default() };
            worker.write(vec![Change::Put { key: first, value, lease: 0 }], kv.put(request)).await.map(drop)
        };
        if done.is_none() {
            return worker.journal;
        }
    }
}

/// Transactions that change several keys in one revision.
pub async fn transact(mut worker: Worker) -> Journal {
    loop {
        let (mut changes, mut success) = (Vec::new(), Vec::new());
        let first = worker.rng.random_range(0..KEYS);
        for n in first..first + worker.rng.random_range(1..6) {
            let key = worker.key(n);
            if worker.own.contains_key(&key) && worker.rng.random_ratio(1, 3) {
                let request = pb::DeleteRangeRequest { key: key.clone(), ..Default::default() };
                success.push(pb::RequestOp { request: Some(Op::RequestDeleteRange(request)) });
                changes.push(Change::Delete { key });
            } else {
                let value = worker.value();
                success.push(put(&key, &value));
                changes.push(Change::Put { key, value, lease: 0 });
            }
        }
        let request = pb::TxnRequest { success, ..Default::default() };
        let mut kv = worker.shared.clients.kv.clone();
        if worker.write(changes, kv.txn(request)).await.is_none() {
            return worker.journal;
        }
    }
}

fn put(key: &[u8], value: &[u8]) -> pb::RequestOp {
    let request = pb::PutRequest { key: key.to_vec(), value: value.to_vec(), ..Default::default() };
    pb::RequestOp { request: Some(Op::RequestPut(request)) }
}
