//! What several members make of it.

use kvist::pb::rfc as pb;
use tonic::Code;
use tonic::transport::Endpoint;

use super::client::{Client, range, sound, watch_from};
use crate::cluster::api::PATIENCE;
use crate::cluster::{Cluster, READY_TIMEOUT, eventually};

/// A client of one member; a call without an answer fails in time.
fn client(cluster: &Cluster, index: usize) -> Client {
    let endpoint = Endpoint::from_shared(cluster.members[index].client_url.clone()).expect("a URL");
    Client::over(endpoint.timeout(PATIENCE).connect_lazy())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_44_without_a_quorum_there_is_no_answer() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let clients: Vec<Client> = (0..3).map(|index| client(&cluster, index)).collect();
    let base = clients[0].index().await;

    // Written at one member, read and watched at another; a token is good anywhere.
    let follower = cluster.other(leader);
    let mut watches = clients[leader].watches().await;
    watches.send(watch_from("k", "", base + 1)).await;
    assert_eq!(clients[follower].put("k", "1").await, base + 1);
    assert_eq!(watches.brief(base).await, "+1: put k=1@+1 v1");
    let token = clients[follower].range(range("k", "")).await.consistent_token;
    clients[leader].put("k", "2").await;
    for client in &clients {
        let pinned = pb::RangeRequest { consistent_token: token.clone(), ..range("k", "") };
        let found = client.range(pinned).await;
        assert_eq!((found.kvs[0].mod_index, &found.consistent_token), (Some(base + 1), &token));
        assert_eq!(client.value("k").await, "2");
    }
    // Leases are renewed by way of any member.
    let lease = clients[leader].lease().await;
    let mut renewals = clients[follower].keep_alives().await;
    renewals.send(pb::LeaseKeepAliveRequest { lease_id: Some(lease) }).await;
    let answer = renewals.next().await;
    sound(&answer.header);
    assert_eq!(answer.ttl, Some(600));
    drop((watches, renewals));

    for index in (0..3).filter(|&index| index != follower) {
        cluster.members[index].kill();
    }
    let status = clients[follower].try_put("k", "3").await.expect_err("nobody else is there");
    assert!(matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded), "{status:?}");
    let status = clients[follower].try_range(range("k", "")).await.expect_err("not linearizable");
    assert!(matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded), "{status:?}");
    // What is known here can still be read at its index.
    let pinned = pb::RangeRequest { consistent_token: token, ..range("k", "") };
    assert_eq!(clients[follower].range(pinned).await.kvs[0].mod_index, Some(base + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_refuses_these_calls() {
    let mut cluster = Cluster::start(1).await;
    let (learner, _) = cluster.add(0, true).await;
    cluster.members[learner].start();
    let client = client(&cluster, learner);
    let client = &client;
    eventually("the learner to refuse", READY_TIMEOUT, || async move {
        // It serves before it has learnt from the log that it is one.
        let put = client.try_put("k", "v").await.err()?;
        let read = client.try_range(range("k", "")).await.err()?;
        let is_refusal = |status: &tonic::Status| {
            (status.code(), status.message())
                == (Code::FailedPrecondition, "etcdserver: rpc not supported for learner")
        };
        (is_refusal(&put) && is_refusal(&read)).then_some(())
    })
    .await;
}
