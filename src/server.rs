//! The composition root: storage, engine, consensus, protocols and chores put together, and taken apart in order.
//! Called by `main` and by tests; the caller decides through [`Shutdown`] when it ends, and holds the data directory.

mod auth;
pub mod bootstrap;
mod chores;
pub mod discovery;
mod doors;
mod member;
mod monitor;
mod workers;

use crate::api::connection::Serves;
use crate::api::listen::{self, Connections, Listener, Service};
use crate::config::Config;
use crate::config::url::join;
use crate::engine::{Engine, corruption};
use crate::logging::FATAL;
use crate::shutdown::Shutdown;
use crate::version::{ETCD_VERSION, KVIST_VERSION};
use crate::{identity, limits, mvcc, telemetry};
use doors::Doors;
use std::io;
use std::time::Duration;
use tokio::runtime::Handle;
use workers::Workers;

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
    /// It is not known who the member is.
    #[error(transparent)]
    Bootstrap(#[from] bootstrap::Error),
    /// What is stored is not what the others have.
    #[error(transparent)]
    Corrupt(#[from] corruption::Unfit),
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

/// Serves until `shutdown` is requested, or this member is removed from its cluster.
pub fn run(config: Config, shutdown: Shutdown) -> Result<(), Error> {
    let runtime = workers::current_thread().map_err(Error::Runtime)?;
    let workers = Workers::start(&runtime).map_err(Error::Runtime)?;
    let result = runtime.block_on(serve(&config, &shutdown, &workers));
    workers.stop();
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
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
    let is_new = !identity::is_known(&config.member_dir());
    // Before the doors are bound: other founders ask there, and would wait for an answer.
    let founding = bootstrap::resolve(config).await?;
    let listeners = listen::bind(&config.listen, &config.data_dir, limits::clients_max()?)?;
    let traces =
        config.monitoring.tracing.as_ref().map(telemetry::start).transpose().map_err(Error::Tracing)?;
    let mut member = member::start(config, founding).await?;
    let scraped = monitor::start(config, member.engine());
    if !is_new && config.gates.is_open("InitialCorruptCheck") {
        corruption::initial_check(member.engine()).await?;
    }
    let chores = chores::spawn(config, &member, shutdown);
    let doors = Doors::new(config, member.engine(), member.services(), shutdown);
    let (clients, peers) = (Connections::default(), Connections::default());
    // Other members are served to the very end, on the thread of consensus.
    let (hang_up, peers_shutdown) = Shutdown::by_hand();
    for listener in listeners {
        match listener.serves() {
            Serves::Peer => {
                open(listener, (config, &doors), (vec![Handle::current()], &peers), &peers_shutdown);
            }
            _ => open(listener, (config, &doors), (workers.handles(), &clients), shutdown),
        }
    }
    let published = tokio::spawn(announce(config.clone(), member.engine().clone()));
    let end = tokio::select! {
        () = shutdown.requested() => Ok(()),
        () = member.removed() => {
            tracing::warn!("the member has been permanently removed from the cluster; stopping");
            Ok(())
        }
        reason = member.failed() => Err(Error::Failed(reason)),
    };
    if let Err(error) = &end {
        tracing::error!(target: FATAL, %error, "this member can't go on");
        return end; // nothing is lost: the log has it all
    }
    published.abort();
    member.give_way().await;
    let left = clients.drained(config.shutdown_grace_period).await;
    if left > 0 {
        tracing::info!(connections = left, "cutting off connections that did not end in time");
    }
    for chore in chores {
        chore.abort();
    }
    drop(scraped);
    member.stop().await?;
    hang_up.request();
    if let Some(traces) = traces {
        // Who does not wait loses the last spans only.
        let _ = tokio::task::spawn_blocking(|| traces.stop()).await;
    }
    tracing::info!(name = %config.name, "closed etcd server");
    Ok(())
}

/// Makes this member known to the cluster, and then itself to the service manager.
async fn announce(config: Config, engine: Engine) {
    member::publish(&config, &engine).await;
    notify_service_manager();
}

/// Begins to accept on `listener`.
fn open(
    listener: Listener,
    (config, doors): (&Config, &Doors),
    (runtimes, connections): (Vec<Handle>, &Connections),
    shutdown: &Shutdown,
) {
    let service = Service {
        door: doors.behind(listener.serves()),
        options: doors::connection_options(config, listener.serves()),
        shutdown: shutdown.clone(),
    };
    listener.announce();
    tokio::spawn(listen::accept(listener, service, runtimes, connections.clone()));
}

/// Tells systemd that the service is up; without it nobody listens, which is no error.
fn notify_service_manager() {
    if let Err(error) = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "failed to notify the service manager of readiness");
    }
}
