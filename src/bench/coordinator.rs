//! One run from begin to end: fill the store, start the threads, announce the stages, look at the processes, check what
//! the store holds, clear up. Called by `bench::run`.

use super::keys::Keys;
use super::load::Tickets;
use super::report::{self, Check, Errors, Latency, Report};
use super::settings::{Settings, Workload};
use super::store::{Store, Sum};
use super::tally::Tally;
use super::usage::{self, Spent, Watchman};
use super::worker::{self, Common, Event, Stage};
use super::{Access, Error, Phase};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// How often progress is told and memory is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Messages of one thread that may wait to be read; it sends three in its life.
const EVENTS_PER_THREAD: usize = 4;
/// Puts in one transaction while the store is filled; 128 is etcd's default limit.
const TXN_PUTS: u64 = 128;
/// Bytes of values in one transaction, below etcd's default limit of 1.5 MiB.
const TXN_BYTES: u64 = 1 << 20;
/// Longest wait for events that are due, and how often we look for them.
const LAST_EVENTS: Duration = Duration::from_secs(20);
const LOOK_FOR_EVENTS: Duration = Duration::from_millis(1);

/// Who wants to know how far a run is: done, of how many.
pub type Progress<'a> = &'a mut dyn FnMut(Phase, u64, u64);

/// What was measured.
struct Window {
    seconds: f64,
    client_cpu_us: u64,
    servers: Vec<Spent>,
}

/// Runs a workload.
///
/// # Errors
/// The server can't be reached, a process can't be looked at, or answers do not come.
pub async fn run(settings: Settings, access: Access, progress: Progress<'_>) -> Result<Report, Error> {
    let keys = Keys::new(&settings);
    let token = access.log_in().await?;
    let store = Store::new(access.connect(0, &token).await?, keys.clone());
    let server_version = store.version().await?;
    let is_ours = store.count().await? == 0;
    preload(&store, &settings, progress).await?;
    let before = if settings.check { store.sum_up().await? } else { Sum::default() };

    let common = Common {
        settings: Arc::new(settings.clone()),
        access,
        token,
        keys,
        tickets: Tickets::new(settings.total),
        sequence: Arc::default(),
        shown: Arc::default(),
        delivered: Arc::default(),
        origin: Instant::now(),
        start_revision: match settings.workload {
            Workload::WatchReplay => store.history(settings.total_keys).await?,
            _ => store.revision().await? + 1,
        },
    };
    let mut crew = Crew::start(&common)?;
    let window = crew.measure(&common, progress).await?;
    let mut tally = crew.finish().await?;

    progress(Phase::Check, 0, 1);
    let mut checks = answers(&tally);
    if settings.check {
        let delivered = common.delivered.load(Ordering::Relaxed);
        checks.extend(events(settings.events_per_write(), &tally, delivered));
        checks.extend(writes(settings.workload, &tally, before, store.sum_up().await?));
    }
    store.revoke(std::mem::take(&mut tally.leases)).await;
    if is_ours && !settings.keep {
        store.clear().await?;
    }
    Ok(report(settings, server_version, &window, tally, checks))
}

async fn preload(store: &Store, settings: &Settings, progress: Progress<'_>) -> Result<(), Error> {
    let wanted = settings.preloaded();
    if wanted > 0 && store.count().await? != wanted {
        let puts = match settings.workload {
            // History is measured in revisions.
            Workload::WatchReplay => 1,
            _ => (TXN_BYTES / (settings.val_size as u64).max(1)).clamp(1, TXN_PUTS),
        };
        let mut tell = |done| progress(Phase::Preload, done, wanted);
        store.preload(wanted, puts, &mut tell).await?;
    }
    Ok(())
}

fn report(
    settings: Settings,
    server_version: String,
    window: &Window,
    tally: Tally,
    checks: Vec<Check>,
) -> Report {
    let client_cpu_us = window.client_cpu_us as f64;
    let figures = report::figures(&tally, window.seconds, client_cpu_us, &window.servers);
    Report {
        workload: settings.workload_name(),
        settings,
        server_version,
        seconds: window.seconds,
        operations: tally.operations,
        latency_us: Latency::from(&tally.latency_us),
        errors: Errors { count: tally.errors, first: tally.first_error, by_code: tally.errors_by_code },
        figures,
        client_cpu_us,
        servers: window.servers.clone(),
        checks,
    }
}

