//! The lessor: each rule by name, then random histories against a table that is searched from end to end.

use super::lessor::{Lessor, RETRY_MS, Renewal, SLACK_MS, TTL_MAX_SECS};
use super::table;
use super::wheel::TICK_MS;
use crate::types::LeaseId;
use proptest::prelude::*;
use std::collections::BTreeMap;

const ALL: usize = usize::MAX;
const NONE: [LeaseId; 0] = [];

fn primary(now_ms: u64) -> Lessor {
    let mut lessor = Lessor::new(2);
    lessor.promote(now_ms, 0);
    lessor
}

fn renewed(ttl_secs: i64, must_record: bool) -> Renewal {
    Renewal::Renewed { ttl_secs, must_record }
}

impl Lessor {
    fn grant(&mut self, id: LeaseId, ttl_secs: i64, now_ms: u64) {
        self.restored(id, ttl_secs, None, now_ms);
    }

    fn restored(&mut self, id: LeaseId, ttl_secs: i64, since_ms: Option<u64>, now_ms: u64) {
        self.restore(id, &table::Lease { ttl_secs, since_ms, belongs_to_keys: false }, now_ms);
    }

    /// What is due, as if it was recorded at once.
    fn record(&mut self, now_ms: u64, at_once: bool) -> Vec<(LeaseId, Option<u64>)> {
        let due = self.due_records(now_ms, at_once, ALL);
        due.iter().for_each(|(id, since_ms)| self.recorded(*id, *since_ms));
        due
    }
}

#[test]
fn expires_at_its_deadline_and_not_before() {
    let mut lessor = primary(50);
    lessor.grant(7, 10, 50);
    assert_eq!(lessor.remaining(7, 50), Some((10_000, 10)));
    assert_eq!(lessor.expired(10_049, ALL), NONE);
    assert_eq!(lessor.renew(7, 10_049), renewed(10, false));
    assert_eq!(lessor.expired(20_048, ALL), NONE);
    assert_eq!(lessor.renew(7, 20_049), Renewal::Expired);
    assert_eq!(lessor.remaining(7, 20_049), Some((0, 10)));
    assert_eq!(lessor.expired(20_100, ALL), [7]);
}

#[test]
fn reported_again_until_revoked() {
    let mut lessor = primary(0);
    lessor.grant(1, 5, 0);
    assert_eq!(lessor.expired(5_000, ALL), [1]);
    assert_eq!(lessor.expired(5_000 + RETRY_MS - 1, ALL), NONE);
    assert_eq!(lessor.expired(5_000 + RETRY_MS, ALL), [1]);
    assert!(lessor.revoke(1));
    assert!(!lessor.revoke(1));
    assert_eq!(lessor.expired(100_000, ALL), NONE);
    assert_eq!(lessor.renew(1, 100_000), Renewal::Unknown);
    assert_eq!(lessor.remaining(1, 100_000), None);
}

#[test]
fn an_id_granted_again_is_a_new_lease() {
    let mut lessor = primary(0);
    lessor.grant(-3, 5, 0);
    assert_eq!(lessor.expired(5_000, ALL), [-3]);
    lessor.revoke(-3);
    lessor.grant(-3, 60, 6_000);
    assert_eq!(lessor.expired(65_999, ALL), NONE);
    assert_eq!(lessor.expired(66_000, ALL), [-3]);
    assert_eq!(lessor.len(), 1);
}

#[test]
fn limit_leaves_the_rest_for_the_next_call() {
    let mut lessor = primary(0);
    (0..10).for_each(|id| lessor.grant(id, 5, 0));
    let mut seen = lessor.expired(5_000, 4);
    assert_eq!(seen.len(), 4);
    seen.extend(lessor.expired(5_000, 4));
    seen.extend(lessor.expired(5_000, 4));
    seen.sort_unstable();
    assert_eq!(seen, (0..10).collect::<Vec<_>>());
    assert_eq!(lessor.expired(5_000, 0), NONE);
}

#[test]
fn demoted_decides_nothing() {
    let mut lessor = Lessor::new(2);
    lessor.grant(1, 5, 0);
    assert!(!lessor.is_primary() && !lessor.is_empty());
    assert_eq!(lessor.renew(1, 1_000), Renewal::Demoted);
    assert_eq!(lessor.expired(60_000, ALL), NONE);
    lessor.promote(60_000, 1_000);
    assert_eq!(lessor.expired(65_999, ALL), NONE);
    lessor.demote();
    assert_eq!(lessor.expired(66_000, ALL), NONE);
    lessor.promote(66_000, 1_000);
    assert_eq!(lessor.expired(72_000, ALL), [1]);
}

