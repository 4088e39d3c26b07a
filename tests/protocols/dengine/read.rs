//! Reads of keys: several at once, and by every policy.

use super::client::{own, pairs, shared};
use kvist::pb::d_engine::client::ReadConsistencyPolicy as Policy;

#[tokio::test]
async fn a_read_of_several_keys_brings_those_that_exist() {
    let client = shared();
    client.put("/r/a", "1").await;
    client.put("/r/b", "2").await;
    let found = client.try_read(&["/r/b", "/r/none", "/r/a", ""], None).await.expect("read");
    assert_eq!(found, pairs(&[("/r/b", "2"), ("/r/a", "1")]));
    // The client puts them at their places by their keys, so each need come once only.
    let found = client.try_read(&["/r/a", "/r/a"], None).await.expect("read");
    assert_eq!(found, pairs(&[("/r/a", "1")]));
    assert_eq!(client.try_read(&[], None).await.expect("an empty read"), []);
    assert_eq!(client.try_read(&[""], None).await.expect("no such key"), []);
}

#[tokio::test]
async fn every_policy_is_served_and_unknown_ones_are_the_default() {
    let client = shared();
    client.put("/r/policy", "1").await;
    for policy in [None, Some(0), Some(1), Some(2), Some(3), Some(-1)] {
        let found = client.try_read(&["/r/policy"], policy).await.expect("read");
        assert_eq!(found, pairs(&[("/r/policy", "1")]), "{policy:?}");
    }
    assert_eq!(client.get_by("/r/policy", Policy::LeaseRead).await.expect("read").as_deref(), Some("1"));
}

#[tokio::test]
async fn many_keys_are_read_at_one_revision() {
    let client = own(&[]);
    let names: Vec<String> = (0..500).map(|n| format!("/r/many/{n}")).collect();
    for name in &names {
        client.put(name.clone(), "0").await;
    }
    let keys: Vec<&str> = names.iter().map(String::as_str).collect();
    // Both keys of a pair always have the same value, since a transaction of etcd's API writes them.
    let writer = {
        let etcd = client.etcd.clone();
        tokio::spawn(async move {
            use kvist::pb::etcdserverpb as pb;
            for n in 0..200 {
                let put = |key: &str| pb::RequestOp {
                    request: Some(pb::request_op::Request::RequestPut(pb::PutRequest {
                        key: key.into(),
                        value: n.to_string().into_bytes(),
                        ..Default::default()
                    })),
                };
                let success = vec![put("/r/many/0"), put("/r/many/499")];
                let txn = pb::TxnRequest { success, ..Default::default() };
                etcd.kv.clone().txn(txn).await.expect("txn");
            }
        })
    };
    while !writer.is_finished() {
        let found = client.try_read(&keys, Some(2)).await.expect("read");
        assert_eq!(found.len(), 500);
        assert_eq!(found[0].1, found[499].1);
    }
    writer.await.expect("all written");
}

/// Long values are moved out of the tree by a flush; reads bring them back.
#[tokio::test]
async fn long_values_are_read_before_and_after_a_flush() {
    let client = own(&[]);
    let value = "v".repeat(50_000);
    client.put("/r/long", value.clone()).await;
    assert_eq!(client.get("/r/long").await.as_deref(), Some(&value[..]));
    let compact = kvist::pb::etcdserverpb::CompactionRequest { revision: 2, physical: true };
    client.etcd.kv.clone().compact(compact).await.expect("a compaction that flushes");
    assert_eq!(client.get("/r/long").await.as_deref(), Some(&value[..]));
    assert_eq!(client.scan("/r/").await.0, pairs(&[("/r/long", &value)]));
}
