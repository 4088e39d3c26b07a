//! A read in key order that is done in steps, so that no step takes long and nothing need be held in memory.
//!
//! Every step opens a snapshot of its own at the same revision; a pin keeps compaction from removing it meanwhile.

use super::command::Range;
use super::read::is_key_order;
use crate::mvcc::{Pin, Result, Snapshot, Store};
use crate::storage::codec::Image;
use crate::types::{KeyRange, RangeEnd};
use bytes::Bytes;
use std::ops::ControlFlow;
use std::sync::Arc;

/// How much one step may do.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Keys looked at.
    pub keys: usize,
    /// Bytes emitted, as the caller counts them.
    pub bytes: usize,
}

/// See the module.
#[derive(Clone)]
pub struct Scan {
    store: Arc<Store>,
    query: Range,
    pin: Arc<Pin>,
    /// What is left of the range.
    rest: KeyRange,
    emitted: i64,
    /// The keys in the range, if they need not be counted.
    known: Option<i64>,
    /// Keys in the range so far, whatever limit and bounds say.
    pub count: i64,
    /// Whether the limit cut something off.
    pub more: bool,
    is_done: bool,
}

impl Scan {
    /// Whether a query can be read this way: in key order, with the limit applied on the way.
    pub fn can(query: &Range) -> bool {
        is_key_order(query.sort) && query.sort.target == super::command::SortTarget::Key
    }

    /// Begins at the revision that the query asks for; fails if that can't be read.
    pub fn begin(store: &Arc<Store>, query: Range) -> Result<(Scan, Snapshot)> {
        let snapshot = store.snapshot(query.revision)?;
        let counts = query.counts_more().then(|| store.counts());
        let known = counts.and_then(|counts| counts.at(&query.range, snapshot.revision()));
        let is_done = query.count_only && known.is_some();
        let scan = Scan {
            store: Arc::clone(store),
            pin: Arc::new(store.pin(snapshot.revision())),
            rest: query.range.clone(),
            query,
            emitted: 0,
            known,
            count: known.filter(|_| is_done).unwrap_or(0),
            more: false,
            is_done,
        };
        Ok((scan, snapshot))
    }

    /// For those who ask neither how many keys there are nor whether there are more: goes no further than the limit.
    pub fn without_more(mut self) -> Scan {
        self.known = self.known.or(Some(0));
        self
    }

    /// The revision that is read.
    pub fn revision(&self) -> i64 {
        self.pin.revision()
    }

    /// Pairs handed out so far.
    pub fn emitted(&self) -> i64 {
        self.emitted
    }

    /// Whether everything has been seen.
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// Whether all further steps only count.
    pub fn is_only_counting(&self) -> bool {
        self.query.count_only || (self.query.limit > 0 && self.emitted >= self.query.limit && self.more)
    }

    /// Goes on in a fresh snapshot.
    pub fn step(
        &mut self,
        budget: Budget,
        emit: impl FnMut(&Snapshot, &[u8], &Image<'_>) -> Result<usize>,
    ) -> Result<()> {
        let snapshot = self.store.pinned_snapshot(&self.pin)?;
        self.step_in(&snapshot, budget, emit)
    }

    /// Goes on in a given snapshot of the same revision. `emit` gets each pair and returns the bytes it made of it.
    pub fn step_in(
        &mut self,
        snapshot: &Snapshot,
        budget: Budget,
        mut emit: impl FnMut(&Snapshot, &[u8], &Image<'_>) -> Result<usize>,
    ) -> Result<()> {
        if self.is_done {
            return Ok(());
        }
        let (mut keys, mut bytes) = (0, 0);
        let mut last: Option<Bytes> = None;
        let rest = self.rest.clone();
        let query = &self.query;
        let known = self.known;
        let (emitted, count, more) = (&mut self.emitted, &mut self.count, &mut self.more);
        snapshot.scan(&rest, |key, image| {
            keys += 1;
            *count += 1;
            let is_wanted =
                !query.count_only && (!query.bounds.is_some() || query.bounds.admits(&image.meta()));
            if is_wanted && query.limit > 0 && *emitted >= query.limit {
                *more = true;
                if known.is_some() {
                    return Ok(ControlFlow::Break(()));
                }
            } else if is_wanted {
                *emitted += 1;
                bytes += emit(snapshot, key, &image)?;
            }
            if keys >= budget.keys || bytes >= budget.bytes {
                last = Some(Bytes::copy_from_slice(key));
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        match last {
            Some(key) if self.rest.end != RangeEnd::Single => {
                let mut next = Vec::with_capacity(key.len() + 1);
                next.extend_from_slice(&key);
                next.push(0);
                self.rest.start = next.into();
            }
            _ => self.end(),
        }
        Ok(())
    }

    /// Everything has been seen, or is known.
    fn end(&mut self) {
        self.is_done = true;
        match self.known {
            Some(known) => self.count = known,
            None if self.query.counts_more() => {
                self.store.counts().learn(&self.query.range, self.pin.revision(), self.count);
            }
            None => {}
        }
    }
}
