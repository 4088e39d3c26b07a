//! Bodies that are no messages, methods that do not exist, services of others.

use rand::Rng;
use serde_json::json;

use super::Generator;
use crate::sequence::Step;
use crate::wire;

const CALLS: [&str; 8] = [
    "KV/Range",
    "KV/Put",
    "KV/Txn",
    "KV/RangeStream",
    "Lease/LeaseGrant",
    "Lease/LeaseKeepAlive",
    "Auth/UserAdd",
    "Maintenance/Alarm",
];

pub fn step(g: &mut Generator) {
    let step = match g.rng.random_range(0..100) {
        0..15 => Step { raw: Some(json!("")), ..Step::bare(g.pick(&["KV/Nothing", "KV/", "Nothing/Range"])) },
        15..40 => {
            // A length that is longer than the body, a group, the number 0, a varint without end, no UTF-8.
            let body =
                g.pick(&["\u{a}\u{5}a", "\u{b}", "\0\0", "\u{8}\u{ff}", "\u{ff}", "\u{12}\u{ff}\u{ff}"]);
            Step { raw: Some(json!(body)), ..Step::bare(g.pick(&CALLS)) }
        }
        40..60 => {
            // Fields that nobody knows: number 1000 as a number, number 99 as bytes.
            let body = g.pick(&["\u{c0}\u{3e}\u{1}\u{a}\u{1}a", "\u{9a}\u{6}\u{2}zz\u{a}\u{1}b"]);
            Step { raw: Some(json!(body)), ..Step::bare(g.pick(&["KV/Range", "KV/Put", "KV/DeleteRange"])) }
        }
        60..80 => {
            let call = g.pick(&["KV/Range", "KV/Put", "Auth/UserGet"]);
            let len = g.rng.random_range(0..12);
            let body: String = (0..len).map(|_| char::from(g.rng.random::<u8>())).collect();
            // See AVOIDED; an empty message is as good.
            let body = if wire::has_wrong_wire_type(call, &body) { String::new() } else { body };
            Step { raw: Some(json!(body)), ..Step::bare(call) }
        }
        _ => Step::new("Health/Check", json!({"service": g.pick(&["", "etcdserverpb.KV", "x"])})),
    };
    g.push_step(step);
}
