//! The facade: this member's part in consensus, as the engine sees it.

use super::alone::go_on_alone;
use super::log_store::LogStore;
use super::network::{Activity, Network};
use super::peer::{Link, Links};
use super::propose::{self, Forward};
use super::purge::Keep;
use super::reads::{self, Read};
use super::state_machine::{OnApplied, StateMachine};
use super::waiting::Waiting;
use super::wal::{self, Wal};
use super::{Peer, Types, Vote};
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
use openraft::errors::Fatal;
use openraft::{Instant as _, Raft, ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Proposals in flight; beyond this new ones are refused.
const PROPOSALS_MAX: u64 = 50_000;
/// Silence of the leader after which there is none, in election timeouts: an election begins after one to two of them.
const SILENCE_ELECTIONS: u32 = 2;

/// Settings.
#[derive(Clone, Debug)]
pub struct Options {
    /// Id of this member.
    pub id: MemberId,
    /// The first members, if this is the first start of a new cluster.
    pub founders: BTreeMap<MemberId, Peer>,
    /// Directory of the log.
    pub wal_dir: PathBuf,
    /// Whether to sync at all; only tests say no.
    pub fsync: bool,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// Time without a heartbeat after which an election starts.
    pub election_timeout: Duration,
    /// Whether a member asks whether it would be elected before it disturbs the others.
    pub pre_vote: bool,
    /// Longest time that a proposal may take.
    pub request_timeout: Duration,
    /// Applying an entry for longer is logged.
    pub slow_apply: Duration,
    /// Which entries are kept.
    pub keep: Keep,
    /// Go on alone, whoever else belonged to the cluster: what others must reach this member by.
    pub alone: Option<Peer>,
    /// Call others by `wolf.raft`, and how.
    pub wolf: Option<super::wolf::Options>,
}

/// Who leads, as this member sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Leadership {
    /// The term.
    pub term: u64,
    /// Its leader, if that has shown a sign of life lately, or 0.
    pub leader: MemberId,
}

/// This member's part in consensus.
pub struct Node {
    id: MemberId,
    raft: Raft<Types, StateMachine>,
    log: LogStore,
    links: Links,
    activity: Activity,
    applier: Arc<Mutex<Applier>>,
    applied: watch::Receiver<LogPosition>,
    waiting: Arc<Waiting>,
    forwards: mpsc::Sender<Forward>,
    reads: mpsc::Sender<Read>,
    leadership: watch::Sender<Leadership>,
    request_timeout: Duration,
    election_timeout: Duration,
    heartbeat: Duration,
    keep: Keep,
    proposals: AtomicU64,
    /// Leader of a cluster in which nobody else votes: local reads are linearizable.
    is_sole_voter_leader: AtomicBool,
    pub(super) purged: AtomicU64,
    started: Instant,
    /// When the leader was heard last, milliseconds since the start.
    heard_ms: AtomicU64,
    /// Since when each peer has answered without a break.
    active_since: Mutex<HashMap<MemberId, Instant>>,
}

/// A started node, and what ends when it fails.
pub struct Started {
    /// The node.
    pub node: Arc<Node>,
    /// Resolves, with the reason, when consensus can't go on.
    pub failed: tokio::sync::oneshot::Receiver<String>,
}

/// What the node works on.
pub struct State {
    /// Changes of replicated state.
    pub applier: Arc<Mutex<Applier>>,
    /// Versions of keys.
    pub store: Arc<Store>,
    /// What is told of each applied batch.
    pub on_applied: OnApplied,
    /// Puts a received state in place.
    pub flusher: Flusher,
}

