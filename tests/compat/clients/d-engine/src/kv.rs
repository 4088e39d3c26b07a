//! Puts, reads by every policy, scans, TTLs, and what is refused.

use std::time::Duration;

use bytes::Bytes;
use d_engine_client::protocol::ReadConsistencyPolicy as Policy;
use d_engine_client::{ClientApi, ErrorCode};

use crate::control::Server;
use crate::help::{builder, code, connect, delete, event, eventually, put};
use crate::suite::Case;

pub const CASES: &[Case] = &[
    crate::case!("kv/put, get and delete", put_get_delete),
    crate::case!("kv/any bytes, and empty values", any_bytes),
    crate::case!("kv/every policy", every_policy),
    crate::case!("kv/several keys at their places", several_keys),
    crate::case!("kv/scan", scan),
    crate::case!("kv/compressed", compressed),
    crate::case!("kv/many clients", many_clients),
    crate::case!("kv/refusals", refusals),
    crate::case!("kv/a full disk", full_disk, ["--quota-backend-bytes=100000"]),
    crate::case!("large/four megabytes", large, ["--max-request-bytes=4194304"]),
    crate::case!("lease/a key goes when its TTL is over", ttl),
    crate::case!("lease/a put without a TTL drops it", ttl_dropped),
    crate::case!("lease/a put with another TTL replaces it", ttl_replaced),
    crate::case!("lease/any TTL leaves the server at work", any_ttl),
];

async fn put_get_delete(server: Server) {
    let client = connect(&server).await;
    assert_eq!(client.get("k").await.expect("get"), None);
    client.put("k", "1").await.expect("put");
    client.put("k", "2").await.expect("put");
    assert_eq!(client.get("k").await.expect("get"), Some("2".into()));
    client.delete("k").await.expect("delete");
    client.delete("k").await.expect("delete of what is not there");
    assert_eq!(client.get("k").await.expect("get"), None);
}

async fn any_bytes(server: Server) {
    let client = connect(&server).await;
    let key: &[u8] = b"\xff\x00\xfe";
    client.put(key, b"\x00\xff").await.expect("put");
    assert_eq!(client.get(key).await.expect("get"), Some(Bytes::from_static(b"\x00\xff")));
    client.put("empty", "").await.expect("put");
    assert_eq!(client.get("empty").await.expect("get"), Some(Bytes::new()));
}

async fn every_policy(server: Server) {
    let client = connect(&server).await;
    client.put("k", "1").await.expect("put");
    let one = Some(Bytes::from("1"));
    assert_eq!(client.get_linearizable("k").await.expect("linearizable"), one);
    assert_eq!(client.get_lease("k").await.expect("lease"), one);
    assert_eq!(client.get_eventual("k").await.expect("eventual"), one);
    let found = client.get_with_policy("k", None).await.expect("default").expect("the key");
    assert_eq!((found.key, found.value), ("k".into(), "1".into()));
}

async fn several_keys(server: Server) {
    let client = connect(&server).await;
    client.put("a", "1").await.expect("put");
    client.put("b", "2").await.expect("put");
    let keys: Vec<Bytes> = ["b", "none", "a", "b"].map(Bytes::from).to_vec();
    let expected = [Some("2"), None, Some("1"), Some("2")].map(|value| value.map(Bytes::from));
    assert_eq!(client.get_multi(&keys).await.expect("get"), expected);
    for policy in [Policy::LinearizableRead, Policy::LeaseRead, Policy::EventualConsistency] {
        let found = client.get_multi_with_policy(&keys, Some(policy)).await.expect("get");
        let values: Vec<Option<Bytes>> = found.into_iter().map(|found| found.map(|kv| kv.value)).collect();
        assert_eq!(values, expected);
    }
    let nothing = client.get_multi(&[]).await.expect_err("no keys");
    assert_eq!(code(&nothing), ErrorCode::InvalidRequest);
}

async fn scan(server: Server) {
    let client = connect(&server).await;
    for (key, value) in [("/s/b", "2"), ("/s/a", "1"), ("/t", "no")] {
        client.put(key, value).await.expect("put");
    }
    let found = client.scan_prefix("/s/").await.expect("scan");
    assert_eq!(found.entries, [("/s/a", "1"), ("/s/b", "2")].map(|(k, v)| (k.into(), v.into())));
    assert!(found.revision > 0);
    assert!(client.scan_prefix("/none/").await.expect("scan").entries.is_empty());
    client.put("/s/c", "3").await.expect("put");
    assert!(client.scan_prefix("/s/").await.expect("scan").revision > found.revision);
}

