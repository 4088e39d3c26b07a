//! Workloads of the lease service: grant, keep alive, and how long after its time a lease ends.

use super::crowd;
use super::watch::everything;
use crate::bench::Error;
use crate::bench::keys::Keys;
use crate::bench::load::Op;
use crate::bench::tally::{Failure, Ledger};
use crate::bench::wire::{Events, Malformed, Watch};
use crate::bench::worker::Worker;
use crate::client::{Link, Status, Streaming, raw};
use crate::pb::etcdserverpb as pb;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Grants a lease; it ends by itself.
pub struct Grant {
    lease: LeaseClient<Link>,
    ttl: i64,
    ledger: Rc<Ledger>,
}

impl Grant {
    pub fn new(worker: &Worker, n: usize) -> Grant {
        let (ttl, ledger) = (worker.settings().ttl, Rc::clone(&worker.ledger));
        Grant { lease: LeaseClient::new(worker.link(n)), ttl, ledger }
    }
}

/// Grants a lease, and looks whether it is one.
pub async fn grant(lease: &mut LeaseClient<Link>, ttl: i64) -> Result<pb::LeaseGrantResponse, Failure> {
    let answer = lease.lease_grant(pb::LeaseGrantRequest { ttl, id: 0 }).await?.into_inner();
    if answer.id == 0 || answer.ttl < ttl || !answer.error.is_empty() {
        return Err(Failure::Wrong(format!(
            "a lease of {} s instead of {ttl} s: {}",
            answer.ttl, answer.error
        )));
    }
    Ok(answer)
}

impl Op for Grant {
    async fn send(&mut self, _due: Instant) -> Result<Option<&'static str>, Failure> {
        self.ledger.writes_sent(1);
        grant(&mut self.lease, self.ttl).await?;
        self.ledger.writes_acked(1);
        Ok(None)
    }
}

/// Grants each client a lease, and lets it keep that alive.
///
/// # Errors
/// There is no lease to be had, or the run is broken off.
pub async fn keep_alive(worker: &Worker) -> Result<(), Error> {
    let settings = worker.settings();
    let mut clients = Vec::new();
    for n in 0..worker.share(settings.clients) {
        clients.push(KeepAlive::new(worker, n).await?);
    }
    let mut clients = clients.into_iter();
    let next = |_| clients.next().expect("as many as this thread's share");
    worker.load(settings.clients, settings.rate, next).await
}

/// Keeps a lease of its own alive, on a stream of its own.
struct KeepAlive {
    id: i64,
    ttl: i64,
    requests: mpsc::Sender<pb::LeaseKeepAliveRequest>,
    answers: Streaming<pb::LeaseKeepAliveResponse>,
}

impl KeepAlive {
    async fn new(worker: &Worker, n: usize) -> Result<KeepAlive, Error> {
        let mut lease = LeaseClient::new(worker.link(n));
        let granted = grant(&mut lease, worker.settings().ttl).await;
        let pb::LeaseGrantResponse { id, ttl, .. } = granted.map_err(|failure| match failure {
            Failure::Refused(status) => Error::Refused(status),
            Failure::Wrong(text) => Error::Failed(text),
            Failure::Finished => Error::broken_off(),
        })?;
        worker.ledger.granted(id);
        // One is sent after the other.
        let (requests, sent) = mpsc::channel(1);
        let sent = stream::unfold(sent, |mut sent| async move { Some((sent.recv().await?, sent)) });
        // A server answers the begin of a stream at once, or with the first message: that must not be waited for first.
        requests.send(pb::LeaseKeepAliveRequest { id }).await.map_err(|_| Error::broken_off())?;
        let mut answers = lease.lease_keep_alive(sent).await?.into_inner();
        answers.message().await?;
        Ok(KeepAlive { id, ttl, requests, answers })
    }
}

impl Op for KeepAlive {
    async fn send(&mut self, _due: Instant) -> Result<Option<&'static str>, Failure> {
        let ended = || Failure::Refused(Status::unavailable("the keep-alive stream ended"));
        self.requests.send(pb::LeaseKeepAliveRequest { id: self.id }).await.map_err(|_| ended())?;
        let answer = self.answers.message().await?.ok_or_else(ended)?;
        if (answer.id, answer.ttl) != (self.id, self.ttl) {
            return Err(Failure::Wrong(format!(
                "lease {:x} has {} s left after a renewal",
                answer.id, answer.ttl
            )));
        }
        Ok(None)
    }
}

