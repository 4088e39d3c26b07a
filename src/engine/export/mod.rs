//! A backup of this member: everything that the log has made so far, as a database file of etcd's (contract 7.3), which
//! etcd's tools and `kvist snapshot restore` read. Built beside the environment in a file without a name, in bounded
//! memory, while writes go on; `Maintenance.Snapshot` sends it.
//!
//! ```text
//!   flush ─► one read transaction on LMDB: position in the log, revision, leases, alarms, members   ─► side buckets
//!            versions up to that revision, step by step, under a pin                                ─► bucket `key`
//! ```
//!
//! The whole file shows one moment: that of a flush. Versions never change, so the long part needs no transaction.

mod auth;
mod rows;

use super::{Engine, Error, Result, blocking};
use crate::bbolt::{self, Writer};
use crate::mvcc::sort::scratch_file;
use crate::mvcc::versions::{Version, Versions};
use crate::mvcc::{self, Store};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Compactions that may come between a flush and the begin of reading before the call gives up.
const ATTEMPTS_MAX: usize = 10;

/// A finished backup.
pub struct Export {
    /// The database, readable from 0 on; it has no name and goes when it is dropped.
    pub file: File,
    /// Bytes of it, a multiple of 4096.
    pub len: u64,
    /// Revision of the store that it shows.
    pub revision: i64,
    /// Version of the layout; etcd calls it the storage version.
    pub version: String,
}

impl Engine {
    /// Makes a backup of everything acknowledged before the call. If the caller goes away, the work ends soon after.
    pub async fn export(&self) -> Result<Export> {
        let stop = StopOnDrop::default();
        for _ in 0..ATTEMPTS_MAX {
            self.0.flusher.sync().await?;
            let store = Arc::clone(&self.0.store);
            let stopped = Arc::clone(&stop.0);
            if let Some(export) = blocking(move || Ok(build(&store, &stopped)?)).await? {
                return Ok(export);
            }
        }
        Err(Error::Read(mvcc::Error::Compacted))
    }
}

#[derive(Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The backup as of the last flush; `None` when a compaction has been applied since.
fn build(store: &Store, stop: &AtomicBool) -> mvcc::Result<Option<Export>> {
    let versions = store.versions().stopped_by(stop);
    let file = scratch_file(&store.scratch_dir()).map_err(mvcc::Error::Scratch)?;
    let mut writer = Writer::new(file).map_err(scratch)?;
    let begun = store.read_flushed(|txn| {
        let (revision, compacted) = Store::flushed_revisions(txn)?;
        if compacted != versions.compacted() {
            return Ok(None);
        }
        Ok(Some((revision, rows::write(txn, compacted, &mut writer)?)))
    })?;
    let Some((revision, version)) = begun else { return Ok(None) };
    write_keys(&versions, revision, &mut writer)?;
    let (file, len) = writer.finish().map_err(scratch)?;
    Ok(Some(Export { file, len, revision, version }))
}

/// The bucket `key`: each version under its revision.
fn write_keys(versions: &Versions<'_>, revision: i64, writer: &mut Writer) -> mvcc::Result<()> {
    let mut bucket = writer.bucket(b"key").map_err(scratch)?;
    let (mut key, mut value) = (Vec::new(), Vec::new());
    let mut put = |version: &Version<'_>| {
        key.clear();
        value.clear();
        version.etcd_key(&mut key);
        version.etcd_value(&mut value);
        bucket.put(&key, &value).map_err(scratch)
    };
    versions.old(versions.compacted(), true, &mut put)?;
    versions.changes(revision, &mut put)?;
    bucket.finish().map_err(scratch)
}

/// The file can't be written: the caller's matter, the store goes on.
fn scratch(error: bbolt::Error) -> mvcc::Error {
    mvcc::Error::Scratch(match error {
        bbolt::Error::Io(error) => error,
        other => io::Error::other(other),
    })
}
