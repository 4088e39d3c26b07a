//! A member without its doors: storage, engine and consensus put together, and taken apart in order. Called by `server`.

use super::{Error, auth, bootstrap};
use crate::api::door::Members;
use crate::auth::TokenChange;
use crate::config::{Config, Transport};
use crate::engine::apply::{Applier, Effects, LogPosition};
use crate::engine::command::{Command, Member};
use crate::engine::consensus::Consensus;
use crate::engine::flusher::{self, Flusher};
use crate::engine::leases::LeaseKeeper;
use crate::engine::watch::Hub;
use crate::engine::{Engine, Identity, Limits, Origin, Parts};
use crate::identity::Founding;
use crate::logging::FATAL;
use crate::mvcc::{self, Store};
use crate::raft::peer::server::{Inbox, Service};
use crate::raft::peer::{self, Links};
use crate::raft::{self, Node, Peer, Started, wolf};
use crate::storage::Env;
use crate::tls::client::Connector;
use crate::types::MemberId;
use parking_lot::Mutex;
use std::future::Future;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Bytes of changes in memory that start a flush. LMDB holds every page that a flush touches in anonymous memory, and keeps
/// the memory for the next one: with random keys about ten times this.
const MEMTABLE_BYTES_MAX: usize = 8 << 20;
/// Longest time that a change stays out of LMDB.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// Rows that one step of physical compaction removes, for each revision that `--compaction-batch-limit` allows.
const COMPACTION_ROWS_FACTOR: usize = 10;
/// Address space for an unlimited database.
const QUOTA_UNLIMITED: u64 = 1 << 40;
/// Rest of `5 s + 2 x election timeout`, etcd's limit for a request (G-8).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// etcd's defaults of `--snapshot-count` and `--snapshot-catchup-entries`.
const SNAPSHOT_COUNT_OF_ETCD: u64 = 10_000;
const CATCHUP_ENTRIES_OF_ETCD: u64 = 5_000;
/// How often a member looks whether it was removed, or can make itself known.
const LOOK: Duration = Duration::from_millis(100);
/// Time for the others to learn that a leader has left.
const FAREWELL: Duration = Duration::from_millis(500);

/// A started member.
pub struct Running {
    engine: Engine,
    node: Arc<Node>,
    leases: Arc<LeaseKeeper>,
    hub: Hub,
    flusher: Flusher,
    inbox: Inbox,
    /// Those who may found the cluster, as `wolf.raft` counts them, and how that is served.
    wolf: (Vec<(MemberId, Peer)>, wolf::Options),
    election_timeout: Duration,
    /// The term in which this member leads from the start, since it is alone.
    leads_in: Option<u64>,
    failed: oneshot::Receiver<String>,
}

impl Running {
    /// What protocols talk to.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Its part in consensus.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// What other members call.
    pub fn services(&self) -> Members {
        let Identity { cluster, member } = self.engine.identity();
        let me = peer::Identity { cluster, member };
        let engine = Arc::new(OnceLock::from(self.engine.clone()));
        let (table, options) = self.wolf.clone();
        let wolf = wolf::Service::server(&self.node, Arc::clone(&engine), table, options);
        Members::new(Service::server(Arc::clone(&self.node), me, engine, self.inbox.clone()))
            .add_service(wolf)
    }

    /// Resolves, with the reason, when consensus can't go on.
    pub async fn failed(&mut self) -> String {
        (&mut self.failed).await.unwrap_or_else(|_| "it stopped".into())
    }

    /// Resolves when this member is none any more.
    pub fn removed(&self) -> impl Future<Output = ()> + use<> {
        let node = Arc::clone(&self.node);
        async move {
            let told = node.until_removed();
            let seen = async {
                while !node.is_removed(node.id()) {
                    tokio::time::sleep(LOOK).await;
                }
                tokio::time::sleep(FAREWELL).await;
            };
            tokio::select! {
                () = told => {}
                () = seen => {}
            }
        }
    }

    /// Lets the keeper of leases decide while this member leads; for ever.
    pub fn follow_lead(&self) -> impl Future<Output = ()> + use<> {
        let (node, leases) = (Arc::clone(&self.node), Arc::clone(&self.leases));
        let (extend, mut leads_in) = (self.election_timeout, self.leads_in);
        async move {
            loop {
                let term = match leads_in.take() {
                    Some(term) => term,
                    None => {
                        let term = node.until_leading().await;
                        leases.promote(term, extend);
                        term
                    }
                };
                let pauses = async {
                    loop {
                        node.until_followed(false).await;
                        leases.pause();
                        node.until_followed(true).await;
                        leases.resume(extend);
                    }
                };
                tokio::select! {
                    () = node.until_not_leading(term) => {}
                    () = pauses => {}
                }
                leases.demote();
            }
        }
    }

