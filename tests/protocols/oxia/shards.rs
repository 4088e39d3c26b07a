//! Shards and their assignments, on one member.

use std::time::Duration;

use kvist::pb::oxia as pb;
use pb::BatchRequest;
use tonic::Code;

use super::client::{
    Client, delete, delete_range, found, get, get_error, get_range, is_not_found, keys, next_assignments,
    only, put, refuses, stat,
};
use crate::support::Server;

/// Hashes of keys that Oxia's own clients are tested with, and the half of the hashes that each is in.
const FOO_BELOW: &str = "foo";
const BAR_ABOVE: &str = "bar";
/// The shard of the upper half, of two.
const ABOVE: u32 = 0x8000_0000;

async fn of_two_shards() -> Client {
    Client::of(Server::start_with(&["--oxia-shards=2"])).await
}

#[tokio::test]
async fn a3_shard_assignments_come_at_once_and_in_full() {
    let server = Server::start();
    let client = Client::connect(&server.url()).await;
    let mut stream = client.assignments().await.expect("a stream");
    let assignment = only(next_assignments(&mut stream).await);
    assert_eq!(assignment.shard_id, 0);
    assert_eq!(assignment.leader, server.endpoint());
    // A second stream does not take the first one's place, nor does it hear of changes that are none.
    let mut other = client.assignments().await.expect("a stream");
    assert_eq!(only(next_assignments(&mut other).await), assignment);
    let unasked = tokio::time::timeout(Duration::from_millis(500), stream.message()).await;
    assert!(unasked.is_err(), "nothing has changed: {unasked:?}");
}

/// The highest hash has no exclusive bound: the last shard says one less, and holds it all the same.
#[tokio::test]
async fn a3_exclusive_max_of_the_last_shard_leaves_one_hash_unsaid() {
    let client = Client::shared().await;
    let assignment = only(next_assignments(&mut client.assignments().await.expect("a stream")).await);
    assert_eq!((assignment.min_hash_inclusive, assignment.max_hash_exclusive), (0, u32::MAX));
    let two = of_two_shards().await;
    let both = next_assignments(&mut two.assignments().await.expect("a stream")).await;
    let bounds: Vec<_> =
        both.iter().map(|a| (a.shard_id, a.min_hash_inclusive, a.max_hash_exclusive)).collect();
    assert_eq!(bounds, [(0, 0, ABOVE), (ABOVE, ABOVE, u32::MAX)]);
    assert_eq!(both[0].leader, both[1].leader);
}

#[tokio::test]
async fn a3_shard_assignments_end_with_the_server() {
    let mut server = Server::start();
    let client = Client::connect(&server.url()).await;
    let mut stream = client.assignments().await.expect("a stream");
    next_assignments(&mut stream).await;
    let stopped = tokio::task::spawn_blocking(move || server.terminate());
    let end = tokio::time::timeout(super::client::PATIENCE, stream.message()).await.expect("an end in time");
    assert_eq!(end.expect("an end without an error"), None);
    stopped.await.expect("the server stops");
}

#[tokio::test]
async fn a3_shard_id_absent_is_every_key() {
    let client = of_two_shards().await;
    let puts = vec![put(FOO_BELOW, "x"), put(BAR_ABOVE, "x")];
    let gets = vec![get(FOO_BELOW), get(BAR_ABOVE)];
    let get_ranges = vec![get_range("", "", false)];
    let answer = client.batch(BatchRequest { puts, gets, get_ranges, ..Default::default() }).await;
    assert!(answer.puts.iter().all(|put| stat(put).version == 0));
    assert!(answer.gets.iter().all(|get| found(get).version == 0));
    assert_eq!(keys(&answer.get_ranges[0].gets), [BAR_ABOVE, FOO_BELOW]);
    assert_eq!(client.delete_range("", "").await, [BAR_ABOVE, FOO_BELOW]);
}

#[tokio::test]
async fn a3_shard_id_of_one_shard_takes_every_key() {
    let client = Client::shared().await;
    let puts = vec![put("shard-0/foo", "x"), put("shard-0/bar", "x")];
    client.batch(BatchRequest { shard_id: Some(0), puts, ..Default::default() }).await;
    assert_eq!(keys(&client.list("shard-0/", "shard-00").await), ["shard-0/bar", "shard-0/foo"]);
}

#[tokio::test]
async fn a3_shard_id_and_key_must_fit() {
    let client = of_two_shards().await;
    let wrong = [
        (BatchRequest { puts: vec![put(FOO_BELOW, "x")], ..Default::default() }, "put"),
        (BatchRequest { deletes: vec![delete(FOO_BELOW)], ..Default::default() }, "delete"),
        (BatchRequest { gets: vec![get(FOO_BELOW)], ..Default::default() }, "get"),
    ];
    for (mut request, kind) in wrong {
        request.shard_id = Some(ABOVE);
        request.puts.insert(0, put(BAR_ABOVE, "x"));
        let at = usize::from(kind == "put");
        let text = format!("the key of {kind} {at} is of another shard than {ABOVE}");
        refuses(client.try_batch(request).await, Code::InvalidArgument, &text);
    }
    is_not_found(get_error(&client.get(BAR_ABOVE).await));
    // Ids are hashes, not positions.
    let request = BatchRequest { shard_id: Some(1), ..Default::default() };
    refuses(client.try_batch(request).await, Code::InvalidArgument, "there is no shard 1");
}

/// What clients send to all shards: each answers for its own keys, and all together for all of them.
#[tokio::test]
async fn a3_ranges_over_shards_are_disjoint_and_complete() {
    let client = Client::of(Server::start_with(&["--oxia-shards=5"])).await;
    let shards = next_assignments(&mut client.assignments().await.expect("a stream")).await;
    assert_eq!(shards.len(), 5);
    let names: Vec<String> = (0..200).map(|n| format!("k/{n:03}")).collect();
    let puts = names.iter().map(|name| put(name, "x")).collect();
    client.batch(BatchRequest { puts, ..Default::default() }).await;
    let of =
        |shard: &pb::ShardAssignment| BatchRequest { shard_id: Some(shard.shard_id), ..Default::default() };
    let mut seen = Vec::new();
    for shard in &shards {
        let get_ranges = vec![get_range("k/", "k0", false)];
        let answer = client.batch(BatchRequest { get_ranges, ..of(shard) }).await;
        let gets = only(answer.get_ranges).gets;
        assert!(!gets.is_empty() && gets.is_sorted_by_key(|get| get.key.clone()));
        seen.extend(gets.into_iter().map(|get| get.key));
    }
    seen.sort();
    assert_eq!(seen, names);
    let mut deleted = Vec::new();
    for (n, shard) in shards.iter().enumerate() {
        let request = BatchRequest {
            delete_ranges: vec![delete_range("k/", "k/150")],
            get_ranges: vec![get_range("", "", false)],
            ..of(shard)
        };
        let answer = client.batch(request).await;
        assert!(answer.get_ranges[0].gets.iter().all(|get| *get.key >= *"k/150"), "shard {n}");
        deleted.extend(only(answer.delete_ranges).deletes.into_iter().map(|delete| delete.key));
    }
    deleted.sort();
    assert_eq!(deleted, names[..150]);
    assert_eq!(client.list("", "").await.len(), 50);
}
