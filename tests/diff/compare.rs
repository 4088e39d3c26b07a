//! Two transcripts side by side, and the differences that are meant to be.

use serde_json::Value;

use crate::sequence::{Sequence, Step};

/// A difference that docs/compat.md explains.
pub struct Allowed {
    /// Where the document says so: a rule's id or the name of a row.
    pub anchor: &'static str,
    /// Whether these two answers to a step differ for this reason alone.
    matches: fn(&Step, &Value, &Value) -> bool,
}

/// All of them. What sequences never ask for, because the answer would be another, is listed in [`crate::generate`].
pub const ALLOWED: &[Allowed] = &[
    // The message order of equal sort keys is left open by etcd.
    Allowed { anchor: "KV-R15", matches: equal_but_for_ties },
    // etcd may answer from a cache that it filled at the compaction.
    Allowed { anchor: "X-7", matches: hash_at_the_compacted_revision },
    Allowed { anchor: "X-7", matches: hash_of_an_earlier_compaction },
    // The storage version is written down some seconds after the start.
    Allowed { anchor: "X-2", matches: storage_version },
    // Deadlines within a millisecond of each other.
    Allowed { anchor: "L-7", matches: order_of_leases },
    // Go's text about bytes that are no message differs from build to build.
    Allowed { anchor: "texts about messages that cannot be read", matches: unreadable_message },
];

/// Where two transcripts part.
pub struct Difference {
    /// Index of the step, counting those of [`crate::last`].
    pub step: usize,
    /// Path of the first place inside the answers.
    pub place: String,
}

/// The first difference that nothing explains; counts those that something does by their anchors.
pub fn compare(
    sequence: &Sequence,
    etcd: &[Value],
    kvist: &[Value],
    mut allowed: impl FnMut(&'static str),
) -> Option<Difference> {
    let last = crate::last::steps(sequence);
    let steps = sequence.steps.iter().chain(&last);
    for (n, (step, (etcd, kvist))) in steps.zip(etcd.iter().zip(kvist)).enumerate() {
        if etcd == kvist {
            continue;
        }
        if let Some(known) = ALLOWED.iter().find(|known| (known.matches)(step, etcd, kvist)) {
            allowed(known.anchor);
            continue;
        }
        return Some(Difference { step: n, place: place(etcd, kvist) });
    }
    None
}

/// Path of the first place where two values differ.
fn place(a: &Value, b: &Value) -> String {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let names = x.keys().chain(y.keys());
            let name = names.into_iter().find(|name| x.get(*name) != y.get(*name));
            name.map_or_else(String::new, |name| {
                let nothing = Value::Null;
                let inner = place(x.get(name).unwrap_or(&nothing), y.get(name).unwrap_or(&nothing));
                format!(".{name}{inner}")
            })
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            let n = x.iter().zip(y).position(|(x, y)| x != y).unwrap_or_default();
            format!("[{n}]{}", x.get(n).zip(y.get(n)).map_or_else(String::new, |(x, y)| place(x, y)))
        }
        _ => String::new(),
    }
}

/// A sorted range, in which only pairs with the same sort key have changed places or, at the limit, each other.
fn equal_but_for_ties(step: &Step, etcd: &Value, kvist: &Value) -> bool {
    let Some(request) = step.messages.first().filter(|_| step.call == "KV/Range") else { return false };
    let field = match request["sort_target"].as_i64() {
        Some(1) => "version",
        Some(2) => "create_revision",
        Some(3) => "mod_revision",
        Some(4) => "value",
        _ => return false,
    };
    let keys = |answer: &Value| -> Vec<Value> {
        answer["kvs"].as_array().into_iter().flatten().map(|kv| kv[field].clone()).collect()
    };
    let rest = |answer: &Value| without(answer, &["kvs"]);
    // etcd sorts up to twelve pairs stably.
    let is_long = etcd["count"].as_i64().unwrap_or_default() > 12;
    is_long && keys(etcd) == keys(kvist) && rest(etcd) == rest(kvist)
}

/// An answer without some of its fields.
fn without(answer: &Value, names: &[&str]) -> Value {
    let mut answer = answer.clone();
    if let Some(fields) = answer.as_object_mut() {
        fields.retain(|name, _| !names.contains(&name.as_str()));
    }
    answer
}

/// Revision 0 means the current one, unless revision 0 was compacted.
fn hash_at_the_compacted_revision(step: &Step, etcd: &Value, kvist: &Value) -> bool {
    let is_compacted = kvist["hash_revision"] == kvist["compact_revision"];
    let is_of_0 = etcd["hash_revision"].is_null();
    let own = ["hash", "compact_revision", "hash_revision"];
    step.call == "Maintenance/HashKV"
        && (is_compacted || is_of_0)
        && etcd["code"].is_null()
        && kvist["code"].is_null()
        && without(etcd, &own) == without(kvist, &own)
}

/// etcd remembers the hashes of its last ten compactions, also once their revisions are compacted themselves.
fn hash_of_an_earlier_compaction(step: &Step, etcd: &Value, kvist: &Value) -> bool {
    let revision = |of: &Value| of.as_i64().unwrap_or_default(); // 0 is left out
    step.call == "Maintenance/HashKV"
        && etcd["hash"].is_number()
        && revision(&etcd["hash_revision"]) < revision(&etcd["header"]["revision"])
        && kvist["text"] == "etcdserver: mvcc: required revision has been compacted"
}

fn storage_version(step: &Step, etcd: &Value, kvist: &Value) -> bool {
    let field = if step.call == "Maintenance/Snapshot" { "version" } else { "storageVersion" };
    matches!(step.call.as_str(), "Maintenance/Status" | "Maintenance/Snapshot")
        && (etcd[field] == "3.5.0" || etcd[field].is_null())
        && kvist[field] == "3.7.0"
        && without(etcd, &[field]) == without(kvist, &[field])
}

fn order_of_leases(step: &Step, etcd: &Value, kvist: &Value) -> bool {
    let sorted = |answer: &Value| {
        let mut answer = answer.clone();
        if let Some(leases) = answer["leases"].as_array_mut() {
            leases.sort_by_key(ToString::to_string);
        }
        answer
    };
    step.call == "Lease/LeaseLeases" && sorted(etcd) == sorted(kvist)
}

fn unreadable_message(step: &Step, etcd: &Value, kvist: &Value) -> bool {
    let is_told = |answer: &Value, ways: [&str; 2]| {
        let text = answer["text"].as_str().unwrap_or_default();
        answer["code"] == "Internal" && ways.iter().any(|way| text.starts_with(way))
    };
    let (unary, stream) =
        ("grpc: error unmarshalling request: ", "grpc: failed to unmarshal the received message: ");
    step.raw.is_some()
        && is_told(etcd, [unary, stream])
        && is_told(kvist, [unary, "failed to decode Protobuf message: "])
}
