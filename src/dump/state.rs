//! The state of the last flush: one line that sums it up, then members, alarms, leases, users, roles and keys.

use super::json::Bytes;
use super::{Error, Lines, Options};
use crate::auth::Permission;
use crate::engine::apply::Applier;
use crate::engine::command::{AlarmKind, Member};
use crate::mvcc::defrag::newest_dir;
use crate::mvcc::{self, Store};
use crate::raft::{Peer, parse_membership};
use crate::storage::Env;
use crate::types::{KeyRange, LeaseId, MemberId};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::sync::Arc;

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Line<'s> {
    State {
        /// Term and index of the last entry whose effect is here.
        applied: Option<(u64, u64)>,
        revision: i64,
        /// -1 before the first compaction.
        compacted: i64,
        keys: i64,
        /// As HashKV answers it.
        hash: u32,
        cluster_version: String,
        downgrade: Option<String>,
        auth: Auth,
        /// Members that were removed; they never come back.
        removed: &'s BTreeSet<MemberId>,
        voters: Vec<BTreeSet<u64>>,
        peers: BTreeMap<u64, Peer>,
    },
    Member(&'s Member),
    Alarm {
        member: MemberId,
        alarm: AlarmKind,
    },
    Lease {
        id: LeaseId,
        ttl: i64,
        /// Seconds left when the clock of leases was recorded last; 0: nothing is recorded of this one.
        remaining: i64,
        keys: Vec<Bytes<'s>>,
    },
    User {
        name: &'s str,
        roles: &'s [String],
    },
    Role {
        name: &'s str,
        permissions: &'s [Permission],
    },
    Key {
        key: Bytes<'s>,
        create_revision: i64,
        mod_revision: i64,
        version: i64,
        lease: LeaseId,
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<Bytes<'s>>,
    },
}

#[derive(Serialize)]
struct Auth {
    enabled: bool,
    revision: u64,
}

/// Writes the state; without the values of keys if `keys_only`.
pub fn state(options: &Options, keys_only: bool, lines: &mut Lines<impl Write>) -> Result<(), Error> {
    let _held = options.hold()?;
    let dir = newest_dir(&options.member_dir())?.ok_or_else(|| Error::NoMember(options.data_dir.clone()))?;
    let store = Arc::new(Store::open(Env::open_read_only(&dir)?)?);
    let applier = Applier::load(Arc::clone(&store))?;
    summary(&applier, &store, lines)?;
    for member in applier.members().values() {
        lines.line(&Line::Member(member))?;
    }
    for (member, alarm) in applier.alarms() {
        lines.line(&Line::Alarm { member: *member, alarm: *alarm })?;
    }
    for (id, lease) in applier.leases() {
        let keys = store.keys_of_lease(*id)?;
        lines.line(&Line::Lease {
            id: *id,
            ttl: lease.ttl_secs,
            remaining: lease.remaining_secs(applier.lease_clock().ms),
            keys: keys.iter().map(|key| Bytes(key)).collect(),
        })?;
    }
    let auth = applier.auth().load();
    for user in auth.users() {
        lines.line(&Line::User { name: &user.name, roles: &user.roles })?;
    }
    for role in auth.roles() {
        lines.line(&Line::Role { name: &role.name, permissions: &role.permissions })?;
    }
    keys(&store, keys_only, lines)
}

fn summary(applier: &Applier, store: &Store, lines: &mut Lines<impl Write>) -> Result<(), Error> {
    let (auth, versions) = (applier.auth().load(), applier.versions());
    let (voters, peers) = parse_membership(applier.membership())?;
    lines.line(&Line::State {
        applied: applier.applied().map(|position| (position.term, position.index)),
        revision: store.revision(),
        compacted: store.compacted(),
        keys: store.keys(),
        hash: store.hash(0)?.hash,
        cluster_version: versions.cluster.to_string(),
        downgrade: versions.downgrade.map(|version| version.to_string()),
        auth: Auth { enabled: auth.is_enabled(), revision: auth.revision() },
        removed: applier.removed(),
        voters,
        peers,
    })?;
    Ok(())
}

/// The keys of the current revision, in order.
fn keys(store: &Store, keys_only: bool, lines: &mut Lines<impl Write>) -> Result<(), Error> {
    let snapshot = store.snapshot(0)?;
    let mut failed: Option<io::Error> = None;
    snapshot.scan(&KeyRange::all(), |key, image| {
        let meta = image.meta();
        let value = if keys_only { None } else { Some(snapshot.value(&image)?) };
        let line = Line::Key {
            key: Bytes(key),
            create_revision: meta.create_revision,
            mod_revision: meta.modified.main,
            version: meta.version,
            lease: meta.lease,
            value: value.as_deref().map(Bytes),
        };
        failed = lines.line(&line).err();
        Ok::<_, mvcc::Error>(if failed.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    })?;
    failed.map_or(Ok(()), |error| Err(error.into()))
}
