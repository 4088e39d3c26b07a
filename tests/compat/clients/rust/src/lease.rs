//! Leases: granted, asked for, kept alive, revoked, expired.

use std::time::{Duration, Instant};

use etcd_client::{
    Error, LeaseClientPrefix, LeaseGrantOptions, LeaseTimeToLiveOptions, PutOptions, WatchOptions,
};

use crate::control::Server;
use crate::help::*;
use crate::suite::Case;

pub const CASES: &[Case] = &[
    crate::case!("lease/grant, with an id and without", grant),
    crate::case!("lease/time to live and attached keys", time_to_live),
    crate::case!("lease/list", list),
    crate::case!("lease/revoke deletes the keys", revoke),
    crate::case!("lease/keep alive", keep_alive),
    crate::case!("lease/expiry, and keeping alive against it", expiry),
    crate::case!("lease/what is not there", absent),
    crate::case!("lease/a put moves a key to another lease", moved),
    crate::case!("lease/namespace", namespace),
];

const LEASE_NOT_FOUND: &str = "etcdserver: requested lease not found";

async fn grant(server: Server) {
    let mut client = connect(&server).await;
    let granted = client.lease_grant(600, None).await.expect("grant");
    assert!(granted.id() > 0 && granted.ttl() == 600 && granted.error().is_empty());
    assert_eq!(granted.header().expect("a header").revision(), 1, "a lease takes no revision");
    let seven = || Some(LeaseGrantOptions::new().with_id(7));
    assert_eq!(client.lease_grant(60, seven()).await.expect("grant").id(), 7);
    assert_eq!(
        refused(client.lease_grant(60, seven()).await),
        status(FAILED_PRECONDITION, "etcdserver: lease already exists")
    );
    assert_eq!(
        refused(client.lease_grant(9_000_000_001, None).await),
        status(OUT_OF_RANGE, "etcdserver: too large lease TTL")
    );
    // As short as the servers take it: one and a half election timeouts.
    assert_eq!(client.lease_grant(1, None).await.expect("grant").ttl(), 2);
}

async fn time_to_live(server: Server) {
    let mut client = connect(&server).await;
    let lease = client.lease_grant(600, None).await.expect("grant").id();
    for key in ["b", "a"] {
        client.put(key, "1", Some(PutOptions::new().with_lease(lease))).await.expect("put");
    }
    let keys = Some(LeaseTimeToLiveOptions::new().with_keys());
    let left = client.lease_time_to_live(lease, keys).await.expect("time to live");
    assert_eq!((left.id(), left.granted_ttl()), (lease, 600));
    assert!((500..=600).contains(&left.ttl()), "{}", left.ttl());
    let mut keys = left.keys().to_vec();
    keys.sort();
    assert_eq!(keys, [b"a", b"b"]);
    let left = client.lease_time_to_live(lease, None).await.expect("time to live");
    assert!(left.keys().is_empty());
    assert_eq!(one(&mut client, "a").await.lease(), lease);
}

async fn list(server: Server) {
    let mut client = connect(&server).await;
    assert!(client.leases().await.expect("leases").leases().is_empty());
    for id in [5, 3, 9] {
        client.lease_grant(600, Some(LeaseGrantOptions::new().with_id(id))).await.expect("grant");
    }
    let listed = client.leases().await.expect("leases");
    let mut ids: Vec<i64> = listed.leases().iter().map(|lease| lease.id()).collect();
    ids.sort();
    assert_eq!(ids, [3, 5, 9]);
}

async fn revoke(server: Server) {
    let mut client = connect(&server).await;
    let lease = client.lease_grant(600, None).await.expect("grant").id();
    put(&mut client, &["c=0"]).await;
    for key in ["a", "b"] {
        client.put(key, "1", Some(PutOptions::new().with_lease(lease))).await.expect("put");
    }
    let revoked = client.lease_revoke(lease).await.expect("revoke");
    assert_eq!(revoked.header().expect("a header").revision(), 5, "all keys in one revision");
    assert_eq!(all(&mut client, "").await, ["c=0"]);
    assert!(client.leases().await.expect("leases").leases().is_empty());
}