impl Node {
    /// Opens the log and starts consensus on the current runtime; founds a new cluster when there is none yet. A member
    /// that votes alone leads, and has applied everything in its log, when this returns; others go on at their own pace.
    pub async fn start(options: Options, links: Links, state: State) -> io::Result<Started> {
        let State { applier, store, on_applied, flusher } = state;
        let (log, purged) = open_log(&options, &applier.lock())?;
        let flushed = applier.lock().applied();
        let waiting = Arc::new(Waiting::new(rand::random()));
        let (applied_sender, applied) = watch::channel(flushed.unwrap_or_default());
        let machine = StateMachine::new(super::state_machine::Parts {
            me: options.id,
            applier: Arc::clone(&applier),
            store,
            flusher,
            on_applied,
            waiting: Arc::clone(&waiting),
            applied: applied_sender,
            slow_apply: options.slow_apply,
        });
        let config = Arc::new(config(&options).map_err(io::Error::other)?);
        let activity = Activity::default();
        let network =
            Network::new(links.clone(), activity.clone(), options.election_timeout, options.wolf.clone());
        let raft =
            Raft::new(options.id, config, network, log.clone(), machine).await.map_err(io::Error::other)?;
        let (forwards, forward_queue) = propose::queue();
        let (reads, read_queue) = reads::queue();
        let node = Arc::new(Node {
            id: options.id,
            raft,
            log,
            links: links.clone(),
            activity,
            applier,
            applied,
            waiting: Arc::clone(&waiting),
            forwards,
            reads,
            leadership: watch::Sender::default(),
            request_timeout: options.request_timeout,
            election_timeout: options.election_timeout,
            heartbeat: options.heartbeat,
            keep: options.keep,
            proposals: AtomicU64::new(0),
            is_sole_voter_leader: AtomicBool::new(false),
            purged: AtomicU64::new(purged),
            started: Instant::now(),
            heard_ms: AtomicU64::new(0),
            active_since: Mutex::default(),
        });
        let linked = Arc::downgrade(&node);
        let link = move |id| linked.upgrade().and_then(|node| node.link(id));
        tokio::spawn(propose::forward(forward_queue, waiting, link, options.election_timeout));
        tokio::spawn(reads::rounds(Arc::clone(&node), read_queue));
        node.begin(&options).await?;
        let failed = node.clone().watch();
        Ok(Started { node, failed })
    }

