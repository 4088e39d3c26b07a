//! What members want of each other beside consensus, natively. Called by `transport`.

use super::client::Client;
use super::link::Lane;
use super::wire;
use crate::engine::ask::{Answer, Question};
use crate::engine::error::Error;
use crate::pb::peer as pb;
use crate::raft::Vote;
use crate::raft::transport::{BATCHES_AHEAD, Batch};
use crate::raft::waiting::Waiting;
use futures_util::StreamExt;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

impl Client {
    /// The entry that a read must wait for, from the leader.
    pub async fn read_index(&self, promised: Option<Vote>) -> Result<u64, Error> {
        let promised = promised.as_ref().map(wire::from_vote);
        let request = self.link().signed(pb::ReadIndexRequest { promised });
        let answer = self.client(Lane::Control).read_index(request).await;
        let answer = answer.inspect_err(|status| self.note(status)).map_err(|_| Error::NoLeader)?;
        Ok(answer.into_inner().index)
    }

    /// Puts a question.
    pub async fn ask(&self, question: &Question) -> Result<Answer, Error> {
        let failed = |error: postcard::Error| Error::Peer(error.to_string());
        let question = postcard::to_stdvec(question).map_err(failed)?.into();
        let answer = self.client(Lane::Control).ask(self.link().signed(pb::AskRequest { question })).await;
        let answer = answer.inspect_err(|status| self.note(status));
        let answer = answer.map_err(|status| Error::Peer(status.message().to_owned()))?;
        postcard::from_bytes(&answer.into_inner().answer).map_err(failed)
    }

    /// Opens a stream of commands; what the leader refuses is told to those who wait.
    pub async fn propose(&self, waiting: Arc<Waiting>) -> Option<mpsc::Sender<Batch>> {
        let (batches, queue) = mpsc::channel(BATCHES_AHEAD);
        let requests = ReceiverStream::new(queue).map(|Batch { term, entries }| pb::ProposeRequest {
            term,
            entries: entries.iter().map(|entry| entry.bytes().clone()).collect(),
        });
        let opened = self.client(Lane::Control).propose(self.link().signed(requests)).await;
        let opened = opened.inspect_err(|error| tracing::debug!(%error, "the leader takes no commands"));
        let mut answers = opened.ok()?.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(answer)) = answers.message().await {
                answer.refused.into_iter().for_each(|number| waiting.refused(number));
            }
        });
        Some(batches)
    }
}