async fn keep_alive(server: Server) {
    let mut client = connect(&server).await;
    let lease = client.lease_grant(60, None).await.expect("grant").id();
    let (mut keeper, mut renewals) = client.lease_keep_alive(lease).await.expect("keep alive");
    assert_eq!(keeper.id(), lease);
    for _ in 0..5 {
        keeper.keep_alive().await.expect("renew");
        let renewal =
            soon("a renewal", renewals.message()).await.expect("a healthy stream").expect("an answer");
        assert_eq!((renewal.id(), renewal.ttl()), (lease, 60));
    }
    client.lease_revoke(lease).await.expect("revoke");
    keeper.keep_alive().await.expect("renew");
    let renewal = soon("a renewal", renewals.message()).await.expect("a healthy stream").expect("an answer");
    assert_eq!(renewal.ttl(), 0, "it is gone");
}

async fn expiry(server: Server) {
    let mut client = connect(&server).await;
    let granted = client.lease_grant(4, None).await.expect("grant");
    client.put("a", "1", Some(PutOptions::new().with_lease(granted.id()))).await.expect("put");
    let mut stream = client.watch("a", Some(WatchOptions::new())).await.expect("watch");
    assert!(next(&mut stream).await.created());
    let (mut keeper, mut renewals) = client.lease_keep_alive(granted.id()).await.expect("keep alive");
    // Twice as long as it would live by itself.
    let until = Instant::now() + Duration::from_secs(2 * granted.ttl() as u64);
    while Instant::now() < until {
        keeper.keep_alive().await.expect("renew");
        let renewal =
            soon("a renewal", renewals.message()).await.expect("a healthy stream").expect("an answer");
        assert_eq!(renewal.ttl(), granted.ttl());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(all(&mut client, "a").await, ["a=1"]);
    // Left alone it expires.
    assert_eq!(next_events(&mut stream, 1).await, ["delete a @3"]);
    let left = client.lease_time_to_live(granted.id(), None).await.expect("time to live");
    assert_eq!((left.ttl(), left.granted_ttl()), (-1, 0));
}

async fn absent(server: Server) {
    let mut client = connect(&server).await;
    assert_eq!(refused(client.lease_revoke(9).await), status(NOT_FOUND, LEASE_NOT_FOUND));
    let left = client.lease_time_to_live(9, None).await.expect("time to live");
    assert_eq!((left.ttl(), left.granted_ttl()), (-1, 0));
    match client.lease_keep_alive(9).await {
        Err(Error::LeaseKeepAliveError(text)) => assert_eq!(text, "lease not found"),
        other => panic!("{other:?}"),
    }
    let options = Some(PutOptions::new().with_lease(9));
    assert_eq!(refused(client.put("a", "1", options).await), status(NOT_FOUND, LEASE_NOT_FOUND));
}

async fn moved(server: Server) {
    let mut client = connect(&server).await;
    let first = client.lease_grant(600, None).await.expect("grant").id();
    let second = client.lease_grant(600, None).await.expect("grant").id();
    for (key, lease) in [("a", first), ("b", first), ("a", second)] {
        client.put(key, "1", Some(PutOptions::new().with_lease(lease))).await.expect("put");
    }
    client.put("b", "2", None).await.expect("put"); // without a lease
    client.lease_revoke(first).await.expect("revoke");
    assert_eq!(all(&mut client, "").await, ["a=1", "b=2"]);
    client.lease_revoke(second).await.expect("revoke");
    assert_eq!(all(&mut client, "").await, ["b=2"]);
}

async fn namespace(server: Server) {
    let mut client = connect(&server).await;
    let lease = client.lease_grant(600, None).await.expect("grant").id();
    client.put("ns/a", "1", Some(PutOptions::new().with_lease(lease))).await.expect("put");
    let mut inner = LeaseClientPrefix::new(client.lease_client(), b"ns/".to_vec());
    let keys = Some(LeaseTimeToLiveOptions::new().with_keys());
    assert_eq!(inner.time_to_live(lease, keys).await.expect("time to live").keys(), [b"a"]);
    assert_eq!(one(&mut client, "ns/a").await.lease(), lease);
}
