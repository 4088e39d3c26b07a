//! Read pins: revisions that long reads still need, so that physical compaction waits for them, though not for ever.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A pin older than this no longer holds compaction back; its reader gets `Compacted` if it then comes too late.
const PIN_AGE_MAX: Duration = Duration::from_secs(60);

type Pinned = Mutex<(u64, BTreeMap<u64, (i64, Instant)>)>;

/// All living pins.
#[derive(Default)]
pub(super) struct Pins(Arc<Pinned>);

/// Keeps history at its revision readable while it lives.
pub struct Pin {
    id: u64,
    revision: i64,
    pinned: Arc<Pinned>,
}

impl Pin {
    /// The revision it keeps.
    pub fn revision(&self) -> i64 {
        self.revision
    }
}

impl Pins {
    pub fn add(&self, revision: i64) -> Pin {
        let mut pinned = self.0.lock();
        pinned.0 += 1;
        let id = pinned.0;
        pinned.1.insert(id, (revision, Instant::now()));
        Pin { id, revision, pinned: Arc::clone(&self.0) }
    }

    pub fn len(&self) -> usize {
        self.0.lock().1.len()
    }

    /// The lowest revision that a pin still protects.
    pub fn lowest(&self) -> Option<i64> {
        let pinned = self.0.lock();
        pinned.1.values().filter(|(_, since)| since.elapsed() < PIN_AGE_MAX).map(|(r, _)| *r).min()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.pinned.lock().1.remove(&self.id);
    }
}
