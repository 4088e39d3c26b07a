//! One write transaction on the store: a single revision, made by the applier.
//!
//! Nothing can be rolled back: whoever calls has checked before that the transaction may run. Reads through the writer
//! see its own changes, at once; other readers see them when `commit` has published the revision.

use super::memtable::Memtable;
use super::{Event, EventBatch, Result, Snapshot, Store, View};
use crate::metrics::METRICS;
use crate::storage::codec::{self, Image, Meta};
use crate::types::{LeaseId, Revision};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// See the module.
pub struct Writer<'s> {
    store: &'s Store,
    active: Arc<Memtable>,
    view: Snapshot,
    revision: i64,
    events: Vec<Event>,
}

impl Store {
    /// Begins the next revision.
    pub fn write(&self) -> Result<Writer<'_>> {
        let view: Arc<View> = self.view.load_full();
        let txn = view.env.read()?;
        Ok(Writer {
            store: self,
            active: Arc::clone(&view.memtables[0]),
            view: Snapshot::new(i64::MAX, view.memtables.clone(), txn),
            revision: self.revision() + 1,
            events: Vec::new(),
        })
    }
}

impl Writer<'_> {
    /// Whether nothing was changed so far.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The revision that the changes get; the current one while there are none.
    pub fn revision(&self) -> i64 {
        if self.events.is_empty() { self.revision - 1 } else { self.revision }
    }

    /// The newest state, this transaction's changes included.
    pub fn snapshot(&self) -> &Snapshot {
        &self.view
    }

    /// Writes a new version of `key` attached to `lease` (0: none); returns the image it replaced, if the key existed.
    pub fn put(&mut self, key: Bytes, value: &[u8], lease: LeaseId) -> Result<Option<Bytes>> {
        let previous = self.view.newest(&key)?;
        let modified = self.next_revision();
        let mut meta = Meta { modified, create_revision: self.revision, version: 1, lease };
        let old = previous.as_ref().map(|p| Image::parse(p)).transpose()?.filter(|i| !i.is_tombstone());
        let old_meta = old.map(|i| i.meta());
        if let Some(old) = old_meta {
            meta.create_revision = old.create_revision;
            meta.version = old.version + 1;
        }
        self.move_lease(&key, old_meta.map_or(0, |m| m.lease), lease);
        if old_meta.is_none() {
            self.store.keys.fetch_add(1, Ordering::Relaxed);
        }
        METRICS.mvcc.puts.inc();
        METRICS.mvcc.put_bytes.add((key.len() + value.len()) as i64);
        self.record(key, modified, codec::live_image(&meta, value), previous.clone());
        Ok(previous.filter(|_| old_meta.is_some()))
    }

    /// Ends the generation of `key`; returns the image it replaced, or `None` when there was no such key.
    /// `expired` tells an expired lease from a request.
    pub fn delete(&mut self, key: Bytes, expired: bool) -> Result<Option<Bytes>> {
        let Some(previous) = self.view.get(&key)? else { return Ok(None) };
        let modified = self.next_revision();
        self.move_lease(&key, Image::parse(&previous)?.meta().lease, 0);
        self.store.keys.fetch_sub(1, Ordering::Relaxed);
        self.record(key, modified, codec::tombstone_image(modified, expired), Some(previous.clone()));
        Ok(Some(previous))
    }

    /// Publishes the revision, if there is any change, and returns its events.
    pub fn commit(self) -> Option<Arc<EventBatch>> {
        if self.events.is_empty() {
            return None;
        }
        let batch = Arc::new(EventBatch { revision: self.revision, events: self.events });
        self.active.push(Arc::clone(&batch));
        self.store.remember(Arc::clone(&batch));
        self.store.counts.note(self.revision, &batch.events);
        self.store.current.store(self.revision, Ordering::SeqCst);
        Some(batch)
    }

    fn next_revision(&self) -> Revision {
        Revision::new(self.revision, self.events.len() as u32)
    }

    fn record(&mut self, key: Bytes, revision: Revision, new: Bytes, previous: Option<Bytes>) {
        self.active.insert(key.clone(), revision, new.clone());
        self.events.push(Event { key, new, previous: previous.unwrap_or_default() });
    }

    fn move_lease(&self, key: &Bytes, old: LeaseId, new: LeaseId) {
        if old == new {
            return;
        }
        if old != 0 {
            self.active.attach(old, key.clone(), false);
        }
        if new != 0 {
            self.active.attach(new, key.clone(), true);
        }
    }
}
