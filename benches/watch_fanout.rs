//! One change to many watchers, each on a stream of its own that a task reads: time for an event to reach all of them.
//!
//! Changes come in bursts of 100, as a busy server publishes them; nothing is encoded or sent.

mod common;

use common::{Stored, VALUE, key, scatter, size};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kvist::engine::watch::{Delivery, Hub, Spec, Stream};
use kvist::mvcc::Store;
use kvist::types::KeyRange;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

const BURST: u64 = 100;
/// Bytes in memory beyond which the store is flushed, between two bursts and off the clock.
const MEMTABLE_BYTES_MAX: usize = 64 << 20;

/// What the readers have got so far, and what the bench waits for.
#[derive(Default)]
struct Tally {
    received: AtomicU64,
    wanted: AtomicU64,
    reached: Notify,
}

async fn drain(hub: Hub, stream: Arc<Stream>, tally: Arc<Tally>) {
    loop {
        let taken = std::future::poll_fn(|context| stream.poll_next(context)).await;
        if taken.has_room_again {
            hub.has_room();
        }
        if let Delivery::Events { matched, .. } = taken.delivery {
            let count = matched.events.len() as u64;
            let received = tally.received.fetch_add(count, Ordering::SeqCst) + count;
            if received >= tally.wanted.load(Ordering::SeqCst) {
                tally.reached.notify_one();
            }
        }
    }
}

struct Fanout {
    store: Arc<Store>,
    hub: Hub,
    runtime: Runtime,
    tally: Arc<Tally>,
    watchers: u64,
    written: u64,
    _dir: tempfile::TempDir,
}

impl Fanout {
    fn new(watchers: u64) -> Fanout {
        let Stored { store, dir } = Stored::new();
        let store = Arc::new(store);
        let hub = Hub::start(Arc::clone(&store)).expect("the hub's threads");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        let tally = Arc::new(Tally::default());
        let spec = Spec { range: KeyRange::all(), no_put: false, no_delete: false, prev_kv: false };
        {
            let _runtime = runtime.enter(); // a stream belongs to the runtime that it is read on
            for id in 0..watchers {
                let stream = hub.stream();
                hub.watch(&stream, id as i64, spec.clone(), 0, false);
                runtime.spawn(drain(hub.clone(), stream, Arc::clone(&tally)));
            }
        }
        Fanout { store, hub, runtime, tally, watchers, written: 0, _dir: dir }
    }

    /// Publishes so many changes and returns the time until everyone has them all.
    fn run(&mut self, changes: u64) -> Duration {
        let mut elapsed = Duration::ZERO;
        let mut left = changes;
        while left > 0 {
            let burst = left.min(BURST);
            let begin = Instant::now();
            self.burst(burst);
            elapsed += begin.elapsed();
            left -= burst;
            if self.store.active_bytes() > MEMTABLE_BYTES_MAX {
                self.store.flush(&self.store.freeze(Vec::new())).expect("a flush");
            }
        }
        elapsed
    }

    fn burst(&mut self, changes: u64) {
        let wanted = (self.written + changes) * self.watchers;
        self.tally.wanted.store(wanted, Ordering::SeqCst);
        for n in self.written..self.written + changes {
            let mut writer = self.store.write(0).expect("a writer");
            writer.put(key(scatter(n, 10_000)), &VALUE, 0).expect("a put");
            self.hub.publish(writer.commit().batches);
        }
        self.written += changes;
        self.runtime.block_on(async {
            while self.tally.received.load(Ordering::SeqCst) < wanted {
                self.tally.reached.notified().await;
            }
        });
    }
}

impl Drop for Fanout {
    fn drop(&mut self) {
        self.hub.stop();
    }
}

fn fanout(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("watch_fanout");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    for full in [1, 100, 1000] {
        let watchers = size(full);
        let mut fanout = Fanout::new(watchers);
        group.throughput(Throughput::Elements(watchers));
        group.bench_function(format!("{full}_watchers"), |bencher| {
            bencher.iter_custom(|changes| fanout.run(changes));
        });
    }
    group.finish();
}

criterion_group!(benches, fanout);
criterion_main!(benches);
