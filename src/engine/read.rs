//! Range reads with all their shapes over a snapshot, for transactions and for the front door.

use super::command::{Kv, Range, RevisionBounds, Sort, SortOrder, SortTarget};
use crate::mvcc::{Counts, Result, Snapshot};
use crate::storage::codec::{self, Image, Meta};
use crate::types::Slice;
use bytes::Bytes;
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::ops::ControlFlow;

/// Answer to a [`Range`].
#[derive(Clone, Debug, PartialEq, Default)]
pub struct RangeResult {
    /// Pairs found, in the order asked for.
    pub kvs: Vec<Kv>,
    /// Whether the limit cut more off.
    pub more: bool,
    /// Keys in the range, whatever limit and bounds say.
    pub count: i64,
}

/// Whether the pairs come out in key order, so that the limit can be applied while reading.
pub fn is_key_order(sort: Sort) -> bool {
    match sort.order {
        SortOrder::None => true,
        SortOrder::Ascend => sort.target == SortTarget::Key,
        SortOrder::Descend => false,
    }
}

impl RevisionBounds {
    /// Whether there is any bound.
    pub fn is_some(&self) -> bool {
        *self != RevisionBounds::default()
    }

    /// Whether a pair lies within the bounds.
    pub fn admits(&self, meta: &Meta) -> bool {
        let within =
            |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
        within(meta.modified.main, self.mod_min, self.mod_max)
            && within(meta.create_revision, self.create_min, self.create_max)
    }
}

/// What a read may find, and what others after it.
pub struct Room {
    /// Keys of this slice alone.
    pub slice: Option<Slice>,
    /// Bytes of keys and images.
    pub bytes: usize,
}

impl Room {
    /// Makes room for a pair that was found; false: there is none.
    fn takes(&mut self, kv: &Kv) -> bool {
        let left = self.bytes.checked_sub(kv.key.len() + kv.image.len());
        self.bytes = left.unwrap_or(0);
        left.is_some()
    }
}

/// Runs a read, all of it in memory (KV-R7 to KV-R16). `counts` are those of the snapshot's store, unless the snapshot
/// shows what is not published yet.
pub fn range(snapshot: &Snapshot, query: &Range, counts: Option<&Counts>) -> Result<RangeResult> {
    let mut room = Room { slice: None, bytes: usize::MAX };
    Ok(range_within(snapshot, query, counts, &mut room)?.expect("there is room for everything"))
}