    /// Before a clean stop: records since when leases run, and lets another member lead.
    pub async fn give_way(&self) {
        if !self.engine.leads() {
            return;
        }
        if let Err(error) = self.engine.record_all_leases().await {
            tracing::warn!(%error, "could not record leases; some may get their full TTL again");
        }
        if self.node.votes_alone() {
            return;
        }
        match self.node.give_way().await {
            Ok(()) => tracing::info!("leadership transfer finished"),
            Err(error) => tracing::warn!(%error, "leadership transfer failed"),
        }
    }

    /// Ends it; everything that was applied is flushed.
    pub async fn stop(self) -> Result<(), Error> {
        self.node.stop().await;
        let (hub, flusher) = (self.hub, self.flusher);
        let stopped = tokio::task::spawn_blocking(move || {
            hub.stop();
            flusher.stop();
        });
        stopped.await.map_err(|e| Error::Failed(e.to_string()))
    }
}

/// Starts a member. If it votes alone, it leads and is known when this returns.
pub async fn start(config: &Config, founding: Founding) -> Result<Running, Error> {
    let Founding { identity, members, is_new, origin } = founding;
    let member_dir = config.member_dir();
    let quota = config.storage.quota_bytes;
    let env = Env::open(&mvcc::defrag::current_dir(&member_dir)?, quota.unwrap_or(QUOTA_UNLIMITED))
        .map_err(mvcc::Error::from)?;
    let store = Arc::new(Store::open(env)?);
    if let Some(threshold) = config.storage.defrag_threshold {
        store.defragment_if_worth(&member_dir, quota.unwrap_or(QUOTA_UNLIMITED), threshold)?;
    }
    let applier = Arc::new(Mutex::new(Applier::load(Arc::clone(&store))?));
    let auth = Arc::new(auth::auth(&config.auth, Arc::clone(applier.lock().auth()))?);
    let election_timeout = config.raft.election_timeout;
    let request_timeout = REQUEST_TIMEOUT + 2 * election_timeout;
    let ttl_min_secs = (1.5 * election_timeout.as_secs_f64()).ceil() as i64; // L-2
    let leases = Arc::new({
        let applier = applier.lock();
        LeaseKeeper::new(applier.leases(), applier.lease_clock(), ttl_min_secs)
    });
    let hub = Hub::start(Arc::clone(&store))?;
    let node_cell = Arc::new(OnceLock::new());
    let flusher = start_flusher(config, &store, &applier, &node_cell)?;
    let on_applied = {
        let (leases, hub, flusher) = (Arc::clone(&leases), hub.clone(), flusher.clone());
        let auth = Arc::clone(&auth);
        Box::new(move |effects: Effects| {
            if let Some((installed, reading)) = &effects.installed {
                leases.reload(installed, *reading);
                hub.jumped();
            }
            leases.learn(&effects.leases);
            auth.tokens.learn(effects.tokens);
            hub.publish(effects.batches);
            flusher.after_apply();
        })
    };
    let peers =
        members.into_iter().map(|member| (member.id, Peer { name: member.name, urls: member.peer_urls }));
    let table: Vec<(MemberId, Peer)> = peers.collect();
    let founders = table.iter().filter(|_| is_new && !config.cluster.wait_for_bootstrap).cloned();
    let wolf = wolf::Options {
        gzip: config.peer_transport.gzip,
        code_base: config.peer_transport.code_base,
        dir: member_dir.clone(),
        quota: quota.unwrap_or(QUOTA_UNLIMITED),
        origin,
    };
    let options = raft::Options {
        id: identity.member,
        founders: founders.collect(),
        known: table.iter().cloned().collect(),
        wal_dir: config.wal_dir(),
        fsync: config.storage.fsync,
        heartbeat: config.raft.heartbeat_interval,
        election_timeout,
        pre_vote: config.raft.pre_vote,
        request_timeout,
        slow_apply: config.slow.apply,
        keep: keep(&config.raft),
        alone: config
            .cluster
            .force_new
            .then(|| Peer { name: config.name.clone(), urls: texts(&config.cluster.advertise_peer) }),
        wolf: (config.peer_transport.transport == Transport::Wolf).then(|| wolf.clone()),
    };
    let me = peer::Identity { cluster: identity.cluster, member: identity.member };
    let links = Links::new(me, connector(config)?, election_timeout).with_origin(origin);
    let state = raft::State {
        applier: Arc::clone(&applier),
        store: Arc::clone(&store),
        on_applied,
        flusher: flusher.clone(),
    };
    let Started { node, failed } = Node::start(options, links, state).await.map_err(Error::Consensus)?;
    let _ = node_cell.set((Arc::clone(&node), Handle::current())); // it was empty
    let learners = Arc::clone(applier.lock().learners());
    let engine = Engine::new(Parts {
        store,
        applier,
        learners,
        hub: hub.clone(),
        flusher: flusher.clone(),
        leases: Arc::clone(&leases),
        auth: Arc::clone(&auth),
        consensus: Arc::clone(&node) as Arc<dyn Consensus>,
        identity,
        limits: Limits {
            quota,
            request_bytes_max: config.limits.request_bytes_max as usize,
            lease_ttl_min_secs: ttl_min_secs,
            slow_read: config.slow.apply,
            request_timeout,
            learners_max: config.cluster.learners_max,
            strict_reconfig_check: config.cluster.strict_reconfig_check,
        },
    });
    let leads_in = node.votes_alone().then(|| node.leadership().term);
    if let Some(term) = leads_in {
        leases.promote(term, election_timeout);
        if config.cluster.force_new {
            part_with_others(&engine).await?;
        }
        publish(config, &engine).await;
    }
    auth.tokens.learn(vec![TokenChange::RevokedAll]); // those that the log tells of have gone with the process
    let inbox = Inbox { dir: member_dir, quota: quota.unwrap_or(QUOTA_UNLIMITED) };
    let wolf = (table, wolf);
    Ok(Running { engine, node, leases, hub, flusher, inbox, wolf, election_timeout, leads_in, failed })
}

