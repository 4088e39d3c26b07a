//! Every version that the store keeps, in order of revision, as etcd's `key` bucket has them. What HashKV digests and a
//! backup copies.
//!
//! ```text
//!   revision   2      3      4 = compacted   5      6 = revision
//!              put a  put b  put a           del b  put c
//!   visible at 4:     b      a                               sorted by revision, which needs temporary space
//!   changes after:                           del b  put c    read from the log
//! ```
//!
//! A pin just below the compacted revision keeps all of it readable while writes, flushes and compactions go on. No read
//! transaction lasts longer than a step.

use super::history::Limit;
use super::sort::Sorter;
use super::{Error, EventBatch, Pin, Result, Snapshot, Store};
use crate::storage::codec::{Image, Value, put_varint};
use crate::types::{KeyRange, RangeEnd};
use bytes::Bytes;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Keys read under one read transaction.
const KEYS_PER_STEP: usize = 10_000;
const HISTORY_STEP: Limit = Limit { revisions: 1000, bytes: 4 << 20 };
/// Values longer than this are looked up when their turn comes, and not sorted along with their keys.
const SORTED_VALUE_MAX: usize = 1024;
/// Bytes of such values read under one read transaction.
const LOOKUP_BYTES_PER_STEP: usize = 4 << 20;
/// How long compaction waits for such a read. It is as long as reading everything and writing it to the same disk takes.
const PIN_AGE_MAX: Duration = Duration::from_secs(600);

/// One version.
pub struct Version<'v> {
    /// Its key.
    pub key: &'v [u8],
    /// Everything else but the value.
    pub image: Image<'v>,
    /// Its value, wherever it was.
    pub value: &'v [u8],
}

impl Version<'_> {
    /// Appends the key that etcd stores it under: `main`, `_` and `sub`, big endian, and a `t` for a tombstone.
    pub fn etcd_key(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.image.modified.main.to_be_bytes());
        out.push(b'_');
        out.extend_from_slice(&i64::from(self.image.modified.sub).to_be_bytes());
        if self.image.is_tombstone() {
            out.push(b't');
        }
    }

    /// Appends what etcd stores: an `mvccpb.KeyValue`, of a tombstone its key only.
    pub fn etcd_value(&self, out: &mut Vec<u8>) {
        put_bytes(out, 1, self.key);
        if !self.image.is_tombstone() {
            let meta = self.image.meta();
            put_number(out, 2, meta.create_revision);
            put_number(out, 3, meta.modified.main);
            put_number(out, 4, meta.version);
            put_bytes(out, 5, self.value);
            put_number(out, 6, meta.lease);
        }
    }
}

/// Only images with their values are sorted.
fn damaged() -> Error {
    Error::Scratch(std::io::Error::other("it does not hold what was written"))
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.push(field << 3 | 2);
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

fn put_number(out: &mut Vec<u8>, field: u8, number: i64) {
    if number != 0 {
        out.push(field << 3);
        put_varint(out, number as u64);
    }
}

/// What is done with each version.
pub type Visit<'f> = dyn FnMut(&Version<'_>) -> Result<()> + 'f;

/// The kept versions as of now, held against compaction. See the module.
pub struct Versions<'s> {
    store: &'s Store,
    pin: Pin,
    compacted: i64,
    stop: Option<&'s AtomicBool>,
}

impl Store {
    /// Holds everything that is kept now.
    pub fn versions(&self) -> Versions<'_> {
        loop {
            let compacted = self.compacted();
            let pin = self.pins.add((compacted - 1).max(0), PIN_AGE_MAX);
            // Otherwise rows from the older compaction on may have been removed before the pin was there.
            if self.compacted() == compacted {
                return Versions { store: self, pin, compacted, stop: None };
            }
        }
    }
}

