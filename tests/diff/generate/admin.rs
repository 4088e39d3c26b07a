//! Alarms, what Maintenance tells, members.

use rand::Rng;
use serde_json::{Value, json};

use super::Generator;

pub fn step(g: &mut Generator) {
    match g.rng.random_range(0..100) {
        0..25 => alarm(g),
        25..40 => g.push("Maintenance/Status", json!({})),
        40..58 => {
            let revision = g.revision();
            g.push("Maintenance/HashKV", json!({"revision": revision}));
        }
        58..62 => g.push("Maintenance/Hash", json!({})),
        62..65 => g.push("Maintenance/Defragment", json!({})),
        65..68 => g.push("Maintenance/Snapshot", json!({})),
        68..73 => {
            let target = g.pick(&[json!("member"), json!(1), json!(0)]);
            g.push("Maintenance/MoveLeader", json!({"targetID": target}));
        }
        73..80 => downgrade(g),
        80..88 => {
            let linearizable = g.chance(50);
            g.push("Cluster/MemberList", json!({"linearizable": linearizable}));
        }
        _ => member(g),
    }
}

fn alarm(g: &mut Generator) {
    let action = g.pick(&[0, 0, 1, 2, 2, 2]);
    // An alarm that stays up makes for dull sequences.
    let alarm = if action == 1 { g.pick(&[0, 1, 1, 1, 2]) } else { g.pick(&[0, 1, 1, 2, 5]) };
    let member = g.pick(&[json!("member"), json!("member"), json!("member"), json!(0), json!(5)]);
    g.push("Maintenance/Alarm", json!({"action": action, "alarm": alarm, "memberID": member}));
    if action == 1 && g.chance(70) {
        for _ in 0..g.rng.random_range(0..4) {
            super::kv::step(g);
        }
        g.push("Maintenance/Alarm", json!({"action": 2, "alarm": alarm, "memberID": member}));
    }
}

/// None that begins: bad texts, versions that are too far away, and giving up what never began.
fn downgrade(g: &mut Generator) {
    let (action, version): (i32, Value) = g.pick(&[
        (0, json!("3.6.0")),
        (0, json!("3.6")),
        (0, json!("3.5.0")),
        (0, json!("3.7.0")),
        (0, json!("x")),
        (0, json!("")),
        (1, json!("3.5.0")),
        (1, json!("3.8")),
        (1, json!("")),
        (2, json!("")),
        (2, json!("3.6.0")),
        (3, json!("3.6.0")),
    ]);
    g.push("Maintenance/Downgrade", json!({"action": action, "version": version}));
}

/// What changes nothing.
fn member(g: &mut Generator) {
    let id = g.pick(&[json!("member"), json!(1), json!(0)]);
    match g.rng.random_range(0..4) {
        0 => g.push("Cluster/MemberRemove", json!({"ID": id})),
        1 => g.push("Cluster/MemberPromote", json!({"ID": id})),
        2 => {
            let urls = g.pick(&[
                json!([]),
                json!(["x"]),
                json!(["http://h"]),
                json!(["ftp://h:1"]),
                json!(["http://h:1/p"]),
            ]);
            let is_learner = g.chance(50);
            g.push("Cluster/MemberAdd", json!({"peerURLs": urls, "isLearner": is_learner}));
        }
        _ => g.push("Cluster/MemberUpdate", json!({"ID": 1, "peerURLs": ["http://127.0.0.1:1"]})),
    }
}
