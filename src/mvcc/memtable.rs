//! The memtable: every change since the last flush, in memory, readable at any revision without a lock.
//!
//! There is one writer (the applier) and any number of readers. Versions are only ever added, so a reader that knows a
//! revision sees the same thing however long it takes. A frozen memtable is one that gets no more changes.

use crate::types::{KeyRange, LeaseId, RangeEnd, Revision};
use bytes::Bytes;
use crossbeam_skiplist::SkipMap;
use crossbeam_skiplist::map;
use parking_lot::Mutex;
use std::cmp::Reverse;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Bytes that a version costs besides its key and image: skip list node, reference counts, event.
const VERSION_OVERHEAD: usize = 300;

/// One change of one key.
#[derive(Clone, Debug)]
pub struct Event {
    /// The key.
    pub key: Bytes,
    /// Image that the change wrote; see [`crate::storage::codec::Image`].
    pub new: Bytes,
    /// Image that it replaced, a tombstone perhaps; empty when there was none.
    pub previous: Bytes,
}

/// All changes of one revision, in the order of their `sub`.
#[derive(Debug)]
pub struct EventBatch {
    /// Their revision.
    pub revision: i64,
    /// At least one.
    pub events: Vec<Event>,
}

impl EventBatch {
    /// Roughly the memory it holds.
    pub fn size(&self) -> usize {
        let of = |e: &Event| e.key.len() + e.new.len() + e.previous.len() + size_of::<Event>();
        self.events.iter().map(of).sum()
    }
}

/// Key ascending, then newest first; of one version, the last amendment first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct VersionKey {
    key: Bytes,
    revision: Reverse<Revision>,
    amendment: Reverse<u32>,
}

impl VersionKey {
    /// The version of `revision` as it was written.
    fn at(key: Bytes, revision: Revision) -> VersionKey {
        VersionKey { key, revision: Reverse(revision), amendment: Reverse(0) }
    }

    /// Before all versions at or before revision `main`.
    fn before(key: Bytes, main: i64) -> VersionKey {
        let amendment = Reverse(u32::MAX);
        VersionKey { key, revision: Reverse(Revision::new(main, u32::MAX)), amendment }
    }

    fn first(key: Bytes) -> VersionKey {
        VersionKey::before(key, i64::MAX)
    }

    fn last(key: Bytes) -> VersionKey {
        VersionKey::at(key, Revision::new(i64::MIN, 0))
    }
}

type Bounds = (Bound<VersionKey>, Bound<VersionKey>);
type Versions<'m> = map::Range<'m, VersionKey, Bounds, VersionKey, Bytes>;

/// See the module.
#[derive(Default)]
pub struct Memtable {
    versions: SkipMap<VersionKey, Bytes>,
    /// (lease, key) → attached or detached.
    attachments: SkipMap<(LeaseId, Bytes), bool>,
    batches: Mutex<Vec<Arc<EventBatch>>>,
    bytes: AtomicUsize,
    /// Amendments so far.
    amendments: AtomicU32,
}

impl Memtable {
    /// Adds a version of a key. Only the applier calls this.
    pub fn insert(&self, key: Bytes, revision: Revision, image: Bytes) {
        self.add(VersionKey::at(key, revision), image);
    }

    /// Puts another image in the place of a version, which may be in an older memtable or below all of them. Only the applier
    /// calls this. The list never replaces an entry: readers could miss both.
    pub fn amend(&self, key: Bytes, revision: Revision, image: Bytes) {
        let amendment = Reverse(self.amendments.fetch_add(1, Ordering::Relaxed) + 1);
        self.add(VersionKey { key, revision: Reverse(revision), amendment }, image);
    }

    fn add(&self, version: VersionKey, image: Bytes) {
        self.bytes.fetch_add(version.key.len() + image.len() + VERSION_OVERHEAD, Ordering::Relaxed);
        self.versions.insert(version, image);
    }

    /// Records that `key` is attached to `lease` now, or not any more.
    pub fn attach(&self, lease: LeaseId, key: Bytes, attached: bool) {
        self.bytes.fetch_add(key.len() + VERSION_OVERHEAD / 2, Ordering::Relaxed);
        self.attachments.insert((lease, key), attached);
    }

    /// Adds the finished changes of one revision.
    pub fn push(&self, batch: Arc<EventBatch>) {
        self.bytes.fetch_add(batch.events.iter().map(|e| e.previous.len()).sum(), Ordering::Relaxed);
        self.batches.lock().push(batch);
    }

