//! openraft's messages as those of `proto/kvist/peer.proto`, and back. A message that lacks what it must have is refused.

use crate::pb::peer as pb;
use crate::raft::{LogEntry, LogId, Types, Vote, codec};
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, VoteRequest, VoteResponse,
};
use std::io;
use tonic::Status;

/// Something that the message must have is missing or makes no sense.
fn malformed(what: &str) -> Status {
    Status::invalid_argument(format!("malformed message of a member: {what}"))
}

/// A vote on the wire.
pub fn from_vote(vote: &Vote) -> pb::Vote {
    let leader = &vote.leader_id;
    pb::Vote { term: leader.term, member: leader.voted_for, committed: vote.committed }
}

/// A vote from the wire.
pub fn to_vote(vote: Option<pb::Vote>) -> Result<Vote, Status> {
    let vote = vote.ok_or_else(|| malformed("no vote"))?;
    Ok(match vote.committed {
        true => Vote::new_committed(vote.term, vote.member),
        false => Vote::new(vote.term, vote.member),
    })
}

/// A log id on the wire.
pub fn from_log_id(id: &LogId) -> pb::LogId {
    pb::LogId { term: id.leader_id.term, index: id.index }
}

/// A log id from the wire.
pub fn to_log_id(id: pb::LogId) -> LogId {
    codec::log_id(id.term, id.index)
}

fn from_entry(entry: LogEntry) -> pb::Entry {
    let (kind, payload) = codec::payload_parts(&entry.payload);
    let id = &entry.log_id;
    pb::Entry { term: id.leader_id.term, index: id.index, kind: u32::from(kind), payload }
}

fn to_entry(entry: pb::Entry) -> io::Result<LogEntry> {
    let kind = u8::try_from(entry.kind).unwrap_or(u8::MAX);
    let payload = codec::payload_of(kind, entry.payload)?;
    Ok(LogEntry { log_id: codec::log_id(entry.term, entry.index), payload })
}

/// Entries for a follower.
pub fn from_append(request: AppendEntriesRequest<Types>) -> pb::AppendRequest {
    pb::AppendRequest {
        vote: Some(from_vote(&request.vote)),
        previous: request.prev_log_id.as_ref().map(from_log_id),
        committed: request.leader_commit.as_ref().map(from_log_id),
        entries: request.entries.into_iter().map(from_entry).collect(),
    }
}

/// Entries from the leader.
pub fn to_append(request: pb::AppendRequest) -> Result<AppendEntriesRequest<Types>, Status> {
    let entries: io::Result<Vec<LogEntry>> = request.entries.into_iter().map(to_entry).collect();
    Ok(AppendEntriesRequest {
        vote: to_vote(request.vote)?,
        prev_log_id: request.previous.map(to_log_id),
        leader_commit: request.committed.map(to_log_id),
        entries: entries.map_err(|error| Status::invalid_argument(error.to_string()))?,
    })
}

/// What became of entries, for the leader.
pub fn from_appended(result: StreamAppendResult<Types>) -> pb::AppendResponse {
    use pb::append_response::{Matched, Result as R};
    let result = match result {
        Ok(upto) => R::Matched(Matched { upto: upto.as_ref().map(from_log_id) }),
        Err(StreamAppendError::Conflict(id)) => R::Conflict(from_log_id(&id)),
        Err(StreamAppendError::HigherVote(vote)) => R::Higher(from_vote(&vote)),
    };
    pb::AppendResponse { result: Some(result) }
}

/// What became of entries at a follower.
pub fn to_appended(response: pb::AppendResponse) -> Result<StreamAppendResult<Types>, Status> {
    use pb::append_response::Result as R;
    Ok(match response.result.ok_or_else(|| malformed("no result"))? {
        R::Matched(matched) => Ok(matched.upto.map(to_log_id)),
        R::Conflict(id) => Err(StreamAppendError::Conflict(to_log_id(id))),
        R::Higher(vote) => Err(StreamAppendError::HigherVote(to_vote(Some(vote))?)),
    })
}

