//! The applier: the only code that changes replicated state.
//!
//! Deterministic: reads no clock, no configuration, no randomness and no map with random order. Everything that it
//! learns comes in with the entry. It runs under one lock, on whichever thread applies committed entries.

pub(super) mod admin;
mod auth_state;
mod batch;
#[cfg(test)]
mod determinism_test;
mod install;
#[cfg(test)]
mod install_test;
mod lease;
pub(super) mod members;
#[cfg(test)]
mod script_syntax;
#[cfg(test)]
mod script_test;
mod txn;

pub(super) use batch::{is_short, read_batch};
pub use install::Candidate;
pub use members::Learners;
pub(super) use txn::read_txn;

use super::command::{AlarmKind, Applied, Command, Kv, Member, Outcome, Refusal};
use super::entry::{Entry, Origin};
use super::versions::Versions;
use crate::auth;
use crate::lease::clock::Reading;
use crate::lease::table::{self, Lease, Leases};
use crate::metrics::METRICS;
use crate::mvcc::flush::{Frozen, SideRow};
use crate::mvcc::writer::{Committed, Writer};
use crate::mvcc::{self, EventBatch, Snapshot, Store};
use crate::storage::codec::{self, Image, Value};
use crate::storage::schema::{Table, meta};
use crate::storage::{self, ReadTxn};
use crate::types::{LeaseId, MemberId};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Entries that change nothing (refused ones) are worth a flush after this many, so that the log can be purged.
const IDLE_ENTRIES_MAX: u64 = 10_000;

/// Position in the log of the last applied entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct LogPosition {
    /// Term of the leader that proposed it.
    pub term: u64,
    /// Its index; the first entry has 1... or 0, as consensus likes.
    pub index: u64,
}

/// Something that the keeper of lease deadlines must learn of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseChange {
    /// A lease came to be.
    Granted(LeaseId, Lease),
    /// A lease ended.
    Revoked(LeaseId),
    /// A lease runs since then, or nobody knows any more since when.
    Recorded(LeaseId, Option<u64>),
    /// It was recorded how much of a lease was left at a time that nobody knows here: it starts anew.
    Checkpointed(LeaseId),
    /// The leader read the clock of leases.
    Read(Reading),
}

/// What a batch of entries did, for those who are told about it after it is readable.
#[derive(Default)]
pub struct Effects {
    /// Changes of the keyspace, in order of revision.
    pub batches: Vec<Arc<EventBatch>>,
    /// Changes of leases, in order.
    pub leases: Vec<LeaseChange>,
    /// Changes of tokens, in order.
    pub tokens: Vec<auth::store::TokenChange>,
    /// The state of another member has come in the place of ours, with these leases and their clock. What changed on the way to it is
    /// in none of the lists above.
    pub installed: Option<(Leases, Reading)>,
    /// Members that were removed.
    pub removed_members: Vec<MemberId>,
}

/// See the module.
pub struct Applier {
    store: Arc<Store>,
    leases: Leases,
    lease_clock: Reading,
    alarms: BTreeSet<(MemberId, AlarmKind)>,
    members: BTreeMap<MemberId, Member>,
    /// Ids that never return.
    removed: BTreeSet<MemberId>,
    learners: Arc<Learners>,
    auth: Arc<auth::Store>,
    versions: Versions,
    applied: Option<LogPosition>,
    /// When the command that is being applied was taken in, milliseconds since 1970.
    now_ms: u64,
    /// Position as of the last freeze.
    frozen: Option<LogPosition>,
    /// The state up to there was received, and the log may not have been purged up to there since.
    installed: Option<LogPosition>,
    membership: Vec<u8>,
    /// Rows of side tables changed since the last freeze.
    changed: BTreeMap<(u8, Vec<u8>), SideRow>,
    effects: Effects,
}

impl Applier {
    /// The state as of the last flush.
    pub fn load(store: Arc<Store>) -> mvcc::Result<Applier> {
        let loaded = store.read_flushed(|txn| Applier::read(&store, txn))?;
        METRICS.server.auth_revision.set(loaded.auth.load().revision() as i64);
        Ok(loaded)
    }

