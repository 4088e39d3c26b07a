//! Opening, reading, writing, copying one LMDB environment, on byte strings only.

use super::schema::{FORMAT, NAMES, TABLES, Table, meta};
use super::{Error, Result};
use crate::metrics::METRICS;
use heed::types::Bytes;
use heed::{
    CommitOrAbort, CompactionOption, Database, EnvFlags, EnvOpenOptions, PutFlags, RoTxn, RwTxn, WithoutTls,
};
use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::ops::Bound;
use std::os::fd::OwnedFd;
use std::path::Path;

type Db = Database<'static, Bytes, Bytes>;

/// Concurrent read transactions; a reader lasts milliseconds, so this is far above what can be in flight.
const MAX_READERS: u32 = 4096;
/// Bytes of a copy that are synced at once; what a disk writes in some ten milliseconds.
const SYNCED_BYTES: u64 = 4 << 20;
/// Address space reserved at least. It costs nothing until used and spares us from ever resizing the map.
const MAP_SIZE_MIN: usize = 256 << 30;

/// An open environment; cheap to clone.
#[derive(Clone)]
pub struct Env {
    env: heed::Env<WithoutTls>,
    dbs: [Db; NAMES.len()],
}

/// How large the file is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sizes {
    /// Bytes of the file.
    pub file: u64,
    /// Bytes of the pages that hold data.
    pub in_use: u64,
}

impl Env {
    /// Opens the environment in the directory `path`, creating what is missing. `quota` (bytes) sizes the map.
    pub fn open(path: &Path, quota: u64) -> Result<Env> {
        std::fs::create_dir_all(path)?;
        let map_size =
            MAP_SIZE_MIN.max(usize::try_from(quota).unwrap_or(usize::MAX).saturating_mul(8).min(1 << 44));
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(map_size).max_readers(MAX_READERS).max_dbs(NAMES.len() as u32);
        // SAFETY: the file is private to this process: the data directory is held under an exclusive lock, nothing
        // else maps or changes the file, and no flag that weakens LMDB's guarantees is set.
        #[allow(unsafe_code)]
        let env = unsafe { options.open(path)? };
        env.clear_stale_readers()?;
        let dbs = create_tables(&env)?;
        let env = Env { env, dbs };
        env.check_format()?;
        Ok(env)
    }

    /// Opens what is in the directory `path`, and changes nothing. The caller keeps everybody else out.
    pub fn open_read_only(path: &Path) -> Result<Env> {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(MAP_SIZE_MIN).max_dbs(NAMES.len() as u32);
        // SAFETY: nobody writes to the file: this process can't, and the data directory is held under a lock that no
        // server shares. So LMDB's own lock file is not needed either.
        #[allow(unsafe_code)]
        let env = unsafe { options.flags(EnvFlags::READ_ONLY | EnvFlags::NO_LOCK).open(path)? };
        let opened = env.open_databases_and_commit(env.read_txn()?, |opener, txn| -> Result<_> {
            let mut dbs = Vec::with_capacity(NAMES.len());
            for name in NAMES {
                let missing =
                    || Error::Lmdb(format!("there is no table {name}; a server that starts adds it"));
                dbs.push(opener.open_database::<Bytes, Bytes>(txn, Some(name))?.ok_or_else(missing)?);
            }
            let dbs: [_; NAMES.len()] = dbs.try_into().map_err(|_| Error::Lmdb("tables".into()))?;
            Ok(CommitOrAbort::<_, ()>::Commit(dbs))
        })?;
        let dbs = opened.unwrap_commit();
        Ok(Env { env, dbs })
    }

    fn check_format(&self) -> Result<()> {
        let found = match self.read()?.get(Table::Meta, meta::FORMAT)? {
            Some(bytes) => u32::from_le_bytes(
                bytes.try_into().map_err(|_| Error::Damaged("meta/format has a wrong length".into()))?,
            ),
            None => 0,
        };
        if found > FORMAT {
            return Err(Error::NewerFormat { found, known: FORMAT });
        }
        if found < FORMAT {
            // New, or of an older format, which lacks only a table that was made when it was opened, and things in rows that
            // nothing has written yet.
            let mut txn = self.write()?;
            txn.put(Table::Meta, meta::FORMAT, &FORMAT.to_le_bytes())?;
            txn.commit()?;
        }
        Ok(())
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.env.path()
    }

    /// Begins a read transaction: a snapshot of the last commit.
    pub fn read(&self) -> Result<ReadTxn> {
        let txn = self.env.clone().static_read_txn()?;
        METRICS.mvcc.open_reads.inc();
        Ok(ReadTxn { txn, dbs: self.dbs })
    }

