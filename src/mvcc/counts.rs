//! How many keys lie in ranges that are counted again and again, mostly by reads with a limit, whose answers tell how many
//! keys there are in all. Counting them takes a look at each; here a count is kept up to date instead.
//!
//! A range comes in when it was counted the long way; then each revision that makes or ends keys in it is noted, before
//! anyone can read that revision. So the count as of a revision is the one of an earlier revision and what was noted between
//! them. What is not known is counted the long way, as ever.

use super::Event;
use crate::storage::codec::Image;
use crate::types::{KeyRange, RangeEnd};
use parking_lot::Mutex;
use std::collections::VecDeque;

/// Ranges with fewer keys are as quickly counted.
const KEYS_MIN: i64 = 32;
/// Ranges that are kept; the one that was asked for longest ago goes first.
const RANGES_MAX: usize = 32;
/// Bytes of the bounds of a range that is kept.
const BOUNDS_BYTES_MAX: usize = 1024;
/// Revisions noted for a range, for readers that are behind.
const CHANGES_MAX: usize = 64;

/// See the module.
#[derive(Default)]
pub struct Counts(Mutex<State>);

#[derive(Default)]
struct State {
    /// The last revision that was noted.
    upto: i64,
    /// Counts questions, to know which range was asked for last.
    clock: u64,
    ranges: Vec<Counted>,
}

struct Counted {
    range: KeyRange,
    /// Everything above this revision is in `changes` or below the known count.
    since: i64,
    /// A revision, `since` or later, and the keys as of it.
    known: Option<(i64, i64)>,
    /// Later revisions, ascending, and by how many keys each changed the count.
    changes: VecDeque<(i64, i64)>,
    asked: u64,
}

impl Counts {
    /// The keys of a range as of a revision that can be read, if that is known.
    pub fn at(&self, range: &KeyRange, revision: i64) -> Option<i64> {
        if range.end == RangeEnd::Single {
            return None;
        }
        let mut state = self.0.lock();
        state.clock += 1;
        let clock = state.clock;
        let counted = state.ranges.iter_mut().find(|counted| counted.range == *range)?;
        counted.asked = clock;
        let (from, count) = counted.known.filter(|(from, _)| *from <= revision)?;
        debug_assert!(from >= counted.since);
        let later = counted.changes.iter().take_while(|(changed, _)| *changed <= revision);
        Some(count + later.map(|(_, by)| by).sum::<i64>())
    }

    /// Somebody has counted the keys of a range as of a revision.
    pub fn learn(&self, range: &KeyRange, revision: i64, count: i64) {
        let bounds = range.start.len() + if let RangeEnd::Before(end) = &range.end { end.len() } else { 0 };
        if range.end == RangeEnd::Single || count < KEYS_MIN || bounds > BOUNDS_BYTES_MAX {
            return;
        }
        let mut state = self.0.lock();
        let (upto, clock) = (state.upto, state.clock);
        if let Some(counted) = state.ranges.iter_mut().find(|counted| counted.range == *range) {
            counted.learn(revision, count);
            return;
        }
        if state.ranges.len() == RANGES_MAX {
            let oldest = state.ranges.iter().enumerate().min_by_key(|(_, counted)| counted.asked);
            let oldest = oldest.map(|(at, _)| at).expect("it is full");
            state.ranges.swap_remove(oldest);
        }
        let mut counted = Counted {
            range: range.clone(),
            since: upto,
            known: None,
            changes: VecDeque::new(),
            asked: clock,
        };
        counted.learn(revision, count);
        state.ranges.push(counted);
    }

    /// Forgets all counts, before `revision` is published: changes up to there have not been noted.
    pub(super) fn reset(&self, revision: i64) {
        let mut state = self.0.lock();
        state.upto = revision;
        state.ranges.clear();
    }

    /// Notes what a revision changed, before it is published.
    pub(super) fn note(&self, revision: i64, events: &[Event]) {
        let mut state = self.0.lock();
        state.upto = revision;
        if state.ranges.is_empty() {
            return;
        }
        let made = events.iter().map(|event| (event, difference(event))).filter(|(_, by)| *by != 0);
        for (event, by) in made {
            for counted in state.ranges.iter_mut().filter(|counted| counted.range.contains(&event.key)) {
                counted.note(revision, by);
            }
        }
    }
}

impl Counted {
    fn learn(&mut self, revision: i64, count: i64) {
        if revision >= self.since && self.known.is_none_or(|(from, _)| from < revision) {
            self.known = Some((revision, count));
            self.changes.retain(|(changed, _)| *changed > revision);
        }
    }

    fn note(&mut self, revision: i64, by: i64) {
        match self.changes.back_mut() {
            Some((last, sum)) if *last == revision => *sum += by,
            _ => self.changes.push_back((revision, by)),
        }
        if self.changes.len() > CHANGES_MAX {
            let (oldest, by) = self.changes.pop_front().expect("it is too long");
            self.since = oldest;
            self.known = self.known.map(|(_, count)| (oldest, count + by));
        }
    }
}

