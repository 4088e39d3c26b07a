//! Scans, and how they go together with watches.

use super::client::{own, pairs, shared};
use std::collections::BTreeMap;

#[tokio::test]
async fn a_scan_brings_every_key_with_the_prefix_in_byte_order() {
    let client = shared();
    for (key, value) in
        [("/s/b", "2"), ("/s/a/x", "1"), ("/s/a", "0"), ("/s0", "no"), ("/s", "no"), ("/s/c", "")]
    {
        client.put(key, value).await;
    }
    let expected = pairs(&[("/s/a", "0"), ("/s/a/x", "1"), ("/s/b", "2"), ("/s/c", "")]);
    let (found, revision) = client.scan("/s/").await;
    assert_eq!(found, expected);
    assert!(revision > 0);
    assert_eq!(client.scan("/s/none").await.0, []);
    // No prefix has to begin with a slash.
    client.put("scan-plain", "1").await;
    assert_eq!(client.scan("scan-pl").await.0, pairs(&[("scan-plain", "1")]));
}

#[tokio::test]
async fn an_empty_prefix_is_everything_and_nothing_else() {
    let client = own(&[]);
    assert_eq!(client.scan("").await, (Vec::new(), 1));
    client.put("a", "1").await;
    client.put("/b", "2").await;
    assert_eq!(client.scan("").await, (pairs(&[("/b", "2"), ("a", "1")]), 3));
}

#[tokio::test]
async fn its_revision_is_that_of_etcds_api() {
    let client = own(&[]);
    let revision = client.etcd.put("/s/a", "1").await.expect("put");
    assert_eq!(client.scan("/s/").await.1, revision.unsigned_abs());
    assert!(!client.write(super::client::swap("/s/a", Some("x"), "y")).await);
    client.delete("/s/none").await;
    assert_eq!(client.scan("/s/").await.1, revision.unsigned_abs(), "what changes nothing makes no revision");
}

/// A scan that takes several steps is of one revision all the same.
#[tokio::test]
async fn a_long_scan_shows_one_revision() {
    let client = own(&[]);
    let value = "v".repeat(1000);
    for n in 0..3000 {
        client.etcd.put(&format!("/s/{n:04}"), &value).await.expect("put");
    }
    let (found, revision) = client.scan("/s/").await;
    assert_eq!(found.len(), 3000);
    assert!(found.is_sorted());
    assert_eq!(revision, 3001);
}

/// The recipe for a cache: watch, scan, and leave out the events that the scan has.
#[tokio::test]
async fn a_watch_goes_on_where_a_scan_ends() {
    let client = shared();
    let mut watch = client.watch_prefix("/s2/").await;
    let writer = {
        let client = super::client::Client::of(&client.server.url());
        tokio::spawn(async move {
            for n in 0..300 {
                client.put(format!("/s2/{}", n % 7), n.to_string()).await;
                if n % 5 == 0 {
                    client.delete(format!("/s2/{}", n % 3)).await;
                }
            }
            client.put("/s2/end", "end").await;
        })
    };
    let (found, revision) = client.scan("/s2/").await;
    let mut cache: BTreeMap<String, String> = found.into_iter().collect();
    while !cache.contains_key("/s2/end") {
        let event = watch.event().await;
        if event.revision <= revision {
            continue;
        }
        let (key, value) = (super::client::text(&event.key), super::client::text(&event.value));
        match event.event_type() {
            kvist::pb::d_engine::client::WatchEventType::Put => drop(cache.insert(key, value)),
            _ => assert!(cache.remove(&key).is_some(), "{key} was there"),
        }
    }
    writer.await.expect("all written");
    assert_eq!(client.scan("/s2/").await.0, cache.into_iter().collect::<Vec<_>>());
}