    /// Begins the write transaction. Only the flush thread may call this.
    pub fn write(&self) -> Result<WriteTxn<'_>> {
        Ok(WriteTxn { txn: self.env.write_txn()?, dbs: &self.dbs })
    }

    /// Size of the file and of its used pages.
    pub fn sizes(&self) -> Result<Sizes> {
        let txn = self.env.read_txn()?;
        let mut in_use = 0;
        for db in &self.dbs {
            in_use += db.stat(&txn)?.non_free_page_size() as u64;
        }
        Ok(Sizes { file: self.env.real_disk_size()?, in_use })
    }

    /// Writes a compacted copy of the last commit to the new file `path` and syncs it. It passes through a pipe, so that
    /// it can be synced piece by piece: gigabytes at once would hold up whoever else syncs, the raft log above all.
    pub fn copy_compacted(&self, path: &Path) -> Result<()> {
        let (pieces, pipe) = io::pipe()?;
        let mut pipe = File::from(OwnedFd::from(pipe));
        let written = std::thread::scope(|scope| {
            let writer = scope.spawn(|| write_paced(pieces, path));
            let copied = self.env.copy_to_file(&mut pipe, CompactionOption::Enabled);
            drop(pipe); // the end of the file
            let written = writer.join().unwrap_or_else(|_| Err(io::Error::other("the writer panicked")));
            written.map(|()| copied)
        });
        Ok(written??) // if it could not be written, the copy failed for that reason
    }
}

/// Writes everything that comes out of the pipe to a new file, synced all along.
fn write_paced(mut pieces: PipeReader, path: &Path) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    loop {
        let copied = io::copy(&mut pieces.by_ref().take(SYNCED_BYTES), &mut file)?;
        if copied == 0 {
            return file.sync_all();
        }
        file.sync_data()?;
    }
}

fn create_tables(env: &heed::Env<WithoutTls>) -> Result<[Db; NAMES.len()]> {
    let txn = env.write_txn()?;
    let created = env.create_databases_and_commit(txn, |opener, txn| -> Result<_> {
        let mut dbs = Vec::with_capacity(NAMES.len());
        for name in NAMES {
            dbs.push(opener.create_database::<Bytes, Bytes>(txn, Some(name))?);
        }
        let dbs: [_; NAMES.len()] = dbs.try_into().map_err(|_| Error::Lmdb("tables".into()))?;
        Ok(CommitOrAbort::<_, ()>::Commit(dbs))
    })?;
    Ok(created.unwrap_commit())
}

/// A read transaction: one consistent state of all tables.
pub struct ReadTxn {
    txn: RoTxn<'static, WithoutTls>,
    dbs: [Db; NAMES.len()],
}

/// Rows in key order, as LMDB holds them.
pub type Rows<'t> = Box<dyn Iterator<Item = Result<(&'t [u8], &'t [u8])>> + 't>;

impl Drop for ReadTxn {
    fn drop(&mut self) {
        METRICS.mvcc.open_reads.dec();
    }
}

impl ReadTxn {
    /// The value of `key`.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>> {
        Ok(self.dbs[table as usize].get(&self.txn, key)?)
    }

    /// Rows from `start` on, up to `end`.
    pub fn range<'t>(
        &'t self,
        table: Table,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
    ) -> Result<impl Iterator<Item = Result<(&'t [u8], &'t [u8])>> + use<'t>> {
        let rows = self.dbs[table as usize].range(&self.txn, &(start, end))?;
        Ok(rows.map(|row| row.map_err(Error::from)))
    }

    /// Rows whose key begins with `prefix`.
    pub fn prefix<'t>(
        &'t self,
        table: Table,
        prefix: &[u8],
    ) -> Result<impl Iterator<Item = Result<(&'t [u8], &'t [u8])>> + use<'t>> {
        let rows = self.dbs[table as usize].prefix_iter(&self.txn, prefix)?;
        Ok(rows.map(|row| row.map_err(Error::from)))
    }

    /// All rows.
    pub fn all<'t>(
        &'t self,
        table: Table,
    ) -> Result<impl Iterator<Item = Result<(&'t [u8], &'t [u8])>> + use<'t>> {
        let rows = self.dbs[table as usize].iter(&self.txn)?;
        Ok(rows.map(|row| row.map_err(Error::from)))
    }

    /// Number of rows.
    pub fn len(&self, table: Table) -> Result<u64> {
        Ok(self.dbs[table as usize].len(&self.txn)?)
    }
}

/// The write transaction. Dropping it without `commit` changes nothing.
pub struct WriteTxn<'e> {
    txn: RwTxn<'e>,
    dbs: &'e [Db; NAMES.len()],
}