/// The same as far as there is room; nothing if that does not suffice. Of a read in key order, no more than that is ever in
/// memory.
pub fn range_within(
    snapshot: &Snapshot,
    query: &Range,
    counts: Option<&Counts>,
    room: &mut Room,
) -> Result<Option<RangeResult>> {
    let slice = room.slice;
    let is_in_slice = |key: &[u8]| slice.is_none_or(|slice| slice.contains(key));
    let limit = usize::try_from(query.limit).unwrap_or(0);
    let counts = counts.filter(|_| query.counts_more() && slice.is_none());
    let known = counts.and_then(|counts| counts.at(&query.range, snapshot.revision()));
    let learn = |count| {
        if let Some(counts) = counts.filter(|_| known.is_none()) {
            counts.learn(&query.range, snapshot.revision(), count);
        }
        count
    };
    if query.count_only {
        let count = known.map_or_else(|| count(snapshot, query), Ok)?;
        return Ok(Some(RangeResult { count: learn(count), ..RangeResult::default() }));
    }
    if !is_key_order(query.sort) {
        return Ok(fitting(sorted(snapshot, query, limit)?, room));
    }
    let mut found = RangeResult::default();
    let mut fits = true;
    snapshot.scan(&query.range, |key, image| {
        if !is_in_slice(key) {
            return Ok(ControlFlow::Continue(()));
        }
        found.count += 1;
        if query.bounds.is_some() && !query.bounds.admits(&image.meta()) {
            return Ok(ControlFlow::Continue(()));
        }
        if limit > 0 && found.kvs.len() == limit {
            found.more = true;
            if known.is_some() {
                return Ok(ControlFlow::Break(()));
            }
        } else {
            let kv = kv(snapshot, query, key, &image)?;
            fits = room.takes(&kv);
            if !fits {
                return Ok(ControlFlow::Break(()));
            }
            found.kvs.push(kv);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if !fits {
        return Ok(None);
    }
    found.count = learn(known.unwrap_or(found.count));
    if query.sort.target != SortTarget::Key {
        // Order NONE with another target: the limit came first, plus one pair that may displace one (KV-R13).
        return unordered(snapshot, query, limit, found).map(Some);
    }
    Ok(Some(found))
}

/// What was found in another order than that of keys, if there is room for it.
fn fitting(mut found: RangeResult, room: &mut Room) -> Option<RangeResult> {
    if let Some(slice) = room.slice {
        found.kvs.retain(|kv| slice.contains(&kv.key));
    }
    found.kvs.iter().all(|kv| room.takes(kv)).then_some(found)
}

/// The answer to a read of one key whose image is at hand; `None` if the read is of another shape.
pub fn one(snapshot: &Snapshot, query: &Range, key: &[u8], image: &Image<'_>) -> Result<Option<RangeResult>> {
    if query.count_only || query.bounds.is_some() {
        return Ok(None);
    }
    let kvs = vec![kv(snapshot, query, key, image)?];
    Ok(Some(RangeResult { kvs, more: false, count: 1 }))
}

fn count(snapshot: &Snapshot, query: &Range) -> Result<i64> {
    let mut count = 0;
    snapshot.scan(&query.range, |_, _| {
        count += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(count)
}

/// The pair as an answer holds it: value inline, or left out.
fn kv(snapshot: &Snapshot, query: &Range, key: &[u8], image: &Image<'_>) -> Result<Kv> {
    let image = if query.keys_only {
        let mut meta = image.meta();
        if query.sort.target != SortTarget::Value {
            meta.lease = 0; // KV-R10
        }
        codec::live_image(&meta, &[])
    } else {
        codec::live_image(&image.meta(), &snapshot.value(image)?)
    };
    Ok(Kv { key: Bytes::copy_from_slice(key), image })
}

/// A pair to be sorted: what it goes by, and its key. The rest is read once the order is known.
struct Candidate {
    rank: Rank,
    key: Bytes,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Number(i64),
    Bytes(Vec<u8>),
}

fn rank(snapshot: &Snapshot, target: SortTarget, key: &[u8], image: &Image<'_>) -> Result<Rank> {
    let meta = image.meta();
    Ok(match target {
        SortTarget::Key => Rank::Bytes(key.to_vec()),
        SortTarget::Version => Rank::Number(meta.version),
        SortTarget::Create => Rank::Number(meta.create_revision),
        SortTarget::Mod => Rank::Number(meta.modified.main),
        SortTarget::Value => Rank::Bytes(snapshot.value(image)?.into_owned()),
    })
}

/// Reads all, sorts, then cuts (KV-R14). Descending by key keeps no more than the limit in memory.
fn sorted(snapshot: &Snapshot, query: &Range, limit: usize) -> Result<RangeResult> {
    let Sort { order, target } = query.sort;
    let keeps_last = target == SortTarget::Key && order == SortOrder::Descend && limit > 0;
    let mut candidates = VecDeque::new();
    let (mut count, mut admitted) = (0, 0);
    snapshot.scan(&query.range, |key, image| {
        count += 1;
        if !query.bounds.is_some() || query.bounds.admits(&image.meta()) {
            admitted += 1;
            if keeps_last && candidates.len() == limit {
                candidates.pop_front();
            }
            let rank = rank(snapshot, target, key, &image)?;
            candidates.push_back(Candidate { rank, key: Bytes::copy_from_slice(key) });
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let mut candidates = Vec::from(candidates);
    candidates.sort_by(|a, b| compare(order, &a.rank, &b.rank));
    let more = limit > 0 && admitted > limit;
    if more {
        candidates.truncate(limit);
    }
    Ok(RangeResult { kvs: fetch(snapshot, query, &candidates)?, more, count })
}

fn compare(order: SortOrder, a: &Rank, b: &Rank) -> Ordering {
    match order {
        SortOrder::None | SortOrder::Ascend => a.cmp(b),
        SortOrder::Descend => b.cmp(a),
    }
}

fn fetch(snapshot: &Snapshot, query: &Range, candidates: &[Candidate]) -> Result<Vec<Kv>> {
    let mut kvs = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        let image = snapshot.get(&candidate.key)?.expect("a snapshot does not change");
        kvs.push(kv(snapshot, query, &candidate.key, &Image::parse(&image)?)?);
    }
    Ok(kvs)
}

/// KV-R13: the first `limit` + 1 pairs in key order, sorted, then cut. With bounds the limit does not come first.
fn unordered(snapshot: &Snapshot, query: &Range, limit: usize, found: RangeResult) -> Result<RangeResult> {
    let fetched = if limit == 0 || query.bounds.is_some() { usize::MAX } else { limit + 1 };
    let mut candidates = Vec::new();
    snapshot.scan(&query.range, |key, image| {
        if !query.bounds.is_some() || query.bounds.admits(&image.meta()) {
            let rank = rank(snapshot, query.sort.target, key, &image)?;
            candidates.push(Candidate { rank, key: Bytes::copy_from_slice(key) });
        }
        let is_full = candidates.len() >= fetched;
        Ok(if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    candidates.sort_by(|a, b| a.rank.cmp(&b.rank));
    if limit > 0 {
        candidates.truncate(limit);
    }
    Ok(RangeResult { kvs: fetch(snapshot, query, &candidates)?, ..found })
}
