//! Compaction: logical at once, physical in small steps whose cost is what they remove.
//!
//! ```text
//!   log:  2 put a   3 put b   4 put a   6 del a   7 put b      compact to 6:
//!         removed   removed   removed   kept      kept         cur: a (tombstone) and b stay
//!                                                              then compact to 7: row 6 goes, and a's tombstone with it
//! ```

use super::{Error, Result, Store};
use crate::storage::codec::{
    self, BlobPart, Image, LONG_STORE_KEY, LogRow, RowKey, Value, blob_key, revision_key, store_key,
};
use crate::storage::schema::{Table, meta};
use crate::storage::{ReadTxn, WriteTxn};
use crate::types::Revision;
use std::ops::Bound;
use std::sync::atomic::Ordering;

impl Store {
    /// Refuses history below `revision` from now on (KV-C1). Only the applier calls this.
    pub fn compact(&self, revision: i64) -> Result<()> {
        if revision <= self.compacted() {
            return Err(Error::Compacted);
        }
        if revision > self.revision() {
            return Err(Error::FutureRevision);
        }
        self.compacted.store(revision, Ordering::SeqCst);
        Ok(())
    }

    /// Whether rows wait to be removed.
    pub fn has_removable(&self) -> bool {
        self.removed() < self.removal_bound()
    }

    /// Rows below this revision can be removed now: compacted, flushed, and not needed by a pinned read.
    fn removal_bound(&self) -> i64 {
        let flushed = self.flushed.load(Ordering::SeqCst) + 1;
        let pinned = self.pins.lowest().map_or(i64::MAX, |r| r + 1);
        self.compacted().min(flushed).min(pinned)
    }

    /// Removes up to about `rows_max` rows in one synced write transaction. Only the flush thread calls this.
    pub fn remove_compacted(&self, rows_max: usize) -> Result<()> {
        let (from, bound) = (self.removed(), self.removal_bound());
        if from >= bound {
            return Ok(());
        }
        let env = self.view.load().env.clone();
        let step = collect(&env.read()?, from, bound, rows_max)?;
        let mut txn = env.write()?;
        for (revision, part) in &step.blobs {
            let (first, last) = (blob_key(*revision, *part, 0), blob_key(*revision, *part, u32::MAX));
            txn.delete_range(Table::Blob, Bound::Included(&first), Bound::Included(&last))?;
        }
        for (key, revision) in &step.tombstones {
            remove_tombstone(&mut txn, key, *revision)?;
        }
        let (first, end) = (revision_key(Revision::new(from, 0)), revision_key(Revision::new(step.next, 0)));
        txn.delete_range(Table::Log, Bound::Included(&first), Bound::Excluded(&end))?;
        txn.put(Table::Meta, meta::REMOVED, &step.next.to_le_bytes())?;
        txn.commit()?;
        self.removed.store(step.next, Ordering::SeqCst);
        *self.sizes.lock() = env.sizes()?;
        Ok(())
    }
}

/// What one step removes besides the rows of `log` below `next`.
struct Step {
    blobs: Vec<(Revision, BlobPart)>,
    tombstones: Vec<(Vec<u8>, Revision)>,
    next: i64,
}

fn collect(txn: &ReadTxn, from: i64, bound: i64, rows_max: usize) -> Result<Step> {
    let mut step = Step { blobs: Vec::new(), tombstones: Vec::new(), next: bound };
    let (first, end) = (revision_key(Revision::new(from, 0)), revision_key(Revision::new(bound, 0)));
    let mut buffer = [0; LONG_STORE_KEY];
    for (seen, row) in txn.range(Table::Log, Bound::Included(&first), Bound::Excluded(&end))?.enumerate() {
        let (key, value) = row?;
        let revision = codec::parse_revision_key(key)?;
        if seen >= rows_max && revision.sub == 0 {
            step.next = revision.main;
            break;
        }
        let row = LogRow::parse(value)?;
        let is_long = matches!(row.key, RowKey::Blob(_));
        if !row.previous.is_empty() {
            let previous = Image::parse(row.previous)?;
            if matches!(previous.value, Value::Blob(_)) {
                step.blobs.push((previous.modified, BlobPart::Value));
            }
            if is_long {
                step.blobs.push((previous.modified, BlobPart::Key));
            }
        }
        if Image::parse(row.new)?.is_tombstone() {
            let store_key = match row.key {
                RowKey::Inline(key) => key.to_vec(),
                RowKey::Blob(len) => {
                    let mut key = Vec::with_capacity(len);
                    super::snapshot::read_blob(txn, revision, BlobPart::Key, len, &mut key)?;
                    store_key(&key, &mut buffer).to_vec()
                }
            };
            step.tombstones.push((store_key, revision));
        }
    }
    Ok(step)
}

/// Removes the tombstone of `revision` from `cur`, unless the key has been written again.
fn remove_tombstone(txn: &mut WriteTxn<'_>, store_key: &[u8], revision: Revision) -> Result<()> {
    let Some(image) = txn.get(Table::Cur, store_key)? else { return Ok(()) };
    let image = Image::parse(image)?;
    if image.is_tombstone() && image.modified == revision {
        txn.delete(Table::Cur, store_key)?;
        if codec::is_long(store_key) {
            let (first, last) =
                (blob_key(revision, BlobPart::Key, 0), blob_key(revision, BlobPart::Key, u32::MAX));
            txn.delete_range(Table::Blob, Bound::Included(&first), Bound::Included(&last))?;
        }
    }
    Ok(())
}
