//! openraft's view of the log: entries in the write-ahead log, the latest ones also in memory.
//!
//! Always true: an entry that is not durable yet is in the cache; the cache has no gap and ends with the last entry.

use super::wal::{self, Batch, Durability, Recovered, Wal};
use super::{LogEntry, LogId, Payload, Types, Vote, codec};
use crate::engine::timing::Step;
use bytes::Bytes;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of durable entries kept in memory for followers and for apply.
const CACHE_BYTES_MAX: usize = 4 << 20;
/// Bytes read from the files at once.
const READ_BYTES: usize = 4 << 20;
/// Bytes sent to a follower at once, from memory and from the files.
const SENT_BYTES_MAX: usize = 1 << 20;
const SENT_FROM_FILES_MAX: usize = 256 << 10;
/// Rest after a piece from the files, as a multiple of the time that it took to read.
const CATCH_UP_PAUSE: u32 = 3;

struct State {
    vote: Option<Vote>,
    /// The vote that is kept or about to be: no other one is stood by any more.
    promised: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    cache: VecDeque<LogEntry>,
    cache_bytes: usize,
    /// Entries up to this index are durable.
    durable: Option<u64>,
}

/// See the module. Cheap to clone: all clones are one log.
#[derive(Clone)]
pub struct LogStore {
    wal: Arc<Wal>,
    state: Arc<Mutex<State>>,
}

fn to_wal(id: &LogId) -> wal::LogId {
    wal::LogId { term: id.leader_id.term, index: id.index }
}

fn from_wal(id: wal::LogId) -> LogId {
    codec::log_id(id.term, id.index)
}

fn size(entry: &LogEntry) -> usize {
    let payload = match &entry.payload {
        Payload::Normal(entry) => 2 * entry.bytes().len(), // its bytes, and the command they stand for
        _ => 0,
    };
    payload + size_of::<LogEntry>()
}

impl LogStore {
    /// The log as recovered from disk.
    pub fn new(wal: Wal, recovered: Recovered) -> io::Result<LogStore> {
        let vote = recovered.vote.as_deref().map(codec::decode_vote).transpose()?;
        let state = State {
            vote,
            promised: vote,
            committed: recovered.committed.map(from_wal),
            purged: recovered.purged.map(from_wal),
            last: recovered.last.map(from_wal),
            cache: VecDeque::new(),
            cache_bytes: 0,
            durable: recovered.last.map(|id| id.index),
        };
        Ok(LogStore { wal: Arc::new(wal), state: Arc::new(Mutex::new(state)) })
    }

    /// The vote that this member stands by, before it is durable even.
    pub fn promised(&self) -> Option<Vote> {
        self.state.lock().promised
    }

    /// Entries up to here are gone.
    pub fn purged(&self) -> Option<LogId> {
        self.state.lock().purged
    }

    /// Since when an fdatasync of the log has been under way.
    pub fn syncing_for(&self) -> Option<Duration> {
        self.wal.counters().syncing_for()
    }

    /// Id of the last entry.
    pub fn last(&self) -> Option<LogId> {
        self.state.lock().last
    }

    /// Appends records and waits until they are durable.
    async fn append_durably(&self, batch: Batch) -> io::Result<()> {
        let (sender, done) = tokio::sync::oneshot::channel();
        self.wal.append(batch, Durability::Sync, Box::new(move |result| drop(sender.send(result))));
        done.await.unwrap_or_else(|_| Err(io::Error::other("the raft log has stopped")))
    }

    fn read(&self, from: u64, to: u64) -> io::Result<Vec<LogEntry>> {
        let mut entries = Vec::new();
        let mut next = from;
        while next < to {
            let cached = self.cached(next, to);
            if !cached.is_empty() {
                entries.extend(cached);
                break;
            }
            let end = self.state.lock().cache.front().map_or(to, |e| to.min(e.log_id.index));
            let read = self.wal.read(next, end, READ_BYTES).map_err(io::Error::other)?;
            if read.is_empty() {
                break;
            }
            for (id, payload) in read {
                next = id.index + 1;
                let payload = codec::decode_payload(Bytes::from(payload))?;
                entries.push(LogEntry { log_id: from_wal(id), payload });
            }
        }
        Ok(entries)
    }

