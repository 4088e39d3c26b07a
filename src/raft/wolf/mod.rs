//! `wolf.raft`: the calls between members in a form that people can read, served on the peer port and, if so configured, used
//! to call others. `docs/wolf-raft.md` has the mapping; what the messages have no place for goes into metadata.
//!
//! Rules that the mapping stands on:
//! - A log id is (term, index) and nothing more, since there is one leader a term (standard leader ids).
//! - Index 0 is "nothing" here and the first entry to openraft: so indexes are one more here.
//! - A leader's vote is committed, a candidate's is not. So a term and an id say it all.
//! - What is unclear in an answer is an error of the network: it is asked again, and nothing follows from it. Commands for the
//!   leader are not even sent again.
//!
//! [`Client`] calls, [`Service`] answers; `network`, `transport` and `server` put them to use. What is consensus itself is in
//! `client`, `server`, `append` and `snapshot`, what members want of each other beside it in `calls` and `answers`.

mod answers;
mod append;
mod bootstrap;
mod calls;
#[cfg(test)]
mod calls_test;
mod client;
#[cfg(test)]
mod client_test;
#[cfg(test)]
mod cluster_test;
mod command;
mod json;
#[cfg(test)]
mod json_test;
mod readable;
mod server;
mod snapshot;

pub use client::Client;
pub use server::Service;

use super::{LogId, Vote, codec};
use crate::pb::wolf::{ErrorCode, RaftErrorRes};
use std::path::PathBuf;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

/// Largest message, before and after decompression.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// A call with more JSON is split between entries.
const JSON_BYTES_MAX: usize = 2 << 20;
/// More than this is turned into JSON, or read from it, on a thread of its own: consensus must not wait for it.
const INLINE_BYTES_MAX: usize = 64 << 10;
/// What old servers add to the numbers of the enum.
const OLD_CODE_BASE: i32 = 7000;
/// Terms beyond have been made up: a cluster gets there in ages only, and counting on would overflow.
const TERM_MAX: u64 = 1 << 62;

/// Which cluster the caller is in, and whom it means to call; decimal.
const CLUSTER: &str = "wolf-cluster";
const TARGET: &str = "wolf-target";
/// Who calls; decimal.
const FROM: &str = "wolf-from";
/// What the caller began with, decimal; only in calls of the first members.
const ORIGIN: &str = "wolf-origin";
/// `1` in answers to a caller that was removed from the cluster.
const REMOVED: &str = "wolf-removed";
/// `1` in answers of servers that know all of this metadata.
const EXTENSIONS: &str = "wolf-ext";
/// In an answer: the exact vote of the answering member, as `term/node/committed` or `term/node/uncommitted`.
const VOTE: &str = "wolf-vote";
/// In an answer: the last entry of the answering member, as `term/index`.
const LAST_LOG: &str = "wolf-last-log";
/// In a request for a vote: [`TRANSFER`] or [`PRE_VOTE`].
const VOTE_KIND: &str = "wolf-vote-kind";
const TRANSFER: &str = "transfer";
const PRE_VOTE: &str = "pre";
/// In a call of `AppendEntries`: [`PROPOSE`], what comes are commands for the leader.
const KIND: &str = "wolf-kind";
const PROPOSE: &str = "propose";
/// In the answer to that: numbers of the tickets of commands that were not taken in, decimal, with commas.
const REFUSED: &str = "wolf-refused";
/// In a call of `GetMetrics`: the vote that the caller stands by, or `-`; in the answer, up to which entry a read must wait.
const READ_INDEX: &str = "wolf-read-index";
/// In a call of `GetMetrics`: the JSON of a question, whose answer takes the place of the metrics.
const QUESTION: &str = "wolf-question";
/// In a call of `GetMetrics`: JSON, the leader gives way.
const HAND_OVER: &str = "wolf-hand-over";

/// Settings.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Compress what is sent.
    pub gzip: bool,
    /// Number added to error codes, 0 or 7000.
    pub code_base: u32,
    /// Where snapshots lie on their way: the member's directory.
    pub dir: PathBuf,
    /// Bytes that the database of a received snapshot may have.
    pub quota: u64,
    /// What this member began with, if it is one of the first of several.
    pub origin: Option<u64>,
}

/// The term and index of a log id; both 0 for none.
fn to_wire(id: Option<&LogId>) -> (u64, u64) {
    id.map_or((0, 0), |id| (id.leader_id.term, id.index.saturating_add(1)))
}

/// The log id of a term and an index.
fn from_wire(term: u64, index: u64) -> Option<LogId> {
    index.checked_sub(1).map(|index| codec::log_id(term, index))
}

fn vote_text(vote: &Vote) -> String {
    let state = if vote.committed { "committed" } else { "uncommitted" };
    format!("{}/{}/{state}", vote.leader_id.term, vote.leader_id.voted_for)
}

fn read_vote(metadata: &MetadataMap) -> Option<Vote> {
    parse_vote(metadata.get(VOTE)?.to_str().ok()?)
}

fn parse_vote(text: &str) -> Option<Vote> {
    let mut parts = text.split('/');
    let (term, node) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    match (parts.next()?, parts.next()) {
        ("committed", None) => Some(Vote::new_committed(term, node)),
        ("uncommitted", None) => Some(Vote::new(term, node)),
        _ => None,
    }
}

fn read_last_log(metadata: &MetadataMap) -> Option<LogId> {
    let (term, index) = metadata.get(LAST_LOG)?.to_str().ok()?.split_once('/')?;
    from_wire(term.parse().ok()?, index.parse().ok()?)
}

fn read_number(metadata: &MetadataMap, name: &str) -> Option<u64> {
    metadata.get(name)?.to_str().ok()?.parse().ok()
}

/// The text of a name; empty if it is none that we could have sent.
fn text<'m>(metadata: &'m MetadataMap, name: &str) -> Option<&'m str> {
    metadata.get(name).map(|value| value.to_str().unwrap_or_default())
}

fn ascii(text: &str) -> MetadataValue<Ascii> {
    text.parse().expect("digits, letters and what JSON puts between them")
}

fn write_numbers(numbers: &[u64]) -> MetadataValue<Ascii> {
    ascii(&numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(","))
}

/// The numbers of a name, none if it is not there; nothing if it has something else.
fn read_numbers(metadata: &MetadataMap, name: &str) -> Option<Vec<u64>> {
    let Some(value) = metadata.get(name) else { return Some(Vec::new()) };
    value.to_str().ok()?.split(',').map(|number| number.parse().ok()).collect()
}

fn error(msg_id: &str, code: ErrorCode, code_base: u32, msg: String) -> RaftErrorRes {
    let code = code as i32 + i32::try_from(code_base).unwrap_or(0);
    RaftErrorRes { msg_id: msg_id.to_owned(), code, msg }
}

/// The code of an error, whatever was added to it.
fn code_of(error: &RaftErrorRes) -> ErrorCode {
    let own = ErrorCode::try_from(error.code);
    own.or_else(|_| ErrorCode::try_from(error.code.wrapping_sub(OLD_CODE_BASE)))
        .unwrap_or(ErrorCode::RaftUndefinedError)
}
