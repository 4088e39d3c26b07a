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

const PREFIX: &str = "state.";
const TEMPORARY: &str = "state.tmp";

/// The directory of the current environment below `base`; removes what an interrupted copy left behind.
pub fn current_dir(base: &Path) -> Result<PathBuf> {
    let mut generations = generations(base)?;
    remove_dir(&base.join(TEMPORARY))?;
    let current = generations.pop().unwrap_or(1);
    for old in generations {
        remove_dir(&base.join(format!("{PREFIX}{old}")))?;
    }
    Ok(base.join(format!("{PREFIX}{current}")))
}

/// The directory of the current environment below `base`, if there is one; leaves everything as it is.
pub fn newest_dir(base: &Path) -> Result<Option<PathBuf>> {
    Ok(generations(base)?.last().map(|n| base.join(format!("{PREFIX}{n}"))))
}

/// The numbers of the environments below `base`, rising.
fn generations(base: &Path) -> Result<Vec<u64>> {
    let mut generations = Vec::new();
    for entry in fs::read_dir(base).map_err(Error::Io)? {
        let name = entry.map_err(Error::Io)?.file_name();
        if let Some(n) = name.to_str().and_then(|n| n.strip_prefix(PREFIX)?.parse::<u64>().ok()) {
            generations.push(n);
        }
    }
    generations.sort_unstable();
    Ok(generations)
}

impl Store {
    /// Rewrites the environment below `base` without its free pages. Only the flush thread calls this.
    pub fn defragment(&self, base: &Path, quota: u64) -> std::result::Result<(), Failure> {
        let old = current_dir(base).map_err(Failure::Copy)?;
        let copied = self.copy_aside(base);
        if copied.is_err()
            && let Err(error) = remove_dir(&base.join(TEMPORARY))
        {
            tracing::warn!(%error, "could not remove an unfinished copy; the next start does");
        }
        copied.map_err(Failure::Copy)?;
        self.adopt(base, &old, quota).map_err(Failure::Swap)
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
        fs::create_dir(&temporary).map_err(Error::Io)?;
        self.view.load().env.copy_compacted(&temporary.join("data.mdb"))?;
        sync_dir(&temporary)
    }

    fn adopt(&self, base: &Path, old: &Path, quota: u64) -> Result<()> {
        let generation: u64 =
            old.extension().and_then(|e| e.to_str()?.parse().ok()).expect("current_dir names a number");
        let new = base.join(format!("{PREFIX}{}", generation + 1));
        fs::rename(base.join(TEMPORARY), &new).map_err(Error::Io)?;
        sync_dir(base)?;
        let env = Env::open(&new, quota)?;
        *self.sizes.lock() = env.sizes()?;
        self.view.rcu(|view| View { env: env.clone(), memtables: view.memtables.clone() });
        remove_dir(old)
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

fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::Io(e).into()),
        _ => Ok(()),
    }
}

fn sync_dir(path: &Path) -> Result<()> {
    Ok(File::open(path).and_then(|dir| dir.sync_all()).map_err(Error::Io)?)
}
