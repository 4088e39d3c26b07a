//! Opening: which records count, and where the next one goes.
//!
//! The first record that fails its check ends the log, if it is in the newest segment and belongs to the newest
//! group. What lies behind it decides:
//! ```text
//! group 7 | group 8 |  x  rest of 8            torn: 8 was never durable as a whole; cut at x
//! group 7 | group 8 |  x  group 5, other salt  an earlier life or an earlier cut: stale; cut at x
//! group 7 |  x  rest of 8 | group 9            9 was written, so 8 was durable: damage, refuse
//! ```
//! A segment that has a successor must be whole: the successor's first record says where it ends. Nothing is
//! modified before the verdict. After a cut the next group gets a number above all that were seen.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

use super::index::{Inner, Mapped, Source};
use super::record::{self, ALIGN, HEADER_BYTES, Kind, Malformed};
use super::segment::{self, Identity, SEGMENT_HEADER_BYTES, Segment, segment_path};
use super::state::{Opening, Tracker};
use super::window::{Failure, Window};
use super::writer::Position;
use super::{Error, Options, Recovered};

const SCAN_CHUNK_BYTES: usize = 1 << 20;

/// What recovery hands to the log.
pub(super) struct Opened {
    pub position: Position,
    pub index: Inner,
    pub recovered: Recovered,
    pub spares: Vec<u64>,
    /// A segment that was prepared ahead and has no record.
    pub ready: Option<Segment>,
}

/// Recovers the log in the directory, or starts one.
pub(super) fn open(options: &Options) -> Result<Opened, Error> {
    let dir = &options.dir;
    let io = |source| Error::Io { path: dir.clone(), source };
    std::fs::create_dir_all(dir).map_err(io)?;
    let listing = segment::list(dir).map_err(io)?;
    let segments = open_chain(dir, &listing)?;
    let mut opened = if segments.is_empty() {
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            segment::sync_dir(parent).map_err(io)?;
        }
        let generation = u32::try_from(RandomState::new().hash_one(0) >> 32).unwrap_or_default();
        let identity = Identity { number: 1, generation, capacity: options.segment_bytes };
        start_in(segment::create(dir, identity).map_err(io)?, 1)
    } else {
        Recovery { dir, segments, scan_from: options.scan_from }.run()?
    };
    // What was only in the page cache when the last process died must not be lost after we have reported it.
    let active = &opened.position.segment;
    active.file.sync_data().map_err(io)?;
    segment::sync_dir(dir).map_err(io)?;
    segment::remove_unfinished(dir).map_err(io)?;
    opened.spares = listing.spares;
    Ok(opened)
}

/// Recovers the log in the directory as [`open`] does, and changes nothing.
pub(super) fn look(dir: &Path) -> Result<(Inner, Recovered), Error> {
    let listing = segment::list(dir).map_err(|source| Error::Io { path: dir.to_owned(), source })?;
    let segments = open_chain(dir, &listing)?;
    if segments.is_empty() {
        return Ok((Inner::default(), Recovered::default()));
    }
    let opened = Recovery { dir, segments, scan_from: None }.run()?;
    Ok((opened.index, opened.recovered))
}

fn open_chain(dir: &Path, listing: &segment::Listing) -> Result<Vec<Segment>, Error> {
    let Some(&lowest) = listing.segments.first() else {
        return match listing.spares.last() {
            // A file becomes a spare only when a newer segment exists.
            Some(&spare) => Err(missing(dir, spare.saturating_add(1))),
            None => Ok(Vec::new()),
        };
    };
    let mut segments: Vec<Segment> = Vec::with_capacity(listing.segments.len());
    for (&number, expected) in listing.segments.iter().zip(lowest..) {
        if number != expected {
            return Err(missing(dir, expected));
        }
        let segment = Segment::open(dir, number)?;
        let follows = |before: &Segment| before.identity.next(0).generation == segment.identity.generation;
        if !segments.last().is_none_or(follows) {
            let reason = "it does not belong to the segment before it";
            return Err(Error::BadHeader { file: segment_path(dir, number), reason });
        }
        segments.push(segment);
    }
    Ok(segments)
}

fn missing(dir: &Path, number: u64) -> Error {
    Error::MissingSegment { file: segment_path(dir, number) }
}

/// A log without records that begins in `segment`.
fn start_in(segment: Segment, group: u64) -> Opened {
    let mut index = Inner::default();
    let source = segment.source(SEGMENT_HEADER_BYTES);
    index.add_segment(Mapped { source, first: None, points: Some(Vec::new()) });
    let tracker = Tracker::default();
    let position = Position { segment, offset: SEGMENT_HEADER_BYTES, group, tracker, fresh: true };
    Opened { position, index, recovered: Recovered::default(), spares: Vec::new(), ready: None }
}

struct Recovery<'a> {
    dir: &'a Path,
    segments: Vec<Segment>,
    scan_from: Option<u64>,
}

