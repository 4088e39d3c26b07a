//! Members come: voters and learners.

use std::time::Duration;

use kvist::pb::etcdserverpb as pb;
use tonic::{Code, Status};

use crate::cluster::{Cluster, READY_TIMEOUT, eventually};
use crate::expect_error;

/// A voter is added, started, and has everything; the list shows it without a name until then.
#[tokio::test(flavor = "multi_thread")]
async fn c_1_a_voter_is_added() {
    let mut cluster = Cluster::start(3).await;
    cluster.api(0).put("key", "1").await.expect("put");
    let (index, id) = cluster.add(1, false).await;
    let members = cluster.api(1).members().await.expect("members");
    let fresh = members.iter().find(|m| m.id == id).expect("the new member");
    assert_eq!((fresh.name.as_str(), fresh.client_ur_ls.len(), fresh.is_learner), ("", 0, false));
    cluster.members[index].start();
    cluster.serves(index).await;
    let api = cluster.api(index);
    assert_eq!(api.value("key").await.as_deref(), Some("1"));
    assert_eq!(cluster.id(index).await, id);
    let (name, url) = (cluster.members[index].name.clone(), cluster.members[index].client_url.clone());
    let (name, url, api) = (&name, &url, &api);
    eventually("the new member's name", READY_TIMEOUT, || async move {
        let members = api.members().await.ok()?;
        members.iter().any(|m| m.id == id && m.name == *name && m.client_ur_ls == [url.clone()]).then_some(())
    })
    .await;
    api.put("key", "2").await.expect("put");
    cluster.same_hash(&[0, 1, 2, 3]).await;
    // It starts again from its own data.
    cluster.members[index].kill();
    cluster.members[index].start();
    cluster.serves(index).await;
    assert_eq!(cluster.api(index).value("key").await.as_deref(), Some("2"));
}

/// C-4, C-8: a learner answers local reads only, and votes once it is promoted.
#[tokio::test(flavor = "multi_thread")]
async fn c_4_c_8_a_learner_is_promoted() {
    let mut cluster = Cluster::start(3).await;
    cluster.api(0).put("key", "1").await.expect("put");
    let (index, id) = cluster.add(0, true).await;
    let by = cluster.api(0);
    let by = &by;
    // Who has just lost sight of a member refuses any change, and says so first.
    let refused = eventually("a refusal of the second learner", READY_TIMEOUT, || async move {
        let refused = by.member_add("http://127.0.0.1:1", true).await;
        let is_unhealthy = |status: &Status| status.message() == "etcdserver: unhealthy cluster";
        (!refused.as_ref().is_err_and(is_unhealthy)).then_some(refused)
    })
    .await;
    expect_error(refused, Code::FailedPrecondition, "etcdserver: too many learner members in cluster");
    let refused = cluster.api(0).member_promote(id).await;
    let behind = "etcdserver: can only promote a learner member which is in sync with leader";
    expect_error(refused, Code::FailedPrecondition, behind);
    cluster.members[index].start();
    let api = cluster.api(index);
    {
        let api = &api;
        eventually("the learner to have the key", READY_TIMEOUT, || async move {
            api.get("key", true).await.ok().flatten()
        })
        .await;
    }
    assert!(api.status().await.expect("status").is_learner);
    let unsupported = "etcdserver: rpc not supported for learner";
    expect_error(api.put("key", "2").await, Code::FailedPrecondition, unsupported);
    expect_error(api.get("key", false).await, Code::FailedPrecondition, unsupported);
    let by = cluster.api(1);
    let by = &by;
    eventually(
        "the learner to be promoted",
        READY_TIMEOUT,
        || async move { by.member_promote(id).await.ok() },
    )
    .await;
    let refused = by.member_promote(id).await;
    expect_error(refused, Code::FailedPrecondition, "etcdserver: can only promote a learner member");
    cluster.serves(index).await;
    api.put("key", "2").await.expect("put by the new voter");
    assert!(!api.status().await.expect("status").is_learner);
    // It votes: with one of the old members gone, three of four remain.
    cluster.members[0].kill();
    cluster.leader().await;
    api.put("key", "3").await.expect("put without one of the old");
}

/// A cluster of one grows to three.
#[tokio::test(flavor = "multi_thread")]
async fn one_member_grows_to_three() {
    let mut cluster = Cluster::start(1).await;
    cluster.api(0).put("key", "1").await.expect("put");
    for expected in 1..=2 {
        let (index, _) = cluster.add(0, false).await;
        assert_eq!(index, expected);
        cluster.members[index].start();
        cluster.serves(index).await;
    }
    cluster.leader().await;
    assert_eq!(cluster.api(2).value("key").await.as_deref(), Some("1"));
    cluster.members[0].kill();
    cluster.leader().await;
    cluster.api(1).put("key", "2").await.expect("put without the first");
    assert_eq!(cluster.api(2).value("key").await.as_deref(), Some("2"));
}

/// C-7: a member moves to another peer URL.
#[tokio::test(flavor = "multi_thread")]
async fn c_7_a_member_moves() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let index = cluster.other(leader);
    let id = cluster.id(index).await;
    let url = format!("http://127.0.0.1:{}", crate::support::free_port());
    cluster.members[index].terminate();
    let request = pb::MemberUpdateRequest { id, peer_ur_ls: vec![url.clone()] };
    cluster.api(leader).cluster.clone().member_update(request).await.expect("member update");
    let old = std::mem::replace(&mut cluster.members[index].peer_url, url.clone());
    for flag in &mut cluster.members[index].flags {
        *flag = flag.replace(&old, &url);
    }
    cluster.api(leader).put("key", "1").await.expect("put");
    cluster.members[index].start();
    cluster.serves(index).await;
    assert_eq!(cluster.id(index).await, id);
    assert_eq!(cluster.api(index).value("key").await.as_deref(), Some("1"));
    // The others reach it there: it counts for the quorum.
    let third = (0..3).find(|&i| i != leader && i != index).expect("a third member");
    cluster.members[third].kill();
    tokio::time::timeout(Duration::from_secs(10), cluster.api(leader).put("key", "2"))
        .await
        .expect("an answer")
        .expect("put with the moved member");
}
