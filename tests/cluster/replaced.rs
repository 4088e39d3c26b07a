//! Members go: by removal, or because they are dead.

use tonic::Code;

use crate::cluster::{Cluster, READY_TIMEOUT, eventually};
use crate::expect_error;

/// Removes a member by way of another; a cluster that has just started may refuse for a while.
async fn remove(cluster: &Cluster, by: usize, id: u64) {
    let api = cluster.api(by);
    let api = &api;
    eventually("a member to be removed", READY_TIMEOUT, || async move {
        match api.member_remove(id).await {
            Ok(()) => Some(()),
            // The first answer may have been lost with the leader.
            Err(status) if status.message() == "etcdserver: member not found" => Some(()),
            Err(_) => None,
        }
    })
    .await;
}

/// C-6: a removed follower stops by itself without an error, does not return, and its id is unknown from then on.
#[tokio::test(flavor = "multi_thread")]
async fn c_6_a_follower_is_removed() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let index = cluster.other(leader);
    let id = cluster.id(index).await;
    remove(&cluster, leader, id).await;
    assert_eq!(cluster.members[index].ended().code(), Some(0));
    let members = cluster.api(leader).members().await.expect("members");
    assert!(members.len() == 2 && members.iter().all(|m| m.id != id), "{members:?}");
    let api = cluster.api(leader);
    expect_error(api.member_remove(id).await, Code::NotFound, "etcdserver: member not found");
    expect_error(api.member_promote(id).await, Code::NotFound, "etcdserver: member not found");
    api.put("key", "1").await.expect("put");
    // With its old data it learns that it was removed.
    cluster.members[index].start();
    cluster.members[index].ended();
    cluster.leader().await;
}

/// The leader is removed, by way of a follower or of itself; the others find another.
#[tokio::test(flavor = "multi_thread")]
async fn c_6_the_leader_is_removed() {
    for by_itself in [false, true] {
        let mut cluster = Cluster::start(3).await;
        let leader = cluster.leader().await;
        let other = cluster.other(leader);
        cluster.api(leader).put("key", "1").await.expect("put");
        let id = cluster.id(leader).await;
        if by_itself {
            // The answer may be lost with the member.
            let api = cluster.api(leader);
            let check = cluster.api(other);
            let (api, check) = (&api, &check);
            eventually("the leader to remove itself", READY_TIMEOUT, || async move {
                let answered = api.member_remove(id).await.is_ok();
                let members = check.members().await.ok()?;
                (answered || members.iter().all(|m| m.id != id)).then_some(())
            })
            .await;
        } else {
            remove(&cluster, other, id).await;
        }
        assert_eq!(cluster.members[leader].ended().code(), Some(0));
        let next = cluster.leader().await;
        assert_ne!(next, leader);
        let api = cluster.api(next);
        assert_eq!(api.value("key").await.as_deref(), Some("1"));
        api.put("key", "2").await.expect("put");
        assert_eq!(api.members().await.expect("members").len(), 2);
    }
}

/// A dead member is removed, and a new one takes its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_member_is_replaced() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let dead = cluster.other(leader);
    let id = cluster.id(dead).await;
    cluster.api(leader).put("key", "1").await.expect("put");
    cluster.members[dead].kill();
    remove(&cluster, leader, id).await;
    let (fresh, fresh_id) = cluster.add(leader, false).await;
    assert_ne!(fresh_id, id);
    cluster.members[fresh].start();
    cluster.serves(fresh).await;
    cluster.leader().await;
    cluster.api(fresh).put("key", "2").await.expect("put");
    let running = cluster.running();
    cluster.same_hash(&running).await;
    // The new one carries the quorum with one of the old.
    let third = (0..3).find(|&i| i != leader && i != dead).expect("a third member");
    cluster.members[third].kill();
    cluster.leader().await;
    cluster.api(fresh).put("key", "3").await.expect("put");
}
