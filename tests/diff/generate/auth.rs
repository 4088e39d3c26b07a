//! Users, roles and permissions, logins, and requests of several callers.

use rand::Rng;
use serde_json::{Value, json};

use super::Generator;
use crate::last::{ROLES, USERS};
use crate::sequence::Step;

/// Each key of a permission has one range end: see [`super::AVOIDED`].
const PERMISSIONS: [(&str, &str); 9] = [
    ("a", ""),
    ("aa", "c"),
    ("b", "c"),
    ("b/1", ""),
    ("c", "\0"),
    ("\0", "\0"),
    ("\u{ff}", ""),
    ("", ""),
    ("z", "a"),
];

impl Generator {
    /// Somebody's token, or none, or a wrong one.
    pub(super) fn caller(&mut self) -> Option<String> {
        let caller = match self.rng.random_range(0..100) {
            0..45 => "root",
            45..65 => "alice",
            65..80 => "bob",
            80..84 => "carol",
            84..88 => "root#0",
            88..90 => "alice#0",
            90..91 => "!",
            91..92 => "!rubbish",
            92..93 => "!abcdefghijklmnop.1",
            93..94 => "!Bearer x",
            _ => return None,
        };
        Some(caller.to_owned())
    }

    fn user(&mut self) -> &'static str {
        if self.chance(3) { "" } else { self.pick(&USERS) }
    }

    fn role(&mut self) -> &'static str {
        if self.chance(3) { "" } else { self.pick(&ROLES) }
    }
}

pub fn step(g: &mut Generator) {
    if !g.has_users && g.chance(40) {
        return begin(g);
    }
    match g.rng.random_range(0..100) {
        0..8 => user_add(g),
        8..14 => {
            let name = g.role();
            g.push("Auth/RoleAdd", json!({"name": name}));
        }
        14..26 => permission(g),
        26..34 => {
            let message = json!({"user": g.user(), "role": g.role()});
            g.push("Auth/UserGrantRole", message);
        }
        34..38 => {
            let message = json!({"name": g.user(), "role": g.role()});
            g.push("Auth/UserRevokeRole", message);
        }
        38..42 => {
            let user = g.user();
            // Root's password stays, for the look at the end.
            let password = if user == "root" { "root" } else { g.pick(&["x", "", user]) };
            g.push("Auth/UserChangePassword", json!({"name": user, "password": password}));
        }
        42..45 => {
            let name = g.user();
            g.push("Auth/UserDelete", json!({"name": name}));
        }
        45..47 => {
            let role = g.role();
            g.push("Auth/RoleDelete", json!({"role": role}));
        }
        47..52 => {
            let name = g.user();
            g.push("Auth/UserGet", json!({"name": name}));
        }
        52..57 => {
            let role = g.role();
            g.push("Auth/RoleGet", json!({"role": role}));
        }
        57..60 => g.push("Auth/UserList", json!({})),
        60..63 => g.push("Auth/RoleList", json!({})),
        63..66 => g.push("Auth/AuthStatus", json!({})),
        66..69 => g.push("Auth/AuthDisable", json!({})),
        69..78 => {
            g.has_users = true;
            g.push("Auth/AuthEnable", json!({}));
        }
        _ => login(g),
    }
}

/// Makes users, mostly in the right order.
fn begin(g: &mut Generator) {
    g.has_users = true;
    let mut steps = vec![
        ("Auth/UserAdd", json!({"name": "root", "password": "root"})),
        ("Auth/RoleAdd", json!({"name": "root"})),
        ("Auth/UserGrantRole", json!({"user": "root", "role": "root"})),
        ("Auth/UserAdd", json!({"name": "alice", "password": "alice"})),
        ("Auth/UserAdd", json!({"name": "bob", "password": "bob"})),
        ("Auth/RoleAdd", json!({"name": "reader"})),
        ("Auth/RoleAdd", json!({"name": "writer"})),
        ("Auth/UserGrantRole", json!({"user": "alice", "role": "reader"})),
        ("Auth/UserGrantRole", json!({"user": "bob", "role": "writer"})),
        ("Auth/RoleGrantPermission", grant("reader", 0, PERMISSIONS[1])),
        ("Auth/RoleGrantPermission", grant("writer", 2, PERMISSIONS[2])),
        ("Auth/AuthEnable", json!({})),
        ("Auth/Authenticate", json!({"name": "root", "password": "root"})),
        ("Auth/Authenticate", json!({"name": "alice", "password": "alice"})),
        ("Auth/Authenticate", json!({"name": "bob", "password": "bob"})),
    ];
    if g.chance(15) {
        steps.remove(g.rng.random_range(0..15));
    }
    g.steps.extend(steps.into_iter().map(|(call, message)| Step::new(call, message)));
}

fn user_add(g: &mut Generator) {
    let name = g.user();
    let password = if name == "root" { "root" } else { g.pick(&[name, name, name, "", "x"]) };
    let mut message = json!({"name": name, "password": password});
    if name != "root" && g.chance(10) {
        message["options"] = json!({"no_password": true});
    }
    if g.chance(3) {
        message["password"] = json!("long".repeat(20));
    }
    g.push("Auth/UserAdd", message);
}

fn login(g: &mut Generator) {
    let name = g.user();
    let password = if g.chance(80) { name } else { g.pick(&["x", "", "root"]) };
    g.push("Auth/Authenticate", json!({"name": name, "password": password}));
}

fn grant(role: &str, kind: i32, (key, end): (&str, &str)) -> Value {
    json!({"name": role, "perm": {"permType": kind, "key": key, "range_end": end}})
}

fn permission(g: &mut Generator) {
    let (role, place) = (g.role(), g.pick(&PERMISSIONS));
    match g.rng.random_range(0..100) {
        0..65 => {
            let kind = g.rng.random_range(0..3);
            g.push("Auth/RoleGrantPermission", grant(role, kind, place));
        }
        65..68 => g.push("Auth/RoleGrantPermission", json!({"name": role})),
        _ => g.push("Auth/RoleRevokePermission", json!({"role": role, "key": place.0, "range_end": place.1})),
    }
}
