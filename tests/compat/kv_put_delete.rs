//! KV.Put and KV.DeleteRange: contract 1.5, rows KV-P1 to KV-P8 and KV-D1 to KV-D3.

use kvist::pb::etcdserverpb as pb;
use pb::alarm_request::AlarmAction;
use tonic::Code;

use crate::client::{
    EMPTY_KEY, KEY_NOT_FOUND, LEASE_NOT_FOUND, NO_SPACE, ToOp, delete, delete_range, expect_error, get, keys,
    numbers, own, prefix, put, revision, shared, txn,
};

const VALUE_PROVIDED: &str = "etcdserver: value is provided";
const LEASE_PROVIDED: &str = "etcdserver: lease is provided";

fn keep_value(key: &str) -> pb::PutRequest {
    pb::PutRequest { ignore_value: true, ..put(key, "") }
}

fn keep_lease(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { ignore_lease: true, ..put(key, value) }
}

/// KV-P1, KV-P2, KV-P3: refusals by shape, in the order of the checks.
#[tokio::test]
async fn kv_p1_p2_p3_shape() {
    let c = shared().await;
    expect_error(c.try_put(put("", "v")).await, Code::InvalidArgument, EMPTY_KEY);
    let with_value = pb::PutRequest { ignore_value: true, ..put("p2", "v") };
    expect_error(c.try_put(with_value.clone()).await, Code::InvalidArgument, VALUE_PROVIDED);
    let with_lease = pb::PutRequest { ignore_lease: true, lease: 1, ..put("p3", "v") };
    expect_error(c.try_put(with_lease).await, Code::InvalidArgument, LEASE_PROVIDED);
    let all_wrong = pb::PutRequest { ignore_lease: true, lease: 1, ..with_value };
    expect_error(c.try_put(all_wrong.clone()).await, Code::InvalidArgument, VALUE_PROVIDED);
    let no_key = pb::PutRequest { key: Vec::new(), ..all_wrong };
    expect_error(c.try_put(no_key).await, Code::InvalidArgument, EMPTY_KEY);
}

/// KV-P4: there must be something to keep.
#[tokio::test]
async fn kv_p4_nothing_to_keep() {
    let c = shared().await;
    c.put("p4/gone", "").await;
    c.delete(delete("p4/gone")).await;
    for key in ["p4/never", "p4/gone"] {
        for request in
            [keep_value(key), keep_lease(key, "v"), pb::PutRequest { ignore_lease: true, ..keep_value(key) }]
        {
            expect_error(c.try_put(request).await, Code::InvalidArgument, KEY_NOT_FOUND);
        }
        assert_eq!(c.get(key).await, None);
    }
}

/// KV-P5: an unknown lease, negative ids included; nothing is written.
#[tokio::test]
async fn kv_p5_unknown_lease() {
    let c = shared().await;
    for lease in [4242, -1, i64::MIN, i64::MAX] {
        expect_error(
            c.try_put(pb::PutRequest { lease, ..put("p5", "v") }).await,
            Code::NotFound,
            LEASE_NOT_FOUND,
        );
        assert_eq!(c.get("p5").await, None);
    }
    let lease = c.grant().await;
    c.revoke(lease).await;
    expect_error(
        c.try_put(pb::PutRequest { lease, ..put("p5", "v") }).await,
        Code::NotFound,
        LEASE_NOT_FOUND,
    );
}

/// KV-P6: keeping the value, the lease, or both is a write like any other.
#[tokio::test]
async fn kv_p6_ignore_value_and_lease() {
    let c = shared().await;
    let (first, second) = (c.grant().await, c.grant().await);
    c.try_put(pb::PutRequest { lease: first, ..put("p6", "one") }).await.expect("put");
    let state = async || {
        let kv = c.get("p6").await.expect("kv");
        (String::from_utf8(kv.value).expect("text"), kv.lease, kv.version)
    };
    c.try_put(pb::PutRequest { lease: second, ..keep_value("p6") }).await.expect("new lease, same value");
    assert_eq!(state().await, ("one".into(), second, 2));
    assert_eq!((c.attached(first).await.len(), c.attached(second).await.len()), (0, 1));
    c.try_put(keep_lease("p6", "two")).await.expect("new value, same lease");
    assert_eq!(state().await, ("two".into(), second, 3));
    c.try_put(pb::PutRequest { ignore_lease: true, ..keep_value("p6") }).await.expect("only touch it");
    assert_eq!(state().await, ("two".into(), second, 4));
    assert_eq!(c.attached(second).await, ["p6"]);
    c.try_put(keep_value("p6")).await.expect("same value, no lease");
    assert_eq!(state().await, ("two".into(), 0, 5));
    assert!(c.attached(second).await.is_empty());
    c.try_put(keep_lease("p6", "")).await.expect("an empty value, still no lease");
    assert_eq!(state().await, (String::new(), 0, 6));
}

