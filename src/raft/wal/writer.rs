//! The log thread: drains the queue, writes the group with one pwrite, makes it durable with one fdatasync,
//! answers in order.
//!
//! Always true: a record's group number is one that no fdatasync has covered yet, and the next group is written
//! only after the fdatasync of this one; recovery tells torn from damaged by that. A group does not span
//! segments. An error of write or fdatasync is final, because the kernel may have dropped the pages: everything
//! after it is refused.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;

use crate::metrics::{self, METRICS};

use super::index::{Change, Index, Mapped};
use super::prepare::Preparer;
use super::queue::{Queue, Request};
use super::record::{self, HEADER_BYTES, Kind};
use super::segment::{PAGE_BYTES, SEGMENT_HEADER_BYTES, Segment};
use super::state::{Gap, Opening, Tracker};
use super::{Batch, Counters, Durability, LogId};

/// Bytes of requests that make one group, so that the first of them does not wait for too much.
const GROUP_BYTES: usize = 8 << 20;
/// A write buffer that grew beyond this is given back.
const BUFFER_KEEP_BYTES: usize = 2 * GROUP_BYTES;
/// The next segment is asked for when this share of the current one is used.
const PREPARE_AT_SHARE: u64 = 8;

/// What the log thread starts from.
pub(super) struct Position {
    pub segment: Segment,
    /// Where the next record goes.
    pub offset: u64,
    /// The group of the next record, higher than any seen.
    pub group: u64,
    pub tracker: Tracker,
    /// The segment has no records yet, not even its `State`.
    pub fresh: bool,
}

/// What the log thread shares with its owner.
pub(super) struct Links {
    pub queue: Arc<Queue>,
    pub index: Arc<Index>,
    pub counters: Arc<Counters>,
    pub preparer: Preparer,
}

pub(super) struct Writer {
    links: Links,
    segment_bytes: u64,
    sync: bool,
    position: Position,
    group_start: u64,
    /// Records behind `position.offset` that are not written yet.
    buf: Vec<u8>,
    changes: Vec<Change>,
    /// Bytes were written that no fdatasync has covered.
    unsynced: bool,
    asked_for_next: bool,
    poison: Option<(io::ErrorKind, String)>,
}

impl Drop for Writer {
    /// Whatever ended the thread, nobody waits for it in vain.
    fn drop(&mut self) {
        self.links.queue.abandon();
    }
}

impl Writer {
    pub fn new(links: Links, segment_bytes: u64, sync: bool, position: Position) -> Writer {
        let mut writer = Writer {
            links,
            segment_bytes,
            sync,
            group_start: position.offset,
            position,
            buf: Vec::new(),
            changes: Vec::new(),
            unsynced: false,
            asked_for_next: false,
            poison: None,
        };
        if writer.position.fresh {
            writer.put_opening(0, None);
        }
        writer
    }

    /// Runs until the queue is closed and empty.
    pub fn run(mut self) {
        let mut requests = Vec::new();
        let queue = Arc::clone(&self.links.queue);
        while queue.drain(&mut requests, GROUP_BYTES) {
            self.serve(&mut requests);
        }
        if self.poison.is_none()
            && self.unsynced
            && let Err(error) = self.flush(true)
        {
            tracing::error!(%error, "cannot make the end of the log durable");
        }
    }

    fn serve(&mut self, requests: &mut Vec<Request>) {
        let mut answers = Vec::with_capacity(requests.len());
        let mut sync = false;
        for Request { batch, durability, done } in requests.drain(..) {
            sync |= durability == Durability::Sync;
            let refusal = if self.poison.is_none() { self.stage(&batch) } else { None };
            answers.push((done, refusal));
        }
        if self.poison.is_none()
            && let Err(error) = self.flush(sync)
        {
            self.poison(&error);
        }
        for (done, refusal) in answers {
            done(match (&self.poison, refusal) {
                (Some((kind, text)), _) => Err(io::Error::new(*kind, text.clone())),
                (None, Some(refusal)) => Err(io::Error::new(io::ErrorKind::InvalidInput, refusal)),
                (None, None) => Ok(()),
            });
        }
    }

    fn poison(&mut self, error: &io::Error) {
        tracing::error!(%error, "the raft log cannot be written any more");
        let text = format!("the raft log failed and takes no more writes: {error}");
        self.poison = Some((error.kind(), text));
    }

