//! Sequences from seeds: few keys, few leases, small revisions, so that requests meet each other's effects. About a third
//! of the requests is wrong in some way.
//!
//! What is never asked, since both servers are known to answer differently, is in [`AVOIDED`].

mod admin;
mod auth;
mod kv;
mod lease;
mod queue;
mod raw;
mod txn;
mod watch;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::sequence::{Sequence, Step};

/// What no sequence asks for, and where docs/compat.md explains the difference.
pub const AVOIDED: &[(&str, &str)] = &[
    ("two permissions of a role on one key with different range ends", "A-6"),
    ("tokens with an index that the log has not reached", "A-8"),
    ("members that etcd would add", "C-1, C-3"),
    ("a downgrade that would begin", "X-10"),
    ("requests within a few hundred bytes of the limit", "size of a request that is too large"),
    ("a quota that a few keys could fill", "quota"),
    ("an alarm action that does not exist", "X-3"),
    ("an alarm of a type that does not exist", "X-3"),
    ("a stream of a range with a target and no order", "KV-S1"),
    ("a put and a delete without end in one transaction", "KV-T4"),
    ("fields of the wrong wire type", "fields of the wrong wire type"),
];

/// An area of the API, and how often sequences turn to it.
type Area = (fn(&mut Generator), u32);

const STEPS_MIN: usize = 10;
const STEPS_MAX: usize = 80;
/// No part of the seed's meaning but its size: a sequence ends even if an area adds nothing.
const TURNS_MAX: usize = 400;

/// The sequence of a seed.
pub fn sequence(seed: u64) -> Sequence {
    let mut generator = Generator::new(seed);
    let len = generator.rng.random_range(STEPS_MIN..=STEPS_MAX);
    let areas = generator.areas();
    for _ in 0..TURNS_MAX {
        if generator.steps.len() >= len {
            break;
        }
        let (area, _) =
            areas.choose_weighted(&mut generator.rng, |area| area.1).expect("weights are positive");
        area(&mut generator);
    }
    let flags = generator.flags.clone();
    Sequence { about: String::new(), flags, steps: generator.steps }
}

/// What the sequence has done so far, as far as what comes next depends on it.
pub struct Generator {
    rng: StdRng,
    steps: Vec<Step>,
    flags: Vec<String>,
    sessions: u8,
    /// A lease is about to expire; there is never a second one.
    has_short: bool,
    /// Users may be on.
    has_users: bool,
    /// A watcher was made for each stream of this number.
    watchers: u32,
    /// Large values may be written.
    is_large: bool,
    locks: u32,
}

impl Generator {
    fn new(seed: u64) -> Generator {
        let mut rng = StdRng::seed_from_u64(seed);
        let sessions = rng.random_range(1..=3);
        let mut generator = Generator {
            rng,
            steps: Vec::new(),
            flags: Vec::new(),
            sessions,
            has_short: false,
            has_users: false,
            watchers: 0,
            is_large: false,
            locks: 0,
        };
        generator.flags = generator.draw_flags();
        generator
    }

    fn draw_flags(&mut self) -> Vec<String> {
        let mut flags = Vec::new();
        if self.chance(15) {
            flags.push(format!("--max-txn-ops={}", self.pick(&[1, 2, 3, 8])));
        }
        if self.chance(6) {
            flags.push("--max-request-bytes=4000".to_owned());
        } else {
            self.is_large = self.chance(2);
        }
        if self.chance(6) {
            flags.push(format!("--quota-backend-bytes={}", self.pick(&["1", "-1", "0", "8589934592"])));
        }
        flags
    }

