//! Puts, deletes and transactions: checks first, all of them on the state before, then the writes.

use super::{Applier, answer_kv};
use crate::engine::command::{
    Applied, Compare, DeleteRange, Kv, Op, OpOutcome, Operand, Outcome, Put, Refusal, Relation, Txn,
    TxnOutcome,
};
use crate::engine::read;
use crate::metrics::METRICS;
use crate::mvcc::{self, Snapshot, writer::Writer};
use crate::storage::codec::{Image, Meta};
use bytes::Bytes;
use std::cmp::Ordering;
use std::ops::ControlFlow;

impl Applier {
    pub(super) fn put(&mut self, put: &Put) -> mvcc::Result<Applied> {
        let store = self.store.clone();
        let mut writer = store.write()?;
        if let Err(refusal) = self.check_put(writer.snapshot(), put)? {
            return Ok(Err(refusal));
        }
        let previous = run_put(&mut writer, put)?;
        let revision = writer.revision();
        self.effects.batches.extend(writer.commit());
        Ok(Ok(Outcome::Put { revision, previous }))
    }

    pub(super) fn delete_range(&mut self, delete: &DeleteRange) -> mvcc::Result<Applied> {
        let store = self.store.clone();
        let mut writer = store.write()?;
        let (deleted, previous) = run_delete(&mut writer, delete)?;
        let revision = writer.revision();
        self.effects.batches.extend(writer.commit());
        Ok(Ok(Outcome::DeleteRange { revision, deleted, previous }))
    }

    pub(super) fn txn(&mut self, txn: &Txn) -> mvcc::Result<Applied> {
        let store = self.store.clone();
        let mut writer = store.write()?;
        let mut path = Vec::new();
        decide(writer.snapshot(), txn, &mut path)?;
        if let Err(refusal) = self.check_txn(writer.snapshot(), txn, &mut path.iter())? {
            return Ok(Err(refusal));
        }
        let mut outcome = run_txn(&store, &mut writer, txn, &mut path.iter())?;
        count_txn(&outcome);
        outcome.revision = writer.revision();
        self.effects.batches.extend(writer.commit());
        Ok(Ok(Outcome::Txn(outcome)))
    }

    /// Apply-time checks of the branch that will run (KV-T10).
    fn check_txn<'p>(
        &self,
        snapshot: &Snapshot,
        txn: &Txn,
        path: &mut impl Iterator<Item = &'p bool>,
    ) -> mvcc::Result<Result<(), Refusal>> {
        for op in branch(txn, path) {
            let checked = match op {
                Op::Range(query) => self.check_revision(query.revision),
                Op::Put(put) => self.check_put(snapshot, put)?,
                Op::DeleteRange(_) => Ok(()),
                Op::Txn(txn) => self.check_txn(snapshot, txn, path)?,
            };
            if checked.is_err() {
                return Ok(checked);
            }
        }
        Ok(Ok(()))
    }

    fn check_revision(&self, revision: i64) -> Result<(), Refusal> {
        if revision > self.store.revision() {
            Err(Refusal::FutureRevision)
        } else if revision != 0 && revision < self.store.compacted() {
            Err(Refusal::Compacted)
        } else {
            Ok(())
        }
    }

    fn check_put(&self, snapshot: &Snapshot, put: &Put) -> mvcc::Result<Result<(), Refusal>> {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Ok(Err(Refusal::LeaseNotFound));
        }
        if (put.ignore_value || put.ignore_lease) && snapshot.get(&put.key)?.is_none() {
            return Ok(Err(Refusal::KeyNotFound));
        }
        Ok(Ok(()))
    }
}

/// The branch that the next decision chooses.
fn branch<'t, 'p>(txn: &'t Txn, path: &mut impl Iterator<Item = &'p bool>) -> &'t [Op] {
    if *path.next().expect("one decision a transaction") { &txn.success } else { &txn.failure }
}

/// Decides every transaction that will run, in the order in which they run, on the state before all (KV-T8).
fn decide(snapshot: &Snapshot, txn: &Txn, path: &mut Vec<bool>) -> mvcc::Result<()> {
    let mut holds = true;
    for compare in &txn.compares {
        holds = holds && compare_holds(snapshot, compare)?;
    }
    path.push(holds);
    for op in if holds { &txn.success } else { &txn.failure } {
        if let Op::Txn(txn) = op {
            decide(snapshot, txn, path)?;
        }
    }
    Ok(())
}

