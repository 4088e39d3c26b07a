//! Read pins: revisions that long reads still need, so that physical compaction waits for them, though not for ever.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A number for the next pin, and by their numbers, which revision the living ones keep and how long.
type Pinned = Mutex<(u64, BTreeMap<u64, (i64, Instant)>)>;

/// All living pins.
#[derive(Default)]
pub(super) struct Pins(Arc<Pinned>);

/// Keeps history at its revision readable while it lives.
pub struct Pin {
    id: u64,
    revision: i64,
    until: Instant,
    pinned: Arc<Pinned>,
}

impl Pin {
    /// The revision it keeps.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Whether it still holds compaction back. If so, nothing that it keeps has been removed.
    pub fn holds(&self) -> bool {
        Instant::now() < self.until
    }
}

impl Pins {
    /// A pin that no longer holds compaction back when it is older than `age_max`; its reader gets `Compacted` if it
    /// then comes too late.
    pub fn add(&self, revision: i64, age_max: Duration) -> Pin {
        let until = Instant::now() + age_max;
        let mut pinned = self.0.lock();
        pinned.0 += 1;
        let id = pinned.0;
        pinned.1.insert(id, (revision, until));
        Pin { id, revision, until, pinned: Arc::clone(&self.0) }
    }

    pub fn len(&self) -> usize {
        self.0.lock().1.len()
    }

    /// The lowest revision that a pin still protects.
    pub fn lowest(&self) -> Option<i64> {
        let pinned = self.0.lock();
        let now = Instant::now();
        pinned.1.values().filter(|(_, until)| now < *until).map(|(r, _)| *r).min()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.pinned.lock().1.remove(&self.id);
    }
}