    /// A sequence has one or two areas that it dwells on.
    fn areas(&mut self) -> Vec<Area> {
        let all: [fn(&mut Generator); 8] =
            [kv::step, txn::step, watch::step, lease::step, auth::step, admin::step, queue::step, raw::step];
        let common = [20, 12, 8, 5, 0, 3, 1, 1];
        let mut areas: Vec<Area> = all.into_iter().zip(common).filter(|area| area.1 > 0).collect();
        let favourites: [Area; 7] = [
            (kv::step, 30),
            (txn::step, 40),
            (watch::step, 30),
            (lease::step, 25),
            (auth::step, 25),
            (admin::step, 10),
            (queue::step, 10),
        ];
        for _ in 0..self.rng.random_range(1..=2) {
            areas.push(favourites[self.rng.random_range(0..favourites.len())]);
        }
        areas
    }

    /// True in so many of a hundred cases.
    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_ratio(percent, 100)
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from.choose(&mut self.rng).expect("a choice").clone()
    }

    /// Adds a step on any session.
    fn push(&mut self, call: &str, message: Value) {
        self.push_step(Step::new(call, message));
    }

    fn push_step(&mut self, mut step: Step) {
        step.session = self.rng.random_range(0..self.sessions);
        if self.has_users && step.by.is_none() {
            step.by = self.caller();
        }
        self.steps.push(step);
    }

    fn key(&mut self) -> Value {
        match self.rng.random_range(0..100) {
            0..2 => json!(""),
            2..4 => json!("\0"),
            4..8 => json!({"repeat": "k", "times": 600}),
            8..11 => json!({"repeat": "k", "times": 601}),
            11..30 => json!("a"),
            30..45 => json!("b"),
            45..55 => json!("aa"),
            55..65 => json!("ab\0"),
            65..75 => json!("\u{ff}"),
            75..85 => json!("b/1"),
            85..95 => json!("b/2"),
            _ => json!("c"),
        }
    }

    /// A key that may be put.
    fn some_key(&mut self) -> Value {
        loop {
            let key = self.key();
            if key != json!("") {
                return key;
            }
        }
    }

    /// The end of a range; often none.
    fn range_end(&mut self) -> Option<Value> {
        match self.rng.random_range(0..100) {
            0..40 => None,
            40..60 => Some(json!("\0")),
            60..75 => Some(json!("c")),
            75..85 => Some(json!("b0")),
            85..92 => Some(json!("\u{ff}\u{ff}")),
            92..95 => Some(json!("a")),
            95..97 => Some(json!("")),
            _ => Some(self.key()),
        }
    }

    fn value(&mut self) -> Value {
        match self.rng.random_range(0..100) {
            0..8 => json!(""),
            8..30 => json!("x"),
            30..50 => json!("y"),
            50..60 => json!("x\0"),
            60..70 => json!("\u{80}\u{ff}"),
            70..96 => json!(format!("v{}", self.rng.random_range(0..50))),
            _ if self.is_large => json!({"repeat": "L", "times": 700_000}),
            96..98 => json!({"repeat": "m", "times": 3000}),
            // Too large for `--max-request-bytes=4000`, by far.
            _ => json!({"repeat": "n", "times": 9000}),
        }
    }

    fn revision(&mut self) -> Value {
        match self.rng.random_range(0..100) {
            0..30 => json!(format!("now-{}", self.rng.random_range(0..8))),
            30..40 => json!("now"),
            40..48 => json!("now+1"),
            48..52 => json!(format!("now+{}", self.rng.random_range(2..1000))),
            52..60 => json!("compacted"),
            60..66 => json!("compacted-1"),
            66..76 => json!("compacted+1"),
            76..80 => json!(0),
            80..84 => json!(-1),
            84..86 => json!(i64::MIN),
            86..88 => json!(i64::MAX),
            _ => json!(self.rng.random_range(1..12)),
        }
    }

    /// Puts an optional field into a message in so many of a hundred cases.
    fn maybe(
        &mut self,
        percent: u32,
        message: &mut Value,
        name: &str,
        value: impl FnOnce(&mut Self) -> Value,
    ) {
        if self.chance(percent) {
            message[name] = value(self);
        }
    }
}
