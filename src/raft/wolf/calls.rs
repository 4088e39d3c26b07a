//! What a member wants of another beside consensus, by calls that are there for consensus: commands for the leader go by
//! `AppendEntries`, all else by `GetMetrics`, and metadata says what it is. `answers` is the other end. Called by `transport`.
//!
//! Commands must never be proposed twice. So a ticket is given back only if the leader says that it took the command not
//! in, or if the command never left; a call that fails says nothing, and who waits hears by the log. And the other end must have
//! shown that it knows what commands are, or it could take them for entries of a leader. (If it lost that knowledge
//! since, keys are missing that entries must have, and it refuses.)

use super::{
    Client, ErrorCode, HAND_OVER, INLINE_BYTES_MAX, KIND, PROPOSE, QUESTION, READ_INDEX, REFUSED, ascii,
    code_of, json, read_number, read_numbers, vote_text,
};
use crate::engine::ask::{Answer, Question};
use crate::engine::entry::Entry;
use crate::engine::error::Error;
use crate::pb::wolf::raft_append_entries_res::Response as Appended;
use crate::pb::wolf::{RaftAppendEntriesReq, RaftAppendEntriesRes};
use crate::raft::peer::Lane;
use crate::raft::transport::{BATCHES_AHEAD, Batch};
use crate::raft::waiting::Waiting;
use crate::raft::{Types, Vote};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use openraft::errors::{RPCError, Unreachable};
use openraft::raft::{TransferLeaderRequest, TransferLeaderResponse};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::metadata::MetadataMap;

/// Calls with commands that are on their way at once. Each lasts until its commands are committed, so one alone would be slow;
/// what waits meanwhile goes together.
const CALLS_MAX: usize = 32;

/// Numbers of the commands that were certainly not taken in; or why nothing is known.
type Refused = Result<Vec<u64>, String>;

impl Client {
    /// The entry that a read must wait for, from the leader. `promised` is the vote that this member stands by.
    pub(in crate::raft) async fn read_index(mut self, promised: Option<Vote>) -> Result<u64, Error> {
        let promised = promised.map_or_else(|| "-".to_owned(), |vote| vote_text(&vote));
        let answer = self.get_metrics(Some((READ_INDEX, ascii(&promised)))).await;
        let (_, metadata) = answer.map_err(|_| Error::NoLeader)?;
        let index = read_number(&metadata, READ_INDEX).and_then(|index| index.checked_sub(1));
        index.ok_or(Error::NoLeader)
    }

    /// Puts a question, which takes the place of the metrics.
    pub async fn ask(mut self, question: &Question) -> Result<Answer, Error> {
        fn failed(error: impl Display) -> Error {
            Error::Peer(error.to_string())
        }
        let question = serde_json::to_string(question).map_err(failed)?.parse().map_err(failed)?;
        let (answer, _) = self.get_metrics(Some((QUESTION, question))).await.map_err(failed)?;
        serde_json::from_str(&answer).map_err(failed)
    }

    /// Tells of a hand-over.
    pub(super) async fn hand_over(
        &mut self,
        request: &TransferLeaderRequest<Types>,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let told = ascii(&json::write_hand_over(request));
        self.get_metrics(Some((HAND_OVER, told))).await?;
        if !self.knows_extensions {
            return Err(Unreachable::from_string("it knows nothing of handing over").into());
        }
        Ok(Ok(()))
    }

    /// Opens a way for commands to the leader; none if it does not answer, or knows nothing of commands. A call lasts no longer
    /// than `limit`: then nobody waits for it.
    pub async fn propose(mut self, waiting: Arc<Waiting>, limit: Duration) -> Option<mpsc::Sender<Batch>> {
        match self.is_extended(limit).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::debug!(target = self.target(), "the leader knows nothing of commands by wolf.raft");
                return None;
            }
            Err(error) => {
                tracing::debug!(%error, "the leader takes no commands");
                return None;
            }
        }
        let (batches, queue) = mpsc::channel(BATCHES_AHEAD);
        tokio::spawn(self.send(queue, waiting, limit));
        Some(batches)
    }

    /// Sends commands until nobody has more, or a call fails.
    async fn send(self, mut queue: mpsc::Receiver<Batch>, waiting: Arc<Waiting>, limit: Duration) {
        let tell = |refused: Vec<u64>| refused.into_iter().for_each(|number| waiting.refused(number));
        let mut calls = FuturesUnordered::new();
        loop {
            tokio::select! {
                batch = queue.recv(), if calls.len() < CALLS_MAX => match batch {
                    Some(batch) => calls.push(self.clone().offer(batch, limit)),
                    None => break,
                },
                Some(refused) = calls.next(), if !calls.is_empty() => match refused {
                    Ok(refused) => tell(refused),
                    Err(error) => {
                        tracing::debug!(error, "what became of commands is not known");
                        break;
                    }
                },
            }
        }
        queue.close();
        while let Some(batch) = queue.recv().await {
            batch.refused(&waiting); // it has not left
        }
        while let Some(refused) = calls.next().await {
            tell(refused.unwrap_or_default()); // of a call that failed, nothing is known
        }
    }

    /// Offers commands to the leader, and waits until it knows what becomes of them.
    async fn offer(mut self, batch: Batch, limit: Duration) -> Refused {
        let numbers: Vec<u64> = batch.numbers().collect();
        let req = write(batch).await?;
        let msg_id = self.msg_id();
        let mut request = self.request(RaftAppendEntriesReq { msg_id: msg_id.clone(), req });
        request.metadata_mut().insert(KIND, ascii(PROPOSE));
        let mut stub = self.stub(Lane::Control);
        let answer = tokio::time::timeout(limit, stub.append_entries(request)).await;
        let answer = answer.map_err(|_| "no answer in time".to_owned())?;
        let (answer, metadata) = self.heard(answer).map_err(|error| error.to_string())?;
        read_refused(answer, &metadata, &msg_id, numbers)
    }
}

/// The JSON of commands, made where it delays nobody if there is much of it.
async fn write(Batch { term, entries }: Batch) -> Result<String, String> {
    let size: usize = entries.iter().map(|entry: &Entry| entry.bytes().len()).sum();
    if size <= INLINE_BYTES_MAX {
        return Ok(json::write_proposal(term, &entries));
    }
    let written = tokio::task::spawn_blocking(move || json::write_proposal(term, &entries)).await;
    written.map_err(|e| e.to_string())
}

/// Which of `numbers` an answer says were not taken in.
fn read_refused(
    answer: RaftAppendEntriesRes,
    metadata: &MetadataMap,
    msg_id: &str,
    mut numbers: Vec<u64>,
) -> Refused {
    match answer.response {
        Some(Appended::OkRes(ok)) if ok.msg_id == msg_id => {
            let refused = read_numbers(metadata, REFUSED).ok_or("an answer that cannot be read")?;
            numbers.retain(|number| refused.contains(number));
            Ok(numbers)
        }
        // It could not even read them.
        Some(Appended::ErrorRes(error))
            if error.msg_id == msg_id
                && code_of(&error) == ErrorCode::RaftAppendEntriesJsonOfReqIsNotValid =>
        {
            tracing::warn!(error.msg, "the leader cannot read a command: is it of another version?");
            Ok(numbers)
        }
        Some(Appended::ErrorRes(error)) => Err(error.msg),
        _ => Err("an answer to something else".into()),
    }
}
