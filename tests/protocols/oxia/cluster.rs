//! Three members.

use kvist::pb::oxia as pb;
use pb::BatchRequest;

use super::client::{
    Client, delete, found, get, get_range, is_mismatch, next_assignments, only, put, put_error, put_if, stat,
};
use crate::cluster::Cluster;

async fn clients(cluster: &Cluster) -> Vec<Client> {
    let mut clients = Vec::new();
    for member in &cluster.members {
        clients.push(Client::connect(&member.client_url).await);
    }
    clients
}

fn address(cluster: &Cluster, member: usize) -> String {
    cluster.members[member].client_url.trim_start_matches("http://").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_batch_on_any_member_and_equal_stats_on_all() {
    let mut cluster = Cluster::start(3).await;
    let clients = clients(&cluster).await;
    let leader = cluster.leader().await;
    for (n, client) in clients.iter().enumerate() {
        let answer = client
            .batch(BatchRequest {
                puts: vec![
                    put(format!("k/{n}"), "x"),
                    put("k/shared", &n.to_string()),
                    put_if("k/shared", "", 99),
                ],
                gets: vec![get("k/shared")],
                deletes: vec![delete("k/none")],
                ..Default::default()
            })
            .await;
        assert_eq!(stat(&answer.puts[1]).version, n as u64, "member {n}, leader {leader}");
        is_mismatch(put_error(&answer.puts[2]));
        assert_eq!(found(&answer.gets[0]), stat(&answer.puts[1]));
    }
    let read = || BatchRequest { get_ranges: vec![get_range("", "", true)], ..Default::default() };
    let first = clients[0].batch(read()).await;
    assert_eq!(first.get_ranges[0].gets.len(), 4);
    assert!(first.get_ranges[0].gets.iter().all(|get| found(get).created_timestamp > 0));
    for client in &clients[1..] {
        assert_eq!(client.batch(read()).await, first);
    }
    cluster.same_hash(&[0, 1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_shard_assignments_follow_the_leader_on_every_member() {
    let mut cluster = Cluster::start(3).await;
    let clients = clients(&cluster).await;
    let leader = cluster.leader().await;
    let mut streams = Vec::new();
    for client in &clients {
        let mut stream = client.assignments().await.expect("a stream");
        assert_eq!(only(next_assignments(&mut stream).await).leader, address(&cluster, leader));
        streams.push(stream);
    }
    // By the way of an operator.
    let target = cluster.other(leader);
    let id = cluster.id(target).await;
    cluster.api(leader).move_leader(id).await.expect("the lead moves");
    for stream in &mut streams {
        assert_eq!(only(next_assignments(stream).await).leader, address(&cluster, target));
    }
    // And when the leader is gone, to those that are left.
    cluster.members[target].kill();
    let next = cluster.leader().await;
    assert_ne!(next, target);
    for (n, stream) in streams.iter_mut().enumerate().filter(|(n, _)| *n != target) {
        let list = next_assignments(stream).await;
        assert_eq!(only(list).leader, address(&cluster, next), "told by member {n}");
    }
    // Whoever follows them gets there.
    let client = Client::connect(&format!("http://{}", address(&cluster, next))).await;
    assert_eq!(stat(&client.put(put("after", "x")).await).version, 0);
}

/// What was acknowledged survives the leader, with versions and times.
#[tokio::test(flavor = "multi_thread")]
async fn stats_survive_the_leader() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let client = Client::connect(&cluster.members[leader].client_url).await;
    client.put(put("kept", "1")).await;
    let last = stat(&client.put(put_if("kept", "2", 0)).await);
    cluster.members[leader].kill();
    let next = cluster.leader().await;
    let client = Client::connect(&cluster.members[next].client_url).await;
    let get = client.get("kept").await;
    assert_eq!((found(&get), get.payload.as_deref()), (last, Some(&b"2"[..])));
    let more = stat(&client.put(put_if("kept", "3", 1)).await);
    assert_eq!((more.version, more.created_timestamp), (2, last.created_timestamp));
    assert!(more.modified_timestamp >= last.modified_timestamp);
    cluster.members[leader].start();
    cluster.serves(leader).await;
    let client = Client::connect(&cluster.members[leader].client_url).await;
    assert_eq!(found(&client.get("kept").await), more);
}