#[test]
fn promotion_goes_on_from_what_is_recorded() {
    let mut lessor = Lessor::new(2);
    lessor.restored(1, 100, Some(40_000), 50_000);
    lessor.grant(2, 100, 50_000);
    lessor.grant(3, 100, 50_000);
    lessor.recorded(3, Some(70_000));
    lessor.grant(4, 5, 50_000);
    lessor.recorded(4, Some(50_000));
    assert_eq!(lessor.leases(), [4, 1, 2, 3], "as far as is known");
    assert!(lessor.due_records(60_000, true, ALL).is_empty(), "demoted");
    lessor.promote(100_000, 1_500);
    assert_eq!(lessor.remaining(1, 100_000), Some((40_000 + SLACK_MS + 1_500, 100)));
    assert_eq!(lessor.remaining(2, 100_000), Some((101_500, 100)), "nothing is recorded: all of it again");
    assert_eq!(lessor.remaining(3, 100_000), Some((70_000 + SLACK_MS + 1_500, 100)));
    assert_eq!(lessor.remaining(4, 100_000), Some((1_500, 5)), "nobody could renew it meanwhile");
    assert_eq!(lessor.leases(), [4, 1, 3, 2]);
    // A renewal may bring the extended deadline nearer, and the lease must still expire on time.
    assert_eq!(lessor.renew(2, 100_000), renewed(100, false));
    assert_eq!(lessor.expired(200_000, ALL), [4, 1, 3, 2]);
}

#[test]
fn promotion_does_not_believe_in_the_time_before() {
    let mut lessor = Lessor::new(2);
    lessor.restored(1, 10, Some(90_000), 110_000);
    lessor.promote(95_000, 0);
    assert_eq!(lessor.expired(95_100, ALL), NONE, "the leader before was ahead");
    assert_eq!(lessor.remaining(1, 95_000), Some((5_000 - 100 + SLACK_MS, 10)));
}

#[test]
fn a_leader_that_has_followers_again_gives_time() {
    let mut lessor = primary(0);
    (1..=3).for_each(|id| lessor.grant(id, [5, 8, 60][id as usize - 1], 0));
    assert_eq!(lessor.expired(5_000, ALL), [1]);
    lessor.pause();
    assert_eq!(lessor.expired(9_000, ALL), NONE);
    lessor.resume(9_000, 1_000);
    assert_eq!(lessor.renew(1, 9_000), Renewal::Expired, "its revocation may be on its way");
    assert_eq!(lessor.remaining(2, 9_000), Some((1_000, 8)), "nobody could renew it");
    assert_eq!(lessor.remaining(3, 9_000), Some((51_000, 60)));
    assert_eq!(lessor.expired(9_999, ALL), NONE);
    assert_eq!(lessor.expired(10_000, ALL), [2]);
}

#[test]
fn promotion_spreads_many_leases() {
    for (leases, last_ms) in [(999, 10_000), (3_000, 13_000)] {
        let mut lessor = Lessor::new(2);
        (0..leases).for_each(|id| lessor.grant(id, 9, 0));
        lessor.promote(0, 1_000);
        let mut ends: Vec<u64> = (0..leases).map(|id| lessor.remaining(id, 0).unwrap().0).collect();
        ends.sort_unstable();
        assert_eq!((ends[0], *ends.last().unwrap()), (10_000, last_ms));
        assert!(leases < 1_000 || ends.iter().zip(&ends[750..]).all(|(a, b)| b - a >= 1_000));
    }
}

#[test]
fn ttls_of_any_size() {
    let mut lessor = primary(0);
    for (id, ttl_secs) in [(1, i64::MIN), (2, 0), (3, 1), (4, TTL_MAX_SECS), (5, i64::MAX)] {
        lessor.grant(id, ttl_secs, 0);
        lessor.recorded(id, Some(u64::MAX - 1));
        lessor.recorded(id, Some(0));
    }
    assert_eq!([1, 2, 3].map(|id| lessor.remaining(id, 0)), [Some((2_000, 2)); 3]);
    assert_eq!([4, 5].map(|id| lessor.remaining(id, 0)), [Some((9_000_000_000_000, TTL_MAX_SECS)); 2]);
    assert_eq!(lessor.expired(2_000, ALL).len(), 3);
    assert_eq!(lessor.expired(9_000_000_000_000, ALL).len(), 5);
    lessor.grant(6, TTL_MAX_SECS, u64::MAX);
    assert_eq!(lessor.renew(6, u64::MAX), Renewal::Expired);
}

