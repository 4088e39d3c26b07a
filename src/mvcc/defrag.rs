//! Online defragmentation: a compacted copy beside the live environment, brought up to date, then put in its place.
//!
//! The environment lives in `state.N` below the member's directory; the highest complete N counts. A copy is made as
//! `state.tmp` and becomes `state.N+1` by one rename, so a crash leaves the old file or the new one, never a mixture.
//! While the copy is written, flushes and removals wait (they share the flush thread) and the memtable takes all writes;
//! readers keep what they read. The old file goes when its last reader has gone.

use super::{Result, Store, View};
use crate::storage::{Env, Error};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const PREFIX: &str = "state.";
const TEMPORARY: &str = "state.tmp";
/// Environments that are received from another member; each of a process has a number of its own.
const RECEIVED: &str = "received.";

/// The directory of the current environment below `base`; removes what was left behind by an interrupted copy or transfer.
/// To be called at a start only.
pub fn current_dir(base: &Path) -> Result<PathBuf> {
    remove_dir(&base.join(TEMPORARY))?;
    for number in numbered(base, RECEIVED)? {
        remove_dir(&base.join(format!("{RECEIVED}{number}")))?;
    }
    let mut generations = numbered(base, PREFIX)?;
    let current = generations.pop().unwrap_or(1);
    for old in generations {
        remove_dir(&base.join(format!("{PREFIX}{old}")))?;
    }
    Ok(base.join(format!("{PREFIX}{current}")))
}

/// The directory of the current environment below `base`, if there is one; leaves everything as it is.
pub fn newest_dir(base: &Path) -> Result<Option<PathBuf>> {
    Ok(numbered(base, PREFIX)?.last().map(|n| base.join(format!("{PREFIX}{n}"))))
}

/// The numbers behind `prefix` among the names in `base`, ascending.
fn numbered(base: &Path, prefix: &str) -> Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(base).map_err(Error::Io)? {
        let name = entry.map_err(Error::Io)?.file_name();
        numbers.extend(name.to_str().and_then(|n| n.strip_prefix(prefix)?.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes the environment in `from` the current one below `base`, by one rename. Returns the directories of the new one and
/// of the one before, which may be removed.
fn put_in_place(base: &Path, from: &Path) -> Result<(PathBuf, PathBuf)> {
    let generation = numbered(base, PREFIX)?.pop().unwrap_or(1);
    let new = base.join(format!("{PREFIX}{}", generation + 1));
    fs::rename(from, &new).map_err(Error::Io)?;
    sync_dir(base)?;
    Ok((new, base.join(format!("{PREFIX}{generation}"))))
}

impl Store {
    /// Rewrites the environment below `base` without its free pages. Only the flush thread calls this.
    pub fn defragment(&self, base: &Path, quota: u64) -> std::result::Result<(), Failure> {
        let copied = self.copy_aside(base);
        if copied.is_err()
            && let Err(error) = remove_dir(&base.join(TEMPORARY))
        {
            tracing::warn!(%error, "could not remove an unfinished copy; the next start does");
        }
        copied.map_err(Failure::Copy)?;
        self.adopt(base, quota).map_err(Failure::Swap)
    }

    /// The same at the start, before there is a flush thread, if it gains at least `threshold` bytes. What cannot be
    /// copied, for want of disk space perhaps, stays as it is.
    pub fn defragment_if_worth(&self, base: &Path, quota: u64, threshold: u64) -> Result<()> {
        let before = self.sizes();
        let (size, in_use) = (before.file, before.in_use);
        if size.saturating_sub(in_use) < threshold {
            tracing::info!(
                "current-db-size-bytes" = size,
                "current-db-size-in-use-bytes" = in_use,
                "bootstrap-defrag-threshold-bytes" = threshold,
                "Skipping defragmentation"
            );
            return Ok(());
        }
        tracing::info!(
            "current-db-size-bytes" = size,
            "current-db-size-in-use-bytes" = in_use,
            "defragmenting"
        );
        match self.defragment(base, quota) {
            Ok(()) => {
                tracing::info!(
                    "current-db-size-bytes" = self.sizes().file,
                    "finished defragmenting directory"
                );
                Ok(())
            }
            Err(Failure::Copy(error)) => {
                tracing::error!(%error, "could not defragment; the database stays as it is");
                Ok(())
            }
            Err(Failure::Swap(error)) => Err(error),
        }
    }

    fn copy_aside(&self, base: &Path) -> Result<()> {
        let temporary = base.join(TEMPORARY);
        remove_dir(&temporary)?; // of a copy that failed
        fs::create_dir(&temporary).map_err(Error::Io)?;
        self.view.load().env.copy_compacted(&temporary.join("data.mdb"))?;
        sync_dir(&temporary)
    }

    fn adopt(&self, base: &Path, quota: u64) -> Result<()> {
        let (new, old) = put_in_place(base, &base.join(TEMPORARY))?;
        let env = Env::open(&new, quota)?;
        *self.sizes.lock() = env.sizes()?;
        self.view.rcu(|view| View { env: env.clone(), memtables: view.memtables.clone() });
        remove_dir(&old)
    }
}

/// The directory of an environment that is being received, beside the current one. Goes when it is dropped, unless the
/// environment was put in place.
pub(super) struct Aside(Option<PathBuf>);

impl Aside {
    /// An empty directory below `base`.
    pub fn create(base: &Path) -> Result<Aside> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let path = base.join(format!("{RECEIVED}{}", LAST.fetch_add(1, Ordering::Relaxed) + 1));
        remove_dir(&path)?;
        fs::create_dir(&path).map_err(Error::Io)?;
        Ok(Aside(Some(path)))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.as_deref().expect("only `put_in_place` takes it, and ends it")
    }

    /// Makes it the current environment below `base`. It may be open: LMDB goes by descriptors, not by names. Returns the
    /// directory of the environment before.
    pub fn put_in_place(mut self, base: &Path) -> Result<PathBuf> {
        let (_, old) = put_in_place(base, self.path())?;
        self.0 = None;
        Ok(old)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(error) = remove_dir(path)
        {
            tracing::warn!(%error, "could not remove what was received; the next start does");
        }
    }
}

/// Why a defragmentation came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No copy could be made, for want of disk space perhaps. Nothing has changed, and the store goes on.
    #[error("could not copy the database: {0}")]
    Copy(super::Error),
    /// The copy may be the valid environment by now, and is not the one in use: only a restart finds out which.
    #[error(transparent)]
    Swap(super::Error),
}

pub(super) fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::Io(e).into()),
        _ => Ok(()),
    }
}

pub(super) fn sync_dir(path: &Path) -> Result<()> {
    Ok(File::open(path).and_then(|dir| dir.sync_all()).map_err(Error::Io)?)
}
