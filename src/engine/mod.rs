//! The replicated state machine and its front door. Knows nothing of gRPC, HTTP or openraft.
//!
//! [`Engine`] is what every protocol adapter holds: it takes commands ([`command`]), gets them through the log
//! ([`consensus`]) and hands back what the applier ([`apply`]) made of them; it reads, watches and keeps leases.

pub mod apply;
pub mod ask;
pub mod auth;
pub mod auto_compact;
pub mod command;
pub mod consensus;
pub mod corruption;
mod describe;
pub mod entry;
pub mod error;
pub mod export;
pub mod flusher;
mod kinds;
pub mod leases;
mod members;
pub mod permit;
#[cfg(test)]
mod permit_test;
pub mod read;
pub mod renewals;
pub mod scan;
pub mod tasks;
pub mod timing;
pub mod versions;
pub mod watch;

pub use crate::auth::{Auth, Caller};
pub use crate::mvcc::hash::Hash;
pub use crate::mvcc::{Event, NEVER_COMPACTED, Snapshot};
pub use crate::storage::codec::{Image, Meta, Value, live_image, put_varint, tombstone_image, varint_len};
pub use auth::Permit;
pub use entry::Origin;
pub use error::{Error, Result};

use crate::mvcc::Store;
use crate::types::{LeaseId, MemberId};
use apply::{Applier, Learners};
use ask::{Answer, Question, Whom};
use bytes::Bytes;
use command::{AlarmKind, Batch, Command, Outcome, Range, Refusal, Txn, TxnOutcome};
use consensus::{Consensus, Membership, Status};
use entry::Entry;
use flusher::Flusher;
use leases::LeaseKeeper;
use parking_lot::Mutex;
use read::RangeResult;
use scan::Scan;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use versions::{ClusterVersion, Versions};
use watch::Hub;

/// Longest TTL that can be granted, seconds (L-2).
pub const LEASE_TTL_MAX_SECS: i64 = 9_000_000_000;

/// Bytes that a put may add to the database besides its key and value, and a lease, as etcd counts them (contract §8).
pub const PUT_COST: u64 = 256;
/// See [`PUT_COST`].
pub const LEASE_COST: u64 = 64;

/// Who this member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Id of the cluster.
    pub cluster: u64,
    /// Id of this member.
    pub member: MemberId,
}

/// What requests may ask for.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of data after which writes are refused; `None`: no limit.
    pub quota: Option<u64>,
    /// Bytes of an encoded entry.
    pub request_bytes_max: usize,
    /// Lowest TTL that is granted, seconds.
    pub lease_ttl_min_secs: i64,
    /// Reading for longer is logged.
    pub slow_read: Duration,
    /// Longest time that a request takes.
    pub request_timeout: Duration,
    /// Learners that the cluster may have.
    pub learners_max: usize,
    /// Whether changes of members that could cost the majority are refused.
    pub strict_reconfig_check: bool,
}

/// What an engine is made of.
pub struct Parts {
    /// Versions of keys.
    pub store: Arc<Store>,
    /// Changes of replicated state.
    pub applier: Arc<Mutex<Applier>>,
    /// Watchers.
    pub hub: Hub,
    /// The flush thread.
    pub flusher: Flusher,
    /// Lease deadlines.
    pub leases: Arc<LeaseKeeper>,
    /// Users, tokens and passwords.
    pub auth: Arc<Auth>,
    /// The log.
    pub consensus: Arc<dyn Consensus>,
    /// Who of the members only receives the log.
    pub learners: Arc<Learners>,
    /// Who we are.
    pub identity: Identity,
    /// What may be asked.
    pub limits: Limits,
}