#[test]
fn alone_only_idle_leases_are_recorded() {
    let mut lessor = primary(0);
    lessor.grant(1, 100, 0);
    lessor.grant(2, 30, 0);
    lessor.grant(3, 12, 0);
    assert!(lessor.due_records(10_000, false, ALL).is_empty(), "half of 12 s is below the minimum of 10 s");
    assert_eq!(lessor.record(10_001, false), [(3, Some(0))]);
    assert!(lessor.record(15_000, false).is_empty() && lessor.has_records());
    assert_eq!(lessor.record(15_001, false), [(2, Some(0))], "half of it");
    lessor.revoke(3);
    lessor.grant(4, 100, 15_001);
    let turns = [(); 4].map(|()| lessor.due_records(65_002, false, 1)[0]);
    assert_ne!(turns[0], turns[1], "each has its turn");
    assert_eq!(turns[..2], turns[2..], "and another while nothing is recorded");
    assert!(turns.contains(&(1, Some(0))) && turns.contains(&(4, Some(15_001))));
    // Who is renewed after all is not known of any more.
    assert_eq!(lessor.renew(1, 65_002), renewed(100, true), "it may be on its way");
    lessor.recorded(1, Some(0));
    assert_eq!(lessor.renew(1, 65_003), renewed(100, true));
    assert_eq!(lessor.records(&[1, 9], true), [(1, None)]);
    lessor.recorded(1, None);
    assert_eq!(lessor.renew(1, 66_000), renewed(100, false));
}

#[test]
fn a_lease_that_is_renewed_in_time_is_never_recorded_alone() {
    let mut lessor = primary(0);
    lessor.grant(1, 60, 0);
    for now_ms in (0..600_000).step_by(20_000) {
        assert!(lessor.due_records(now_ms, false, ALL).is_empty());
        assert_eq!(lessor.renew(1, now_ms), renewed(60, false));
    }
    assert!(!lessor.has_records());
}

#[test]
fn with_others_renewals_are_recorded_but_not_all() {
    let mut lessor = primary(0);
    lessor.grant(1, 60, 1_000);
    assert_eq!(lessor.renew(1, 1_200), renewed(60, false), "nothing is recorded yet");
    assert_eq!(lessor.due_records(1_300, true, ALL), [(1, Some(1_200))]);
    assert_eq!(lessor.renew(1, 1_301), renewed(60, true), "an earlier one is on its way");
    lessor.recorded(1, Some(1_200));
    assert_eq!(lessor.renew(1, 1_200 + SLACK_MS), renewed(60, false), "short after one that is recorded");
    assert_eq!(lessor.renew(1, 1_201 + SLACK_MS), renewed(60, true));
    assert_eq!(lessor.records(&[1], false), [(1, Some(1_201 + SLACK_MS))]);
    lessor.recorded(1, Some(1_201 + SLACK_MS));
    assert!(lessor.due_records(60_000, true, ALL).is_empty());
    // What another leader has recorded is on another clock.
    lessor.demote();
    lessor.promote(1_201 + SLACK_MS, 0);
    assert_eq!(lessor.renew(1, 1_202 + SLACK_MS), renewed(60, true));
    assert_eq!(lessor.records(&[1], false), [(1, Some(1_202 + SLACK_MS))]);
}

#[test]
fn a_clock_read_late_does_not_turn_time_back() {
    let mut lessor = primary(0);
    lessor.grant(1, 5, 0);
    assert_eq!(lessor.expired(5_000, ALL), [1]);
    assert_eq!(lessor.renew(1, 4_999), Renewal::Expired);
    assert_eq!(lessor.remaining(1, 4_999), Some((0, 5)));
}

#[test]
fn a_hundred_thousand_leases() {
    const LEASES: i64 = 100_000;
    let mut lessor = primary(0);
    for id in 0..LEASES {
        lessor.grant(id, 60 + id % 60, 0);
    }
    for round in 1..=10 {
        for id in 0..LEASES {
            assert_eq!(lessor.renew(id, round * 20_000), renewed(60 + id % 60, false));
        }
        assert_eq!(lessor.expired(round * 20_000, 500), NONE);
    }
    let mut seen = vec![false; LEASES as usize];
    let mut now_ms = 200_000;
    while !lessor.is_empty() {
        now_ms += 500;
        assert!(now_ms <= 200_000 + 125_000 + LEASES as u64, "at most 500 at a time, all in the end");
        for id in lessor.expired(now_ms, 500) {
            assert!(now_ms >= 200_000 + 1_000 * (60 + id as u64 % 60));
            assert!(!std::mem::replace(&mut seen[id as usize], true));
            assert!(lessor.revoke(id));
        }
    }
}