    /// Founds the cluster if that is to be done, and leads it at once if nobody else can.
    async fn begin(self: &Arc<Node>, options: &Options) -> io::Result<()> {
        let is_new = !self.raft.is_initialized().await.map_err(io::Error::other)?;
        if is_new {
            match options.founders.keys().position(|id| *id == options.id) {
                Some(rank) if options.founders.len() > 1 => {
                    tokio::spawn(Arc::clone(self).found(options.founders.clone(), rank));
                    return Ok(());
                }
                Some(_) => self.initialize(options.founders.clone()).await?,
                None => return Ok(()), // the cluster is there already, and its leader will call
            }
        } else if self.is_sole_voter() {
            self.raft.trigger().elect(false).await.map_err(io::Error::other)?;
        } else {
            return Ok(());
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

    /// Founds a cluster together with others. All would come to the same result at once, and stand for election against
    /// each other; so each gives those before it an election timeout.
    async fn found(self: Arc<Node>, founders: BTreeMap<MemberId, Peer>, rank: usize) {
        let patience = self.election_timeout * rank as u32;
        // A leader that was elected meanwhile has sent the first entry.
        let founded = self.raft.wait(Some(patience));
        let has_log = |m: &openraft::RaftMetrics<Types>| m.last_log_index.is_some();
        if founded.metrics(has_log, "another member founded the cluster").await.is_ok() {
            return;
        }
        if let Err(error) = self.initialize(founders).await {
            tracing::debug!(%error, "another member was faster to found the cluster");
        }
    }

    /// Writes the first entry, which is the same on all founders, and stands for election.
    pub async fn initialize(&self, founders: BTreeMap<MemberId, Peer>) -> io::Result<()> {
        self.raft.initialize(founders).await.map_err(io::Error::other)
    }

    /// Whether this member leads, and nobody else votes.
    pub fn votes_alone(&self) -> bool {
        self.is_sole_voter_leader.load(Ordering::SeqCst)
    }

    fn is_sole_voter(&self) -> bool {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let mut voters = metrics.membership_config.voter_ids();
        voters.next() == Some(self.id) && voters.next().is_none()
    }

    /// Takes note of where consensus stands.
    fn observe(&self) {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let term = metrics.vote.leader_id.term;
        let is_sole = self.is_sole_voter();
        let leads = metrics.state == ServerState::Leader;
        let silence = self.election_timeout * SILENCE_ELECTIONS;
        let is_alone = leads && !is_sole && {
            let ack = metrics.last_quorum_acked.as_ref();
            ack.is_some_and(|ack| ack.elapsed() > silence)
        };
        let mut leader = metrics.current_leader.unwrap_or(0);
        let before = *self.leadership.borrow();
        if leader != 0 && leader != self.id {
            if (term, leader) != (before.term, before.leader) && before.term < term {
                self.hears_now();
            }
            if self.silent_for() > silence {
                leader = 0;
            }
        } else if is_alone {
            leader = 0;
        }
        let seen = Leadership { term, leader };
        self.is_sole_voter_leader.store(is_sole && leads, Ordering::SeqCst);
        self.leadership.send_if_modified(|known| {
            if leader != 0 && known.leader != leader {
                METRICS.server.leader_changes.inc();
                tracing::info!(term, leader = format!("{leader:x}"), "raft.node: elected leader");
            } else if leader == 0 && known.leader != 0 {
                tracing::warn!(term, "raft.node: lost leader {:x}", known.leader);
            }
            std::mem::replace(known, seen) != seen
        });
        self.note_activity(leads.then_some(&*metrics));
    }

    fn note_activity(&self, leading: Option<&openraft::RaftMetrics<Types>>) {
        let mut active = self.active_since.lock();
        let Some(heartbeats) = leading.and_then(|metrics| metrics.heartbeat.as_ref()) else {
            return active.clear();
        };
        let now = Instant::now();
        for (id, heard) in heartbeats {
            let peer = || format!("{id:x}");
            let is_active = heard
                .as_ref()
                .map(|at| at.elapsed())
                .is_some_and(|ago| ago < self.election_timeout && !self.activity.has_failed_within(*id, ago));
            if is_active && !active.contains_key(id) {
                active.insert(*id, now);
                tracing::info!("peer-id" = peer(), "peer became active");
            } else if !is_active && active.remove(id).is_some() {
                tracing::warn!("peer-id" = peer(), "peer became inactive");
            }
        }
    }

    /// Follows the state of consensus until it fails.
    fn watch(self: Arc<Self>) -> tokio::sync::oneshot::Receiver<String> {
        let (sender, failed) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let mut server = self.raft.server_metrics();
            let all = self.raft.metrics();
            let mut tick = tokio::time::interval(self.heartbeat);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                let changed = tokio::select! {
                    changed = server.changed() => changed,
                    _ = tick.tick() => Ok(()),
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

    /// A member called in the name of `vote`: a sign of life, if that is the leader's.
    pub(super) fn hears_from(&self, from: MemberId, vote: &Vote) {
        let leads = vote.committed && vote.leader_id.voted_for == from;
        if leads && vote.leader_id.term >= self.leadership.borrow().term {
            self.hears_now();
        }
    }

    fn hears_now(&self) {
        self.heard_ms.store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn silent_for(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(self.heard_ms.load(Ordering::Relaxed)))
    }

    /// Who leads.
    pub fn leadership(&self) -> Leadership {
        *self.leadership.borrow()
    }

    /// To be told of changes of who leads.
    pub fn leaderships(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    /// Resolves when who leads is not `seen` any more, or after `limit`.
    pub(super) async fn changed_or(&self, limit: Duration, seen: Leadership) {
        let mut leadership = self.leadership.subscribe();
        // The sender lives as long as this node, and the limit is no error.
        let _ = tokio::time::timeout(limit, leadership.wait_for(|now| *now != seen)).await;
    }

    /// Resolves when this member has applied the entry at `index`.
    pub(super) async fn until_applied(&self, index: u64) -> Result<(), Error> {
        let mut applied = self.applied.clone();
        let reached = applied.wait_for(|position| position.index >= index);
        match tokio::time::timeout(self.request_timeout, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Error::Stopped),
            Err(_) => Err(Error::Timeout),
        }
    }

    /// Resolves when this member leads and has applied an entry of its own term: everything before it is applied. Gives the
    /// term.
    pub async fn until_leading(&self) -> u64 {
        let mut leadership = self.leadership.subscribe();
        let mut applied = self.applied.clone();
        loop {
            let Leadership { term, leader } = *leadership.borrow_and_update();
            if leader == self.id && applied.borrow_and_update().term == term {
                return term;
            }
            let changed = tokio::select! {
                changed = leadership.changed() => changed,
                changed = applied.changed(), if leader == self.id => changed,
            };
            if changed.is_err() {
                std::future::pending::<()>().await; // consensus has ended; nobody leads any more
            }
        }
    }

    /// Resolves when this member does not lead in `term` any more.
    pub async fn until_not_leading(&self, term: u64) {
        let mut leadership = self.leadership.subscribe();
        let mine = Leadership { term, leader: self.id };
        let _ = leadership.wait_for(|now| *now != mine).await; // the sender lives as long as this node
    }

    /// Resolves when another member says that this one was removed.
    pub async fn until_removed(&self) {
        self.activity.until_removed().await;
    }

    /// The way to a member, if it is one.
    pub(super) fn link(&self, id: MemberId) -> Option<Link> {
        let urls = {
            let applier = self.applier.lock();
            applier.members().get(&id).map(|member| member.peer_urls.clone())
        };
        match urls {
            Some(urls) => Some(self.links.to(id, &urls)),
            None => {
                let metrics = self.raft.server_metrics();
                let node = metrics.borrow_watched().membership_config.get_node(&id).cloned();
                node.map_or_else(|| self.links.get(id), |node| Some(self.links.to(id, &node.urls)))
            }
        }
    }

    /// Id of this member.
    pub fn id(&self) -> MemberId {
        self.id
    }

    /// openraft itself, for those inside this module.
    pub(in crate::raft) fn raft(&self) -> &Raft<Types, StateMachine> {
        &self.raft
    }

    pub(in crate::raft) fn log(&self) -> &LogStore {
        &self.log
    }

    pub(super) fn applier(&self) -> &Mutex<Applier> {
        &self.applier
    }

    pub(super) fn activity(&self) -> &Activity {
        &self.activity
    }

    pub(super) fn links(&self) -> &Links {
        &self.links
    }

    pub(super) fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    pub(super) fn forwards(&self) -> &mpsc::Sender<Forward> {
        &self.forwards
    }

    pub(super) fn reads(&self) -> &mpsc::Sender<Read> {
        &self.reads
    }

    pub(super) fn keep(&self) -> Keep {
        self.keep
    }

    pub(super) fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// How long an answer of a peer may take.
    pub(super) fn patience(&self) -> Duration {
        self.election_timeout
    }

    /// Ends this member's part.
    pub async fn stop(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(%error, "consensus did not stop cleanly");
        }
    }
}

/// Opens the log, which must go on where the state ends. Gives the last purged index, too.
fn open_log(options: &Options, state: &Applier) -> io::Result<(LogStore, u64)> {
    let flushed = state.applied();
    let mut wal_options = wal::Options::new(options.wal_dir.clone());
    wal_options.sync = options.fsync;
    wal_options.scan_from = flushed.map(|p| p.index);
    let (wal, mut recovered) = Wal::open(wal_options).map_err(io::Error::other)?;
    if recovered.torn_bytes > 0 {
        tracing::info!(bytes = recovered.torn_bytes, "cut the torn tail of the raft log");
    }
    if let Some(peer) = &options.alone {
        go_on_alone(&wal, &mut recovered, state.membership(), options.id, peer.clone())?;
    }
    let purged = recovered.purged.map_or(0, |id| id.index);
    let log = LogStore::new(wal, recovered)?;
    if state.installed().is_none() {
        check_continuity(flushed, &log)?;
    }
    Ok((log, purged))
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

    fn propose_in(&self, term: u64, entry: Entry) -> BoxFuture<'_, Result<Applied, Error>> {
        Box::pin(async move {
            let written = tokio::time::timeout(self.request_timeout, self.write_in(term, entry)).await;
            written.unwrap_or(Err(Error::Timeout))
        })
    }

    fn read_index(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            if self.is_sole_voter_leader.load(Ordering::SeqCst) {
                // Every acknowledged write has been applied here before it was acknowledged.
                return Ok(());
            }
            self.linearize().await
        })
    }

