//! Leases and attachments, and how etcd's API sees them.

use std::time::Duration;

use kvist::pb::etcdserverpb as v3;
use kvist::pb::rfc as pb;
use tokio::time::Instant;

use super::client::{Client, KEY_NOT_FOUND, LEASE_NOT_FOUND, attachment, refused, sound, start, watch};
use super::watch_history::by_etcd;

const TOO_LARGE: &str = "etcdserver: too large lease TTL";

async fn leases(client: &Client) -> Vec<i64> {
    let answer = client.lease.clone().lease_leases(v3::LeaseLeasesRequest {}).await.expect("leases");
    answer.into_inner().leases.iter().map(|lease| lease.id).collect()
}

#[tokio::test]
async fn case_28_29_leases_are_created() {
    let (_server, client) = start(&[]).await;
    let base = client.index().await;
    let created = client.create(60).await;
    assert_eq!((sound(&created.header), created.ttl, created.error), (base, Some(60), None));
    let lease = created.lease_id.expect("an id");
    assert!(lease > 0);
    assert_eq!(leases(&client).await, [lease]);
    // A wish that is too short, or none, is raised to what a failover needs.
    let request = pb::LeaseCreateRequest::default();
    let floor = client.rfc.clone().lease_create(request).await.expect("a lease").into_inner().ttl;
    assert!(floor.is_some_and(|ttl| ttl > 0), "{floor:?}");
    for ttl in [-5, 0, 1] {
        assert_eq!(client.create(ttl).await.ttl, floor);
    }
    let refusal = client.create(10_000_000_000).await;
    assert_eq!(refused(&refusal.header, TOO_LARGE), base);
    assert_eq!((refusal.error.as_deref(), refusal.lease_id, refusal.ttl), (Some(TOO_LARGE), None, None));
    assert_eq!(client.create(9_000_000_000).await.ttl, Some(9_000_000_000));
}

#[tokio::test]
async fn case_30_31_32_keys_are_attached_and_expire_with_a_revocation() {
    let (_server, client) = start(&[]).await;
    let base = client.index().await;
    client.put("k", "v").await;
    let mut watches = client.watching(watch("a", "z")).await;
    let lease = client.lease().await;
    assert_eq!(sound(&client.attach(lease, "k").await.header), base + 1);
    assert_eq!(sound(&client.attach(lease, "k").await.header), base + 1, "again is as good");
    assert_eq!(client.attached(lease).await, ["k"]);
    let kv = client.get("k").await.expect("the key");
    assert_eq!((kv.mod_index, kv.version), (Some(base + 1), Some(1)));

    assert_eq!(refused(&client.attach(lease, "missing").await.header, KEY_NOT_FOUND), base + 1);
    refused(&client.attach(4711, "k").await.header, LEASE_NOT_FOUND);
    refused(&client.attach(4711, "missing").await.header, LEASE_NOT_FOUND);

    assert_eq!(sound(&client.revoke(lease).await.header), base + 2);
    assert_eq!(watches.brief(base).await, "+2: expire k=v@+1 v1", "nothing before that");
    assert_eq!(by_etcd(&client, base, 2).await, ["+1 put k +0", "+2 delete k +1"]);
    refused(&client.revoke(lease).await.header, LEASE_NOT_FOUND);
    let request = pb::LeaseRevokeRequest::default();
    let answer = client.rfc.clone().lease_revoke(request).await.expect("an answer").into_inner();
    refused(&answer.header, LEASE_NOT_FOUND);
    // Without keys the index stays.
    let lease = client.lease().await;
    assert_eq!(sound(&client.revoke(lease).await.header), base + 2);
}

#[tokio::test]
async fn case_33_keys_expire_together() {
    let (_server, client) = start(&[]).await;
    let base = client.index().await;
    for key in ["b", "a", "c"] {
        client.put(key, "v").await;
    }
    let mut watches = client.watching(watch("a", "z")).await;
    let lease = client.create(1).await.lease_id.expect("an id");
    client.attach(lease, "b").await;
    client.attach(lease, "a").await;
    assert_eq!(watches.brief(base).await, "+4: expire a=v@+2 v1, expire b=v@+1 v1");
    assert_eq!(client.range(super::client::range("a", "z")).await.kvs.len(), 1);
    assert_eq!(client.index().await, base + 4);
}

