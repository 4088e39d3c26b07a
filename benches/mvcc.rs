//! The store alone: puts into memtables of several sizes, reads from memory and from LMDB, replay, flush, compaction.
//!
//! Flushes and compactions are synced, so their times are the disk's as well.

mod common;

use common::{Stored, key, open, scatter, size, timed_in_chunks};
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use kvist::mvcc::Store;
use kvist::mvcc::history::Limit;
use kvist::types::KeyRange;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::Duration;

/// Rows that one step of physical compaction removes, as the server has it by default.
const COMPACTION_BATCH: usize = 1000;
const HISTORY_STEP: Limit = Limit { revisions: 1000, bytes: 4 << 20 };

fn group<'c>(criterion: &'c mut Criterion, name: &str) -> BenchmarkGroup<'c, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group
}

fn put(criterion: &mut Criterion) {
    let mut group = group(criterion, "put");
    group.throughput(Throughput::Elements(1));
    for full in [1, 10_000, 50_000] {
        let keys = size(full);
        group.bench_function(format!("memtable_of_{full}"), |bencher| {
            bencher.iter_custom(|puts| {
                let make = |_| {
                    let stored = Stored::new();
                    stored.fill(keys);
                    stored
                };
                timed_in_chunks(puts, make, |stored, n| stored.put(key(scatter(n, keys))))
            });
        });
    }
}

fn get(store: &Store, n: u64) {
    let snapshot = store.snapshot(0).expect("a snapshot");
    assert!(black_box(snapshot.get(&key(n)).expect("a read")).is_some());
}

fn scan(store: &Store, expected: u64) {
    let snapshot = store.snapshot(0).expect("a snapshot");
    let mut found = 0;
    let visit = |key: &[u8], _: kvist::storage::codec::Image<'_>| {
        black_box(key);
        found += 1;
        Ok(ControlFlow::Continue(()))
    };
    snapshot.scan(&KeyRange::all(), visit).expect("a scan");
    assert_eq!(found, expected);
}

fn replay(store: &Store, revisions: u64) {
    let (mut from, mut found) = (2, 0);
    while found < revisions {
        let batches = store.history(from, HISTORY_STEP).expect("history");
        found += batches.len() as u64;
        from = batches.last().expect("more of it").revision + 1;
    }
}

fn reads(criterion: &mut Criterion) {
    let keys = size(10_000);
    let stored = Stored::new();
    stored.fill(keys);
    read_all(criterion, &stored.store, "memtable", keys);
    stored.flush();
    let Stored { store, dir } = stored;
    drop(store);
    read_all(criterion, &open(dir.path()), "lmdb", keys);
}

fn read_all(criterion: &mut Criterion, store: &Store, place: &str, keys: u64) {
    let mut group = group(criterion, place);
    let mut n = 0;
    group.throughput(Throughput::Elements(1)).bench_function("get", |bencher| {
        bencher.iter(|| {
            n += 1;
            get(store, scatter(n, keys));
        });
    });
    group.throughput(Throughput::Elements(keys));
    group.bench_function("scan", |bencher| bencher.iter(|| scan(store, keys)));
    group.bench_function("replay", |bencher| bencher.iter(|| replay(store, keys)));
}

/// A store with `puts` changes in memory, over `keys` keys that are in LMDB already.
fn with_changes(keys: u64, puts: u64) -> Stored {
    let stored = Stored::new();
    stored.fill(keys);
    stored.flush();
    (0..puts).for_each(|n| stored.put(key(scatter(n, keys))));
    stored
}

fn flush(criterion: &mut Criterion) {
    let mut group = group(criterion, "flush");
    for full in [10_000, 50_000] {
        let puts = size(full);
        group.throughput(Throughput::Elements(puts));
        for (name, keys) in [("uniform", size(20_000)), ("hot", size(20))] {
            group.bench_function(format!("{name}_{full}"), |bencher| {
                bencher.iter_batched_ref(
                    || with_changes(keys, puts),
                    |stored| stored.flush(),
                    BatchSize::PerIteration,
                );
            });
        }
    }
}

fn compact(criterion: &mut Criterion) {
    let mut group = group(criterion, "compact");
    let revisions = size(10_000);
    group.throughput(Throughput::Elements(revisions));
    let make = || {
        let stored = with_changes(size(1000), revisions);
        stored.flush();
        stored.store.compact(stored.store.revision()).expect("it goes forward");
        stored
    };
    let remove = |stored: &mut Stored| {
        while stored.store.has_removable() {
            stored.store.remove_compacted(COMPACTION_BATCH).expect("a removal");
        }
    };
    group.bench_function("per_revision", |bencher| {
        bencher.iter_batched_ref(make, remove, BatchSize::PerIteration);
    });
}

criterion_group!(benches, put, reads, flush, compact);
criterion_main!(benches);
