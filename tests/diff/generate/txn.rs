//! Transactions of every shape.

use rand::Rng;
use serde_json::{Value, json};

use super::{Generator, kv};

/// How deep transactions nest.
const DEPTH_MAX: u32 = 3;

pub fn step(g: &mut Generator) {
    let deletes = if g.chance(10) { Deletes::WithoutEndAndNoPuts } else { Deletes::WithEnd };
    let txn = txn(g, 0, deletes);
    g.push("KV/Txn", txn);
}

/// After a put and a delete without end of one key in one transaction, etcd may not survive the next compaction:
/// [`super::AVOIDED`].
#[derive(Clone, Copy, PartialEq)]
enum Deletes {
    WithEnd,
    WithoutEndAndNoPuts,
}

fn txn(g: &mut Generator, depth: u32, deletes: Deletes) -> Value {
    let compares: Vec<Value> = (0..g.pick(&[0, 0, 1, 1, 1, 2, 3])).map(|_| compare(g)).collect();
    let is_read_only = g.chance(15);
    let branch = |g: &mut Generator| -> Vec<Value> {
        let most = if g.chance(2) { 130 } else { g.pick(&[0, 1, 1, 2, 2, 3, 4, 5]) };
        (0..most).map(|_| operation(g, depth, is_read_only, deletes)).collect()
    };
    let (success, failure) = (branch(g), branch(g));
    json!({"compare": compares, "success": success, "failure": failure})
}

fn operation(g: &mut Generator, depth: u32, is_read_only: bool, deletes: Deletes) -> Value {
    match g.rng.random_range(0..100) {
        _ if is_read_only => json!({"request_range": range(g)}),
        0..50 if deletes == Deletes::WithEnd => json!({"request_put": put(g)}),
        50..70 => json!({"request_range": range(g)}),
        85..98 if depth < DEPTH_MAX => json!({"request_txn": txn(g, depth + 1, deletes)}),
        98..100 => json!({}),
        _ => {
            let mut delete = kv::delete(g);
            if deletes == Deletes::WithEnd && delete["range_end"] == "\0" {
                delete["range_end"] = json!("\u{ff}\u{ff}");
            }
            json!({"request_delete_range": delete})
        }
    }
}

/// One bad operation spoils a transaction, so operations are rarely bad.
fn range(g: &mut Generator) -> Value {
    let mut range = kv::range(g);
    if g.chance(80) {
        range["key"] = g.some_key();
        range["revision"] = json!(0);
        range["sort_order"] = json!(g.rng.random_range(0..3));
        range["sort_target"] = json!(g.rng.random_range(0..5));
    }
    range
}

fn put(g: &mut Generator) -> Value {
    let mut put = kv::put(g);
    if g.chance(80) {
        put = json!({"key": g.some_key(), "value": g.value()});
        g.maybe(30, &mut put, "prev_kv", |_| json!(true));
    }
    put
}

fn compare(g: &mut Generator) -> Value {
    let mut compare = json!({"key": if g.chance(95) { g.some_key() } else { g.key() }});
    compare["result"] = json!(g.pick(&[0, 0, 1, 2, 3, 3, 4]));
    let (target, field) =
        g.pick(&[(0, "version"), (1, "create_revision"), (2, "mod_revision"), (3, "value"), (4, "lease")]);
    compare["target"] = json!(target);
    let value = match field {
        "version" => json!(g.rng.random_range(0..4)),
        "value" => g.value(),
        "lease" => g.lease(),
        _ => g.pick(&[json!(0), json!("now"), json!("now-1"), json!("now-2"), json!(2), json!(-1)]),
    };
    match g.rng.random_range(0..100) {
        0..6 => {}                              // without a value
        6..10 => compare["version"] = json!(1), // of another target, perhaps
        10..12 => compare["target"] = json!(g.pick(&[5, -1])),
        _ => compare[field] = value,
    }
    if let Some(end) = g.range_end().filter(|_| g.chance(40)) {
        compare["range_end"] = end;
    }
    compare
}
