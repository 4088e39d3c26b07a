//! The commands of etcdctl that look at or change a whole cluster.

use std::process::{Command, Stdio};

use crate::cluster::Cluster;
use crate::support;

/// etcdctl of the newest release if there is one, else that in PATH.
fn etcdctl(endpoints: &str, args: &[&str]) -> String {
    let binary = support::tool("etcdctl", "the newest etcdctl").unwrap_or_else(|| "etcdctl".into());
    let mut command = Command::new(binary);
    command.env("ETCDCTL_API", "3").env("ETCDCTL_ENDPOINTS", endpoints).args(args).stdin(Stdio::null());
    let output = command.output().expect("run etcdctl: set KVIST_ETCDCTL or run make setup");
    assert!(output.status.success(), "etcdctl {args:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// Contract 7.1: health and status of all, the list, and a member that comes and goes.
#[tokio::test(flavor = "multi_thread")]
async fn etcdctl_sees_a_cluster() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let all = cluster.endpoints();
    assert_eq!(etcdctl(&all, &["put", "key", "value"]), "OK");
    etcdctl(&all, &["endpoint", "health", "--cluster"]);
    let status = etcdctl(&all, &["endpoint", "status"]);
    let leaders = status.lines().filter(|line| line.contains("true, false,")).count();
    assert_eq!((status.lines().count(), leaders), (3, 1), "{status}");
    let hashes = etcdctl(&all, &["endpoint", "hashkv"]);
    let hashes: Vec<&str> = hashes.lines().filter_map(|line| line.split(", ").nth(1)).collect();
    assert!(hashes.len() == 3 && hashes.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
    let follower = cluster.other(leader);
    let target = format!("{:x}", cluster.id(follower).await);
    let moved = etcdctl(&cluster.members[leader].client_url, &["move-leader", &target]);
    assert!(moved.starts_with("Leadership transferred from"), "{moved}");
    cluster.leader().await;
    let (index, id) = cluster.add(leader, true).await;
    cluster.members[index].start();
    let list = etcdctl(&all, &["member", "list"]);
    assert!(
        list.lines().count() == 4 && list.contains(&format!("{id:x}, unstarted")) || list.contains(", true")
    );
    let removed = etcdctl(&all, &["member", "remove", &format!("{id:x}")]);
    assert!(removed.contains("removed from cluster"), "{removed}");
    assert_eq!(cluster.members[index].ended().code(), Some(0));
}
