//! Locks: one holder at a time, in order, given back by whoever goes away.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use etcd_client::{Client, GetOptions, LockOptions};

use crate::control::Server;
use crate::help::*;
use crate::suite::Case;

pub const CASES: &[Case] = &[
    crate::case!("lock/mutual exclusion of several sessions", exclusion),
    crate::case!("lock/keys, and the same session again", keys),
    crate::case!("lock/in the order of asking", order),
    crate::case!("lock/released when the lease is revoked", revoked),
    crate::case!("lock/released when the lease expires", expired),
    crate::case!("lock/without a lease", without_lease),
    crate::case!("lock/with a lease that is not there", absent_lease),
    crate::case!("lock/unlock of what is not locked", unlock_absent),
];

async fn lease(client: &mut Client, ttl: i64) -> i64 {
    client.lease_grant(ttl, None).await.expect("grant").id()
}

fn by(lease: i64) -> Option<LockOptions> {
    Some(LockOptions::new().with_lease(lease))
}

/// How many hold or wait for the lock.
async fn queue(client: &mut Client) -> i64 {
    let options = GetOptions::new().with_prefix().with_count_only();
    client.get("l/", Some(options)).await.expect("get").count()
}

/// A task that takes the lock; what comes of it.
fn waiter(client: &Client, lease: i64) -> tokio::task::JoinHandle<Vec<u8>> {
    let mut client = client.clone();
    tokio::spawn(async move { client.lock("l", by(lease)).await.expect("lock").key().to_vec() })
}

async fn exclusion(server: Server) {
    let inside = Arc::new(AtomicI64::new(0));
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let (server, inside) = (server.clone(), Arc::clone(&inside));
        tasks.push(tokio::spawn(async move {
            let mut client = connect(&server).await;
            let lease = lease(&mut client, 600).await;
            for _ in 0..10 {
                let key = client.lock("l", by(lease)).await.expect("lock").key().to_vec();
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "somebody else holds the lock");
                put(&mut client, &["shared=1"]).await; // a while
                inside.fetch_sub(1, Ordering::SeqCst);
                client.unlock(key).await.expect("unlock");
            }
        }));
    }
    for task in tasks {
        task.await.expect("a task that locks");
    }
    let mut client = connect(&server).await;
    assert_eq!(queue(&mut client).await, 0);
    assert_eq!(one(&mut client, "shared").await.version(), 40);
}

async fn keys(server: Server) {
    let mut client = connect(&server).await;
    let lease = lease(&mut client, 600).await;
    let key = client.lock("l", by(lease)).await.expect("lock").key().to_vec();
    assert_eq!(text(&key), format!("l/{lease:x}"));
    let kv = one(&mut client, key.clone()).await;
    assert_eq!((kv.value(), kv.lease()), (&b""[..], lease));
    let again = client.lock("l", by(lease)).await.expect("the same session has it").key().to_vec();
    assert_eq!(again, key);
    client.unlock(key.clone()).await.expect("unlock");
    assert_eq!(client.get(key, None).await.expect("get").count(), 0);
}

async fn order(server: Server) {
    let mut client = connect(&server).await;
    let mut leases = Vec::new();
    for _ in 0..4 {
        leases.push(lease(&mut client, 600).await);
    }
    let mut held = client.lock("l", by(leases[0])).await.expect("lock").key().to_vec();
    let mut waiters = Vec::new();
    for (place, lease) in leases.iter().enumerate().skip(1) {
        waiters.push(waiter(&client, *lease));
        until("the next in the queue", async || queue(&mut client.clone()).await == place as i64 + 1).await;
    }
    for (place, one) in waiters.into_iter().enumerate() {
        assert!(!one.is_finished(), "too early");
        client.unlock(held).await.expect("unlock");
        held = soon("the lock", one).await.expect("a task that waits");
        assert_eq!(text(&held), format!("l/{:x}", leases[place + 1]));
    }
}

async fn revoked(server: Server) {
    let mut client = connect(&server).await;
    let (first, second) = (lease(&mut client, 600).await, lease(&mut client, 600).await);
    client.lock("l", by(first)).await.expect("lock");
    let waiting = waiter(&client, second);
    until("the second in the queue", async || queue(&mut client.clone()).await == 2).await;
    client.lease_revoke(first).await.expect("revoke");
    assert_eq!(text(&soon("the lock", waiting).await.expect("a task")), format!("l/{second:x}"));
}

async fn expired(server: Server) {
    let mut client = connect(&server).await;
    let (first, second) = (lease(&mut client, 2).await, lease(&mut client, 600).await);
    client.lock("l", by(first)).await.expect("lock");
    let waiting = waiter(&client, second);
    assert_eq!(text(&soon("the lock", waiting).await.expect("a task")), format!("l/{second:x}"));
    assert_eq!(queue(&mut client).await, 1);
}

/// The server grants one of a minute.
async fn without_lease(server: Server) {
    let mut client = connect(&server).await;
    let key = client.lock("l", None).await.expect("lock").key().to_vec();
    let lease = one(&mut client, key.clone()).await.lease();
    assert_eq!(text(&key), format!("l/{lease:x}"));
    assert_eq!(client.lease_time_to_live(lease, None).await.expect("time to live").granted_ttl(), 60);
    client.unlock(key).await.expect("unlock");
    assert_eq!(queue(&mut client).await, 0);
}

async fn absent_lease(server: Server) {
    let mut client = connect(&server).await;
    let answer = client.lock("l", by(99)).await;
    assert_eq!(refused(answer), status(UNKNOWN, "etcdserver: requested lease not found"));
    assert_eq!(queue(&mut client).await, 0);
}

async fn unlock_absent(server: Server) {
    let mut client = connect(&server).await;
    client.unlock("l/1").await.expect("nothing to do");
    assert_eq!(refused(client.unlock("").await), status(UNKNOWN, "etcdserver: key is not provided"));
}
