//! The state of another member takes the place of ours, when the entries in between are not to be had any more.

use super::{Applier, LogPosition, Txn, admin, damaged};
use crate::auth::store::TokenChange;
use crate::metrics::METRICS;
use crate::mvcc::transfer::Received;
use crate::mvcc::{self, Store};
use crate::storage::schema::{Table, meta};
use std::path::Path;
use std::sync::Arc;

/// What was received, read and found to be whole, but not in place yet.
pub struct Candidate {
    state: Applier,
    received: Received,
}

impl Candidate {
    /// Reads all that an applier holds in memory. An error leaves everything as it is.
    pub fn read(store: &Arc<Store>, received: Received) -> mvcc::Result<Candidate> {
        let state = received.read(|txn| Applier::read(store, txn))?;
        Ok(Candidate { state, received })
    }
}

impl Applier {
    /// Position and membership of what was received.
    pub fn received(received: &Received) -> mvcc::Result<(LogPosition, Vec<u8>)> {
        let read = |txn: Txn<'_>| Ok((admin::read_applied(txn)?, admin::read_membership(txn)?));
        let (position, membership) = received.read(read)?;
        Ok((position.ok_or_else(|| damaged("meta/applied"))?, membership))
    }

    /// Goes on from what was received, if it is ahead; otherwise it is dropped. Only the flush thread calls this, right after
    /// it has flushed. `base` is the directory that holds the environment. After an error only a restart finds out which
    /// state is valid.
    pub fn install(&mut self, candidate: Candidate, base: &Path) -> mvcc::Result<()> {
        let Candidate { state, received } = candidate;
        if state.applied <= self.applied {
            tracing::info!("the state that came from another member is not ahead of ours");
            return Ok(());
        }
        self.store.install(base, received)?;
        let auth = Arc::clone(&self.auth);
        auth.replace(Arc::clone(&state.auth.load()));
        METRICS.server.auth_revision.set(auth.load().revision() as i64);
        let mut effects = self.take_effects();
        effects.installed = Some((state.leases.clone(), state.lease_clock));
        effects.tokens.push(TokenChange::RevokedAll); // which ones have been revoked on the way is not known
        effects.removed_members.extend(state.removed.difference(&self.removed));
        let learners = Arc::clone(&self.learners);
        *self = Applier { auth, learners, effects, ..state };
        self.tell_learners();
        tracing::info!(
            applied = self.applied.map_or(0, |position| position.index),
            revision = self.store.revision(),
            "went on from the state of another member"
        );
        Ok(())
    }

    /// The state up to there was received. The raft log may end below it, and counts as purged up to there.
    pub fn installed(&self) -> Option<LogPosition> {
        self.installed
    }

    /// The log has been purged up to where the state was received, durably; the next flush stores that.
    pub fn clear_installed(&mut self) {
        if self.installed.take().is_some() {
            self.change(Table::Meta, meta::INSTALLED.to_vec(), None);
        }
    }
}
