//! Three members: discovery, calls at any of them, reads by the leader's lease, membership, and the leader's death.

use super::client::{Client, insert, swap};
use crate::cluster::{Cluster, Plan, READY_TIMEOUT, eventually};
use kvist::pb::d_engine::client::{MembershipSnapshot, ReadConsistencyPolicy as Policy};
use kvist::pb::d_engine::common::{NodeRole, NodeStatus};
use std::time::Duration;
use tokio::time::timeout;
use tonic::{Code, Streaming};

fn clients(cluster: &Cluster) -> Vec<Client> {
    cluster.members.iter().map(|member| Client::of(&member.client_url)).collect()
}

/// The id by which the protocol knows a member.
async fn id(cluster: &Cluster, index: usize) -> u32 {
    cluster.id(index).await as u32
}

async fn next(snapshots: &mut Streaming<MembershipSnapshot>) -> MembershipSnapshot {
    let message = timeout(READY_TIMEOUT, snapshots.message()).await.expect("a snapshot in time");
    message.expect("no end").expect("a snapshot")
}

#[tokio::test]
async fn every_member_tells_who_leads_and_how_all_are_reached() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let leader_id = id(&cluster, leader).await;
    for client in clients(&cluster) {
        let found = client.metadata().await;
        assert_eq!(found.current_leader_id, Some(leader_id));
        assert_eq!(found.nodes.len(), 3);
        for (index, member) in cluster.members.iter().enumerate() {
            let id = id(&cluster, index).await;
            let node = found.nodes.iter().find(|node| node.id == id).expect("a node for each member");
            assert_eq!(format!("http://{}", node.address), member.client_url);
            let role = if index == leader { NodeRole::Leader } else { NodeRole::Follower };
            assert_eq!((node.role, node.status), (role as i32, NodeStatus::Active as i32));
        }
    }
}

#[tokio::test]
async fn any_member_serves_any_call() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let clients = clients(&cluster);
    let followers: Vec<&Client> =
        clients.iter().enumerate().filter(|(index, _)| *index != leader).map(|(_, client)| client).collect();
    for (n, follower) in followers.iter().enumerate() {
        let key: &'static str = ["/c/a", "/c/b"][n];
        let mut watch = follower.watch_prefix("/c/").await;
        assert!(follower.write(swap(key, None, "1")).await);
        assert!(!follower.write(swap(key, None, "2")).await);
        for client in &clients {
            assert_eq!(client.get(key).await.as_deref(), Some("1"));
            let by_lease = client.get_by(key, Policy::LeaseRead).await.expect("read");
            assert_eq!(by_lease.as_deref(), Some("1"));
            assert!(client.scan("/c/").await.0.contains(&(key.to_owned(), "1".to_owned())));
        }
        watch.expect_put(key, "1").await;
        assert!(follower.write(insert(key, "3", 1)).await);
        watch.expect_put(key, "3").await;
        watch.expect_delete(key).await;
        follower.delete(key).await;
    }
}

/// With both followers at a standstill, nobody can say who leads; within its lease the leader need not ask.
#[tokio::test]
async fn a_read_by_the_lease_asks_nobody() {
    let plan = Plan { heartbeat_ms: 200, ..Plan::of(3) };
    let mut cluster = Cluster::start_with(plan).await;
    let leader = cluster.leader().await;
    let client = Client::of(&cluster.members[leader].client_url);
    client.put("/l/a", "1").await;
    client.get_by("/l/a", Policy::LinearizableRead).await.expect("with all members at work");
    let others: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
    others.iter().for_each(|&index| cluster.members[index].pause());
    let linearizable = tokio::spawn({
        let client = client.clone();
        async move { client.get_by("/l/a", Policy::LinearizableRead).await }
    });
    for _ in 0..20 {
        let read = timeout(Duration::from_secs(1), client.get_by("/l/a", Policy::LeaseRead)).await;
        assert_eq!(read.expect("at once").expect("read").as_deref(), Some("1"));
    }
    assert!(!linearizable.is_finished(), "which needs a majority");
    // The lease ends; what asks nobody at all goes on.
    eventually("the lease to end", READY_TIMEOUT, || async {
        let read = timeout(Duration::from_millis(500), client.get_by("/l/a", Policy::LeaseRead)).await;
        read.is_err().then_some(())
    })
    .await;
    let eventual = client.get_by("/l/a", Policy::EventualConsistency).await.expect("read");
    assert_eq!(eventual.as_deref(), Some("1"));
    others.iter().for_each(|&index| cluster.members[index].resume());
    eventually("reads to be served again", READY_TIMEOUT, || async {
        client.get_by("/l/a", Policy::LeaseRead).await.ok()
    })
    .await;
    drop(linearizable.await.expect("no panic"));
}

