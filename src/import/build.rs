//! Fills a member's directory from etcd's database file: versions by the loader, everything else by the applier, so that
//! its rows are those that a server would have written.

use super::backend::Backend;
use super::target::Target;
use super::{Error, Progress, Result};
use crate::auth;
use crate::engine::Origin;
use crate::engine::apply::{Applier, LogPosition};
use crate::engine::command::{Command, Member};
use crate::engine::entry::Entry;
use crate::identity::{self, Founding};
use crate::mvcc::load::Loader;
use crate::mvcc::{self, Store};
use crate::raft::{self, Peer};
use crate::storage;
use crate::storage::Env;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Leases recorded in one command.
const LEASES_PER_COMMAND: usize = 1000;

/// A member's state on its way to the disk.
pub struct Builder {
    store: Arc<Store>,
    applier: Applier,
    position: LogPosition,
}

impl Builder {
    /// Loads what `backend` holds into a new environment, as the state behind the entry at `position`. With `bump`,
    /// the revision moves on by so many, and everything before counts as compacted.
    pub fn load(
        target: &Target,
        backend: &Backend,
        position: LogPosition,
        bump: Option<i64>,
        progress: Progress<'_>,
    ) -> Result<Builder> {
        // The first environment; later ones are made by defragmentation.
        let dir = mvcc::defrag::current_dir(&target.member_dir())?;
        // LMDB reserves address space only, and more than this when it is little.
        let env = Env::open(&dir, backend.reader().len()).map_err(mvcc::Error::from)?;
        let leases = backend.leases()?;
        let ids = leases.iter().map(|lease| lease.id).collect();
        load_versions(&env, backend, ids, bump, progress)?;
        let store = Arc::new(Store::open(env)?);
        let applier = Applier::load(Arc::clone(&store))?;
        let mut builder = Builder { store, applier, position };
        for lease in &leases {
            builder.apply(Origin::Server, Command::LeaseGrant { id: lease.id, ttl_secs: lease.ttl })?;
        }
        let recorded = leases.iter().filter(|lease| lease.remaining_ttl > 0);
        let recorded: Vec<_> = recorded.map(|lease| (lease.id, lease.remaining_ttl)).collect();
        for chunk in recorded.chunks(LEASES_PER_COMMAND) {
            builder.apply(Origin::Server, Command::LeaseCheckpoint(chunk.to_vec()))?;
        }
        for (member, alarm) in backend.alarms()? {
            builder.apply(Origin::Server, Command::Alarm { activate: true, member, alarm })?;
        }
        Ok(builder)
    }

    /// The state that there is.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Carries out a command of the source's own log, or of ours. A refusal is the answer that the source gave, too.
    pub fn apply(&mut self, origin: Origin, command: Command) -> Result<()> {
        let _ = self.applier.apply(self.position, &Entry::new(origin, command, 0))?;
        Ok(())
    }

    /// The entries up to here are in the state.
    pub fn advance(&mut self, position: LogPosition) {
        self.position = position;
        self.applier.skip(position);
    }

    /// Writes what was applied to the disk, so that memory can be used again.
    pub fn flush(&mut self) -> Result<()> {
        drop(self.applier.take_effects()); // nobody watches
        let frozen = self.applier.freeze();
        if let Some((frozen, _)) = frozen {
            self.store.flush(&frozen)?;
        }
        Ok(())
    }

    /// Adds who the member is, with whom, and the log that it goes on with from `term`, and puts everything in place.
    pub fn finish(mut self, target: Target, founding: &Founding, term: u64) -> Result<()> {
        let Founding { identity, members, .. } = founding;
        self.applier.found_members(members);
        let peer = |member: &Member| Peer { name: member.name.clone(), urls: member.peer_urls.clone() };
        let peers: BTreeMap<_, _> = members.iter().map(|member| (member.id, peer(member))).collect();
        let wal_dir = target.wal_dir();
        let membership = raft::seed(&wal_dir, identity.member, peers, self.position, term);
        let membership = membership.map_err(Error::io(&wal_dir))?;
        self.applier.set_membership(self.position, membership);
        self.flush()?;
        drop((self.applier, self.store));
        identity::store(&target.member_dir(), founding).map_err(Error::io(&target.member_dir()))?;
        target.commit()
    }
}

fn load_versions(
    env: &Env,
    backend: &Backend,
    leases: BTreeSet<i64>,
    bump: Option<i64>,
    progress: Progress<'_>,
) -> Result<()> {
    let mut compacted = backend.compacted()?;
    let mut revision = compacted.max(1);
    if let Some(bump) = bump {
        let mut last = 0;
        backend.records(progress, &mut |record| {
            last = record.meta.modified.main;
            Ok(())
        })?;
        let too_far = || Error::Refused(format!("--bump-revision={bump} goes beyond the last revision"));
        let bumped = last.checked_add(bump).filter(|r| *r < i64::MAX).ok_or_else(too_far)?;
        revision = revision.max(bumped);
        compacted = compacted.max(bumped);
    }
    let mut loader = Loader::new(env, compacted, leases)?;
    backend.records(progress, &mut |record| {
        revision = revision.max(record.meta.modified.main);
        if !record.is_mark() {
            loader.add(&record.key, &record.meta, record.value.as_deref())?;
        }
        Ok(())
    })?;
    let rows = auth::table::rows(&backend.auth()?).into_iter();
    let rows: Vec<_> = rows.filter_map(|(table, key, value)| Some((table, key, value?))).collect();
    Ok(loader.finish(revision, &rows)?)
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Error {
        Error::State(error.into())
    }
}