/// The table of members becomes that of this member alone.
async fn part_with_others(engine: &Engine) -> Result<(), Error> {
    for member in engine.members() {
        if member.id != engine.identity().member {
            engine.write(Origin::Server, Command::RemoveMember { id: member.id }).await?;
        }
    }
    Ok(())
}

/// How members connect to each other over TLS, if there are certificates for it.
fn connector(config: &Config) -> Result<Option<Arc<Connector>>, Error> {
    let files = &config.listen.tls.peer;
    if files.is_empty() && !files.auto {
        return Ok(None);
    }
    let connector = Connector::open(files, &config.listen.tls.rules).map_err(bootstrap::Error::from)?;
    Ok(Some(Arc::new(connector)))
}

/// Which log entries are kept: as many as the flags say, if they say anything else than etcd's defaults. Those are low, as
/// etcd holds the entries in memory.
fn keep(raft: &crate::config::Raft) -> raft::Keep {
    let mut keep = raft::Keep::default();
    if raft.snapshot_count != SNAPSHOT_COUNT_OF_ETCD {
        keep.step = raft.snapshot_count;
    }
    if raft.snapshot_catchup_entries != CATCHUP_ENTRIES_OF_ETCD {
        keep.margin = raft.snapshot_catchup_entries;
        keep.for_followers = raft.snapshot_catchup_entries;
    }
    keep
}

type NodeCell = Arc<OnceLock<(Arc<Node>, Handle)>>;

fn start_flusher(
    config: &Config,
    store: &Arc<Store>,
    applier: &Arc<Mutex<Applier>>,
    node: &NodeCell,
) -> io::Result<Flusher> {
    let options = flusher::Options {
        dir: config.member_dir(),
        quota: config.storage.quota_bytes.unwrap_or(QUOTA_UNLIMITED),
        interval: FLUSH_INTERVAL,
        memtable_bytes_max: MEMTABLE_BYTES_MAX,
        compaction_batch: (config.compaction.batch_limit as usize).saturating_mul(COMPACTION_ROWS_FACTOR),
        compaction_pause: config.compaction.sleep_interval,
    };
    let node = Arc::clone(node);
    let purge = move |flushed: LogPosition| {
        if let Some((node, runtime)) = node.get() {
            let node = Arc::clone(node);
            runtime.spawn(async move { node.purge(flushed).await });
        }
    };
    let die = |error: &mvcc::Error| {
        tracing::error!(target: FATAL, %error, "writing the state failed; nothing acknowledged is lost, restart to go on");
        #[expect(
            clippy::disallowed_methods,
            reason = "the state on disk is unknown, and other threads would answer from it"
        )]
        std::process::exit(1);
    };
    Flusher::start(Arc::clone(store), Arc::clone(applier), options, purge, die)
}

/// Makes this member's name and URLs known, if they are not; tries until it is done.
pub async fn publish(config: &Config, engine: &Engine) {
    let id = engine.identity().member;
    loop {
        // A new member is in the table once the log has come so far.
        if let Some(known) = engine.members().into_iter().find(|member| member.id == id) {
            let client_urls = texts(&config.cluster.advertise_client);
            let member = Member { name: config.name.clone(), client_urls, ..known.clone() };
            if member == known {
                break;
            }
            match engine.write(Origin::Server, Command::PublishMember(member)).await {
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "failed to publish local member to cluster through raft");
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    tracing::info!(
        "local-member-id" = format!("{id:x}"),
        "cluster-id" = format!("{:x}", engine.identity().cluster),
        "published local member to cluster through raft"
    );
}

fn texts(urls: &[impl ToString]) -> Vec<String> {
    urls.iter().map(ToString::to_string).collect()
}
