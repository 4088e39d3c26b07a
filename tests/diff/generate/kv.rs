//! Range, RangeStream, Put, DeleteRange and Compact.

use rand::Rng;
use serde_json::{Value, json};

use super::Generator;

pub fn step(g: &mut Generator) {
    match g.rng.random_range(0..100) {
        0..40 => {
            let put = put(g);
            g.push("KV/Put", put);
        }
        40..70 => {
            let range = range(g);
            g.push("KV/Range", range);
        }
        70..78 => {
            let mut range = range(g);
            // See [`super::AVOIDED`].
            if range["sort_target"].as_i64().is_some_and(|target| (1..5).contains(&target)) {
                range["sort_order"] = json!(1);
            }
            g.push("KV/RangeStream", range);
        }
        78..93 => {
            let delete = delete(g);
            g.push("KV/DeleteRange", delete);
        }
        _ => {
            let revision = g.revision();
            let mut message = json!({"revision": revision});
            g.maybe(50, &mut message, "physical", |_| json!(true));
            g.push("KV/Compact", message);
        }
    }
}

pub fn put(g: &mut Generator) -> Value {
    let mut put = json!({"key": g.key()});
    g.maybe(85, &mut put, "value", Generator::value);
    g.maybe(20, &mut put, "lease", Generator::lease);
    g.maybe(25, &mut put, "prev_kv", |_| json!(true));
    if g.chance(8) {
        put["ignore_value"] = json!(true);
        if g.chance(70) {
            put["value"] = json!("");
        }
    }
    if g.chance(8) {
        put["ignore_lease"] = json!(true);
        if g.chance(70) {
            put["lease"] = json!(0);
        }
    }
    put
}

pub fn delete(g: &mut Generator) -> Value {
    let mut delete = json!({"key": g.key()});
    if let Some(end) = g.range_end().filter(|_| g.chance(60)) {
        delete["range_end"] = end;
    }
    g.maybe(30, &mut delete, "prev_kv", |_| json!(true));
    delete
}

pub fn range(g: &mut Generator) -> Value {
    let mut range = json!({"key": g.key()});
    if let Some(end) = g.range_end() {
        range["range_end"] = end;
    }
    g.maybe(35, &mut range, "limit", |g| json!(g.pick(&[1, 2, 3, 4, 10, -1, i64::MAX])));
    g.maybe(35, &mut range, "revision", Generator::revision);
    g.maybe(30, &mut range, "sort_order", |g| json!(g.pick(&[0, 1, 2, 2, 1, 3, -1])));
    g.maybe(35, &mut range, "sort_target", |g| json!(g.pick(&[0, 1, 2, 3, 4, 1, 2, 3, 4, 5])));
    g.maybe(20, &mut range, "serializable", |_| json!(true));
    g.maybe(15, &mut range, "keys_only", |_| json!(true));
    g.maybe(10, &mut range, "count_only", |_| json!(true));
    for bound in ["min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"] {
        g.maybe(6, &mut range, bound, Generator::revision);
    }
    range
}
