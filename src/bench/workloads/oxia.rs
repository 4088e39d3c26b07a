//! Workloads of Oxia's early client protocol: batches of one item each, to be compared with `point`'s puts and reads.

use super::point::{Choice, time_stamp};
use crate::bench::keys::{Dice, Keys};
use crate::bench::load::Op;
use crate::bench::tally::{Failure, Ledger};
use crate::bench::worker::Worker;
use crate::client::Link;
use crate::pb::oxia as pb;
use pb::oxia_client_client::OxiaClientClient;
use pb::{get_response, put_response};
use std::rc::Rc;
use std::time::Instant;

fn text(key: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(key).map_err(|_| Failure::Wrong("keys of Oxia are text".into()))
}

/// Puts a key of the key space.
pub struct Put {
    oxia: OxiaClientClient<Link>,
    keys: Keys,
    choice: Choice,
    origin: Instant,
    ledger: Rc<Ledger>,
}

impl Put {
    pub fn new(worker: &Worker, n: usize) -> Put {
        Put {
            oxia: OxiaClientClient::new(worker.link(n)),
            keys: worker.common.keys.clone(),
            choice: Choice::new(worker, n),
            origin: worker.common.origin,
            ledger: Rc::clone(&worker.ledger),
        }
    }
}

impl Op for Put {
    async fn send(&mut self, due: Instant) -> Result<Option<&'static str>, Failure> {
        let key = text(self.keys.key(self.choice.next(1)))?;
        let payload = self.keys.value(time_stamp(self.origin, due)).into();
        let put = pb::PutRequest { key, payload, expected_version: None };
        self.ledger.writes_sent(1);
        let request = pb::BatchRequest { puts: vec![put], ..Default::default() };
        let answer = self.oxia.batch(request).await?.into_inner();
        match answer.puts.first().and_then(|put| put.result.as_ref()) {
            Some(put_response::Result::Stat(_)) => {
                self.ledger.writes_acked(1);
                Ok(None)
            }
            other => Err(Failure::Wrong(format!("a put brought {other:?}"))),
        }
    }
}

/// Reads a preloaded key.
pub struct Get {
    oxia: OxiaClientClient<Link>,
    keys: Keys,
    dice: Dice,
    count: u64,
    ledger: Rc<Ledger>,
}

impl Get {
    pub fn new(worker: &Worker, n: usize) -> Get {
        Get {
            oxia: OxiaClientClient::new(worker.link(n)),
            keys: worker.common.keys.clone(),
            dice: worker.dice(n),
            count: worker.settings().preloaded(),
            ledger: Rc::clone(&worker.ledger),
        }
    }
}

impl Op for Get {
    async fn send(&mut self, _due: Instant) -> Result<Option<&'static str>, Failure> {
        let number = self.dice.below(self.count);
        let get = pb::GetRequest { key: text(self.keys.key(number))?, include_payload: true };
        let request = pb::BatchRequest { gets: vec![get], ..Default::default() };
        let answer = self.oxia.batch(request).await?.into_inner();
        let found = answer.gets.first();
        let is_there = found.is_some_and(|get| matches!(get.result, Some(get_response::Result::Stat(_))));
        match found.and_then(|get| get.payload.as_ref()) {
            Some(payload) if is_there && self.keys.is_value(payload, number) => {
                self.ledger.sum("keys", 1);
                Ok(None)
            }
            _ => Err(Failure::Wrong(format!("no payload, or another one, for key number {number}"))),
        }
    }
}