/// A candidate's question.
pub fn from_vote_request(request: &VoteRequest<Types>, is_trial: bool) -> pb::VoteRequest {
    pb::VoteRequest {
        vote: Some(from_vote(&request.vote)),
        last: request.last_log_id.as_ref().map(from_log_id),
        is_transfer: request.leadership_transfer,
        is_trial,
    }
}

/// A candidate's question, from the wire.
pub fn to_vote_request(request: pb::VoteRequest) -> Result<VoteRequest<Types>, Status> {
    let mut asked = VoteRequest::new(to_vote(request.vote)?, request.last.map(to_log_id));
    asked.leadership_transfer = request.is_transfer;
    Ok(asked)
}

/// The answer to a candidate.
pub fn from_vote_response(response: &VoteResponse<Types>) -> pb::VoteResponse {
    pb::VoteResponse {
        vote: Some(from_vote(&response.vote)),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(from_log_id),
    }
}

/// The answer to a candidate, from the wire.
pub fn to_vote_response(response: pb::VoteResponse) -> Result<VoteResponse<Types>, Status> {
    Ok(VoteResponse::new(to_vote(response.vote)?, response.last.map(to_log_id), response.granted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Origin;
    use crate::engine::command::Command;
    use crate::engine::entry::{Entry, Ticket};
    use crate::raft::{Membership, Payload, Peer};
    use openraft::entry::RaftPayload;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn payloads() -> Vec<Payload> {
        let entry = Entry::new(Origin::Server, Command::Compact { revision: 3 }, 5);
        let peer = Peer { name: "a".into(), urls: vec!["http://a:1".into()] };
        let membership = Membership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, peer)])).unwrap();
        vec![
            Payload::Blank,
            Payload::Normal(entry.ticketed(Ticket { proposer: 2, number: 9 })),
            Payload::Membership(membership),
        ]
    }

    #[test]
    fn entries_pass_unchanged() {
        let entries = payloads().into_iter().zip(1..);
        let entries: Vec<LogEntry> =
            entries.map(|(payload, n)| LogEntry { log_id: codec::log_id(2, n), payload }).collect();
        let request = AppendEntriesRequest {
            vote: Vote::new_committed(2, 7),
            prev_log_id: None,
            leader_commit: Some(codec::log_id(1, 4)),
            entries,
        };
        let passed = to_append(from_append(request.clone())).unwrap();
        assert_eq!((passed.vote, passed.prev_log_id), (request.vote, request.prev_log_id));
        assert_eq!((passed.leader_commit, passed.entries), (request.leader_commit, request.entries));
    }

    #[test]
    fn messages_without_their_substance_are_refused() {
        assert!(to_append(pb::AppendRequest::default()).is_err());
        assert!(to_appended(pb::AppendResponse::default()).is_err());
        assert!(to_vote_request(pb::VoteRequest::default()).is_err());
        assert!(to_vote_response(pb::VoteResponse::default()).is_err());
        let unknown = pb::Entry { kind: 9, ..pb::Entry::default() };
        let vote = Some(from_vote(&Vote::new(1, 1)));
        assert!(to_append(pb::AppendRequest { vote, entries: vec![unknown], ..Default::default() }).is_err());
    }

    proptest! {
        #[test]
        fn votes_and_results_pass_unchanged(term: u64, member: u64, committed: bool, at: Option<(u64, u64)>, flags: (bool, bool)) {
            let vote = to_vote(Some(pb::Vote { term, member, committed })).unwrap();
            prop_assert_eq!(to_vote(Some(from_vote(&vote))).unwrap(), vote);
            let last = at.map(|(term, index)| codec::log_id(term, index));
            let mut request = VoteRequest::new(vote, last);
            request.leadership_transfer = flags.0;
            prop_assert_eq!(to_vote_request(from_vote_request(&request, flags.1)).unwrap(), request);
            let response = VoteResponse::new(vote, last, flags.0);
            prop_assert_eq!(to_vote_response(from_vote_response(&response)).unwrap(), response);
            for result in [Ok(last), Err(StreamAppendError::Conflict(codec::log_id(term, member))), Err(StreamAppendError::HigherVote(vote))] {
                prop_assert_eq!(to_appended(from_appended(result.clone())).unwrap(), result);
            }
        }
    }
}
