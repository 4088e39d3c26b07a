//! Batches: transactions of one entry, each with an outcome of its own.

use super::Applier;
use super::txn::{Run, decide_all, read_txn_at};
use crate::engine::command::{Applied, Batch, BoundPut, Op, Outcome, Put, Txn, TxnOutcome};
use crate::engine::error::Error;
use crate::engine::read::Room;
use crate::mvcc::{self, Store};
use crate::types::{KeyRange, RangeEnd};
use bytes::Bytes;
use std::collections::BTreeSet;

/// Keys of a batch that is read without another thread.
const SHORT_KEYS_MAX: usize = 8;
/// Bytes of keys and images that a batch of reads may find: all of them are in memory at once.
const READ_BYTES_MAX: usize = 256 << 20;

impl Applier {
    pub(super) fn batch(&mut self, batch: &Batch) -> mvcc::Result<Applied> {
        let store = self.store.clone();
        let mut writer = store.write(self.now_ms)?;
        let mut run = Run { slice: batch.slice, ..Run::default() };
        let mut outcomes = Vec::with_capacity(batch.txns.len());
        // Keys that the revision has changed so far.
        let mut changed: BTreeSet<Bytes> = BTreeSet::new();
        for txn in &batch.txns {
            let path = decide_all(writer.snapshot(), txn)?;
            if !changed.is_empty() && changes_again(txn, &changed) {
                writer.seal();
                changed.clear();
            }
            let before = writer.events().len();
            outcomes.push(self.run_checked(&mut writer, &mut run, txn, &path)?);
            changed.extend(writer.events()[before..].iter().map(|event| event.key.clone()));
        }
        let revision = writer.revision();
        self.commit(writer)?;
        Ok(Ok(Outcome::Batch { revision, outcomes }))
    }
}

/// Whether any branch of a transaction may change one of these keys.
fn changes_again(txn: &Txn, changed: &BTreeSet<Bytes>) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        Op::Put(Put { key, .. }) | Op::BoundPut(BoundPut { key, .. }) => changed.contains(key),
        Op::DeleteRange(delete) => holds_any(&delete.range, changed),
        Op::Txn(txn) => changes_again(txn, changed),
        Op::Range(_) | Op::Attach(_) => false,
    })
}

fn holds_any(range: &KeyRange, keys: &BTreeSet<Bytes>) -> bool {
    if range.end == RangeEnd::Single {
        return keys.contains(&range.start);
    }
    keys.range(range.start.clone()..).next().is_some_and(|key| range.contains(key))
}

/// Whether a batch of reads is over so soon that it need not go to another thread for it.
pub(in crate::engine) fn is_short(batch: &Batch) -> bool {
    let is_single = |op: &Op| matches!(op, Op::Range(query) if query.range.end == RangeEnd::Single);
    let ops = || batch.txns.iter().flat_map(|txn| txn.success.iter().chain(&txn.failure));
    batch.txns.iter().all(|txn| txn.compares.is_empty())
        && ops().all(is_single)
        && ops().nth(SHORT_KEYS_MAX).is_none()
}

/// Runs a batch of reads alone, all at one revision; 0 or less: the current one.
pub(in crate::engine) fn read_batch(
    store: &Store,
    batch: &Batch,
    revision: i64,
) -> Result<Vec<TxnOutcome>, Error> {
    let snapshot = store.snapshot(revision)?;
    let mut room = Room { slice: batch.slice, bytes: READ_BYTES_MAX };
    let read = |txn| read_txn_at(store, &snapshot, txn, &mut room);
    batch.txns.iter().map(read).collect()
}
