//! Where entries are: about one point per 64 KiB of log and segment, never one per entry.
//!
//! ```text
//! segment 7  first=40  points 40 ......... 90 ......      entries 121.. were cut by segment 8
//! segment 8  first=121 points 121' ....... 180' .. last
//! ```
//! Always true: the `first` of segments that have one rise with the segments; an entry lives in the newest segment
//! whose `first` is not above it. The log thread changes the index after it has written, so a reader finds only
//! what it can read. Segments that recovery skipped have no points until somebody reads from them.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;

use parking_lot::RwLock;

use super::LogId;
use super::state::Marks;

/// Distance of two points in one segment, and so what the read of one entry may have to skip.
pub(super) const POINT_SPACING_BYTES: u64 = 64 * 1024;

/// What a record means to the index.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    /// The entry with this index begins here, in the newest segment.
    Point { index: u64, offset: u64 },
    /// Entries above `keep`, or all of them, are gone.
    Truncate { keep: Option<u64> },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub index: u64,
    pub offset: u64,
}

/// Where to read a segment.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub number: u64,
    pub salt: u32,
    pub file: Arc<File>,
    /// Written records end here.
    pub end: u64,
}

#[derive(Debug)]
pub(super) struct Mapped {
    pub source: Source,
    /// The lowest entry that lives here.
    pub first: Option<u64>,
    /// `None`: not looked at yet.
    pub points: Option<Vec<Point>>,
}

/// Part of a segment with the entries from `index` to before `until`, among other records.
#[derive(Debug)]
pub(super) struct Stretch {
    pub source: Source,
    pub from: u64,
    pub to: u64,
    pub until: u64,
}

/// Where an entry is.
#[derive(Debug)]
pub(super) enum Located {
    Absent,
    Purged(LogId),
    /// In a segment without points: build them first.
    Unindexed(Source),
    Stretch(Stretch),
}

#[derive(Debug, Default)]
pub(super) struct Index {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    segments: VecDeque<Mapped>,
    purged: Option<LogId>,
    last: Option<LogId>,
}

impl Index {
    pub fn new(inner: Inner) -> Index {
        Index { inner: RwLock::new(inner) }
    }

    pub fn add_segment(&self, mapped: Mapped) {
        self.inner.write().add_segment(mapped);
    }

    /// Makes written records readable.
    pub fn publish(&self, changes: &mut Vec<Change>, marks: &Marks, end: u64) {
        let mut inner = self.inner.write();
        for change in changes.drain(..) {
            inner.apply(change);
        }
        inner.finish(marks, end);
    }

    pub fn locate(&self, index: u64) -> Located {
        self.inner.read().locate(index)
    }

    /// Fills in the points of a segment, unless that has happened or the segment is gone.
    pub fn set_points(&self, number: u64, points: Vec<Point>) {
        let mut inner = self.inner.write();
        if let Some(mapped) = inner.segments.iter_mut().find(|mapped| mapped.source.number == number) {
            mapped.points.get_or_insert(points);
        }
    }

    /// The lowest entry of the newest segment.
    pub fn newest_first(&self) -> Option<u64> {
        self.inner.read().segments.back().and_then(|mapped| mapped.first)
    }

    /// Forgets the oldest segments that hold no live entry and answers their numbers; never the newest.
    pub fn drop_purged(&self) -> Vec<u64> {
        let purged = self.inner.read().purged;
        let Some(purged) = purged else { return Vec::new() };
        let mut inner = self.inner.write();
        let mut gone = Vec::new();
        while inner.segments.len() > 1 && inner.upper_bound(0) <= purged.index.saturating_add(1) {
            gone.extend(inner.segments.pop_front().map(|mapped| mapped.source.number));
        }
        gone
    }
}

impl Inner {
    pub fn add_segment(&mut self, mapped: Mapped) {
        self.segments.push_back(mapped);
    }

    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Point { index, offset } => {
                let Some(newest) = self.segments.back_mut() else { return };
                newest.first.get_or_insert(index);
                newest.points.get_or_insert_default().push(Point { index, offset });
            }
            Change::Truncate { keep } => {
                for mapped in &mut self.segments {
                    mapped.truncate(keep);
                }
            }
        }
    }

    pub fn finish(&mut self, marks: &Marks, end: u64) {
        self.purged = marks.purged;
        self.last = marks.last;
        if let Some(newest) = self.segments.back_mut() {
            newest.source.end = end;
        }
    }

    /// The lowest entry of the whole log that is still in a segment.
    pub fn lowest(&self) -> Option<u64> {
        self.segments.iter().find_map(|mapped| mapped.first)
    }

    pub fn newest_first(&self) -> Option<u64> {
        self.segments.back().and_then(|mapped| mapped.first)
    }

    /// All live entries of the segment at `position` are below this.
    fn upper_bound(&self, position: usize) -> u64 {
        if self.segments[position].first.is_none() {
            return 0;
        }
        let later = self.segments.range(position + 1..).find_map(|mapped| mapped.first);
        later.unwrap_or_else(|| self.last.map_or(0, |last| last.index.saturating_add(1)))
    }

    fn locate(&self, index: u64) -> Located {
        if let Some(purged) = self.purged.filter(|purged| index <= purged.index) {
            return Located::Purged(purged);
        }
        let position =
            self.segments.iter().rposition(|mapped| mapped.first.is_some_and(|first| first <= index));
        let (Some(position), true) = (position, self.last.is_some_and(|last| index <= last.index)) else {
            return Located::Absent;
        };
        let Mapped { source, points, .. } = &self.segments[position];
        let Some(points) = points else { return Located::Unindexed(source.clone()) };
        let after = points.partition_point(|point| point.index <= index);
        let Some(point) = after.checked_sub(1).map(|at| points[at]) else { return Located::Absent };
        let next = points.get(after);
        let bound = self.upper_bound(position);
        Located::Stretch(Stretch {
            source: source.clone(),
            from: point.offset,
            to: next.map_or(source.end, |next| next.offset),
            until: next.map_or(bound, |next| bound.min(next.index)),
        })
    }
}

impl Mapped {
    fn truncate(&mut self, keep: Option<u64>) {
        if self.first.is_some_and(|first| keep.is_none_or(|keep| first > keep)) {
            self.first = None;
        }
        match &mut self.points {
            Some(points) => truncate_points(points, keep),
            // Nothing lives here any more, so there is nothing left to look for.
            None if self.first.is_none() => self.points = Some(Vec::new()),
            None => (),
        }
    }
}

/// Drops the points of entries above `keep`.
pub(super) fn truncate_points(points: &mut Vec<Point>, keep: Option<u64>) {
    let stay = keep.map_or(0, |keep| points.partition_point(|point| point.index <= keep));
    points.truncate(stay);
}
