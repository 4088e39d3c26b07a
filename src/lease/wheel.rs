//! A hierarchical timing wheel: which timers to look at by now, in O(1) per insertion and per look.
//!
//! ```text
//!   position = 0        level 1, 64 ticks a slot   |  1  |  2  |  3  | ..  | 63  |
//!                       level 0, one tick a slot    | 1 | 2 | 3 | .. | 63 |
//!   a timer for tick 130 waits in level 1, slot 2; at tick 128 it is handed out, and its owner puts it back:
//!   it now differs from the position in the lowest six bits only, so it lands in level 0, slot 2
//! ```
//!
//! Always true here:
//! 1. A timer in slot `s` of level `l` agrees with the position in all bits above the six of level `l`, and has `s` in
//!    those six, which is more than the position has. So the lowest occupied slot of the lowest occupied level is next.
//! 2. A timer is handed out at its tick or before, never after. Its owner knows the true deadline and puts it back when
//!    that lies ahead; so a deadline that moves away costs nothing until the old one comes.
//! 3. The wheel does not know whether a timer is still wanted: its generation says so to the owner.
//!
//! Called by the lessor only.

use std::mem;

/// Resolution in milliseconds. Deadlines are rounded up to it, so that nothing is early.
pub const TICK_MS: u64 = 100;

const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Sixty bits of ticks: `u64::MAX` milliseconds need 58.
const LEVELS: usize = 10;

/// What waits in the wheel: a place in the owner's table, valid while the generation there is the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timer {
    /// Index in the owner's table.
    pub slot: u32,
    /// Generation of that place at the time of arming.
    pub generation: u32,
}

/// Sixty-four slots, each as wide as a whole turn of the level below.
struct Level {
    /// Bit `s` is set when slot `s` is not empty.
    occupied: u64,
    slots: [Vec<Timer>; SLOTS],
}

/// The wheel.
pub struct Wheel {
    /// The tick up to which all timers have been handed out or wait in `ready`.
    position: u64,
    levels: [Level; LEVELS],
    /// Timers whose slot has come. Memory is given back with each slot taken, so a burst leaves nothing behind.
    ready: Vec<Timer>,
    len: usize,
}

impl Wheel {
    /// An empty wheel that stands at `now_ms`.
    pub fn new(now_ms: u64) -> Wheel {
        let level = |_| Level { occupied: 0, slots: std::array::from_fn(|_| Vec::new()) };
        let levels = std::array::from_fn(level);
        Wheel { position: now_ms / TICK_MS, levels, ready: Vec::new(), len: 0 }
    }

    /// Number of timers inside, wanted or not.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds a timer to be handed out by `due_ms`, at the latest in the first tick that begins at or after it.
    pub fn insert(&mut self, due_ms: u64, timer: Timer) {
        self.len += 1;
        let tick = due_ms.div_ceil(TICK_MS);
        if tick <= self.position {
            self.ready.push(timer);
            return;
        }
        let highest_bit = u64::BITS - 1 - (tick ^ self.position).leading_zeros();
        let level = highest_bit / SLOT_BITS;
        let slot = (tick >> (level * SLOT_BITS)) as usize % SLOTS;
        let level = &mut self.levels[level as usize];
        level.occupied |= 1 << slot;
        level.slots[slot].push(timer);
    }

    /// Takes out one timer whose slot has come by `now_ms`. A `now_ms` before that of an earlier call finds only what
    /// that call left over.
    pub fn pop(&mut self, now_ms: u64) -> Option<Timer> {
        let until = now_ms / TICK_MS;
        while self.ready.is_empty() {
            match self.next_slot() {
                Some((tick, level, slot)) if tick <= until => {
                    self.position = tick;
                    self.levels[level].occupied &= !(1 << slot);
                    self.ready = mem::take(&mut self.levels[level].slots[slot]);
                }
                // Nothing starts between position and `until`, so what waits agrees with `until` in the same bits.
                Some(_) | None => {
                    self.position = self.position.max(until);
                    return None;
                }
            }
        }
        self.len -= 1;
        self.ready.pop()
    }

    /// Drops every timer that is not wanted any more.
    pub fn retain(&mut self, wanted: impl Fn(Timer) -> bool) {
        self.ready.retain(|timer| wanted(*timer));
        self.len = self.ready.len();
        for level in &mut self.levels {
            for (s, slot) in level.slots.iter_mut().enumerate().filter(|(_, slot)| !slot.is_empty()) {
                slot.retain(|timer| wanted(*timer));
                slot.shrink_to_fit();
                self.len += slot.len();
                if slot.is_empty() {
                    level.occupied &= !(1 << s);
                }
            }
        }
    }