#[tokio::test]
async fn without_a_majority_only_local_reads_are_served() {
    let mut cluster = Cluster::start(3).await;
    let client = Client::of(&cluster.members[0].client_url);
    client.put("/c/a", "1").await;
    let mut watch = client.watch("/c/a").await;
    cluster.members[1].kill();
    cluster.members[2].kill();
    eventually("no leader to be named", READY_TIMEOUT, || async {
        client.metadata().await.current_leader_id.is_none().then_some(())
    })
    .await;
    assert_eq!(client.metadata().await.nodes.len(), 3);
    let eventual = client.get_by("/c/a", Policy::EventualConsistency).await.expect("read");
    assert_eq!(eventual.as_deref(), Some("1"));
    let write = client.try_write(insert("/c/a", "2", 0)).await.expect_err("nobody takes it").code();
    assert!([Code::Unavailable, Code::DeadlineExceeded].contains(&write), "{write}");
    let read = client.try_read(&["/c/a"], None).await.expect_err("nobody confirms it").code();
    assert!([Code::Unavailable, Code::DeadlineExceeded].contains(&read), "{read}");
    cluster.members[1].start();
    eventually("a leader to be named", READY_TIMEOUT, || async { client.metadata().await.current_leader_id })
        .await;
    client.put("/c/a", "3").await;
    // Whether the write that failed is done after all, nobody knows.
    while watch.told().await.2 != "3" {}
}

#[tokio::test]
async fn another_leader_is_named_and_watches_go_on() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let old = id(&cluster, leader).await;
    let follower = cluster.other(leader);
    let client = Client::of(&cluster.members[follower].client_url);
    let mut watch = client.watch_prefix("/f/").await;
    client.put("/f/a", "1").await;
    cluster.members[leader].kill();
    let new = eventually("another leader", READY_TIMEOUT, || async {
        client.metadata().await.current_leader_id.filter(|id| *id != old)
    })
    .await;
    assert!(client.metadata().await.nodes.iter().any(|node| node.id == new));
    client.put("/f/b", "2").await;
    watch.expect_put("/f/a", "1").await;
    watch.expect_put("/f/b", "2").await;
}

#[tokio::test]
async fn changes_of_members_are_told_by_all_and_learners_serve() {
    let mut cluster = Cluster::start(3).await;
    let mut ids = Vec::new();
    for index in 0..3 {
        ids.push(id(&cluster, index).await);
    }
    ids.sort_unstable();
    let clients = clients(&cluster);
    let mut streams = Vec::new();
    let mut indexes = Vec::new();
    for client in &clients {
        let mut stream = client.memberships().await;
        let first = next(&mut stream).await;
        let mut members = first.members;
        members.sort_unstable();
        assert_eq!((&members, first.learners.len()), (&ids, 0));
        indexes.push(first.committed_index);
        streams.push(stream);
    }
    let (learner, learner_id) = cluster.add(0, true).await;
    let learner_id = learner_id as u32;
    cluster.members[learner].start();
    for (stream, index) in streams.iter_mut().zip(&mut indexes) {
        let changed = next(stream).await;
        assert!(changed.committed_index > *index);
        assert_eq!((changed.members.len(), changed.learners), (3, vec![learner_id]));
        *index = changed.committed_index;
    }

    let client = Client::of(&cluster.members[learner].client_url);
    eventually("the learner to serve", READY_TIMEOUT, || async {
        client.get_by("/m/a", Policy::EventualConsistency).await.ok()
    })
    .await;
    // It may serve before it knows of itself.
    let mut own = client.memberships().await;
    let mut seen = next(&mut own).await;
    while seen.learners.is_empty() {
        seen = next(&mut own).await;
    }
    assert_eq!((seen.members.len(), seen.learners), (3, vec![learner_id]));
    let mut watch = client.watch("/m/a").await;
    client.put("/m/a", "1").await;
    watch.expect_put("/m/a", "1").await;
    assert_eq!(client.get("/m/a").await.as_deref(), Some("1"));
    let node = eventually("the learner to be in the table", READY_TIMEOUT, || async {
        clients[0].metadata().await.nodes.into_iter().find(|node| node.id == learner_id)
    })
    .await;
    assert_eq!((node.role, node.status), (NodeRole::Learner as i32, NodeStatus::Promotable as i32));

    let api = &cluster.api(0);
    let whole = cluster.id(learner).await;
    eventually("the learner to be promoted", READY_TIMEOUT, || async move {
        api.member_promote(whole).await.ok()
    })
    .await;
    for (stream, index) in streams.iter_mut().zip(&indexes) {
        let changed = next(stream).await;
        assert!(changed.committed_index > *index);
        assert_eq!((changed.members.len(), changed.learners.len()), (4, 0));
        assert!(changed.members.contains(&learner_id));
    }
}
