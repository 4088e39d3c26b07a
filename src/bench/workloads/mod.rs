//! What the clients of each workload do. A workload is a function that a worker runs: it prepares, calls `Worker::load`
//! with an [`super::load::Op`] for each client, and looks after what is left. Called by `worker`.

mod crowd;
mod kubernetes;
mod lease;
mod point;
mod snapshot;
mod watch;

use super::Error;
use super::settings::Workload;
use super::worker::Worker;

/// Runs this thread's part of the workload.
///
/// # Errors
/// The server can't be reached, or the run is broken off.
pub async fn run(worker: &Worker) -> Result<(), Error> {
    let settings = worker.settings();
    let (clients, rate) = (settings.clients, settings.rate);
    match settings.workload {
        Workload::Put => worker.load(clients, rate, |n| point::Put::new(worker, n)).await,
        Workload::Range => worker.load(clients, rate, |n| point::Range::new(worker, n)).await,
        Workload::TxnPut => worker.load(clients, rate, |n| point::TxnPut::new(worker, n)).await,
        Workload::TxnMixed => worker.load(clients, rate, |n| point::TxnMixed::new(worker, n)).await,
        Workload::Delete => worker.load(clients, rate, |n| point::Delete::new(worker, n)).await,
        Workload::Watch | Workload::WatchLatency | Workload::WatchMany => watch::run(worker).await,
        Workload::WatchReplay => {
            worker.load(settings.watchers, rate, |n| watch::Replay::new(worker, n)).await
        }
        Workload::LeaseGrant => worker.load(clients, rate, |n| lease::Grant::new(worker, n)).await,
        Workload::LeaseKeepalive => lease::keep_alive(worker).await,
        Workload::LeaseExpiry => lease::expiry(worker).await,
        Workload::Kubernetes => kubernetes::run(worker).await,
        Workload::Snapshot => worker.load(clients, rate, |n| snapshot::Snapshot::new(worker, n)).await,
    }
}
