//! The leader goes, and another takes its place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kvist::pb::etcdserverpb as pb;
use tonic::Code;

use crate::cluster::{Api, Cluster, READY_TIMEOUT, eventually};
use crate::expect_error;

/// A killed leader is replaced in a higher term; what it acknowledged is there, and it comes back as a follower.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_replaced() {
    let mut cluster = Cluster::start(3).await;
    for round in 0..3 {
        let leader = cluster.leader().await;
        let api = cluster.api(leader);
        let key = format!("key-{round}");
        api.put(&key, "kept").await.expect("put");
        let term = api.status().await.expect("status").raft_term;
        cluster.members[leader].kill();
        let next = cluster.leader().await;
        assert_ne!(next, leader);
        let api = cluster.api(next);
        assert!(api.status().await.expect("status").raft_term > term);
        assert_eq!(api.value(&key).await.as_deref(), Some("kept"));
        api.put("later", &round.to_string()).await.expect("put");
        cluster.members[leader].start();
        cluster.serves(leader).await;
        let later = cluster.api(leader).value("later").await;
        assert_eq!(later, Some(round.to_string()));
    }
    cluster.same_hash(&[0, 1, 2]).await;
}

/// A leader that is killed and starts again before anybody misses it leads in a new term, if at all: entries of the old one
/// may have reached followers without having become durable here.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_comes_back_at_once_begins_a_new_term() {
    let mut cluster = Cluster::start(3).await;
    for _ in 0..3 {
        let leader = cluster.leader().await;
        let term = cluster.api(leader).status().await.expect("status").raft_term;
        cluster.members[leader].kill();
        cluster.members[leader].start();
        cluster.serves(leader).await;
        let next = cluster.leader().await;
        assert!(cluster.api(next).status().await.expect("status").raft_term > term);
        cluster.api(next).put("key", "value").await.expect("put");
    }
    cluster.same_hash(&[0, 1, 2]).await;
}

/// A paused leader is replaced, and follows when it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_leader_is_replaced() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.api(leader).put("key", "1").await.expect("put");
    cluster.members[leader].pause();
    let others: Vec<usize> = (0..3).filter(|&i| i != leader).collect();
    let next = cluster.leader_of(&others).await;
    cluster.api(next).put("key", "2").await.expect("put");
    cluster.members[leader].resume();
    // It must not answer from what it knew as leader.
    assert_eq!(
        cluster.api(leader).get("key", false).await.map_or_else(|_| b"2".to_vec(), |p| p.unwrap().value),
        b"2"
    );
    cluster.leader().await;
    assert_eq!(cluster.api(leader).value("key").await.as_deref(), Some("2"));
}

/// All members are killed and start again with what they acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn all_members_are_killed() {
    let mut cluster = Cluster::start(3).await;
    let mut last = 0;
    for round in 0..2 {
        for index in 0..3 {
            let key = format!("key-{round}-{index}");
            last = cluster.api(index).put(&key, "kept").await.expect("put");
        }
        cluster.members.iter_mut().for_each(crate::cluster::Member::kill);
        cluster.start_all();
        cluster.leader().await;
        for index in 0..3 {
            let pair = cluster.api(index).get("key-0-0", false).await.expect("get").expect("a pair");
            assert_eq!(pair.mod_revision, 2);
        }
    }
    assert_eq!(cluster.api(0).put("last", "").await.expect("put"), last + 1);
    cluster.same_hash(&[0, 1, 2]).await;
}

/// One member after the other is restarted in order; a client that tries every member sees no write fail.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_nobody() {
    let mut cluster = Cluster::start(3).await;
    let apis = cluster.apis();
    let is_over = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU64::new(0));
    let (over, count) = (Arc::clone(&is_over), Arc::clone(&written));
    let writer = tokio::spawn(async move {
        let mut member = 0;
        while !over.load(Ordering::SeqCst) {
            let number = count.load(Ordering::SeqCst);
            put_anywhere(&apis, &mut member, "counter", &number.to_string()).await;
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    for index in 0..3 {
        let before = written.load(Ordering::SeqCst);
        cluster.members[index].terminate();
        cluster.members[index].start();
        cluster.leader().await;
        cluster.serves(index).await;
        eventually("writes to go on", READY_TIMEOUT, || async {
            (written.load(Ordering::SeqCst) > before + 10).then_some(())
        })
        .await;
    }
    is_over.store(true, Ordering::SeqCst);
    writer.await.expect("the writer");
    let last = written.load(Ordering::SeqCst) - 1;
    assert_eq!(cluster.api(0).value("counter").await, Some(last.to_string()));
    cluster.same_hash(&[0, 1, 2]).await;
}

/// Puts at some member, going on to the next as long as one cannot.
async fn put_anywhere(apis: &[Api], member: &mut usize, key: &str, value: &str) {
    for _ in 0..200 {
        let tried = tokio::time::timeout(Duration::from_secs(3), apis[*member].put(key, value)).await;
        match tried {
            Ok(Ok(_)) => return,
            Ok(Err(status)) => assert!(
                matches!(
                    status.code(),
                    Code::Unavailable | Code::Cancelled | Code::Unknown | Code::DeadlineExceeded
                ),
                "{status:?}"
            ),
            Err(_) => {}
        }
        *member = (*member + 1) % apis.len();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no member took a write");
}

/// the leader hands over to a follower; who does not lead, and who is nobody, is refused.
#[tokio::test(flavor = "multi_thread")]
async fn x_9_move_leader() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.other(leader);
    let target = cluster.id(follower).await;
    let refused = cluster.api(follower).move_leader(target).await;
    expect_error(refused, Code::FailedPrecondition, "etcdserver: not leader");
    let refused = cluster.api(leader).move_leader(4711).await;
    expect_error(refused, Code::FailedPrecondition, "etcdserver: bad leader transferee");
    cluster.api(leader).put("key", "1").await.expect("put");
    cluster.api(leader).move_leader(target).await.expect("move leader");
    assert_eq!(cluster.leader().await, follower);
    let api = cluster.api(follower);
    api.move_leader(target).await.expect("to itself");
    assert_eq!(api.value("key").await.as_deref(), Some("1"));
    let status = api.status().await.expect("status");
    assert_eq!(status.leader, target);
    let header: pb::ResponseHeader = status.header.expect("a header");
    assert_eq!(header.raft_term, status.raft_term);
}
