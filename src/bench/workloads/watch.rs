//! Workloads of the watch service. Three put at a fixed rate while watchers look on, and measure from the moment when a put
//! was due to the arrival of its event; `watch-replay` reads history from the begin.

use super::crowd::{Crowd, Interest, Order, create};
use super::point::{Choice, Put};
use crate::bench::Error;
use crate::bench::keys::Keys;
use crate::bench::load::Op;
use crate::bench::settings::Workload;
use crate::bench::tally::{Failure, Ledger};
use crate::bench::wire::{Events, Watch};
use crate::bench::worker::Worker;
use crate::client::{Link, raw};
use futures_util::{StreamExt, stream};
use std::rc::Rc;
use std::time::Instant;

/// Every key of the run.
pub fn everything(keys: &Keys, prev_kv: bool) -> Interest {
    Interest { key: keys.prefix(), range_end: keys.end(), prev_kv }
}

/// Puts while watchers look on: each at every key, or each at one of its own.
///
/// # Errors
/// The watchers are not created, or the run is broken off.
pub async fn run(worker: &Worker) -> Result<(), Error> {
    let (settings, keys) = (worker.settings(), &worker.common.keys);
    let has_own_keys = settings.workload == Workload::WatchMany;
    let interest = |n| {
        if has_own_keys {
            Interest { key: keys.key(n as u64), range_end: Vec::new(), prev_kv: false }
        } else {
            everything(keys, false)
        }
    };
    let _crowd = Crowd::gather(worker, settings.watchers, settings.streams, interest).await?;
    let space = if has_own_keys { settings.watchers as u64 } else { settings.key_space_size };
    let put = |n| Put::among(Choice::of(space, worker, n), Some("put"), worker, n);
    worker.load(settings.clients, settings.put_rate, put).await
}

/// Reads the whole history of the preloaded keys on a stream of its own, again and again.
pub struct Replay {
    link: Link,
    keys: Keys,
    first_revision: i64,
    puts: u64,
    ledger: Rc<Ledger>,
}

impl Replay {
    pub fn new(worker: &Worker, n: usize) -> Replay {
        Replay {
            link: worker.link(n),
            keys: worker.common.keys.clone(),
            first_revision: worker.common.start_revision,
            puts: worker.settings().total_keys,
            ledger: Rc::clone(&worker.ledger),
        }
    }
}

impl Op for Replay {
    async fn send(&mut self, _due: Instant) -> Result<Option<&'static str>, Failure> {
        let request = create(everything(&self.keys, false), self.first_revision);
        let requests = stream::iter([request]).chain(stream::pending());
        let mut answers = raw::watch(self.link.clone(), requests).await?;
        let (mut seen, mut order) = (0, Order::default());
        while seen < self.puts {
            if self.ledger.is_over() {
                return Err(Failure::Finished);
            }
            let message = answers.message().await?;
            let message = message.ok_or_else(|| Failure::Wrong("the watch stream ended".into()))?;
            let watch = Watch::read(&message)?;
            if watch.canceled {
                let reason = String::from_utf8_lossy(watch.cancel_reason);
                return Err(Failure::Wrong(format!("a watcher was cancelled: {reason}")));
            }
            let (mut events, mut count) = (Events::of(&message), 0);
            while let Some(event) = events.next()? {
                order.take(&event).map_err(Failure::Wrong)?;
                count += 1;
            }
            seen += count;
            self.ledger.sum("events", count);
            self.ledger.sum("bytes", message.len() as u64);
        }
        if seen > self.puts {
            return Err(Failure::Wrong(format!("{seen} events for {} puts", self.puts)));
        }
        Ok(None)
    }
}