    fn term(&self) -> u64 {
        self.leadership.borrow().term
    }

    fn status(&self) -> Status {
        let leadership = self.leadership();
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        Status {
            leader: leadership.leader,
            term: metrics.current_term,
            committed: metrics.cluster_committed.or(metrics.last_applied).map_or(0, |id| id.index),
            applied: metrics.last_applied.map_or(0, |id| id.index),
            is_learner: metrics.state == ServerState::Learner,
        }
    }

    fn move_leader(&self, to: MemberId) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.hand_over(to))
    }

    fn peers(&self) -> Vec<PeerState> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let Some(replication) = &metrics.replication else { return Vec::new() };
        let last = metrics.last_log_index.unwrap_or(0);
        let active = self.active_since.lock();
        let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
        let state = |(id, matched): (&u64, &Option<super::LogId>)| PeerState {
            id: *id,
            active_ms: active.get(id).map(|since| since.elapsed().as_millis() as u64),
            is_voter: voters.contains(id),
            behind: matched.as_ref().map(|id| last.saturating_sub(id.index)),
        };
        replication.iter().filter(|(id, _)| **id != self.id).map(state).collect()
    }

    fn ask(&self, whom: Whom, question: Question) -> BoxFuture<'_, Result<Answer, Error>> {
        Box::pin(async move {
            let asked = tokio::time::timeout(self.request_timeout, self.put_question(whom, question)).await;
            asked.unwrap_or(Err(Error::Timeout))
        })
    }

    fn left(&self, id: MemberId) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let metrics = self.raft.wait(Some(self.request_timeout));
            let is_gone =
                |m: &openraft::RaftMetrics<Types>| m.committed_membership_config.get_node(&id).is_none();
            metrics
                .metrics(is_gone, "a removed member takes part no more")
                .await
                .map(drop)
                .map_err(|_| Error::Timeout)
        })
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
        // A follower gets entries as long as there are any.
        replication_lag_threshold: u64::MAX,
        max_in_snapshot_log_to_keep: u64::MAX,
        purge_batch_size: 1024,
        enable_pre_vote: Some(options.pre_vote),
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
