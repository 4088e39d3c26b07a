//! Members that call each other by `wolf.raft` (docs/wolf-raft.md). etcd knows nothing of it.

use kvist::pb::wolf::raft_client::RaftClient;
use kvist::pb::wolf::*;

use std::collections::BTreeSet;

use prost::Message;

use crate::capture::{Capture, WOLF};
use crate::cluster::{Cluster, Plan, READY_TIMEOUT, eventually};
use crate::support::{free_port, is_foreign_server, wait_until};

async fn metrics(cluster: &Cluster, index: usize) -> Option<serde_json::Value> {
    let mut client = RaftClient::connect(cluster.members[index].peer_url.clone()).await.ok()?;
    let answer = client.get_metrics(RaftGetMetricsReq { msg_id: "m".into() }).await.ok()?.into_inner();
    match answer.response {
        Some(raft_get_metrics_res::Response::OkRes(ok)) => serde_json::from_str(&ok.metrics).ok(),
        _ => None,
    }
}

/// Writes through each member in turn.
async fn write(cluster: &Cluster, some: &[usize], keys: usize) {
    for n in 0..keys {
        cluster.api(some[n % some.len()]).put(&format!("key-{n}"), &"v".repeat(n)).await.expect("put");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wolf_7_22_28_members_replicate_and_replace_their_leader() {
    if is_foreign_server() {
        return;
    }
    let mut cluster =
        Cluster::start_with(Plan::of(3).with(&["--peer-transport=wolf", "--peer-gzip=true"])).await;
    write(&cluster, &[0, 1, 2], 300).await;
    cluster.api(0).put("large", &"x".repeat(1_500_000)).await.expect("put");
    cluster.same_hash(&[0, 1, 2]).await;
    let leader = cluster.leader().await;
    let before = metrics(&cluster, leader).await.expect("metrics");
    assert_eq!(before["state"], "Leader");
    cluster.members[leader].kill();
    let next = cluster.leader().await;
    let after = metrics(&cluster, next).await.expect("metrics");
    assert!(after["current_term"].as_u64() > before["current_term"].as_u64());
    cluster.api(next).put("later", "1").await.expect("put");
    cluster.members[leader].start();
    cluster.serves(leader).await;
    cluster.same_hash(&[0, 1, 2]).await;
}

/// Three members that call each other by proxies.
async fn captured(transport: &str) -> (Cluster, Capture) {
    let flag = format!("--peer-transport={transport}");
    let mut cluster = Cluster::prepare(Plan::of(3).with(&[&flag]));
    let capture = Capture::default();
    for member in &mut cluster.members {
        let behind = format!("http://127.0.0.1:{}", free_port());
        capture.stand_before(&member.peer_url, &behind).await;
        member.peer_listen_url = Some(behind);
    }
    cluster.start_all();
    cluster.wait_ready().await;
    (cluster, capture)
}

/// Leases and reads by way of every member.
async fn lease_and_read(cluster: &Cluster) {
    let lease = cluster.api(0).grant(60).await.expect("grant");
    for index in 0..3 {
        let api = cluster.api(index);
        assert_eq!(api.keep_alive(lease).await.expect("keep alive"), 60);
        assert!(api.time_to_live(lease).await.expect("time to live").ttl > 50);
        let key = format!("by-{index}");
        api.put(&key, "1").await.expect("put");
        for other in 0..3 {
            assert_eq!(cluster.api(other).value(&key).await.as_deref(), Some("1"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wolf_7_8_members_call_each_other_by_nothing_else() {
    if is_foreign_server() {
        return;
    }
    let (mut cluster, capture) = captured("wolf").await;
    let calls = ["AppendEntries", "GetMetrics", "Vote"].map(|call| format!("{WOLF}{call}"));
    // A member that starts for the first time asks the others over HTTP who belongs to the cluster.
    let mut paths = capture.paths();
    paths.remove("/members");
    assert!(paths.iter().all(|path| calls.contains(path)), "{paths:?}");
    capture.forget();
    write(&cluster, &[0, 1, 2], 1000).await;
    lease_and_read(&cluster).await;
    cluster.same_hash(&[0, 1, 2]).await;
    let mut found = BTreeSet::new();
    for api in cluster.apis() {
        let answer = api.status().await.expect("status");
        found.insert(answer.header.expect("a header").revision);
    }
    assert_eq!(found, BTreeSet::from([1004]), "1000 keys, and three");
    let leader = cluster.leader().await;
    let next = cluster.other(leader);
    let next = cluster.id(next).await;
    cluster.api(leader).move_leader(next).await.expect("move the leader");
    assert_eq!(capture.paths(), BTreeSet::from(calls));
    assert!(capture.calls().iter().any(|call| call.kind.as_deref() == Some("propose")));
    a_heartbeat_has_the_commit_index(&mut cluster, &capture).await;
}

/// 8: seen while nobody writes.
async fn a_heartbeat_has_the_commit_index(cluster: &mut Cluster, capture: &Capture) {
    let leader = cluster.leader().await;
    capture.forget();
    let (cluster, capture) = (&*cluster, capture);
    eventually("a heartbeat with the commit index", READY_TIMEOUT, || async move {
        let metrics = metrics(cluster, leader).await?;
        let committed = metrics["openraft"]["cluster_committed"]["index"].as_u64()?;
        let is_append = |path: &str| path == format!("{WOLF}AppendEntries");
        let appends = capture.calls().into_iter().filter(|call| is_append(&call.path) && call.kind.is_none());
        let last = RaftAppendEntriesReq::decode(appends.last()?.message).expect("a message");
        let req: serde_json::Value = serde_json::from_str(&last.req).expect("JSON");
        let is_heartbeat = req["entries"].as_array().expect("a list").is_empty();
        (is_heartbeat && req["leader_commit"].as_u64() == Some(committed + 1)).then_some(())
    })
    .await;
}

/// Were there something else, it would be seen.
#[tokio::test(flavor = "multi_thread")]
async fn a_capture_sees_the_native_transport() {
    if is_foreign_server() {
        return;
    }
    let (cluster, capture) = captured("native").await;
    lease_and_read(&cluster).await;
    let paths = capture.paths();
    for call in ["Append", "Heartbeat", "Vote", "Propose", "ReadIndex", "Ask"] {
        assert!(paths.contains(&format!("/kvist.peer.Peer/{call}")), "{call}: {paths:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lead_is_handed_over_by_wolf_raft() {
    if is_foreign_server() {
        return;
    }
    let mut cluster = Cluster::start_with(Plan::of(3).with(&["--peer-transport=wolf"])).await;
    let leader = cluster.leader().await;
    let next = cluster.other(leader);
    let (id, old) = (cluster.id(next).await, cluster.id(leader).await);
    cluster.api(leader).move_leader(id).await.expect("move the leader");
    assert_eq!(cluster.leader().await, next);
    cluster.api(leader).put("key", "1").await.expect("put");
    // It hands over to those only that it knows to be there.
    let active = format!(r#""msg":"peer became active","peer-id":"{old:x}""#);
    wait_until("the old leader to follow", READY_TIMEOUT, || {
        cluster.members[next].log_text().contains(&active)
    });
    cluster.members[next].terminate();
    let log = cluster.members[next].log_text();
    assert!(log.contains("leadership transfer finished"), "{log}");
    assert_ne!(cluster.leader().await, next);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_hears_of_it_by_wolf_raft() {
    if is_foreign_server() {
        return;
    }
    let mut cluster = Cluster::start_with(Plan::of(3).with(&["--peer-transport=wolf"])).await;
    let leader = cluster.leader().await;
    let gone = cluster.other(leader);
    let id = cluster.id(gone).await;
    // It does not run, so it can learn of its removal only from others, later.
    cluster.members[gone].kill();
    let api = cluster.api(leader);
    let api = &api;
    eventually("a member to be removed", READY_TIMEOUT, || async move { api.member_remove(id).await.ok() })
        .await;
    cluster.members[gone].start();
    assert_eq!(cluster.members[gone].ended().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn wolf_27_members_with_different_transports_are_one_cluster() {
    if is_foreign_server() {
        return;
    }
    let mut cluster = Cluster::prepare(Plan::of(3));
    for member in &mut cluster.members[1..] {
        member.flags.push("--peer-transport=wolf".into());
    }
    cluster.start_all();
    cluster.wait_ready().await;
    for _ in 0..3 {
        write(&cluster, &[0, 1, 2], 30).await;
        let leader = cluster.leader().await;
        cluster.members[leader].kill();
        cluster.leader().await;
        cluster.members[leader].start();
        cluster.serves(leader).await;
    }
    cluster.same_hash(&[0, 1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wolf_1_members_wait_for_bootstrap() {
    if is_foreign_server() {
        return;
    }
    let flags = ["--peer-transport=wolf", "--wait-for-bootstrap=true", "--wolf-raft-code-base=7000"];
    let mut cluster = Cluster::prepare(Plan::of(3).with(&flags));
    cluster.start_all();
    for index in 0..3 {
        let pristine = eventually("a pristine member", READY_TIMEOUT, || metrics(&cluster, index)).await;
        assert_eq!((&pristine["current_term"], &pristine["last_log_index"]), (&0.into(), &0.into()));
    }
    let mut client = RaftClient::connect(cluster.members[1].peer_url.clone()).await.expect("connect");
    let mut bootstrap = async |number_of_nodes| {
        let request = RaftBootstrapReq { msg_id: "b".into(), number_of_nodes };
        client.bootstrap(request).await.expect("an answer").into_inner().response.expect("a response")
    };
    let refused = bootstrap(4).await;
    assert!(matches!(refused, raft_bootstrap_res::Response::ErrorRes(error) if error.code == 7001));
    assert!(matches!(bootstrap(3).await, raft_bootstrap_res::Response::OkRes(ok) if ok.msg_id == "b"));
    cluster.wait_ready().await;
    write(&cluster, &[0, 1, 2], 10).await;
    cluster.same_hash(&[0, 1, 2]).await;
    let mut client = RaftClient::connect(cluster.members[0].peer_url.clone()).await.expect("connect");
    let again = RaftBootstrapReq { msg_id: "c".into(), number_of_nodes: 3 };
    let again = client.bootstrap(again).await.expect("an answer").into_inner().response;
    let Some(raft_bootstrap_res::Response::ErrorRes(error)) = again else { panic!("{again:?}") };
    assert!(error.msg.contains("NotAllowed") && error.msg_id == "c", "{error:?}");
}
