//! Reads of written entries, by pread through the sparse index.
//!
//! A read never blocks the log thread. A segment may be purged and reused under a reader's hands: then the salted
//! checksum of what it reads fails, and the reader finds out by asking the index again. Called by the log store
//! for entries that its cache no longer holds, and for the replay at start.

use std::path::PathBuf;
use std::sync::Arc;

use super::index::{Change, Index, Located, Point, Source, Stretch, truncate_points};
use super::record::Kind;
use super::segment::{SEGMENT_HEADER_BYTES, segment_path};
use super::state::{Opening, Tracker};
use super::window::{Failure, Window};
use super::{Error, LogId};

/// Read at once: most of a stretch.
const READ_CHUNK_BYTES: usize = 64 * 1024;
const INDEX_CHUNK_BYTES: usize = 1 << 20;

pub(super) struct Reader {
    pub dir: PathBuf,
    pub index: Arc<Index>,
}

impl Reader {
    /// Gives the entries from `from` to before `to`, in order and without a gap, until `each` answers false or the
    /// written part ends.
    pub fn walk(&self, from: u64, to: u64, each: &mut dyn FnMut(LogId, &[u8]) -> bool) -> Result<(), Error> {
        let mut next = from;
        while next < to {
            match self.index.locate(next) {
                Located::Absent => return Ok(()),
                Located::Purged(purged) => return Err(Error::Purged(purged)),
                Located::Unindexed(source) => {
                    let points = self.points(&source, next)?;
                    self.index.set_points(source.number, points);
                }
                Located::Stretch(stretch) => {
                    let reached = self.walk_stretch(&stretch, next, to, each)?;
                    let Some(reached) = reached else { return Ok(()) };
                    next = reached;
                }
            }
        }
        Ok(())
    }

    /// Answers the index after the last entry given, which is beyond `next`; `None` if `each` had enough.
    fn walk_stretch(
        &self,
        stretch: &Stretch,
        mut next: u64,
        to: u64,
        each: &mut dyn FnMut(LogId, &[u8]) -> bool,
    ) -> Result<Option<u64>, Error> {
        let mut window = Window::new(&stretch.source, stretch.to, READ_CHUNK_BYTES);
        let until = to.min(stretch.until);
        let mut offset = stretch.from;
        while next < until {
            let failed = |failure| self.unreadable(&stretch.source, offset, next, failure);
            let record = window.record(offset).map_err(failed)?;
            offset += record.header.record_bytes();
            let log_id = record.header.log_id;
            if record.header.kind != Kind::Entry || log_id.index < next {
                continue;
            }
            if log_id.index > next {
                return Err(self.unreadable(
                    &stretch.source,
                    offset,
                    next,
                    Failure::Malformed(super::Malformed::Header),
                ));
            }
            if !each(log_id, record.payload) {
                return Ok(None);
            }
            next += 1;
        }
        Ok(Some(next))
    }

    /// Walks a segment that recovery skipped; its records are checked here for the first time.
    fn points(&self, source: &Source, next: u64) -> Result<Vec<Point>, Error> {
        let mut window = Window::new(source, source.end, INDEX_CHUNK_BYTES);
        let mut tracker = Tracker::default();
        let mut points = Vec::new();
        let mut offset = SEGMENT_HEADER_BYTES;
        while offset < source.end {
            let failed = |failure| self.unreadable(source, offset, next, failure);
            let record = window.record(offset).map_err(failed)?;
            let header = record.header;
            if header.kind == Kind::State {
                tracker.state =
                    Opening::decode(record.payload).map(|opening| opening.state).unwrap_or_default();
            }
            match tracker.apply(header.kind, header.log_id, record.payload, offset) {
                Ok(Some(Change::Point { index, offset })) => points.push(Point { index, offset }),
                Ok(Some(Change::Truncate { keep })) => truncate_points(&mut points, keep),
                Ok(None) => (),
                Err(_) => return Err(failed(Failure::Malformed(super::Malformed::Header))),
            }
            offset += header.record_bytes();
        }
        Ok(points)
    }

    fn unreadable(&self, source: &Source, offset: u64, next: u64, failure: Failure) -> Error {
        if let Located::Purged(purged) = self.index.locate(next) {
            return Error::Purged(purged);
        }
        let file = segment_path(&self.dir, source.number);
        match failure {
            Failure::Io(source) => Error::Io { path: file, source },
            Failure::Malformed(reason) => Error::Unreadable { file, offset, reason },
        }
    }
}
