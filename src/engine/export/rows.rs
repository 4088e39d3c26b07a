//! The small buckets of an etcd database, from the rows of the last flush: all but `key`.

use super::{auth, scratch};
use crate::bbolt::Writer;
use crate::engine::apply::admin::{read_alarms, read_applied, read_lease_clock, read_versions};
use crate::engine::apply::members::{read_members, read_removed};
use crate::engine::command::Member;
use crate::engine::versions::Versions;
use crate::lease::table;
use crate::mvcc;
use crate::storage::ReadTxn;
use crate::storage::codec::put_varint;
use crate::types::MemberId;
use serde_json::json;
use std::collections::BTreeMap;

pub(super) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// Writes them all; `compacted` is the compacted revision, 0 or less before the first compaction. Returns the version of
/// the layout.
pub fn write(txn: &ReadTxn, compacted: i64, writer: &mut Writer) -> mvcc::Result<String> {
    let (members, versions) = (read_members(txn)?, read_versions(txn)?);
    // The storage version follows the cluster's at once: nothing that is stored depends on either.
    let storage_version = versions.cluster.to_string();
    let [auth, users, roles] = auth::buckets(txn)?;
    write_leases(txn, writer)?;
    let buckets = [
        ("alarm", alarms(txn)?),
        ("auth", auth),
        ("authRoles", roles),
        ("authUsers", users),
        ("cluster", cluster(&versions)),
        ("members", members.values().map(member).collect()),
        ("members_removed", read_removed(txn)?.into_iter().map(removed_member).collect()),
        ("meta", meta(txn, compacted, &storage_version, members.values())?),
    ];
    for (name, rows) in buckets {
        let mut bucket = writer.bucket(name.as_bytes()).map_err(scratch)?;
        for (key, value) in &rows {
            bucket.put(key, value).map_err(scratch)?;
        }
        bucket.finish().map_err(scratch)?;
    }
    Ok(storage_version)
}

/// Id → `leasepb.Lease`. Of the three fields only those that are not 0 are written.
fn write_leases(txn: &ReadTxn, writer: &mut Writer) -> mvcc::Result<()> {
    let mut bucket = writer.bucket(b"lease").map_err(scratch)?;
    let now_ms = read_lease_clock(txn)?.ms;
    let mut value = Vec::new();
    for row in table::rows(txn)? {
        let (id, lease) = row?;
        value.clear();
        for (field, number) in [(1, id), (2, lease.ttl_secs), (3, lease.remaining_secs(now_ms))] {
            put_field(&mut value, field, number as u64);
        }
        bucket.put(&id.to_be_bytes(), &value).map_err(scratch)?;
    }
    bucket.finish().map_err(scratch)
}

/// `etcdserverpb.AlarmMember` → nothing.
fn alarms(txn: &ReadTxn) -> mvcc::Result<Rows> {
    let row = |(member, kind)| {
        let mut key = Vec::new();
        put_field(&mut key, 1, member);
        put_field(&mut key, 2, kind as u64);
        (key, Vec::new())
    };
    Ok(read_alarms(txn)?.into_iter().map(row).collect())
}

/// Appends a protobuf field of kind varint, unless it is 0.
pub(super) fn put_field(out: &mut Vec<u8>, field: u8, number: u64) {
    if number != 0 {
        out.push(field << 3);
        put_varint(out, number);
    }
}

/// Version of the cluster, and where an announced downgrade leads.
fn cluster(versions: &Versions) -> Rows {
    let mut rows = Rows::from([(b"clusterVersion".to_vec(), versions.cluster.to_string().into_bytes())]);
    if let Some(target) = versions.downgrade {
        let downgrade = json!({ "target-version": target.to_string(), "enabled": true });
        rows.insert(b"downgrade".to_vec(), downgrade.to_string().into_bytes());
    }
    rows
}

/// Id in hexadecimal → JSON.
fn member(member: &Member) -> (Vec<u8>, Vec<u8>) {
    let mut value = json!({ "id": member.id, "peerURLs": member.peer_urls });
    if member.is_learner {
        value["isLearner"] = json!(true);
    }
    if !member.name.is_empty() {
        value["name"] = json!(member.name);
    }
    if !member.client_urls.is_empty() {
        value["clientURLs"] = json!(member.client_urls);
    }
    (format!("{:x}", member.id).into_bytes(), value.to_string().into_bytes())
}

/// Id in hexadecimal → what etcd writes there.
fn removed_member(id: MemberId) -> (Vec<u8>, Vec<u8>) {
    (format!("{id:x}").into_bytes(), b"removed".to_vec())
}

/// Position in the log, membership of consensus, versions, compaction.
fn meta<'m>(
    txn: &ReadTxn,
    compacted: i64,
    storage_version: &str,
    members: impl Iterator<Item = &'m Member>,
) -> mvcc::Result<Rows> {
    let (learners, voters): (Vec<&Member>, Vec<&Member>) = members.partition(|member| member.is_learner);
    let ids = |members: Vec<&Member>| members.iter().map(|member| member.id).collect::<Vec<_>>();
    let mut state = json!({ "voters": ids(voters), "auto_leave": false });
    if !learners.is_empty() {
        state["learners"] = json!(ids(learners));
    }
    let mut rows = Rows::from([
        (b"confState".to_vec(), state.to_string().into_bytes()),
        (b"storageVersion".to_vec(), storage_version.into()),
    ]);
    if let Some(applied) = read_applied(txn)? {
        rows.insert(b"consistent_index".to_vec(), applied.index.to_be_bytes().to_vec());
        rows.insert(b"term".to_vec(), applied.term.to_be_bytes().to_vec());
    }
    if compacted > 0 {
        let revision = [&compacted.to_be_bytes()[..], b"_", &[0; 8]].concat();
        rows.insert(b"finishedCompactRev".to_vec(), revision.clone());
        rows.insert(b"scheduledCompactRev".to_vec(), revision);
    }
    Ok(rows)
}
