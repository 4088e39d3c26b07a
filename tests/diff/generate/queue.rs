//! Locks and elections, in shapes that nobody waits in: every name has one lease.

use rand::Rng;
use serde_json::json;

use super::Generator;

pub fn step(g: &mut Generator) {
    let (name, election, lease) = g.pick(&[("l1", "e1", 1), ("l2", "e2", 7)]);
    match g.rng.random_range(0..100) {
        0..15 => g.push("Lease/LeaseGrant", json!({"TTL": 100, "ID": lease})),
        15..35 => g.push("Lock/Lock", json!({"name": name, "lease": lease})),
        35..40 => {
            // Without a lease, each name is good for one lock.
            g.locks += 1;
            let name = format!("own{}", g.locks);
            g.push("Lock/Lock", json!({"name": name}));
        }
        40..50 => {
            let key = g.rng.random_range(0..4);
            g.push("Lock/Unlock", json!({"key": {"key": key}}));
        }
        50..53 => {
            let key = g.key();
            g.push("Lock/Unlock", json!({"key": key}));
        }
        53..75 => {
            let value = g.value();
            g.push("Election/Campaign", json!({"name": election, "lease": lease, "value": value}));
        }
        75..83 => {
            let value = g.value();
            let leader = g.rng.random_range(0..3);
            g.push("Election/Proclaim", json!({"leader": {"leader": leader}, "value": value}));
        }
        83..90 => {
            let leader = g.rng.random_range(0..3);
            g.push("Election/Resign", json!({"leader": {"leader": leader}}));
        }
        90..92 => g.push("Election/Resign", json!({})),
        92..94 => g.push("Election/Proclaim", json!({"value": "x"})),
        _ => g.push("Election/Leader", json!({"name": election})),
    }
}
