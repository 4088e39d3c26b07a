//! What members store: equal digests, snapshots for those that fell behind, and the check for differences.

use kvist::pb::etcdserverpb as pb;

use crate::cluster::{Cluster, Plan, READY_TIMEOUT, eventually};
use crate::metrics::{of_peer, reaches};

/// after writes, deletes and a compaction, history has the same digest on all members at the same revision.
#[tokio::test(flavor = "multi_thread")]
async fn x_7_equal_digests() {
    let cluster = Cluster::start(3).await;
    let apis = cluster.apis();
    let mut last = 0;
    for round in 0..60 {
        let api = &apis[round % 3];
        last = api.put(&format!("key-{}", round % 7), &round.to_string()).await.expect("put");
        if round % 5 == 0 {
            let key = format!("key-{}", (round + 3) % 7).into_bytes();
            let delete = pb::DeleteRangeRequest { key, ..Default::default() };
            api.kv.clone().delete_range(delete).await.expect("delete");
        }
    }
    let before = cluster.same_hash(&[0, 1, 2]).await;
    assert!(before >= last);
    let compact = pb::CompactionRequest { revision: before - 10, physical: true };
    apis[1].kv.clone().compact(compact).await.expect("compact");
    cluster.same_hash(&[0, 1, 2]).await;
    for revision in [before - 10, before - 5, before] {
        let mut found = Vec::new();
        for api in &apis {
            let answer = api.hash_kv(revision).await.expect("hash");
            assert_eq!(answer.hash_revision, revision);
            found.push((answer.hash, answer.compact_revision));
        }
        assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "{found:?} at {revision}");
    }
}

/// A follower that was away for longer than the log is kept gets a snapshot, and serves from it; also after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_far_behind_gets_a_snapshot() {
    let plan = Plan::of(3).with(&["--snapshot-count=50", "--snapshot-catchup-entries=10"]);
    let mut cluster = Cluster::start_with(plan).await;
    let leader = cluster.leader().await;
    let away = cluster.other(leader);
    let api = cluster.api(leader);
    api.put("before", "1").await.expect("put");
    let lease = api.grant(600).await.expect("grant");
    let from = cluster.id(leader).await;
    cluster.members[away].kill();
    for round in 0..300 {
        api.put(&format!("key-{}", round % 50), &round.to_string()).await.expect("put");
    }
    let put = pb::PutRequest { key: b"leased".into(), lease, ..Default::default() };
    api.kv.clone().put(put).await.expect("put");
    // When the log is purged cannot be seen from outside; so the follower is kept away until it needs a snapshot.
    for patience in 1.. {
        tokio::time::sleep(std::time::Duration::from_secs(patience)).await;
        cluster.members[away].start();
        cluster.serves(away).await;
        let count = |name: &str| of_peer(&cluster.members[away], name, "From", from).unwrap_or(0.0);
        let is_idle =
            || async { (count("etcd_network_snapshot_receive_inflights_total") == 0.0).then_some(()) };
        eventually("the end of a snapshot", READY_TIMEOUT, is_idle).await;
        if count("etcd_network_snapshot_receive_success") > 0.0 {
            break;
        }
        assert!(patience < 6, "no snapshot came");
        cluster.members[away].kill();
        for round in 250..300 {
            api.put(&format!("key-{}", round % 50), &round.to_string()).await.expect("put");
        }
    }
    let to = cluster.id(away).await;
    reaches(&cluster.members[leader], "etcd_network_snapshot_send_success", "To", to, 1.0).await;
    for _ in 0..2 {
        let behind = cluster.api(away);
        assert_eq!(behind.value("before").await.as_deref(), Some("1"));
        assert_eq!(behind.value("key-49").await.as_deref(), Some("299"));
        assert_eq!(behind.time_to_live(lease).await.expect("time to live").keys, [b"leased"]);
        cluster.same_hash(&[0, 1, 2]).await;
        behind.put("after", "1").await.expect("put");
        cluster.members[away].kill();
        cluster.members[away].start();
        cluster.serves(away).await;
    }
}

/// members compare digests now and then; as long as they are equal, there is no alarm.
#[tokio::test(flavor = "multi_thread")]
async fn x_11_equal_members_raise_no_alarm() {
    let plan = Plan::of(3).with(&["--corrupt-check-time=500ms"]);
    let cluster = Cluster::start_with(plan).await;
    let apis = cluster.apis();
    for round in 0..100 {
        apis[round % 3].put("key", &round.to_string()).await.expect("put");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let request =
        pb::AlarmRequest { action: pb::alarm_request::AlarmAction::Get as i32, ..Default::default() };
    let answer = apis[0].maintenance.clone().alarm(request).await.expect("alarms").into_inner();
    assert_eq!(answer.alarms, []);
}
