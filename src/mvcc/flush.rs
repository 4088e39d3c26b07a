//! Moving a frozen memtable into LMDB, in one large, sorted, fully synced write transaction.
//!
//! Runs on the flush thread, off the path of any request. Until the commit is done, readers find the frozen memtable in
//! the view; afterwards they find its content in LMDB. A crash in between loses nothing: the raft log still has it all,
//! because it is never purged above the last flush.

use super::memtable::Memtable;
use super::{Result, Store, View};
use crate::metrics::{self, METRICS};
use crate::storage::WriteTxn;
use crate::storage::codec::{
    self, BLOB_CHUNK, BlobPart, Image, LONG_STORE_KEY, LogRow, RAW_KEY_MAX, blob_key, revision_key, store_key,
};
use crate::storage::schema::{Table, meta};
use crate::types::Revision;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// A row of a table that is not the keyspace's; `None` removes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideRow {
    /// Lease, alarm or meta.
    pub table: Table,
    /// Key of the row.
    pub key: Vec<u8>,
    /// Value to set.
    pub value: Option<Vec<u8>>,
}

/// The state of one moment, waiting to be flushed.
pub struct Frozen {
    memtable: Arc<Memtable>,
    revision: i64,
    compacted: i64,
    keys: i64,
    rows: Vec<SideRow>,
}

impl Frozen {
    /// Roughly the memory held.
    pub fn bytes(&self) -> usize {
        self.memtable.bytes()
    }
}

impl Store {
    /// Whether a freeze would find any key changed.
    pub fn is_dirty(&self) -> bool {
        self.view.load().memtables[0].bytes() > 0
    }

    /// Starts a new memtable and returns the old one together with `rows`, which must be of the same moment:
    /// the caller holds back the applier. The previous frozen one must have been flushed.
    pub fn freeze(&self, rows: Vec<SideRow>) -> Frozen {
        let memtable = Arc::clone(&self.view.load().memtables[0]);
        self.view.rcu(|view| {
            let mut memtables = view.memtables.clone();
            memtables.insert(0, Arc::default());
            View { env: view.env.clone(), memtables }
        });
        Frozen { memtable, revision: self.revision(), compacted: self.compacted(), keys: self.keys(), rows }
    }

    /// Writes a frozen state to LMDB. Only the flush thread calls this. Durable when it returns.
    pub fn flush(&self, frozen: &Frozen) -> Result<()> {
        let begin = Instant::now();
        let env = self.view.load().env.clone();
        let mut txn = env.write()?;
        write_memtable(&mut txn, &frozen.memtable)?;
        for row in &frozen.rows {
            match &row.value {
                Some(value) => txn.put(row.table, &row.key, value)?,
                None => {
                    txn.delete(row.table, &row.key)?;
                }
            }
        }
        txn.put(Table::Meta, meta::REVISION, &frozen.revision.to_le_bytes())?;
        txn.put(Table::Meta, meta::KEYS, &frozen.keys.to_le_bytes())?;
        if frozen.compacted >= 0 {
            txn.put(Table::Meta, meta::COMPACTED, &frozen.compacted.to_le_bytes())?;
        }
        let commit = Instant::now();
        txn.commit()?;
        metrics::observe_since(&METRICS.disk.backend_commit_write, commit);
        metrics::observe_since(&METRICS.disk.backend_commit, begin);
        self.flushed.store(frozen.revision, Ordering::SeqCst);
        self.flushed_compacted.store(frozen.compacted, Ordering::SeqCst);
        self.ring.trim(frozen.revision);
        self.view.rcu(|view| {
            let kept = view.memtables.iter().filter(|m| !Arc::ptr_eq(m, &frozen.memtable));
            View { env: view.env.clone(), memtables: kept.cloned().collect() }
        });
        *self.sizes.lock() = env.sizes()?;
        Ok(())
    }
}

fn write_memtable(txn: &mut WriteTxn<'_>, memtable: &Memtable) -> Result<()> {
    write_log(txn, memtable)?;
    let mut image = Vec::new();
    let mut buffer = [0; LONG_STORE_KEY];
    for (key, newest) in memtable.newest() {
        image.clear();
        codec::flushed_image(&newest, &mut image)?;
        txn.put(Table::Cur, store_key(&key, &mut buffer), &image)?;
    }
    for (lease, key, attached) in memtable.attachments() {
        let mut row_key = lease.to_be_bytes().to_vec();
        row_key.extend_from_slice(store_key(&key, &mut buffer));
        if attached {
            let long_key: &[u8] = if key.len() > RAW_KEY_MAX { &key } else { &[] };
            txn.put(Table::LeaseKey, &row_key, long_key)?;
        } else {
            txn.delete(Table::LeaseKey, &row_key)?;
        }
    }
    Ok(())
}

/// The changes in order of revision, each at the end of its table.
fn write_log(txn: &mut WriteTxn<'_>, memtable: &Memtable) -> Result<()> {
    let (mut new, mut previous, mut row) = (Vec::new(), Vec::new(), Vec::new());
    for batch in memtable.batches() {
        for event in &batch.events {
            let revision = Image::parse(&event.new)?.modified;
            new.clear();
            previous.clear();
            row.clear();
            if let Some(value) = codec::flushed_image(&event.new, &mut new)? {
                write_blob(txn, revision, BlobPart::Value, value)?;
            }
            if event.key.len() > RAW_KEY_MAX {
                write_blob(txn, revision, BlobPart::Key, &event.key)?;
            }
            if !event.previous.is_empty() {
                // A moved-out value was written to `blob` when the previous version was flushed.
                codec::flushed_image(&event.previous, &mut previous)?;
            }
            LogRow::encode(&event.key, &new, &previous, &mut row);
            txn.append(Table::Log, &revision_key(revision), &row)?;
        }
    }
    Ok(())
}

pub(super) fn write_blob(
    txn: &mut WriteTxn<'_>,
    revision: Revision,
    part: BlobPart,
    bytes: &[u8],
) -> Result<()> {
    for (chunk, piece) in (0..).zip(bytes.chunks(BLOB_CHUNK)) {
        txn.append(Table::Blob, &blob_key(revision, part, chunk), piece)?;
    }
    Ok(())
}
