//! Puts, deletes and transactions: checks first, all of them on the state before, then the writes.

use super::{Applier, answer_kv};
use crate::engine::command::{
    Applied, Attach, Binding, BoundPut, Compare, DeleteRange, Kv, Op, OpOutcome, Operand, Outcome, Put,
    Range, Refusal, Relation, Txn, TxnOutcome,
};
use crate::engine::read::{self, RangeResult, Room};
use crate::metrics::METRICS;
use crate::mvcc::{self, Snapshot, writer::Writer};
use crate::storage::codec::{Image, Meta};
use crate::types::{KeyRange, LeaseId, RangeEnd, Slice};
use bytes::Bytes;
use std::cmp::Ordering;
use std::ops::ControlFlow;

/// What the ops of one command have in common.
#[derive(Default)]
pub(super) struct Run {
    /// Reads and deletes of ranges see only this.
    pub slice: Option<Slice>,
    /// Leases that came to be, with their TTL in seconds.
    pub(super) granted: Vec<(LeaseId, i64)>,
}

/// Whether ops before some op have left the keys of a range behind; the last word counts.
type Fates = Vec<(KeyRange, bool)>;

impl Applier {
    pub(super) fn put(&mut self, put: &Put) -> mvcc::Result<Applied> {
        let store = self.store.clone();
        let mut writer = store.write(self.now_ms)?;
        if let Err(refusal) = self.check_put(writer.snapshot(), put)? {
            return Ok(Err(refusal));
        }
        let previous = run_put(&mut writer, put)?;
        let revision = writer.revision();
        self.commit(writer)?;
        Ok(Ok(Outcome::Put { revision, previous }))
    }

    pub(super) fn delete_range(&mut self, delete: &DeleteRange) -> mvcc::Result<Applied> {
        let store = self.store.clone();
        let mut writer = store.write(self.now_ms)?;
        let (deleted, previous) = run_delete(&mut writer, delete, None)?;
        let revision = writer.revision();
        self.commit(writer)?;
        Ok(Ok(Outcome::DeleteRange { revision, deleted, previous }))
    }

    pub(super) fn txn(&mut self, txn: &Txn) -> mvcc::Result<Applied> {
        let store = self.store.clone();
        let mut writer = store.write(self.now_ms)?;
        let path = decide_all(writer.snapshot(), txn)?;
        let done = self.run_checked(&mut writer, &mut Run::default(), txn, &path)?;
        self.commit(writer)?;
        Ok(done.map(Outcome::Txn))
    }

    /// Runs a transaction whose branches are decided, or refuses it and does nothing.
    pub(super) fn run_checked(
        &mut self,
        writer: &mut Writer<'_>,
        run: &mut Run,
        txn: &Txn,
        path: &[bool],
    ) -> mvcc::Result<Result<TxnOutcome, Refusal>> {
        if let Err(refusal) = self.check_txn(writer.snapshot(), txn, &mut path.iter(), &mut Fates::new())? {
            return Ok(Err(refusal));
        }
        let store = self.store.clone();
        let mut outcome = run_txn(&store, writer, run, txn, &mut path.iter())?;
        for (id, ttl_secs) in std::mem::take(&mut run.granted) {
            self.begin_lease(id, ttl_secs, true);
        }
        count_txn(&outcome);
        outcome.revision = writer.revision();
        Ok(Ok(outcome))
    }