/// Whether a compare holds for every key of its range; an empty range is one missing key (KV-T5, T6).
pub(in crate::engine) fn compare_holds(snapshot: &Snapshot, compare: &Compare) -> mvcc::Result<bool> {
    let (mut any, mut all) = (false, true);
    snapshot.scan(&compare.range, |_, image| {
        any = true;
        all = match &compare.operand {
            Operand::Value(operand) => holds(compare.relation, snapshot.value(&image)?[..].cmp(operand)),
            _ => holds(compare.relation, compare_meta(&image.meta(), &compare.operand)),
        };
        Ok(if all { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    if any {
        return Ok(all);
    }
    match &compare.operand {
        Operand::Value(_) => Ok(false),
        operand => Ok(holds(compare.relation, compare_meta(&Meta::default(), operand))),
    }
}

fn compare_meta(meta: &Meta, operand: &Operand) -> Ordering {
    match operand {
        Operand::Version(n) => meta.version.cmp(n),
        Operand::CreateRevision(n) => meta.create_revision.cmp(n),
        Operand::ModRevision(n) => meta.modified.main.cmp(n),
        Operand::Lease(n) => meta.lease.cmp(n),
        Operand::Value(_) => Ordering::Equal, // compared by the caller, who has the value
    }
}

fn holds(relation: Relation, order: Ordering) -> bool {
    match relation {
        Relation::Equal => order == Ordering::Equal,
        Relation::Greater => order == Ordering::Greater,
        Relation::Less => order == Ordering::Less,
        Relation::NotEqual => order != Ordering::Equal,
        Relation::Any => true,
    }
}

fn run_txn<'p>(
    store: &mvcc::Store,
    writer: &mut Writer<'_>,
    txn: &Txn,
    path: &mut (impl Iterator<Item = &'p bool> + Clone),
) -> mvcc::Result<TxnOutcome> {
    let succeeded = *path.clone().next().expect("one decision a transaction");
    let mut results = Vec::new();
    for op in branch(txn, path) {
        results.push(match op {
            Op::Range(query) => {
                METRICS.mvcc.ranges.inc();
                let found = if query.revision > 0 {
                    read::range(&store.snapshot(query.revision)?, query, Some(store.counts()))?
                } else {
                    read::range(writer.snapshot(), query, None)?
                };
                let revision = writer.revision();
                OpOutcome::Range { revision, kvs: found.kvs, more: found.more, count: found.count }
            }
            Op::Put(put) => {
                let previous = run_put(writer, put)?;
                OpOutcome::Put { revision: writer.revision(), previous }
            }
            Op::DeleteRange(delete) => {
                let (deleted, previous) = run_delete(writer, delete)?;
                OpOutcome::DeleteRange { revision: writer.revision(), deleted, previous }
            }
            Op::Txn(txn) => OpOutcome::Txn(run_txn(store, writer, txn, path)?),
        });
    }
    Ok(TxnOutcome { revision: writer.revision(), succeeded, results })
}

/// Counts a transaction of more than one operation.
fn count_txn(outcome: &TxnOutcome) {
    fn operations(outcome: &TxnOutcome) -> usize {
        let one = |result: &OpOutcome| if let OpOutcome::Txn(inner) = result { operations(inner) } else { 1 };
        outcome.results.iter().map(one).sum()
    }
    if operations(outcome) > 1 {
        METRICS.mvcc.txns.inc();
    }
}

fn run_put(writer: &mut Writer<'_>, put: &Put) -> mvcc::Result<Option<Kv>> {
    let (mut value, mut lease) = (put.value.clone(), put.lease);
    if put.ignore_value || put.ignore_lease {
        // The key existed before the transaction. An op before this one may have deleted it, since a delete of
        // "everything from a key on" slips through the duplicate check (KV-T4); there is nothing to keep then.
        if let Some(image) = writer.snapshot().get(&put.key)? {
            let image = Image::parse(&image)?;
            if put.ignore_value {
                value = Bytes::from(writer.snapshot().value(&image)?.into_owned());
            }
            if put.ignore_lease {
                lease = image.meta().lease;
            }
        }
    }
    let previous = writer.put(put.key.clone(), &value, lease)?;
    match previous {
        Some(image) if put.prev_kv => Ok(Some(answer_kv(writer.snapshot(), put.key.clone(), image)?)),
        _ => Ok(None),
    }
}

fn run_delete(writer: &mut Writer<'_>, delete: &DeleteRange) -> mvcc::Result<(i64, Vec<Kv>)> {
    METRICS.mvcc.deletes.inc();
    let mut keys = Vec::new();
    writer.snapshot().scan(&delete.range, |key, _| {
        keys.push(Bytes::copy_from_slice(key));
        Ok(ControlFlow::Continue(()))
    })?;
    let mut previous = Vec::new();
    let deleted = keys.len() as i64;
    for key in keys {
        let image = writer.delete(key.clone(), false)?.expect("the scan found it");
        if delete.prev_kv {
            previous.push(answer_kv(writer.snapshot(), key, image)?);
        }
    }
    Ok((deleted, previous))
}

/// Runs a transaction of reads alone, all at one revision.
pub(in crate::engine) fn read_txn(
    store: &mvcc::Store,
    txn: &Txn,
) -> Result<TxnOutcome, crate::engine::Error> {
    let snapshot = store.snapshot(0)?;
    let counts = Some(store.counts());
    let mut path = Vec::new();
    decide(&snapshot, txn, &mut path)?;
    let succeeded = path[0];
    let mut results = Vec::new();
    for op in if succeeded { &txn.success } else { &txn.failure } {
        let Op::Range(query) = op else { continue };
        METRICS.mvcc.ranges.inc();
        let found = match query.revision {
            0 => read::range(&snapshot, query, counts)?,
            n if n > snapshot.revision() => return Err(Refusal::FutureRevision.into()),
            n if n < store.compacted() => return Err(Refusal::Compacted.into()),
            n if n < 0 => read::range(&snapshot, query, counts)?,
            n => read::range(&store.snapshot(n)?, query, counts)?,
        };
        let revision = snapshot.revision();
        results.push(OpOutcome::Range { revision, kvs: found.kvs, more: found.more, count: found.count });
    }
    let outcome = TxnOutcome { revision: snapshot.revision(), succeeded, results };
    count_txn(&outcome);
    Ok(outcome)
}
