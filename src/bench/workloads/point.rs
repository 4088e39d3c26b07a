//! Workloads of the KV service: put, range, transactions, delete.

use crate::bench::keys::{Dice, Keys, scattered};
use crate::bench::load::Op;
use crate::bench::settings::Consistency;
use crate::bench::tally::{Failure, Ledger};
use crate::bench::wire;
use crate::bench::worker::Worker;
use crate::client::{Link, raw};
use crate::pb::etcdserverpb as pb;
use pb::kv_client::KvClient;
use pb::{request_op, response_op};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Longest answer that is taken.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// The KV service over a connection of the worker.
pub fn kv(worker: &Worker, n: usize) -> KvClient<Link> {
    KvClient::new(worker.link(n)).max_decoding_message_size(ANSWER_BYTES_MAX)
}

/// Which keys a writer takes.
pub struct Choice {
    dice: Dice,
    keys: u64,
    sequence: Option<Arc<AtomicU64>>,
}

impl Choice {
    /// Of the key space.
    pub fn new(worker: &Worker, n: usize) -> Choice {
        Choice::of(worker.settings().key_space_size, worker, n)
    }

    /// Of keys `0..keys`.
    pub fn of(keys: u64, worker: &Worker, n: usize) -> Choice {
        let sequence = worker.settings().sequential_keys.then(|| Arc::clone(&worker.common.sequence));
        Choice { dice: worker.dice(n), keys, sequence }
    }

    /// The first of `count` numbers in a row.
    pub fn next(&mut self, count: u64) -> u64 {
        match &self.sequence {
            Some(sequence) => sequence.fetch_add(count, Ordering::Relaxed) % self.keys,
            None => self.dice.below(self.keys),
        }
    }
}

/// The stamp of what was due then: microseconds since the origin of the run.
pub fn time_stamp(origin: Instant, due: Instant) -> u64 {
    u64::try_from(due.saturating_duration_since(origin).as_micros()).unwrap_or(u64::MAX)
}

fn put_request(keys: &Keys, number: u64, origin: Instant, due: Instant) -> pb::PutRequest {
    let value = keys.value(time_stamp(origin, due));
    pb::PutRequest { key: keys.key(number), value, ..Default::default() }
}

/// Puts a key of the key space.
pub struct Put {
    kv: KvClient<Link>,
    keys: Keys,
    choice: Choice,
    origin: Instant,
    ledger: Rc<Ledger>,
    kind: Option<&'static str>,
}

impl Put {
    pub fn new(worker: &Worker, n: usize) -> Put {
        Put::among(Choice::new(worker, n), None, worker, n)
    }

    /// Puts keys of this choice; such puts are of this kind.
    pub fn among(choice: Choice, kind: Option<&'static str>, worker: &Worker, n: usize) -> Put {
        let (keys, origin, ledger) =
            (worker.common.keys.clone(), worker.common.origin, Rc::clone(&worker.ledger));
        Put { kv: kv(worker, n), keys, choice, origin, ledger, kind }
    }
}

impl Op for Put {
    async fn send(&mut self, due: Instant) -> Result<Option<&'static str>, Failure> {
        let request = put_request(&self.keys, self.choice.next(1), self.origin, due);
        self.ledger.writes_sent(1);
        self.kv.put(request).await?;
        self.ledger.writes_acked(1);
        Ok(self.kind)
    }
}

/// Reads preloaded keys: one, or as many in a row as are wanted.
pub struct Range {
    link: Link,
    keys: Keys,
    dice: Dice,
    is_serializable: bool,
    count: u64,
    /// Numbers that a read may begin with.
    starts: u64,
    ledger: Rc<Ledger>,
}

impl Range {
    pub fn new(worker: &Worker, n: usize) -> Range {
        let settings = worker.settings();
        Range {
            link: worker.link(n),
            keys: worker.common.keys.clone(),
            dice: worker.dice(n),
            is_serializable: settings.consistency == Consistency::Serializable,
            count: settings.range_keys,
            starts: settings.preloaded() - settings.range_keys + 1,
            ledger: Rc::clone(&worker.ledger),
        }
    }
}

impl Op for Range {
    async fn send(&mut self, _due: Instant) -> Result<Option<&'static str>, Failure> {
        let first = self.dice.below(self.starts);
        let last = first + self.count - 1;
        let request = pb::RangeRequest {
            key: self.keys.key(first),
            // The smallest key after the last one.
            range_end: if self.count == 1 { Vec::new() } else { [&self.keys.key(last)[..], &[0]].concat() },
            serializable: self.is_serializable,
            ..Default::default()
        };
        let message = raw::range(self.link.clone(), request).await?;
        let answer = wire::Range::read(&message)?;
        // The ends tell whether it is the right range; what lies between is counted.
        let is = |pair: Option<wire::Pair>, n| {
            pair.is_some_and(|pair| pair.key == self.keys.key(n) && self.keys.is_value(pair.value, n))
        };
        let is_right = answer.pairs == self.count && !answer.more;
        if !is_right || !is(answer.first, first) || !is(answer.last, last) {
            let (got, wanted) = (answer.pairs, self.count);
            return Err(Failure::Wrong(format!(
                "{got} keys, or other values, for {wanted} from number {first} on"
            )));
        }
        self.ledger.sum("keys", self.count);
        self.ledger.sum("bytes", message.len() as u64);
        Ok(None)
    }
}

