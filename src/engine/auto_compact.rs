//! stand-in
use std::time::Duration;
pub struct Schedule;
impl Schedule {
    pub fn periodic(_: Duration) -> Schedule {
        Schedule
    }
    pub fn revision(_: i64) -> Schedule {
        Schedule
    }
    pub fn next_wake(&self, now: Duration) -> Duration {
        now + Duration::from_secs(1)
    }
    pub fn tick(&mut self, _: Duration, _: i64) -> Option<i64> {
        None
    }
    pub fn compacted(&mut self, _: bool) {}
}
