//! The applier alone: what a committed entry costs before and after consensus has had its share.

mod common;

use bytes::Bytes;
use common::{Stored, VALUE, key, scatter, size, timed_in_chunks};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kvist::engine::apply::{Applier, LogPosition};
use kvist::engine::command::{Command, Compare, DeleteRange, Op, Operand, Outcome, Put, Relation, Txn};
use kvist::engine::entry::{Entry, Origin};
use kvist::types::KeyRange;
use std::sync::Arc;
use std::time::Duration;

/// An applier over `keys` keys in LMDB, written in order from revision 2 on, and entries for it.
struct State {
    applier: Applier,
    entries: Vec<Entry>,
    _dir: tempfile::TempDir,
}

impl State {
    fn new(keys: u64, commands: impl Iterator<Item = Command>) -> State {
        let stored = Stored::new();
        stored.fill(keys);
        stored.flush();
        let applier = Applier::load(Arc::new(stored.store)).expect("an applier");
        State {
            applier,
            entries: commands.map(|command| Entry::new(Origin::Server, command, 1)).collect(),
            _dir: stored.dir,
        }
    }

    fn apply(&mut self, n: u64) {
        let position = LogPosition { term: 1, index: n + 1 };
        let applied = self.applier.apply(position, &self.entries[n as usize]).expect("a working store");
        match applied.expect("nothing to refuse") {
            Outcome::Put { .. } => {}
            Outcome::Txn(txn) => assert!(txn.succeeded),
            Outcome::DeleteRange { deleted, .. } => assert_eq!(deleted, 1),
            Outcome::Batch { .. } | Outcome::Authenticated { .. } | Outcome::Done { .. } => {
                unreachable!("not among the commands")
            }
        }
        assert_eq!(self.applier.take_effects().batches.len(), 1);
    }
}

fn put(key: Bytes) -> Put {
    Put { key, value: Bytes::from_static(&VALUE), ..Put::default() }
}

/// Compare and swap, as Kubernetes updates an object. With keys taken in turn, the n-th finds the revision n + 2.
fn swap(n: u64, keys: u64) -> Command {
    let key = key(n % keys);
    Command::Txn(Txn {
        compares: vec![Compare {
            range: KeyRange::single(key.clone()),
            relation: Relation::Equal,
            operand: Operand::ModRevision(n as i64 + 2),
        }],
        success: vec![Op::Put(put(key))],
        failure: Vec::new(),
    })
}

fn delete(n: u64) -> Command {
    Command::DeleteRange(DeleteRange { range: KeyRange::single(key(n)), prev_kv: false })
}

fn apply(criterion: &mut Criterion) {
    let keys = size(10_000);
    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(1));
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.bench_function("put", |bencher| {
        let make = |count| State::new(keys, (0..count).map(|n| Command::Put(put(key(scatter(n, keys))))));
        bencher.iter_custom(|count| timed_in_chunks(count, make, State::apply));
    });
    group.bench_function("compare_and_swap", |bencher| {
        let make = |count| State::new(keys, (0..count).map(|n| swap(n, keys)));
        bencher.iter_custom(|count| timed_in_chunks(count, make, State::apply));
    });
    group.bench_function("delete", |bencher| {
        let make = |count| State::new(count, (0..count).map(delete));
        bencher.iter_custom(|count| timed_in_chunks(count, make, State::apply));
    });
    group.finish();
}

criterion_group!(benches, apply);
criterion_main!(benches);
