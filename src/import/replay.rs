//! What etcd's raft log has and its database has not, carried out on the new state.
//!
//! etcd writes its database every 100 ms, and its log before every answer. So a member that was killed, or even stopped,
//! may have acknowledged writes that only the log knows: they are applied as etcd would at its next start. The log of a
//! member that is alone counts to its end, even beyond what is marked as committed: etcd answers before it writes that
//! mark, and at its next start a lone member commits all that its log has.

use super::backend::{alarm_kind, parse_member};
use super::build::Builder;
use super::wal::{Entry, HardState, Item, Metadata, Wal};
use super::{Error, Phase, Progress, Result};
use crate::api::etcd::convert;
use crate::engine::LEASE_TTL_MAX_SECS;
use crate::engine::apply::LogPosition;
use crate::engine::command::{Command, Member};
use crate::pb::etcdserverpb as pb;
use crate::pb::etcdserverpb::alarm_request::AlarmAction;
use crate::types::MemberId;
use prost::Message;
use std::collections::BTreeMap;
use std::path::Path;

/// Bytes of changes in memory that are worth a flush.
const MEMTABLE_BYTES_MAX: usize = 8 << 20;
/// The least that etcd grants with its default election timeout, seconds (L-2).
const TTL_MIN_SECS: i64 = 2;

/// A request as it is in the log. What is missing here changes nothing that is stored.
#[derive(Clone, PartialEq, Message)]
struct Request {
    /// What the old store of etcd 3.4 and before was told; of its own members only, by now.
    #[prost(message, optional, tag = "2")]
    v2: Option<OldRequest>,
    #[prost(message, optional, tag = "4")]
    put: Option<pb::PutRequest>,
    #[prost(message, optional, tag = "5")]
    delete_range: Option<pb::DeleteRangeRequest>,
    #[prost(message, optional, tag = "6")]
    txn: Option<pb::TxnRequest>,
    #[prost(message, optional, tag = "7")]
    compaction: Option<pb::CompactionRequest>,
    #[prost(message, optional, tag = "8")]
    lease_grant: Option<pb::LeaseGrantRequest>,
    #[prost(message, optional, tag = "9")]
    lease_revoke: Option<pb::LeaseRevokeRequest>,
    #[prost(message, optional, tag = "10")]
    alarm: Option<pb::AlarmRequest>,
    #[prost(message, optional, tag = "11")]
    lease_checkpoint: Option<LeaseCheckpoints>,
    #[prost(message, optional, tag = "1301")]
    member_attributes: Option<MemberAttributes>,
}

/// A request to the old store, which may also be in the log as it is.
#[derive(Clone, PartialEq, Message)]
struct OldRequest {
    #[prost(string, tag = "2")]
    method: String,
    #[prost(string, tag = "3")]
    path: String,
}

#[derive(Clone, PartialEq, Message)]
struct LeaseCheckpoints {
    #[prost(message, repeated, tag = "1")]
    checkpoints: Vec<LeaseCheckpoint>,
}

#[derive(Clone, PartialEq, Message)]
struct LeaseCheckpoint {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    remaining_ttl: i64,
}

#[derive(Clone, PartialEq, Message)]
struct MemberAttributes {
    #[prost(uint64, tag = "1")]
    member: u64,
    #[prost(message, optional, tag = "2")]
    attributes: Option<Attributes>,
}

#[derive(Clone, PartialEq, Message)]
struct Attributes {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, repeated, tag = "2")]
    client_urls: Vec<String>,
}

/// A change of membership, in its older form, which is the only one that etcd writes.
#[derive(Clone, PartialEq, Message)]
struct ConfChange {
    /// 0: add, 1: remove, 2: change the URLs, 3: add a learner.
    #[prost(int32, optional, tag = "2")]
    kind: Option<i32>,
    #[prost(uint64, optional, tag = "3")]
    member: Option<u64>,
    /// The member in JSON.
    #[prost(bytes = "vec", optional, tag = "4")]
    context: Option<Vec<u8>>,
}

/// What the log says before anything of it is applied.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Whose log it is.
    pub metadata: Metadata,
    /// How far the member was.
    pub state: HardState,
    /// Index of the last entry that the database has.
    after: u64,
    /// Terms of the entries behind it.
    terms: Vec<u64>,
}

/// Reads the whole log: which of its entries count, and whether it goes on where the database ends at `after`.
pub fn survey(wal: &Wal, after: u64) -> Result<Survey> {
    let mut survey = Survey { after, ..Survey::default() };
    let (mut has_metadata, mut last) = (false, None);
    wal.read(&mut |path, item| {
        match item {
            Item::Metadata(metadata) if has_metadata && metadata != survey.metadata => {
                return Err(Error::damaged(path, "the log is of another member than the files before"));
            }
            Item::Metadata(metadata) => (survey.metadata, has_metadata) = (metadata, true),
            Item::State(state) => survey.state = state,
            Item::Entry(entry) => {
                last = Some(entry.index());
                survey.add(path, &entry)?;
            }
        }
        Ok(())
    })?;
    let dir = wal.files().next().unwrap_or_default();
    if !has_metadata {
        return Err(Error::damaged(&dir, "the log does not say whose it is"));
    }
    let last = last.unwrap_or(0);
    if last < after {
        return Err(Error::damaged(
            &dir,
            format!(
                "the log ends at entry {last}, but the database has entry {after}: files of the log are missing"
            ),
        ));
    }
    Ok(survey)
}

