//! This member's part in consensus: what it is made of, and how it starts. The engine sees it through `facade`.

use super::alone::go_on_alone;
use super::installs::Installs;
use super::leadership::Leadership;
use super::log_store::LogStore;
use super::network::{Activity, Network};
use super::peer::{Link, Links};
use super::propose::{self, Forward};
use super::purge::Keep;
use super::reads::{self, Read};
use super::state_machine::{OnApplied, StateMachine};
use super::transport::Transports;
use super::waiting::Waiting;
use super::wal::{self, Wal};
use super::{Peer, Types};
use crate::engine::apply::{Applier, LogPosition};
use crate::engine::flusher::Flusher;
use crate::mvcc::Store;
use crate::types::MemberId;
use openraft::async_runtime::WatchReceiver;
use openraft::{Raft, ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Settings.
#[derive(Clone, Debug)]
pub struct Options {
    /// Id of this member.
    pub id: MemberId,
    /// The first members, if this is the first start of a new cluster.
    pub founders: BTreeMap<MemberId, Peer>,
    /// The members that this one began with, wherever that was: whom it may ask before it knows better.
    pub known: BTreeMap<MemberId, Peer>,
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
    /// Call others by `wolf.raft` alone, and how.
    pub wolf: Option<super::wolf::Options>,
}

/// This member's part in consensus.
pub struct Node {
    pub(super) id: MemberId,
    pub(super) raft: Raft<Types, StateMachine>,
    pub(super) log: LogStore,
    pub(super) links: Links,
    pub(super) activity: Activity,
    pub(super) transports: Transports,
    pub(super) installs: Installs,
    pub(super) applier: Arc<Mutex<Applier>>,
    pub(super) applied: watch::Receiver<LogPosition>,
    pub(super) waiting: Arc<Waiting>,
    pub(super) forwards: mpsc::Sender<Forward>,
    pub(super) reads: mpsc::Sender<Read>,
    pub(super) leadership: watch::Sender<Leadership>,
    /// The term in which this member leads, whether others follow it or not; 0: none.
    pub(super) leads_in: watch::Sender<u64>,
    pub(super) request_timeout: Duration,
    pub(super) election_timeout: Duration,
    pub(super) heartbeat: Duration,
    pub(super) keep: Keep,
    pub(super) proposals: AtomicU64,
    /// Leader of a cluster in which nobody else votes: local reads are linearizable.
    pub(super) is_sole_voter_leader: AtomicBool,
    /// Whether this member only receives the log.
    pub(super) follows_only: AtomicBool,
    pub(super) purged: AtomicU64,
    pub(super) started: Instant,
    /// When the leader was heard last, milliseconds since the start.
    pub(super) heard_ms: AtomicU64,
    /// The members that this one began with.
    pub(super) known: BTreeMap<MemberId, Peer>,
    /// Since when each peer has answered without a break.
    pub(super) active_since: Mutex<HashMap<MemberId, Instant>>,
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
        let transports = Transports {
            activity: activity.clone(),
            patience: options.election_timeout,
            request_timeout: options.request_timeout,
            wolf: options.wolf.clone(),
        };
        let network = Network::new(links.clone(), transports.clone());
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
            transports: transports.clone(),
            installs: Installs::default(),
            applier,
            applied,
            waiting: Arc::clone(&waiting),
            forwards,
            reads,
            leadership: watch::Sender::default(),
            leads_in: watch::Sender::default(),
            request_timeout: options.request_timeout,
            election_timeout: options.election_timeout,
            heartbeat: options.heartbeat,
            keep: options.keep,
            proposals: AtomicU64::new(0),
            is_sole_voter_leader: AtomicBool::new(false),
            follows_only: AtomicBool::new(false),
            purged: AtomicU64::new(purged),
            started: Instant::now(),
            heard_ms: AtomicU64::new(0),
            known: options.known.clone(),
            active_since: Mutex::default(),
        });
        let linked = Arc::downgrade(&node);
        let link = move |id| linked.upgrade().and_then(|node| node.link(id));
        tokio::spawn(propose::forward(forward_queue, waiting, link, transports));
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

    pub(super) fn is_sole_voter(&self) -> bool {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let mut voters = metrics.membership_config.voter_ids();
        voters.next() == Some(self.id) && voters.next().is_none()
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
                let node = node.or_else(|| self.known.get(&id).cloned());
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

    pub(super) fn installs(&self) -> &Installs {
        &self.installs
    }

    pub(super) fn transports(&self) -> &Transports {
        &self.transports
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

fn config(options: &Options) -> Result<openraft::Config, openraft::ConfigError> {
    let election = options.election_timeout.as_millis() as u64;
    let heartbeat = options.heartbeat.as_millis() as u64;
    // openraft lets a follower wait for the leader's lease, which is `election_timeout_max`, and then for a random time. In the sum
    // that is between one and one and a quarter election timeouts; etcd's followers wait for one to two. The random time is drawn
    // anew only when a follower stands for election, so the slower ones stay slow: no reason to let it vary much.
    let shortest = (election * 3 / 8).max(heartbeat + 1);
    openraft::Config {
        cluster_name: "kvist".into(),
        heartbeat_interval: heartbeat,
        election_timeout_min: shortest,
        election_timeout_max: election - shortest,
        max_payload_entries: 4096,
        snapshot_policy: SnapshotPolicy::Never,
        // A follower gets entries as long as there are any.
        replication_lag_threshold: u64::MAX,
        max_in_snapshot_log_to_keep: u64::MAX,
        purge_batch_size: 1024,
        enable_pre_vote: Some(options.pre_vote),
        // Followers may have entries of the former run that never became durable here. A leader that went on in the same
        // term would make others of the same term and index.
        enable_leader_restore: Some(false),
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