#[tokio::test]
async fn case_34_leases_are_kept_alive() {
    let (_server, client) = start(&[]).await;
    client.put("k", "v").await;
    let created = client.create(1).await;
    let (lease, granted) = (created.lease_id.expect("an id"), created.ttl.expect("a TTL"));
    client.attach(lease, "k").await;
    let begin = Instant::now();
    let mut renewals = client.keep_alives().await;
    for n in 0..3 {
        // What is tested is time: three renewals over more than one TTL.
        let pause = Duration::from_secs(granted.unsigned_abs()).mul_f64(0.6 * f64::from(n));
        tokio::time::sleep_until(begin + pause).await;
        renewals.send(pb::LeaseKeepAliveRequest { lease_id: Some(lease) }).await;
        let answer = renewals.next().await;
        sound(&answer.header);
        assert_eq!((answer.lease_id, answer.ttl), (Some(lease), Some(granted)));
    }
    assert!(begin.elapsed() > Duration::from_secs(granted.unsigned_abs()));
    assert_eq!(client.value("k").await, "v");

    renewals.send(pb::LeaseKeepAliveRequest { lease_id: Some(4711) }).await;
    let answer = renewals.next().await;
    refused(&answer.header, LEASE_NOT_FOUND);
    assert_eq!((answer.lease_id, answer.ttl), (Some(4711), Some(0)));
    renewals.send(pb::LeaseKeepAliveRequest { lease_id: Some(lease) }).await;
    assert_eq!(renewals.next().await.ttl, Some(granted), "the stream goes on");
    renewals.half_close();
    renewals.expect_end().await;
}

#[tokio::test]
async fn case_38_a_key_has_one_lease() {
    let (_server, client) = start(&[]).await;
    client.put("k", "v").await;
    let (first, second) = (client.lease().await, client.lease().await);
    client.attach(first, "k").await;
    client.attach(second, "k").await;
    assert_eq!((client.attached(first).await.len(), client.attached(second).await.len()), (0, 1));
    client.revoke(first).await;
    assert_eq!(client.value("k").await, "v");
    client.revoke(second).await;
    assert!(client.get("k").await.is_none());
}

#[tokio::test]
async fn case_39_an_attachment_outlives_a_put_of_the_draft_only() {
    let (_server, client) = start(&[]).await;
    client.put("k", "1").await;
    let lease = client.lease().await;
    client.attach(lease, "k").await;
    // The version that is there stays as it is; the next one says what it is attached to.
    let of_etcd = async || {
        let request = v3::RangeRequest { key: "k".into(), ..Default::default() };
        client.kv.clone().range(request).await.expect("range").into_inner().kvs[0].lease
    };
    assert_eq!(of_etcd().await, 0);
    client.put("k", "2").await;
    assert_eq!(of_etcd().await, lease);
    client.revoke(lease).await;
    assert!(client.get("k").await.is_none());

    client.put("k", "1").await;
    let lease = client.lease().await;
    client.attach(lease, "k").await;
    let request = v3::PutRequest { key: "k".into(), value: "3".into(), ..Default::default() };
    client.kv.clone().put(request).await.expect("put");
    client.revoke(lease).await;
    assert_eq!(client.value("k").await, "3");
}

/// A key that etcd's API has attached is renewed and kept by this one, and a removal ends the attachment.
#[tokio::test]
async fn attachments_are_those_of_both_apis() {
    let (_server, client) = start(&[]).await;
    let request = v3::LeaseGrantRequest { ttl: 600, id: 77 };
    client.lease.clone().lease_grant(request).await.expect("grant");
    let request = v3::PutRequest { key: "k".into(), lease: 77, ..Default::default() };
    client.kv.clone().put(request).await.expect("put");
    client.put("k", "kept").await;
    assert_eq!(client.attached(77).await, ["k"]);
    client.delete("k", "").await;
    client.put("k", "new").await;
    assert!(client.attached(77).await.is_empty());
    client.revoke(77).await;
    assert_eq!(client.value("k").await, "new");
    let answer = client.rfc.clone().lease_attach(attachment(77, "k")).await.expect("an answer").into_inner();
    refused(&answer.header, LEASE_NOT_FOUND);
}

/// Attachments are replicated state: they are there after a crash, flushed or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attachments_outlive_a_crash() {
    let (mut server, client) = start(&[]).await;
    client.put("k", "v").await;
    let lease = client.lease().await;
    client.attach(lease, "k").await;
    tokio::task::block_in_place(|| {
        server.kill();
        server.restart();
    });
    let client = Client::connect(server.url()).await;
    assert_eq!(client.attached(lease).await, ["k"]);
    client.put("k", "w").await;
    client.revoke(lease).await;
    assert!(client.get("k").await.is_none());
}
