//! Keys that go by themselves.

use super::client::{Session, delete, insert, refused, shared, swap};
use crate::cluster::eventually;
use kvist::pb::d_engine::client::WatchEventType;
use kvist::pb::etcdserverpb::{LeaseLeasesRequest, PutRequest};
use std::time::{Duration, Instant};
use tonic::Code;

/// The lease of a key, as etcd's API shows it.
async fn lease(client: &Session, key: &str) -> i64 {
    client.etcd.get(key, false).await.expect("range").expect("the key").lease
}

async fn is_lease(client: &Session, id: i64) -> bool {
    let leases = client.etcd.lease.clone().lease_leases(LeaseLeasesRequest {}).await.expect("leases");
    leases.into_inner().leases.iter().any(|lease| lease.id == id)
}

#[tokio::test]
async fn a_key_goes_when_its_ttl_is_over_with_one_delete() {
    let client = shared();
    let mut watch = client.watch_prefix("/ttl/one/").await;
    let begin = Instant::now();
    assert!(client.write(insert("/ttl/one/a", "1", 1)).await);
    assert_eq!(client.get("/ttl/one/a").await.as_deref(), Some("1"));
    watch.expect_put("/ttl/one/a", "1").await;
    watch.expect_delete("/ttl/one/a").await;
    let took = begin.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(4), "{took:?}");
    assert_eq!(client.get("/ttl/one/a").await, None);
    client.put("/ttl/one/b", "2").await;
    watch.expect_put("/ttl/one/b", "2").await;
}

#[tokio::test]
async fn an_overwrite_replaces_the_ttl_or_drops_it() {
    let client = shared();
    assert!(client.write(insert("/ttl/over", "1", 600)).await);
    let first = lease(&client, "/ttl/over").await;
    assert!(first != 0 && is_lease(&client, first).await);
    assert!(client.write(insert("/ttl/over", "2", 700)).await);
    let second = lease(&client, "/ttl/over").await;
    assert!(second != first && second != 0);
    assert!(!is_lease(&client, first).await, "a lease goes with its last key");
    assert_eq!(client.etcd.time_to_live(second).await.expect("time to live").granted_ttl, 700);
    client.put("/ttl/over", "3").await;
    assert_eq!(lease(&client, "/ttl/over").await, 0);
    assert!(!is_lease(&client, second).await);
}

#[tokio::test]
async fn a_swap_and_a_delete_drop_the_ttl() {
    let client = shared();
    assert!(client.write(insert("/ttl/swap", "1", 600)).await);
    let id = lease(&client, "/ttl/swap").await;
    assert!(!client.write(swap("/ttl/swap", Some("x"), "2")).await);
    assert_eq!(lease(&client, "/ttl/swap").await, id, "what does not happen changes nothing");
    assert!(client.write(swap("/ttl/swap", Some("1"), "2")).await);
    assert_eq!(lease(&client, "/ttl/swap").await, 0);
    assert!(client.write(insert("/ttl/swap", "3", 600)).await);
    let id = lease(&client, "/ttl/swap").await;
    assert!(client.write(delete("/ttl/swap")).await);
    assert!(!is_lease(&client, id).await);
}

#[tokio::test]
async fn a_put_of_etcds_api_drops_the_ttl() {
    let client = shared();
    assert!(client.write(insert("/ttl/etcd", "1", 600)).await);
    let id = lease(&client, "/ttl/etcd").await;
    client.etcd.put("/ttl/etcd", "2").await.expect("put");
    assert_eq!(lease(&client, "/ttl/etcd").await, 0);
    assert!(!is_lease(&client, id).await);
    // A lease of etcd's API is dropped in the same way.
    let granted = client.etcd.grant(600).await.expect("grant");
    let put = PutRequest { key: "/ttl/etcd".into(), value: "3".into(), lease: granted, ..Default::default() };
    client.etcd.kv.clone().put(put).await.expect("put");
    client.put("/ttl/etcd", "4").await;
    assert_eq!(lease(&client, "/ttl/etcd").await, 0);
    assert!(is_lease(&client, granted).await, "which does not belong to its keys");
}

/// Whatever the TTL, the server goes on.
#[tokio::test]
async fn ttls_are_as_short_and_as_long_as_can_be() {
    let client = shared();
    let longest = 9_000_000_000;
    assert!(client.write(insert("/ttl/long", "1", longest)).await);
    for too_long in [longest + 1, i64::MAX as u64, u64::MAX] {
        refused(client.try_write(insert("/ttl/long", "2", too_long)).await, Code::InvalidArgument);
    }
    assert_eq!(client.get("/ttl/long").await.as_deref(), Some("1"));
    client.put("/ttl/long", "3").await;
}

#[tokio::test]
async fn a_ttl_of_a_second_is_not_raised_to_what_etcd_grants() {
    let client = shared();
    let mut watch = client.watch("/ttl/short").await;
    assert!(client.write(insert("/ttl/short", "1", 1)).await);
    let id = lease(&client, "/ttl/short").await;
    assert_eq!(client.etcd.time_to_live(id).await.expect("time to live").granted_ttl, 1);
    watch.expect_put("/ttl/short", "1").await;
    assert_eq!(watch.told().await.0, WatchEventType::Delete);
    eventually("the lease to be gone", Duration::from_secs(5), || async {
        (!is_lease(&client, id).await).then_some(())
    })
    .await;
}
