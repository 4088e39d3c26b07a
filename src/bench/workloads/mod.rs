//! What the clients of each workload do. A workload is a function that a worker runs: it prepares, calls `Worker::load`
//! with an [`super::load::Op`] for each client, and looks after what is left. Called by `worker`.

mod crowd;
mod dengine;
mod kubernetes;
mod lease;
mod oxia;
mod point;
mod rfc;
mod snapshot;
mod watch;

use super::Error;
use super::settings::Workload;
use super::worker::Worker;
use futures_util::future::LocalBoxFuture;

/// Runs this thread's part of the workload.
///
/// # Errors
/// The server can't be reached, or the run is broken off.
pub async fn run(worker: &Worker) -> Result<(), Error> {
    let settings = worker.settings();
    let (clients, rate) = (settings.clients, settings.rate);
    // Boxed: one function with the loops of all workloads in it takes the compiler minutes.
    let run: LocalBoxFuture<'_, Result<(), Error>> = match settings.workload {
        Workload::Put => Box::pin(worker.load(clients, rate, |n| point::Put::new(worker, n))),
        Workload::Range => Box::pin(worker.load(clients, rate, |n| point::Range::new(worker, n))),
        Workload::TxnPut => Box::pin(worker.load(clients, rate, |n| point::TxnPut::new(worker, n))),
        Workload::TxnMixed => Box::pin(worker.load(clients, rate, |n| point::TxnMixed::new(worker, n))),
        Workload::Delete => Box::pin(worker.load(clients, rate, |n| point::Delete::new(worker, n))),
        Workload::Watch | Workload::WatchLatency | Workload::WatchMany => Box::pin(watch::run(worker)),
        Workload::WatchReplay => {
            Box::pin(worker.load(settings.watchers, rate, |n| watch::Replay::new(worker, n)))
        }
        Workload::LeaseGrant => Box::pin(worker.load(clients, rate, |n| lease::Grant::new(worker, n))),
        Workload::LeaseKeepalive => Box::pin(lease::keep_alive(worker)),
        Workload::LeaseExpiry => Box::pin(lease::expiry(worker)),
        Workload::Kubernetes => Box::pin(kubernetes::run(worker)),
        Workload::RfcPut => Box::pin(worker.load(clients, rate, |n| rfc::Put::new(worker, n))),
        Workload::RfcRange => Box::pin(worker.load(clients, rate, |n| rfc::Range::new(worker, n))),
        Workload::Snapshot => Box::pin(worker.load(clients, rate, |n| snapshot::Snapshot::new(worker, n))),
        Workload::OxiaPut => Box::pin(worker.load(clients, rate, |n| oxia::Put::new(worker, n))),
        Workload::OxiaGet => Box::pin(worker.load(clients, rate, |n| oxia::Get::new(worker, n))),
        Workload::DEnginePut => Box::pin(worker.load(clients, rate, |n| dengine::Put::new(worker, n))),
        Workload::DEngineGet => Box::pin(worker.load(clients, rate, |n| dengine::Get::new(worker, n))),
    };
    run.await
}
