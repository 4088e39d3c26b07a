//! Closed-loop load: N tasks on one thread, each sending its next request when the last one is answered. A request counts
//! when it is answered inside the measured window; every acknowledged one is remembered for the check afterwards.
//! Used by `runs` and, with a pace, by `watch`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use kvist::pb::etcdserverpb as pb;
use pb::kv_client::KvClient;
use tokio::task::{JoinSet, spawn_local};

use crate::Result;
use crate::client::{self, Client, Dice, Link};
use crate::process::Usage;
use crate::server::Server;
use crate::workload::{self as w, RANGE_KEYS};

/// Named figures of one run.
pub type Figures = BTreeMap<&'static str, f64>;

/// Longest wait for answers that are outstanding when the load stops.
const LAST_ANSWERS: Duration = Duration::from_secs(30);
/// Pause of a task after an error, so that a refusing server is not flooded.
const AFTER_ERROR: Duration = Duration::from_millis(10);
/// How often the filling repeats a put that failed.
const RETRIES_MAX: usize = 100;
/// Latencies are kept up to this; longer ones count as this.
const LATENCY_US_MAX: u64 = 120_000_000;

/// What a task sends.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// Put one of `keys` keys, chosen at random; the value carries the microseconds since `origin`.
    Put { keys: u64, origin: Instant },
    /// Read one of `keys` preloaded keys, chosen at random.
    Get { keys: u64 },
    /// Read all preloaded keys.
    Range,
}

/// Why a request did not count.
#[derive(Debug)]
enum Failure {
    /// The server said no, or nothing.
    Refused(tonic::Status),
    /// It answered, but not what it should have. One of these spoils the run.
    Wrong(String),
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Failure {
        Failure::Refused(status)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Warmup,
    Measured,
    Over,
}

/// What the tasks of a load have seen; shared by them, on one thread.
pub struct Ledger {
    phase: Cell<Phase>,
    /// Answers inside the measured window, and their latency.
    done: Cell<u64>,
    latency_us: RefCell<Histogram<u64>>,
    /// Good answers in all phases, and the rest.
    acked: Cell<u64>,
    errors: Cell<u64>,
    first_error: RefCell<Option<String>>,
    first_wrong: RefCell<Option<String>>,
}

impl Ledger {
    pub fn new() -> Result<Rc<Ledger>> {
        Ok(Rc::new(Ledger {
            phase: Cell::new(Phase::Warmup),
            done: Cell::new(0),
            latency_us: RefCell::new(Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?),
            acked: Cell::new(0),
            errors: Cell::new(0),
            first_error: RefCell::new(None),
            first_wrong: RefCell::new(None),
        }))
    }

    /// Begins the measured window.
    pub fn open(&self) {
        self.phase.set(Phase::Measured);
    }

    /// Ends the measured window and asks the tasks to stop.
    pub fn close(&self) {
        self.phase.set(Phase::Over);
    }

    pub fn is_over(&self) -> bool {
        self.phase.get() == Phase::Over
    }

    /// Notes one good answer.
    pub fn note_done(&self, latency: Duration) {
        self.acked.set(self.acked.get() + 1);
        if self.phase.get() == Phase::Measured {
            self.done.set(self.done.get() + 1);
            let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
            self.latency_us.borrow_mut().saturating_record(us);
        }
    }

    fn note_failure(&self, failure: Failure) {
        self.errors.set(self.errors.get() + 1);
        let (first, text) = match failure {
            Failure::Refused(status) => (&self.first_error, status.to_string()),
            Failure::Wrong(text) => (&self.first_wrong, text),
        };
        first.borrow_mut().get_or_insert(text);
    }

    pub fn done(&self) -> u64 {
        self.done.get()
    }

    pub fn acked(&self) -> u64 {
        self.acked.get()
    }

    pub fn errors(&self) -> u64 {
        self.errors.get()
    }

    pub fn first_error(&self) -> Option<String> {
        self.first_error.borrow().clone()
    }

    /// The first answer that was not what it should have been.
    pub fn first_wrong(&self) -> Option<String> {
        self.first_wrong.borrow().clone()
    }

