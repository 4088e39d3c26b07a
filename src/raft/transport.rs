//! How this member calls others: natively, or by `wolf.raft`. That is chosen once, for everything. What openraft calls by
//! itself goes by `network`; here is what members want of each other beside it: commands for the leader, read indexes and
//! questions. Who wants it does not know which transport carries it.

use super::network::Activity;
use super::peer::Link;
use super::peer::client::Client;
use super::waiting::Waiting;
use super::{Vote, wolf};
use crate::engine::ask::{Answer, Question};
use crate::engine::entry::Entry;
use crate::engine::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Batches that wait for the network.
pub const BATCHES_AHEAD: usize = 16;

/// Commands with tickets for the leader of a term, as many as go at once.
pub struct Batch {
    /// The term of the leader that is meant: nobody else may take them in.
    pub term: u64,
    /// The commands.
    pub entries: Vec<Entry>,
}

impl Batch {
    /// Numbers of the tickets.
    pub fn numbers(&self) -> impl Iterator<Item = u64> {
        self.entries.iter().filter_map(Entry::ticket).map(|ticket| ticket.number)
    }

    /// Nothing of it was taken in, and nothing will be: it may be offered again.
    pub fn refused(&self, waiting: &Waiting) {
        self.numbers().for_each(|number| waiting.refused(number));
    }
}

/// Makes transports. Cheap to clone.
#[derive(Clone)]
pub struct Transports {
    /// What calls bring to light.
    pub activity: Activity,
    /// How long an answer may take that needs no commit.
    pub patience: Duration,
    /// How long somebody waits for a command.
    pub request_timeout: Duration,
    /// Speak `wolf.raft`, and how.
    pub wolf: Option<wolf::Options>,
}

impl Transports {
    /// Calls over `link`.
    pub fn over(&self, link: Link) -> Transport {
        let activity = self.activity.clone();
        match &self.wolf {
            None => Transport::Native(Client::new(link, activity, self.patience)),
            Some(options) => Transport::Wolf(wolf::Client::new(link, options.clone(), activity)),
        }
    }

    /// The entry that a read must wait for, from the leader at the other end. `promised` is the vote that this member stands
    /// by.
    pub async fn read_index(&self, link: Link, promised: Option<Vote>) -> Result<u64, Error> {
        let asked = async {
            match self.over(link) {
                Transport::Native(client) => client.read_index(promised).await,
                Transport::Wolf(client) => client.read_index(promised).await,
            }
        };
        tokio::time::timeout(self.patience, asked).await.unwrap_or(Err(Error::Timeout))
    }

    /// Puts a question; it takes as long as it takes.
    pub async fn ask(&self, link: Link, question: &Question) -> Result<Answer, Error> {
        match self.over(link) {
            Transport::Native(client) => client.ask(question).await,
            Transport::Wolf(client) => client.ask(question).await,
        }
    }

    /// Opens a way for commands to the leader at the other end, which ends when a call fails; none if it does not answer. What
    /// was certainly not taken in is told to those who wait; of anything else, they hear by the log.
    pub async fn propose(&self, link: Link, waiting: Arc<Waiting>) -> Option<mpsc::Sender<Batch>> {
        let opened = async {
            match self.over(link) {
                Transport::Native(client) => client.propose(waiting).await,
                Transport::Wolf(client) => client.propose(waiting, self.request_timeout).await,
            }
        };
        tokio::time::timeout(self.patience, opened).await.ok().flatten()
    }
}

/// What carries the calls over one link.
pub enum Transport {
    /// `proto/kvist/peer.proto`.
    Native(Client),
    /// `proto/wolf/raft.proto`.
    Wolf(wolf::Client),
}
