//! Replay of changes by revision: from a ring of recent ones in memory, else from the `log` table.

use super::snapshot::read_blob;
use super::{Error, Event, EventBatch, Result, Store};
use crate::storage::ReadTxn;
use crate::storage::codec::{self, BlobPart, Image, LogRow, RowKey, Value, revision_key};
use crate::storage::schema::Table;
use crate::types::Revision;
use bytes::Bytes;
use parking_lot::RwLock;
use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes of recent changes kept for watchers that are a little behind; unflushed ones are kept besides.
const RING_BYTES_MAX: usize = 8 << 20;

/// Recent changes without a gap.
pub(super) struct Ring(RwLock<RingState>);

struct RingState {
    batches: VecDeque<Arc<EventBatch>>,
    bytes: usize,
    /// Revisions above this one are in `batches`.
    after: i64,
}

impl Ring {
    pub fn new(revision: i64) -> Ring {
        Ring(RwLock::new(RingState::new(revision)))
    }

    pub fn push(&self, batch: Arc<EventBatch>, flushed: i64) {
        let mut ring = self.0.write();
        ring.bytes += batch.size();
        ring.batches.push_back(batch);
        ring.trim(flushed);
    }

    /// Forgets everything: the next change is the one after `revision`.
    pub fn reset(&self, revision: i64) {
        *self.0.write() = RingState::new(revision);
    }

    /// Lets go of what is beyond the budget, as far as it is flushed.
    pub fn trim(&self, flushed: i64) {
        self.0.write().trim(flushed);
    }

    /// Changes from revision `from` on, or `None` when the ring does not reach back that far.
    fn read(&self, from: i64, limit: &Limit) -> Option<Vec<Arc<EventBatch>>> {
        let ring = self.0.read();
        if from <= ring.after {
            return None;
        }
        let start = ring.batches.partition_point(|b| b.revision < from);
        let mut found = Vec::new();
        let mut bytes = 0;
        for batch in ring.batches.range(start..).take(limit.revisions) {
            if bytes >= limit.bytes {
                break;
            }
            bytes += batch.size();
            found.push(Arc::clone(batch));
        }
        Some(found)
    }
}

impl RingState {
    fn new(revision: i64) -> RingState {
        RingState { batches: VecDeque::new(), bytes: 0, after: revision }
    }

    fn trim(&mut self, flushed: i64) {
        while self.bytes > RING_BYTES_MAX && self.batches.front().is_some_and(|b| b.revision <= flushed) {
            let batch = self.batches.pop_front().expect("just seen");
            self.bytes -= batch.size();
            self.after = batch.revision;
        }
    }
}

/// How much one step of a replay reads.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Revisions at most.
    pub revisions: usize,
    /// Bytes after which no further revision is read.
    pub bytes: usize,
}

impl Store {
    /// The next changes from revision `from` on, oldest first, whole revisions only; empty when there are none yet.
    /// Fails with `Compacted` when `from` lies below the last compaction.
    pub fn history(&self, from: i64, limit: Limit) -> Result<Vec<Arc<EventBatch>>> {
        let is_kept = || if from < self.compacted() { Err(Error::Compacted) } else { Ok(()) };
        is_kept()?;
        self.history_if(from, limit, is_kept)
    }

    /// The same, when `is_kept` says so after the read began.
    pub(super) fn history_if(
        &self,
        from: i64,
        limit: Limit,
        is_kept: impl Fn() -> Result<()>,
    ) -> Result<Vec<Arc<EventBatch>>> {
        // Ring and log must be of one state: what one of them lacks, the other has.
        let _steady = self.installing.read();
        if let Some(found) = self.ring.read(from, &limit) {
            return Ok(found);
        }
        let txn = self.view.load().env.read()?;
        is_kept()?;
        let found = read_log(&txn, from, &limit)?;
        if !found.is_empty() {
            return Ok(found);
        }
        // Everything up to the flush was compacted or empty: what follows is in the ring.
        let after = self.ring.0.read().after;
        Ok(self.ring.read(from.max(after + 1), &limit).unwrap_or_default())
    }

    pub(super) fn remember(&self, batch: Arc<EventBatch>) {
        self.ring.push(batch, self.flushed.load(Ordering::Relaxed));
    }

    /// Puts the value of an image into the image itself, so that it can be sent without the store.
    /// `Compacted` when the value is gone.
    pub fn with_inline_value(&self, image: &Bytes) -> Result<Bytes> {
        let parsed = Image::parse(image)?;
        let Value::Blob(len) = parsed.value else { return Ok(image.clone()) };
        let txn = self.view.load().env.read()?;
        inline(&txn, &parsed, len as usize)
    }
}

fn inline(txn: &ReadTxn, image: &Image<'_>, len: usize) -> Result<Bytes> {
    let mut value = Vec::with_capacity(len);
    read_blob(txn, image.modified, BlobPart::Value, len, &mut value)?;
    Ok(codec::live_image(&image.meta(), &value))
}

fn read_log(txn: &ReadTxn, from: i64, limit: &Limit) -> Result<Vec<Arc<EventBatch>>> {
    let start = revision_key(Revision::new(from, 0));
    let mut found: Vec<Arc<EventBatch>> = Vec::new();
    let mut open = EventBatch { revision: 0, events: Vec::new() };
    let mut bytes = 0;
    for row in txn.range(Table::Log, Bound::Included(&start), Bound::Unbounded)? {
        let (key, value) = row?;
        let revision = codec::parse_revision_key(key)?;
        if revision.main != open.revision {
            close(&mut open, revision.main, &mut found);
            if found.len() >= limit.revisions || bytes >= limit.bytes {
                return Ok(found);
            }
        }
        let event = read_event(txn, revision, value)?;
        bytes += event.key.len() + event.new.len() + event.previous.len();
        open.events.push(event);
    }
    close(&mut open, 0, &mut found);
    Ok(found)
}

fn close(open: &mut EventBatch, next: i64, found: &mut Vec<Arc<EventBatch>>) {
    let done = std::mem::replace(open, EventBatch { revision: next, events: Vec::new() });
    if !done.events.is_empty() {
        found.push(Arc::new(done));
    }
}

fn read_event(txn: &ReadTxn, revision: Revision, value: &[u8]) -> Result<Event> {
    let row = LogRow::parse(value)?;
    let key = match row.key {
        RowKey::Inline(key) => Bytes::copy_from_slice(key),
        RowKey::Blob(len) => {
            let mut key = Vec::with_capacity(len);
            read_blob(txn, revision, BlobPart::Key, len, &mut key)?;
            key.into()
        }
    };
    let image = Image::parse(row.new)?;
    let new = match image.value {
        Value::Inline(_) => Bytes::copy_from_slice(row.new),
        Value::Blob(len) => inline(txn, &image, len as usize)?,
    };
    Ok(Event { key, new, previous: Bytes::copy_from_slice(row.previous) })
}