    /// Puts a batch into the buffer, or says why it is refused; then it has no effect at all.
    fn stage(&mut self, batch: &Batch) -> Option<&'static str> {
        if batch.oversized {
            return Some("a record is too large for the log");
        }
        let mut marks = self.position.tracker.state.marks;
        if batch.records().any(|record| marks.apply(record.kind, record.log_id).is_err()) {
            return Some("an entry does not follow the last one of the log");
        }
        for unsealed in batch.records() {
            let size = unsealed.bytes.len() as u64;
            let room = self.position.segment.identity.capacity;
            if self.position.offset + self.buf.len() as u64 + size > room
                && let Err(error) = self.roll(size)
            {
                self.poison(&error);
                return None;
            }
            let offset = self.put(unsealed.bytes);
            let tracker = &mut self.position.tracker;
            match tracker.apply(unsealed.kind, unsealed.log_id, unsealed.payload(), offset) {
                Ok(change) => self.changes.extend(change),
                // Ruled out above, with the same rules; going on would corrupt the log.
                Err(Gap) => {
                    self.poison(&io::Error::other("a checked batch failed its check"));
                    return None;
                }
            }
        }
        None
    }

    /// Seals a record into the buffer and answers its offset.
    fn put(&mut self, bytes: &[u8]) -> u64 {
        let at = self.buf.len();
        self.buf.extend_from_slice(bytes);
        let salt = self.position.segment.identity.generation;
        record::seal(&mut self.buf[at..at + HEADER_BYTES], salt, self.position.group, self.group_start);
        self.position.offset + at as u64
    }

    fn put_opening(&mut self, previous_end: u64, previous_first: Option<u64>) {
        let bytes = self.opening(previous_end, previous_first);
        self.put(&bytes);
    }

    fn opening(&self, previous_end: u64, previous_first: Option<u64>) -> Vec<u8> {
        let opening = Opening { state: self.position.tracker.state.clone(), previous_end, previous_first };
        let mut bytes = Vec::new();
        record::encode(&mut bytes, Kind::State, LogId::default(), |buf| opening.encode(buf));
        bytes
    }

    /// Ends the current segment and goes to the next, which has room for a record of `record_bytes`.
    fn roll(&mut self, record_bytes: u64) -> io::Result<()> {
        self.flush(true)?;
        let previous_end = self.position.offset;
        let previous_first = self.links.index.newest_first();
        let opening_bytes = self.opening(previous_end, previous_first).len() as u64;
        let need = (SEGMENT_HEADER_BYTES + opening_bytes + record_bytes).next_multiple_of(PAGE_BYTES);
        let want = self.position.segment.identity.next(self.segment_bytes.max(need));
        let segment = self.links.preparer.take(want)?;
        let source = segment.source(SEGMENT_HEADER_BYTES);
        self.links.index.add_segment(Mapped { source, first: None, points: Some(Vec::new()) });
        self.position.segment = segment;
        self.position.offset = SEGMENT_HEADER_BYTES;
        self.position.group += 1;
        self.position.tracker.begin_segment();
        self.group_start = SEGMENT_HEADER_BYTES;
        self.asked_for_next = false;
        self.put_opening(previous_end, previous_first);
        Ok(())
    }

    /// Writes the buffer; with `sync`, everything written so far is durable afterwards.
    fn flush(&mut self, sync: bool) -> io::Result<()> {
        self.links.counters.begin_write();
        if !self.buf.is_empty() {
            self.write()?;
        }
        let is_due = sync && self.unsynced;
        if is_due {
            self.make_durable()?;
        }
        self.links.counters.end_write();
        if is_due {
            let purged = self.links.index.drop_purged();
            self.links.preparer.retire(purged);
        }
        let identity = self.position.segment.identity;
        // Not before this segment has a durable record: of two without one, recovery could not say which is damaged.
        let used = !self.unsynced && self.position.offset > identity.capacity / PREPARE_AT_SHARE;
        if used && !self.asked_for_next {
            self.asked_for_next = true;
            self.links.preparer.request(identity.next(self.segment_bytes));
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let start = self.position.offset;
        let end = start + self.buf.len() as u64;
        // Up to a whole page (capacities are whole pages too): the kernel need not read the rest of it first.
        let padding = end.next_multiple_of(PAGE_BYTES) - end;
        self.buf.extend_from_slice(&[0; PAGE_BYTES as usize][..usize::try_from(padding).unwrap_or(0)]);
        #[cfg(test)]
        self.links.counters.fail_if_told()?;
        let begin = Instant::now();
        self.position.segment.file.write_all_at(&self.buf, start)?;
        metrics::observe_since(&METRICS.disk.wal_write, begin);
        METRICS.disk.wal_write_bytes.add(self.buf.len() as i64);
        self.links.counters.wrote(self.buf.len());
        self.buf.clear();
        self.buf.shrink_to(BUFFER_KEEP_BYTES);
        self.position.offset = end;
        self.unsynced = true;
        self.links.index.publish(&mut self.changes, &self.position.tracker.state.marks, end);
        Ok(())
    }

    fn make_durable(&mut self) -> io::Result<()> {
        if self.sync {
            let begin = Instant::now();
            self.position.segment.file.sync_data()?;
            let took = begin.elapsed();
            self.links.counters.synced(took);
            METRICS.disk.wal_fsync.observe(took.as_secs_f64());
            self.position.group += 1;
            self.group_start = self.position.offset;
        }
        self.unsynced = false;
        Ok(())
    }
}
