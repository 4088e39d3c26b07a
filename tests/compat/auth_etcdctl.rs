//! etcdctl with users, of every version given: the commands `auth`, `user` and `role`, and the others under a user's name.

use crate::etcdctl::{Ctl, for_each_etcdctl};

/// Runs a command as a user, whose password is its name.
fn run_as(ctl: &Ctl, user: &str, args: &[&str]) -> String {
    ctl.run(&[&[&format!("--user={user}:{user}")[..]], args].concat())
}

fn fail_as(ctl: &Ctl, user: &str, args: &[&str], text: &str) {
    let said = ctl.fail(&[&[&format!("--user={user}:{user}")[..]], args].concat());
    assert!(said.contains(text), "{args:?} as {user}: {said}");
}

fn add(ctl: &Ctl, user: &str) {
    let said = ctl.run_with_input(&["user", "add", user, "--interactive=false"], &format!("{user}\n"));
    assert_eq!(said, format!("User {user} created"));
}

/// A-1 to A-7, A-11 as the command line shows them.
#[test]
fn a_1_users_and_roles_by_etcdctl() {
    for_each_etcdctl(|ctl| {
        add(&ctl, "root");
        add(&ctl, "ann");
        ctl.run(&["user", "add", "bob:bob"]);
        ctl.prints(&["user", "list"], &["ann", "bob", "root"]);
        ctl.prints(&["role", "add", "root"], &["Role root created"]);
        ctl.prints(&["role", "add", "r"], &["Role r created"]);
        ctl.prints(&["user", "grant-role", "root", "root"], &["Role root is granted to user root"]);
        ctl.prints(&["user", "grant-role", "ann", "r"], &["Role r is granted to user ann"]);
        ctl.prints(&["role", "grant-permission", "r", "readwrite", "--prefix", "k"], &["Role r updated"]);
        ctl.prints(&["role", "grant-permission", "r", "read", "x"], &["Role r updated"]);
        assert!(ctl.fail(&["user", "add", "ann:x"]).contains("etcdserver: user name already exists"));
        assert!(ctl.fail(&["role", "add", "r"]).contains("etcdserver: role name already exists"));
        ctl.prints(&["auth", "enable"], &["Authentication Enabled"]);

        assert!(ctl.fail(&["get", "k"]).contains("etcdserver: user name is empty"));
        assert_eq!(run_as(&ctl, "ann", &["put", "k1", "v"]), "OK");
        assert_eq!(run_as(&ctl, "ann", &["get", "k1"]), "k1\nv");
        fail_as(&ctl, "ann", &["put", "x", "v"], "etcdserver: permission denied");
        fail_as(&ctl, "ann", &["get", "", "--from-key"], "etcdserver: permission denied");
        fail_as(&ctl, "ann", &["user", "list"], "etcdserver: permission denied");
        fail_as(&ctl, "bob", &["get", "k1"], "etcdserver: permission denied");
        let wrong = ctl.fail(&["--user=ann:wrong", "get", "k1"]);
        assert!(wrong.contains("authentication failed, invalid user ID or password"), "{wrong}");
        assert!(run_as(&ctl, "ann", &["user", "get", "ann"]).contains("Roles: r"));
        let role = run_as(&ctl, "ann", &["role", "get", "r"]);
        assert!(
            role.contains("KV Read:") && role.contains("[k, l) (prefix k)") && role.contains("\tx"),
            "{role}"
        );
        assert!(run_as(&ctl, "root", &["endpoint", "status"]).contains("127.0.0.1"));
        let lease = run_as(&ctl, "ann", &["lease", "grant", "600"]);
        let id = lease.split(' ').nth(1).expect("lease ID granted");
        assert_eq!(run_as(&ctl, "ann", &["put", "k2", "v", &format!("--lease={id}")]), "OK");
        fail_as(&ctl, "bob", &["lease", "revoke", id], "etcdserver: permission denied");
        assert!(run_as(&ctl, "ann", &["lease", "keep-alive", "--once", id]).contains("keepalived"));
        assert!(run_as(&ctl, "ann", &["lease", "revoke", id]).contains("revoked"));

        let passwd = ctl
            .command(&["--user=root:root", "user", "passwd", "ann", "--interactive=false"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .and_then(|mut child| {
                use std::io::Write;
                child.stdin.take().expect("stdin").write_all(b"new\n")?;
                child.wait_with_output()
            })
            .expect("run etcdctl");
        assert!(passwd.status.success(), "{passwd:?}");
        fail_as(&ctl, "ann", &["get", "k1"], "authentication failed");
        assert_eq!(ctl.run(&["--user=ann:new", "get", "k1"]), "k1\nv");
        let revoked = run_as(&ctl, "root", &["role", "revoke-permission", "r", "--prefix", "k"]);
        assert!(revoked.contains("Permission of range [k, l) is revoked from role r"), "{revoked}");
        assert!(ctl.fail(&["--user=ann:new", "get", "k1"]).contains("permission denied"));
        let said = run_as(&ctl, "root", &["user", "revoke-role", "ann", "r"]);
        assert_eq!(said, "Role r is revoked from user ann");
        assert_eq!(run_as(&ctl, "root", &["role", "delete", "r"]), "Role r deleted");
        assert_eq!(run_as(&ctl, "root", &["user", "delete", "bob"]), "User bob deleted");
        fail_as(&ctl, "root", &["user", "delete", "root"], "etcdserver: invalid auth management");
        assert_eq!(run_as(&ctl, "root", &["user", "list"]), "ann\nroot");
        assert_eq!(run_as(&ctl, "root", &["auth", "disable"]), "Authentication Disabled");
        ctl.prints(&["get", "k1"], &["k1", "v"]);
    });
}