    fn read(store: &Arc<Store>, txn: Txn<'_>) -> mvcc::Result<Applier> {
        let applied = admin::read_applied(txn)?;
        let members = members::read_members(txn)?;
        Ok(Applier {
            store: Arc::clone(store),
            leases: table::load(txn)?,
            lease_clock: admin::read_lease_clock(txn)?,
            alarms: admin::read_alarms(txn)?,
            learners: Arc::new(Learners::of(&members)),
            members,
            removed: members::read_removed(txn)?,
            versions: admin::read_versions(txn)?,
            auth: Arc::new(auth::Store::new(auth::table::load(txn)?)),
            applied,
            now_ms: 0,
            frozen: applied,
            installed: admin::read_position(txn, meta::INSTALLED)?,
            membership: admin::read_membership(txn)?,
            changed: BTreeMap::new(),
            effects: Effects::default(),
        })
    }

    /// Position and membership of the last flush, if there was one.
    pub fn flushed(store: &Store) -> mvcc::Result<Option<(LogPosition, Vec<u8>)>> {
        store.read_flushed(|txn| {
            let membership = admin::read_membership(txn)?;
            Ok(admin::read_applied(txn)?.map(|position| (position, membership)))
        })
    }

    /// Position of the last applied entry.
    pub fn applied(&self) -> Option<LogPosition> {
        self.applied
    }

    /// Membership as consensus encoded it; empty before the first.
    pub fn membership(&self) -> &[u8] {
        &self.membership
    }

    /// All leases.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// The reading of the clock of leases that was recorded last.
    pub fn lease_clock(&self) -> Reading {
        self.lease_clock
    }

    /// Alarms raised.
    pub fn alarms(&self) -> &BTreeSet<(MemberId, AlarmKind)> {
        &self.alarms
    }

    /// Who belongs to the cluster.
    pub fn members(&self) -> &BTreeMap<MemberId, Member> {
        &self.members
    }

    /// Who does so no more, and never will again.
    pub fn removed(&self) -> &BTreeSet<MemberId> {
        &self.removed
    }

    /// Who of the members only receives the log, for those who ask often.
    pub fn learners(&self) -> &Arc<Learners> {
        &self.learners
    }

    /// The store that it writes to.
    #[cfg(test)]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Users and roles, for those who read them.
    pub fn auth(&self) -> &Arc<auth::Store> {
        &self.auth
    }

    /// Version of the cluster, and where a downgrade leads.
    pub fn versions(&self) -> Versions {
        self.versions
    }

    /// Takes note of an entry that changes nothing here, such as a new leader's first.
    pub fn skip(&mut self, position: LogPosition) {
        self.applied = Some(position);
    }

    /// Stores a changed membership.
    pub fn set_membership(&mut self, position: LogPosition, membership: Vec<u8>) {
        self.applied = Some(position);
        self.change(Table::Meta, meta::MEMBERSHIP.to_vec(), Some(membership.clone()));
        self.membership = membership;
    }

    /// Carries out a committed entry. A refusal is an answer; an error means that this node can't go on.
    pub fn apply(&mut self, position: LogPosition, entry: &Entry) -> mvcc::Result<Applied> {
        self.applied = Some(position);
        self.now_ms = entry.time_ms();
        if let Some(refusal) = self.capped(entry.command()) {
            return Ok(Err(refusal));
        }
        if let Origin::Client(caller) = entry.origin()
            && let Err(refusal) = self.check_permission(caller.as_ref(), entry.command())?
        {
            return Ok(Err(refusal));
        }
        match entry.command() {
            Command::Put(put) => self.put(put),
            Command::DeleteRange(delete) => self.delete_range(delete),
            Command::Txn(txn) => self.txn(txn),
            Command::LeaseGrant { id, ttl_secs } => Ok(self.lease_grant(*id, *ttl_secs)),
            Command::LeaseRevoke { ids, expired: _ } => self.lease_revoke(ids),
            Command::LeaseCheckpoint(remaining) => Ok(self.lease_checkpoint(remaining)),
            Command::Compact { revision } => self.compact(*revision),
            Command::Alarm { activate, member, alarm } => Ok(self.alarm(*activate, *member, *alarm)),
            Command::PublishMember(member) => Ok(self.publish(member)),
            Command::Downgrade { target } => Ok(self.downgrade(*target)),
            Command::SetClusterVersion(version) => Ok(self.set_cluster_version(*version)),
            Command::Auth(change) => Ok(self.change_auth(change, position)),
            Command::AddMember(member) => Ok(self.add_member(member)),
            Command::RemoveMember { id } => Ok(self.remove_member(*id)),
            Command::PromoteMember { id } => Ok(self.promote_member(*id)),
            Command::UpdateMember { id, peer_urls } => Ok(self.update_member(*id, peer_urls)),
            Command::Batch(batch) => self.batch(batch),
            Command::LeaseRecord { now_ms, since_ms } => Ok(self.lease_record(position, *now_ms, since_ms)),
        }
    }