/// Lets clients grant leases with a key each, and watches the keys go.
///
/// # Errors
/// The watcher is not created, or the run is broken off.
pub async fn expiry(worker: &Worker) -> Result<(), Error> {
    let settings = worker.settings();
    let terms = Rc::new(RefCell::new(HashMap::new()));
    let request = crowd::create(everything(&worker.common.keys, false), worker.common.start_revision);
    let requests = stream::iter([request]).chain(stream::pending());
    let answers = raw::watch(worker.link(0), requests).await?;
    let undertaker = Undertaker {
        answers,
        terms: Rc::clone(&terms),
        ledger: Rc::clone(&worker.ledger),
        delivered: Arc::clone(&worker.common.delivered),
    };
    let undertaker = tokio::task::spawn_local(undertaker.listen());
    let step = settings.clients as u64;
    let load = worker.load(settings.clients, settings.put_rate, |n| Mortal {
        lease: LeaseClient::new(worker.link(n)),
        kv: KvClient::new(worker.link(n)),
        keys: worker.common.keys.clone(),
        next: worker.number(n) as u64,
        step,
        ttl: settings.ttl,
        terms: Rc::clone(&terms),
        ledger: Rc::clone(&worker.ledger),
    });
    let result = load.await;
    undertaker.abort();
    result
}

/// When the lease of a key may end, and when it should have.
struct Term {
    earliest: Instant,
    due: Instant,
}

type Terms = Rc<RefCell<HashMap<Vec<u8>, Term>>>;

/// Grants a lease, and puts a key that ends with it.
struct Mortal {
    lease: LeaseClient<Link>,
    kv: KvClient<Link>,
    keys: Keys,
    next: u64,
    step: u64,
    ttl: i64,
    terms: Terms,
    ledger: Rc<Ledger>,
}

impl Op for Mortal {
    async fn send(&mut self, _due: Instant) -> Result<Option<&'static str>, Failure> {
        let sent = Instant::now();
        let pb::LeaseGrantResponse { id, ttl, .. } = grant(&mut self.lease, self.ttl).await?;
        // The server's clock for the lease starts somewhere between the two.
        let ttl = Duration::from_secs(ttl.unsigned_abs());
        let term = Term { earliest: sent + ttl, due: Instant::now() + ttl };
        let key = self.keys.key(self.next);
        self.next += self.step;
        self.terms.borrow_mut().insert(key.clone(), term);
        self.ledger.writes_sent(1);
        let put = pb::PutRequest { key, value: self.keys.value(0), lease: id, ..Default::default() };
        self.kv.put(put).await?;
        self.ledger.writes_acked(1);
        Ok(Some("grant_and_put"))
    }
}

/// Sees keys end.
struct Undertaker {
    answers: Streaming<Bytes>,
    /// Leases that this thread granted and that have not ended.
    terms: Terms,
    ledger: Rc<Ledger>,
    delivered: Arc<AtomicU64>,
}

impl Undertaker {
    async fn listen(mut self) {
        loop {
            let fault = match self.answers.message().await {
                Ok(Some(message)) => match self.take(&message) {
                    Ok(()) => continue,
                    Err(Malformed) => "no watch response".to_owned(),
                },
                Ok(None) => "the watch stream ended".to_owned(),
                Err(status) => format!("the watch stream ended: {status}"),
            };
            return self.ledger.wrong(fault);
        }
    }

    fn take(&mut self, message: &[u8]) -> Result<(), Malformed> {
        let watch = Watch::read(message)?;
        if watch.canceled {
            self.ledger.wrong("the watcher was cancelled".into());
        }
        let (mut events, now) = (Events::of(message), Instant::now());
        while let Some(event) = events.next()? {
            // Keys of other threads are theirs to look at.
            let term = if event.is_delete { self.terms.borrow_mut().remove(event.pair.key) } else { None };
            if let Some(term) = term {
                if now < term.earliest {
                    self.ledger.wrong(format!("a lease ended {:?} early", term.earliest - now));
                }
                self.ledger.ended(now.saturating_duration_since(term.due));
                self.delivered.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}
