//! The clock that leases are measured by: the leader's, and what the others know of it.
//!
//! The leader writes readings of its clock into the log, and tells them to members that ask. In between, each member lets the
//! last reading it knows of go on by its own clock. So it is behind the leader by as long as the reading took to come, never
//! ahead, but for what two clocks drift apart until the next reading. A new leader goes on from there.
//!
//! ```text
//!   leader of term 3   ──100──────────140─────✗
//!   this member           └──105────────└──142────168──╴ leads in term 4, from 168 on
//! ```
//!
//! Always true here:
//! 1. Times that a leader records are readings of its own clock, or of those before it, which never were behind its own.
//! 2. So who takes over measures a lease from when it was renewed, or later: it never ends too early.

use serde::{Deserialize, Serialize};

/// What a clock shows that no leader has read yet: the longest TTL in milliseconds, so that a lease may have begun before.
pub const ORIGIN_MS: u64 = 9_000_000_000_000;

/// What a leader's clock showed; a later term's counts whatever those before showed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Reading {
    /// Term of that leader.
    pub term: u64,
    /// Milliseconds.
    pub ms: u64,
}

impl Default for Reading {
    fn default() -> Reading {
        Reading { term: 0, ms: ORIGIN_MS }
    }
}

/// See the module. `local_ms` is milliseconds of any monotonic clock of this process.
#[derive(Debug)]
pub struct Clock {
    last: Reading,
    /// Local time at which `last` came.
    came_ms: u64,
    leads: bool,
}

impl Clock {
    /// Goes on from the reading that was stored last.
    pub fn new(last: Reading, local_ms: u64) -> Clock {
        Clock { last, came_ms: local_ms, leads: false }
    }

    /// The time.
    pub fn now_ms(&self, local_ms: u64) -> u64 {
        self.last.ms.saturating_add(local_ms.saturating_sub(self.came_ms))
    }

    /// A reading came in. Those that are known to be old, and the leader's own, are passed over.
    pub fn hear(&mut self, reading: Reading, local_ms: u64) {
        let is_own = self.leads && reading.term <= self.last.term;
        if reading > self.last && !is_own {
            (self.last, self.came_ms) = (reading, local_ms);
        }
    }

    /// This member leads in `term`: its clock counts.
    pub fn lead(&mut self, term: u64, local_ms: u64) {
        *self = Clock { last: Reading { term, ms: self.now_ms(local_ms) }, came_ms: local_ms, leads: true };
    }

    /// This member leads no more. What it wrote into the log itself tells it nothing, however late it is applied.
    pub fn follow(&mut self, local_ms: u64) {
        self.last.ms = self.now_ms(local_ms);
        (self.came_ms, self.leads) = (local_ms, false);
    }

    /// The time as the leader tells it; `None` if this member is not the leader.
    pub fn reading(&self, local_ms: u64) -> Option<Reading> {
        self.leads.then(|| Reading { term: self.last.term, ms: self.now_ms(local_ms) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(term: u64, ms: u64) -> Reading {
        Reading { term, ms }
    }

    #[test]
    fn goes_on_between_readings() {
        let mut clock = Clock::new(reading(3, 100), 0);
        assert_eq!(clock.now_ms(7), 107);
        clock.hear(reading(3, 140), 35);
        assert_eq!(clock.now_ms(35), 140, "it was behind");
        clock.hear(reading(3, 150), 50);
        assert_eq!(clock.now_ms(50), 150, "it was ahead: clocks drift, and the leader's counts");
        clock.hear(reading(3, 149), 60);
        clock.hear(reading(2, 9_999), 60);
        assert_eq!(clock.now_ms(60), 160, "old readings say nothing");
        clock.hear(reading(4, 120), 60);
        assert_eq!(clock.now_ms(60), 120, "a new leader's counts even if it is behind");
    }

    #[test]
    fn the_leader_believes_itself() {
        let mut clock = Clock::new(reading(3, 100), 0);
        assert_eq!(clock.reading(5), None);
        clock.lead(4, 10);
        clock.hear(reading(4, 115), 40);
        clock.hear(reading(3, 999), 40);
        assert_eq!(clock.reading(40), Some(reading(4, 140)));
        clock.follow(45);
        assert_eq!((clock.reading(50), clock.now_ms(50)), (None, 150));
        clock.hear(reading(4, 130), 60);
        assert_eq!(clock.now_ms(60), 160, "a reading of its own, applied late");
        clock.hear(reading(5, 150), 60);
        assert_eq!(clock.now_ms(60), 150);
    }

    #[test]
    fn the_end_of_time_fits() {
        let clock = Clock::new(reading(u64::MAX, u64::MAX), 5);
        assert_eq!((clock.now_ms(0), clock.now_ms(u64::MAX)), (u64::MAX, u64::MAX));
    }
}
