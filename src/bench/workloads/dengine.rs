//! Workloads of the d-engine's client protocol: put and linearizable read of one key, as `put` and `range` do by etcd's.

use super::point::{Choice, time_stamp};
use crate::bench::keys::{Dice, Keys};
use crate::bench::load::Op;
use crate::bench::settings::Consistency;
use crate::bench::tally::{Failure, Ledger};
use crate::bench::worker::Worker;
use crate::client::Link;
use crate::pb::d_engine::client as pb;
use pb::client_response::SuccessResult;
use pb::raft_client_service_client::RaftClientServiceClient;
use pb::write_command::{Insert, Operation};
use std::rc::Rc;
use std::time::Instant;

/// What the client calls itself; it means nothing.
const CLIENT_ID: u32 = 1;

/// Puts a key of the key space.
pub struct Put {
    client: RaftClientServiceClient<Link>,
    keys: Keys,
    choice: Choice,
    origin: Instant,
    ledger: Rc<Ledger>,
}

impl Put {
    pub fn new(worker: &Worker, n: usize) -> Put {
        Put {
            client: RaftClientServiceClient::new(worker.link(n)),
            keys: worker.common.keys.clone(),
            choice: Choice::of(worker.settings().key_space_size, worker, n),
            origin: worker.common.origin,
            ledger: Rc::clone(&worker.ledger),
        }
    }
}

impl Op for Put {
    async fn send(&mut self, due: Instant) -> Result<Option<&'static str>, Failure> {
        let key = self.keys.key(self.choice.next(1)).into();
        let value = self.keys.value(time_stamp(self.origin, due)).into();
        let operation = Some(Operation::Insert(Insert { key, value, ttl_secs: 0 }));
        let command = Some(pb::WriteCommand { operation });
        let request = pb::ClientWriteRequest { client_id: CLIENT_ID, command };
        self.ledger.writes_sent(1);
        let answer = self.client.handle_client_write(request).await?.into_inner();
        match answer.success_result {
            Some(SuccessResult::WriteResult(result)) if answer.error == 0 && result.succeeded => {
                self.ledger.writes_acked(1);
                Ok(None)
            }
            _ => Err(Failure::Wrong(format!("a put brought error {}", answer.error))),
        }
    }
}

/// Reads one preloaded key.
pub struct Get {
    client: RaftClientServiceClient<Link>,
    keys: Keys,
    dice: Dice,
    policy: pb::ReadConsistencyPolicy,
    total: u64,
    ledger: Rc<Ledger>,
}

impl Get {
    pub fn new(worker: &Worker, n: usize) -> Get {
        let settings = worker.settings();
        Get {
            client: RaftClientServiceClient::new(worker.link(n)),
            keys: worker.common.keys.clone(),
            dice: worker.dice(n),
            policy: match settings.consistency {
                Consistency::Linearizable => pb::ReadConsistencyPolicy::LinearizableRead,
                Consistency::Serializable => pb::ReadConsistencyPolicy::EventualConsistency,
            },
            total: settings.preloaded(),
            ledger: Rc::clone(&worker.ledger),
        }
    }
}

impl Op for Get {
    async fn send(&mut self, _due: Instant) -> Result<Option<&'static str>, Failure> {
        let number = self.dice.below(self.total);
        let key = self.keys.key(number);
        let request = pb::ClientReadRequest {
            client_id: CLIENT_ID,
            keys: vec![key.clone().into()],
            consistency_policy: Some(self.policy as i32),
        };
        let answer = self.client.handle_client_read(request).await?.into_inner();
        let results = match answer.success_result {
            Some(SuccessResult::ReadData(data)) if answer.error == 0 => data.results,
            _ => return Err(Failure::Wrong(format!("a read brought error {}", answer.error))),
        };
        match &results[..] {
            [result] if result.key == key && self.keys.is_value(&result.value, number) => {
                self.ledger.sum("keys", 1);
                Ok(None)
            }
            found => {
                Err(Failure::Wrong(format!("{} keys, or another value, for number {number}", found.len())))
            }
        }
    }
}
