//! A mix of requests as an API server of Kubernetes sends it: guarded updates of objects of 1-2 KiB, reads of one object,
//! lists in pages, and short-lived objects (its "events") under a lease, while watchers look at all of it. Each client owns
//! a part of the objects, so that it knows what it must find.

use super::crowd::Crowd;
use super::point::{kv, put_op, time_stamp};
use super::watch::everything;
use crate::bench::Error;
use crate::bench::keys::{Dice, Keys};
use crate::bench::load::Op;
use crate::bench::tally::{Failure, Ledger};
use crate::bench::wire;
use crate::bench::worker::Worker;
use crate::client::{Link, raw};
use crate::pb::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::request_op::Request;
use pb::response_op::Response;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

/// Requests of each kind among a hundred; the rest creates short-lived objects.
const UPDATES: u64 = 55;
const GETS: u64 = 15;
const LISTS: u64 = 10;
/// Objects in a page of a list.
const PAGE: u64 = 500;
/// Seconds that a short-lived object lives.
const SHORT_LIFE_SECS: i64 = 3600;
/// Objects that share a lease.
const OBJECTS_PER_LEASE: u64 = 1000;

/// Runs this thread's clients and watchers.
///
/// # Errors
/// The watchers are not created, or the run is broken off.
pub async fn run(worker: &Worker) -> Result<(), Error> {
    let (settings, keys) = (worker.settings(), &worker.common.keys);
    let interest = |_| everything(keys, true);
    let _crowd = Crowd::gather(worker, settings.watchers, settings.streams, interest).await?;
    worker.load(settings.clients, settings.rate, |n| Mix::new(worker, n)).await
}

/// One client.
struct Mix {
    kv: KvClient<Link>,
    lease: LeaseClient<Link>,
    link: Link,
    keys: Keys,
    dice: Dice,
    origin: Instant,
    ledger: Rc<Ledger>,
    /// Number of this client, and of all: it owns every so-manyeth object.
    client: u64,
    clients: u64,
    objects: u64,
    /// What it knows of its objects: the revision of the last change.
    known: HashMap<u64, i64>,
    /// The list that it reads: first object of the next page, and the revision that all pages are of; 0 at the first.
    page: (u64, i64),
    /// The lease of its short-lived objects, and how many it made so far.
    current_lease: i64,
    created: u64,
}

impl Mix {
    fn new(worker: &Worker, n: usize) -> Mix {
        let settings = worker.settings();
        Mix {
            kv: kv(worker, n),
            lease: LeaseClient::new(worker.link(n)),
            link: worker.link(n),
            keys: worker.common.keys.clone(),
            dice: worker.dice(n),
            origin: worker.common.origin,
            ledger: Rc::clone(&worker.ledger),
            client: worker.number(n) as u64,
            clients: settings.clients as u64,
            objects: settings.total_keys,
            known: HashMap::new(),
            page: (0, 0),
            current_lease: 0,
            created: 0,
        }
    }

    /// One of its objects.
    fn own(&mut self) -> u64 {
        let mine = (self.objects - self.client).div_ceil(self.clients);
        self.client + self.dice.below(mine) * self.clients
    }

    fn value(&mut self, due: Instant) -> Vec<u8> {
        self.keys.uneven_value(time_stamp(self.origin, due), &mut self.dice)
    }

    async fn update(&mut self, due: Instant) -> Result<(), Failure> {
        let object = self.own();
        let revision = match self.known.remove(&object) {
            Some(revision) => revision,
            // As a client that has no object in its cache: no guess can be right, so the answer brings it.
            None => self.guarded_put(object, 0, due).await?.1,
        };
        let (is_done, revision) = self.guarded_put(object, revision, due).await?;
        if !is_done {
            return Err(Failure::Wrong("somebody else has changed an object".into()));
        }
        self.known.insert(object, revision);
        Ok(())
    }

