//! Watchers on a few streams.

use rand::Rng;
use serde_json::{Value, json};

use super::Generator;
use crate::sequence::Step;

pub fn step(g: &mut Generator) {
    match g.rng.random_range(0..100) {
        _ if g.watchers == 0 => create(g),
        0..45 => create(g),
        45..65 => {
            let id = g.pick(&[0, 0, 1, 2, 3, 5, 9, -1]);
            send(g, json!({"cancel_request": {"watch_id": id}}));
        }
        65..72 => send(g, json!({"progress_request": {}})),
        72..75 => send(g, json!({})),
        _ => g.steps.push(Step::bare("sync")),
    }
}

/// The stream decides about the session.
fn send(g: &mut Generator, message: Value) {
    let mut step = Step::new("Watch/Watch", message);
    step.stream = g.rng.random_range(0..2);
    if g.has_users && g.chance(60) {
        step.by = g.caller();
    }
    g.steps.push(step);
}

fn create(g: &mut Generator) {
    g.watchers += 1;
    let mut create = json!({"key": g.key()});
    if let Some(end) = g.range_end() {
        create["range_end"] = end;
    }
    g.maybe(60, &mut create, "start_revision", start);
    g.maybe(40, &mut create, "prev_kv", |_| json!(true));
    g.maybe(20, &mut create, "watch_id", |g| json!(g.pick(&[1, 2, 3, 5, 9, 0, -7])));
    g.maybe(20, &mut create, "filters", |g| {
        g.pick(&[json!([0]), json!([1]), json!([0, 1]), json!([1, 1]), json!([7])])
    });
    g.maybe(20, &mut create, "fragment", |_| json!(true));
    g.maybe(10, &mut create, "progress_notify", |_| json!(true));
    send(g, json!({"create_request": create}));
}

fn start(g: &mut Generator) -> Value {
    match g.rng.random_range(0..100) {
        0..35 => json!(format!("now-{}", g.rng.random_range(0..20))),
        35..45 => json!(1),
        45..55 => json!("compacted"),
        55..62 => json!("compacted-1"),
        62..70 => json!("now+1"),
        70..76 if !g.has_users => json!(format!("now+{}", g.rng.random_range(2..5))),
        76..82 => json!(-1),
        _ => json!(g.rng.random_range(1..10)),
    }
}
