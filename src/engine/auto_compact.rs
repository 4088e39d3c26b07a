//! When to compact by itself, and to which revision: the rules of `--auto-compaction-mode` (contract §8). Pure: time comes
//! in as an argument, counted from the start of the schedule.
//!
//! Periodic: the current revision is sampled ten times in a period of an hour at most; once a whole period of samples is
//! there, everything older than the period is compacted, again every period (every hour for longer ones).
//! Revision: every five minutes, all but the last N revisions.

use std::collections::VecDeque;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(60 * 60);
/// Samples in the shorter of a period and an hour.
const SAMPLES: u32 = 10;
/// Interval of the revision mode.
const REVISION_INTERVAL: Duration = Duration::from_secs(5 * 60);

enum Mode {
    Periodic {
        period: Duration,
        /// Sampled revisions with their times; the oldest is at least a period old once the schedule has warmed up.
        samples: VecDeque<(Duration, i64)>,
        next_compaction: Duration,
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
    attempted: i64,
}

impl Schedule {
    /// Keeps the history of the last `period`.
    pub fn periodic(period: Duration) -> Schedule {
        let mode = Mode::Periodic { period, samples: VecDeque::new(), next_compaction: period };
        Schedule { mode, next_wake: Duration::ZERO, last: 0, attempted: 0 }
    }

    /// Keeps the last `kept` revisions.
    pub fn revision(kept: i64) -> Schedule {
        Schedule { mode: Mode::Revision { kept }, next_wake: REVISION_INTERVAL, last: 0, attempted: 0 }
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
            Mode::Periodic { period, samples, next_compaction } => {
                self.next_wake = now + (*period).min(HOUR) / SAMPLES;
                samples.push_back((now, current));
                let cut = now.saturating_sub(*period);
                while samples.get(1).is_some_and(|(at, _)| *at <= cut) {
                    samples.pop_front();
                }
                if now < *next_compaction {
                    return None;
                }
                samples.front()?.1
            }
        };
        if target <= 0 || target == self.last {
            self.start_period();
            return None;
        }
        self.attempted = target;
        Some(target)
    }

    /// Takes in how it went: after a failure the next sample tries again.
    pub fn compacted(&mut self, ok: bool) {
        if ok {
            self.last = self.attempted;
            self.start_period();
        }
    }

    /// The next compaction is due a period after the last sample.
    fn start_period(&mut self) {
        if let Mode::Periodic { period, next_compaction, samples } = &mut self.mode
            && let Some((now, _)) = samples.back()
        {
            *next_compaction = *now + (*period).min(HOUR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(compactions, [(10, 1), (20, 11), (30, 21), (40, 31)]);
    }

    #[test]
    fn a_long_period_is_compacted_every_hour() {
        let compactions = run(Schedule::periodic(120 * MINUTE), 240, false);
        assert_eq!(compactions, [(120, 1), (180, 61), (240, 121)]);
    }

    #[test]
    fn a_failure_is_tried_again_after_one_sample() {
        let compactions = run(Schedule::periodic(10 * MINUTE), 22, true);
        assert_eq!(compactions, [(10, 1), (11, 2), (21, 12)]);
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
}