    /// Puts an object if its last change was of this revision; says whether it did, and the revision of its last change.
    async fn guarded_put(
        &mut self,
        object: u64,
        revision: i64,
        due: Instant,
    ) -> Result<(bool, i64), Failure> {
        let (key, value) = (self.keys.key(object), self.value(due));
        let guard = pb::Compare {
            key: key.clone(),
            target: CompareTarget::Mod.into(),
            result: CompareResult::Equal.into(),
            target_union: Some(TargetUnion::ModRevision(revision)),
            ..Default::default()
        };
        let get = pb::RangeRequest { key: key.clone(), ..Default::default() };
        let request = pb::TxnRequest {
            compare: vec![guard],
            success: vec![put_op(pb::PutRequest { key, value, ..Default::default() })],
            failure: vec![pb::RequestOp { request: Some(Request::RequestRange(get)) }],
        };
        // With revision 0 nothing is written: the object is there.
        let writes = u64::from(revision != 0);
        self.ledger.writes_sent(writes);
        let answer = self.kv.txn(request).await?.into_inner();
        self.ledger.writes_acked(if answer.succeeded { writes } else { 0 });
        let now = answer.header.as_ref().map_or(0, |header| header.revision);
        match answer.responses.into_iter().next().and_then(|op| op.response) {
            Some(Response::ResponsePut(_)) if answer.succeeded && revision != 0 => Ok((true, now)),
            Some(Response::ResponseRange(range)) if range.kvs.len() == 1 => {
                Ok((false, range.kvs[0].mod_revision))
            }
            _ => Err(Failure::Wrong("an object is missing".into())),
        }
    }

    async fn get(&mut self) -> Result<(), Failure> {
        let object = self.own();
        let request = pb::RangeRequest { key: self.keys.key(object), ..Default::default() };
        let message = raw::range(self.link.clone(), request).await?;
        let range = wire::Range::read(&message)?;
        let found = range.first.ok_or_else(|| Failure::Wrong("an object is missing".into()))?;
        match self.known.insert(object, found.mod_revision) {
            Some(known) if known != found.mod_revision => {
                let text = format!("an object of revision {} instead of {known}", found.mod_revision);
                Err(Failure::Wrong(text))
            }
            _ => Ok(()),
        }
    }

    /// Reads the next page of all objects.
    async fn list(&mut self) -> Result<(), Failure> {
        let (first, revision) = std::mem::take(&mut self.page);
        let request = pb::RangeRequest {
            key: self.keys.key(first),
            range_end: self.keys.end_of_numbers(),
            limit: PAGE.cast_signed(),
            revision,
            ..Default::default()
        };
        let message = raw::range(self.link.clone(), request).await?;
        let range = wire::Range::read(&message)?;
        let next = self.objects.min(first + PAGE);
        let is_last = |pair: wire::Pair| pair.key == self.keys.key(next - 1);
        if range.pairs != next - first || !range.last.is_some_and(is_last) {
            return Err(Failure::Wrong(format!("a page of {} objects, or other ones", range.pairs)));
        }
        self.ledger.sum("listed", range.pairs);
        if range.more {
            self.page = (next, if revision == 0 { range.revision } else { revision });
        }
        Ok(())
    }

    async fn create(&mut self, due: Instant) -> Result<(), Failure> {
        if self.created.is_multiple_of(OBJECTS_PER_LEASE) {
            self.current_lease = super::lease::grant(&mut self.lease, SHORT_LIFE_SECS).await?.id;
            self.ledger.granted(self.current_lease);
        }
        let key = self.keys.named(&format!("event-{}-{}", self.client, self.created));
        self.created += 1;
        let put =
            pb::PutRequest { key, value: self.value(due), lease: self.current_lease, ..Default::default() };
        self.ledger.writes_sent(1);
        self.kv.put(put).await?;
        self.ledger.writes_acked(1);
        Ok(())
    }
}

impl Op for Mix {
    async fn send(&mut self, due: Instant) -> Result<Option<&'static str>, Failure> {
        let kind = match self.dice.below(100) {
            n if n < UPDATES => self.update(due).await.map(|()| "update"),
            n if n < UPDATES + GETS => self.get().await.map(|()| "get"),
            n if n < UPDATES + GETS + LISTS => self.list().await.map(|()| "list"),
            _ => self.create(due).await.map(|()| "create"),
        };
        kind.map(Some)
    }
}
