//! Takes in what comes by `AppendEntries`: a leader's entries, once it is certain that a leader can have sent them; commands are a
//! matter of `answers`. Called by `server`.

use super::answers;
use super::server::{Failure, Inner, check_leader};
use super::{ErrorCode, INLINE_BYTES_MAX, from_wire, json, to_wire};
use crate::pb::wolf::{ConflictOpt, RaftAppendEntriesOkRes};
use crate::raft::{LogId, Types, Vote};
use openraft::async_runtime::WatchReceiver;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use std::sync::Arc;
use tonic::metadata::MetadataMap;

/// What goes beside the answer of `AppendEntries`.
#[derive(Default)]
pub(super) struct Beside {
    /// The vote to answer with, if it is not that of the moment.
    pub vote: Option<Vote>,
    /// Numbers of commands that were not taken in.
    pub refused: Vec<u64>,
}

impl Inner {
    /// What `AppendEntries` answers, and what goes beside it.
    pub(super) async fn append_or_take_in(
        &self,
        call: &MetadataMap,
        json: String,
    ) -> Result<(RaftAppendEntriesOkRes, Beside), Failure> {
        let (mut ok, mut beside) = (RaftAppendEntriesOkRes::default(), Beside::default());
        if answers::is_proposal(call)? {
            beside.refused = self.take_in(call, json).await?;
            ok.term = self.raft.metrics().borrow_watched().current_term;
            ok.success = beside.refused.is_empty();
            return Ok((ok, beside));
        }
        let (leader, answer) = self.append(call, json).await?;
        ok.term = leader.leader_id.term;
        match answer {
            AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_) => ok.success = true,
            AppendEntriesResponse::Conflict => {
                let (term, index) = to_wire(self.log.last().as_ref());
                ok.conflict_opt = Some(ConflictOpt { term, index });
            }
            AppendEntriesResponse::HigherVote(higher) => {
                ok.term = higher.leader_id.term;
                beside.vote = Some(higher);
            }
        }
        Ok((ok, beside))
    }

    async fn append(
        &self,
        metadata: &MetadataMap,
        json: String,
    ) -> Result<(Vote, AppendEntriesResponse<Types>), Failure> {
        const FAILED: ErrorCode = ErrorCode::RaftAppendEntriesFailed;
        self.check_address(metadata, FAILED)?;
        let append = self.read(json).await?;
        let vote = append.vote;
        self.check_caller(vote.leader_id.voted_for, vote.leader_id.term, FAILED)?;
        let ours = self.raft.metrics().borrow_watched().vote;
        if ours > vote {
            return Ok((vote, AppendEntriesResponse::HigherVote(ours)));
        }
        check_leader(&ours, &vote).map_err(|e| (FAILED, e))?;
        self.member.hears(vote.leader_id.voted_for, &vote);
        let plan = self.plan(append).await.map_err(|e| (FAILED, e))?;
        let is_conflict = plan.is_none();
        let request = plan.unwrap_or(AppendEntriesRequest {
            vote,
            prev_log_id: None,
            entries: vec![],
            leader_commit: None,
        });
        match self.raft.append_entries(request).await.map_err(|e| (FAILED, e.to_string()))? {
            AppendEntriesResponse::Success if is_conflict => Ok((vote, AppendEntriesResponse::Conflict)),
            answer => Ok((vote, answer)),
        }
    }

    /// Reads a request, where it delays nobody if it is long.
    async fn read(&self, json: String) -> Result<json::Append, Failure> {
        let append = if json.len() <= INLINE_BYTES_MAX {
            json::read_append(&json, &self.table)
        } else {
            let table = Arc::clone(&self.table);
            let read = tokio::task::spawn_blocking(move || json::read_append(&json, &table)).await;
            read.map_err(|e| (ErrorCode::RaftAppendEntriesFailed, e.to_string()))?
        };
        append
            .map_err(|e| (ErrorCode::RaftAppendEntriesJsonOfReqIsNotValid, format!("req is no request: {e}")))
    }

    /// What openraft may see of a request. Nothing if the entry before has another term here: then the leader is heard, but
    /// our entries stay until there are others for their places.
    async fn plan(&self, append: json::Append) -> Result<Option<AppendEntriesRequest<Types>>, String> {
        if let Some(prev) = append.prev
            && self.id_at(prev.index).await?.is_some_and(|ours| ours != prev)
        {
            return Ok(None);
        }
        let committed = self.committed().await?;
        for entry in
            append.entries.iter().take_while(|entry| Some(entry.log_id.index) <= committed.map(|id| id.index))
        {
            if self.id_at(entry.log_id.index).await?.is_some_and(|ours| ours != entry.log_id) {
                return Err(format!("entry {} is committed, and of another term", entry.log_id.index + 1));
            }
        }
        let leader_commit = self.leader_commit(&append).await?;
        let json::Append { vote, prev, entries, .. } = append;
        Ok(Some(AppendEntriesRequest { vote, prev_log_id: prev, entries, leader_commit }))
    }

    /// Up to where the leader has committed: in the term that it says, which must be that of the entry if we can know; if it
    /// says none and we cannot know, nowhere: the next request will say more.
    async fn leader_commit(&self, append: &json::Append) -> Result<Option<LogId>, String> {
        let Some(index) = append.commit_index.checked_sub(1) else { return Ok(None) };
        let entry =
            append.entries.iter().map(|entry| entry.log_id).chain(append.prev).find(|id| id.index == index);
        let known = match append.prev {
            Some(prev) if index < prev.index => self.id_at(index).await?,
            _ => entry,
        };
        let said = append.commit_term.and_then(|term| from_wire(term, append.commit_index));
        match (known, said) {
            (Some(known), Some(said)) if known != said => {
                Err(format!("leader_commit {} is of another term", index + 1))
            }
            (_, Some(said)) if said.leader_id.term > append.vote.leader_id.term => {
                Err("leader_commit is of a later term than the leader".into())
            }
            _ => Ok(known.or(said)),
        }
    }

    /// Id of the entry at an index of the log, if it is not purged.
    async fn id_at(&self, index: u64) -> Result<Option<LogId>, String> {
        self.raft.with_raft_state(move |state| state.log_ids.get(index)).await.map_err(|e| e.to_string())
    }
}