/// What a monitor asks for; read without waiting for anything but short locks.
#[derive(Clone, Copy, Debug)]
pub struct Gauges {
    /// Keys that exist.
    pub keys: i64,
    /// Current revision.
    pub revision: i64,
    /// Last compacted revision.
    pub compacted: i64,
    /// History is gone from the file up to here.
    pub removed: i64,
    /// Reads that hold history back.
    pub pinned: usize,
    /// Bytes of changes that are not in the file yet.
    pub unflushed_bytes: u64,
    /// Leases.
    pub leases: usize,
    /// Watchers.
    pub watch: watch::Counts,
    /// The file.
    pub store: StoreStatus,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Parts>);

/// State of the store and its file.
#[derive(Clone, Copy, Debug)]
pub struct StoreStatus {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes in use, what is not flushed yet included.
    pub bytes_in_use: u64,
}

impl Engine {
    /// The engine over its parts.
    pub fn new(parts: Parts) -> Engine {
        Engine(Arc::new(parts))
    }

    /// Who this member is.
    pub fn identity(&self) -> Identity {
        self.0.identity
    }

    /// What requests may ask for.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Where consensus stands. What was answered counts as applied, even if consensus has not taken note of it yet.
    pub fn status(&self) -> Status {
        let status = self.0.consensus.status();
        let applied = self.0.applier.lock().applied().map_or(0, |position| position.index);
        let applied = applied.max(status.applied);
        let is_learner = self.is_learner();
        Status { applied, committed: status.committed.max(applied), is_learner, ..status }
    }

    /// Whether anybody leads, as far as this member knows.
    pub fn has_leader(&self) -> bool {
        self.0.consensus.status().leader != 0
    }

    /// The leader as far as this member knows, or 0.
    pub fn leader(&self) -> MemberId {
        self.0.consensus.status().leader
    }

    /// Current term.
    pub fn term(&self) -> u64 {
        self.0.consensus.term()
    }

    /// Current revision of the store.
    pub fn revision(&self) -> i64 {
        self.0.store.revision()
    }

    /// Revision of the last compaction, or [`NEVER_COMPACTED`].
    pub fn compacted(&self) -> i64 {
        self.0.store.compacted()
    }

    /// The watch hub.
    pub fn hub(&self) -> &Hub {
        &self.0.hub
    }

    /// Gets a command through the log and carried out, if its origin may.
    pub async fn write(&self, origin: Origin, command: Command) -> Result<Outcome> {
        let mut entry = Entry::new(origin, command, now_ms());
        if entry.bytes().len() > self.0.limits.request_bytes_max {
            return Err(Error::TooLarge);
        }
        for _ in 0..auth::RESTAMPS_MAX {
            timing::note(|| timing::Story::Write(entry.clone()));
            let result = self.0.consensus.propose(entry.clone()).await;
            timing::answered(&entry, matches!(result, Ok(Ok(_))));
            match result? {
                Err(Refusal::Auth(crate::auth::Error::OldRevision)) => {}
                other => return Ok(other?),
            }
            // Users changed while it was under way, and nothing was done: try again as the same user of now.
            let Some(origin) = self.restamped(entry.origin()) else { break };
            entry = Entry::new(origin, entry.command().clone(), now_ms());
        }
        Err(Refusal::Auth(crate::auth::Error::OldRevision).into())
    }

    /// Gets a decision of the leader of `term` through the log; fails if this member is not that leader any more.
    async fn write_in(&self, term: u64, command: Command) -> Result<Outcome> {
        let entry = Entry::new(Origin::Server, command, now_ms());
        Ok(self.0.consensus.propose_in(term, entry).await??)
    }

    /// Whether this member leads.
    pub fn leads(&self) -> bool {
        self.0.consensus.status().leader == self.0.identity.member
    }

    /// Refuses what needs space when the quota is reached, and raises the alarm then. `cost`: bytes it may add.
    pub async fn check_quota(&self, cost: u64) -> Result<()> {
        let Some(quota) = self.0.limits.quota else { return Ok(()) };
        if cost == 0 || self.0.store.bytes_in_use() + cost < quota {
            return Ok(());
        }
        let (member, alarm) = (self.0.identity.member, AlarmKind::NoSpace);
        if !self.alarms().contains(&(member, alarm)) {
            tracing::warn!(quota, "the database reached its quota; raising the NOSPACE alarm");
            self.write(Origin::Server, Command::Alarm { activate: true, member, alarm }).await?;
        }
        Err(Refusal::NoSpace.into())
    }

