//! Group commit of the raft log: 1, 64 and 1000 proposals of 256 bytes in flight, and the time to open a log.
//!
//! One thread proposes in a closed loop; criterion's time per element is the wall time per durable entry. The log
//! lives in the working directory's `target`, since the usual temporary directory may be memory.
#![expect(clippy::disallowed_methods, reason = "at most `in_flight` answers are under way")]

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kvist::raft::wal::{Batch, Durability, LogId, Options, Wal};

const ENTRY_BYTES: usize = 256;
/// Entries between two purges, so that segments are recycled all the time.
const PURGE_EVERY: u64 = 100_000;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("a directory")
}

/// Keeps one log between iterations.
struct Proposer {
    wal: Wal,
    next: u64,
    purged: u64,
}

impl Proposer {
    fn propose(&mut self, answers: &mpsc::Sender<bool>) {
        let mut batch = Batch::with_capacity(ENTRY_BYTES + 64);
        let log_id = LogId { term: 1, index: self.next };
        batch.entry(log_id, |buf| buf.resize(buf.len() + ENTRY_BYTES, 7));
        if self.next >= self.purged + 2 * PURGE_EVERY {
            self.purged += PURGE_EVERY;
            batch.purge(LogId { term: 1, index: self.purged });
        }
        self.next += 1;
        let answers = answers.clone();
        // The receiver outlives all answers but the last ones of a run that has panicked.
        let done = move |result: std::io::Result<()>| _ = answers.send(result.is_ok());
        self.wal.append(batch, Durability::Sync, Box::new(done));
    }

    fn run(&mut self, entries: u64, in_flight: u64) -> Duration {
        let (answers, answered) = mpsc::channel();
        let begin = Instant::now();
        let first = in_flight.min(entries);
        (0..first).for_each(|_| self.propose(&answers));
        for received in 0..entries {
            assert!(answered.recv().expect("an answer"), "a failed append");
            if received + first < entries {
                self.propose(&answers);
            }
        }
        begin.elapsed()
    }
}

fn group_commit(criterion: &mut Criterion) {
    let dir = directory();
    let wal = Wal::open(Options::new(dir.path())).expect("open").0;
    let mut proposer = Proposer { wal, next: 1, purged: 0 };
    let mut group = criterion.benchmark_group("wal");
    group.throughput(Throughput::Elements(1)).sample_size(10).measurement_time(Duration::from_secs(4));
    for in_flight in [1, 64, 1000] {
        group.bench_function(format!("append_{in_flight}_in_flight"), |bencher| {
            bencher.iter_custom(|entries| proposer.run(entries, in_flight));
        });
    }
    group.finish();
}

fn open(criterion: &mut Criterion) {
    let dir = directory();
    let entries = 300_000;
    {
        let wal = Wal::open(Options::new(dir.path())).expect("open").0;
        Proposer { wal, next: 1, purged: 0 }.run(entries, 1000);
    }
    let mut group = criterion.benchmark_group("wal");
    group.throughput(Throughput::Bytes(entries * (ENTRY_BYTES as u64 + 48))).sample_size(10);
    group.bench_function("open_and_scan", |bencher| {
        bencher.iter(|| Wal::open(Options::new(dir.path())).expect("open"));
    });
    group.finish();
}

criterion_group!(benches, group_commit, open);
criterion_main!(benches);
