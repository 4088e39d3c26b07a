//! Hands committed entries to the applier and its answers back. No logic of its own.

use super::{LogId, Membership, Payload, Snapshot, SnapshotData, StoredMembership, Types, codec};
use crate::engine::apply::{Applier, Effects, LogPosition};
use crate::engine::command::{Applied, Outcome};
use crate::engine::flusher::Flusher;
use crate::engine::timing;
use crate::mvcc::{self, Store};
use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{RaftSnapshotBuilder, SnapshotMeta};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

type Meta = openraft::alias::SnapshotMetaOf<Types>;

/// Entries applied under one lock, and told about at once.
const BATCH_MAX: usize = 1024;

/// What is told of each applied batch, once it can be read and before it is answered.
pub type OnApplied = Box<dyn Fn(Effects) + Send + Sync>;

/// See the module.
pub struct StateMachine {
    applier: Arc<Mutex<Applier>>,
    store: Arc<Store>,
    flusher: Flusher,
    on_applied: Arc<OnApplied>,
    slow_apply: Duration,
}

impl StateMachine {
    /// Applying an entry for longer than `slow_apply` is logged.
    pub fn new(
        applier: Arc<Mutex<Applier>>,
        store: Arc<Store>,
        flusher: Flusher,
        on_applied: OnApplied,
        slow_apply: Duration,
    ) -> StateMachine {
        StateMachine { applier, store, flusher, on_applied: Arc::new(on_applied), slow_apply }
    }

    fn apply_batch(&self, batch: &mut Vec<EntryResponder<Types>>) -> io::Result<()> {
        let mut answers = Vec::with_capacity(batch.len());
        let effects = {
            let mut applier = self.applier.lock();
            let mut begin = Instant::now();
            for (entry, responder) in batch.drain(..) {
                let applied = apply(&mut applier, entry.log_id, &entry.payload).map_err(io::Error::other)?;
                let end = Instant::now();
                if let Payload::Normal(ours) = &entry.payload {
                    timing::applied(ours, entry.log_id.index, &applied, (begin, end), self.slow_apply);
                }
                begin = end;
                answers.extend(responder.map(|r| (r, applied)));
            }
            applier.take_effects()
        };
        (self.on_applied)(effects);
        for (responder, applied) in answers {
            responder.send(applied);
        }
        Ok(())
    }
}

fn apply(applier: &mut Applier, log_id: LogId, payload: &Payload) -> mvcc::Result<Applied> {
    let position = LogPosition { term: log_id.leader_id.term, index: log_id.index };
    match payload {
        Payload::Normal(entry) => applier.apply(position, entry),
        Payload::Blank => {
            applier.skip(position);
            Ok(Ok(Outcome::Done { revision: 0 }))
        }
        Payload::Membership(membership) => {
            applier.set_membership(position, store_form(log_id, membership));
            Ok(Ok(Outcome::Done { revision: 0 }))
        }
    }
}

fn store_form(log_id: LogId, membership: &Membership) -> Vec<u8> {
    codec::encode_membership(&StoredMembership::new(Some(log_id), membership.clone()))
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let applier = self.applier.lock();
        let applied = applier.applied().map(|p| codec::log_id(p.term, p.index));
        Ok((applied, codec::decode_membership(applier.membership())?))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + Send,
    {
        let mut batch = Vec::new();
        while let Some(entry) = entries.next().await {
            batch.push(entry?);
            if batch.len() == BATCH_MAX {
                self.apply_batch(&mut batch)?;
            }
        }
        self.apply_batch(&mut batch)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { store: Arc::clone(&self.store) }
    }

    async fn install_snapshot(&mut self, _meta: &Meta, snapshot: SnapshotData) -> Result<(), io::Error> {
        // Our own state is where it should be.
        let SnapshotData::Received(received) = snapshot else { return Ok(()) };
        self.flusher.install(received).await.map_err(io::Error::other)?;
        let effects = self.applier.lock().take_effects();
        (self.on_applied)(effects);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        SnapshotData::Own(Arc::clone(&self.store)).with_meta()
    }
}

/// Builds a snapshot: the last flush already is one, so there is nothing to write.
pub struct Builder {
    store: Arc<Store>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let flushed = SnapshotData::Own(Arc::clone(&self.store)).with_meta()?;
        flushed.ok_or_else(|| io::Error::other("nothing has been flushed yet"))
    }
}

impl SnapshotData {
    /// The snapshot, with the position and membership that the state itself has; none before the first flush.
    pub(super) fn with_meta(self) -> io::Result<Option<Snapshot>> {
        let found = match &self {
            SnapshotData::Own(store) => Applier::flushed(store),
            SnapshotData::Received(received) => Applier::received(received).map(Some),
        };
        let Some((position, membership)) = found.map_err(io::Error::other)? else { return Ok(None) };
        let meta = SnapshotMeta {
            last_log_id: Some(codec::log_id(position.term, position.index)),
            last_membership: codec::decode_membership(&membership)?,
        };
        Ok(Some(Snapshot { meta, snapshot: self }))
    }
}