    /// What happened since the last call.
    pub fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    /// Hands the state since the last freeze to the flush thread.
    pub fn freeze(&mut self) -> Option<(Frozen, Option<LogPosition>)> {
        let entries = self.applied.map_or(0, |p| p.index) - self.frozen.map_or(0, |p| p.index);
        if !self.store.is_dirty() && self.changed.is_empty() && entries < IDLE_ENTRIES_MAX {
            return None;
        }
        self.frozen = self.applied;
        let mut rows: Vec<SideRow> = std::mem::take(&mut self.changed).into_values().collect();
        if let Some(applied) = self.applied {
            rows.push(admin::applied_row(applied));
        }
        Some((self.store.freeze(rows), self.applied))
    }

    /// Publishes what a writer did.
    fn commit(&mut self, writer: Writer<'_>) -> mvcc::Result<()> {
        let Committed { batches, released } = writer.commit();
        self.effects.batches.extend(batches);
        self.end_unused(&released)
    }

    fn change(&mut self, table: Table, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.changed.insert((table as u8, key.clone()), SideRow { table, key, value });
    }

    fn done(&self) -> Applied {
        Ok(Outcome::Done { revision: self.store.revision() })
    }

    /// What an alarm forbids.
    fn capped(&self, command: &Command) -> Option<Refusal> {
        let is_on = |kind| self.alarms.iter().any(|(_, k)| *k == kind);
        if self.alarms.is_empty() {
            return None;
        }
        let is_harmless = matches!(
            command,
            Command::Alarm { .. }
                | Command::PublishMember(_)
                | Command::LeaseCheckpoint(_)
                | Command::LeaseRecord { .. }
                | Command::Downgrade { .. }
                | Command::SetClusterVersion(_)
                | Command::Auth(_)
                | Command::AddMember(_)
                | Command::RemoveMember { .. }
                | Command::PromoteMember { .. }
                | Command::UpdateMember { .. }
        );
        if is_on(AlarmKind::Corrupt) && !is_harmless {
            return Some(Refusal::Corrupt);
        }
        (is_on(AlarmKind::NoSpace) && needs_space(command)).then_some(Refusal::NoSpace)
    }
}

/// Whether a command may add data: what the quota and the NOSPACE alarm hold back.
pub fn needs_space(command: &Command) -> bool {
    use super::command::{Op, Txn};
    fn txn_needs_space(txn: &Txn) -> bool {
        txn.success.iter().chain(&txn.failure).any(|op| match op {
            Op::Put(_) | Op::BoundPut(_) => true,
            Op::Txn(txn) => txn_needs_space(txn),
            Op::Range(_) | Op::DeleteRange(_) | Op::Attach(_) => false,
        })
    }
    match command {
        Command::Put(_) | Command::LeaseGrant { .. } => true,
        Command::Txn(txn) => txn_needs_space(txn),
        Command::Batch(batch) => batch.txns.iter().any(txn_needs_space),
        _ => false,
    }
}

/// The pair as an answer holds it, with its value inline.
fn answer_kv(snapshot: &Snapshot, key: Bytes, image: Bytes) -> mvcc::Result<Kv> {
    let parsed = Image::parse(&image)?;
    let image = match parsed.value {
        Value::Inline(_) => image,
        Value::Blob(_) => codec::live_image(&parsed.meta(), &snapshot.value(&parsed)?),
    };
    Ok(Kv { key, image })
}

fn damaged(what: &str) -> mvcc::Error {
    storage::Error::Damaged(what.to_owned()).into()
}

type Txn<'t> = &'t ReadTxn;