    /// The entry that a token waits for: it was given out on another member, and this one has not come so far.
    pub fn token_ahead(&self, token: &str) -> Option<u64> {
        crate::auth::token::index_of(token).filter(|index| *index > self.0.consensus.applied())
    }

    /// Resolves when this member has applied the entry at `index`.
    pub async fn until_applied(&self, index: u64) -> Result<()> {
        self.0.consensus.until_applied(index).await
    }

    /// Resolves when local reads show every write acknowledged before.
    pub async fn read_index(&self) -> Result<()> {
        self.0.consensus.read_index().await
    }

    /// The same, without asking other members where the leader's lease allows that.
    pub async fn lease_read(&self) -> Result<()> {
        self.0.consensus.lease_read().await
    }

    /// Who takes part in consensus, once that was decided after the entry at index `after`.
    pub async fn membership(&self, after: Option<u64>) -> Membership {
        self.0.consensus.membership(after).await
    }

    /// The state of this member as it is now. To be dropped soon: it holds back the reuse of pages.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Ok(self.0.store.snapshot(0)?)
    }

    /// Begins a read in key order, at the state of this member.
    pub fn scan(&self, query: Range) -> Result<(Scan, Snapshot)> {
        Ok(Scan::begin(&self.0.store, query)?)
    }

    /// Runs a read of any shape, its answer in memory, on a thread that may block. Returns the current revision, too.
    pub async fn range(&self, query: Range) -> Result<(i64, RangeResult)> {
        let store = Arc::clone(&self.0.store);
        blocking(move || {
            let current = store.revision();
            let snapshot = store.snapshot(query.revision)?;
            Ok((current.max(snapshot.revision()), read::range(&snapshot, &query, Some(store.counts()))?))
        })
        .await
    }

    /// Runs a transaction of reads alone at the current revision of this member.
    pub async fn read_txn(&self, txn: Txn) -> Result<TxnOutcome> {
        let (store, txn) = (Arc::clone(&self.0.store), Arc::new(txn));
        let reading = self.begin_read(timing::What::Txn(Arc::clone(&txn)));
        let outcome = blocking(move || apply::read_txn(&store, &txn)).await;
        reading.end(outcome.as_ref().ok().map(|outcome| (outcome.results.len() as i64, None)));
        outcome
    }

    /// Runs a batch of reads alone, all at a revision; 0 or less: the current one of this member. A few single keys are read
    /// at once, anything else on a thread that may block.
    pub async fn read_batch_at(&self, batch: Batch, revision: i64) -> Result<Vec<TxnOutcome>> {
        if apply::is_short(&batch) {
            return apply::read_batch(&self.0.store, &batch, revision);
        }
        let store = Arc::clone(&self.0.store);
        blocking(move || apply::read_batch(&store, &batch, revision)).await
    }

    /// Begins to measure a read, which begins now.
    pub fn begin_read(&self, what: timing::What) -> timing::Reading {
        timing::Reading::begin(what, self.0.limits.slow_read)
    }

    /// The pair in an event's image, with its value at hand even if that was moved out. `None`: compacted meanwhile.
    pub fn with_inline_value(&self, image: &Bytes) -> Option<Bytes> {
        self.0.store.with_inline_value(image).ok()
    }

    /// Grants a lease; picks an id when it is 0. Returns id and TTL.
    pub async fn lease_grant(
        &self,
        origin: Origin,
        id: LeaseId,
        ttl_secs: i64,
    ) -> Result<(LeaseId, i64, i64)> {
        let ttl_secs = ttl_secs.max(self.0.limits.lease_ttl_min_secs);
        loop {
            let chosen = if id == 0 { rand::random_range(1..=i64::MAX) } else { id };
            match self.write(origin.clone(), Command::LeaseGrant { id: chosen, ttl_secs }).await {
                Err(Error::Refused(Refusal::LeaseExists)) if id == 0 => {} // unlikely; choose again
                other => return Ok((chosen, ttl_secs, revision_of(&other?))),
            }
        }
    }

    /// Milliseconds left of a lease and seconds granted, as the leader knows.
    pub async fn lease_remaining(&self, id: LeaseId) -> Result<Option<(u64, i64)>> {
        match self.ask(Whom::Leader, Question::LeaseRemaining(id)).await? {
            Answer::Remaining(remaining) => Ok(remaining),
            other => Err(ask::unexpected(&other)),
        }
    }

    /// Keys attached to a lease.
    pub async fn lease_keys(&self, id: LeaseId) -> Result<Vec<Bytes>> {
        let store = Arc::clone(&self.0.store);
        blocking(move || Ok(store.keys_of_lease(id)?)).await
    }

    /// All leases, the first to expire first.
    pub fn leases(&self) -> Vec<LeaseId> {
        self.0.leases.leases()
    }

    /// Alarms raised, in order.
    pub fn alarms(&self) -> Vec<(MemberId, AlarmKind)> {
        self.0.applier.lock().alarms().iter().copied().collect()
    }

    /// Version of the cluster, and where a downgrade leads.
    pub fn versions(&self) -> Versions {
        self.0.applier.lock().versions()
    }

    /// Announces a downgrade, or calls it off.
    pub async fn set_downgrade(&self, target: Option<ClusterVersion>) -> Result<()> {
        self.write(Origin::Server, Command::Downgrade { target }).await?;
        Ok(())
    }

    /// Compacts to `revision`; with `physical`, returns when the history is gone from the file.
    pub async fn compact(&self, origin: Origin, revision: i64, physical: bool) -> Result<i64> {
        let result = self.write(origin, Command::Compact { revision }).await;
        if physical && matches!(result, Ok(_) | Err(Error::Refused(Refusal::Compacted))) {
            self.removed(self.0.store.compacted()).await?;
        }
        Ok(revision_of(&result?))
    }

    /// Resolves when history below `revision` is gone from the file, or a long read holds it back for too long.
    async fn removed(&self, revision: i64) -> Result<()> {
        while self.0.store.removed() < revision {
            self.0.flusher.sync().await?;
        }
        Ok(())
    }

    /// Digest of everything up to `revision`.
    pub async fn hash(&self, revision: i64) -> Result<Hash> {
        let store = Arc::clone(&self.0.store);
        blocking(move || Ok(store.hash(revision)?)).await
    }

    /// Rewrites the file without its free pages while everything goes on.
    pub async fn defragment(&self) -> Result<()> {
        Ok(self.0.flusher.defragment().await?)
    }

    /// What a monitor asks for.
    pub fn gauges(&self) -> Gauges {
        let Parts { store, leases, hub, .. } = &*self.0;
        Gauges {
            keys: store.keys(),
            revision: store.revision(),
            compacted: store.compacted(),
            removed: store.removed(),
            pinned: store.pinned(),
            unflushed_bytes: store.unflushed_bytes(),
            leases: leases.count(),
            watch: hub.counts(),
            store: self.store_status(),
        }
    }

    /// Sizes of the store.
    pub fn store_status(&self) -> StoreStatus {
        let store = &self.0.store;
        StoreStatus { file_bytes: store.sizes().file, bytes_in_use: store.bytes_in_use() }
    }
}

fn revision_of(outcome: &Outcome) -> i64 {
    match outcome {
        Outcome::Put { revision, .. }
        | Outcome::DeleteRange { revision, .. }
        | Outcome::Batch { revision, .. }
        | Outcome::Authenticated { revision, .. }
        | Outcome::Done { revision } => *revision,
        Outcome::Txn(txn) => txn.revision,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_cancelled() => Err(Error::Stopped),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Milliseconds since 1970, as leaders stamp entries.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
