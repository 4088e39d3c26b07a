//! The facade: this member's part in consensus, as the engine sees it.

use super::log_store::LogStore;
use super::network::NoPeers;
use super::state_machine::{OnApplied, StateMachine};
use super::wal::Wal;
use super::{Peer, Types, wal};
use crate::engine::apply::{Applier, LogPosition};
use crate::engine::ask::{Answer, Question, Whom};
use crate::engine::command::Applied;
use crate::engine::consensus::{BoxFuture, Consensus, PeerState, Status};
use crate::engine::entry::Entry;
use crate::engine::error::Error;
use crate::engine::flusher::Flusher;
use crate::metrics::METRICS;
use crate::mvcc::Store;
use crate::types::MemberId;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, RaftError};
use openraft::{Raft, ReadPolicy, ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Entries kept below the last flush: a purge must never come near the apply queue (openraft #2116), and followers that
/// are a little behind should find what they miss.
const PURGE_MARGIN_ENTRIES: u64 = 100_000;
/// Purges happen in steps of at least this many entries.
const PURGE_STEP_ENTRIES: u64 = 10_000;
/// Proposals in flight; beyond this new ones are refused.
const PROPOSALS_MAX: u64 = 50_000;

/// Settings.
#[derive(Clone, Debug)]
pub struct Options {
    /// Id of this member.
    pub id: MemberId,
    /// What the first membership says of it.
    pub peer: Peer,
    /// Directory of the log.
    pub wal_dir: PathBuf,
    /// Whether to sync at all; only tests say no.
    pub fsync: bool,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// Time without a heartbeat after which an election starts.
    pub election_timeout: Duration,
    /// Longest time that a proposal may take.
    pub request_timeout: Duration,
    /// Applying an entry for longer is logged.
    pub slow_apply: Duration,
}

/// This member's part in consensus. Cheap to share.
pub struct Node {
    raft: Raft<Types, StateMachine>,
    request_timeout: Duration,
    proposals: AtomicU64,
    /// Leader of a cluster in which nobody else votes: local reads are linearizable.
    is_sole_voter_leader: AtomicBool,
    purged: AtomicU64,
    term: AtomicU64,
    leader: AtomicU64,
}

/// A started node, and what ends when it fails.
pub struct Started {
    /// The node.
    pub node: Arc<Node>,
    /// Resolves, with the reason, when consensus can't go on.
    pub failed: tokio::sync::oneshot::Receiver<String>,
}

impl Node {
    /// Opens the log and starts consensus on the current runtime; bootstraps a new cluster of one when there is no
    /// membership yet. Returns when this member leads and has applied everything in its log.
    pub async fn start(
        options: Options,
        (applier, store, flusher): (Arc<Mutex<Applier>>, Arc<Store>, Flusher),
        on_applied: OnApplied,
    ) -> io::Result<Started> {
        let flushed = applier.lock().applied();
        let mut wal_options = wal::Options::new(options.wal_dir.clone());
        wal_options.sync = options.fsync;
        wal_options.scan_from = flushed.map(|p| p.index);
        let (wal, recovered) = Wal::open(wal_options).map_err(io::Error::other)?;
        if recovered.torn_bytes > 0 {
            tracing::info!(bytes = recovered.torn_bytes, "cut the torn tail of the raft log");
        }
        let purged = recovered.purged.map_or(0, |id| id.index);
        let log = LogStore::new(wal, recovered)?;
        check_continuity(flushed, &log)?;
        let machine = StateMachine::new(applier, store, flusher, on_applied, options.slow_apply);
        let config = Arc::new(config(&options).map_err(io::Error::other)?);
        let raft = Raft::new(options.id, config, NoPeers, log, machine).await.map_err(io::Error::other)?;
        let node = Arc::new(Node {
            raft,
            request_timeout: options.request_timeout,
            proposals: AtomicU64::new(0),
            is_sole_voter_leader: AtomicBool::new(false),
            purged: AtomicU64::new(purged),
            term: AtomicU64::new(0),
            leader: AtomicU64::new(0),
        });
        node.lead(&options).await?;
        let failed = node.clone().watch();
        Ok(Started { node, failed })
    }

    /// Becomes leader at once: nobody else can.
    async fn lead(&self, options: &Options) -> io::Result<()> {
        let is_new = !self.raft.is_initialized().await.map_err(io::Error::other)?;
        if is_new {
            let members = BTreeMap::from([(options.id, options.peer.clone())]);
            self.raft.initialize(members).await.map_err(io::Error::other)?;
        } else {
            self.raft.trigger().elect(false).await.map_err(io::Error::other)?;
        }
        let wait = self.raft.wait(Some(Duration::from_secs(60)));
        let led = |m: &openraft::RaftMetrics<Types>| {
            // The leader's own first entry is applied, and so is everything before it.
            m.state == ServerState::Leader
                && m.last_applied.is_some_and(|id| id.leader_id.term == m.current_term)
        };
        wait.metrics(led, "this member leads and has applied its log").await.map_err(io::Error::other)?;
        self.observe();
        Ok(())
    }

    fn observe(&self) {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        self.term.store(metrics.vote.leader_id.term, Ordering::Relaxed);
        let leader = metrics.current_leader.unwrap_or(0);
        if self.leader.swap(leader, Ordering::Relaxed) != leader && leader != 0 {
            METRICS.server.leader_changes.inc();
        }
        let mut voters = metrics.membership_config.voter_ids();
        let is_sole = voters.next() == Some(metrics.id) && voters.next().is_none();
        self.is_sole_voter_leader.store(is_sole && metrics.state == ServerState::Leader, Ordering::SeqCst);
    }

    /// Follows the state of consensus until it fails.
    fn watch(self: Arc<Self>) -> tokio::sync::oneshot::Receiver<String> {
        let (sender, failed) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let mut server = self.raft.server_metrics();
            let mut all = self.raft.metrics();
            loop {
                let changed = tokio::select! {
                    changed = server.changed() => changed,
                    changed = all.changed() => changed,
                };
                self.observe();
                let state = all.borrow_watched().running_state.clone();
                match state {
                    Err(Fatal::Stopped) => return,
                    Err(fatal) => {
                        self.is_sole_voter_leader.store(false, Ordering::SeqCst);
                        drop(sender.send(fatal.to_string()));
                        return;
                    }
                    Ok(()) if changed.is_err() => return,
                    Ok(()) => {}
                }
            }
        });
        failed
    }

    /// Lets go of log entries well below `flushed`, the last entry whose effect is in the state environment.
    pub async fn purge(&self, flushed: LogPosition) {
        let upto = flushed.index.saturating_sub(PURGE_MARGIN_ENTRIES);
        if upto < self.purged.load(Ordering::Relaxed) + PURGE_STEP_ENTRIES {
            return;
        }
        self.purged.store(upto, Ordering::Relaxed);
        let trigger = self.raft.trigger();
        // openraft purges only what it knows to be in a snapshot; the last flush is one.
        let snapshot = self.raft.wait(Some(self.request_timeout));
        if trigger.snapshot().await.is_err() {
            return;
        }
        let known = snapshot.metrics(|m| m.snapshot.is_some_and(|id| id.index >= upto), "a snapshot").await;
        if let Err(error) = known {
            tracing::warn!(%error, "could not tell consensus of the last flush; the log is purged later");
            return;
        }
        if let Err(error) = trigger.purge_log(upto).await {
            tracing::warn!(%error, "could not purge the raft log");
        }
    }

    /// Ends this member's part.
    pub async fn stop(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(%error, "consensus did not stop cleanly");
        }
    }

    async fn write(&self, entry: Entry) -> Result<Applied, Error> {
        match self.raft.client_write(entry).await {
            Ok(response) => Ok(response.data),
            Err(RaftError::Fatal(_)) => Err(Error::Stopped),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Err(Error::NoLeader),
            Err(RaftError::APIError(_)) => Err(Error::LeaderChanged),
        }
    }
}

