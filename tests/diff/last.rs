//! The steps behind every sequence: they show the state that it left.

use serde_json::json;

use crate::sequence::{Sequence, Step};

/// Who and what generated sequences name.
pub const USERS: [&str; 4] = ["root", "alice", "bob", "carol"];
pub const ROLES: [&str; 4] = ["root", "reader", "writer", "both"];
pub const LEASES: [i64; 6] = [1, 2, 7, 1000, -5, i64::MAX];
/// How far the walk through history goes back.
const HISTORY: i64 = 24;

/// All keys there are, as of now.
fn everything() -> serde_json::Value {
    json!({"key": "\0", "range_end": "\0"})
}

/// The state, area by area. Parts that a sequence cannot have changed are left out.
pub fn steps(sequence: &Sequence) -> Vec<Step> {
    let uses = |service: &str| sequence.steps.iter().any(|step| step.area() == service);
    let mut steps = vec![Step::bare("sync"), Step::bare("expire"), Step::new("Auth/AuthStatus", json!({}))];
    if uses("Auth") {
        // With users on, somebody must look.
        steps.push(Step::new("Auth/Authenticate", json!({"name": "root", "password": "root"})));
    }
    steps.push(Step::new("KV/Range", everything()));
    for back in (1..HISTORY).rev() {
        let mut range = everything();
        range["revision"] = json!(format!("now-{back}"));
        steps.push(Step::new("KV/Range", range));
    }
    if uses("Lease") || uses("Lock") || uses("Election") {
        steps.push(Step::new("Lease/LeaseLeases", json!({})));
        let known = LEASES.iter().map(|id| json!(id)).chain((0..4).map(|n| json!(format!("lease:{n}"))));
        steps.extend(known.map(|id| Step::new("Lease/LeaseTimeToLive", json!({"ID": id, "keys": true}))));
    }
    if uses("Auth") {
        steps.push(Step::new("Auth/UserList", json!({})));
        steps.push(Step::new("Auth/RoleList", json!({})));
        steps.extend(USERS.iter().map(|name| Step::new("Auth/UserGet", json!({"name": name}))));
        steps.extend(ROLES.iter().map(|name| Step::new("Auth/RoleGet", json!({"role": name}))));
    }
    steps.push(Step::new("Maintenance/Alarm", json!({})));
    steps.push(Step::new("Maintenance/HashKV", json!({})));
    if uses("Auth") {
        steps.iter_mut().skip(4).for_each(|step| step.by = Some("root".into()));
    }
    steps
}
