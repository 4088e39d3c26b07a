//! What the records up to a point add up to: vote, committed, purged, last; and the same as a `State` record.
//!
//! Recovery, the log thread and the lazy indexing of old segments apply records through the one [`Tracker`], so
//! they cannot disagree about what a record means. Always true: entries follow each other without a gap.

use super::LogId;
use super::index::{Change, POINT_SPACING_BYTES};
use super::record::{Kind, u64_at};

/// The log ids that bound the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
}

/// An entry does not follow the last one.
#[derive(Debug)]
pub(super) struct Gap;

impl Marks {
    /// Applies a record's log id.
    pub fn apply(&mut self, kind: Kind, log_id: LogId) -> Result<(), Gap> {
        match kind {
            Kind::Entry => {
                if self.last.is_some_and(|last| last.index.checked_add(1) != Some(log_id.index)) {
                    return Err(Gap);
                }
                self.last = Some(log_id);
            }
            Kind::Truncate => {
                let keep = self.purged.filter(|purged| purged.index >= log_id.index).unwrap_or(log_id);
                if self.last.is_some_and(|last| last.index > keep.index) {
                    self.last = Some(keep);
                }
            }
            Kind::TruncateAll => self.last = self.purged,
            Kind::Purge => {
                if self.purged.is_none_or(|purged| purged.index < log_id.index) {
                    self.purged = Some(log_id);
                }
                if self.last.is_none_or(|last| last.index < log_id.index) {
                    self.last = Some(log_id);
                }
            }
            Kind::Committed => self.committed = Some(log_id),
            Kind::Vote | Kind::State => (),
        }
        Ok(())
    }
}

/// Everything but the entries themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub vote: Option<Vec<u8>>,
    pub marks: Marks,
}

/// Payload of the `State` record that opens a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    pub state: State,
    /// Where the records of the segment before this one end; 0 in the first segment.
    pub previous_end: u64,
    /// The lowest entry that lives in the segment before this one.
    pub previous_first: Option<u64>,
}

const FIXED_BYTES: usize = 72;
const HAS_VOTE: u8 = 1;
const HAS_COMMITTED: u8 = 2;
const HAS_PURGED: u8 = 4;
const HAS_LAST: u8 = 8;
const HAS_PREVIOUS_FIRST: u8 = 16;

impl Opening {
    pub fn encode(&self, buf: &mut Vec<u8>) {
        let marks = &self.state.marks;
        let mut flags = 0;
        let mut fixed = [0; FIXED_BYTES];
        let mut put = |at: usize, flag: u8, log_id: Option<LogId>| {
            if let Some(log_id) = log_id {
                flags |= flag;
                fixed[at..at + 8].copy_from_slice(&log_id.term.to_le_bytes());
                fixed[at + 8..at + 16].copy_from_slice(&log_id.index.to_le_bytes());
            }
        };
        put(8, HAS_COMMITTED, marks.committed);
        put(24, HAS_PURGED, marks.purged);
        put(40, HAS_LAST, marks.last);
        if let Some(first) = self.previous_first {
            flags |= HAS_PREVIOUS_FIRST;
            fixed[64..72].copy_from_slice(&first.to_le_bytes());
        }
        fixed[56..64].copy_from_slice(&self.previous_end.to_le_bytes());
        fixed[0] = flags | if self.state.vote.is_some() { HAS_VOTE } else { 0 };
        buf.extend_from_slice(&fixed);
        buf.extend_from_slice(self.state.vote.as_deref().unwrap_or_default());
    }

    pub fn decode(payload: &[u8]) -> Option<Opening> {
        let (fixed, vote) = payload.split_at_checked(FIXED_BYTES)?;
        let flags = fixed[0];
        let log_id = |at: usize, flag: u8| {
            (flags & flag != 0).then(|| LogId { term: u64_at(fixed, at), index: u64_at(fixed, at + 8) })
        };
        let marks = Marks {
            committed: log_id(8, HAS_COMMITTED),
            purged: log_id(24, HAS_PURGED),
            last: log_id(40, HAS_LAST),
        };
        Some(Opening {
            state: State { vote: (flags & HAS_VOTE != 0).then(|| vote.to_vec()), marks },
            previous_end: u64_at(fixed, 56),
            previous_first: (flags & HAS_PREVIOUS_FIRST != 0).then(|| u64_at(fixed, 64)),
        })
    }
}

/// The state, and the decision at which entries the sparse index gets a point.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    pub state: State,
    /// Where this segment's newest point is; `None` asks for a point at the next entry, whatever the distance.
    last_point: Option<u64>,
}

impl Tracker {
    pub fn new(state: State) -> Tracker {
        Tracker { state, last_point: None }
    }

    /// A new segment begins: no stretch between two points spans segments.
    pub fn begin_segment(&mut self) {
        self.last_point = None;
    }

    /// Applies the record at `offset` of the current segment; answers what the index must learn.
    pub fn apply(
        &mut self,
        kind: Kind,
        log_id: LogId,
        payload: &[u8],
        offset: u64,
    ) -> Result<Option<Change>, Gap> {
        let before = self.state.marks.last;
        self.state.marks.apply(kind, log_id)?;
        let last = self.state.marks.last;
        match kind {
            Kind::Entry => {
                if self.last_point.is_some_and(|point| offset - point < POINT_SPACING_BYTES) {
                    return Ok(None);
                }
                self.last_point = Some(offset);
                return Ok(Some(Change::Point { index: log_id.index, offset }));
            }
            Kind::Vote => self.state.vote = Some(payload.to_vec()),
            // The entry after a cut or a jump does not continue the stretch before it.
            Kind::Truncate | Kind::TruncateAll if last != before => {
                self.last_point = None;
                return Ok(Some(Change::Truncate { keep: last.map(|last| last.index) }));
            }
            Kind::Purge if last != before => self.last_point = None,
            Kind::Truncate | Kind::TruncateAll | Kind::Purge | Kind::Committed | Kind::State => (),
        }
        Ok(None)
    }
}
