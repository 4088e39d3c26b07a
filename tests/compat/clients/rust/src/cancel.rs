//! Deadlines and calls that the client gives up: the client hears of it, and the server forgets them.

use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Error, GetOptions, LockOptions};

use crate::control::Server;
use crate::help::*;
use crate::suite::Case;

pub const CASES: &[Case] = &[
    crate::case!("cancel/deadline on a server that does not answer", deadline),
    crate::case!("cancel/deadline of a lock that is taken", lock_deadline),
    crate::case!("cancel/a dropped lock leaves the queue", dropped_lock),
    crate::case!("cancel/a dropped campaign leaves the queue", dropped_campaign),
    crate::case!("cancel/a dropped watch is forgotten", dropped_watch),
    crate::case!("cancel/a closed client is forgotten", closed_client),
    crate::case!("cancel/no server there", no_server),
];

/// A value of the server's page of metrics.
async fn metric(server: &Server, name: &str) -> f64 {
    let page = server.page("/metrics").await;
    let line = page.lines().find(|line| line.split(' ').next() == Some(name));
    let value = line.and_then(|line| line.split(' ').nth(1)).unwrap_or_else(|| panic!("no {name}"));
    value.parse().expect("a number")
}

async fn watchers(server: &Server) -> f64 {
    metric(server, "etcd_debugging_mvcc_watcher_total").await
}

async fn impatient(server: &Server) -> Client {
    let options = ConnectOptions::new().with_timeout(Duration::from_secs(1));
    let client = Client::connect([&server.endpoint], Some(options)).await.expect("connect");
    until("a quick answer", async || client.clone().get("a", None).await.is_ok()).await;
    client
}

async fn queue(client: &Client, prefix: &str) -> i64 {
    let options = GetOptions::new().with_prefix().with_count_only();
    client.clone().get(prefix, Some(options)).await.expect("get").count()
}

async fn deadline(server: Server) {
    let mut client = impatient(&server).await;
    server.act("pause").await;
    let put_refused = refused(client.put("a", "2", None).await);
    let get_refused = refused(client.get("a", None).await);
    server.act("resume").await;
    // tonic measures the time itself; which of the two codes it gives depends on who is faster.
    for (code, text) in [put_refused, get_refused] {
        assert!([CANCELLED, DEADLINE_EXCEEDED].contains(&code), "{code} {text}");
    }
    let mut patient = connect(&server).await;
    put(&mut patient, &["a=3"]).await;
    assert_eq!(all(&mut patient, "a").await, ["a=3"]);
    until("an answer to the same client", async || client.clone().get("a", None).await.is_ok()).await;
}

async fn lock_deadline(server: Server) {
    let mut holder = connect(&server).await;
    holder.lock("l", None).await.expect("lock");
    let lease = holder.lease_grant(600, None).await.expect("grant").id();
    let mut client = impatient(&server).await;
    let (code, text) = refused(client.lock("l", Some(LockOptions::new().with_lease(lease))).await);
    assert!([CANCELLED, DEADLINE_EXCEEDED].contains(&code), "{code} {text}");
    until("the queue without the one that gave up", async || queue(&holder, "l/").await == 1).await;
}

async fn dropped_lock(server: Server) {
    let mut client = connect(&server).await;
    let key = client.lock("l", None).await.expect("lock").key().to_vec();
    let lease = client.lease_grant(600, None).await.expect("grant").id();
    let mut other = client.clone();
    let waiting =
        tokio::spawn(async move { other.lock("l", Some(LockOptions::new().with_lease(lease))).await });
    until("the second in the queue", async || queue(&client, "l/").await == 2).await;
    waiting.abort();
    until("the queue without the second", async || queue(&client, "l/").await == 1).await;
    client.unlock(key).await.expect("unlock");
    let again = client.lock("l", Some(LockOptions::new().with_lease(lease)));
    soon("the lock", again).await.expect("the lock is free");
}

async fn dropped_campaign(server: Server) {
    let mut client = connect(&server).await;
    let (first, second) = (
        client.lease_grant(600, None).await.expect("grant").id(),
        client.lease_grant(600, None).await.expect("grant").id(),
    );
    client.campaign("e", "one", first).await.expect("campaign");
    let mut other = client.clone();
    let waiting = tokio::spawn(async move { other.campaign("e", "two", second).await });
    until("the second candidate", async || queue(&client, "e/").await == 2).await;
    waiting.abort();
    until("the election without the second", async || queue(&client, "e/").await == 1).await;
}

async fn dropped_watch(server: Server) {
    let mut client = connect(&server).await;
    let mut stream = client.watch("a", None).await.expect("watch");
    stream.watch("b", None).await.expect("a second");
    for _ in 0..2 {
        assert!(next(&mut stream).await.created());
    }
    assert_eq!(watchers(&server).await, 2.0);
    drop(stream);
    until("the server to forget them", async || watchers(&server).await == 0.0).await;
    put(&mut client, &["a=1"]).await;
}

async fn closed_client(server: Server) {
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = connect(&server).await;
        let mut stream = client.watch("a", None).await.expect("watch");
        assert!(next(&mut stream).await.created());
        clients.push((client, stream));
    }
    assert_eq!(watchers(&server).await, 5.0);
    drop(clients);
    until("the server to forget them", async || watchers(&server).await == 0.0).await;
}

async fn no_server(server: Server) {
    let mut client = connect(&server).await;
    put(&mut client, &["a=1"]).await;
    server.act("kill").await;
    let failure = soon("a failure", client.get("a", None)).await.expect_err("nobody there");
    assert!(matches!(failure, Error::GRpcStatus(_) | Error::TransportError(_)), "{failure:?}");
    let fresh = Client::connect([&server.endpoint], None).await;
    if let Ok(mut fresh) = fresh {
        soon("a failure", fresh.get("a", None)).await.expect_err("nobody there");
    }
}