/// Whether there were good answers, and no wrong ones.
fn answers(tally: &Tally) -> Vec<Check> {
    let first_error = || tally.first_error.clone().unwrap_or_else(|| "nothing was sent".to_owned());
    vec![
        Check::new("requests are answered", tally.operations > 0, first_error),
        Check::new("answers are right", tally.wrong == 0, || {
            format!("{} are not, the first: {}", tally.wrong, tally.first_wrong.clone().unwrap_or_default())
        }),
    ]
}

/// Every acknowledged write must be in the store, and nothing but those and the ones that nobody knows of.
fn writes(workload: Workload, tally: &Tally, before: Sum, after: Sum) -> Option<Check> {
    let (name, seen) = match workload {
        Workload::Delete => ("acknowledged deletes are done", before.keys.saturating_sub(after.keys)),
        Workload::LeaseGrant => {
            ("acknowledged leases are present", after.leases.saturating_sub(before.leases))
        }
        Workload::Put
        | Workload::DEnginePut
        | Workload::TxnPut
        | Workload::TxnMixed
        | Workload::Watch
        | Workload::WatchLatency
        | Workload::WatchMany
        | Workload::Kubernetes
        | Workload::OxiaPut
        | Workload::RfcPut => {
            ("acknowledged writes are present", after.versions.saturating_sub(before.versions))
        }
        Workload::Range
        | Workload::DEngineGet
        | Workload::WatchReplay
        | Workload::LeaseKeepalive
        | Workload::LeaseExpiry
        | Workload::Snapshot
        | Workload::OxiaGet
        | Workload::RfcRange => return None,
    };
    let (acked, sent) = (tally.writes_acked, tally.writes_sent);
    Some(Check::new(name, (acked..=sent).contains(&seen), || {
        format!("{sent} were sent and {acked} acknowledged, but the store has seen {seen}")
    }))
}

/// Events come in order (the watchers see to that), so with the right number of them each came once.
fn events(per_write: Option<u64>, tally: &Tally, delivered: u64) -> Option<Check> {
    let per_write = per_write?;
    let (acked, sent) = (tally.writes_acked * per_write, tally.writes_sent * per_write);
    Some(Check::new("every event came once", (acked..=sent).contains(&delivered), || {
        format!("{delivered} came, instead of {acked}, or at most {sent} with the writes that failed")
    }))
}

/// The threads.
struct Crew {
    threads: usize,
    stage: watch::Sender<Stage>,
    events: mpsc::Receiver<Event>,
    idle: usize,
    /// Acknowledged writes of the idle ones.
    acked: u64,
    tally: Tally,
}

impl Crew {
    fn start(common: &Common) -> Result<Crew, Error> {
        let threads = common.settings.threads;
        let (stage, stages) = watch::channel(Stage::Prepare);
        let (events, received) = mpsc::channel(threads * EVENTS_PER_THREAD);
        for thread in 0..threads {
            let (common, stages, events) = (common.clone(), stages.clone(), events.clone());
            let body = move || worker::run(common, thread, stages, events);
            let spawned = std::thread::Builder::new().name(format!("bench-{thread}")).spawn(body);
            spawned.map_err(|error| Error::Failed(error.to_string()))?;
        }
        Ok(Crew { threads, stage, events: received, idle: 0, acked: 0, tally: Tally::new() })
    }

    /// Waits for the threads to be ready, and lets them work for as long as they are to.
    async fn measure(&mut self, common: &Common, progress: Progress<'_>) -> Result<Window, Error> {
        let (settings, shown) = (&common.settings, &common.shown);
        for _ in 0..self.threads {
            self.next().await?;
        }
        self.stage.send_replace(Stage::Warmup);
        let warmup = settings.warmup();
        self.work(warmup, |spent| progress(Phase::Warmup, millis(spent), millis(warmup))).await?;

        let failed = |error: std::io::Error| Error::Failed(error.to_string());
        let me = std::process::id();
        let mut watchman = Watchman::start(&settings.server_pid).map_err(failed)?;
        let (client, since, shown_before) =
            (usage::cpu_us(me).map_err(failed)?, Instant::now(), shown.load(Ordering::Relaxed));
        self.stage.send_replace(Stage::Measured(since));
        let duration = settings.duration();
        let tell = |spent| {
            watchman.look();
            match settings.total {
                Some(total) => {
                    let done = shown.load(Ordering::Relaxed) - shown_before;
                    progress(Phase::Measure, done.min(total), total);
                }
                None => progress(Phase::Measure, millis(spent), millis(duration)),
            }
        };
        self.work(duration, tell).await?;
        let mut until = Instant::now();
        self.stage.send_replace(Stage::Over(until));
        if let Some(per_write) = settings.events_per_write() {
            until = self.drain(per_write, common).await?;
        }
        Ok(Window {
            seconds: (until - since).as_secs_f64(),
            client_cpu_us: usage::cpu_us(me).map_err(failed)? - client,
            servers: watchman.spent().map_err(failed)?,
        })
    }

