//! Leases in a cluster: the leader's clock counts, every member answers.

use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::{Cluster, READY_TIMEOUT, eventually};

/// L-5, L-6: a follower renews leases and tells what is left; a renewed lease outlives its TTL, then it expires on all.
#[tokio::test(flavor = "multi_thread")]
async fn l_5_l_6_leases_by_way_of_a_follower() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.other(leader);
    let api = cluster.api(follower);
    let id = api.grant(3).await.expect("grant");
    let put = kvist::pb::etcdserverpb::PutRequest {
        key: b"leased".into(),
        value: b"1".into(),
        lease: id,
        ..Default::default()
    };
    api.kv.clone().put(put).await.expect("put");
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        assert_eq!(api.keep_alive(id).await.expect("keep alive"), 3);
        let left = api.time_to_live(id).await.expect("time to live");
        assert!((1..=3).contains(&left.ttl) && left.granted_ttl == 3, "{left:?}");
        assert_eq!(left.keys, [b"leased"]);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for index in 0..3 {
        let api = cluster.api(index);
        let api = &api;
        eventually("the key to expire", READY_TIMEOUT, || async move {
            api.get("leased", true).await.ok()?.is_none().then_some(())
        })
        .await;
    }
    assert_eq!(api.time_to_live(id).await.expect("time to live").ttl, -1);
    assert_eq!(api.keep_alive(id).await.expect("keep alive"), 0);
}

/// A leader that hands over by request tells the next one what leases have left.
#[tokio::test(flavor = "multi_thread")]
async fn l_9_leases_go_on_after_a_transfer() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let api = cluster.api(leader);
    let id = api.grant(60).await.expect("grant");
    let started = Instant::now();
    eventually("some seconds to pass", READY_TIMEOUT, || async {
        (api.time_to_live(id).await.ok()?.ttl <= 55).then_some(())
    })
    .await;
    let next = cluster.other(leader);
    let target = cluster.id(next).await;
    api.move_leader(target).await.expect("move the leader");
    let api = cluster.api(next);
    let api = &api;
    let ask = || async move { api.time_to_live(id).await.ok() };
    let left = eventually("what is left of the lease", READY_TIMEOUT, ask).await;
    // An election timeout is added, and a second lost by rounding up.
    let passed = started.elapsed().as_secs_f64();
    let expected = 60.0 - passed;
    assert!((expected - 1.0..=expected + 3.0).contains(&(left.ttl as f64)), "{left:?} after {passed} s");
    assert_eq!(api.keep_alive(id).await.expect("keep alive"), 60);
    let renewed = api.time_to_live(id).await.expect("time to live");
    assert!(renewed.ttl >= 58, "{renewed:?}");
}

/// L-9: a new leader gives every lease its full TTL once more; renewals of before are not needed.
#[tokio::test(flavor = "multi_thread")]
async fn l_9_leases_outlive_their_leader() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let id = cluster.api(leader).grant(20).await.expect("grant");
    let put = kvist::pb::etcdserverpb::PutRequest { key: b"leased".into(), lease: id, ..Default::default() };
    cluster.api(leader).kv.clone().put(put).await.expect("put");
    let started = Instant::now();
    tokio::time::sleep(Duration::from_secs(3)).await;
    cluster.members[leader].kill();
    let next = cluster.leader().await;
    let api = cluster.api(next);
    let api = &api;
    let left =
        eventually(
            "what is left of the lease",
            READY_TIMEOUT,
            || async move { api.time_to_live(id).await.ok() },
        )
        .await;
    // Fewer seconds have passed since the new leader took over than since the grant.
    let passed = i64::try_from(started.elapsed().as_secs()).expect("few seconds");
    assert!(left.ttl > 20 - passed, "{left:?} after {passed} s");
    assert_eq!(left.keys, [b"leased"]);
    assert_eq!(api.keep_alive(id).await.expect("keep alive"), 20);
}
