//! MVCC ground rules seen from outside: contract 1.2, rows M-1 to M-8.

use kvist::pb::etcdserverpb as pb;
use tonic::Code;

use crate::client::{
    EMPTY_KEY, ToOp, compare, delete, delete_range, expect_error, get, keys, numbers, own, prefix, put,
    range, revision, shared, txn,
};
use crate::watch_client::{Clients, text, watch_range};
use pb::compare::{CompareResult, TargetUnion};

/// M-1, M-5, trap 1: an empty store is at 1; each effective write transaction adds exactly 1, whatever it holds.
#[tokio::test]
async fn m_1_and_m_5_revisions_from_an_empty_store() {
    let c = own(&[]).await;
    assert_eq!(c.revision().await, 1, "an empty store");
    assert_eq!(revision(&c.delete(delete("a")).await.header), 1, "a delete of nothing");
    assert_eq!(
        revision(&c.txn(txn([], [delete("a").op(), delete_range("a", "z").op()], [])).await.header),
        1
    );
    assert_eq!(revision(&c.txn(txn([], [get("a").op()], [])).await.header), 1, "a read transaction");
    let lease = c.grant().await;
    assert_eq!(revision(&c.revoke(lease).await.header), 1, "a lease without keys");
    assert_eq!(c.put("a", "1").await, 2, "the first write");
    let three = txn([], [put("b", "").op(), put("c", "").op(), delete("a").op()], []);
    assert_eq!(revision(&c.txn(three).await.header), 3, "one transaction, one revision");
    assert_eq!(
        revision(&c.delete(delete_range("b", "d")).await.header),
        4,
        "one delete of two keys, one revision"
    );
    assert_eq!(c.revision().await, 4);
    let lease = c.grant().await;
    assert_eq!(c.revision().await, 4, "a grant changes no key");
    let leased = pb::PutRequest { lease, ..put("a", "") };
    c.try_put(leased).await.expect("put with a lease");
    assert_eq!(revision(&c.revoke(lease).await.header), 6, "a lease with a key");
}

/// M-2: the changes of one transaction come in execution order at one revision; a revoke deletes in byte order.
#[tokio::test]
async fn m_2_order_inside_a_revision() {
    let c = shared().await;
    let watch = Clients::connect(c.server()).await;
    let mut stream = watch.watch_stream();
    stream.create(watch_range("m2/", "m20")).await;
    c.txn(txn([], [put("m2/z", "1").op(), put("m2/a", "2").op(), put("m2/m", "3").op()], [])).await;
    let events = stream.events(3).await;
    let order: Vec<String> = events.iter().map(|e| text(&e.kv.as_ref().expect("kv").key)).collect();
    assert_eq!(order, ["m2/z", "m2/a", "m2/m"]);

    let lease = c.grant().await;
    for key in ["m2/y", "m2/\u{1}", "m2/b"] {
        c.try_put(pb::PutRequest { lease, ..put(key, "") }).await.expect("put with a lease");
    }
    stream.events(3).await;
    let revoked = revision(&c.revoke(lease).await.header);
    let events = stream.events(3).await;
    let order: Vec<String> = events.iter().map(|e| text(&e.kv.as_ref().expect("kv").key)).collect();
    assert_eq!(order, ["m2/\u{1}", "m2/b", "m2/y"]);
    assert!(events.iter().all(|e| e.kv.as_ref().expect("kv").mod_revision == revoked));
}

/// M-3, M-4: versions count within a generation, identical values count too, a delete starts anew.
#[tokio::test]
async fn m_3_and_m_4_generations() {
    let c = shared().await;
    let r1 = c.put("m3", "same").await;
    let r2 = c.put("m3", "same").await;
    assert!(r2 > r1, "an identical value is a write");
    assert_eq!(numbers(&c.get("m3").await.expect("kv")), (r1, r2, 2, 0));
    let r3 = c.put("m3", "other").await;
    assert_eq!(numbers(&c.get("m3").await.expect("kv")), (r1, r3, 3, 0));
    c.delete(delete("m3")).await;
    assert_eq!(c.get("m3").await, None);
    let r5 = c.put("m3", "").await;
    assert_eq!(numbers(&c.get("m3").await.expect("kv")), (r5, r5, 1, 0), "a new generation");
    let old = c.range(pb::RangeRequest { revision: r3, ..get("m3") }).await;
    assert_eq!(numbers(&old.kvs[0]), (r1, r3, 3, 0), "the old generation stays readable");
}

/// M-3: put, delete and put of a key inside one transaction are refused, but over nested ones generations work.
#[tokio::test]
async fn m_3_delete_and_put_in_one_nested_transaction() {
    let c = own(&[]).await;
    c.put("m3n", "old").await;
    // [Q] KV-T4: a sibling that deletes after a sibling that puts is not seen as a duplicate.
    let r = txn([], [txn([], [put("m3n", "new").op()], []).op(), txn([], [delete("m3n").op()], []).op()], []);
    let r = revision(&c.txn(r).await.header);
    assert_eq!(c.get("m3n").await, None);
    assert_eq!(c.put("m3n", "").await, r + 1);
    assert_eq!(c.get("m3n").await.expect("kv").version, 1);
}