    /// The changes so far, a batch each revision, oldest first.
    pub fn batches(&self) -> Vec<Arc<EventBatch>> {
        self.batches.lock().clone()
    }

    /// Roughly the memory held.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The newest version of `key` at or before revision `main`, tombstones included.
    pub fn get(&self, key: &Bytes, main: i64) -> Option<Bytes> {
        let from = VersionKey::before(key.clone(), main);
        let entry = self.versions.lower_bound(Bound::Included(&from))?;
        (entry.key().key == key).then(|| entry.value().clone())
    }

    /// Keys of `range` in order, each with its newest version at or before `main`, tombstones included.
    pub fn scan(&self, range: &KeyRange, main: i64) -> Scan<'_> {
        let end = match &range.end {
            RangeEnd::Single => Bound::Included(VersionKey::last(range.start.clone())),
            RangeEnd::Unbounded => Bound::Unbounded,
            RangeEnd::Before(end) => Bound::Excluded(VersionKey::first(end.clone())),
        };
        let start = Bound::Included(VersionKey::first(range.start.clone()));
        let versions = (!range.is_empty()).then(|| self.versions.range((start, end.clone())));
        Scan { memtable: self, versions, end, main, last: None }
    }

    /// Each changed key with its newest version, in key order.
    pub fn newest(&self) -> impl Iterator<Item = (Bytes, Bytes)> {
        let mut last: Option<Bytes> = None;
        self.versions.iter().filter_map(move |entry| {
            let key = &entry.key().key;
            if last.as_ref() == Some(key) {
                return None;
            }
            last = Some(key.clone());
            Some((key.clone(), entry.value().clone()))
        })
    }

    /// Keys whose attachment to `lease` changed, in order, with whether they are attached.
    pub fn attachments_of(&self, lease: LeaseId) -> impl Iterator<Item = (Bytes, bool)> {
        self.attachments
            .range((lease, Bytes::new())..)
            .take_while(move |e| e.key().0 == lease)
            .map(|e| (e.key().1.clone(), *e.value()))
    }

    /// Every changed attachment.
    pub fn attachments(&self) -> impl Iterator<Item = (LeaseId, Bytes, bool)> {
        self.attachments.iter().map(|e| (e.key().0, e.key().1.clone(), *e.value()))
    }
}

/// Older versions of one key that are stepped over before seeking behind them.
const SKIPS_BEFORE_SEEK: u32 = 8;

/// Iterator of [`Memtable::scan`].
pub struct Scan<'m> {
    memtable: &'m Memtable,
    versions: Option<Versions<'m>>,
    end: Bound<VersionKey>,
    main: i64,
    last: Option<Bytes>,
}

impl Iterator for Scan<'_> {
    type Item = (Bytes, Bytes);

    fn next(&mut self) -> Option<(Bytes, Bytes)> {
        let mut skipped = 0;
        loop {
            let entry = self.versions.as_mut()?.next()?;
            let VersionKey { key, revision, .. } = entry.key();
            if self.last.as_ref() == Some(key) {
                skipped += 1;
                if skipped == SKIPS_BEFORE_SEEK {
                    let start = Bound::Excluded(VersionKey::last(key.clone()));
                    self.versions = Some(self.memtable.versions.range((start, self.end.clone())));
                    skipped = 0;
                }
            } else if revision.0.main <= self.main {
                self.last = Some(key.clone());
                return Some((key.clone(), entry.value().clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn a_scan_shows_each_key_once_as_of_the_revision() {
        let table = Memtable::default();
        for main in 2..40 {
            table.insert(bytes("hot"), Revision::new(main, 0), bytes(&main.to_string()));
        }
        table.insert(bytes("a"), Revision::new(40, 0), bytes("x"));
        table.insert(bytes("z"), Revision::new(3, 1), bytes("y"));
        let at = |main| table.scan(&KeyRange::all(), main).collect::<Vec<_>>();
        assert!(at(1).is_empty());
        assert_eq!(at(3), [(bytes("hot"), bytes("3")), (bytes("z"), bytes("y"))]);
        assert_eq!(at(90), [(bytes("a"), bytes("x")), (bytes("hot"), bytes("39")), (bytes("z"), bytes("y"))]);
        assert_eq!(table.get(&bytes("hot"), 20), Some(bytes("20")));
        assert_eq!(table.get(&bytes("hot"), 1), None);
        let single = KeyRange::single(bytes("hot"));
        assert_eq!(table.scan(&single, 90).count(), 1);
        let none = KeyRange::from_wire(bytes("z"), bytes("a"));
        assert_eq!(table.scan(&none, 90).count(), 0);
    }
}
