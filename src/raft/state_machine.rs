//! Hands committed entries to the applier and its answers back. No logic of its own.

use super::waiting::Waiting;
use super::{LogId, Membership, Payload, Peer, Snapshot, SnapshotData, StoredMembership, Types, codec};
use crate::engine::apply::{Applier, Effects, LogPosition};
use crate::engine::command::{Applied, Member, Outcome};
use crate::engine::flusher::Flusher;
use crate::engine::timing;
use crate::metrics::METRICS;
use crate::mvcc::{self, Store};
use crate::types::MemberId;
use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{RaftSnapshotBuilder, SnapshotMeta};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

type Meta = openraft::alias::SnapshotMetaOf<Types>;

/// Entries applied under one lock, and told about at once.
const BATCH_MAX: usize = 1024;

/// What is told of each applied batch, once it can be read and before it is answered.
pub type OnApplied = Box<dyn Fn(Effects) + Send + Sync>;

/// What the state machine works on, and whom it tells.
pub struct Parts {
    /// This member.
    pub me: MemberId,
    /// Changes of replicated state.
    pub applier: Arc<Mutex<Applier>>,
    /// Versions of keys.
    pub store: Arc<Store>,
    /// Puts a received state in place.
    pub flusher: Flusher,
    /// What is told of each applied batch.
    pub on_applied: OnApplied,
    /// Those who sent commands to the leader.
    pub waiting: Arc<Waiting>,
    /// Position of the last applied entry.
    pub applied: watch::Sender<LogPosition>,
    /// Applying an entry for longer is logged.
    pub slow_apply: Duration,
}

/// See the module.
pub struct StateMachine(Arc<Parts>);

impl StateMachine {
    /// The state machine over its parts.
    pub fn new(parts: Parts) -> StateMachine {
        StateMachine(Arc::new(parts))
    }

    fn apply_batch(&self, batch: &mut Vec<EntryResponder<Types>>) -> io::Result<()> {
        let parts = &*self.0;
        let Some(last) = batch.last().map(|(entry, _)| position(entry.log_id)) else { return Ok(()) };
        let (mut answers, mut own) = (Vec::with_capacity(batch.len()), Vec::new());
        let effects = {
            let mut applier = parts.applier.lock();
            let mut begin = Instant::now();
            for (entry, responder) in batch.drain(..) {
                let applied = apply(&mut applier, entry.log_id, &entry.payload).map_err(io::Error::other)?;
                let end = Instant::now();
                if let Payload::Normal(ours) = &entry.payload {
                    timing::applied(ours, entry.log_id.index, &applied, (begin, end), parts.slow_apply);
                    if let Some(ticket) = ours.ticket().filter(|ticket| ticket.proposer == parts.me) {
                        own.push((ticket.number, applied.clone()));
                    }
                }
                begin = end;
                answers.extend(responder.map(|r| (r, applied)));
            }
            applier.take_effects()
        };
        (parts.on_applied)(effects);
        parts.applied.send_replace(last);
        for (number, applied) in own {
            parts.waiting.applied(number, applied);
        }
        for (responder, applied) in answers {
            responder.send(applied);
        }
        parts.waiting.passed(last.term);
        Ok(())
    }
}

fn position(id: LogId) -> LogPosition {
    LogPosition { term: id.leader_id.term, index: id.index }
}

fn apply(applier: &mut Applier, log_id: LogId, payload: &Payload) -> mvcc::Result<Applied> {
    let position = position(log_id);
    match payload {
        Payload::Normal(entry) => applier.apply(position, entry),
        Payload::Blank => {
            applier.skip(position);
            Ok(Ok(Outcome::Done { revision: 0 }))
        }
        Payload::Membership(membership) => {
            applier.set_membership(position, store_form(log_id, membership));
            applier.found_members(&founders(membership));
            Ok(Ok(Outcome::Done { revision: 0 }))
        }
    }
}

/// The first members of the table: those of the first membership. Later ones find the table filled.
fn founders(membership: &Membership) -> Vec<Member> {
    let member =
        |(id, peer): (&u64, &Peer)| Member { id: *id, peer_urls: peer.urls.clone(), ..Member::default() };
    membership.nodes().map(member).collect()
}

fn store_form(log_id: LogId, membership: &Membership) -> Vec<u8> {
    codec::encode_membership(&StoredMembership::new(Some(log_id), membership.clone()))
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let applier = self.0.applier.lock();
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
        Builder { store: Arc::clone(&self.0.store) }
    }

    async fn install_snapshot(&mut self, _meta: &Meta, snapshot: SnapshotData) -> Result<(), io::Error> {
        // Our own state is where it should be.
        let SnapshotData::Received(received) = snapshot else { return Ok(()) };
        let parts = &*self.0;
        METRICS.server.snapshot_apply_in_progress.set(1);
        let installed = parts.flusher.install(received).await;
        METRICS.server.snapshot_apply_in_progress.set(0);
        installed.map_err(io::Error::other)?;
        let (effects, applied) = {
            let mut applier = parts.applier.lock();
            (applier.take_effects(), applier.applied().unwrap_or_default())
        };
        (parts.on_applied)(effects);
        parts.waiting.jumped(applied.term);
        parts.applied.send_replace(applied);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        SnapshotData::Own(Arc::clone(&self.0.store)).with_meta()
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
