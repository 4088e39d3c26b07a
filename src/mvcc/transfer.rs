//! The state of one flush on its way to another member: a stream of chunks, and the environment that is built of them.
//!
//! ```text
//!   Sender: one read transaction of the last flush             Receiver: an environment of its own, `received.N`
//!     head | rows | rows | ... | trailer  ── chunks ──►  loaded in order, a transaction for each few MiB
//! ```
//!
//! The rows of all tables come as they are, in order of table and key. So the receiver only appends, and what it gets
//! answers every read and every watch that the sender's state would. What was received is put in place by `install`. Both
//! ends block; `raft` calls them, from threads that may.

use super::defrag::{Aside, sync_dir};
use super::{Error, Result, Store};
use crate::storage::codec::{put_varint, take_varint};
use crate::storage::schema::{FORMAT, TABLES, Table, meta};
use crate::storage::{self, Env, ReadTxn};
use bytes::Bytes;
use std::ops::Bound;
use std::path::Path;

/// Bytes after which no further row is added to a chunk. A row may be larger than that, and so may be its chunk.
pub const CHUNK_BYTES: usize = 256 << 10;
/// Bytes of rows that are loaded in one write transaction.
const TXN_BYTES: usize = 4 << 20;

/// First bytes of the head.
const MAGIC: &[u8; 8] = b"kviststa";
/// Version of the stream.
const VERSION: u32 = 1;
/// Kind and number, which every chunk begins with.
const PREFIX_BYTES: usize = 5;

/// Kinds of chunks.
const HEAD: u8 = 0;
const ROWS: u8 = 1;
const TRAILER: u8 = 2;

/// The end that has the state.
pub struct Sender {
    txn: ReadTxn,
    /// Index of the table whose rows come next.
    table: usize,
    /// The last row sent of that table; empty at its begin.
    after: Vec<u8>,
    number: u32,
    rows: u64,
    crc: u32,
    is_done: bool,
}

impl Sender {
    /// Begins to send the last flush. Holds back page reuse while it lives, so the file grows meanwhile.
    pub fn open(store: &Store) -> Result<Sender> {
        let txn = store.view.load().env.read()?;
        Ok(Sender { txn, table: 0, after: Vec::new(), number: 0, rows: 0, crc: 0, is_done: false })
    }

    /// The next chunk; none after the trailer.
    #[expect(clippy::should_implement_trait, reason = "it may fail, and whoever calls goes on with `?`")]
    pub fn next(&mut self) -> Result<Option<Bytes>> {
        if self.is_done {
            return Ok(None);
        }
        let kind = match self.number {
            0 => HEAD,
            _ if self.table < TABLES.len() => ROWS,
            _ => TRAILER,
        };
        let mut chunk = vec![kind];
        chunk.extend_from_slice(&self.number.to_le_bytes());
        match kind {
            HEAD => {
                chunk.extend_from_slice(MAGIC);
                chunk.extend_from_slice(&VERSION.to_le_bytes());
                chunk.extend_from_slice(&FORMAT.to_le_bytes());
            }
            ROWS => self.add_rows(&mut chunk)?,
            _ => {
                chunk.extend_from_slice(&self.rows.to_le_bytes());
                let crc = crc32c::crc32c_append(self.crc, &chunk);
                chunk.extend_from_slice(&crc.to_le_bytes());
                self.is_done = true;
            }
        }
        self.crc = crc32c::crc32c_append(self.crc, &chunk);
        self.number += 1;
        Ok(Some(chunk.into()))
    }

    fn add_rows(&mut self, chunk: &mut Vec<u8>) -> Result<()> {
        while let Some(&table) = TABLES.get(self.table) {
            let from = match &self.after[..] {
                [] => Bound::Unbounded, // LMDB knows no empty key
                after => Bound::Excluded(after),
            };
            for row in self.txn.range(table, from, Bound::Unbounded)? {
                let (key, value) = row?;
                put_row(chunk, table, key, value);
                self.rows += 1;
                if chunk.len() >= CHUNK_BYTES {
                    self.after = key.to_vec();
                    return Ok(());
                }
            }
            self.table += 1;
            self.after.clear();
        }
        Ok(())
    }
}

fn put_row(chunk: &mut Vec<u8>, table: Table, key: &[u8], value: &[u8]) {
    chunk.push(table as u8);
    put_varint(chunk, key.len() as u64);
    chunk.extend_from_slice(key);
    put_varint(chunk, value.len() as u64);
    chunk.extend_from_slice(value);
}

fn take_row<'c>(rest: &mut &'c [u8]) -> Option<(Table, &'c [u8], &'c [u8])> {
    let (&table, after) = rest.split_first()?;
    *rest = after;
    let table = *TABLES.get(usize::from(table))?;
    Some((table, take_bytes(rest)?, take_bytes(rest)?))
}

fn take_bytes<'c>(rest: &mut &'c [u8]) -> Option<&'c [u8]> {
    let len = usize::try_from(take_varint(rest)?).ok()?;
    let (bytes, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(bytes)
}

#[derive(PartialEq, Eq)]
enum Progress {
    Open,
    /// The trailer has come, and all is right.
    Complete,
    /// Something was wrong: no more is taken.
    Failed,
}

/// The end that builds an environment. Dropped before `finish`, it leaves nothing.
pub struct Receiver {
    env: Env,
    /// Rows that have not been loaded yet, as they came.
    pending: Vec<Bytes>,
    pending_bytes: usize,
    /// Table and key of the last row loaded.
    last: (u8, Vec<u8>),
    number: u32,
    rows: u64,
    crc: u32,
    progress: Progress,
    /// Behind `env`, so that its files are closed before they are removed.
    dir: Aside,
}

