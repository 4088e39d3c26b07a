//! The write-ahead log of raft: entries, votes and marks in recycled, pre-written segment files.
//!
//! ```text
//! proposers --append--> queue --> log thread: one pwrite + one fdatasync per group --> callbacks, in order
//!                                     |  takes the next segment, hands back purged ones
//!                                 preparing thread: zeros, fsync, rename, ahead of need
//! readers ---read-----> sparse index --> pread
//! ```
//! It stores bytes and knows nothing of openraft. Always true:
//! - All kinds of records share one stream, so a vote and the entries after it become durable in that order.
//! - After a crash the log is a prefix of what was appended, and holds everything that was acknowledged as synced.
//! - Damage to what was durable is told from a torn end (see `recover`) and refused, never repaired.
//! - An error of write or fdatasync is final: the log takes no more.
//!
//! Called by the raft log store. The directory must belong to one process: the caller holds the lock.

mod batch;
mod index;
mod prepare;
mod queue;
mod reader;
mod record;
mod recover;
mod segment;
mod state;
#[cfg(test)]
mod tests;
mod window;
mod writer;

use parking_lot::Mutex;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use batch::Batch;
use index::Index;
use prepare::Preparer;
use queue::{Queue, Request};
use reader::Reader;
pub use record::{HEADER_BYTES, Header, Kind, Malformed, PAYLOAD_BYTES_MAX, Record, decode, decode_header};
use writer::{Links, Writer};

/// Default size of a segment.
pub const SEGMENT_BYTES: u64 = 64 << 20;
const SEGMENT_BYTES_MIN: u64 = 16 << 10;
const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// Called on the log thread once a batch is written; it must neither block nor append.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Where a log lives and how it works.
#[derive(Clone)]
pub struct Options {
    /// Directory of the segments; created if missing.
    pub dir: PathBuf,
    /// Size of new segments: a multiple of 4 KiB from 16 KiB to 1 GiB.
    pub segment_bytes: u64,
    /// False: never fdatasync. A power loss may then lose anything, or leave a log that is refused.
    pub sync: bool,
    /// Do not scan segments whose entries are all below this index. They are checked when they are read.
    pub scan_from: Option<u64>,
}

impl Options {
    /// The defaults for a directory.
    pub fn new(dir: impl Into<PathBuf>) -> Options {
        Options { dir: dir.into(), segment_bytes: SEGMENT_BYTES, sync: true, scan_from: None }
    }
}

/// Names an entry: the leader's term and the position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId {
    /// Term of the leader that made the entry.
    pub term: u64,
    /// Position in the log.
    pub index: u64,
}

impl fmt::Display for LogId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.term, self.index)
    }
}

/// When a batch counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Once an fdatasync covers it.
    Sync,
    /// Once it is handed to the kernel: a power loss may take it, but not without all that comes after it.
    Write,
}

/// What the log held when it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The newest vote.
    pub vote: Option<Vec<u8>>,
    /// The newest committed mark.
    pub committed: Option<LogId>,
    /// Entries up to here are gone.
    pub purged: Option<LogId>,
    /// The last entry, or `purged` if there is none behind it.
    pub last: Option<LogId>,
    /// Bytes of an unfinished group that were cut from the end, as far as they can be recognised.
    pub torn_bytes: u64,
}

