//! Leases in a cluster: the leader's clock counts, every member answers.

use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::{Api, Cluster, READY_TIMEOUT, eventually};
use crate::support::is_foreign_server;

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

/// Waits until so many seconds are left of a lease.
async fn until_left(api: &Api, id: i64, secs: i64) {
    eventually("some seconds to pass", READY_TIMEOUT, || async {
        (api.time_to_live(id).await.ok()?.ttl <= secs).then_some(())
    })
    .await;
}

/// A leader that hands over by request tells the next one what leases have left.
#[tokio::test(flavor = "multi_thread")]
async fn l_9_leases_go_on_after_a_transfer() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let api = cluster.api(leader);
    let id = api.grant(60).await.expect("grant");
    let started = Instant::now();
    until_left(&api, id, 55).await;
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

/// L-9: leases go on after their leader has died, by no more than a second and the time without a leader longer. Followers
/// that were restarted meanwhile know it as well.
#[tokio::test(flavor = "multi_thread")]
async fn l_9_leases_outlive_their_leader() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.other(leader);
    let api = cluster.api(follower);
    let (idle, renewed) = (api.grant(60).await.expect("grant"), api.grant(60).await.expect("grant"));
    let put =
        kvist::pb::etcdserverpb::PutRequest { key: b"leased".into(), lease: renewed, ..Default::default() };
    api.kv.clone().put(put).await.expect("put");
    let granted = Instant::now();
    until_left(&api, idle, 55).await;
    let sent = Instant::now();
    assert_eq!(api.keep_alive(renewed).await.expect("keep alive"), 60);
    let answered = Instant::now();
    for follower in (0..3).filter(|index| *index != leader) {
        cluster.members[follower].kill();
        cluster.members[follower].start();
        cluster.serves(follower).await;
    }
    until_left(&cluster.api(leader), renewed, 55).await;
    cluster.members[leader].kill();
    let killed = Instant::now();
    let next = cluster.leader().await;
    let api = cluster.api(next);
    let api = &api;
    let ask = |id| {
        eventually("what is left", READY_TIMEOUT, move || async move { api.time_to_live(id).await.ok() })
    };
    for (id, from, until) in [(renewed, sent, answered), (idle, granted, granted)] {
        let asked = Instant::now();
        let left = ask(id).await;
        let least = 60.0 - from.elapsed().as_secs_f64();
        let without_leader = asked - killed;
        // A second, and another one for a machine on which members hear of each other late.
        let most = 60.0 - (asked - until).as_secs_f64() + 2.0 + without_leader.as_secs_f64();
        let passed = from.elapsed();
        // Whole seconds are told, those that are begun left out.
        assert!(left.ttl as f64 + 1.0 >= least, "{left:?} after {passed:?}: too short");
        assert!(left.ttl as f64 <= most || is_foreign_server(), "{left:?} after {passed:?}: too long");
    }
    assert_eq!(api.time_to_live(renewed).await.expect("time to live").keys, [b"leased"]);
    assert_eq!(api.keep_alive(renewed).await.expect("keep alive"), 60);
}

/// A leader that was replaced while it stood still does not know of later grants, and must not tell that such a lease is
/// gone.
#[tokio::test(flavor = "multi_thread")]
async fn l_5_a_leader_of_before_does_not_tell_that_a_lease_is_gone() {
    let mut cluster = Cluster::start(3).await;
    for _ in 0..3 {
        let leader = cluster.leader().await;
        let others: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
        let old = cluster.api(leader);
        old.status().await.expect("a connection");
        cluster.members[leader].pause();
        let next = cluster.leader_of(&others).await;
        let id = cluster.api(next).grant(60).await.expect("grant");
        // It is to lie before the old leader when that wakes up; a process that stands still shows nothing to wait for.
        let asked = tokio::spawn(async move { old.keep_alive(id).await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        cluster.members[leader].resume();
        match asked.await.expect("no panic") {
            Ok(ttl) => assert_eq!(ttl, 60),
            Err(refused) => println!("refused: {refused}"),
        }
        cluster.serves(leader).await;
    }
}
