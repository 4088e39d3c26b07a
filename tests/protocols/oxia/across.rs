//! The same keys by Oxia's protocol and by etcd's.

use std::time::Duration;

use kvist::pb::etcdserverpb as etcd;
use kvist::pb::oxia as pb;
use pb::BatchRequest;

use super::client::{
    ABSENT, Client, delete, etcd_put, events, found, get, get_error, is_mismatch, is_not_found, keys, put,
    put_error, put_if, stat,
};
use crate::cluster::eventually;
use crate::support::tool;

const PATIENCE: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_put_of_etcd_is_read_by_a_batch() {
    let client = Client::shared().await;
    for version in 0..3 {
        etcd_put(&client, b"from-etcd", "x", 0).await;
        let get = client.get("from-etcd").await;
        assert_eq!((found(&get).version, get.payload.as_deref()), (version, Some(&b"x"[..])));
    }
    // It has its times, too, and is guarded by its version.
    let before = found(&client.get("from-etcd").await);
    assert!(before.created_timestamp > 0 && before.created_timestamp <= before.modified_timestamp);
    is_mismatch(put_error(&client.put(put_if("from-etcd", "y", 1)).await));
    let after = stat(&client.put(put_if("from-etcd", "y", 2)).await);
    assert_eq!((after.version, after.created_timestamp), (3, before.created_timestamp));
}

#[tokio::test]
async fn etcdctl_and_a_batch_see_each_other() {
    let Some(etcdctl) = tool("etcdctl", "etcdctl_and_a_batch_see_each_other") else { return };
    let client = Client::shared().await;
    let endpoint = client.endpoint();
    let ctl = |args: &[&str]| {
        let mut command = std::process::Command::new(&etcdctl);
        let output = command.args(["--endpoints", &endpoint]).args(args).output().expect("etcdctl");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    ctl(&["put", "ctl/a", "by etcdctl"]);
    assert_eq!(client.get("ctl/a").await.payload.as_deref(), Some(&b"by etcdctl"[..]));
    client.put(put("ctl/b", "by a batch")).await;
    assert_eq!(ctl(&["get", "--prefix", "ctl/"]), "ctl/a\nby etcdctl\nctl/b\nby a batch\n");
    ctl(&["del", "ctl/a"]);
    assert_eq!(keys(&client.list("ctl/", "ctl0").await), ["ctl/b"]);
}

#[tokio::test]
async fn a_watch_of_etcd_sees_batches() {
    let client = Client::shared().await;
    let before = client.revision().await;
    let mut watch = client.watch("seen/", before + 1).await;
    client.put(put("seen/a", "1")).await;
    client.delete(delete("seen/a")).await;
    // What fails is no event.
    client.delete(delete("seen/a")).await;
    client.put(put_if("seen/a", "2", 4)).await;
    client.put(put_if("seen/a", "3", ABSENT)).await;
    let told: Vec<String> = events(&mut watch, 3).await.into_iter().map(|(told, _)| told).collect();
    assert_eq!(told, ["put seen/a=1", "delete seen/a", "put seen/a=3"]);
}

#[tokio::test]
async fn the_end_of_a_lease_removes_a_key_from_batches() {
    let client = Client::shared().await;
    let lease = client.etcd.grant(1).await.expect("a lease");
    etcd_put(&client, b"leased", "x", lease).await;
    assert_eq!(found(&client.get("leased").await).version, 0);
    let (client, name) = (&client, "the key to end with its lease");
    eventually(name, PATIENCE, || async move { get_error(&client.get("leased").await).map(drop) }).await;
    is_not_found(client.delete(delete("leased")).await.error.as_ref());
    assert_eq!(stat(&client.put(put_if("leased", "y", ABSENT)).await).version, 0, "a life of its own");
}

/// As a put by etcd's API without a lease does. A put that fails changes nothing.
#[tokio::test]
async fn a_put_takes_the_key_from_its_lease() {
    let client = Client::shared().await;
    let lease = client.etcd.grant(600).await.expect("a lease");
    let attached = async || client.etcd.time_to_live(lease).await.expect("a lease").keys;
    etcd_put(&client, b"detached", "x", lease).await;
    client.put(put_if("detached", "y", 3)).await;
    assert_eq!(attached().await, [b"detached"]);
    client.put(put("detached", "y")).await;
    assert!(attached().await.is_empty());
    let revoke = etcd::LeaseRevokeRequest { id: lease };
    client.etcd.lease.clone().lease_revoke(revoke).await.expect("revoke");
    assert_eq!(client.get("detached").await.payload.as_deref(), Some(&b"y"[..]));
    assert_eq!(client.pair("detached").await.expect("a pair").lease, 0);
}

/// What a batch reads beside its writes is of its own revision: another client's write in between does not show.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_reads_its_own_revision() {
    let client = Client::shared().await;
    let other = client.clone();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let disturber = tokio::spawn(async move {
        while stopped.try_recv().is_err() {
            etcd_put(&other, b"own/a", "etcd's", 0).await;
        }
    });
    for n in 0..500 {
        let payload = format!("batch {n}");
        let puts = vec![put("own/a", &payload)];
        let gets = vec![get("own/a")];
        let answer = client.batch(BatchRequest { puts, gets, ..Default::default() }).await;
        assert_eq!(answer.gets[0].payload.as_deref(), Some(payload.as_bytes()));
        assert_eq!(found(&answer.gets[0]), stat(&answer.puts[0]));
    }
    stop.send(()).expect("the disturber runs");
    disturber.await.expect("the disturber");
}