impl WriteTxn<'_> {
    /// The value of `key` as this transaction sees it.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>> {
        Ok(self.dbs[table as usize].get(&self.txn, key)?)
    }

    /// Sets `key`.
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.dbs[table as usize].put(&mut self.txn, key, value)?)
    }

    /// Adds a row behind all others of its table; cheaper than `put` and fills pages wholly.
    /// A row that is there already (a replayed flush) is replaced.
    pub fn append(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<()> {
        match self.dbs[table as usize].put_with_flags(&mut self.txn, PutFlags::APPEND, key, value) {
            Err(heed::Error::Mdb(heed::MdbError::KeyExist)) => self.put(table, key, value),
            other => Ok(other?),
        }
    }

    /// Removes `key`; whether it was there.
    pub fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool> {
        Ok(self.dbs[table as usize].delete(&mut self.txn, key)?)
    }

    /// Removes every row from `start` up to `end`; returns how many.
    pub fn delete_range(&mut self, table: Table, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Result<usize> {
        Ok(self.dbs[table as usize].delete_range(&mut self.txn, &(start, end))?)
    }

    /// Removes every row of the table.
    pub fn clear(&mut self, table: Table) -> Result<()> {
        Ok(self.dbs[table as usize].clear(&mut self.txn)?)
    }

    /// Rows from `start` on, up to `end`, as this transaction sees them.
    pub fn range(&self, table: Table, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Result<Rows<'_>> {
        let rows = self.dbs[table as usize].range(&self.txn, &(start, end))?;
        Ok(Box::new(rows.map(|row| row.map_err(Error::from))))
    }

    /// Makes everything durable; returns after the sync.
    pub fn commit(self) -> Result<()> {
        Ok(self.txn.commit()?)
    }
}

/// Whether a table exists for every name; a guard against an edit of one list alone.
const _: () = assert!(TABLES.len() == NAMES.len());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_format_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::open(dir.path(), 1 << 20).unwrap();
        let mut txn = env.write().unwrap();
        txn.put(Table::Meta, meta::FORMAT, &(FORMAT + 1).to_le_bytes()).unwrap();
        txn.commit().unwrap();
        drop(env);
        let error = Env::open(dir.path(), 1 << 20).err().expect("refused").to_string();
        assert!(
            error.contains(&format!("format {}", FORMAT + 1)) && error.contains("install a newer kvist"),
            "{error}"
        );
    }

    #[test]
    fn a_file_of_an_older_format_becomes_one_of_this_with_all_its_rows() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::open(dir.path(), 1 << 20).unwrap();
        let mut txn = env.write().unwrap();
        txn.put(Table::Meta, meta::FORMAT, &1u32.to_le_bytes()).unwrap();
        txn.put(Table::Lease, b"k", b"row").unwrap();
        txn.commit().unwrap();
        drop(env);
        let env = Env::open(dir.path(), 1 << 20).unwrap();
        let read = env.read().unwrap();
        assert_eq!(read.get(Table::Meta, meta::FORMAT).unwrap(), Some(&FORMAT.to_le_bytes()[..]));
        assert_eq!(read.get(Table::Lease, b"k").unwrap(), Some(&b"row"[..]));
        assert_eq!(read.len(Table::Auth).unwrap(), 0);
    }

    #[test]
    fn a_file_that_is_none_of_ours_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("data.mdb"), vec![0x5a; 64 << 10]).unwrap();
        let error = Env::open(dir.path(), 1 << 20).err().expect("refused").to_string();
        assert!(error.contains("damaged"), "{error}");
    }

    #[test]
    fn a_format_of_a_wrong_length_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::open(dir.path(), 1 << 20).unwrap();
        let mut txn = env.write().unwrap();
        txn.put(Table::Meta, meta::FORMAT, &[1]).unwrap();
        txn.commit().unwrap();
        drop(env);
        assert!(matches!(Env::open(dir.path(), 1 << 20), Err(Error::Damaged(_))));
    }

    #[test]
    fn a_copy_has_all_rows_and_one_that_cannot_be_written_fails() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::open(&dir.path().join("from"), 1 << 30).unwrap();
        let mut txn = env.write().unwrap();
        for n in 0..6000u32 {
            txn.append(Table::Log, &n.to_be_bytes(), &[7; 1500]).unwrap(); // more than is synced at once
        }
        txn.commit().unwrap();
        let to = dir.path().join("to");
        std::fs::create_dir(&to).unwrap();
        env.copy_compacted(&to.join("data.mdb")).unwrap();
        let error = env.copy_compacted(&to.join("data.mdb")).expect_err("there is a file");
        assert!(matches!(&error, Error::Io(e) if e.kind() == io::ErrorKind::AlreadyExists), "{error}");
        let copy = Env::open(&to, 1 << 30).unwrap();
        let read = copy.read().unwrap();
        assert_eq!(read.len(Table::Log).unwrap(), 6000);
        assert_eq!(read.get(Table::Log, &5999u32.to_be_bytes()).unwrap(), Some(&[7; 1500][..]));
    }
}