    /// Adds the latency quantiles to the figures of a run.
    pub fn add_latency(&self, figures: &mut Figures) {
        let latency = self.latency_us.borrow();
        figures.insert(w::P50_US, latency.value_at_quantile(0.50) as f64);
        figures.insert(w::P99_US, latency.value_at_quantile(0.99) as f64);
    }
}

/// Usage of server and load tool between two moments.
pub struct Window {
    started: Instant,
    server: Usage,
    client: Usage,
}

/// What a [`Window`] has come to.
pub struct Spent {
    pub seconds: f64,
    pub server_cpu_us: f64,
    pub client_cpu_us: f64,
    pub written_bytes: f64,
    pub anon_mib: f64,
}

impl Window {
    pub fn open(server: &Server) -> Result<Window> {
        Ok(Window {
            server: server.usage()?,
            client: Usage::of(std::process::id())?,
            started: Instant::now(),
        })
    }

    pub fn spent(&self, server: &Server) -> Result<Spent> {
        let seconds = self.started.elapsed().as_secs_f64();
        let (now, client) = (server.usage()?, Usage::of(std::process::id())?);
        Ok(Spent {
            seconds,
            server_cpu_us: (now.cpu_us - self.server.cpu_us) as f64,
            client_cpu_us: (client.cpu_us - self.client.cpu_us) as f64,
            written_bytes: (now.written_bytes - self.server.written_bytes) as f64,
            anon_mib: now.anon_bytes as f64 / f64::from(1 << 20),
        })
    }
}

impl Spent {
    /// The figures that every kind of request has. Without any answer there are none per op.
    pub fn per_op(&self, ops: u64) -> Figures {
        let mut figures = Figures::from([(w::ANON_MIB, self.anon_mib)]);
        if ops > 0 {
            let ops = ops as f64;
            figures.insert(w::OPS_PER_S, ops / self.seconds);
            figures.insert(w::CPU_US_PER_OP, self.server_cpu_us / ops);
            figures.insert(w::CLIENT_US_PER_OP, self.client_cpu_us / ops);
            figures.insert(w::WRITTEN_PER_OP, self.written_bytes / ops);
        }
        figures
    }
}

/// Tasks that send until the ledger is closed.
pub struct Load {
    tasks: JoinSet<()>,
}

impl Load {
    /// Starts `in_flight` tasks over the connections of `client`; with `per_second`, all of them together send at most
    /// that many requests in a second.
    pub fn start(
        client: &Client,
        op: Op,
        in_flight: usize,
        per_second: Option<u32>,
        ledger: &Rc<Ledger>,
    ) -> Load {
        let mut tasks = JoinSet::new();
        for task in 0..in_flight {
            let sender =
                Sender { op, kv: client.kv(), dice: Dice::new(task as u64), ledger: Rc::clone(ledger) };
            let pace = per_second.map(|n| Pace::new(task, in_flight, n));
            tasks.spawn_local(sender.run(pace));
        }
        Load { tasks }
    }

    /// Waits for the last answers after the ledger was closed.
    ///
    /// # Errors
    /// They do not come in time, or a task panicked.
    pub async fn finish(mut self) -> Result<()> {
        let deadline = tokio::time::Instant::now() + LAST_ANSWERS;
        while !self.tasks.is_empty() {
            match tokio::time::timeout_at(deadline, self.tasks.join_next()).await {
                Ok(Some(ended)) => ended?,
                Ok(None) => break,
                Err(_) => return Err(format!("{} requests without answer", self.tasks.len()).into()),
            }
        }
        Ok(())
    }
}

/// Regular instants of one task; those of all tasks interleave evenly. A late task catches up without waiting.
struct Pace(tokio::time::Interval);

impl Pace {
    fn new(task: usize, tasks: usize, per_second: u32) -> Pace {
        let period = Duration::from_secs(1) * u32::try_from(tasks).unwrap_or(u32::MAX) / per_second;
        let offset = period.mul_f64(task as f64 / tasks as f64);
        Pace(tokio::time::interval_at(tokio::time::Instant::now() + offset, period))
    }
}

/// One task of a load.
struct Sender {
    op: Op,
    kv: KvClient<Link>,
    dice: Dice,
    ledger: Rc<Ledger>,
}

impl Sender {
    async fn run(mut self, mut pace: Option<Pace>) {
        loop {
            if let Some(Pace(interval)) = &mut pace {
                interval.tick().await;
            }
            if self.ledger.is_over() {
                return;
            }
            let sent = Instant::now();
            match self.send().await {
                Ok(()) => self.ledger.note_done(sent.elapsed()),
                Err(failure) => {
                    self.ledger.note_failure(failure);
                    tokio::time::sleep(AFTER_ERROR).await;
                }
            }
        }
    }