impl Receiver {
    /// Begins with an empty environment in a new directory below `base`, the member's. `quota` (bytes) sizes the map.
    pub fn create(base: &Path, quota: u64) -> Result<Receiver> {
        let dir = Aside::create(base)?;
        Ok(Receiver {
            env: Env::open(dir.path(), quota)?,
            pending: Vec::new(),
            pending_bytes: 0,
            last: (0, Vec::new()),
            number: 0,
            rows: 0,
            crc: 0,
            progress: Progress::Open,
            dir,
        })
    }

    /// Takes in the next chunk. Blocks for a sync now and then. After an error, no further one is taken.
    pub fn push(&mut self, chunk: Bytes) -> Result<()> {
        if self.progress != Progress::Open {
            return Err(Error::Transfer("it goes on after its end or after an error"));
        }
        let taken = self.take(&chunk);
        if taken.is_err() {
            self.progress = Progress::Failed;
        }
        taken
    }

    fn take(&mut self, chunk: &Bytes) -> Result<()> {
        let Some((prefix, body)) = chunk.split_at_checked(PREFIX_BYTES) else {
            return Err(Error::Transfer("a chunk is cut short"));
        };
        if prefix[1..] != self.number.to_le_bytes() {
            return Err(Error::Transfer("a chunk is missing or out of order"));
        }
        match (prefix[0], self.number) {
            (HEAD, 0) => check_head(body)?,
            (ROWS, 1..) => {
                self.pending.push(chunk.slice(PREFIX_BYTES..));
                self.pending_bytes += body.len();
                if self.pending_bytes >= TXN_BYTES {
                    self.load()?;
                }
            }
            (TRAILER, 1..) => {
                self.load()?;
                self.check_trailer(chunk)?;
                self.progress = Progress::Complete;
            }
            _ => return Err(Error::Transfer("a chunk of a kind that does not belong there")),
        }
        self.crc = crc32c::crc32c_append(self.crc, chunk);
        self.number += 1;
        Ok(())
    }

    /// Writes the rows that wait, in one synced transaction.
    fn load(&mut self) -> Result<()> {
        let mut txn = self.env.write()?;
        for body in self.pending.drain(..) {
            let mut rest = &body[..];
            while !rest.is_empty() {
                let (table, key, value) = take_row(&mut rest).ok_or(Error::Transfer("a row is damaged"))?;
                let (last_table, last_key) = &mut self.last;
                if (table as u8, key) <= (*last_table, last_key) {
                    return Err(Error::Transfer("rows are out of order"));
                }
                txn.append(table, key, value)?;
                *last_table = table as u8;
                last_key.clear();
                last_key.extend_from_slice(key);
                self.rows += 1;
            }
        }
        self.pending_bytes = 0;
        Ok(txn.commit()?)
    }

    fn check_trailer(&self, chunk: &[u8]) -> Result<()> {
        let (covered, crc) = chunk.split_at(chunk.len() - 4); // a chunk has five bytes at least
        let expected = crc32c::crc32c_append(self.crc, covered);
        if covered[PREFIX_BYTES.min(covered.len())..] != self.rows.to_le_bytes() {
            return Err(Error::Transfer("rows are missing"));
        }
        if *crc != expected.to_le_bytes() {
            return Err(Error::Transfer("its checksum is wrong"));
        }
        Ok(())
    }

    /// Bytes that wait to be loaded.
    #[cfg(test)]
    pub(super) fn pending(&self) -> usize {
        self.pending_bytes
    }

    /// What has been received, durable and whole; fails when the trailer has not come.
    pub fn finish(self) -> Result<Received> {
        if self.progress != Progress::Complete {
            return Err(Error::Transfer("it ends too early"));
        }
        let Receiver { env, dir, .. } = self;
        let mut txn = env.write()?;
        let Some(applied) = txn.get(Table::Meta, meta::APPLIED)?.map(<[u8]>::to_vec) else {
            return Err(Error::Transfer("it does not say which entries it stands for"));
        };
        txn.put(Table::Meta, meta::INSTALLED, &applied)?;
        txn.commit()?;
        sync_dir(dir.path())?;
        Ok(Received { env, dir })
    }
}

fn check_head(body: &[u8]) -> Result<()> {
    let unknown = Error::Transfer("it is of a version that is not known here: install a newer kvist");
    let number = |bytes: &[u8]| bytes.try_into().map(u32::from_le_bytes).unwrap_or(u32::MAX);
    let Some(rest) = body.strip_prefix(MAGIC) else {
        return Err(Error::Transfer("it does not begin as it should"));
    };
    let Some((version, format)) = rest.split_at_checked(4) else { return Err(unknown) };
    if number(version) != VERSION {
        return Err(unknown);
    }
    let found = number(format);
    if found > FORMAT {
        return Err(storage::Error::NewerFormat { found, known: FORMAT }.into());
    }
    Ok(())
}

/// A complete environment that waits to be put in place. Dropped before that, it leaves nothing.
pub struct Received {
    pub(super) env: Env,
    /// Behind `env`, as in [`Receiver`].
    pub(super) dir: Aside,
}

impl Received {
    /// Runs `read` over all tables.
    pub fn read<T>(&self, read: impl FnOnce(&ReadTxn) -> Result<T>) -> Result<T> {
        read(&self.env.read()?)
    }
}