async fn compressed(server: Server) {
    let client = builder(&[server]).enable_compression(true).build().await.expect("connect");
    let value = "v".repeat(100_000);
    let mut watch = client.watch("k").await.expect("watch");
    client.put("k", &value).await.expect("put");
    assert_eq!(client.get("k").await.expect("get"), Some(value.clone().into()));
    assert_eq!(client.scan_prefix("k").await.expect("scan").entries.len(), 1);
    assert_eq!(event(&mut watch).await, put("k", &value));
    client.watch_membership().await.expect("watch membership");
}

async fn many_clients(server: Server) {
    let mut tasks = Vec::new();
    for n in 0..8 {
        let client = connect(&server).await;
        tasks.push(tokio::spawn(async move {
            for i in 0..50 {
                client.put(format!("/many/{n}/{i}"), i.to_string()).await.expect("put");
                assert!(client.get(format!("/many/{n}/{i}")).await.expect("get").is_some());
            }
        }));
    }
    for task in tasks {
        task.await.expect("a client");
    }
    let client = connect(&server).await;
    assert_eq!(client.scan_prefix("/many/").await.expect("scan").entries.len(), 400);
}

async fn refusals(server: Server) {
    let client = connect(&server).await;
    let empty = client.put("", "v").await.expect_err("an empty key");
    assert_eq!(code(&empty), ErrorCode::InvalidRequest);
    let long = client.put("k", vec![0; 1_600_000]).await.expect_err("a value that is too long");
    assert_eq!(code(&long), ErrorCode::InvalidRequest);
    let ttl = client.put_with_ttl("k", "v", u64::MAX).await.expect_err("a TTL that is too long");
    assert_eq!(code(&ttl), ErrorCode::InvalidRequest);
    assert_eq!(client.get("").await.expect("no such key"), None);
}

async fn full_disk(server: Server) {
    let client = connect(&server).await;
    for n in 0..20 {
        if let Err(error) = client.put(format!("{n}"), vec![0; 20_000]).await {
            assert_eq!(code(&error), ErrorCode::DiskFull);
            return;
        }
    }
    panic!("the quota is not reached");
}

async fn large(server: Server) {
    let client = connect(&server).await;
    let value = Bytes::from(vec![7; 3_900_000]);
    client.put("k", &value).await.expect("put");
    assert_eq!(client.get("k").await.expect("get"), Some(value));
}

async fn ttl(server: Server) {
    let client = connect(&server).await;
    let mut watch = client.watch("k").await.expect("watch");
    client.put_with_ttl("k", "1", 1).await.expect("put");
    assert_eq!(client.get("k").await.expect("get"), Some("1".into()));
    assert_eq!(event(&mut watch).await, put("k", "1"));
    assert_eq!(event(&mut watch).await, delete("k"));
    assert_eq!(client.get("k").await.expect("get"), None);
}

async fn ttl_dropped(server: Server) {
    let client = connect(&server).await;
    client.put_with_ttl("k", "1", 1).await.expect("put");
    client.put_with_ttl("probe", "1", 2).await.expect("put");
    client.put("k", "2").await.expect("put");
    // The other key goes later than this one would have.
    eventually("a key to go", || async { client.get("probe").await.expect("get").is_none().then_some(()) })
        .await;
    assert_eq!(client.get("k").await.expect("get"), Some("2".into()));
}

async fn ttl_replaced(server: Server) {
    let client = connect(&server).await;
    client.put_with_ttl("k", "1", 600).await.expect("put");
    let mut watch = client.watch("k").await.expect("watch");
    client.put_with_ttl("k", "2", 1).await.expect("put");
    assert_eq!(event(&mut watch).await, put("k", "2"));
    assert_eq!(event(&mut watch).await, delete("k"));
}

async fn any_ttl(server: Server) {
    let client = connect(&server).await;
    for ttl_secs in [1, u64::from(u32::MAX), 9_000_000_000, 9_000_000_001, i64::MAX as u64, u64::MAX] {
        let _ = client.put_with_ttl("k", "1", ttl_secs).await;
        let soon = tokio::time::timeout(Duration::from_secs(3), client.put("other", "1")).await;
        soon.expect("at once").expect("put");
    }
}