/// Counts a proposal while it lives.
struct InFlight<'n>(&'n AtomicU64);

impl<'n> InFlight<'n> {
    fn enter(count: &'n AtomicU64) -> Option<InFlight<'n>> {
        let entered = InFlight(count);
        METRICS.server.proposals_pending.inc();
        (count.fetch_add(1, Ordering::Relaxed) < PROPOSALS_MAX).then_some(entered)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        METRICS.server.proposals_pending.dec();
    }
}

impl Consensus for Node {
    fn propose(&self, entry: Entry) -> BoxFuture<'_, Result<Applied, Error>> {
        Box::pin(async move {
            let _in_flight = InFlight::enter(&self.proposals).ok_or(Error::TooManyRequests)?;
            let written = tokio::time::timeout(self.request_timeout, self.write(entry)).await;
            let result = written.unwrap_or(Err(Error::Timeout));
            if result.is_err() {
                METRICS.server.proposals_failed.inc();
            }
            result
        })
    }

    fn read_index(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            if self.is_sole_voter_leader.load(Ordering::SeqCst) {
                // Every acknowledged write has been applied here before it was acknowledged.
                return Ok(());
            }
            let linearized = self.raft.ensure_linearizable(ReadPolicy::ReadIndex);
            let Ok(linearized) = tokio::time::timeout(self.request_timeout, linearized).await else {
                METRICS.server.slow_read_indexes.inc();
                return Err(Error::Timeout);
            };
            linearized.map(drop).map_err(|error| {
                METRICS.server.read_indexes_failed.inc();
                match error {
                    RaftError::Fatal(_) => Error::Stopped,
                    RaftError::APIError(_) => Error::NoLeader,
                }
            })
        })
    }

    fn term(&self) -> u64 {
        self.term.load(Ordering::Relaxed)
    }

    fn move_leader(&self, _to: MemberId) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { Err(Error::BadTransferee) })
    }

    fn peers(&self) -> Vec<PeerState> {
        Vec::new()
    }

    fn ask(&self, _whom: Whom, _question: Question) -> BoxFuture<'_, Result<Answer, Error>> {
        Box::pin(async { Err(Error::NoLeader) })
    }

    fn left(&self, _id: MemberId) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }

    fn status(&self) -> Status {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        Status {
            leader: metrics.current_leader.unwrap_or(0),
            term: metrics.current_term,
            committed: metrics.last_log_index.unwrap_or(0),
            applied: metrics.last_applied.map_or(0, |id| id.index),
            is_learner: metrics.state == ServerState::Learner,
        }
    }
}

fn config(options: &Options) -> Result<openraft::Config, openraft::ConfigError> {
    let election = options.election_timeout.as_millis() as u64;
    openraft::Config {
        cluster_name: "kvist".into(),
        heartbeat_interval: options.heartbeat.as_millis() as u64,
        election_timeout_min: election,
        election_timeout_max: 2 * election,
        max_payload_entries: 4096,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        purge_batch_size: 1024,
        enable_pre_vote: Some(true),
        ..openraft::Config::default()
    }
    .validate()
}

/// The log must continue where the state ends, else acknowledged writes are missing.
fn check_continuity(flushed: Option<LogPosition>, log: &LogStore) -> io::Result<()> {
    let last = log.last().map(|id| id.index);
    match flushed {
        Some(flushed) if last.is_none_or(|last| last < flushed.index) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "the raft log ends at index {} but the state was flushed at index {}: the log directory does not \
                 belong to this data directory, or files of it are missing",
                last.map_or("-".to_owned(), |i| i.to_string()),
                flushed.index
            ),
        )),
        _ => Ok(()),
    }
}
