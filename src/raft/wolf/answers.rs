//! What another member wants beside consensus: commands for the leader by `AppendEntries`, read indexes, questions and hand-overs by
//! `GetMetrics`. `calls` is the other end. Called by `server`.

use super::server::{Failure, Inner};
use super::{
    ErrorCode, FROM, HAND_OVER, INLINE_BYTES_MAX, KIND, PROPOSE, QUESTION, READ_INDEX, json, parse_vote,
    read_number, text,
};
use crate::engine::Engine;
use crate::engine::ask::{self, Answer, Question};
use crate::engine::consensus::BoxFuture;
use crate::engine::error::Error;
use crate::raft::node::Node;
use crate::raft::{Vote, propose};
use crate::types::MemberId;
use futures_util::future::join_all;
use openraft::async_runtime::WatchReceiver;
use std::sync::{Arc, OnceLock};
use tonic::metadata::MetadataMap;

/// The member that the service stands for, as far as that is more than openraft.
pub(super) trait Member: Send + Sync {
    /// A leader called.
    fn hears(&self, leader: MemberId, vote: &Vote);

    /// Whether a member was removed for good.
    fn is_removed(&self, id: MemberId) -> bool;

    /// As the leader: up to which entry a read of `asker` must wait. `promised` is the vote that the asker stands by.
    fn read_index(&self, asker: MemberId, promised: Option<Vote>) -> BoxFuture<'_, Result<u64, Error>>;

    /// Answers a question.
    fn answer(&self, question: Question) -> BoxFuture<'_, Answer>;
}

/// A member that runs.
pub(super) struct Real {
    pub node: Arc<Node>,
    /// Answers questions once it is there.
    pub engine: Arc<OnceLock<Engine>>,
}

impl Member for Real {
    fn hears(&self, leader: MemberId, vote: &Vote) {
        self.node.hears_from(leader, vote);
    }

    fn is_removed(&self, id: MemberId) -> bool {
        self.node.is_removed(id)
    }

    fn read_index(&self, asker: MemberId, promised: Option<Vote>) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(self.node.read_index_for(asker, promised))
    }

    fn answer(&self, question: Question) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            match self.engine.get() {
                Some(engine) => engine.answer(question).await,
                None => Answer::Failed(ask::Failure::NoLeader), // it has only just started
            }
        })
    }
}

/// What `GetMetrics` tells.
pub(super) struct Told {
    /// JSON: the metrics, or the answer to a question.
    pub metrics: String,
    /// The entry that a read must wait for, if that was asked.
    pub read_index: Option<u64>,
}

/// Whether a call of `AppendEntries` brings commands, not entries.
pub(super) fn is_proposal(metadata: &MetadataMap) -> Result<bool, Failure> {
    match text(metadata, KIND) {
        None => Ok(false),
        Some(PROPOSE) => Ok(true),
        Some(kind) => {
            Err((ErrorCode::RaftAppendEntriesFailed, format!("there are no entries of kind {kind:?}")))
        }
    }
}

impl Inner {
    /// Takes in the commands of another member if this one leads in the term that is meant, and waits until all outcomes are
    /// known. Returns the numbers of those that were not taken in. Nothing is, unless all can be read.
    pub(super) async fn take_in(&self, metadata: &MetadataMap, json: String) -> Result<Vec<u64>, Failure> {
        const FAILED: ErrorCode = ErrorCode::RaftAppendEntriesFailed;
        self.check_address(metadata, FAILED)?;
        let read = if json.len() <= INLINE_BYTES_MAX {
            json::read_proposal(&json)
        } else {
            let read = tokio::task::spawn_blocking(move || json::read_proposal(&json)).await;
            read.map_err(|e| (FAILED, e.to_string()))?
        };
        let (term, entries) = read.map_err(|e| {
            (ErrorCode::RaftAppendEntriesJsonOfReqIsNotValid, format!("req is no request: {e}"))
        })?;
        let mut outcomes = Vec::with_capacity(entries.len());
        for (number, entry) in entries {
            let refused = propose::take_in(&self.raft, term, entry).await;
            let refused = refused.map_err(|e| (FAILED, e.to_string()))?;
            outcomes.push(async move { refused.await.then_some(number) });
        }
        Ok(join_all(outcomes).await.into_iter().flatten().collect())
    }

    /// Answers what metadata asks, and tells the metrics if that leaves room for them.
    pub(super) async fn tell(&self, metadata: &MetadataMap) -> Result<Told, Failure> {
        const FAILED: ErrorCode = ErrorCode::RaftGetMetricsFailed;
        self.check_address(metadata, FAILED)?;
        if let Some(question) = text(metadata, QUESTION) {
            let question = serde_json::from_str(question);
            let question = question.map_err(|e| (FAILED, format!("no question that is known here: {e}")))?;
            let answer = serde_json::to_string(&self.member.answer(question).await);
            return Ok(Told { metrics: answer.map_err(|e| (FAILED, e.to_string()))?, read_index: None });
        }
        if let Some(told) = text(metadata, HAND_OVER) {
            self.hand_over(told).await.map_err(|e| (FAILED, e))?;
        }
        let mut read_index = None;
        if let Some(promised) = text(metadata, READ_INDEX) {
            read_index = Some(self.read_index(metadata, promised).await.map_err(|e| (FAILED, e))?);
        }
        let metrics = self.raft.metrics().borrow_watched().clone();
        let metrics = json::metrics(&metrics).map_err(|e| (FAILED, e.to_string()))?;
        Ok(Told { metrics, read_index })
    }

    /// Whoever does not say who asks makes no quorum with this member, whatever it promised.
    async fn read_index(&self, metadata: &MetadataMap, promised: &str) -> Result<u64, String> {
        let promised = match promised {
            "-" => None,
            vote => Some(parse_vote(vote).ok_or_else(|| format!("{vote:?} is no vote"))?),
        };
        let (asker, promised) = match read_number(metadata, FROM) {
            Some(asker) => (asker, promised),
            None => (0, None),
        };
        self.member.read_index(asker, promised).await.map_err(|e| e.to_string())
    }

    /// The leader gives way: to this member, or to another that this one must not keep from being elected.
    async fn hand_over(&self, told: &str) -> Result<(), String> {
        let request = json::read_hand_over(told).map_err(|e| e.to_string())?;
        let leader = &request.from_leader().leader_id;
        self.check_caller(leader.voted_for, leader.term, ErrorCode::RaftGetMetricsFailed).map_err(|e| e.1)?;
        let answer = self.raft.handle_transfer_leader(request).await.map_err(|e| e.to_string())?;
        answer.map_err(|refused| refused.to_string())
    }
}