    /// Lets the time pass, or less if all threads have nothing more to send.
    async fn work(&mut self, time: Duration, mut look: impl FnMut(Duration)) -> Result<(), Error> {
        let start = Instant::now();
        while self.idle < self.threads {
            let left = time.saturating_sub(start.elapsed());
            if left.is_zero() {
                break;
            }
            // An event interrupts the wait.
            if let Ok(event) = tokio::time::timeout(left.min(LOOK_AGAIN), self.next()).await {
                event?;
            }
            look(start.elapsed());
        }
        Ok(())
    }

    /// Waits until all events have come, or have had their time; says when that was.
    async fn drain(&mut self, per_write: u64, common: &Common) -> Result<Instant, Error> {
        self.all_idle().await?;
        let patience = match common.settings.workload {
            Workload::LeaseExpiry => LAST_EVENTS + Duration::from_secs(common.settings.ttl.unsigned_abs()),
            _ => LAST_EVENTS,
        };
        let (start, awaited) = (Instant::now(), self.acked * per_write);
        while common.delivered.load(Ordering::Relaxed) < awaited && start.elapsed() < patience {
            tokio::time::sleep(LOOK_FOR_EVENTS).await;
        }
        Ok(Instant::now())
    }

    async fn all_idle(&mut self) -> Result<(), Error> {
        while self.idle < self.threads {
            self.next().await?;
        }
        Ok(())
    }

    /// Waits for the threads to end.
    async fn finish(mut self) -> Result<Tally, Error> {
        self.all_idle().await?;
        self.stage.send_replace(Stage::End);
        while self.threads > 0 {
            self.next().await?;
        }
        Ok(self.tally)
    }

    /// Takes the next event in.
    async fn next(&mut self) -> Result<(), Error> {
        match self.events.recv().await {
            Some(Event::Ready) => {}
            Some(Event::Idle(acked)) => {
                self.idle += 1;
                self.acked += acked;
            }
            Some(Event::Done(tally)) => {
                self.tally.add((*tally)?);
                self.threads -= 1;
            }
            None => return Err(Error::Failed("a thread of the load tool ended".into())),
        }
        Ok(())
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(acked: u64, sent: u64) -> Tally {
        Tally { writes_acked: acked, writes_sent: sent, ..Tally::new() }
    }

    fn is_good(workload: Workload, tally: &Tally, before: Sum, after: Sum) -> bool {
        writes(workload, tally, before, after).expect("a workload that writes").ok
    }

    /// Ten were acknowledged and two failed, so the store may have seen ten to twelve.
    #[test]
    fn lost_and_repeated_writes_are_found() {
        let tally = tally(10, 12);
        let sum = |versions| Sum { leases: 0, keys: 3, versions };
        for (seen, good) in [(9, false), (10, true), (11, true), (12, true), (13, false)] {
            assert_eq!(is_good(Workload::Put, &tally, sum(100), sum(100 + seen)), good, "{seen}");
        }
    }

    #[test]
    fn lost_and_repeated_deletes_are_found() {
        let tally = tally(10, 10);
        let sum = |keys| Sum { leases: 0, keys, versions: keys };
        for (left, good) in [(91, false), (90, true), (89, false)] {
            assert_eq!(is_good(Workload::Delete, &tally, sum(100), sum(left)), good, "{left}");
        }
        assert!(writes(Workload::Range, &tally, sum(1), sum(1)).is_none());
    }

    /// Three watchers of ten puts, and of perhaps one more.
    #[test]
    fn lost_and_repeated_events_are_found() {
        let tally = tally(10, 11);
        for (delivered, good) in [(29, false), (30, true), (33, true), (34, false)] {
            let check = events(Some(3), &tally, delivered).expect("a workload with events");
            assert_eq!(check.ok, good, "{delivered}: {}", check.detail);
        }
        assert_eq!(events(None, &tally, 5), None);
    }

    #[test]
    fn a_wrong_answer_or_none_spoils_the_run() {
        let verdicts = |tally: &Tally| answers(tally).iter().map(|check| check.ok).collect::<Vec<_>>();
        assert_eq!(verdicts(&Tally { operations: 1, ..Tally::new() }), [true, true]);
        assert_eq!(verdicts(&Tally { operations: 1, wrong: 1, ..Tally::new() }), [true, false]);
        assert_eq!(verdicts(&Tally::new()), [false, true]);
    }
}
