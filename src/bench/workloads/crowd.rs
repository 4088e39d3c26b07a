//! Watchers of one thread, and what they must see: every change once and in order. Watchers share streams, streams share
//! connections. Used by the workloads that watch.

use crate::bench::Error;
use crate::bench::keys::stamp;
use crate::bench::tally::Ledger;
use crate::bench::wire::{Event, Events, Malformed, Watch};
use crate::bench::worker::Worker;
use crate::client::{Streaming, raw};
use crate::pb::etcdserverpb as pb;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use pb::watch_request::RequestUnion;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Longest wait for the creation of the watchers of one stream.
const CREATE_PATIENCE: Duration = Duration::from_secs(30);

/// Watchers, until it is dropped.
pub struct Crowd {
    _tasks: JoinSet<()>,
}

/// What a watcher looks at.
#[derive(Clone)]
pub struct Interest {
    /// From this key,
    pub key: Vec<u8>,
    /// to before this one; empty for the key alone.
    pub range_end: Vec<u8>,
    /// With the pair before each change.
    pub prev_kv: bool,
}

impl Crowd {
    /// Creates this thread's share of `watchers` on its share of `streams`, from the revision on at which the run began.
    /// `interest` says what the n-th of all watchers looks at.
    ///
    /// # Errors
    /// The server does not create them.
    pub async fn gather(
        worker: &Worker,
        watchers: usize,
        streams: usize,
        interest: impl Fn(usize) -> Interest,
    ) -> Result<Crowd, Error> {
        let (mine, mut tasks) = (worker.share(watchers), JoinSet::new());
        let streams = worker.share(streams).clamp(1, mine.max(1));
        for turn in 0..streams {
            // The watchers of all streams differ by one at most.
            let creates: Vec<pb::WatchRequest> = (turn..mine)
                .step_by(streams)
                .map(|n| create(interest(worker.number(n)), worker.common.start_revision))
                .collect();
            let count = creates.len();
            if count == 0 {
                break;
            }
            // Never ends: a server may take the end of the requests for the end of the watch.
            let requests = stream::iter(creates).chain(stream::pending());
            let answers = raw::watch(worker.link(turn), requests).await?;
            let (origin, delivered) = (worker.common.origin, Arc::clone(&worker.common.delivered));
            let ledger = Rc::clone(&worker.ledger);
            let mut listener = Listener { answers, watchers: HashMap::new(), origin, ledger, delivered };
            let created = tokio::time::timeout(CREATE_PATIENCE, listener.created(count)).await;
            created.map_err(|_| Error::Failed("watchers were not created in time".into()))??;
            tasks.spawn_local(listener.listen());
        }
        Ok(Crowd { _tasks: tasks })
    }
}

/// A request to watch.
pub fn create(interest: Interest, start_revision: i64) -> pb::WatchRequest {
    let Interest { key, range_end, prev_kv } = interest;
    let create = pb::WatchCreateRequest { key, range_end, prev_kv, start_revision, ..Default::default() };
    pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

/// One stream.
struct Listener {
    answers: Streaming<Bytes>,
    /// The watchers on it, by their ids.
    watchers: HashMap<i64, Order>,
    origin: Instant,
    ledger: Rc<Ledger>,
    /// Events of all threads.
    delivered: Arc<AtomicU64>,
}

impl Listener {
    async fn created(&mut self, count: usize) -> Result<(), Error> {
        while self.watchers.len() < count {
            let message = self.answers.message().await?;
            let message = message.ok_or_else(|| Error::Failed("the watch stream ended".into()))?;
            let watch =
                Watch::read(&message).map_err(|Malformed| Error::Failed("no watch response".into()))?;
            if watch.canceled {
                let reason = String::from_utf8_lossy(watch.cancel_reason);
                return Err(Error::Failed(format!("a watcher was not created: {reason}")));
            }
            if watch.created {
                self.watchers.insert(watch.watch_id, Order::default());
            }
        }
        Ok(())
    }

    async fn listen(mut self) {
        loop {
            let fault = match self.answers.message().await {
                Ok(Some(message)) => match self.take(&message) {
                    Ok(()) => continue,
                    Err(fault) => fault,
                },
                Ok(None) => "the watch stream ended".to_owned(),
                Err(status) => format!("the watch stream ended: {status}"),
            };
            return self.ledger.wrong(fault);
        }
    }

    fn take(&mut self, message: &[u8]) -> Result<(), String> {
        let no_response = |Malformed| "no watch response".to_owned();
        let watch = Watch::read(message).map_err(no_response)?;
        if watch.canceled {
            return Err(format!("a watcher was cancelled: {}", String::from_utf8_lossy(watch.cancel_reason)));
        }
        let order = self.watchers.get_mut(&watch.watch_id).ok_or("an event for nobody")?;
        let (mut events, mut count, now) = (Events::of(message), 0, Instant::now());
        while let Some(event) = events.next().map_err(no_response)? {
            order.take(&event)?;
            let stamp = stamp(event.pair.value).ok_or("an event with a foreign value")?;
            self.ledger.delivered(now, self.origin + Duration::from_micros(stamp));
            count += 1;
        }
        self.ledger.sum("events", count);
        self.delivered.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }
}

/// The order that one watcher has seen.
#[derive(Debug, Default)]
pub struct Order {
    /// Of the last event.
    revision: i64,
}

impl Order {
    /// An event must be younger than the last one. With as many events as there were puts, each came once.
    pub fn take(&mut self, event: &Event) -> Result<(), String> {
        let (last, revision) = (self.revision, event.pair.mod_revision);
        if revision <= last {
            return Err(format!("an event of revision {revision} came after one of revision {last}"));
        }
        self.revision = revision;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::wire::Pair;

    fn event(mod_revision: i64) -> Event<'static> {
        Event { is_delete: false, pair: Pair { mod_revision, ..Pair::default() } }
    }

    #[test]
    fn repeated_and_reversed_events_are_found() {
        let faults = |revisions: &[i64]| {
            let mut order = Order::default();
            revisions.iter().filter(|revision| order.take(&event(**revision)).is_err()).count()
        };
        assert_eq!(faults(&[3, 4, 6]), 0);
        assert_eq!(faults(&[3, 4, 4]), 1);
        assert_eq!(faults(&[3, 5, 4]), 1);
    }
}
