//! Watches of keys, paths and the membership, and what becomes of them when the server stops.

use std::collections::BTreeMap;

use d_engine_client::protocol::WatchEventType;
use d_engine_client::{ClientApi, ErrorCode};
use serde_json::json;

use crate::control::{Server, http};
use crate::help::{code, connect, delete, event, eventually, next, put, text};
use crate::suite::Case;

pub const CASES: &[Case] = &[
    crate::case!("watch/a key", key),
    crate::case!("watch/a path", path),
    crate::case!("watch/what is no path", no_path),
    crate::case!("watch/nothing after the call is missed", nothing_missed),
    crate::case!("watch/a quiet watch lives on", quiet, ["--watch-progress-notify-interval=500ms"]),
    crate::case!("watch/a cache of a scan and a watch", cache),
    crate::case!("watch/the membership", membership),
    crate::case!("reconnect/a stop ends the watch", stopped),
    crate::case!("reconnect/a crash ends the watch", crashed),
];

async fn key(server: Server) {
    let client = connect(&server).await;
    let mut watch = client.watch("k").await.expect("watch");
    client.put("k", "1").await.expect("put");
    client.put("kk", "no").await.expect("put");
    client.delete("k").await.expect("delete");
    client.compare_and_swap("k", Some("x"), "no").await.expect("swap");
    client.compare_and_swap("k", None::<&str>, "2").await.expect("swap");
    assert_eq!(event(&mut watch).await, put("k", "1"));
    assert_eq!(event(&mut watch).await, delete("k"));
    assert_eq!(event(&mut watch).await, put("k", "2"));
}

async fn path(server: Server) {
    let client = connect(&server).await;
    let mut watch = client.watch_prefix("/a/").await.expect("watch");
    for key in ["/a", "/b/c", "/a/", "/a/b", "/a/b/c"] {
        client.put(key, "1").await.expect("put");
    }
    for key in ["/a/", "/a/b", "/a/b/c"] {
        assert_eq!(event(&mut watch).await, put(key, "1"));
    }
}

async fn no_path(server: Server) {
    let client = connect(&server).await;
    for prefix in ["a/", "/a", ""] {
        let refused = client.watch_prefix(prefix).await.expect_err("no path");
        assert_eq!(code(&refused), ErrorCode::InvalidRequest, "{prefix:?}");
    }
}

async fn nothing_missed(server: Server) {
    let client = connect(&server).await;
    for n in 0..100 {
        let key = format!("/n/{n}");
        let mut watch = client.watch(&key).await.expect("watch");
        client.put(&key, "1").await.expect("put");
        assert_eq!(event(&mut watch).await, put(&key, "1"));
    }
}

/// The client gives a call three seconds, but a stream that has begun goes on.
async fn quiet(server: Server) {
    let client = connect(&server).await;
    let mut watch = client.watch("k").await.expect("watch");
    for _ in 0..8 {
        let message = next(&mut watch).await.expect("no end").expect("a message");
        assert_eq!(message.event_type(), WatchEventType::Progress);
        assert!(message.revision > 0);
    }
    client.put("k", "1").await.expect("put");
    assert_eq!(event(&mut watch).await, put("k", "1"));
}

async fn cache(server: Server) {
    let client = connect(&server).await;
    let mut watch = client.watch_prefix("/c/").await.expect("watch");
    let writer = connect(&server).await;
    let writer = tokio::spawn(async move {
        for n in 0..200 {
            writer.put(format!("/c/{}", n % 5), n.to_string()).await.expect("put");
            if n % 3 == 0 {
                writer.delete(format!("/c/{}", n % 5)).await.expect("delete");
            }
        }
        writer.put("/c/end", "end").await.expect("put");
    });
    let found = client.scan_prefix("/c/").await.expect("scan");
    let entries = found.entries.iter().map(|(key, value)| (text(key), text(value)));
    let mut cache: BTreeMap<String, String> = entries.collect();
    while !cache.contains_key("/c/end") {
        let message = next(&mut watch).await.expect("no end").expect("a message");
        if message.revision <= found.revision {
            continue;
        }
        match message.event_type() {
            WatchEventType::Put => drop(cache.insert(text(&message.key), text(&message.value))),
            WatchEventType::Delete => drop(cache.remove(&text(&message.key))),
            _ => {}
        }
    }
    writer.await.expect("the writer");
    let entries = client.scan_prefix("/c/").await.expect("scan").entries;
    let entries = entries.iter().map(|(key, value)| (text(key), text(value)));
    assert_eq!(cache, entries.collect());
}

async fn membership(server: Server) {
    let client = connect(&server).await;
    let mut stream = client.watch_membership().await.expect("watch membership");
    let first = next(&mut stream).await.expect("no end").expect("a snapshot");
    let leader = client.get_leader_id().await.expect("the leader").expect("there is one");
    assert_eq!((first.members, first.learners), (vec![leader], Vec::new()));
    // etcd's API adds a learner, which need not start for that.
    let learner = json!({ "peerURLs": ["http://127.0.0.1:1"], "isLearner": true }).to_string();
    let address = format!("127.0.0.1:{}", server.port);
    let (status, answer) = http(&address, "POST", "/v3/cluster/member/add", &learner).await;
    assert_eq!(status, 200, "{answer}");
    let second = next(&mut stream).await.expect("no end").expect("a snapshot");
    assert!(second.committed_index > first.committed_index && second.committed_index > 0);
    assert_eq!((second.members, second.learners.len()), (vec![leader], 1));
}

async fn stopped(server: Server) {
    ends_by(server, "stop").await;
}

async fn crashed(server: Server) {
    ends_by(server, "kill").await;
}

/// A watch ends with an error; after `refresh`, the application scans and watches anew.
async fn ends_by(server: Server, verb: &str) {
    let client = connect(&server).await;
    let mut watch = client.watch("/r/k").await.expect("watch");
    let mut members = client.watch_membership().await.expect("watch membership");
    next(&mut members).await.expect("no end").expect("a snapshot");
    client.put("/r/k", "1").await.expect("put");
    assert_eq!(event(&mut watch).await, put("/r/k", "1"));
    server.act(verb).await;
    let end = next(&mut watch).await.expect_err("the end of the watch");
    let end_of_members = next(&mut members).await.expect_err("the end of the stream");
    if verb == "stop" {
        assert_eq!([end.code(), end_of_members.code()], [tonic::Code::Unavailable; 2]);
    }
    server.act("start").await;
    eventually("the client to find the server", || async { client.refresh(None).await.ok() }).await;
    let mut watch = client.watch("/r/k").await.expect("watch");
    assert_eq!(client.scan_prefix("/r/").await.expect("scan").entries, [("/r/k".into(), "1".into())]);
    client.put("/r/k", "2").await.expect("put");
    assert_eq!(event(&mut watch).await, put("/r/k", "2"));
}