    /// Apply-time checks of the branch that will run (KV-T10).
    fn check_txn<'p>(
        &self,
        snapshot: &Snapshot,
        txn: &Txn,
        path: &mut impl Iterator<Item = &'p bool>,
        fates: &mut Fates,
    ) -> mvcc::Result<Result<(), Refusal>> {
        for op in branch(txn, path) {
            let checked = match op {
                Op::Range(query) => self.check_revision(query.revision),
                Op::Put(put) => self.check_put(snapshot, put)?,
                Op::BoundPut(put) => match put.binding {
                    Binding::Keep => Ok(()),
                    Binding::New { id, ttl_secs } => self.check_grant(id, ttl_secs),
                },
                Op::DeleteRange(_) => Ok(()),
                Op::Txn(txn) => self.check_txn(snapshot, txn, path, fates)?,
                Op::Attach(attach) => self.check_attach(snapshot, attach, fates)?,
            };
            if checked.is_err() {
                return Ok(checked);
            }
            match op {
                Op::Put(Put { key, .. }) | Op::BoundPut(BoundPut { key, .. }) => {
                    fates.push((KeyRange::single(key.clone()), true));
                }
                Op::DeleteRange(delete) => fates.push((delete.range.clone(), false)),
                Op::Range(_) | Op::Txn(_) | Op::Attach(_) => {}
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

    fn check_attach(
        &self,
        snapshot: &Snapshot,
        attach: &Attach,
        fates: &Fates,
    ) -> mvcc::Result<Result<(), Refusal>> {
        if !self.leases.contains_key(&attach.lease) {
            return Ok(Err(Refusal::LeaseNotFound));
        }
        let fate = fates.iter().rev().find(|(range, _)| range.contains(&attach.key));
        let exists = match fate {
            Some((_, exists)) => *exists,
            None => snapshot.get(&attach.key)?.is_some(),
        };
        Ok(if exists { Ok(()) } else { Err(Refusal::KeyNotFound) })
    }
}

/// The branch that the next decision chooses.
fn branch<'t, 'p>(txn: &'t Txn, path: &mut impl Iterator<Item = &'p bool>) -> &'t [Op] {
    if *path.next().expect("one decision a transaction") { &txn.success } else { &txn.failure }
}

/// The decisions of [`decide`].
pub(super) fn decide_all(snapshot: &Snapshot, txn: &Txn) -> mvcc::Result<Vec<bool>> {
    let mut path = Vec::new();
    decide(snapshot, txn, &mut path)?;
    Ok(path)
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
    run: &mut Run,
    txn: &Txn,
    path: &mut (impl Iterator<Item = &'p bool> + Clone),
) -> mvcc::Result<TxnOutcome> {
    let succeeded = *path.clone().next().expect("one decision a transaction");
    let ops = branch(txn, path);
    let mut results = Vec::with_capacity(ops.len());
    for op in ops {
        results.push(match op {
            Op::Range(query) => {
                METRICS.mvcc.ranges.inc();
                let found = if query.revision > 0 {
                    read::range(&store.snapshot(query.revision)?, query, Some(store.counts()))?
                } else if let Some(found) = read_back(writer, query)? {
                    found
                } else {
                    read::range(writer.snapshot(), query, None)?
                };
                range_outcome(writer.revision(), found, run.slice)
            }
            Op::Put(put) => {
                let previous = run_put(writer, put)?;
                OpOutcome::Put { revision: writer.revision(), previous }
            }
            Op::BoundPut(put) => {
                run_bound_put(writer, put, &mut run.granted)?;
                OpOutcome::Put { revision: writer.revision(), previous: None }
            }
            Op::DeleteRange(delete) => {
                let (deleted, previous) = run_delete(writer, delete, run.slice)?;
                OpOutcome::DeleteRange { revision: writer.revision(), deleted, previous }
            }
            Op::Txn(txn) => OpOutcome::Txn(run_txn(store, writer, run, txn, path)?),
            Op::Attach(attach) => {
                let is_there = writer.attach(&attach.key, attach.lease)?;
                debug_assert!(is_there, "the check has found it");
                OpOutcome::Attach { revision: writer.revision() }
            }
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
                lease = image.meta().attachment();
            }
        }
    }
    let previous = writer.put(put.key.clone(), &value, lease)?;
    match previous {
        Some(image) if put.prev_kv => Ok(Some(answer_kv(writer.snapshot(), put.key.clone(), image)?)),
        _ => Ok(None),
    }
}

fn run_bound_put(
    writer: &mut Writer<'_>,
    put: &BoundPut,
    granted: &mut Vec<(LeaseId, i64)>,
) -> mvcc::Result<()> {
    match put.binding {
        Binding::Keep => writer.put_keeping_lease(put.key.clone(), &put.value)?,
        Binding::New { id, ttl_secs } => {
            granted.push((id, ttl_secs));
            writer.put(put.key.clone(), &put.value, id)?
        }
    };
    Ok(())
}

/// The answer to a read of the key that was written last, which need not be looked up.
fn read_back(writer: &Writer<'_>, query: &Range) -> mvcc::Result<Option<RangeResult>> {
    let Some(event) = writer.events().last() else { return Ok(None) };
    if query.range.end != RangeEnd::Single || query.range.start != event.key {
        return Ok(None);
    }
    let image = Image::parse(&event.new)?;
    if image.is_tombstone() {
        return Ok(None);
    }
    read::one(writer.snapshot(), query, &event.key, &image)
}

/// The outcome of a read, as far as it lies in the slice.
pub(super) fn range_outcome(revision: i64, mut found: RangeResult, slice: Option<Slice>) -> OpOutcome {
    if let Some(slice) = slice {
        found.kvs.retain(|kv| slice.contains(&kv.key));
        found.count = found.kvs.len() as i64;
    }
    OpOutcome::Range { revision, kvs: found.kvs, more: found.more, count: found.count }
}

fn run_delete(
    writer: &mut Writer<'_>,
    delete: &DeleteRange,
    slice: Option<Slice>,
) -> mvcc::Result<(i64, Vec<Kv>)> {
    METRICS.mvcc.deletes.inc();
    let mut keys = Vec::new();
    writer.snapshot().scan(&delete.range, |key, _| {
        if slice.is_none_or(|slice| slice.contains(key)) {
            keys.push(Bytes::copy_from_slice(key));
        }
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
    let mut room = Room { slice: None, bytes: usize::MAX };
    read_txn_at(store, &store.snapshot(0)?, txn, &mut room)
}

/// The same on a snapshot, as far as there is room for what it finds.
pub(super) fn read_txn_at(
    store: &mvcc::Store,
    snapshot: &Snapshot,
    txn: &Txn,
    room: &mut Room,
) -> Result<TxnOutcome, crate::engine::Error> {
    let counts = Some(store.counts());
    let succeeded = decide_all(snapshot, txn)?[0];
    let mut results = Vec::new();
    for op in if succeeded { &txn.success } else { &txn.failure } {
        let Op::Range(query) = op else { continue };
        METRICS.mvcc.ranges.inc();
        let found = match query.revision {
            0 => read::range_within(snapshot, query, counts, room)?,
            n if n > snapshot.revision() => return Err(Refusal::FutureRevision.into()),
            n if n < store.compacted() => return Err(Refusal::Compacted.into()),
            n if n < 0 => read::range_within(snapshot, query, counts, room)?,
            n => read::range_within(&store.snapshot(n)?, query, counts, room)?,
        };
        let found = found.ok_or(crate::engine::Error::TooLarge)?;
        results.push(range_outcome(snapshot.revision(), found, room.slice));
    }
    let outcome = TxnOutcome { revision: snapshot.revision(), succeeded, results };
    count_txn(&outcome);
    Ok(outcome)
}