/// Why a log cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("raft log: {path}: {source}", path = .path.display())]
    Io {
        /// What was being used.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Durable records are not what was written.
    #[error("refusing to start: raft log segment {file} is damaged at offset {offset}: {reason}", file = .file.display())]
    Damaged {
        /// The segment.
        file: PathBuf,
        /// The first bad byte or record.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// A file of the chain is not there.
    #[error("refusing to start: raft log segment {file} is missing", file = .file.display())]
    MissingSegment {
        /// The name it would have.
        file: PathBuf,
    },
    /// A later version of the program wrote the file.
    #[error("refusing to start: raft log segment {file} has format version {version}, which is newer than this program", file = .file.display())]
    NewerFormat {
        /// The segment.
        file: PathBuf,
        /// Its format version.
        version: u32,
    },
    /// A segment is not usable at all.
    #[error("refusing to start: {file} is not a segment of this raft log: {reason}", file = .file.display())]
    BadHeader {
        /// The segment.
        file: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// A stored entry fails its check now.
    #[error("raft log segment {file} cannot be read at offset {offset}: {reason}", file = .file.display())]
    Unreadable {
        /// The segment.
        file: PathBuf,
        /// Where the record begins.
        offset: u64,
        /// What is wrong.
        reason: Malformed,
    },
    /// The entries asked for are gone.
    #[error("the raft log is purged up to {0}")]
    Purged(LogId),
    /// The options make no sense.
    #[error("raft log segments of {0} bytes: the size must be a multiple of 4096 from 16 KiB to 1 GiB")]
    SegmentSize(u64),
}

/// Totals since the log was opened.
#[derive(Debug, Default)]
pub struct Counters {
    fsyncs: AtomicU64,
    fsync_nanos: AtomicU64,
    written_bytes: AtomicU64,
    writing_since: Mutex<Option<Instant>>,
    #[cfg(test)]
    fail_writes: std::sync::atomic::AtomicBool,
}

impl Counters {
    /// Number of fdatasync calls.
    pub fn fsyncs(&self) -> u64 {
        self.fsyncs.load(Ordering::Relaxed)
    }

    /// Time spent in them.
    pub fn fsync_time(&self) -> Duration {
        Duration::from_nanos(self.fsync_nanos.load(Ordering::Relaxed))
    }

    /// Bytes written, with padding.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// How long the write or fdatasync that is under way has taken so far.
    pub fn syncing_for(&self) -> Option<Duration> {
        self.writing_since.lock().map(|since| since.elapsed())
    }

    fn begin_write(&self) {
        *self.writing_since.lock() = Some(Instant::now());
    }

    fn end_write(&self) {
        *self.writing_since.lock() = None;
    }

    fn synced(&self, took: Duration) {
        self.fsyncs.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.fsync_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn wrote(&self, bytes: usize) {
        self.written_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    #[cfg(test)]
    fn fail_if_told(&self) -> io::Result<()> {
        let fail = self.fail_writes.load(Ordering::Relaxed);
        if fail { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

/// An open log. Dropping it writes and syncs what was appended and ends its threads.
pub struct Wal {
    queue: Arc<Queue>,
    reader: Reader,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

impl Wal {
    /// Opens the log in a directory, starting one if there is none.
    pub fn open(options: Options) -> Result<(Wal, Recovered), Error> {
        let Options { dir, segment_bytes, sync, .. } = options.clone();
        let whole = segment_bytes.is_multiple_of(segment::PAGE_BYTES);
        if !whole || !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_bytes) {
            return Err(Error::SegmentSize(segment_bytes));
        }
        let opened = recover::open(&options)?;
        let io = |source| Error::Io { path: dir.clone(), source };
        let preparer =
            Preparer::start(dir.clone(), segment_bytes, opened.spares, opened.ready).map_err(io)?;
        let queue = Arc::new(Queue::default());
        let index = Arc::new(Index::new(opened.index));
        let counters = Arc::new(Counters::default());
        let links = Links {
            queue: Arc::clone(&queue),
            index: Arc::clone(&index),
            counters: Arc::clone(&counters),
            preparer,
        };
        let writer = Writer::new(links, segment_bytes, sync, opened.position);
        let thread =
            std::thread::Builder::new().name("wal".to_owned()).spawn(move || writer.run()).map_err(io)?;
        let reader = Reader { dir, index };
        Ok((Wal { queue, reader, counters, thread: Some(thread) }, opened.recovered))
    }

    /// Appends a batch and calls `done` on the log thread, in the order of the appends. Blocks while too many bytes
    /// wait. A batch whose entries leave a gap is refused as a whole (`InvalidInput`); other errors are final.
    pub fn append(&self, batch: Batch, durability: Durability, done: Done) {
        self.queue.push(Request { batch, durability, done });
    }

    /// Reads written entries from `from` to before `to`: the first in any case, more while their payloads stay
    /// within `max_bytes`. The answer ends early at the end of what is written, and is empty beyond it.
    pub fn read(&self, from: u64, to: u64, max_bytes: usize) -> Result<Vec<(LogId, Vec<u8>)>, Error> {
        let mut entries = Vec::new();
        let mut bytes = 0usize;
        self.reader.walk(from, to, &mut |log_id, payload| {
            bytes = bytes.saturating_add(payload.len());
            if !entries.is_empty() && bytes > max_bytes {
                return false;
            }
            entries.push((log_id, payload.to_vec()));
            bytes < max_bytes
        })?;
        Ok(entries)
    }

    /// Gives all written entries from `from` on, in order.
    pub fn scan(&self, from: u64, mut each: impl FnMut(LogId, &[u8])) -> Result<(), Error> {
        self.reader.walk(from, u64::MAX, &mut |log_id, payload| {
            each(log_id, payload);
            true
        })
    }

    /// Totals for the metrics.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

/// A log that nobody writes to, opened without changing anything: a torn end stays where it is.
pub struct ReadOnly {
    reader: Reader,
}

impl ReadOnly {
    /// Checks the log in `dir`. The caller sees to it that nobody writes.
    pub fn open(dir: &Path) -> Result<(ReadOnly, Recovered), Error> {
        let (index, recovered) = recover::look(dir)?;
        let reader = Reader { dir: dir.to_owned(), index: Arc::new(Index::new(index)) };
        Ok((ReadOnly { reader }, recovered))
    }

    /// Gives the entries from `from` to before `to`, in order, until `each` answers false.
    pub fn walk(&self, from: u64, to: u64, each: &mut dyn FnMut(LogId, &[u8]) -> bool) -> Result<(), Error> {
        self.reader.walk(from, to, each)
    }
}

impl fmt::Debug for Wal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Wal").field("dir", &self.reader.dir).finish_non_exhaustive()
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the panic hook, and everything that waited was answered.
            let _ = thread.join();
        }
    }
}