/// KV-P7: the previous pair in full, or nothing.
#[tokio::test]
async fn kv_p7_prev_kv() {
    let c = shared().await;
    let asking = |value: &str, lease| pb::PutRequest { prev_kv: true, lease, ..put("p7", value) };
    let lease = c.grant().await;
    let first = c.try_put(asking("one", lease)).await.expect("put");
    assert_eq!(first.prev_kv, None, "the key is new");
    let r1 = revision(&first.header);
    let previous = c.try_put(asking("two", 0)).await.expect("put").prev_kv.expect("a previous pair");
    assert_eq!((previous.key.as_slice(), previous.value.as_slice()), (b"p7".as_slice(), b"one".as_slice()));
    assert_eq!(numbers(&previous), (r1, r1, 1, lease));
    assert_eq!(c.try_put(put("p7", "three")).await.expect("put").prev_kv, None, "nobody asked");
    let kept = c.try_put(pb::PutRequest { prev_kv: true, ..keep_value("p7") }).await.expect("put");
    assert_eq!(kept.prev_kv.expect("a previous pair").value, b"three");
    c.delete(delete("p7")).await;
    assert_eq!(c.try_put(asking("", 0)).await.expect("put").prev_kv, None, "the key was deleted");
}

/// KV-P8, KV-D3, KV-T14: over quota, what costs space is refused before it is validated; what frees some works.
#[tokio::test]
async fn kv_p8_d3_t14_quota() {
    let c = own(&["--quota-backend-bytes=1"]).await;
    expect_error(c.try_put(put("", "")).await, Code::ResourceExhausted, NO_SPACE);
    expect_error(c.try_put(put("p8", "")).await, Code::ResourceExhausted, NO_SPACE);
    let putting = |success: Vec<pb::RequestOp>, failure: Vec<pb::RequestOp>| txn([], success, failure);
    let nested = putting(vec![put("p8", "").op()], vec![]).op();
    for request in [
        putting(vec![put("p8", "").op()], vec![]),
        putting(vec![], vec![put("p8", "").op()]),
        putting(vec![get("p8").op()], vec![nested]),
    ] {
        expect_error(c.try_txn(request).await, Code::ResourceExhausted, NO_SPACE);
    }
    let grant = pb::LeaseGrantRequest { ttl: 60, id: 0 };
    expect_error(c.lease.clone().lease_grant(grant).await, Code::ResourceExhausted, NO_SPACE);
    let listing = pb::AlarmRequest { action: AlarmAction::Get as i32, ..Default::default() };
    let me = c.range(get("p8")).await.header.expect("header").member_id;
    crate::watch_client::poll("the NOSPACE alarm", async || {
        let alarms = c.maintenance.clone().alarm(listing).await.expect("alarms").into_inner().alarms;
        alarms == [pb::AlarmMember { member_id: me, alarm: pb::AlarmType::Nospace as i32 }]
    })
    .await;

    assert_eq!(c.delete(delete("p8")).await.deleted, 0);
    assert!(c.txn(txn([], [get("p8").op()], [])).await.succeeded, "a read transaction");
    let free = txn([], [delete("p8").op(), txn([], [get("p8").op()], []).op()], [delete("x").op()]);
    assert!(c.txn(free).await.succeeded, "a transaction of deletes and ranges");
    c.compact(1).await;
    expect_error(c.try_put(put("p8", "")).await, Code::ResourceExhausted, NO_SPACE);
}

/// KV-D1, KV-D2: what a delete answers.
#[tokio::test]
async fn kv_d1_d2_delete_range() {
    let c = own(&[]).await;
    expect_error(c.try_delete(delete("")).await, Code::InvalidArgument, EMPTY_KEY);
    for (i, key) in ["d/c", "d/a", "d/b"].into_iter().enumerate() {
        c.put(key, i.to_string()).await;
    }
    let nothing = c.delete(pb::DeleteRangeRequest { prev_kv: true, ..delete("d/x") }).await;
    assert_eq!((nothing.deleted, nothing.prev_kvs.len(), revision(&nothing.header)), (0, 0, 4));
    let one = c.delete(delete("d/b")).await;
    assert_eq!(
        (one.deleted, one.prev_kvs.len(), revision(&one.header)),
        (1, 0, 5),
        "nobody asked for the pair"
    );
    let rest = c.delete(pb::DeleteRangeRequest { prev_kv: true, ..delete_range("d/", "d0") }).await;
    assert_eq!((rest.deleted, revision(&rest.header)), (2, 6));
    assert_eq!(keys(&rest.prev_kvs), ["d/a", "d/c"], "in key order");
    assert_eq!(rest.prev_kvs.iter().map(numbers).collect::<Vec<_>>(), [(3, 3, 1, 0), (2, 2, 1, 0)]);
    assert_eq!(rest.prev_kvs[1].value, b"0");
    assert_eq!(revision(&c.delete(delete("d/a")).await.header), 6, "already gone");
    assert_eq!(c.range(prefix("d/")).await.count, 0);
}

/// KV-D2: a delete of some thousand keys is one revision and tells them all.
#[tokio::test]
async fn kv_d2_many_keys() {
    let c = shared().await;
    for batch in 0..20 {
        let ops: Vec<_> = (0..100).map(|i| put(format!("many/{:04}", batch * 100 + i), "v").op()).collect();
        c.txn(txn([], ops, [])).await;
    }
    let gone = c.delete(pb::DeleteRangeRequest { prev_kv: true, ..delete_range("many/0500", "many0") }).await;
    assert_eq!((gone.deleted, gone.prev_kvs.len()), (1500, 1500));
    assert!(gone.prev_kvs.is_sorted_by(|a, b| a.key < b.key));
    assert_eq!(c.range(pb::RangeRequest { count_only: true, ..prefix("many/") }).await.count, 500);
    let before =
        pb::RangeRequest { revision: revision(&gone.header) - 1, count_only: true, ..prefix("many/") };
    assert_eq!(c.range(before).await.count, 2000);
}
