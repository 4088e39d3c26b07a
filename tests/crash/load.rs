//! The load of one round: tasks that write until the server dies, and journal what they asked for and were told.
//!
//! Every task but the contended ones writes below its own prefix and one request at a time, so it knows exactly what each
//! of its requests changes. No value is ever written twice. An error while the server lives fails the test.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use kvist::pb::etcdserverpb as pb;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;
use tonic::{Response, Status};

use crate::client::{Clients, patient};
use crate::journal::{Attempt, Change, Journal, Key, Outcome, Pair};
use crate::{admin, writers};

/// What all tasks of a round share.
#[derive(Clone)]
pub struct Shared {
    pub clients: Clients,
    /// Set before the server is killed.
    pub dying: Arc<AtomicBool>,
    /// Highest revision of any answer so far: no answer to a later request may be below it.
    pub floor: Arc<AtomicI64>,
    pub round: u32,
}

/// A task at work.
pub struct Worker {
    pub shared: Shared,
    pub task: u32,
    pub rng: StdRng,
    pub journal: Journal,
    /// Own keys as they are now.
    pub own: BTreeMap<Key, Pair>,
    /// Last revision that this task knows of.
    known: i64,
    values: u64,
}

/// Running tasks of a round.
pub struct Load(Vec<JoinHandle<Journal>>);

/// Bounds on what is going on in a round.
pub struct Plan {
    pub seed: u64,
    /// Whether history is compacted while the load runs, and the last compaction so far.
    pub compact: Option<i64>,
    /// Whether the state is rewritten while the load runs.
    pub defragment: bool,
    /// What the watchers have seen.
    pub seen: Vec<Arc<AtomicI64>>,
}

impl Load {
    /// Starts all tasks on the `state` that the last check found, with the leases that are alive.
    pub fn start(shared: &Shared, state: &BTreeMap<Key, Pair>, leases: Vec<i64>, plan: Plan) -> Load {
        let worker = |task: u32| Worker::new(shared.clone(), task, plan.seed, state);
        let mut tasks = vec![
            tokio::spawn(writers::count(worker(0))),
            tokio::spawn(writers::count(worker(1))),
            tokio::spawn(writers::contend(worker(2))),
            tokio::spawn(writers::contend(worker(3))),
            tokio::spawn(writers::put_and_delete(worker(4))),
            tokio::spawn(writers::transact(worker(5))),
            tokio::spawn(admin::lease(worker(6), leases)),
            tokio::spawn(admin::digest(worker(7))),
        ];
        if let Some(last) = plan.compact {
            tasks.push(tokio::spawn(admin::compact(worker(8), plan.seen, last)));
        }
        if plan.defragment {
            tasks.push(tokio::spawn(admin::defragment(worker(9))));
        }
        Load(tasks)
    }

    /// The journals of all tasks; the server is gone.
    pub async fn cut_off(self) -> Journal {
        let mut journal = Journal::default();
        for task in self.0 {
            journal.join(patient(task).await.expect("no task panics"));
        }
        journal
    }
}

impl Worker {
    fn new(shared: Shared, task: u32, seed: u64, state: &BTreeMap<Key, Pair>) -> Worker {
        let prefix = format!("{task}/").into_bytes();
        let own = state.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
        let own = own.map(|(key, pair)| (key.clone(), pair.clone())).collect();
        let known = shared.floor.load(Ordering::SeqCst);
        let rng = StdRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(u64::from(task)));
        Worker { shared, task, rng, journal: Journal::default(), own, known, values: 0 }
    }

    /// A key of this task.
    pub fn key(&self, n: u32) -> Key {
        format!("{}/{n:03}", self.task).into_bytes()
    }

    /// A value that nobody else ever writes; seldom so long that it is stored apart.
    pub fn value(&mut self) -> Vec<u8> {
        self.values += 1;
        let mut value = format!("{}.{}.{}.", self.shared.round, self.task, self.values).into_bytes();
        let len = if self.rng.random_ratio(1, 40) { self.rng.random_range(1000..9000) } else { value.len() };
        value.resize(len.max(value.len()), b'x');
        value
    }

    /// A call that changes nothing; `None` once the server is gone.
    pub async fn call<T: Answer>(
        &mut self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Option<T> {
        let floor = self.shared.floor.load(Ordering::SeqCst);
        let answer = self.finish(patient(call).await)?;
        let revision = answer.header().revision;
        assert!(revision >= floor, "an answer at revision {revision} after one at {floor}");
        self.shared.floor.fetch_max(revision, Ordering::SeqCst);
        self.known = self.known.max(revision);
        Some(answer)
    }

    /// The answer; `None` once the server is gone, which is the only error allowed.
    pub fn finish<T>(&self, answer: Result<Response<T>, Status>) -> Option<T> {
        match answer {
            Ok(answer) => Some(answer.into_inner()),
            Err(status) => {
                assert!(self.shared.dying.load(Ordering::SeqCst), "refused while the server lived: {status}");
                None
            }
        }
    }

    /// A write with all of `changes`, journalled before it is sent.
    pub async fn write<T: Answer>(
        &mut self,
        changes: Vec<Change>,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Option<T> {
        let at = self.attempt(changes);
        let answer = self.call(call).await?;
        let revision = answer.header().revision;
        self.journal.attempts[at].outcome = Outcome::Done(revision);
        self.remember(at, revision);
        Some(answer)
    }

    /// Journals a write that is about to be sent.
    pub fn attempt(&mut self, changes: Vec<Change>) -> usize {
        let after = self.known;
        let attempt = Attempt { changes, guard: None, revokes: None, after, outcome: Outcome::Unknown };
        self.journal.attempts.push(attempt);
        self.journal.attempts.len() - 1
    }

    fn remember(&mut self, attempt: usize, revision: i64) {
        for change in &self.journal.attempts[attempt].changes {
            match change.clone() {
                Change::Delete { key } => {
                    self.own.remove(&key);
                }
                Change::Put { key, value, lease } => {
                    let pair = Pair { value, created: 0, modified: revision, version: 0, lease };
                    self.own.insert(key, pair);
                }
            }
        }
    }
}

/// An answer with a header.
pub trait Answer {
    fn header(&self) -> &pb::ResponseHeader;
}

macro_rules! answers {
    ($($name:ident),+) => {$(
        impl Answer for pb::$name {
            fn header(&self) -> &pb::ResponseHeader {
                self.header.as_ref().expect("an answer has a header")
            }
        }
    )+};
}
answers!(
    RangeResponse,
    PutResponse,
    DeleteRangeResponse,
    TxnResponse,
    LeaseGrantResponse,
    LeaseRevokeResponse,
    CompactionResponse,
    HashKvResponse
);
