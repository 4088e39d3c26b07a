//! A watch across restarts of the server. etcd-client leaves it to the application to open the next stream; this is what
//! such an application does, and it must see every event once.

use etcd_client::{Client, Compare, CompareOp, Txn, TxnOp, WatchOptions, WatchStream};
use tokio::sync::mpsc;

use crate::control::Server;
use crate::help::*;
use crate::suite::Case;

pub const CASES: &[Case] = &[
    crate::case!("reconnect/watch across a crash without loss or repeat", crash),
    crate::case!("reconnect/watch across an orderly restart", orderly),
    crate::case!("reconnect/the same client goes on after a restart", same_client),
];

const KEYS: usize = 600;

/// Creates keys one after the other, each exactly once whatever happens to the server; tells after each.
async fn write(client: Client, done: mpsc::Sender<usize>) {
    for n in 0..KEYS {
        let key = format!("k{n:04}");
        let txn = Txn::new()
            .when([Compare::version(key.as_str(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key.as_str(), n.to_string(), None)]);
        let written = async || client.clone().txn(txn.clone()).await.is_ok();
        until("a write", written).await;
        done.send(n).await.expect("somebody listens");
    }
}

/// A stream that begins at a revision, as soon as there is a server.
async fn open(client: &mut Client, from: i64) -> WatchStream {
    let deadline = tokio::time::Instant::now() + REPLY_TIMEOUT;
    loop {
        let options = WatchOptions::new().with_all_keys().with_start_revision(from);
        let failure = match client.watch("", Some(options)).await {
            Ok(mut stream) => match stream.message().await {
                Ok(Some(created)) if created.created() => return stream,
                other => format!("{other:?}"),
            },
            Err(error) => error.to_string(),
        };
        assert!(tokio::time::Instant::now() < deadline, "no stream: {failure}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Watches until all keys were seen; the numbers of breaks, and what was seen.
async fn watch(mut client: Client) -> (usize, Vec<String>) {
    let (mut breaks, mut from, mut seen) = (0, 1, Vec::new());
    while seen.len() < KEYS {
        let mut stream = open(&mut client, from).await;
        while seen.len() < KEYS {
            match soon("an event or the end of the stream", stream.message()).await {
                Ok(Some(response)) => {
                    assert!(!response.canceled(), "cancelled: {}", response.cancel_reason());
                    for event in response.events() {
                        let kv = event.kv().expect("an event has a key");
                        seen.push(text(kv.key()));
                        from = kv.mod_revision() + 1;
                    }
                }
                Ok(None) | Err(_) => {
                    breaks += 1;
                    break;
                }
            }
        }
    }
    (breaks, seen)
}

/// Restarts the server twice while keys are written and watched.
async fn restarts(server: Server, verb: &str) {
    let client = connect(&server).await;
    let watching = tokio::spawn(watch(client.clone()));
    let (sender, mut done) = mpsc::channel(KEYS);
    let writing = tokio::spawn(write(client, sender));
    while let Some(n) = done.recv().await {
        if n == KEYS / 3 || n == KEYS * 2 / 3 {
            server.act(verb).await;
            server.act("start").await;
        }
    }
    writing.await.expect("the writer");
    let (breaks, seen) = watching.await.expect("the watcher");
    let expected: Vec<String> = (0..KEYS).map(|n| format!("k{n:04}")).collect();
    assert!(seen == expected, "events were lost, repeated or mixed up: {seen:?}");
    assert!((1..=2).contains(&breaks), "two restarts broke the stream {breaks} times");
}

async fn crash(server: Server) {
    restarts(server, "kill").await;
}

async fn orderly(server: Server) {
    restarts(server, "stop").await;
}

async fn same_client(server: Server) {
    let mut client = connect(&server).await;
    put(&mut client, &["a=1"]).await;
    let lease = client.lease_grant(600, None).await.expect("grant").id();
    server.act("kill").await;
    refused(client.get("a", None).await);
    server.act("start").await;
    until("an answer", async || client.clone().get("a", None).await.is_ok()).await;
    let found = client.get("a", None).await.expect("get");
    assert_eq!(
        (pairs(found.kvs()), found.header().expect("a header").revision()),
        (vec!["a=1".to_owned()], 2)
    );
    assert_eq!(client.lease_time_to_live(lease, None).await.expect("time to live").granted_ttl(), 600);
}
