//! The composition root: storage, engine, consensus, protocols and chores put together, and taken apart in order.
//! Called by `main` and by tests; the caller decides through [`Shutdown`] when it ends, and holds the data directory.

mod auth;
mod doors;
mod monitor;

use crate::api::listen::{self, Connections, Listener, Service};
use crate::auth::TokenChange;
use crate::config::url::join;
use crate::config::{AutoCompaction, Config};
use crate::engine::apply::{Applier, LogPosition};
use crate::engine::auto_compact::Schedule;
use crate::engine::command::{Command, Member};
use crate::engine::consensus::Consensus;
use crate::engine::flusher::{self, Flusher};
use crate::engine::leases::LeaseKeeper;
use crate::engine::watch::Hub;
use crate::engine::{Engine, Identity, Limits, Origin, Parts, corruption, tasks};
use crate::logging::FATAL;
use crate::mvcc::Store;
use crate::raft::{self, Node, Peer, Started};
use crate::shutdown::Shutdown;
use crate::storage::Env;
use crate::version::{ETCD_VERSION, KVIST_VERSION};
use crate::{identity, limits, mvcc, telemetry};
use doors::Doors;
use parking_lot::Mutex;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};

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
/// Why the server could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address is taken, or a certificate can't be used.
    #[error(transparent)]
    Listen(#[from] listen::Error),
    /// The process may have too few descriptors.
    #[error(transparent)]
    Limits(#[from] limits::TooFewDescriptors),
    /// Memory was to be locked, and may not be.
    #[error("{0}")]
    MemoryLock(#[source] io::Error),
    /// The asynchronous runtime has no threads.
    #[error("cannot start the runtime: {0}")]
    Runtime(#[source] io::Error),
    /// The state can't be opened.
    #[error("cannot open the data: {0}")]
    State(#[from] mvcc::Error),
    /// The log can't be opened, or consensus can't start.
    #[error("cannot start consensus: {0}")]
    Consensus(#[source] io::Error),
    /// The data directory can't be used.
    #[error("cannot use the data directory: {0}")]
    DataDir(#[from] io::Error),
    /// No tokens can be made as asked for.
    #[error(transparent)]
    Auth(#[from] auth::Error),
    /// There is no way to send traces.
    #[error("cannot start distributed tracing: {0}")]
    Tracing(String),
    /// Consensus failed while running.
    #[error("consensus failed: {0}")]
    Failed(String),
    /// The last requests before the stop failed.
    #[error("engine: {0}")]
    Engine(#[from] crate::engine::Error),
}

/// Serves until `shutdown` is requested.
pub fn run(config: Config, shutdown: Shutdown) -> Result<(), Error> {
    let runtime = current_thread().map_err(Error::Runtime)?;
    let workers = Workers::start(&runtime).map_err(Error::Runtime)?;
    let result = runtime.block_on(serve(&config, &shutdown, &workers));
    workers.stop();
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

fn current_thread() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().max_blocking_threads(32).build()
}

/// A runtime for each core. The first is that of the main thread, where consensus runs, too.
struct Workers {
    handles: Vec<Handle>,
    stop: tokio::sync::watch::Sender<bool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Workers {
    fn start(main: &Runtime) -> io::Result<Workers> {
        let (stop, _) = tokio::sync::watch::channel(false);
        let mut workers = Workers { handles: vec![main.handle().clone()], stop, threads: Vec::new() };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for n in 1..cores {
            let runtime = current_thread()?;
            workers.handles.push(runtime.handle().clone());
            let mut stopped = workers.stop.subscribe();
            let run = move || {
                // An error means that the sender is gone: a stop as well.
                let _ = runtime.block_on(stopped.wait_for(|stopped| *stopped));
                runtime.shutdown_timeout(Duration::from_secs(1));
            };
            workers.threads.push(std::thread::Builder::new().name(format!("api-{n}")).spawn(run)?);
        }
        Ok(workers)
    }

    fn stop(self) {
        self.stop.send_replace(true);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("an API thread panicked");
            }
        }
    }
}

async fn serve(config: &Config, shutdown: &Shutdown, workers: &Workers) -> Result<(), Error> {
    tracing::info!(
        "etcd-version" = ETCD_VERSION,
        "kvist-version" = KVIST_VERSION,
        name = %config.name,
        "data-dir" = %config.data_dir.display(),
        "listen-peer-urls" = %join(&config.listen.peer),
        "listen-client-urls" = %join(&config.listen.client),
        "starting an etcd server"
    );
    if config.storage.memory_lock {
        limits::lock_memory().map_err(Error::MemoryLock)?;
    }
    let listeners = listen::bind(&config.listen, &config.data_dir, limits::clients_max()?)?;
    let traces =
        config.monitoring.tracing.as_ref().map(telemetry::start).transpose().map_err(Error::Tracing)?;
    let is_new = !identity::is_known(&config.member_dir());
    let mut member = start(config).await?;
    let scraped = monitor::start(config, &member.engine);
    if !is_new && config.gates.is_open("InitialCorruptCheck") {
        corruption::initial_check(&member.engine).await?;
    }
    let chores = spawn_chores(config, &member.engine, shutdown);
    let doors = Doors::new(config, &member.engine, shutdown);
    let connections = Connections::default();
    for listener in listeners {
        open(listener, (config, &doors), (workers, &connections), shutdown);
    }
    notify_service_manager();
    let result = tokio::select! {
        () = shutdown.requested() => Ok(()),
        reason = &mut member.failed => Err(Error::Failed(reason.unwrap_or_else(|_| "it stopped".into()))),
    };
    if let Err(error) = &result {
        tracing::error!(target: FATAL, %error, "this member can't go on");
        return result; // nothing is lost: the log has it all
    }
    let left = connections.drained(config.shutdown_grace_period).await;
    if left > 0 {
        tracing::info!(connections = left, "cutting off connections that did not end in time");
    }
    for chore in chores {
        chore.abort();
    }
    drop(scraped);
    member.stop().await?;
    if let Some(traces) = traces {
        // Who does not wait loses the last spans only.
        let _ = tokio::task::spawn_blocking(|| traces.stop()).await;
    }
    tracing::info!(name = %config.name, "closed etcd server");
    Ok(())
}

/// A started member without its doors.
struct Running {
    engine: Engine,
    node: Arc<Node>,
    hub: Hub,
    flusher: Flusher,
    failed: tokio::sync::oneshot::Receiver<String>,
}

impl Running {
    async fn stop(self) -> Result<(), Error> {
        if let Err(error) = tasks::checkpoint_all_leases(&self.engine).await {
            tracing::warn!(%error, "could not record what leases had left; they start anew");
        }
        self.node.stop().await;
        let (hub, flusher) = (self.hub, self.flusher);
        let stopped = tokio::task::spawn_blocking(move || {
            hub.stop();
            flusher.stop();
        });
        stopped.await.map_err(|e| Error::Failed(e.to_string()))
    }
}

async fn start(config: &Config) -> Result<Running, Error> {
    let member_dir = config.member_dir();
    let identity = identity::load_or_create(&member_dir, || Identity {
        cluster: config.cluster.cluster_id(),
        member: config.cluster.member_id(),
    })?;
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
    let ttl_min_secs = (1.5 * election_timeout.as_secs_f64()).ceil() as i64; // L-2
    let leases = Arc::new(LeaseKeeper::new(applier.lock().leases(), ttl_min_secs));
    let hub = Hub::start(Arc::clone(&store))?;
    let node_cell = Arc::new(OnceLock::new());
    let flusher = start_flusher(config, &store, &applier, &node_cell)?;
    let on_applied = {
        let (leases, hub, flusher) = (Arc::clone(&leases), hub.clone(), flusher.clone());
        let auth = Arc::clone(&auth);
        Box::new(move |effects: crate::engine::apply::Effects| {
            if let Some(installed) = &effects.installed {
                leases.reload(installed);
                hub.jumped();
            }
            leases.learn(&effects.leases);
            auth.tokens.learn(effects.tokens);
            hub.publish(effects.batches);
            flusher.after_apply();
        })
    };
    let options = raft::Options {
        id: identity.member,
        peer: Peer { name: config.name.clone(), urls: texts(&config.cluster.advertise_peer) },
        wal_dir: config.wal_dir(),
        fsync: config.storage.fsync,
        heartbeat: config.raft.heartbeat_interval,
        election_timeout,
        request_timeout: REQUEST_TIMEOUT + 2 * election_timeout,
        slow_apply: config.slow.apply,
    };
    let parts = (Arc::clone(&applier), Arc::clone(&store), flusher.clone());
    let started = Node::start(options, parts, on_applied).await;
    let Started { node, failed } = started.map_err(Error::Consensus)?;
    let _ = node_cell.set((Arc::clone(&node), Handle::current()));
    let engine = Engine::new(Parts {
        store,
        applier,
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
        },
    });
    leases.promote(election_timeout);
    publish(config, &engine).await?;
    auth.tokens.learn(vec![TokenChange::RevokedAll]); // those that the log tells of have gone with the process
    Ok(Running { engine, node, hub, flusher, failed })
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

/// Makes this member's name and URLs known, if they are not.
async fn publish(config: &Config, engine: &Engine) -> Result<(), Error> {
    let id = engine.identity().member;
    let known = engine.members().into_iter().find(|member| member.id == id);
    let member = Member {
        id,
        name: config.name.clone(),
        // Once known, they change by MemberUpdate alone (C-7).
        peer_urls: known.map_or_else(|| texts(&config.cluster.advertise_peer), |known| known.peer_urls),
        client_urls: texts(&config.cluster.advertise_client),
        is_learner: false,
    };
    if !engine.members().contains(&member) {
        engine.write(Origin::Server, Command::PublishMember(member)).await?;
    }
    tracing::info!(
        "local-member-id" = format!("{:x}", engine.identity().member),
        "cluster-id" = format!("{:x}", engine.identity().cluster),
        "published local member to cluster through raft"
    );
    Ok(())
}

fn texts(urls: &[impl ToString]) -> Vec<String> {
    urls.iter().map(ToString::to_string).collect()
}

fn spawn_chores(config: &Config, engine: &Engine, shutdown: &Shutdown) -> Vec<tokio::task::JoinHandle<()>> {
    let stop = || {
        let shutdown = shutdown.clone();
        async move { shutdown.requested().await }
    };
    let mut chores = vec![
        tokio::spawn(tasks::until(stop(), tasks::expire_leases(engine.clone()))),
        tokio::spawn(tasks::until(stop(), tasks::checkpoint_leases(engine.clone()))),
        tokio::spawn(tasks::until(stop(), tasks::follow_version(engine.clone()))),
    ];
    let (hub, stopped) = (engine.hub().clone(), stop());
    chores.push(tokio::spawn(async move {
        stopped.await;
        hub.end_streams();
    }));
    if let Some(interval) = config.corrupt_check_interval {
        let checks = corruption::check_now_and_then(engine.clone(), interval);
        chores.push(tokio::spawn(tasks::until(stop(), checks)));
    }
    let schedule = config.compaction.auto.map(|auto| match auto {
        AutoCompaction::Periodic(period) => Schedule::periodic(period),
        AutoCompaction::Revision(kept) => Schedule::revision(kept),
    });
    if let Some(schedule) = schedule {
        chores.push(tokio::spawn(tasks::until(stop(), tasks::auto_compact(engine.clone(), schedule))));
    }
    chores
}

/// Begins to accept on `listener`.
fn open(
    listener: Listener,
    (config, doors): (&Config, &Doors),
    (workers, connections): (&Workers, &Connections),
    shutdown: &Shutdown,
) {
    let service = Service {
        door: doors.behind(listener.serves()),
        options: doors::connection_options(config),
        shutdown: shutdown.clone(),
    };
    listener.announce();
    tokio::spawn(listen::accept(listener, service, workers.handles.clone(), connections.clone()));
}

/// Tells systemd that the service is up; without it nobody listens, which is no error.
fn notify_service_manager() {
    if let Err(error) = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "failed to notify the service manager of readiness");
    }
}