    async fn send(&mut self) -> std::result::Result<(), Failure> {
        match self.op {
            Op::Put { keys, origin } => {
                let stamp = u64::try_from(origin.elapsed().as_micros()).unwrap_or(u64::MAX);
                let key = client::key(self.dice.next() % keys);
                self.kv
                    .put(pb::PutRequest { key, value: client::value(stamp), ..Default::default() })
                    .await?;
            }
            Op::Get { keys } => {
                let number = self.dice.next() % keys;
                let request = pb::RangeRequest { key: client::key(number), ..Default::default() };
                let kvs = self.kv.range(request).await?.into_inner().kvs;
                if kvs.len() != 1 || client::stamp(&kvs[0].value) != Some(number) {
                    return Err(Failure::Wrong(format!(
                        "{} keys, or another value, for key {number}",
                        kvs.len()
                    )));
                }
            }
            Op::Range => {
                let (key, range_end) = (client::PREFIX.to_vec(), client::PREFIX_END.to_vec());
                let request = pb::RangeRequest { key, range_end, ..Default::default() };
                let answer = self.kv.range(request).await?.into_inner();
                let last = answer.kvs.last().and_then(|kv| client::stamp(&kv.value));
                if answer.kvs.len() as u64 != RANGE_KEYS || answer.more || last != Some(RANGE_KEYS - 1) {
                    return Err(Failure::Wrong(format!(
                        "a range of {} keys, or not the right ones",
                        answer.kvs.len()
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Runs `tasks` senders of distinct keys `0..keys`, each key put once (retried a few times), in a scattered order.
///
/// # Errors
/// A put fails for good.
pub async fn fill(client: &Client, keys: u64, tasks: usize, ledger: &Rc<Ledger>) -> Result<()> {
    let next = Rc::new(Cell::new(0));
    let mut fillers = Vec::with_capacity(tasks);
    for _ in 0..tasks {
        let filler = Filler { kv: client.kv(), keys, next: Rc::clone(&next), ledger: Rc::clone(ledger) };
        fillers.push(spawn_local(filler.run()));
    }
    for filler in fillers {
        filler.await?.map_err(|e| format!("filling: {e}"))?;
    }
    Ok(())
}

struct Filler {
    kv: KvClient<Link>,
    keys: u64,
    next: Rc<Cell<u64>>,
    ledger: Rc<Ledger>,
}

impl Filler {
    async fn run(mut self) -> std::result::Result<(), tonic::Status> {
        while self.next.get() < self.keys {
            let turn = self.next.get();
            self.next.set(turn + 1);
            self.put(scattered(turn, self.keys)).await?;
        }
        Ok(())
    }

    async fn put(&mut self, number: u64) -> std::result::Result<(), tonic::Status> {
        let mut tries = 0;
        loop {
            let sent = Instant::now();
            let (key, value) = (client::key(number), client::value(number));
            match self.kv.put(pb::PutRequest { key, value, ..Default::default() }).await {
                Ok(_) => {
                    self.ledger.note_done(sent.elapsed());
                    return Ok(());
                }
                Err(refused) if tries == RETRIES_MAX => return Err(refused),
                Err(refused) => self.ledger.note_failure(Failure::Refused(refused)),
            }
            tries += 1;
            tokio::time::sleep(AFTER_ERROR).await;
        }
    }
}

/// The n-th number of a permutation of `0..keys` without visible order.
fn scattered(n: u64, keys: u64) -> u64 {
    // A prime far from any sensible number of keys, hence coprime to it: multiplication permutes.
    const STRIDE: u128 = 1_000_000_007;
    u64::try_from(u128::from(n) * STRIDE % u128::from(keys)).unwrap_or(0)
}
