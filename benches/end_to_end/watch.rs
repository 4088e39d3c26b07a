//! The watch workload: puts at a fixed rate, first with nobody watching, then with a hundred watchers on every key, each on
//! its own stream. Delivery costs what the second phase spends beyond the share of its puts in the first. Each watcher
//! must get each revision once and in order, up to the last one. Called by `runs`.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use kvist::pb::{etcdserverpb as pb, mvccpb};
use pb::watch_request::RequestUnion;
use tokio::task::JoinSet;
use tonic::Streaming;

use crate::Result;
use crate::client::{self, Client};
use crate::load::{Ledger, Load, Op, Spent, Window};
use crate::options::Options;
use crate::runs::{self, Findings};
use crate::server::Server;
use crate::workload::{self as w, WATCHERS, Workload};

/// Longest wait for the creation of a watcher.
const CREATE_PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait for the last events after the last put; a watcher that is still behind then is a problem.
const DRAIN_PATIENCE: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Runs the workload once.
///
/// # Errors
/// The server cannot be started or does not answer.
pub async fn measure(workload: &Workload, binary: &Path, options: &Options) -> Result<Findings> {
    let server = Server::start(binary, &options.dir, workload.security).await?;
    let client = Client::connect(server.access(), workload.connections).await?;
    let bench = Bench { server: &server, client: &client, options, in_flight: workload.in_flight };

    let alone = bench.puts(None).await?;
    let put_cpu_us = alone.spent.server_cpu_us / alone.puts.done().max(1) as f64;

    let origin = Instant::now();
    let crowd = Crowd::gather(&client, origin).await?;
    let watched = bench.puts(Some(&crowd)).await?;

    let (puts, events) = (watched.puts.done(), watched.events as f64);
    let mut findings = Findings { figures: watched.spent.per_op(puts), ..Findings::default() };
    // Of one put here is the cost of a hundred deliveries: the figures per event say it better.
    findings.figures.remove(w::CPU_US_PER_OP);
    findings.figures.insert(w::PUT_CPU_US, put_cpu_us);
    crowd.latency.add_latency(&mut findings.figures);
    runs::check_errors(&mut findings, &watched.puts);
    crowd.check(&mut findings, client.revision().await?);
    if events > 0.0 {
        let delivery_us = watched.spent.server_cpu_us - puts as f64 * put_cpu_us;
        findings.figures.insert(w::EVENTS_PER_S, events / watched.spent.seconds);
        findings.figures.insert(w::CPU_US_PER_EVENT, delivery_us / events);
        findings.figures.insert(w::CPU_US_PER_EVENT_RAW, watched.spent.server_cpu_us / events);
    }
    let acked = alone.puts.acked() + watched.puts.acked();
    let errors = alone.puts.errors() + watched.puts.errors();
    runs::check_versions(&mut findings, &client, acked, errors).await?;
    Ok(findings)
}

/// What both phases share.
struct Bench<'a> {
    server: &'a Server,
    client: &'a Client,
    options: &'a Options,
    in_flight: usize,
}

/// One phase.
struct Phase {
    puts: Rc<Ledger>,
    spent: Spent,
    /// Deliveries in the measured window and in the draining after it.
    events: u64,
}

impl Bench<'_> {
    /// Puts at the fixed rate; the window ends when the crowd, if any, has everything.
    async fn puts(&self, crowd: Option<&Crowd>) -> Result<Phase> {
        let puts = Ledger::new()?;
        let origin = crowd.map_or_else(Instant::now, |crowd| crowd.origin);
        let op = Op::Put { keys: self.options.keys, origin };
        let load = Load::start(self.client, op, self.in_flight, Some(self.options.watch_rate), &puts);
        tokio::time::sleep(self.options.warmup()).await;
        let window = Window::open(self.server)?;
        let events_before = crowd.map_or(0, Crowd::events);
        puts.open();
        crowd.inspect(|crowd| crowd.latency.open());
        tokio::time::sleep(self.options.measured()).await;
        puts.close();
        load.finish().await?;
        if let Some(crowd) = crowd {
            crowd.drain(self.client.revision().await?).await;
        }
        let events = crowd.map_or(0, Crowd::events) - events_before;
        Ok(Phase { puts, spent: window.spent(self.server)?, events })
    }
}

