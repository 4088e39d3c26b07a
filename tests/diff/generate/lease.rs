//! Leases, with and without time.

use rand::Rng;
use serde_json::{Value, json};

use super::Generator;
use crate::last::LEASES;
use crate::sequence::Step;

impl Generator {
    /// A lease that may exist: one of a few ids, or one that the server chose.
    pub(super) fn lease(&mut self) -> Value {
        match self.rng.random_range(0..100) {
            0..15 => json!("lease:0"),
            15..20 => json!("lease:1"),
            20..25 => json!(0),
            25..75 => json!(self.pick(&LEASES[..2])),
            _ => json!(self.pick(&LEASES)),
        }
    }
}

pub fn step(g: &mut Generator) {
    match g.rng.random_range(0..100) {
        0..35 => grant(g),
        35..50 => {
            let id = g.lease();
            g.push("Lease/LeaseRevoke", json!({"ID": id}));
        }
        50..65 => {
            let ids: Vec<Value> = (0..g.rng.random_range(1..4)).map(|_| json!({"ID": g.lease()})).collect();
            g.push_step(Step { messages: ids, ..Step::bare("Lease/LeaseKeepAlive") });
        }
        65..85 => {
            let mut message = json!({"ID": g.lease()});
            g.maybe(70, &mut message, "keys", |_| json!(true));
            g.push("Lease/LeaseTimeToLive", message);
        }
        85..95 => g.push("Lease/LeaseLeases", json!({})),
        _ => expire(g),
    }
}

fn grant(g: &mut Generator) {
    let mut grant = json!({"TTL": g.pick(&[60, 100, 100, 1000, 9_000_000_000_i64, 9_000_000_001, i64::MAX])});
    if g.chance(80) {
        grant["ID"] = json!(g.pick(&LEASES));
    }
    g.push("Lease/LeaseGrant", grant);
}

/// A lease with a short TTL, something on it, and the wait for its end.
fn expire(g: &mut Generator) {
    if g.has_short || g.has_users {
        return;
    }
    g.has_short = true; // once is enough for a sequence: it costs seconds
    let id = 77;
    let ttl = g.pick(&[-1, 0, 1, 2]);
    g.push("Lease/LeaseGrant", json!({"TTL": ttl, "ID": id}));
    for _ in 0..g.rng.random_range(0..3) {
        let put = json!({"key": g.some_key(), "value": "short", "lease": id});
        g.push("KV/Put", put);
    }
    if g.chance(40) {
        g.push("Lease/LeaseKeepAlive", json!({"ID": id}));
    }
    g.push("Lease/LeaseTimeToLive", json!({"ID": id, "keys": true}));
    g.steps.push(Step::bare("expire"));
    g.push("Lease/LeaseTimeToLive", json!({"ID": id, "keys": true}));
}
