//! Arrivals of the open loop: at a fixed rate from a fixed start, whatever the answers do. Pure arithmetic ([`Pace`]), and
//! a thread that lets arrivals go when they are due ([`Arrivals`]): the runtime's own timer knows milliseconds only, which
//! would be most of a latency. A request that finds no free client is not forgotten: it is sent later, and its latency
//! counts from the moment when it was due. Used by `load`.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Longest sleep of the thread, after which it looks whether it is to end.
const NAP_MAX: Duration = Duration::from_millis(20);
/// How late the kernel may wake the thread, in nanoseconds.
const TIMER_SLACK_NANOS: u64 = 1_000;
/// Most arrivals that are let go at once; a semaphore has a limit. Far beyond what a client can send meanwhile.
const RELEASED_MAX: u64 = 1 << 20;

/// When the arrivals of one thread are due. Threads take turns, so that together they are evenly spaced.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Arrivals a second of all threads; above 0.
    pub per_second: f64,
    /// Which thread this is, of how many.
    pub thread: usize,
    /// Above 0.
    pub threads: usize,
}

impl Pace {
    /// Time from the start to the n-th arrival, counted from 0.
    pub fn at(self, n: u64) -> Duration {
        let turn = n as f64 * self.threads as f64 + self.thread as f64;
        Duration::try_from_secs_f64(turn / self.per_second).unwrap_or(Duration::MAX)
    }

    /// Arrivals that were due before `elapsed` since the start.
    pub fn due(self, elapsed: Duration) -> u64 {
        let turns = elapsed.as_secs_f64() * self.per_second - self.thread as f64;
        // Rounding may go either way, so a look at the neighbours decides.
        let mut due = (turns / self.threads as f64).ceil().max(0.0) as u64;
        while due > 0 && self.at(due - 1) >= elapsed {
            due -= 1;
        }
        while self.at(due) < elapsed {
            due += 1;
        }
        due
    }
}

/// The arrivals of one thread, as its clients take them.
pub struct Arrivals {
    pace: Pace,
    start: Instant,
    taken: Cell<u64>,
    released: Arc<Semaphore>,
    is_over: Arc<AtomicBool>,
    clock: Option<JoinHandle<()>>,
}

impl Arrivals {
    /// Begins now.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(pace: Pace) -> std::io::Result<Arrivals> {
        let (start, released) = (Instant::now(), Arc::new(Semaphore::new(0)));
        let is_over = Arc::new(AtomicBool::new(false));
        let (permits, over) = (Arc::clone(&released), Arc::clone(&is_over));
        let clock = std::thread::Builder::new().name("bench-clock".into()).spawn(move || {
            // A kernel that refuses wakes us a little later.
            let _ = nix::sys::prctl::set_timerslack(TIMER_SLACK_NANOS);
            tick(pace, start, &permits, &over);
        })?;
        Ok(Arrivals { pace, start, taken: Cell::new(0), released, is_over, clock: Some(clock) })
    }

    /// Waits for the next arrival, and says when it was due; `None` when there are no more.
    pub async fn next(&self) -> Option<Instant> {
        self.released.acquire().await.ok()?.forget();
        let n = self.taken.get();
        self.taken.set(n + 1);
        self.start.checked_add(self.pace.at(n))
    }

    /// Lets nobody arrive any more, and says when those were due that nobody took and that were due before `until`.
    pub fn close(&self, until: Instant) -> impl Iterator<Item = Instant> {
        self.is_over.store(true, Ordering::Relaxed);
        self.released.close();
        let (pace, start) = (self.pace, self.start);
        let due = pace.due(until.saturating_duration_since(start));
        (self.taken.get()..due).map_while(move |n| start.checked_add(pace.at(n)))
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(clock) = self.clock.take() {
            // It only ever sleeps and counts, so there is no panic to pass on.
            let _ = clock.join();
        }
    }
}

/// Lets arrivals go until it is over.
fn tick(pace: Pace, start: Instant, released: &Semaphore, is_over: &AtomicBool) {
    let mut gone = 0;
    while !is_over.load(Ordering::Relaxed) {
        let elapsed = start.elapsed();
        let now = pace.due(elapsed).saturating_sub(gone).min(RELEASED_MAX);
        if now > 0 && (released.available_permits() as u64) < RELEASED_MAX {
            released.add_permits(usize::try_from(now).unwrap_or_default());
            gone += now;
        }
        let rest = pace.at(gone).saturating_sub(start.elapsed());
        std::thread::sleep(rest.min(NAP_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn arrivals_are_evenly_spaced_over_all_threads() {
        let of = |thread| Pace { per_second: 1000.0, thread, threads: 2 };
        let times: Vec<u128> =
            (0..3).flat_map(|n| [of(0).at(n), of(1).at(n)]).map(|at| at.as_micros()).collect();
        assert_eq!(times, [0, 1000, 2000, 3000, 4000, 5000]);
    }

    #[test]
    fn what_was_due_is_counted() {
        let pace = Pace { per_second: 10.0, thread: 0, threads: 1 };
        let due = |millis| pace.due(Duration::from_millis(millis));
        // The first one is due at once, which is before any time has passed.
        assert_eq!([due(0), due(1), due(100), due(101), due(1000), due(60_000)], [0, 1, 1, 2, 10, 600]);
    }

    proptest! {
        /// In whatever way the time of an arrival is rounded: it is due after it, and not before.
        #[test]
        fn due_and_at_agree(per_second in 0.01..1e6, thread in 0_usize..8, n in 0_u64..1_000_000) {
            let pace = Pace { per_second, thread, threads: 8 };
            prop_assert!(pace.due(pace.at(n)) <= n);
            prop_assert_eq!(pace.due(pace.at(n) + Duration::from_nanos(1)), n + 1);
        }
    }

    /// Nobody takes anything for a while: every arrival keeps its own time, and the rest is reported.
    #[tokio::test]
    async fn a_late_client_is_told_when_it_should_have_begun() {
        let arrivals =
            Arrivals::start(Pace { per_second: 10_000.0, thread: 0, threads: 1 }).expect("a thread");
        let first = arrivals.next().await.expect("an arrival");
        let second = arrivals.next().await.expect("an arrival");
        assert_eq!(second - first, Duration::from_micros(100));
        assert_eq!(first, arrivals.start);
        let left: Vec<Instant> = arrivals.close(arrivals.start + Duration::from_millis(1)).collect();
        assert_eq!(left.len(), 8);
        assert_eq!(left[0] - second, Duration::from_micros(100));
        assert!(arrivals.next().await.is_none());
    }
}
