//! The real etcdctl against the server: commands of contract 7.1 about the cluster, and the load test that it brings.

use crate::etcdctl::{Ctl, for_each_etcdctl};

/// The id of the only member, as etcdctl prints it.
fn member_id(ctl: &Ctl) -> String {
    let list = ctl.run(&["member", "list"]);
    list.split(", ").next().expect("a first column").to_owned()
}

/// Contract 7.1 (move-leader), X-9.
#[test]
fn etcdctl_move_leader() {
    for_each_etcdctl(|ctl| {
        let id = member_id(&ctl);
        ctl.prints(&["move-leader", &id], &[&format!("Leadership transferred from {id} to {id}")]);
        assert!(ctl.fail(&["move-leader", "1267"]).contains("bad leader transferee"));
    });
}

/// Contract 7.1 (member), C-1 to C-8.
#[test]
fn etcdctl_member() {
    for_each_etcdctl(|ctl| {
        let id = member_id(&ctl);
        let mine = format!("http://127.0.0.1:{}", ctl.server.peer_port);
        let refused = ctl.fail(&["member", "remove", &id]);
        assert!(refused.contains("re-configuration failed due to not enough started members"), "{refused}");
        assert!(ctl.fail(&["member", "remove", "1267"]).contains("member not found"));
        assert!(ctl.fail(&["member", "promote", &id]).contains("can only promote a learner member"));
        let refused = ctl.fail(&["member", "add", "other", &format!("--peer-urls={mine}")]);
        assert!(refused.contains("Peer URLs already exists"), "{refused}");
        let both = format!("--peer-urls={mine},http://127.0.0.1:1");
        let updated = ctl.run(&["member", "update", &id, &both]);
        assert!(updated.starts_with(&format!("Member {id} updated in cluster ")), "{updated}");
        let list = ctl.run(&["member", "list"]);
        assert!(list.contains(&format!("{mine},http://127.0.0.1:1")), "{list}");
        if ctl.run(&["help", "member", "add"]).contains("--learner") {
            let added = ctl.run(&["member", "add", "other", "--learner", "--peer-urls=http://127.0.0.1:3"]);
            // etcdctl 3.4 does not say "as learner".
            assert!(
                added.contains(" added as learner to cluster ") || added.contains(" added to cluster "),
                "{added}"
            );
            let refused = ctl.fail(&["member", "add", "more", "--learner", "--peer-urls=http://127.0.0.1:5"]);
            assert!(refused.contains("too many learner members in cluster"), "{refused}");
            let list = ctl.run(&["member", "list"]);
            let learner = list.lines().find(|line| line.contains(", unstarted, , ")).expect("a new member");
            let learner = learner.split(", ").next().expect("a first column");
            assert!(ctl.fail(&["member", "promote", learner]).contains("which is in sync with leader"));
            assert!(ctl.fail(&["move-leader", learner]).contains("bad leader transferee"));
            let removed = ctl.run(&["member", "remove", learner]);
            assert!(removed.starts_with(&format!("Member {learner} removed from cluster ")), "{removed}");
        }
        // Within the same second, the same URL would make the id that was just removed.
        let added = ctl.run(&["member", "add", "other", "--peer-urls=http://127.0.0.1:7"]);
        assert!(added.contains("ETCD_INITIAL_CLUSTER_STATE=\"existing\""), "{added}");
    });
}

/// Contract 7.1 (downgrade), X-10. etcdctl 3.4 does not know it.
#[test]
fn etcdctl_downgrade() {
    for_each_etcdctl(|ctl| {
        if !ctl.run(&["help"]).contains("downgrade") {
            return;
        }
        let said = |what: &str| format!("Downgrade {what} success, cluster version 3.7");
        ctl.prints(&["downgrade", "validate", "3.6"], &[&said("validate")]);
        assert!(ctl.fail(&["downgrade", "validate", "3.5"]).contains("invalid downgrade target version"));
        assert!(ctl.fail(&["downgrade", "enable", "x"]).contains("wrong downgrade target version format"));
        ctl.prints(&["downgrade", "enable", "3.6"], &[&said("enable")]);
        let status = ctl.run(&["endpoint", "status", "-w", "json"]);
        assert!(status.contains(r#""downgradeInfo":{"enabled":true,"targetVersion":"3.6.0"}"#), "{status}");
        assert!(
            ctl.run(&["downgrade", "cancel"]).starts_with("Downgrade cancel success, cluster version 3.")
        );
    });
}

/// Contract 7.1 (check perf): the smallest load, 150 puts a second from 50 clients.
#[test]
#[ignore = "takes a minute for each etcdctl: cargo test --test compat etcdctl_check_perf -- --ignored"]
fn etcdctl_check_perf() {
    for_each_etcdctl(|ctl| {
        let report = ctl.run(&["check", "perf", "--load=s", "--auto-compact", "--auto-defrag"]);
        let lines: Vec<&str> = report.lines().filter(|line| line.starts_with("PASS")).collect();
        assert!(lines.len() >= 4 && report.lines().last() == Some("PASS"), "{report}");
        ctl.prints(&["get", "--prefix", "", "--keys-only"], &[]);
    });
}
