//! Compaction, alarms and versions in replicated state, and how they and the applied position are stored.

use super::{Applier, LogPosition, Txn, damaged};
use crate::engine::command::{AlarmKind, Applied, Refusal};
use crate::engine::versions::{ClusterVersion, Versions};
use crate::lease::clock::Reading;
use crate::mvcc::{self, flush::SideRow};
use crate::storage::schema::{Table, meta};
use crate::types::MemberId;
use std::collections::BTreeSet;

impl Applier {
    pub(super) fn compact(&mut self, revision: i64) -> mvcc::Result<Applied> {
        match self.store.compact(revision) {
            Ok(()) => {
                self.change(Table::Meta, meta::COMPACTED.to_vec(), Some(revision.to_le_bytes().to_vec()));
                Ok(self.done())
            }
            Err(mvcc::Error::Compacted) => Ok(Err(Refusal::Compacted)),
            Err(mvcc::Error::FutureRevision) => Ok(Err(Refusal::FutureRevision)),
            Err(fatal) => Err(fatal),
        }
    }

    pub(super) fn alarm(&mut self, activate: bool, member: MemberId, alarm: AlarmKind) -> Applied {
        let mut key = member.to_be_bytes().to_vec();
        key.extend_from_slice(&(alarm as u32).to_be_bytes());
        self.change(Table::Alarm, key, activate.then(Vec::new));
        if activate {
            self.alarms.insert((member, alarm));
        } else {
            self.alarms.remove(&(member, alarm));
        }
        self.done()
    }

    pub(super) fn downgrade(&mut self, target: Option<ClusterVersion>) -> Applied {
        let text = target.map(|version| version.to_string().into_bytes());
        self.change(Table::Meta, meta::DOWNGRADE.to_vec(), text);
        self.versions.downgrade = target;
        self.done()
    }

    pub(super) fn set_cluster_version(&mut self, version: ClusterVersion) -> Applied {
        let text = version.to_string().into_bytes();
        self.change(Table::Meta, meta::CLUSTER_VERSION.to_vec(), Some(text));
        self.versions.cluster = version;
        self.done()
    }
}

pub(super) fn applied_row(applied: LogPosition) -> SideRow {
    let value = [applied.term.to_le_bytes(), applied.index.to_le_bytes()].concat();
    SideRow { table: Table::Meta, key: meta::APPLIED.to_vec(), value: Some(value) }
}

pub(in crate::engine) fn read_applied(txn: Txn<'_>) -> mvcc::Result<Option<LogPosition>> {
    read_position(txn, meta::APPLIED)
}

pub(super) fn read_position(txn: Txn<'_>, key: &[u8]) -> mvcc::Result<Option<LogPosition>> {
    let Some(bytes) = txn.get(Table::Meta, key)? else { return Ok(None) };
    let wrong = || damaged("a position in the meta table");
    let (term, index) = bytes.split_at_checked(8).ok_or_else(wrong)?;
    let number = |b: &[u8]| b.try_into().map(u64::from_le_bytes).map_err(|_| wrong());
    Ok(Some(LogPosition { term: number(term)?, index: number(index)? }))
}

/// The value of `meta/lease_clock` is laid out as a position.
pub(super) fn lease_clock_value(reading: Reading) -> Vec<u8> {
    [reading.term.to_le_bytes(), reading.ms.to_le_bytes()].concat()
}

pub(in crate::engine) fn read_lease_clock(txn: Txn<'_>) -> mvcc::Result<Reading> {
    let stored = read_position(txn, meta::LEASE_CLOCK)?;
    Ok(stored.map_or_else(Reading::default, |LogPosition { term, index }| Reading { term, ms: index }))
}

pub(super) fn read_membership(txn: Txn<'_>) -> mvcc::Result<Vec<u8>> {
    Ok(txn.get(Table::Meta, meta::MEMBERSHIP)?.unwrap_or_default().to_vec())
}

pub(in crate::engine) fn read_alarms(txn: Txn<'_>) -> mvcc::Result<BTreeSet<(MemberId, AlarmKind)>> {
    let mut alarms = BTreeSet::new();
    for row in txn.all(Table::Alarm)? {
        let (key, _) = row?;
        alarms.insert(parse_alarm(key).ok_or_else(|| damaged("a row of the alarm table"))?);
    }
    Ok(alarms)
}

fn parse_alarm(key: &[u8]) -> Option<(MemberId, AlarmKind)> {
    let (member, kind) = key.split_at_checked(8)?;
    let kind = match u32::from_be_bytes(kind.try_into().ok()?) {
        1 => AlarmKind::NoSpace,
        2 => AlarmKind::Corrupt,
        _ => return None,
    };
    Some((MemberId::from_be_bytes(member.try_into().ok()?), kind))
}

pub(in crate::engine) fn read_versions(txn: Txn<'_>) -> mvcc::Result<Versions> {
    let read = |key| -> mvcc::Result<Option<ClusterVersion>> {
        let Some(text) = txn.get(Table::Meta, key)? else { return Ok(None) };
        let version = std::str::from_utf8(text).ok().and_then(ClusterVersion::parse);
        version.map(Some).ok_or_else(|| damaged("a version in the meta table"))
    };
    let cluster = read(meta::CLUSTER_VERSION)?.unwrap_or(ClusterVersion::CURRENT);
    Ok(Versions { cluster, downgrade: read(meta::DOWNGRADE)? })
}
