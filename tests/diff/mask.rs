//! What of an answer is not compared as it is, because etcd itself would answer differently the next time.

use serde_json::{Map, Value, json};

use crate::world::World;

/// Puts words in the place of such values. `answer` still has the server's own ids.
pub fn mask(call: &str, answer: &mut Value, world: &World) {
    match call {
        "Lease/LeaseTimeToLive" => mask_ttl(answer),
        // The digest of a key with a lease that the server chose is the server's own.
        "Maintenance/HashKV" if !world.leases.is_empty() => replace(answer, "hash", "set"),
        // A sum over the file: docs/compat.md, intended differences.
        "Maintenance/Hash" => replace(answer, "hash", "set"),
        "Maintenance/Snapshot" => {
            replace(answer, "blob", "set");
            if let Some(fields) = answer.as_object_mut() {
                fields.remove("remaining_bytes"); // in the last of how many messages there are
            }
        }
        _ => {}
    }
}

/// What is left of a long TTL: nearly all of it.
fn mask_ttl(answer: &mut Value) {
    let (left, granted) = (answer["TTL"].as_i64().unwrap_or_default(), answer["grantedTTL"].as_i64());
    // A run takes seconds at most.
    let spent_secs_max = 30;
    if granted.is_some_and(|granted| (granted - spent_secs_max..=granted).contains(&left)) && left >= 0 {
        answer["TTL"] = json!("nearly all");
    } else if granted.is_some() && !answer.as_object().is_some_and(|a| a.contains_key("TTL")) {
        answer["TTL"] = json!("nearly all"); // 0 of a short one
    }
    // etcd lists keys in the order of a map.
    if let Some(keys) = answer["keys"].as_array_mut() {
        keys.sort_by_key(ToString::to_string);
    }
}

fn replace(answer: &mut Value, name: &str, with: &str) {
    if let Some(value) = answer.get_mut(name) {
        *value = json!(with);
    }
}

/// The messages of a stream as one, so that its division does not count.
pub fn merge(messages: Vec<Value>) -> Value {
    messages.into_iter().fold(Value::Object(Map::new()), |mut merged, message| {
        add(&mut merged, message);
        merged
    })
}

fn add(merged: &mut Value, more: Value) {
    match (merged, more) {
        (Value::Object(fields), Value::Object(more)) => {
            for (name, value) in more {
                add(fields.entry(name).or_insert(Value::Null), value);
            }
        }
        (Value::Array(values), Value::Array(more)) => values.extend(more),
        (merged, more) => *merged = more,
    }
}