impl<'s> Versions<'s> {
    /// Gives up with [`Error::Interrupted`] soon after `stop` is set.
    pub fn stopped_by(self, stop: &'s AtomicBool) -> Versions<'s> {
        Versions { stop: Some(stop), ..self }
    }

    /// The last compaction, or [`NEVER_COMPACTED`](super::NEVER_COMPACTED).
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Visits the versions at or below the compacted revision that are visible at `revision`, which must not be below
    /// it. With `tombstones`, those of the compacted revision as well: watchers that start there are told of them.
    /// Returns whether any key is there at `revision` at all.
    pub fn old(&self, revision: i64, tombstones: bool, visit: &mut Visit<'_>) -> Result<bool> {
        if self.compacted <= 0 {
            return Ok(true);
        }
        let mut sorter = Sorter::new(&self.store.scratch_dir());
        let any = self.collect(revision, &mut sorter)?;
        if tombstones {
            self.collect_tombstones(&mut sorter)?;
        }
        let mut snapshot = self.snapshot(revision)?;
        let mut looked_up = 0;
        for (number, record) in sorter.sorted()?.enumerate() {
            let record = record?;
            if number % KEYS_PER_STEP == 0 || looked_up > LOOKUP_BYTES_PER_STEP {
                snapshot = self.snapshot(revision)?;
                looked_up = 0;
            }
            if !record.image.is_empty() {
                let image = Image::parse(&record.image)?;
                let Value::Inline(value) = image.value else { return Err(damaged()) };
                visit(&Version { key: &record.key, image, value })?;
                continue;
            }
            let key = Bytes::from(record.key);
            let image = snapshot.get(&key)?.ok_or(Error::Compacted)?;
            let image = Image::parse(&image)?;
            let value = snapshot.value(&image)?;
            looked_up += value.len();
            visit(&Version { key: &key, image, value: &value })?;
        }
        Ok(any)
    }

    /// Visits all changes after the compacted revision up to `revision`.
    pub fn changes(&self, revision: i64, visit: &mut Visit<'_>) -> Result<()> {
        let mut from = self.compacted.max(0) + 1;
        while from <= revision {
            let batches = self.history(from)?;
            let Some(last) = batches.last() else { break };
            from = last.revision + 1;
            for event in batches.iter().filter(|b| b.revision <= revision).flat_map(|b| &b.events) {
                let new = self.store.with_inline_value(&event.new)?;
                let image = Image::parse(&new)?;
                if let Value::Inline(value) = image.value {
                    visit(&Version { key: &event.key, image, value })?;
                }
            }
        }
        Ok(())
    }

    /// Hands every key visible at `revision`, and not written after the compaction, to the sorter.
    fn collect(&self, revision: i64, sorter: &mut Sorter) -> Result<bool> {
        let mut any = false;
        let mut range = KeyRange { start: Bytes::new(), end: RangeEnd::Unbounded };
        let mut stored = Vec::new();
        loop {
            let snapshot = self.snapshot(revision)?;
            let mut keys = 0;
            let mut last = None;
            snapshot.scan(&range, |key, image| {
                any = true;
                if image.modified.main <= self.compacted {
                    stored.clear();
                    match image.value {
                        Value::Inline(value) if value.len() <= SORTED_VALUE_MAX => image.write(&mut stored),
                        _ => {}
                    }
                    sorter.add(image.modified, key, &stored)?;
                }
                keys += 1;
                if keys == KEYS_PER_STEP {
                    last = Some(key.to_vec());
                    return Ok(ControlFlow::Break(()));
                }
                Ok(ControlFlow::Continue(()))
            })?;
            let Some(mut next) = last else { return Ok(any) };
            next.push(0);
            range.start = next.into();
        }
    }

    fn collect_tombstones(&self, sorter: &mut Sorter) -> Result<()> {
        for batch in self.history(self.compacted)?.iter().take_while(|b| b.revision == self.compacted) {
            for event in &batch.events {
                let image = Image::parse(&event.new)?;
                if image.is_tombstone() {
                    sorter.add(image.modified, &event.key, &event.new)?;
                }
            }
        }
        Ok(())
    }

    fn snapshot(&self, revision: i64) -> Result<Snapshot> {
        let view = self.store.view.load();
        let snapshot = Snapshot::new(revision, view.memtables.clone(), view.env.read()?);
        self.check()?;
        Ok(snapshot)
    }

    fn history(&self, from: i64) -> Result<Vec<Arc<EventBatch>>> {
        self.store.history_if(from, HISTORY_STEP, || self.check())
    }

    /// To be asked when a read transaction is open: whether it can have lost nothing that was held.
    fn check(&self) -> Result<()> {
        if self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            return Err(Error::Interrupted);
        }
        let is_kept = self.pin.holds() && self.compacted >= self.store.floor();
        if is_kept { Ok(()) } else { Err(Error::Compacted) }
    }
}