    /// Some entries from `from` on, for a follower. What is not in memory comes from the files in small pieces, read on a
    /// thread that may block, with rests in between: a follower that catches up must not crowd out the clients. Empty if the
    /// first one was purged meanwhile; openraft then finds out by itself that it must send a snapshot.
    async fn read_some(&self, from: u64, to: u64) -> io::Result<Vec<LogEntry>> {
        let mut cached = self.cached(from, to);
        if !cached.is_empty() {
            let mut bytes = 0;
            let fits = |entry: &LogEntry| {
                bytes += size(entry);
                bytes <= SENT_BYTES_MAX
            };
            let many = cached.iter().map(fits).take_while(|fits| *fits).count();
            cached.truncate(many.max(1));
            return Ok(cached);
        }
        let end = self.state.lock().cache.front().map_or(to, |e| to.min(e.log_id.index));
        let wal = Arc::clone(&self.wal);
        let begin = Instant::now();
        let read = tokio::task::spawn_blocking(move || {
            let read = match wal.read(from, end, SENT_FROM_FILES_MAX) {
                Err(wal::Error::Purged(_)) => return Ok(Vec::new()),
                read => read.map_err(io::Error::other)?,
            };
            let entry = |(id, payload): (wal::LogId, Vec<u8>)| {
                let payload = codec::decode_payload(Bytes::from(payload))?;
                io::Result::Ok(LogEntry { log_id: from_wal(id), payload })
            };
            read.into_iter().map(entry).collect()
        });
        let entries = read.await.map_err(io::Error::other)?;
        tokio::time::sleep(begin.elapsed() * CATCH_UP_PAUSE).await;
        entries
    }

    fn cached(&self, from: u64, to: u64) -> Vec<LogEntry> {
        let state = self.state.lock();
        let Some(first) = state.cache.front().map(|e| e.log_id.index) else { return Vec::new() };
        if from < first {
            return Vec::new();
        }
        let start = ((from - first) as usize).min(state.cache.len());
        let end = ((to.max(from) - first) as usize).min(state.cache.len());
        state.cache.range(start..end).cloned().collect()
    }
}

impl State {
    fn push(&mut self, entry: LogEntry) {
        self.last = Some(entry.log_id);
        self.cache_bytes += size(&entry);
        self.cache.push_back(entry);
    }

    /// Lets go of durable entries beyond the budget.
    fn trim(&mut self) {
        while self.cache_bytes > CACHE_BYTES_MAX && self.cache.front().map(|e| e.log_id.index) <= self.durable
        {
            let entry = self.cache.pop_front().expect("just seen");
            self.cache_bytes -= size(&entry);
        }
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(n) => *n,
        Bound::Excluded(n) => n + 1,
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(n) => n + 1,
        Bound::Excluded(n) => *n,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: R,
    ) -> Result<Vec<LogEntry>, io::Error> {
        let (from, to) = bounds(&range);
        self.read(from, to)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<LogEntry>, io::Error> {
        self.read_some(start, end).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.state.lock().vote)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let state = self.state.lock();
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last.or(state.purged) })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let mut batch = Batch::default();
        batch.vote(&codec::encode_vote(vote));
        self.state.lock().promised = Some(*vote);
        self.append_durably(batch).await?;
        self.state.lock().vote = Some(*vote);
        Ok(())
    }

    /// Not synced: losing it only means that a restart learns the committed index from consensus again.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(id) = committed {
            let mut batch = Batch::default();
            batch.committed(to_wal(&id));
            self.wal.append(batch, Durability::Write, Box::new(|_| {}));
        }
        self.state.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.state.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = LogEntry> + Send,
        I::IntoIter: Send,
    {
        let mut batch = Batch::default();
        let mut last = None;
        let (now, mut proposed) = (Instant::now(), Vec::new());
        {
            let mut state = self.state.lock();
            for entry in entries {
                batch.entry(to_wal(&entry.log_id), |out| codec::encode_payload(&entry.payload, out));
                last = Some(entry.log_id.index);
                if let Payload::Normal(ours) = &entry.payload {
                    ours.timing().pass(Step::Queued, now);
                    proposed.push(ours.clone());
                }
                state.push(entry);
            }
        }
        let state = Arc::clone(&self.state);
        let done = Box::new(move |result: io::Result<()>| {
            if result.is_ok() {
                let now = Instant::now();
                proposed.iter().for_each(|entry| entry.timing().pass(Step::Durable, now));
                let mut state = state.lock();
                state.durable = state.durable.max(last);
                state.trim();
            }
            callback.io_completed(result);
        });
        self.wal.append(batch, Durability::Sync, done);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let mut batch = Batch::default();
        batch.truncate_after(last.as_ref().map(to_wal));
        self.append_durably(batch).await?;
        let mut state = self.state.lock();
        let keep = last.map_or(0, |id| id.index + 1);
        while state.cache.back().is_some_and(|e| e.log_id.index >= keep) {
            let entry = state.cache.pop_back().expect("just seen");
            state.cache_bytes -= size(&entry);
        }
        state.last = last;
        state.durable = last.map(|id| id.index);
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let mut batch = Batch::default();
        batch.purge(to_wal(&log_id));
        self.append_durably(batch).await?;
        let mut state = self.state.lock();
        while state.cache.front().is_some_and(|e| e.log_id.index <= log_id.index) {
            let entry = state.cache.pop_front().expect("just seen");
            state.cache_bytes -= size(&entry);
        }
        state.purged = Some(log_id);
        if state.last.is_none_or(|last| last.index < log_id.index) {
            state.last = Some(log_id);
        }
        Ok(())
    }
}
