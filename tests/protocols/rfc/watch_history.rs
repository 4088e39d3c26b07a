//! Watches of what has happened: all of it, once, in order; what was compacted; the same by etcd's API.

use kvist::pb::etcdserverpb as v3;
use kvist::pb::mvccpb;
use kvist::pb::rfc as pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use v3::watch_request::RequestUnion;

use super::client::{COMPACTED, Client, index, put_op, refused, start, tnx, watch_from};

#[tokio::test]
async fn case_26_what_was_compacted_ends_one_watch() {
    let (_server, client) = start(&[]).await;
    let base = client.index().await;
    for value in ["1", "2", "3"] {
        client.put("k", value).await;
    }
    client.compact(base + 2).await;
    let mut watches = client.watches().await;
    for from in [base + 1, base + 2, 1] {
        watches.send(watch_from("k", "", from)).await;
        let message = watches.next().await;
        assert_eq!(refused(&message.header, COMPACTED), base + 2);
        assert!(message.events.is_empty());
    }
    watches.send(watch_from("k", "", base + 3)).await;
    assert_eq!(watches.brief(base).await, "+3: put k=3@+3 v3");
    client.put("k", "4").await;
    assert_eq!(watches.brief(base).await, "+4: put k=4@+4 v4");
}

/// More than the hub reads of history at once, while writing goes on: every index comes once, whole, and in order.
#[tokio::test]
async fn history_is_told_once_and_in_order() {
    const WRITES: i64 = 2500;
    let (_server, client) = start(&[]).await;
    let base = client.index().await;
    let write = |n: i64| {
        let (client, value) = (client.clone(), n.to_string());
        async move { client.tnx(tnx([], [put_op("a", &value), put_op("b", &value), put_op("x", "")], [])).await }
    };
    for n in 0..WRITES / 2 {
        write(n).await;
    }
    let mut watches = client.watches().await;
    watches.send(watch_from("a", "c", base + 1)).await;
    // Another from the middle, with an end: on a stream of its own, to tell them apart.
    let mut middle = client.watches().await;
    let end_index = Some(base + WRITES - 10);
    middle.send(pb::WatchRangeRequest { end_index, ..watch_from("a", "c", base + 700) }).await;
    middle.half_close();
    for n in WRITES / 2..WRITES {
        write(n).await;
    }
    for n in 1..=WRITES {
        let value = n - 1;
        assert_eq!(
            watches.brief(base).await,
            format!("+{n}: put a={value}@+{n} v{n}, put b={value}@+{n} v{n}")
        );
    }
    for n in 700..WRITES - 10 {
        assert_eq!(index(&middle.next().await.header), base + n);
    }
    middle.expect_end().await;
}

/// The pair before a removal is there whole, be it long and written to the file.
#[tokio::test]
async fn removed_pairs_are_told_as_they_were() {
    let (_server, client) = start(&[]).await;
    let base = client.index().await;
    let long = "v".repeat(100_000);
    client.put("k", &long).await;
    client.delete("k", "").await;
    client.put("k", "").await;
    client.delete("k", "").await;
    let mut watches = client.watches().await;
    watches.send(watch_from("k", "", base + 1)).await;
    assert_eq!(watches.brief(base).await, format!("+1: put k={long}@+1 v1"));
    assert_eq!(watches.brief(base).await, format!("+2: delete k={long}@+1 v1"));
    assert_eq!(watches.brief(base).await, "+3: put k=@+3 v1");
    assert_eq!(watches.brief(base).await, "+4: delete k=@+3 v1");
}

/// Opens the same watch by etcd's API; returns what it tells: `put`, `delete`, each with its revision and the pair before.
pub async fn by_etcd(client: &Client, from: i64, count: usize) -> Vec<String> {
    let (requests, receiver) = mpsc::channel(1);
    let create = v3::WatchCreateRequest {
        key: "a".into(),
        range_end: "z".into(),
        start_revision: from,
        prev_kv: true,
        ..Default::default()
    };
    let request = v3::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    requests.send(request).await.expect("the receiver is here");
    let answers = client.watch.clone().watch(ReceiverStream::new(receiver)).await;
    let mut answers = answers.expect("a watch").into_inner();
    let mut told = Vec::new();
    while told.len() < count {
        let answer = answers.message().await.expect("a healthy stream").expect("more to come");
        for event in &answer.events {
            let kv = event.kv.as_ref().expect("a pair");
            let kind = if event.r#type() == mvccpb::event::EventType::Delete { "delete" } else { "put" };
            let previous = event.prev_kv.as_ref().map_or(0, |kv| kv.mod_revision - from);
            let key = String::from_utf8_lossy(&kv.key);
            told.push(format!("{:+} {kind} {key} {previous:+}", kv.mod_revision - from));
        }
    }
    told
}

/// Both APIs watch the same keys at the same time, and share what the hub finds for them, but not how it is told.
#[tokio::test]
async fn both_apis_watch_the_same_changes() {
    let (_server, client) = start(&[]).await;
    let base = client.index().await;
    let mut watches = client.watching(watch_from("a", "z", base)).await;
    let other = client.clone();
    let etcd = tokio::spawn(async move { by_etcd(&other, base, 4).await });
    client.put("k", "1").await;
    client.put("k", "2").await;
    let lease = client.lease().await;
    client.attach(lease, "k").await;
    client.revoke(lease).await;
    client.put("k", "3").await;
    for expected in ["+1: put k=1@+1 v1", "+2: put k=2@+2 v2", "+3: expire k=2@+2 v2", "+4: put k=3@+4 v1"] {
        assert_eq!(watches.brief(base).await, expected);
    }
    let told = etcd.await.expect("etcd's watch");
    assert_eq!(told, ["+1 put k +0", "+2 put k +1", "+3 delete k +2", "+4 put k +0"]);
}
