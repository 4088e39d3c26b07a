//! Workloads of the draft of etcd's third API: put and range, as `point` does them by etcd's API.

use super::point::{Choice, time_stamp};
use crate::bench::keys::{Dice, Keys};
use crate::bench::load::Op;
use crate::bench::tally::{Failure, Ledger};
use crate::bench::wire;
use crate::bench::worker::Worker;
use crate::client::{Link, raw};
use crate::pb::rfc as pb;
use bytes::Bytes;
use pb::etcd_client::EtcdClient;
use std::rc::Rc;
use std::time::Instant;

/// Puts a key of the key space.
pub struct Put {
    rfc: EtcdClient<Link>,
    keys: Keys,
    choice: Choice,
    origin: Instant,
    ledger: Rc<Ledger>,
}

impl Put {
    pub fn new(worker: &Worker, n: usize) -> Put {
        Put {
            rfc: EtcdClient::new(worker.link(n)),
            keys: worker.common.keys.clone(),
            choice: Choice::new(worker, n),
            origin: worker.common.origin,
            ledger: Rc::clone(&worker.ledger),
        }
    }
}

impl Op for Put {
    async fn send(&mut self, due: Instant) -> Result<Option<&'static str>, Failure> {
        let (key, value) =
            (self.keys.key(self.choice.next(1)), self.keys.value(time_stamp(self.origin, due)));
        let request = pb::PutRequest { key: Some(key.into()), value: Some(value.into()) };
        self.ledger.writes_sent(1);
        let header = self.rfc.put(request).await?.into_inner().header.unwrap_or_default();
        if let Some(error) = header.error {
            return Err(Failure::Wrong(error));
        }
        self.ledger.writes_acked(1);
        Ok(None)
    }
}

/// Reads preloaded keys: one, or as many in a row as are wanted. Always linearizable.
pub struct Range {
    link: Link,
    keys: Keys,
    dice: Dice,
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
        // The smallest key after the last one.
        let end = || Bytes::from([&self.keys.key(last)[..], &[0]].concat());
        let request = pb::RangeRequest {
            key: Some(self.keys.key(first).into()),
            range_end: (self.count > 1).then(end),
            ..Default::default()
        };
        let message = raw::rfc_range(self.link.clone(), request).await?;
        // Pairs have the same fields as etcd's; a refusal has none of them.
        let answer = wire::Range::read(&message)?;
        let is = |pair: Option<wire::Pair>, n| {
            pair.is_some_and(|pair| pair.key == self.keys.key(n) && self.keys.is_value(pair.value, n))
        };
        if answer.pairs != self.count || !is(answer.first, first) || !is(answer.last, last) {
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
