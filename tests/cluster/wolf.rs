//! Members that call each other by `wolf.raft` (docs/wolf-raft.md). etcd knows nothing of it.

use kvist::pb::wolf::raft_client::RaftClient;
use kvist::pb::wolf::*;

use crate::cluster::{Cluster, Plan, READY_TIMEOUT, eventually};
use crate::support::is_foreign_server;

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