/// By how much an event changes the number of keys.
fn difference(event: &Event) -> i64 {
    let is_live = |image: &[u8]| !image.is_empty() && Image::parse(image).is_ok_and(|i| !i.is_tombstone());
    i64::from(is_live(&event.new)) - i64::from(is_live(&event.previous))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::codec::{self, Meta};
    use crate::types::Revision;
    use bytes::Bytes;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use std::collections::BTreeSet;

    fn image(revision: i64, is_live: bool) -> Bytes {
        let modified = Revision::new(revision, 0);
        let meta = Meta { modified, create_revision: revision, version: 1, ..Meta::default() };
        if is_live { codec::live_image(&meta, b"v") } else { codec::tombstone_image(modified, false) }
    }

    fn key(n: u32) -> Bytes {
        format!("{n:03}").into()
    }

    fn range(from: u32, to: u32) -> KeyRange {
        KeyRange { start: key(from), end: RangeEnd::Before(key(to)) }
    }

    /// States by revision, and events that lead from one to the next.
    struct World {
        states: Vec<BTreeSet<u32>>,
        dice: StdRng,
    }

    impl World {
        fn count(&self, range: &KeyRange, revision: usize) -> i64 {
            self.states[revision].iter().filter(|n| range.contains(&key(**n))).count() as i64
        }

        fn events(&mut self) -> Vec<Event> {
            let (revision, mut keys) = (self.states.len() as i64, self.states.last().unwrap().clone());
            let mut events = Vec::new();
            for _ in 0..self.dice.random_range(1..4) {
                let n = self.dice.random_range(0..200);
                let was_there = keys.contains(&n);
                let is_put = !was_there || self.dice.random_bool(0.6);
                let previous = match was_there {
                    true => image(revision - 1, true),
                    false if self.dice.random_bool(0.5) => image(revision - 1, false),
                    false => Bytes::new(),
                };
                events.push(Event { key: key(n), new: image(revision, is_put), previous });
                if is_put {
                    keys.insert(n)
                } else {
                    keys.remove(&n)
                };
            }
            self.states.push(keys);
            events
        }
    }

    #[test]
    fn what_is_known_is_what_counting_finds() {
        for seed in 0..50 {
            let start: BTreeSet<u32> = (0..200).step_by(2).collect();
            let mut world = World { states: vec![start.clone(), start], dice: StdRng::seed_from_u64(seed) };
            let counts = Counts::default();
            // Some more than are kept.
            let ranges: Vec<KeyRange> = (0..36).map(|n| range(n, 200 - 2 * n)).collect();
            let mut known = 0;
            for _ in 0..2000 {
                if world.dice.random_bool(0.4) {
                    let events = world.events();
                    counts.note(world.states.len() as i64 - 1, &events);
                }
                // Readers are up to a hundred revisions behind.
                let behind = world.dice.random_range(0..100).min(world.states.len() - 2);
                let behind = if world.dice.random_bool(0.5) { 0 } else { behind };
                let revision = world.states.len() - 1 - behind;
                let range = &ranges[world.dice.random_range(0..ranges.len())];
                let expected = world.count(range, revision);
                match counts.at(range, revision as i64) {
                    Some(count) => {
                        assert_eq!(count, expected, "seed {seed}, {range:?} at {revision}");
                        known += 1;
                    }
                    None => counts.learn(range, revision as i64, expected),
                }
            }
            assert!(known > 500, "{known} of 2000 were known");
            assert!(counts.0.lock().ranges.len() <= RANGES_MAX);
        }
    }

    #[test]
    fn a_count_of_before_the_range_came_in_is_not_believed() {
        let counts = Counts::default();
        let all = range(0, 999);
        counts.note(7, &[Event { key: key(1), new: image(7, true), previous: Bytes::new() }]);
        // A reader of revision 6 counted while 7 was made, which nobody noted for this range.
        counts.learn(&all, 6, 100);
        assert_eq!((counts.at(&all, 6), counts.at(&all, 7)), (None, None));
        counts.learn(&all, 7, 101);
        assert_eq!((counts.at(&all, 6), counts.at(&all, 7)), (None, Some(101)));
    }

    #[test]
    fn few_keys_and_single_ones_are_not_kept() {
        let counts = Counts::default();
        counts.learn(&range(0, 9), 1, KEYS_MIN - 1);
        counts.learn(&KeyRange::single(key(1)), 1, 1000);
        counts.learn(&KeyRange { start: vec![b'x'; 2000].into(), end: RangeEnd::Unbounded }, 1, 1000);
        assert!(counts.0.lock().ranges.is_empty());
    }
}
