//! stand-in
use std::time::Duration;
/// When to compact.
pub struct Schedule;
impl Schedule {
    /// By age.
    pub fn periodic(_: Duration) -> Schedule {
        Schedule
    }
    /// By number of revisions.
    pub fn revision(_: i64) -> Schedule {
        Schedule
    }
    /// When to call `tick`.
    pub fn next_wake(&self, now: Duration) -> Duration {
        now + Duration::from_secs(1)
    }
    /// What to compact now.
    pub fn tick(&mut self, _: Duration, _: i64) -> Option<i64> {
        None
    }
    /// How it went.
    pub fn compacted(&mut self, _: bool) {}
}
