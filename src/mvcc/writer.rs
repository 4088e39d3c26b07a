//! One write transaction on the store, made by the applier: a single revision, or several that become visible together.
//!
//! Nothing can be rolled back: whoever calls has checked before that the transaction may run. Reads through the writer
//! see its own changes, at once; other readers see them when `commit` has published the last revision.

use super::memtable::Memtable;
use super::{Event, EventBatch, Result, Snapshot, Store, View};
use crate::metrics::METRICS;
use crate::storage::codec::{self, Image, Meta, Stamp};
use crate::types::{LeaseId, Revision};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// See the module.
pub struct Writer<'s> {
    store: &'s Store,
    active: Arc<Memtable>,
    view: Snapshot,
    /// Milliseconds since 1970, for what it writes.
    now_ms: u64,
    revision: i64,
    events: Vec<Event>,
    /// Finished revisions before this one.
    sealed: Vec<Arc<EventBatch>>,
    released: Vec<LeaseId>,
}

/// What a write transaction did.
#[derive(Debug, Default)]
pub struct Committed {
    /// Its revisions, in order.
    pub batches: Vec<Arc<EventBatch>>,
    /// Leases that have lost a key, perhaps several times; they may have others.
    pub released: Vec<LeaseId>,
}

impl Store {
    /// Begins the next revision. `now_ms`: when the change was asked for, milliseconds since 1970.
    pub fn write(&self, now_ms: u64) -> Result<Writer<'_>> {
        let view: Arc<View> = self.view.load_full();
        let txn = view.env.read()?;
        Ok(Writer {
            store: self,
            active: Arc::clone(&view.memtables[0]),
            view: Snapshot::new(i64::MAX, view.memtables.clone(), txn),
            now_ms,
            revision: self.revision() + 1,
            events: Vec::new(),
            sealed: Vec::new(),
            released: Vec::new(),
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
        self.put_version(key, value, Some(lease))
    }

    /// The same, but the key stays attached to the lease that it has, if any.
    pub fn put_keeping_lease(&mut self, key: Bytes, value: &[u8]) -> Result<Option<Bytes>> {
        self.put_version(key, value, None)
    }

    fn put_version(&mut self, key: Bytes, value: &[u8], lease: Option<LeaseId>) -> Result<Option<Bytes>> {
        let previous = self.view.newest(&key)?;
        let modified = self.next_revision();
        let stamp = Stamp { created_ms: self.now_ms, modified_ms: self.now_ms };
        let old = previous.as_ref().map(|p| Image::parse(p)).transpose()?.filter(|i| !i.is_tombstone());
        let old_meta = old.map(|i| i.meta());
        let old_lease = old_meta.map_or(0, |m| m.attachment());
        let lease = lease.unwrap_or(old_lease);
        let mut meta =
            Meta { modified, create_revision: self.revision, version: 1, lease, stamp, attached: None };
        if let Some(old) = old_meta {
            meta.create_revision = old.create_revision;
            meta.version = old.version + 1;
            // The clocks of members differ; time does not run backwards for a key all the same.
            let modified_ms = self.now_ms.max(old.stamp.modified_ms);
            meta.stamp = Stamp { created_ms: old.stamp.created_ms, modified_ms };
        }
        self.move_lease(&key, old_lease, lease);
        if old_meta.is_none() {
            self.store.keys.fetch_add(1, Ordering::Relaxed);
        }
        METRICS.mvcc.puts.inc();
        METRICS.mvcc.put_bytes.add((key.len() + value.len()) as i64);
        self.record(key, modified, codec::live_image(&meta, value), previous.clone());
        Ok(previous.filter(|_| old_meta.is_some()))
    }

    /// Attaches `key` to `lease` (0: none) without a change that anybody could watch; false when there is no such key. The
    /// newest version takes the attachment in, and loses it with the next.
    pub fn attach(&mut self, key: &Bytes, lease: LeaseId) -> Result<bool> {
        let Some(image) = self.view.get(key)? else { return Ok(false) };
        let image = Image::parse(&image)?;
        let old = image.meta().attachment();
        if old != lease {
            self.move_lease(key, old, lease);
            self.active.amend(key.clone(), image.modified, codec::attached_image(&image, lease));
        }
        Ok(true)
    }

    /// Ends the generation of `key`; returns the image it replaced, or `None` when there was no such key.
    /// `expired` tells the end of a lease from a request.
    pub fn delete(&mut self, key: Bytes, expired: bool) -> Result<Option<Bytes>> {
        let Some(previous) = self.view.get(&key)? else { return Ok(None) };
        let modified = self.next_revision();
        self.move_lease(&key, Image::parse(&previous)?.meta().attachment(), 0);
        self.store.keys.fetch_sub(1, Ordering::Relaxed);
        self.record(key, modified, codec::tombstone_image(modified, expired), Some(previous.clone()));
        Ok(Some(previous))
    }

    /// What this revision has changed so far.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Ends the revision: further changes belong to the next one.
    pub fn seal(&mut self) {
        if !self.events.is_empty() {
            let events = std::mem::take(&mut self.events);
            self.sealed.push(Arc::new(EventBatch { revision: self.revision, events }));
            self.revision += 1;
        }
    }

    /// Publishes its revisions, if there is any change.
    pub fn commit(mut self) -> Committed {
        self.seal();
        let Some(last) = self.sealed.last().map(|batch| batch.revision) else {
            return Committed { batches: self.sealed, released: self.released };
        };
        for batch in &self.sealed {
            self.active.push(Arc::clone(batch));
            self.store.remember(Arc::clone(batch));
            self.store.counts.note(batch.revision, &batch.events);
        }
        self.store.current.store(last, Ordering::SeqCst);
        Committed { batches: self.sealed, released: self.released }
    }

    fn next_revision(&self) -> Revision {
        Revision::new(self.revision, self.events.len() as u32)
    }

    fn record(&mut self, key: Bytes, revision: Revision, new: Bytes, previous: Option<Bytes>) {
        self.active.insert(key.clone(), revision, new.clone());
        self.events.push(Event { key, new, previous: previous.unwrap_or_default() });
    }

    fn move_lease(&mut self, key: &Bytes, old: LeaseId, new: LeaseId) {
        if old == new {
            return;
        }
        if old != 0 {
            self.active.attach(old, key.clone(), false);
            self.released.push(old);
        }
        if new != 0 {
            self.active.attach(new, key.clone(), true);
        }
    }
}