/// M-6: a put moves the key to its lease, a put without one detaches, a delete detaches.
#[tokio::test]
async fn m_6_lease_attachment() {
    let c = shared().await;
    let (first, second) = (c.grant().await, c.grant().await);
    let leased = |lease| pb::PutRequest { lease, ..put("m6", "") };
    c.try_put(leased(first)).await.expect("put");
    assert_eq!((c.attached(first).await, c.attached(second).await), (vec!["m6".to_owned()], vec![]));
    c.try_put(leased(second)).await.expect("put");
    assert_eq!((c.attached(first).await, c.attached(second).await), (vec![], vec!["m6".to_owned()]));
    c.revoke(first).await;
    assert_eq!(c.get("m6").await.expect("the key survives its old lease").lease, second);
    c.put("m6", "").await;
    assert_eq!(c.attached(second).await, Vec::<String>::new());
    assert_eq!(c.get("m6").await.expect("kv").lease, 0);
    c.try_put(leased(second)).await.expect("put");
    c.delete(delete("m6")).await;
    assert_eq!(c.attached(second).await, Vec::<String>::new());
    c.put("m6", "").await;
    c.revoke(second).await;
    assert!(c.get("m6").await.is_some(), "the new key has nothing to do with the lease");
}

/// M-7: an empty key is refused everywhere; any other bytes are keys, in unsigned byte order.
#[tokio::test]
async fn m_7_keys_are_bytes() {
    let c = shared().await;
    expect_error(c.try_range(range("", "z")).await, Code::InvalidArgument, EMPTY_KEY);
    expect_error(c.try_put(put("", "v")).await, Code::InvalidArgument, EMPTY_KEY);
    expect_error(c.try_delete(delete_range("", [0])).await, Code::InvalidArgument, EMPTY_KEY);

    let tails: [&[u8]; 12] = [
        b"",
        &[0],
        &[0, 0],
        &[0, 0, 0xff],
        &[0, 0xff],
        &[1],
        b"a",
        &[0x7f],
        &[0x80],
        &[0xff],
        &[0xff, 0],
        &[0xff, 0xff],
    ];
    let sorted: Vec<Vec<u8>> = tails.iter().map(|t| [b"m7/".as_slice(), t].concat()).collect();
    for key in sorted.iter().rev() {
        c.put(key.clone(), key.clone()).await;
    }
    let all = c.range(prefix("m7/")).await;
    assert_eq!(all.kvs.iter().map(|kv| kv.key.clone()).collect::<Vec<_>>(), sorted);
    assert!(all.kvs.iter().all(|kv| kv.key == kv.value));
    for (from, key) in sorted.iter().enumerate() {
        assert_eq!(c.range(get(key.clone())).await.kvs.len(), 1, "{key:?} alone");
        for (to, end) in sorted.iter().enumerate().skip(from + 1) {
            let found = c.range(range(key.clone(), end.clone())).await;
            assert_eq!(found.count, i64::try_from(to - from).expect("small"), "{key:?}..{end:?}");
            assert_eq!(found.kvs[0].key, *key);
        }
    }
    let removed = c.delete(delete_range(sorted[2].clone(), sorted[9].clone())).await.deleted;
    assert_eq!(removed, 7);
    assert_eq!(c.range(prefix("m7/")).await.count, 5);
}

/// M-8, trap 19: what `range_end` means to Range, DeleteRange and Compare alike.
#[tokio::test]
async fn m_8_range_end() {
    let c = own(&[]).await;
    let all: [&[u8]; 6] = [&[0], &[0, 1], b"a", b"b", &[0xff], &[0xff, 0xff]];
    for key in all {
        c.put(key, "").await;
    }
    // (key, range_end, indexes of the keys inside)
    let cases: [(&[u8], &[u8], std::ops::Range<usize>); 14] = [
        (b"a", b"", 2..3),
        (b"a", &[0], 2..6),
        (b"aa", &[0], 3..6),
        (&[0], &[0], 0..6),
        (&[0, 0], &[0], 1..6),
        (&[0xff, 0xff, 0xff], &[0], 6..6),
        (b"a", b"b", 2..3),
        (b"a", b"c", 2..4),
        (b"a", b"a", 0..0),
        (b"b", b"a", 0..0),
        (b"a", &[0, 0], 0..0),
        (&[0], &[0, 0], 0..1),
        (&[0], &[0, 1], 0..1),
        (&[0xff], &[0xff, 0xff], 4..5),
    ];
    for (key, end, inside) in cases {
        let found = c.range(range(key, end)).await;
        let expected: Vec<&[u8]> = all[inside.clone()].to_vec();
        assert_eq!(
            found.kvs.iter().map(|kv| kv.key.as_slice()).collect::<Vec<_>>(),
            expected,
            "{key:?}..{end:?}"
        );
        assert_eq!(found.count, i64::try_from(inside.len()).expect("small"));
        // An empty range behaves like one missing key: create revision 0.
        let exists = compare(key, CompareResult::Greater, TargetUnion::CreateRevision(0));
        let exists = pb::Compare { range_end: end.to_vec(), ..exists };
        assert_eq!(c.holds(exists).await, !inside.is_empty(), "compare {key:?}..{end:?}");
    }
    assert_eq!(c.delete(delete_range("b", "a")).await.deleted, 0);
    assert_eq!(c.delete(delete_range("b", "b")).await.deleted, 0);
    assert_eq!(c.delete(delete_range(b"b".as_slice(), [0])).await.deleted, 3, "from b on");
    assert_eq!(keys(&c.range(range([0], [0])).await.kvs), ["\0", "\0\u{1}", "a"]);
    assert_eq!(c.delete(delete_range([0], [0])).await.deleted, 3, "everything");
    assert_eq!(c.range(range([0], [0])).await.count, 0);
}