#[test]
fn short_lives_of_long_leases_leave_nothing_behind() {
    let mut lessor = primary(0);
    for id in 0..200_000 {
        lessor.grant(id, TTL_MAX_SECS, 0);
        lessor.revoke(id);
    }
    assert!(lessor.timers() <= 1_100);
    for id in 0..2_000 {
        lessor.grant(id, TTL_MAX_SECS, 0);
    }
    for round in 1..100 {
        lessor.promote(round, 10);
        (0..2_000).for_each(|id| assert_eq!(lessor.renew(id, round), renewed(TTL_MAX_SECS, false)));
    }
    assert!(lessor.timers() <= 2 * 2_000 + 1_100);
}

#[derive(Clone, Debug)]
enum Step {
    Grant(LeaseId, i64),
    Restore(LeaseId, i64, Option<u64>),
    Revoke(LeaseId),
    Renew(LeaseId),
    Expired(usize),
    Promote(u64),
    Pause,
    Resume(u64),
    Demote,
    Due(bool),
    Recorded(LeaseId, Option<u64>),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let id = || -3i64..4;
    let ttl = || prop_oneof![3 => 0i64..30, 1 => 0i64..5_000, 1 => Just(TTL_MAX_SECS)];
    // How long before now.
    let since = || prop::option::of(0u64..40_000);
    let span = prop_oneof![0u64..500, 0u64..10_000, 0u64..2_000_000];
    prop_oneof![
        4 => (id(), ttl()).prop_map(|(id, ttl)| Step::Grant(id, ttl)),
        1 => (id(), ttl(), since()).prop_map(|(id, ttl, since)| Step::Restore(id, ttl, since)),
        2 => id().prop_map(Step::Revoke),
        6 => id().prop_map(Step::Renew),
        6 => prop_oneof![Just(ALL), 0usize..4].prop_map(Step::Expired),
        1 => (0u64..3_000).prop_map(Step::Promote),
        1 => Just(Step::Pause),
        2 => (0u64..3_000).prop_map(Step::Resume),
        1 => Just(Step::Demote),
        2 => any::<bool>().prop_map(Step::Due),
        2 => (id(), since()).prop_map(|(id, since)| Step::Recorded(id, since)),
        8 => span.prop_map(Step::Pass),
    ]
}

#[derive(Clone)]
struct Expected {
    ttl: i64,
    deadline: u64,
    recorded: Option<u64>,
    asked: bool,
    /// Recorded since the last promotion.
    own: bool,
    /// To be looked at by the next search for all of which nothing is recorded.
    queued: bool,
    retry: Option<u64>,
}

impl Expected {
    fn ttl_ms(&self) -> u64 {
        1_000 * self.ttl as u64
    }
}

#[derive(Default)]
struct Model {
    now: u64,
    primary: bool,
    paused: bool,
    /// Whether the last search was for all of which nothing is recorded.
    at_once: bool,
    leases: BTreeMap<LeaseId, Expected>,
}

impl Model {
    fn restore(&mut self, id: LeaseId, ttl: i64, recorded: Option<u64>) {
        let ttl = ttl.max(2);
        let deadline = recorded.unwrap_or(self.now) + 1_000 * ttl as u64;
        let lease =
            Expected { ttl, deadline, recorded, asked: false, own: false, queued: self.at_once, retry: None };
        self.leases.insert(id, lease);
    }

    fn renew(&mut self, id: LeaseId) -> Renewal {
        match self.leases.get_mut(&id) {
            _ if !self.primary => Renewal::Demoted,
            None => Renewal::Unknown,
            Some(lease) if lease.deadline <= self.now => Renewal::Expired,
            Some(lease) => {
                lease.deadline = self.now + lease.ttl_ms();
                let is_old = |at: u64| !lease.own || at + SLACK_MS < self.now;
                renewed(lease.ttl, lease.asked || lease.recorded.is_some_and(is_old))
            }
        }
    }

    fn promote(&mut self, extend: u64) {
        (self.primary, self.paused, self.at_once) = (true, false, false);
        for lease in self.leases.values_mut() {
            let end = lease.recorded.map_or(self.now, |at| at + SLACK_MS) + lease.ttl_ms();
            lease.deadline = end.max(self.now) + extend;
            (lease.asked, lease.own, lease.retry) = (false, false, None);
        }
    }