    /// The next occupied slot: its first tick, its level, its number.
    fn next_slot(&self) -> Option<(u64, usize, usize)> {
        let (l, level) = self.levels.iter().enumerate().find(|(_, level)| level.occupied != 0)?;
        let slot = level.occupied.trailing_zeros() as usize;
        let shift = l as u32 * SLOT_BITS;
        let turn = self.position >> shift >> SLOT_BITS;
        Some(((turn << SLOT_BITS | slot as u64) << shift, l, slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn timer(slot: usize) -> Timer {
        Timer { slot: u32::try_from(slot).unwrap(), generation: 0 }
    }

    /// Pops all, putting back what is not due by its true deadline, as an owner does.
    fn pop_due(wheel: &mut Wheel, due: &[u64], now_ms: u64) -> Vec<usize> {
        let mut popped = Vec::new();
        while let Some(timer) = wheel.pop(now_ms) {
            let slot = timer.slot as usize;
            if due[slot] > now_ms {
                wheel.insert(due[slot], timer);
            } else {
                popped.push(slot);
            }
        }
        popped
    }

    #[test]
    fn a_timer_climbs_down_the_levels() {
        let due = [13_000, 13_001, 0, 9_000_000_000_000];
        let mut wheel = Wheel::new(0);
        for (slot, &at) in due.iter().enumerate() {
            wheel.insert(at, timer(slot));
        }
        assert_eq!(pop_due(&mut wheel, &due, 0), [2]);
        assert_eq!(pop_due(&mut wheel, &due, 12_999), Vec::<usize>::new());
        assert_eq!(pop_due(&mut wheel, &due, 13_000), [0]);
        assert_eq!(pop_due(&mut wheel, &due, 13_100), [1]);
        assert_eq!(pop_due(&mut wheel, &due, 8_999_999_999_999), Vec::<usize>::new());
        assert_eq!(pop_due(&mut wheel, &due, 9_000_000_000_000), [3]);
        assert_eq!(wheel.len(), 0);
    }

    #[test]
    fn the_end_of_time_fits() {
        let mut wheel = Wheel::new(0);
        wheel.insert(u64::MAX, timer(0));
        assert_eq!(wheel.pop(u64::MAX / 2), None);
        wheel.insert(u64::MAX, timer(1));
        assert_eq!(wheel.len(), 2);
        assert!(wheel.pop(u64::MAX).is_some());
        assert!(wheel.pop(u64::MAX).is_some());
        assert_eq!(wheel.pop(u64::MAX), None);
    }

    #[test]
    fn unwanted_timers_go_on_request() {
        let mut wheel = Wheel::new(0);
        for slot in 0..1000 {
            wheel.insert(slot as u64 * 997, timer(slot));
        }
        wheel.retain(|timer| timer.slot % 10 == 0);
        assert_eq!(wheel.len(), 100);
        let due: Vec<u64> = (0..1000).map(|slot| slot * 997).collect();
        let mut popped = pop_due(&mut wheel, &due, 1_000_000);
        popped.sort_unstable();
        assert_eq!(popped, (0..1000).step_by(10).collect::<Vec<_>>());
    }

    fn span() -> impl Strategy<Value = u64> {
        prop_oneof![0..300u64, 0..20_000u64, 0..5_000_000u64, 0..9_000_000_000_000u64]
    }

    proptest! {
        /// Each timer comes out once: not before its deadline, and by the end of the tick of its deadline.
        #[test]
        fn handed_out_on_time(start in span(), steps in prop::collection::vec((any::<bool>(), span()), 1..120)) {
            let mut now = start;
            let mut wheel = Wheel::new(now);
            let (mut due, mut waiting) = (Vec::new(), Vec::new());
            for (insert, span) in steps {
                if insert {
                    wheel.insert(now + span, timer(due.len()));
                    waiting.push(due.len());
                    due.push(now + span);
                } else {
                    now += span;
                    for slot in pop_due(&mut wheel, &due, now) {
                        prop_assert!(waiting.contains(&slot), "handed out twice");
                        waiting.retain(|&other| other != slot);
                    }
                    prop_assert!(waiting.iter().all(|&slot| due[slot].div_ceil(TICK_MS) > now / TICK_MS));
                }
                prop_assert_eq!(wheel.len(), waiting.len());
            }
        }
    }
}