impl Survey {
    fn add(&mut self, path: &Path, entry: &Entry) -> Result<()> {
        let Some(place) = entry.index().checked_sub(self.after + 1) else { return Ok(()) };
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        if place > self.terms.len() {
            let next = self.after + 1 + self.terms.len() as u64;
            return Err(Error::damaged(path, format!("entry {} follows, and {next} should", entry.index())));
        }
        self.terms.truncate(place);
        self.terms.push(entry.term());
        Ok(())
    }

    /// Entries that the database lacks.
    pub fn missing(&self) -> u64 {
        self.terms.len() as u64
    }
}

/// Applies what the database lacks, and returns the members that there are afterwards.
pub fn replay(
    wal: &Wal,
    survey: &Survey,
    builder: &mut Builder,
    mut members: BTreeMap<MemberId, Member>,
    progress: Progress<'_>,
) -> Result<BTreeMap<MemberId, Member>> {
    let mut done = 0;
    wal.read(&mut |path, item| {
        let Item::Entry(entry) = item else { return Ok(()) };
        // An entry that was replaced later has another term, or comes again.
        if survey.terms.get(done) != Some(&entry.term()) || entry.index() != survey.after + 1 + done as u64 {
            return Ok(());
        }
        builder.advance(LogPosition { term: entry.term(), index: entry.index() });
        let place = || Error::damaged(path, format!("entry {} is not understood", entry.index()));
        match entry.kind() {
            0 => {
                let request = Request::read(entry.data()).ok_or_else(place)?;
                request.apply(builder, &mut members)?;
            }
            1 => change_members(entry.data(), &mut members).ok_or_else(place)?,
            _ => return Err(place()),
        }
        done += 1;
        if builder.store().active_bytes() > MEMTABLE_BYTES_MAX {
            builder.flush()?;
        }
        progress(Phase::Log, done as u64, survey.missing());
        Ok(())
    })?;
    Ok(members)
}

impl Request {
    /// Reads an entry's data; a leader's first entry has none.
    fn read(data: &[u8]) -> Option<Request> {
        match Request::decode(data) {
            Ok(request) => Some(request),
            Err(_) => {
                let old = OldRequest::decode(data).ok()?;
                (!old.method.is_empty()).then(Request::default)
            }
        }
    }

    fn apply(self, builder: &mut Builder, members: &mut BTreeMap<MemberId, Member>) -> Result<()> {
        if self.v2.is_some() {
            return Ok(());
        }
        if let Some(MemberAttributes { member, attributes: Some(attributes) }) = self.member_attributes {
            if let Some(member) = members.get_mut(&member) {
                member.name = attributes.name;
                member.client_urls = attributes.client_urls;
            }
            return Ok(());
        }
        match self.command() {
            Some(command) => builder.apply(command),
            None => Ok(()),
        }
    }

    /// The same in our words; nothing if nothing is stored of it.
    fn command(self) -> Option<Command> {
        Some(if let Some(request) = self.put {
            Command::Put(convert::put(request))
        } else if let Some(request) = self.delete_range {
            Command::DeleteRange(convert::delete_range(request))
        } else if let Some(request) = self.txn {
            Command::Txn(convert::txn(request))
        } else if let Some(request) = self.compaction {
            Command::Compact { revision: request.revision }
        } else if let Some(request) = self.lease_grant {
            if request.id == 0 || request.ttl > LEASE_TTL_MAX_SECS {
                return None;
            }
            Command::LeaseGrant { id: request.id, ttl_secs: request.ttl.max(TTL_MIN_SECS) }
        } else if let Some(request) = self.lease_revoke {
            Command::LeaseRevoke { ids: vec![request.id], expired: false }
        } else if let Some(request) = self.lease_checkpoint {
            let checkpoints = request.checkpoints.iter();
            Command::LeaseCheckpoint(checkpoints.map(|c| (c.id, c.remaining_ttl)).collect())
        } else {
            let request = self.alarm?;
            let activate = match request.action() {
                AlarmAction::Get => return None,
                AlarmAction::Activate => true,
                AlarmAction::Deactivate => false,
            };
            Command::Alarm { activate, member: request.member_id, alarm: alarm_kind(request.alarm)? }
        })
    }
}

fn change_members(data: &[u8], members: &mut BTreeMap<MemberId, Member>) -> Option<()> {
    let change = ConfChange::decode(data).ok()?;
    let id = change.member();
    let described = || parse_member(change.context());
    match change.kind() {
        0 | 3 => {
            let described = described()?;
            let member = members.entry(id).or_insert_with(|| described.clone());
            member.is_learner = described.is_learner;
        }
        1 => drop(members.remove(&id)),
        2 => {
            let described = described()?;
            if let Some(member) = members.get_mut(&id) {
                member.peer_urls = described.peer_urls;
            }
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
#[path = "replay_test.rs"]
mod replay_test;
