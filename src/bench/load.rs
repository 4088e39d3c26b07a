//! Clients that send one request after the other: when the last is answered (closed loop), or when one is due (open loop).
//! They are tasks of one thread. Used by `worker`.

use super::Error;
use super::pace::{Arrivals, Pace};
use super::tally::{Failure, Ledger};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Longest wait for answers that are outstanding when the load ends.
const LAST_ANSWERS: Duration = Duration::from_secs(30);
/// Pause of a closed-loop client after an error, so that a refusing server is not flooded.
const AFTER_ERROR: Duration = Duration::from_millis(10);

/// A request of the open loop that was due for less than this when the load ended is not counted as one that nobody could
/// send: a free client may need so long to wake up.
const TIME_TO_WAKE: Duration = Duration::from_millis(10);

/// What a client does again and again.
pub trait Op {
    /// Sends one request, whose time began at `due`, and looks at the answer. The kind is for workloads with several.
    async fn send(&mut self, due: Instant) -> Result<Option<&'static str>, Failure>;
}

/// Measured requests that all threads together may still send; without an end if there is no count.
#[derive(Clone)]
pub struct Tickets(Option<Arc<AtomicU64>>);

impl Tickets {
    /// As many, or no end.
    pub fn new(total: Option<u64>) -> Tickets {
        Tickets(total.map(|total| Arc::new(AtomicU64::new(total))))
    }

    /// Takes one; false if there are none left. What is sent before the window needs none.
    fn take(&self, ledger: &Ledger) -> bool {
        let Some(left) = &self.0 else { return true };
        if !ledger.is_measured() {
            return true;
        }
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// Lets every client send until the ledger is closed, or all have finished.
///
/// # Errors
/// Answers do not come in time, or a client panicked.
pub async fn run<O: Op + 'static>(
    clients: impl Iterator<Item = O>,
    pace: Option<Pace>,
    ledger: &Rc<Ledger>,
    tickets: &Tickets,
    mut over: impl AsyncFnMut(),
) -> Result<(), Error> {
    let arrivals = match pace {
        Some(pace) => Some(Rc::new(Arrivals::start(pace).map_err(|e| Error::Failed(e.to_string()))?)),
        None => None,
    };
    let mut tasks = JoinSet::new();
    for op in clients {
        let (ledger, tickets) = (Rc::clone(ledger), tickets.clone());
        match &arrivals {
            Some(arrivals) => tasks.spawn_local(open_loop(op, Rc::clone(arrivals), ledger, tickets)),
            None => tasks.spawn_local(closed_loop(op, ledger, tickets)),
        };
    }
    tokio::select! {
        ended = all(&mut tasks) => return ended,
        () = over() => {}
    }
    if let (Some(arrivals), Some(until)) = (&arrivals, ledger.until()) {
        let until = until.checked_sub(TIME_TO_WAKE).unwrap_or(until);
        arrivals.close(until).for_each(|due| ledger.unsent(due));
    }
    match tokio::time::timeout(LAST_ANSWERS, all(&mut tasks)).await {
        Ok(ended) => ended,
        Err(_) => Err(Error::Failed(format!("{} requests without answer", tasks.len()))),
    }
}

async fn all(tasks: &mut JoinSet<()>) -> Result<(), Error> {
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| Error::Failed(format!("a client ended: {error}")))?;
    }
    Ok(())
}

async fn closed_loop(mut op: impl Op, ledger: Rc<Ledger>, tickets: Tickets) {
    while !ledger.is_over() && tickets.take(&ledger) {
        let sent = Instant::now();
        match op.send(sent).await {
            Ok(kind) => ledger.answered(kind, sent),
            Err(Failure::Finished) => return,
            Err(failure) => {
                ledger.failed(failure);
                tokio::time::sleep(AFTER_ERROR).await;
            }
        }
    }
}

async fn open_loop(mut op: impl Op, arrivals: Rc<Arrivals>, ledger: Rc<Ledger>, tickets: Tickets) {
    while let Some(due) = arrivals.next().await {
        if ledger.is_stale(due) {
            continue;
        }
        if !tickets.take(&ledger) {
            return;
        }
        match op.send(due).await {
            Ok(kind) => ledger.answered_due(kind, due),
            Err(Failure::Finished) => return,
            Err(failure) => ledger.failed(failure),
        }
    }
}