/// Puts keys in a row in one transaction.
pub struct TxnPut {
    kv: KvClient<Link>,
    keys: Keys,
    choice: Choice,
    ops: u64,
    origin: Instant,
    ledger: Rc<Ledger>,
}

impl TxnPut {
    pub fn new(worker: &Worker, n: usize) -> TxnPut {
        TxnPut {
            kv: kv(worker, n),
            keys: worker.common.keys.clone(),
            choice: Choice::new(worker, n),
            ops: worker.settings().txn_ops,
            origin: worker.common.origin,
            ledger: Rc::clone(&worker.ledger),
        }
    }
}

impl Op for TxnPut {
    async fn send(&mut self, due: Instant) -> Result<Option<&'static str>, Failure> {
        let (first, space) = (self.choice.next(self.ops), self.choice.keys);
        let put = |n| put_op(put_request(&self.keys, (first + n) % space, self.origin, due));
        let success = (0..self.ops).map(put).collect();
        self.ledger.writes_sent(self.ops);
        let answer = self.kv.txn(pb::TxnRequest { success, ..Default::default() }).await?.into_inner();
        if !answer.succeeded || answer.responses.len() as u64 != self.ops {
            return Err(Failure::Wrong(format!("{} answers in a transaction", answer.responses.len())));
        }
        self.ledger.writes_acked(self.ops);
        self.ledger.sum("puts", self.ops);
        Ok(None)
    }
}

pub fn put_op(put: pb::PutRequest) -> pb::RequestOp {
    pb::RequestOp { request: Some(request_op::Request::RequestPut(put)) }
}

/// Transactions of one operation each: a read of the first keys, or a put.
pub struct TxnMixed {
    kv: KvClient<Link>,
    keys: Keys,
    choice: Choice,
    /// Part of the transactions that read.
    reads: f64,
    limit: u64,
    is_serializable: bool,
    origin: Instant,
    ledger: Rc<Ledger>,
}

impl TxnMixed {
    pub fn new(worker: &Worker, n: usize) -> TxnMixed {
        let settings = worker.settings();
        TxnMixed {
            kv: kv(worker, n),
            keys: worker.common.keys.clone(),
            choice: Choice::new(worker, n),
            reads: settings.rw_ratio / (1.0 + settings.rw_ratio),
            limit: settings.limit,
            is_serializable: settings.consistency == Consistency::Serializable,
            origin: worker.common.origin,
            ledger: Rc::clone(&worker.ledger),
        }
    }

    fn read(&self) -> pb::RequestOp {
        let range = pb::RangeRequest {
            key: self.keys.prefix(),
            range_end: self.keys.end(),
            limit: self.limit.cast_signed(),
            serializable: self.is_serializable,
            ..Default::default()
        };
        pb::RequestOp { request: Some(request_op::Request::RequestRange(range)) }
    }
}

impl Op for TxnMixed {
    async fn send(&mut self, due: Instant) -> Result<Option<&'static str>, Failure> {
        let is_read = self.choice.dice.fraction() < self.reads;
        let op = if is_read {
            self.read()
        } else {
            let number = self.choice.next(1);
            self.ledger.writes_sent(1);
            put_op(put_request(&self.keys, number, self.origin, due))
        };
        let request = pb::TxnRequest { success: vec![op], ..Default::default() };
        let answer = self.kv.txn(request).await?.into_inner();
        let expected = self.limit.min(self.choice.keys);
        match (is_read, answer.responses.first().and_then(|op| op.response.as_ref())) {
            (true, Some(response_op::Response::ResponseRange(range)))
                if range.kvs.len() as u64 == expected =>
            {
                Ok(Some("read"))
            }
            (false, Some(response_op::Response::ResponsePut(_))) => {
                self.ledger.writes_acked(1);
                Ok(Some("write"))
            }
            (_, other) => {
                let kind = other.map_or("nothing", |_| "another answer or number of keys");
                Err(Failure::Wrong(format!("a transaction brought {kind}")))
            }
        }
    }
}

/// Deletes preloaded keys, each once, in a scattered order. When there are none left, it has finished.
pub struct Delete {
    kv: KvClient<Link>,
    keys: Keys,
    sequence: Arc<AtomicU64>,
    total: u64,
    ledger: Rc<Ledger>,
}

impl Delete {
    pub fn new(worker: &Worker, n: usize) -> Delete {
        Delete {
            kv: kv(worker, n),
            keys: worker.common.keys.clone(),
            sequence: Arc::clone(&worker.common.sequence),
            total: worker.settings().total_keys,
            ledger: Rc::clone(&worker.ledger),
        }
    }
}

impl Op for Delete {
    async fn send(&mut self, _due: Instant) -> Result<Option<&'static str>, Failure> {
        let turn = self.sequence.fetch_add(1, Ordering::Relaxed);
        if turn >= self.total {
            return Err(Failure::Finished);
        }
        let key = self.keys.key(scattered(turn, self.total));
        self.ledger.writes_sent(1);
        let answer = self.kv.delete_range(pb::DeleteRangeRequest { key, ..Default::default() }).await?;
        match answer.into_inner().deleted {
            1 => {
                self.ledger.writes_acked(1);
                Ok(None)
            }
            other => Err(Failure::Wrong(format!("{other} keys deleted instead of 1"))),
        }
    }
}