    /// Of the leases reported: each may be, and, if there was room, all that must be are among them. The tick in which
    /// a deadline lies may but need not be over.
    fn check_expired(&mut self, reported: &[LeaseId], limit: usize) {
        let decides = self.primary && !self.paused;
        assert!(reported.len() <= limit && (decides || reported.is_empty()));
        for id in reported {
            let lease = self.leases.get_mut(id).expect("a lease that exists");
            assert!(lease.deadline <= self.now, "early");
            assert!(lease.retry.is_none_or(|retry| retry <= self.now), "twice");
            lease.retry = Some(self.now + RETRY_MS);
        }
        if decides && reported.len() < limit {
            let tick = self.now / TICK_MS;
            let owed = |lease: &Expected| {
                lease.retry.map_or(lease.deadline.div_ceil(TICK_MS) <= tick, |retry| retry <= self.now)
            };
            assert!(!self.leases.values().any(owed), "late");
        }
    }

    fn due(&mut self, at_once: bool) -> Vec<(LeaseId, Option<u64>)> {
        let now = self.now;
        let is_first = !self.at_once;
        self.at_once = at_once && self.primary;
        let due = self.leases.iter_mut().filter(|_| self.primary).filter_map(|(&id, lease)| {
            let since = lease.deadline.saturating_sub(lease.ttl_ms());
            let is_idle = now > since + (lease.ttl_ms() / 2).max(10_000);
            let is_meant = if at_once { (is_first || lease.queued) && !lease.asked } else { is_idle };
            lease.queued &= !at_once;
            let due = lease.deadline > now && lease.recorded.is_none() && is_meant;
            lease.asked |= due;
            due.then_some((id, Some(since)))
        });
        due.collect()
    }

    fn check(&self, lessor: &Lessor) {
        assert_eq!((lessor.len(), lessor.is_primary()), (self.leases.len(), self.primary));
        assert_eq!(lessor.has_records(), self.leases.values().any(|lease| lease.recorded.is_some()));
        let mut ids: Vec<LeaseId> = self.leases.keys().copied().collect();
        ids.sort_by_key(|id| (self.leases[id].deadline, *id));
        assert_eq!(lessor.leases(), ids);
        for (&id, lease) in &self.leases {
            let left = lease.deadline.saturating_sub(self.now);
            assert_eq!(lessor.remaining(id, self.now), Some((left, lease.ttl)));
        }
    }
}

fn apply(lessor: &mut Lessor, model: &mut Model, step: Step) {
    let now = model.now;
    match step {
        Step::Grant(id, ttl) => {
            lessor.grant(id, ttl, now);
            model.restore(id, ttl, None);
        }
        Step::Restore(id, ttl, ago) => {
            let since = ago.map(|ago| now - ago);
            lessor.restored(id, ttl, since, now);
            model.restore(id, ttl, since);
        }
        Step::Revoke(id) => assert_eq!(lessor.revoke(id), model.leases.remove(&id).is_some()),
        Step::Renew(id) => assert_eq!(lessor.renew(id, now), model.renew(id)),
        Step::Expired(limit) => model.check_expired(&lessor.expired(now, limit), limit),
        Step::Promote(extend) => {
            lessor.promote(now, extend);
            model.promote(extend);
        }
        Step::Pause => {
            lessor.pause();
            model.paused = true;
        }
        Step::Resume(extend) => {
            lessor.resume(now, extend);
            model.paused = false;
            for lease in model.leases.values_mut().filter(|lease| lease.retry.is_none()) {
                lease.deadline = lease.deadline.max(now + extend);
            }
        }
        Step::Demote => {
            lessor.demote();
            (model.primary, model.at_once) = (false, false);
        }
        Step::Due(at_once) => {
            let mut due = lessor.due_records(now, at_once, ALL);
            due.sort_unstable();
            assert_eq!(due, model.due(at_once));
        }
        Step::Recorded(id, ago) => {
            let since = ago.map(|ago| now - ago);
            lessor.recorded(id, since);
            if let Some(lease) = model.leases.get_mut(&id) {
                (lease.recorded, lease.asked, lease.own) = (since, false, model.primary);
                if let Some(since) = since.filter(|_| !model.primary) {
                    lease.deadline = since + lease.ttl_ms();
                }
            }
        }
        Step::Pass(span) => model.now += span,
    }
}

proptest! {
    #[test]
    fn agrees_with_the_model(start in 40_000u64..10_000_000, steps in prop::collection::vec(step(), 1..150)) {
        let (mut lessor, mut model) = (Lessor::new(2), Model { now: start, ..Model::default() });
        apply(&mut lessor, &mut model, Step::Promote(0));
        for step in steps {
            apply(&mut lessor, &mut model, step);
            model.check(&lessor);
        }
    }
}
