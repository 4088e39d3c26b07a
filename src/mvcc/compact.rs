//! Compaction: logical at once, physical in small steps whose cost is what they remove.
//!
//! ```text
//!   log:  2 put a   3 put b   4 put a   6 del a     7 put b     compact to 6:
//!         removed   removed   removed   stripped    kept        cur: b stays, a's tombstone goes
//! ```
//!
//! Rows below the bound R are removed. Those of R itself stay for watchers that start there, stripped of their undo
//! images, which only reads below R could use; likewise tombstones of R leave `cur`.

use super::snapshot::read_blob;
use super::{Error, Result, Store};
use crate::metrics::METRICS;
use crate::storage::codec::{
    self, BlobPart, Image, LONG_STORE_KEY, LogRow, RowKey, Value, blob_key, revision_key, store_key,
};
use crate::storage::schema::{Table, meta};
use crate::storage::{ReadTxn, WriteTxn};
use crate::types::Revision;
use std::ops::Bound;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

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
        *self.compacting_since.lock() = Some(Instant::now());
        Ok(())
    }

    /// Whether rows wait to be removed or stripped.
    pub fn has_removable(&self) -> bool {
        self.removed() < self.removal_bound() || self.strip_position().is_some()
    }

    /// Rows below this revision can be removed now: compacted, flushed, and not needed by a pinned read.
    fn removal_bound(&self) -> i64 {
        let flushed = self.flushed.load(Ordering::SeqCst) + 1;
        let pinned = self.pins.lowest().map_or(i64::MAX, |r| r + 1);
        self.flushed_compacted.load(Ordering::SeqCst).min(flushed).min(pinned)
    }

    /// Where stripping the rows of the compacted revision goes on, if it may and there may be any.
    fn strip_position(&self) -> Option<Revision> {
        let compacted = self.compacted();
        let is_flushed = self.flushed_compacted.load(Ordering::SeqCst) == compacted;
        let is_pinned = self.pins.lowest().is_some_and(|r| r < compacted);
        if compacted <= 0 || self.removed() < compacted || !is_flushed || is_pinned {
            return None;
        }
        let position = (*self.stripped.lock()).max(Revision::new(compacted, 0));
        (position.main == compacted).then_some(position)
    }

    /// Does one step: removes or strips up to about `rows_max` rows in one synced write transaction. Only the flush
    /// thread calls this.
    pub fn remove_compacted(&self, rows_max: usize) -> Result<()> {
        let (from, bound) = (self.removed(), self.removal_bound());
        let begin = Instant::now();
        if from < bound {
            self.remove(from, bound, rows_max)?;
        } else if let Some(position) = self.strip_position() {
            self.strip(position, rows_max)?;
        } else {
            return Ok(());
        }
        METRICS.mvcc.compaction_pause.observe(begin.elapsed().as_secs_f64() * 1e3);
        self.note_progress();
        Ok(())
    }

    /// Tells the metrics when nothing is left to remove.
    fn note_progress(&self) {
        if self.has_removable() || self.removed() < self.compacted() {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64().trunc());
        METRICS.mvcc.compaction_last.set(now);
        if let Some(since) = self.compacting_since.lock().take() {
            METRICS.mvcc.compaction_total.observe(since.elapsed().as_secs_f64() * 1e3);
        }
    }

    fn remove(&self, from: i64, bound: i64, rows_max: usize) -> Result<()> {
        let env = self.view.load().env.clone();
        let end = Revision::new(bound, 0);
        let step = collect(&env.read()?, Revision::new(from, 0), end, rows_max, true)?;
        let mut txn = env.write()?;
        step.remove_garbage(&mut txn)?;
        remove_rows(&mut txn, Revision::new(from, 0), step.next)?;
        txn.put(Table::Meta, meta::REMOVED, &step.next.main.to_le_bytes())?;
        txn.commit()?;
        self.removed.store(step.next.main, Ordering::SeqCst);
        METRICS.mvcc.compaction_keys.inc_by(step.rows as u64);
        *self.sizes.lock() = env.sizes()?;
        Ok(())
    }

    /// Rows are taken out and put back shorter, since LMDB does not join pages whose rows have shrunk.
    fn strip(&self, position: Revision, rows_max: usize) -> Result<()> {
        let env = self.view.load().env.clone();
        let end = Revision::new(position.main + 1, 0);
        let step = collect(&env.read()?, position, end, rows_max, false)?;
        if !step.stripped.is_empty() {
            let mut txn = env.write()?;
            step.remove_garbage(&mut txn)?;
            remove_rows(&mut txn, position, step.next)?;
            for (revision, row) in &step.stripped {
                txn.put(Table::Log, &revision_key(*revision), row)?;
            }
            txn.commit()?;
            *self.sizes.lock() = env.sizes()?;
        }
        *self.stripped.lock() = step.next;
        Ok(())
    }
}

