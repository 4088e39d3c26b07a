//! When to compact by itself, and to which revision: the rules of `--auto-compaction-mode` (contract §8). Pure: time comes
//! in as an argument, counted from the start of the schedule.
//!
//! Periodic: the current revision is sampled ten times in a period (in an hour, for longer ones), and a period's worth of
//! samples is kept. After the first period the oldest sample is compacted to, and again every period (every hour for longer
//! ones); an oldest sample that was compacted to already is passed over until it changes.
//! Revision: every five minutes, all but the last N revisions.

use std::collections::VecDeque;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(60 * 60);
/// Samples in the shorter of a period and an hour.
const SAMPLES: u32 = 10;
/// Least time between two samples: a period of some nanoseconds must not keep a core busy.
const SAMPLE_INTERVAL_MIN: Duration = Duration::from_millis(1);
/// Interval of the revision mode.
const REVISION_INTERVAL: Duration = Duration::from_secs(5 * 60);

enum Mode {
    Periodic {
        period: Duration,
        /// Sampled revisions, the oldest first; empty before the first tick.
        samples: VecDeque<i64>,
        /// Least time between compactions, or between the start and the first one.
        pause: Duration,
        last_success: Duration,
    },
    Revision {
        kept: i64,
    },
}

/// See the module.
pub struct Schedule {
    mode: Mode,
    next_wake: Duration,
    /// What was compacted last, so that an unchanged revision is skipped.
    last: i64,
    /// When the last attempt began, and at which revision.
    attempted: (Duration, i64),
}

impl Schedule {
    /// Keeps the history of the last `period`.
    pub fn periodic(period: Duration) -> Schedule {
        let (samples, last_success) = (VecDeque::new(), Duration::ZERO);
        let mode = Mode::Periodic { period, samples, pause: period, last_success };
        Schedule { mode, next_wake: Duration::ZERO, last: 0, attempted: (Duration::ZERO, 0) }
    }

    /// Keeps the last `kept` revisions.
    pub fn revision(kept: i64) -> Schedule {
        Schedule {
            mode: Mode::Revision { kept },
            next_wake: REVISION_INTERVAL,
            last: 0,
            attempted: (Duration::ZERO, 0),
        }
    }

    /// `periodic` or `revision`, as the log has it.
    pub fn name(&self) -> &'static str {
        match self.mode {
            Mode::Periodic { .. } => "periodic",
            Mode::Revision { .. } => "revision",
        }
    }

    /// When `tick` is to be called next.
    pub fn next_wake(&self) -> Duration {
        self.next_wake
    }

    /// Takes in the current revision; returns the revision to compact to, if it is time. Tell the result to `compacted`.
    pub fn tick(&mut self, now: Duration, current: i64) -> Option<i64> {
        if now < self.next_wake {
            return None;
        }
        let target = match &mut self.mode {
            Mode::Revision { kept } => {
                self.next_wake = now + REVISION_INTERVAL;
                current - *kept
            }
            Mode::Periodic { period, samples, pause, last_success } => {
                let interval = sample_interval(*period);
                self.next_wake = now + interval;
                let oldest = samples.front().copied();
                samples.push_back(current);
                if samples.len() as u128 > period.as_nanos() / interval.as_nanos() + 1 {
                    samples.pop_front();
                }
                match oldest {
                    None => {
                        *last_success = now; // the start
                        return None;
                    }
                    Some(oldest) if now - *last_success < *pause || oldest == self.last => return None,
                    Some(oldest) => {
                        *pause = (*period).min(HOUR);
                        oldest
                    }
                }
            }
        };
        if target <= 0 || target == self.last {
            return None;
        }
        self.attempted = (now, target);
        Some(target)
    }

    /// Takes in how it went: after a failure the next tick tries again.
    pub fn compacted(&mut self, ok: bool) {
        if !ok {
            return;
        }
        let (began, revision) = self.attempted;
        self.last = revision;
        if let Mode::Periodic { last_success, .. } = &mut self.mode {
            *last_success = began;
        }
    }
}