/// Where a scan has got to.
#[derive(Clone, Copy, Default)]
struct Cursor {
    offset: u64,
    group: u64,
    group_start: u64,
}

/// What lies behind the end of the log.
#[derive(Default)]
struct Behind {
    highest_group: u64,
    torn_bytes: u64,
}

impl Recovery<'_> {
    fn run(mut self) -> Result<Opened, Error> {
        let (openings, ahead) = self.read_openings()?;
        let mut highest_group = 0;
        if let Some(ahead) = &ahead {
            let begin = Cursor { offset: SEGMENT_HEADER_BYTES, ..Cursor::default() };
            highest_group = self.look_behind(ahead, begin)?.highest_group;
        }
        let Some(newest) = openings.len().checked_sub(1) else {
            // Not even the first record of the first segment became durable.
            return match ahead {
                Some(only) if only.identity.number == 1 => Ok(start_in(only, highest_group + 1)),
                Some(only) => {
                    Err(self.damaged(&only, SEGMENT_HEADER_BYTES, "its first record fails the check"))
                }
                None => Err(missing(self.dir, 1)),
            };
        };
        let start = self.first_to_scan(&openings);
        let mut index = self.skipped(&openings, start);
        let mut tracker = Tracker::new(openings[start].state.clone());
        let mut cursor = Cursor::default();
        for (at, opening) in openings.iter().enumerate().skip(start) {
            if at > start {
                self.check_joint(at, opening, &tracker, cursor, &index)?;
            }
            tracker.begin_segment();
            cursor = self.scan(&self.segments[at], cursor, &mut tracker, &mut index)?;
        }
        let marks = tracker.state.marks;
        index.finish(&marks, cursor.offset);
        self.check_complete(&tracker, &index)?;
        let segment = self.segments.swap_remove(newest);
        let behind = self.look_behind(&segment, cursor)?;
        let recovered = Recovered {
            vote: tracker.state.vote.clone(),
            committed: marks.committed,
            purged: marks.purged,
            last: marks.last,
            torn_bytes: behind.torn_bytes,
        };
        let group = 1 + highest_group.max(behind.highest_group).max(cursor.group);
        let position = Position { segment, offset: cursor.offset, group, tracker, fresh: false };
        Ok(Opened { position, index, recovered, spares: Vec::new(), ready: ahead })
    }

    /// Reads the first record of each segment. Only the newest segment may lack it: it was prepared ahead of need,
    /// and is taken out of the chain.
    fn read_openings(&mut self) -> Result<(Vec<Opening>, Option<Segment>), Error> {
        let mut openings = Vec::with_capacity(self.segments.len());
        for (at, segment) in self.segments.iter().enumerate() {
            let source = segment.source(segment.identity.capacity);
            let mut window = Window::new(&source, segment.identity.capacity, HEADER_BYTES);
            let opening = match window.record(SEGMENT_HEADER_BYTES) {
                Ok(record) if record.header.kind == Kind::State => Opening::decode(record.payload),
                Ok(_) | Err(Failure::Malformed(_)) => None,
                Err(Failure::Io(source)) => return Err(self.io(segment, source)),
            };
            match opening {
                Some(opening) => openings.push(opening),
                None if at + 1 == self.segments.len() => (),
                None => {
                    return Err(self.damaged(
                        segment,
                        SEGMENT_HEADER_BYTES,
                        "its first record fails the check",
                    ));
                }
            }
        }
        let ahead = if openings.len() < self.segments.len() { self.segments.pop() } else { None };
        Ok((openings, ahead))
    }

    /// The newest segment at whose begin all entries were below what the caller wants scanned.
    fn first_to_scan(&self, openings: &[Opening]) -> usize {
        let Some(scan_from) = self.scan_from else { return 0 };
        let below = |opening: &Opening| opening.state.marks.last.is_some_and(|last| last.index < scan_from);
        openings.iter().rposition(below).unwrap_or(0)
    }

    /// The index of the segments before `start`, from what their successors say about them.
    fn skipped(&self, openings: &[Opening], start: usize) -> Inner {
        let mut mapped = Vec::with_capacity(start);
        // Entries from here on were dropped or replaced by a later segment.
        let mut limit = u64::MAX;
        for (segment, successor) in self.segments[..start].iter().zip(&openings[1..=start]).rev() {
            let last = successor.state.marks.last;
            limit = limit.min(last.map_or(0, |last| last.index.saturating_add(1)));
            let first = successor.previous_first.filter(|first| *first < limit);
            limit = limit.min(first.unwrap_or(limit));
            let points = if first.is_some() { None } else { Some(Vec::new()) };
            mapped.push(Mapped { source: segment.source(successor.previous_end), first, points });
        }
        let mut index = Inner::default();
        mapped.into_iter().rev().for_each(|mapped| index.add_segment(mapped));
        index
    }

    /// A segment must begin with what the one before it ended with.
    fn check_joint(
        &self,
        at: usize,
        opening: &Opening,
        tracker: &Tracker,
        cursor: Cursor,
        index: &Inner,
    ) -> Result<(), Error> {
        if cursor.offset != opening.previous_end {
            let reason = "a record fails its check in front of a newer segment";
            return Err(self.damaged(&self.segments[at - 1], cursor.offset, reason));
        }
        if opening.state != tracker.state || opening.previous_first != index.newest_first() {
            let reason = "its first record contradicts the segment before it";
            return Err(self.damaged(&self.segments[at], SEGMENT_HEADER_BYTES, reason));
        }
        Ok(())
    }

    fn check_complete(&self, tracker: &Tracker, index: &Inner) -> Result<(), Error> {
        let marks = tracker.state.marks;
        let before = self.segments[0].identity.number - 1;
        let complete = match (marks.purged, marks.last) {
            (None, _) => before == 0,
            (Some(purged), Some(last)) if last.index > purged.index => {
                index.lowest().is_some_and(|lowest| lowest <= purged.index.saturating_add(1))
            }
            (Some(_), _) => true,
        };
        if complete { Ok(()) } else { Err(missing(self.dir, before)) }
    }

    /// Applies the records of a segment up to the first that does not belong.
    fn scan(
        &self,
        segment: &Segment,
        before: Cursor,
        tracker: &mut Tracker,
        index: &mut Inner,
    ) -> Result<Cursor, Error> {
        let capacity = segment.identity.capacity;
        let source = segment.source(capacity);
        index.add_segment(Mapped { source: source.clone(), first: None, points: Some(Vec::new()) });
        let mut window = Window::new(&source, capacity, SCAN_CHUNK_BYTES);
        let mut cursor = Cursor { offset: SEGMENT_HEADER_BYTES, group_start: 0, ..before };
        loop {
            let record = match window.record(cursor.offset) {
                Ok(record) => record,
                Err(Failure::Io(error)) => return Err(self.io(segment, error)),
                Err(Failure::Malformed(Malformed::Short | Malformed::Header | Malformed::Payload)) => break,
            };
            let header = record.header;
            let same_group = header.group == cursor.group && header.group_start == cursor.group_start;
            let new_group = header.group > cursor.group && header.group_start == cursor.offset;
            if !same_group && !new_group {
                break;
            }
            let change = tracker.apply(header.kind, header.log_id, record.payload, cursor.offset);
            let Ok(change) = change else {
                return Err(self.damaged(
                    segment,
                    cursor.offset,
                    "an entry does not follow the one before it",
                ));
            };
            change.into_iter().for_each(|change| index.apply(change));
            cursor.offset += header.record_bytes();
            (cursor.group, cursor.group_start) = (header.group, header.group_start);
        }
        index.finish(&tracker.state.marks, cursor.offset);
        Ok(cursor)
    }

    /// Looks at every position behind the end for headers of this life of the segment.
    fn look_behind(&self, segment: &Segment, end: Cursor) -> Result<Behind, Error> {
        let capacity = segment.identity.capacity;
        let source: Source = segment.source(capacity);
        let mut window = Window::new(&source, capacity, SCAN_CHUNK_BYTES);
        let mut behind = Behind::default();
        let mut offset = end.offset;
        while offset + HEADER_BYTES as u64 <= capacity {
            let bytes = window.get(offset, SCAN_CHUNK_BYTES).map_err(|error| self.io(segment, error))?;
            let positions = (bytes.len() - HEADER_BYTES) / ALIGN as usize + 1;
            for position in 0..positions {
                let candidate = &bytes[position * ALIGN as usize..][..HEADER_BYTES];
                if !record::looks_like_header(candidate) {
                    continue;
                }
                let Ok(header) = record::decode_header(candidate, source.salt) else { continue };
                behind.highest_group = behind.highest_group.max(header.group);
                if header.group > end.group && header.group_start > end.offset {
                    let reason = "a record fails its check although newer records were made durable after it";
                    return Err(self.damaged(segment, end.offset, reason));
                }
                if header.group >= end.group {
                    let at = offset + position as u64 * ALIGN;
                    behind.torn_bytes = (at + header.record_bytes()).min(capacity) - end.offset;
                }
            }
            offset += positions as u64 * ALIGN;
        }
        Ok(behind)
    }

    fn damaged(&self, segment: &Segment, offset: u64, reason: &'static str) -> Error {
        Error::Damaged { file: self.path(segment), offset, reason }
    }

    fn io(&self, segment: &Segment, source: std::io::Error) -> Error {
        Error::Io { path: self.path(segment), source }
    }

    fn path(&self, segment: &Segment) -> PathBuf {
        segment_path(self.dir, segment.identity.number)
    }
}