/// The watchers.
struct Crowd {
    origin: Instant,
    watchers: Vec<Rc<Watcher>>,
    /// From the sending of a put to the arrival of its event; the deliveries are its answers.
    latency: Rc<Ledger>,
    /// Ends them when dropped.
    _tasks: JoinSet<()>,
}

/// What one watcher has seen.
struct Watcher {
    /// The revision that it must see next.
    next: Cell<i64>,
    /// Why it stopped, if it did.
    fault: Cell<Option<String>>,
}

impl Crowd {
    /// Creates all watchers, from the next revision on.
    async fn gather(client: &Client, origin: Instant) -> Result<Crowd> {
        let (latency, next) = (Ledger::new()?, client.revision().await? + 1);
        let (mut watchers, mut tasks) = (Vec::with_capacity(WATCHERS), JoinSet::new());
        for _ in 0..WATCHERS {
            let created = tokio::time::timeout(CREATE_PATIENCE, create(client, next)).await;
            let events = created.map_err(|_| "a watcher was not created in time")??;
            let watcher = Rc::new(Watcher { next: Cell::new(next), fault: Cell::new(None) });
            watchers.push(Rc::clone(&watcher));
            let latency = Rc::clone(&latency);
            tasks.spawn_local(async move {
                if let Err(fault) = watcher.follow(events, origin, &latency).await {
                    watcher.fault.set(Some(fault.to_string()));
                }
            });
        }
        Ok(Crowd { origin, watchers, latency, _tasks: tasks })
    }

    fn events(&self) -> u64 {
        self.latency.acked()
    }

    /// Waits until all watchers have seen `revision` or have had their time.
    async fn drain(&self, revision: i64) {
        let deadline = Instant::now() + DRAIN_PATIENCE;
        while self.watchers.iter().any(|w| w.next.get() <= revision) && Instant::now() < deadline {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Complains about watchers that stopped or have not seen `revision`.
    fn check(&self, findings: &mut Findings, revision: i64) {
        for (number, watcher) in self.watchers.iter().enumerate() {
            let next = watcher.next.get();
            let fault = watcher.fault.take();
            findings.check(next == revision + 1 && fault.is_none(), || {
                let fault = fault.as_deref().unwrap_or("behind");
                format!("watcher {number}: waits for revision {next} of {revision}: {fault}")
            });
        }
    }
}

/// Opens a stream with one watcher on all keys and waits for the confirmation.
async fn create(client: &Client, start_revision: i64) -> Result<Streaming<pb::WatchResponse>> {
    let create = pb::WatchCreateRequest {
        key: client::PREFIX.to_vec(),
        range_end: client::PREFIX_END.to_vec(),
        start_revision,
        ..Default::default()
    };
    let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    // Never ends: a server may take the end of the requests for the end of the watch.
    let requests = stream::iter([request]).chain(stream::pending());
    let mut responses = client.watch().watch(requests).await?.into_inner();
    match responses.message().await? {
        Some(first) if first.created && !first.canceled => Ok(responses),
        other => Err(format!("a watcher was not created: {other:?}").into()),
    }
}

impl Watcher {
    /// Takes events until one is wrong or the stream ends.
    async fn follow(
        &self,
        mut events: Streaming<pb::WatchResponse>,
        origin: Instant,
        latency: &Ledger,
    ) -> Result<()> {
        while let Some(response) = events.message().await? {
            if response.canceled {
                return Err(format!("cancelled: {}", response.cancel_reason).into());
            }
            let now_us = u64::try_from(origin.elapsed().as_micros())?;
            for event in response.events {
                let put_us = self.take(&event)?;
                latency.note_done(Duration::from_micros(now_us.saturating_sub(put_us)));
            }
        }
        Err("the stream ended".into())
    }

    /// Takes one event, which must be the put of the expected revision, and returns its stamp.
    fn take(&self, event: &mvccpb::Event) -> Result<u64> {
        let kv = event.kv.as_ref().ok_or("an event without key")?;
        let expected = self.next.replace(kv.mod_revision + 1);
        if kv.mod_revision != expected {
            return Err(format!("got revision {} instead of {expected}", kv.mod_revision).into());
        }
        client::stamp(&kv.value).ok_or_else(|| "an event with a foreign value".into())
    }
}
