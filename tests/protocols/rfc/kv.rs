//! Puts, deletes, compaction, and the same keys by etcd's API.

use kvist::pb::etcdserverpb as v3;
use kvist::pb::rfc as pb;
use prost::Message;

use super::client::{
    COMPACTED, EMPTY_KEY, FUTURE, bytes, index, numbers, put, range, refused, sound, start, text, watch,
};

#[tokio::test]
async fn case_01_02_03_04_put_and_range() {
    let wire = [0x0a, 3, b'f', b'o', b'o', 0x12, 3, b'b', b'a', b'r'];
    assert_eq!(put("foo", "bar").encode_to_vec(), wire);
    let (_server, client) = start(&[]).await;
    let base = client.index().await;
    let absent = client.range(range("absent", "")).await;
    assert_eq!((sound(&absent.header), absent.kvs.len()), (base, 0));

    let answer = client.try_put("foo", "bar").await.expect("put");
    assert_eq!(sound(&answer.header), base + 1);
    let found = client.range(range("foo", "")).await;
    assert_eq!(sound(&found.header), base + 1);
    assert!(found.consistent_token.is_some_and(|token| !token.is_empty()));
    let [kv] = &found.kvs[..] else { panic!("one pair, not {:?}", found.kvs) };
    assert_eq!((text(&kv.key), text(&kv.value)), ("foo".into(), "bar".into()));
    assert_eq!(numbers(kv, base), (1, 1, 1));

    assert_eq!(client.put("foo", "baz").await, base + 2);
    let kv = client.get("foo").await.expect("the key");
    assert_eq!((numbers(&kv, base), text(&kv.value)), ((1, 2, 2), "baz".into()));
    // A deletion resets the version.
    client.delete("foo", "").await;
    client.put("foo", "").await;
    let kv = client.get("foo").await.expect("the key");
    assert_eq!((numbers(&kv, base), text(&kv.value)), ((4, 4, 1), String::new()));
}

#[tokio::test]
async fn case_10_a_key_must_be_given() {
    let (_server, client) = start(&[]).await;
    let base = client.index().await;
    let answer = client.range(pb::RangeRequest::default()).await;
    assert_eq!(refused(&answer.header, EMPTY_KEY), base);
    assert_eq!((answer.kvs.len(), answer.consistent_token), (0, None));
    for key in [None, bytes("")] {
        let mut rfc = client.rfc.clone();
        let request = pb::PutRequest { key: key.clone(), value: bytes("v") };
        refused(&rfc.put(request).await.expect("an answer").into_inner().header, EMPTY_KEY);
        let request = pb::DeleteRangeRequest { key: key.clone(), range_end: bytes("z") };
        refused(&rfc.delete_range(request).await.expect("an answer").into_inner().header, EMPTY_KEY);
        let request = pb::LeaseAttachRequest { lease_id: Some(1), key };
        refused(&rfc.lease_attach(request).await.expect("an answer").into_inner().header, EMPTY_KEY);
    }
    assert_eq!(client.index().await, base);
}

#[tokio::test]
async fn case_19_20_ranges_are_deleted_at_one_index() {
    let (_server, client) = start(&[]).await;
    let base = client.index().await;
    for key in ["a", "b", "c"] {
        client.put(key, "old").await;
    }
    let mut watches = client.watching(watch("a", "z")).await;
    assert_eq!(sound(&client.delete("absent", "").await.header), base + 3);
    assert_eq!(sound(&client.delete("z", "a").await.header), base + 3, "an inverted range is empty");
    assert_eq!(sound(&client.delete("a", "c").await.header), base + 4);
    assert_eq!(watches.brief(base).await, "+4: delete a=old@+1 v1, delete b=old@+2 v1");
    assert!(client.get("a").await.is_none());
    assert_eq!(client.value("c").await, "old");
    // Everything from a key on.
    assert_eq!(sound(&client.delete("a", "\0").await.header), base + 5);
    assert_eq!(watches.brief(base).await, "+5: delete c=old@+3 v1");
}

#[tokio::test]
async fn case_40_both_apis_see_one_store() {
    let (_server, client) = start(&[]).await;
    let (mut kv, base) = (client.kv.clone(), client.index().await);
    let request = v3::PutRequest { key: "p".into(), value: "by etcd".into(), ..Default::default() };
    let header = kv.put(request).await.expect("put").into_inner().header.expect("a header");
    assert_eq!(header.revision, base + 1);
    let found = client.range(range("p", "")).await;
    let other = found.header.as_ref().expect("a header");
    let ids = (other.cluster_id, other.member_id, other.index, other.raft_term);
    let of_etcd = (header.cluster_id, header.member_id, header.revision, header.raft_term);
    assert_eq!(ids, (Some(of_etcd.0), Some(of_etcd.1), Some(of_etcd.2), Some(of_etcd.3)));
    assert_eq!((numbers(&found.kvs[0], base), text(&found.kvs[0].value)), ((1, 1, 1), "by etcd".into()));

    let written = client.put("q", "by the draft").await;
    let request = v3::RangeRequest { key: "q".into(), ..Default::default() };
    let answer = kv.range(request).await.expect("range").into_inner();
    assert_eq!(answer.header.expect("a header").revision, written);
    assert_eq!((answer.kvs[0].mod_revision, &answer.kvs[0].value[..]), (written, &b"by the draft"[..]));
    let own = client.get("q").await.expect("the key");
    assert_eq!(own.mod_index, Some(answer.kvs[0].mod_revision));
}

#[tokio::test]
async fn case_41_compaction() {
    let (_server, client) = start(&[]).await;
    let base = client.index().await;
    for _ in 0..3 {
        client.put("k", "v").await;
    }
    for absent in [None, Some(0), Some(-1)] {
        let request = pb::CompactionRequest { index: absent };
        let answer = client.rfc.clone().compact(request).await.expect("an answer").into_inner();
        refused(&answer.header, COMPACTED);
    }
    refused(&client.compact(base + 4).await.header, FUTURE);
    assert_eq!(index(&client.compact(base + 2).await.header), base + 3);
    assert_eq!(refused(&client.compact(base + 2).await.header, COMPACTED), base + 3);
    // Of both APIs.
    let request = v3::RangeRequest { key: "k".into(), revision: base + 1, ..Default::default() };
    let status = client.kv.clone().range(request).await.expect_err("compacted");
    assert_eq!(status.message(), COMPACTED);
    assert_eq!(client.value("k").await, "v");
}
