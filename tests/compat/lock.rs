//! The Lock service: contract 1.13, E-1, E-2 and what of E-4 concerns it; and one queue with the locks of Go's clients.

use std::io::BufRead;
use std::process::{Child, Stdio};
use std::time::Duration;

use kvist::pb::etcdserverpb as pb;
use kvist::pb::v3lockpb::{LockRequest, LockResponse, UnlockRequest};
use tonic::{Code, Status};

use crate::client::{Client, LEASE_NOT_FOUND, Stop, expect_error, own, prefix, revision, shared, text};
use crate::etcdctl::for_each_etcdctl;
use crate::http_client::call;
use crate::support::{Server, is_foreign_server};

const PATIENCE: Duration = Duration::from_secs(20);

async fn lock(c: &Client, name: &str, lease: i64) -> Result<LockResponse, Status> {
    Ok(c.lock.clone().lock(LockRequest { name: name.into(), lease }).await?.into_inner())
}

async fn unlock(c: &Client, key: &[u8]) -> i64 {
    let request = UnlockRequest { key: key.to_vec() };
    revision(&c.lock.clone().unlock(request).await.expect("unlock").into_inner().header)
}

/// Waits until so many keys are queued below a name.
pub async fn queued(c: &Client, name: &str, count: i64) {
    let all = async {
        while c.range(prefix(&format!("{name}/"))).await.count != count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap_or_else(|_| panic!("{name} never had {count} keys"));
}

/// E-1: the key is the name and the lease; the owner's lock comes at once, and again for the same lease; the others come
/// in the order of their keys.
#[tokio::test]
async fn e_1_locks_are_granted_in_order() {
    let c = shared().await;
    let leases = [c.grant().await, c.grant().await, c.grant().await];
    let first = lock(&c, "e1", leases[0]).await.expect("lock");
    assert_eq!(text(&first.key), format!("e1/{:x}", leases[0]));
    let header = first.header.expect("header");
    let kv = c.get(first.key.clone()).await.expect("the key of the lock");
    assert_eq!(
        (kv.lease, kv.create_revision, kv.version, kv.value.len()),
        (leases[0], header.revision, 1, 0)
    );
    let info = c.range(prefix("e1")).await.header.expect("header");
    assert_eq!(
        (header.cluster_id, header.member_id, header.raft_term),
        (info.cluster_id, info.member_id, info.raft_term)
    );
    let again = lock(&c, "e1", leases[0]).await.expect("lock again");
    assert_eq!(again.key, first.key);
    assert_eq!(c.get(first.key.clone()).await.expect("the key").version, 1, "nothing was written");

    let mut waiting = Vec::new();
    for (n, lease) in leases.iter().enumerate().skip(1) {
        let (client, lease) = ((*c).clone(), *lease);
        waiting.push(tokio::spawn(async move { lock(&client, "e1", lease).await }));
        queued(&c, "e1", n as i64 + 1).await;
    }
    let released = unlock(&c, &first.key).await;
    let second = tokio::time::timeout(PATIENCE, waiting.remove(0)).await.expect("in time").unwrap().unwrap();
    assert_eq!(text(&second.key), format!("e1/{:x}", leases[1]));
    assert!(revision(&second.header) >= released);
    assert!(!waiting[0].is_finished(), "one owner at a time");
    c.revoke(leases[1]).await; // a lease that ends releases the lock as well
    let third = tokio::time::timeout(PATIENCE, waiting.remove(0)).await.expect("in time").unwrap().unwrap();
    assert_eq!(text(&third.key), format!("e1/{:x}", leases[2]));
}

/// E-1: without a lease, the server grants one of a minute.
#[tokio::test]
async fn e_1_a_lock_without_a_lease() {
    let c = shared().await;
    let locked = lock(&c, "e1-none", 0).await.expect("lock");
    let kv = c.get(locked.key.clone()).await.expect("the key of the lock");
    assert_eq!(text(&locked.key), format!("e1-none/{:x}", kv.lease));
    let request = pb::LeaseTimeToLiveRequest { id: kv.lease, keys: false };
    let lease = c.lease.clone().lease_time_to_live(request).await.expect("time to live").into_inner();
    assert_eq!(lease.granted_ttl, 60);
}

/// E-1 over the JSON gateway; the key of a lock is base64 there, as all bytes are.
#[test]
fn e_1_a_lock_over_the_gateway() {
    let server = Server::start();
    let locked = call(&server, "lock/lock", r#"{"name":"bmFtZQ=="}"#);
    let key = locked["key"].as_str().expect("a key").to_owned();
    let found = call(&server, "kv/range", &format!(r#"{{"key":"{key}"}}"#));
    assert_eq!(found["count"], "1", "{found}");
    call(&server, "lock/unlock", &format!(r#"{{"key":"{key}"}}"#));
    assert_eq!(call(&server, "kv/range", &format!(r#"{{"key":"{key}"}}"#))["count"], serde_json::Value::Null);
}

/// E-2, E-4: unknown keys and leases; a lease that is lost while waiting.
#[tokio::test]
async fn e_2_e_4_errors_of_locks() {
    let c = shared().await;
    assert_eq!(unlock(&c, b"e2/no-such-key").await, unlock(&c, b"e2/no-such-key").await);
    let request = UnlockRequest { key: Vec::new() };
    expect_error(c.lock.clone().unlock(request).await, Code::Unknown, "etcdserver: key is not provided");
    expect_error(lock(&c, "e2", 4711).await, Code::Unknown, LEASE_NOT_FOUND);

    let (owner, waiter) = (c.grant().await, c.grant().await);
    let owned = lock(&c, "e2", owner).await.expect("lock");
    let waiting = tokio::spawn({
        let c = (*c).clone();
        async move { lock(&c, "e2", waiter).await }
    });
    queued(&c, "e2", 2).await;
    c.revoke(waiter).await;
    unlock(&c, &owned.key).await;
    let result = tokio::time::timeout(PATIENCE, waiting).await.expect("in time").unwrap();
    expect_error(result, Code::Unknown, "mutex: session is expired");
}

/// E-2: a client that goes away while it waits leaves the queue; one with a deadline, too.
#[tokio::test]
async fn e_2_who_gives_up_leaves_the_queue() {
    let c = shared().await;
    let (owner, waiter) = (c.grant().await, c.grant().await);
    let owned = lock(&c, "e2-gone", owner).await.expect("lock");
    let waiting = tokio::spawn({
        let c = (*c).clone();
        async move { lock(&c, "e2-gone", waiter).await }
    });
    queued(&c, "e2-gone", 2).await;
    waiting.abort();
    queued(&c, "e2-gone", 1).await;
    let mut request = tonic::Request::new(LockRequest { name: "e2-gone".into(), lease: waiter });
    request.set_timeout(Duration::from_millis(300));
    let status = c.lock.clone().lock(request).await.expect_err("the lock is taken");
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
    queued(&c, "e2-gone", 1).await;
    assert!(c.get(owned.key.clone()).await.is_some(), "the owner stays");
    unlock(&c, &owned.key).await;
    lock(&c, "e2-gone", waiter).await.expect("the lock is free");
}

/// E-2: a server that stops tells those who wait, and takes their keys back: nobody is to own a lock without knowing.
#[tokio::test(flavor = "multi_thread")]
async fn e_2_a_server_that_stops_takes_keys_back() {
    let mut c = own(&[]).await;
    let (owner, waiter) = (c.grant().await, c.grant().await);
    lock(&c, "e2-stop", owner).await.expect("lock");
    let waiting = tokio::spawn({
        let c = (*c).clone();
        async move { lock(&c, "e2-stop", waiter).await }
    });
    queued(&c, "e2-stop", 2).await;
    c.restart(Stop::Terminate).await;
    let status = waiting.await.expect("no panic").expect_err("the server has stopped");
    // etcd waits some seconds and then cuts the connection.
    assert!(is_foreign_server() || status.code() == Code::Unavailable, "{status:?}");
    queued(&c, "e2-stop", 1).await;
}

/// Runs `etcdctl lock NAME`, which holds the lock until it gets a signal.
fn etcdctl_lock(ctl: &crate::etcdctl::Ctl, name: &str) -> Child {
    ctl.command(&["lock", name]).stdout(Stdio::piped()).spawn().expect("start etcdctl lock")
}

/// The key that `etcdctl lock` prints once it has the lock.
fn acquired(holder: &mut Child) -> String {
    let mut line = String::new();
    let stdout = holder.stdout.take().expect("stdout");
    std::io::BufReader::new(stdout).read_line(&mut line).expect("a line");
    line.trim().to_owned()
}

/// Ends `etcdctl lock` as Ctrl-C does.
fn interrupt(mut holder: Child) {
    let status = std::process::Command::new("kill").args(["-INT", &holder.id().to_string()]).status();
    assert!(status.expect("kill").success());
    holder.wait().expect("the end of etcdctl");
}

/// E-1: clients that lock by themselves, as etcdctl does, and clients of the service wait in one queue.
#[test]
fn e_1_one_queue_with_the_clients_of_go() {
    for_each_etcdctl(|ctl| {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let c = Client::connect(ctl.server.url()).await;
            let mut holder = etcdctl_lock(&ctl, "both");
            let key = tokio::task::block_in_place(|| acquired(&mut holder));
            assert!(key.starts_with("both/"), "{key}");
            let lease = c.grant().await;
            let waiting = tokio::spawn({
                let c = c.clone();
                async move { lock(&c, "both", lease).await }
            });
            queued(&c, "both", 2).await;
            let mut third = etcdctl_lock(&ctl, "both");
            queued(&c, "both", 3).await;
            assert!(!waiting.is_finished());
            tokio::task::block_in_place(|| interrupt(holder));
            let mine = tokio::time::timeout(PATIENCE, waiting).await.expect("in time").unwrap().unwrap();
            assert_eq!(text(&mine.key), format!("both/{lease:x}"));
            unlock(&c, &mine.key).await;
            let key = tokio::task::block_in_place(|| acquired(&mut third));
            assert!(key.starts_with("both/") && key.as_bytes() != mine.key, "{key}");
            tokio::task::block_in_place(|| interrupt(third));
            queued(&c, "both", 0).await;
        });
    });
}