fn remove_rows(txn: &mut WriteTxn<'_>, from: Revision, to: Revision) -> Result<()> {
    let (first, end) = (revision_key(from), revision_key(to));
    txn.delete_range(Table::Log, Bound::Included(&first), Bound::Excluded(&end))?;
    Ok(())
}

/// What one step does away with besides rows of `log`, and where the next one begins.
struct Step {
    blobs: Vec<(Revision, BlobPart)>,
    tombstones: Vec<(Vec<u8>, Revision)>,
    /// Rows looked at.
    rows: usize,
    /// The rows without their undo images, when they are to stay; empty when none had any.
    stripped: Vec<(Revision, Vec<u8>)>,
    next: Revision,
}

impl Step {
    fn remove_garbage(&self, txn: &mut WriteTxn<'_>) -> Result<()> {
        for (revision, part) in &self.blobs {
            let (first, last) = (blob_key(*revision, *part, 0), blob_key(*revision, *part, u32::MAX));
            txn.delete_range(Table::Blob, Bound::Included(&first), Bound::Included(&last))?;
        }
        for (key, revision) in &self.tombstones {
            remove_tombstone(txn, key, *revision)?;
        }
        Ok(())
    }
}

/// Looks at the rows from `from` up to `end`. Rows that are removed end with a whole revision.
fn collect(txn: &ReadTxn, from: Revision, end: Revision, rows_max: usize, removes: bool) -> Result<Step> {
    let mut step =
        Step { blobs: Vec::new(), tombstones: Vec::new(), rows: 0, stripped: Vec::new(), next: end };
    let (first, last) = (revision_key(from), revision_key(end));
    let mut has_undo = false;
    for (seen, row) in txn.range(Table::Log, Bound::Included(&first), Bound::Excluded(&last))?.enumerate() {
        let (key, value) = row?;
        let revision = codec::parse_revision_key(key)?;
        if seen >= rows_max && (revision.sub == 0 || !removes) {
            step.next = revision;
            break;
        }
        step.rows += 1;
        let row = LogRow::parse(value)?;
        let is_long = matches!(row.key, RowKey::Blob(_));
        if !row.previous.is_empty() {
            has_undo = true;
            let previous = Image::parse(row.previous)?;
            if matches!(previous.value, Value::Blob(_)) {
                step.blobs.push((previous.modified, BlobPart::Value));
            }
            if is_long {
                step.blobs.push((previous.modified, BlobPart::Key));
            }
        }
        if Image::parse(row.new)?.is_tombstone() {
            step.tombstones.push((tombstone_key(txn, &row, revision)?, revision));
            if removes && is_long {
                step.blobs.push((revision, BlobPart::Key));
            }
        }
        if !removes {
            let kept = &value[..value.len() - row.previous.len()];
            step.stripped.push((revision, kept.to_vec()));
        }
    }
    if !has_undo {
        step.stripped.clear();
    }
    Ok(step)
}

fn tombstone_key(txn: &ReadTxn, row: &LogRow<'_>, revision: Revision) -> Result<Vec<u8>> {
    match row.key {
        RowKey::Inline(key) => Ok(key.to_vec()),
        RowKey::Blob(len) => {
            let mut key = Vec::with_capacity(len);
            read_blob(txn, revision, BlobPart::Key, len, &mut key)?;
            Ok(store_key(&key, &mut [0; LONG_STORE_KEY]).to_vec())
        }
    }
}

/// Removes the tombstone of `revision` from `cur`, unless the key has been written again.
fn remove_tombstone(txn: &mut WriteTxn<'_>, store_key: &[u8], revision: Revision) -> Result<()> {
    let Some(image) = txn.get(Table::Cur, store_key)? else { return Ok(()) };
    let image = Image::parse(image)?;
    if image.is_tombstone() && image.modified == revision {
        txn.delete(Table::Cur, store_key)?;
    }
    Ok(())
}