/// Time between two samples.
fn sample_interval(period: Duration) -> Duration {
    (period.min(HOUR) / SAMPLES).max(SAMPLE_INTERVAL_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Runs a schedule with a revision that grows by one each minute; returns (minute, revision compacted to).
    fn run(mut schedule: Schedule, minutes: u32, fail_first: bool) -> Vec<(u64, i64)> {
        let mut compactions = Vec::new();
        let mut now;
        while schedule.next_wake() <= minutes * MINUTE {
            now = schedule.next_wake();
            let current = 1 + (now.as_secs() / 60) as i64;
            if let Some(revision) = schedule.tick(now, current) {
                compactions.push((now.as_secs() / 60, revision));
                schedule.compacted(!(fail_first && compactions.len() == 1));
            }
        }
        compactions
    }

    #[test]
    fn periodic_keeps_a_period_of_history() {
        let compactions = run(Schedule::periodic(10 * MINUTE), 40, false);
        assert_eq!(compactions, [(10, 1), (20, 10), (30, 20), (40, 30)]);
    }

    #[test]
    fn a_long_period_is_compacted_every_hour() {
        let compactions = run(Schedule::periodic(120 * MINUTE), 240, false);
        assert_eq!(compactions, [(120, 1), (180, 55), (240, 115)]);
    }

    #[test]
    fn a_failure_is_tried_again_after_one_sample() {
        let compactions = run(Schedule::periodic(10 * MINUTE), 22, true);
        assert_eq!(compactions, [(10, 1), (11, 1), (21, 11)]);
    }

    /// etcd looks again at every sample, not a period later.
    #[test]
    fn an_idle_store_is_compacted_soon_after_it_changes() {
        let mut schedule = Schedule::periodic(10 * MINUTE);
        let mut compactions = Vec::new();
        for minute in 0..60 {
            let now = minute * MINUTE;
            if let Some(revision) = schedule.tick(now, if minute < 23 { 1 } else { 2 }) {
                compactions.push((minute, revision));
                schedule.compacted(true);
            }
        }
        assert_eq!(compactions, [(10, 1), (34, 2)]);
    }

    #[test]
    fn revision_mode_keeps_the_last_revisions() {
        let compactions = run(Schedule::revision(7), 20, false);
        assert_eq!(compactions, [(10, 4), (15, 9), (20, 14)]);
    }

    #[test]
    fn an_unchanged_revision_is_skipped() {
        let mut schedule = Schedule::revision(10);
        assert_eq!(schedule.tick(5 * MINUTE, 30), Some(20));
        schedule.compacted(true);
        assert_eq!(schedule.tick(10 * MINUTE, 30), None);
        assert_eq!(schedule.tick(15 * MINUTE, 31), Some(21));
    }

    /// The periodic mode from its definition: all samples are kept, and counted from the end.
    struct Model {
        period: Duration,
        samples: Vec<i64>,
        started: Duration,
        has_tried: bool,
        success: Option<(Duration, i64)>,
    }

    impl Model {
        fn tick(&mut self, now: Duration, current: i64, ok: bool) -> Option<i64> {
            let interval = self.period.min(HOUR) / 10;
            let kept = (self.period.as_secs_f64() / interval.as_secs_f64()).round() as usize + 1;
            let oldest = self.samples.get(self.samples.len().saturating_sub(kept)).copied();
            self.samples.push(current);
            let Some(oldest) = oldest else {
                self.started = now;
                return None;
            };
            let pause = if self.has_tried { self.period.min(HOUR) } else { self.period };
            let (last, revision) = self.success.unwrap_or((self.started, 0));
            if now < last + pause || oldest == revision {
                return None;
            }
            self.has_tried = true;
            if ok {
                self.success = Some((now, oldest));
            }
            Some(oldest)
        }
    }

    proptest! {
        /// Whenever it is woken, and whatever fails.
        #[test]
        fn periodic_agrees_with_the_model(
            minutes in 1u32..60,
            is_long: bool,
            start_secs in prop_oneof![Just(0u64), 0u64..50_000],
            ticks in prop::collection::vec((prop_oneof![4 => Just(0u64), 1 => 0u64..9_000], 0i64..3, any::<bool>()), 1..120),
        ) {
            // Up to an hour, or a multiple of what is sampled in longer periods.
            let period = if is_long { HOUR + 6 * minutes * MINUTE } else { minutes * MINUTE };
            let mut schedule = Schedule::periodic(period);
            let started = Duration::ZERO;
            let mut model = Model { period, samples: Vec::new(), started, has_tried: false, success: None };
            let (mut now, mut current) = (Duration::from_secs(start_secs), 1);
            for (late_secs, growth, ok) in ticks {
                current += growth;
                now = now.max(schedule.next_wake()) + Duration::from_secs(late_secs);
                let target = schedule.tick(now, current);
                prop_assert_eq!(target, model.tick(now, current, ok));
                if target.is_some() {
                    schedule.compacted(ok);
                }
                prop_assert_eq!(schedule.tick(now, current), None, "not before the next sample");
                prop_assert_eq!(schedule.next_wake(), now + period.min(HOUR) / SAMPLES);
            }
        }

        #[test]
        fn tiny_periods_do_not_spin(nanos in 1u64..20_000_000) {
            let mut schedule = Schedule::periodic(Duration::from_nanos(nanos));
            schedule.tick(Duration::ZERO, 1);
            prop_assert!(schedule.next_wake() >= SAMPLE_INTERVAL_MIN);
        }
    }
}
