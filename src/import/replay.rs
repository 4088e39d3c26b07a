//! What etcd's raft log has and its database has not, carried out on the new state.
//!
//! etcd writes its database every 100 ms, and its log before every answer. So a member that was killed, or even stopped,
//! may have acknowledged writes that only the log knows: they are applied as etcd would at its next start. The log of a
//! member that is alone counts to its end, even beyond what is marked as committed: etcd answers before it writes that
//! mark, and at its next start a lone member commits all that its log has.

use super::backend::parse_member;
use super::build::Builder;
use super::request::{Attributes, Request};
use super::wal::{Entry, HardState, Item, Metadata, Wal};
use super::{Error, Phase, Progress, Result};
use crate::engine::apply::LogPosition;
use crate::engine::command::Member;
use crate::types::MemberId;
use prost::Message;
use std::collections::BTreeMap;
use std::path::Path;

/// Bytes of changes in memory that are worth a flush.
const MEMTABLE_BYTES_MAX: usize = 8 << 20;

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
                if let Some((id, published)) = request.published() {
                    publish(id, published, &mut members);
                } else if let Some((origin, command)) = request.into_command() {
                    builder.apply(origin, command)?;
                }
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

/// What a member made known of itself.
fn publish(id: MemberId, attributes: &Attributes, members: &mut BTreeMap<MemberId, Member>) {
    if let Some(member) = members.get_mut(&id) {
        member.name.clone_from(&attributes.name);
        member.client_urls.clone_from(&attributes.client_urls);
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
