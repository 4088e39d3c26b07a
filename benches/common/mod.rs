//! Workloads that the benches of the storage path share.
//!
//! Sizes shrink to a handful unless cargo benches, so that `cargo test --all-targets` only proves that they run.

#![allow(dead_code)] // each bench uses a part of it

use bytes::Bytes;
use kvist::mvcc::Store;
use kvist::storage::Env;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of each value.
pub const VALUE: [u8; 256] = [b'v'; 256];

/// Steps measured on one state before it is made anew, so that memory stays bounded and states comparable.
const STEPS_PER_STATE: u64 = 20_000;

/// `full` when benching, else at most 50.
pub fn size(full: u64) -> u64 {
    if std::env::args().any(|argument| argument == "--bench") { full } else { full.min(50) }
}

/// A store in a directory of its own. On the disk of the build, since the usual temporary directory may be memory.
pub struct Stored {
    pub store: Store,
    pub dir: tempfile::TempDir,
}

impl Stored {
    pub fn new() -> Stored {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        Stored { store: open(dir.path()), dir }
    }

    /// Writes `puts` keys, one revision each, all different.
    pub fn fill(&self, puts: u64) {
        (0..puts).for_each(|n| self.put(key(n)));
    }

    pub fn put(&self, key: Bytes) {
        let mut writer = self.store.write(0).expect("a writer");
        writer.put(key, &VALUE, 0).expect("a put");
        writer.commit();
    }

    pub fn flush(&self) {
        self.store.flush(&self.store.freeze(Vec::new())).expect("a flush");
    }
}

/// Opens the store in `dir`.
pub fn open(dir: &Path) -> Store {
    Store::open(Env::open(&dir.join("state.1"), 1 << 30).expect("an environment")).expect("a store")
}

/// The n-th key, 24 bytes.
pub fn key(n: u64) -> Bytes {
    Bytes::from(format!("/registry/pods/{n:09}"))
}

/// A number below `bound` that looks random and depends on `n` alone.
pub fn scatter(n: u64, bound: u64) -> u64 {
    // Multiplicative hashing: the odd constant is 2^64 over the golden ratio.
    (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20) % bound
}

/// Runs `step` so many times and returns the time that took, without the making of states.
pub fn timed_in_chunks<S>(
    steps: u64,
    mut make: impl FnMut(u64) -> S,
    mut step: impl FnMut(&mut S, u64),
) -> Duration {
    let mut elapsed = Duration::ZERO;
    let mut left = steps;
    while left > 0 {
        let count = left.min(STEPS_PER_STATE);
        let mut state = make(count);
        let begin = Instant::now();
        (0..count).for_each(|n| step(&mut state, n));
        elapsed += begin.elapsed();
        left -= count;
    }
    elapsed
}
