//! A received environment takes the place of our own, while readers go on.
//!
//! Readers take the revision, then the view, then a read transaction, and then look at the compacted revision. So these are
//! set the other way round: first the bounds, below which the new environment may lack something, then the view, then the
//! revision. Whoever was in between reads the old state, or the new one at a revision that it holds, or is refused as
//! compacted. What has an old read transaction keeps it; the files go with the last of them.

use super::defrag::remove_dir;
use super::transfer::Received;
use super::{Flushed, Result, Store, View};
use crate::types::Revision;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Store {
    /// Goes on from what was received, which must be ahead of us; what is in the memtable is part of it. Only the flush
    /// thread calls this, and holds back the applier. `base` is the directory that holds the environment. After an
    /// error only a restart finds out which one is valid.
    pub fn install(&self, base: &Path, received: Received) -> Result<()> {
        let Received { env, dir } = received;
        let state = Flushed::read(&env.read()?)?;
        let sizes = env.sizes()?;
        let old = dir.put_in_place(base)?;
        {
            let _no_replay = self.installing.write();
            self.floor.store(state.compacted, Ordering::SeqCst);
            self.removed.store(state.removed, Ordering::SeqCst);
            self.compacted.store(state.compacted, Ordering::SeqCst);
            self.flushed.store(state.revision, Ordering::SeqCst);
            self.flushed_compacted.store(state.compacted, Ordering::SeqCst);
            self.view.store(Arc::new(View { env, memtables: vec![Arc::default()] }));
            self.ring.reset(state.revision);
            self.counts.reset(state.revision);
            self.keys.store(state.keys, Ordering::Relaxed);
            self.current.store(state.revision, Ordering::SeqCst);
        }
        *self.stripped.lock() = Revision::default();
        *self.compacting_since.lock() = None;
        *self.sizes.lock() = sizes;
        if let Err(error) = remove_dir(&old) {
            tracing::warn!(%error, "could not remove the database that was replaced; the next start does");
        }
        Ok(())
    }
}
