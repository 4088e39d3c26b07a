//! Watches: what they see from when on, and how they end.

use etcd_client::{DeleteOptions, EventType, PutOptions, Txn, TxnOp, WatchFilterType, WatchOptions};

use crate::control::Server;
use crate::help::*;
use crate::suite::Case;

pub const CASES: &[Case] = &[
    crate::case!("watch/from now on, with previous pairs", from_now),
    crate::case!("watch/replay from a revision, then go on", replay),
    crate::case!("watch/from a future revision", future),
    crate::case!("watch/point, range, prefix, from a key, all", ranges),
    crate::case!("watch/filters", filters),
    crate::case!("watch/events of a transaction come together", transaction),
    crate::case!("watch/many watchers on one stream", many),
    crate::case!("watch/ids, cancel, and an id twice", ids),
    crate::case!("watch/progress by request", progress),
    crate::case!("watch/progress by itself", progress_notify, ["--watch-progress-notify-interval=200ms"]),
    crate::case!("watch/large events in fragments", fragments),
    crate::case!("watch/start at a compacted revision", compacted),
    crate::case!("watch/an expired lease", expired_lease),
];

async fn from_now(server: Server) {
    let mut client = connect(&server).await;
    put(&mut client, &["a=0"]).await;
    let options = WatchOptions::new().with_prev_key();
    let mut stream = client.watch("a", Some(options)).await.expect("watch");
    let created = next(&mut stream).await;
    assert!(created.created() && !created.canceled() && created.events().is_empty());
    assert_eq!((created.watch_id(), created.header().expect("a header").revision()), (0, 2));
    put(&mut client, &["a=1", "b=2", "a=3"]).await;
    client.delete("a", None).await.expect("delete");
    put(&mut client, &["a=4"]).await;
    let expected = [("put a=1 @3", "0"), ("put a=3 @5", "1"), ("delete a @6", "3"), ("put a=4 @7", "")];
    for (event, previous) in expected {
        let response = next(&mut stream).await;
        assert_eq!(events(&response), [event]);
        let value = response.events()[0].prev_kv().map_or(String::new(), |kv| text(kv.value()));
        assert_eq!(value, previous, "before {event}");
    }
}

async fn replay(server: Server) {
    let mut client = connect(&server).await;
    put(&mut client, &["a=1", "b=2", "a=3"]).await;
    client.delete("b", None).await.expect("delete");
    let options = WatchOptions::new().with_all_keys().with_start_revision(3);
    let mut stream = client.watch("", Some(options)).await.expect("watch");
    assert!(next(&mut stream).await.created());
    assert_eq!(next_events(&mut stream, 3).await, ["put b=2 @3", "put a=3 @4", "delete b @5"]);
    put(&mut client, &["c=4"]).await;
    assert_eq!(next_events(&mut stream, 1).await, ["put c=4 @6"]);
}

async fn future(server: Server) {
    let mut client = connect(&server).await;
    let options = WatchOptions::new().with_all_keys().with_start_revision(4);
    let mut stream = client.watch("", Some(options)).await.expect("watch");
    assert!(next(&mut stream).await.created());
    put(&mut client, &["a=1", "a=2", "a=3", "a=4"]).await;
    assert_eq!(next_events(&mut stream, 2).await, ["put a=3 @4", "put a=4 @5"]);
}

async fn ranges(server: Server) {
    let mut client = connect(&server).await;
    put(&mut client, &["a=1", "a/x=2", "b=3", "c=4"]).await;
    for (key, options, expected) in [
        ("a", WatchOptions::new(), &["put a=1 @2"][..]),
        ("a/", WatchOptions::new().with_prefix(), &["put a/x=2 @3"]),
        ("a/x", WatchOptions::new().with_range("c"), &["put a/x=2 @3", "put b=3 @4"]),
        ("b", WatchOptions::new().with_from_key(), &["put b=3 @4", "put c=4 @5"]),
        (
            "",
            WatchOptions::new().with_all_keys(),
            &["put a=1 @2", "put a/x=2 @3", "put b=3 @4", "put c=4 @5"],
        ),
    ] {
        let options = options.with_start_revision(1);
        let mut stream = client.watch(key, Some(options)).await.expect("watch");
        assert!(next(&mut stream).await.created());
        assert_eq!(next_events(&mut stream, expected.len()).await, expected, "{key}");
    }
}

async fn filters(server: Server) {
    let mut client = connect(&server).await;
    put(&mut client, &["a=1", "a=2"]).await;
    client.delete("a", None).await.expect("delete");
    put(&mut client, &["end=1"]).await;
    client.delete("end", None).await.expect("delete");
    for (filter, expected) in [
        (WatchFilterType::NoPut, &["delete a @4", "delete end @6"][..]),
        (WatchFilterType::NoDelete, &["put a=1 @2", "put a=2 @3", "put end=1 @5"]),
    ] {
        let options = WatchOptions::new().with_all_keys().with_start_revision(1).with_filters([filter]);
        let mut stream = client.watch("", Some(options)).await.expect("watch");
        assert!(next(&mut stream).await.created());
        assert_eq!(next_events(&mut stream, expected.len()).await, expected, "{filter:?}");
    }
}

async fn transaction(server: Server) {
    let mut client = connect(&server).await;
    put(&mut client, &["b=0", "c=0"]).await;
    let options = WatchOptions::new().with_all_keys();
    let mut stream = client.watch("", Some(options)).await.expect("watch");
    assert!(next(&mut stream).await.created());
    let delete = TxnOp::delete("b", Some(DeleteOptions::new().with_from_key()));
    let txn = Txn::new().and_then([TxnOp::put("a", "1", None), delete]);
    client.txn(txn).await.expect("txn");
    let response = next(&mut stream).await;
    assert_eq!(events(&response), ["put a=1 @4", "delete b @4", "delete c @4"]);
    assert_eq!(response.header().expect("a header").revision(), 4);
}

async fn many(server: Server) {
    const COUNT: i64 = 100;
    let mut client = connect(&server).await;
    let mut stream = client.watch("k0", None).await.expect("watch");
    for n in 1..COUNT {
        stream.watch(format!("k{n}"), None).await.expect("one more");
    }
    for n in 0..COUNT {
        let created = next(&mut stream).await;
        assert!(created.created() && created.watch_id() == n, "{created:?}");
    }
    for n in 0..COUNT {
        client.put(format!("k{n}"), n.to_string(), None).await.expect("put");
    }
    for n in 0..COUNT {
        let response = next(&mut stream).await;
        assert_eq!(response.watch_id(), n);
        assert_eq!(events(&response), [format!("put k{n}={n} @{}", n + 2)]);
    }
}

async fn ids(server: Server) {
    let mut client = connect(&server).await;
    let mut stream = client.watch("a", Some(WatchOptions::new().with_watch_id(7))).await.expect("watch");
    let created = next(&mut stream).await;
    assert!(created.created() && created.watch_id() == 7);
    stream.watch("b", None).await.expect("a second");
    assert_eq!(next(&mut stream).await.watch_id(), 0);
    stream.watch("c", Some(WatchOptions::new().with_watch_id(7))).await.expect("an id twice");
    let refused = next(&mut stream).await;
    assert!(refused.created() && refused.canceled() && refused.watch_id() == -1, "{refused:?}");
    assert_eq!(refused.cancel_reason(), "mvcc: duplicate watch ID provided on the WatchStream");
    stream.cancel(7).await.expect("cancel");
    let canceled = next(&mut stream).await;
    assert!(canceled.canceled() && canceled.watch_id() == 7 && canceled.compact_revision() == 0);
    put(&mut client, &["a=1", "b=2"]).await;
    let response = next(&mut stream).await;
    assert_eq!((response.watch_id(), events(&response)), (0, vec!["put b=2 @3".to_owned()]));
}

async fn progress(server: Server) {
    let mut client = connect(&server).await;
    let mut stream = client.watch("a", None).await.expect("watch");
    assert!(next(&mut stream).await.created());
    let revision = put(&mut client, &["b=1", "b=2"]).await;
    // A server that has not caught up says nothing; so ask again until one is new enough.
    loop {
        stream.request_progress().await.expect("request progress");
        let response = next(&mut stream).await;
        assert!(response.events().is_empty() && response.watch_id() == -1, "{response:?}");
        if response.header().expect("a header").revision() == revision {
            break;
        }
    }
}

async fn progress_notify(server: Server) {
    let mut client = connect(&server).await;
    let options = WatchOptions::new().with_progress_notify();
    let mut stream = client.watch("a", Some(options)).await.expect("watch");
    assert!(next(&mut stream).await.created());
    let revision = put(&mut client, &["b=1", "b=2"]).await;
    loop {
        let response = next(&mut stream).await;
        assert!(response.events().is_empty() && response.watch_id() == 0, "{response:?}");
        if response.header().expect("a header").revision() == revision {
            break;
        }
    }
}

/// Together more than the 2 MiB of one message.
async fn fragments(server: Server) {
    const COUNT: usize = 10;
    let mut client = connect(&server).await;
    let value = "v".repeat(700_000);
    for n in 0..COUNT {
        client.put(format!("k{n}"), value.as_str(), None).await.expect("put");
    }
    let options = WatchOptions::new().with_all_keys().with_start_revision(1).with_fragment();
    let mut stream = client.watch("", Some(options)).await.expect("watch");
    assert!(next(&mut stream).await.created());
    let (mut seen, mut responses) = (Vec::new(), 0);
    while seen.len() < COUNT {
        let response = next(&mut stream).await;
        responses += 1;
        for event in response.events() {
            let kv = event.kv().expect("an event has a key");
            assert!(event.event_type() == EventType::Put && kv.value() == value.as_bytes());
            seen.push((text(kv.key()), kv.mod_revision()));
        }
    }
    let expected: Vec<_> = (0..COUNT).map(|n| (format!("k{n}"), n as i64 + 2)).collect();
    assert_eq!(seen, expected);
    assert!(responses > 1, "more than one message can hold");
}

async fn compacted(server: Server) {
    let mut client = connect(&server).await;
    put(&mut client, &["a=1", "a=2", "a=3", "a=4"]).await;
    client.compact(4, None).await.expect("compact");
    let mut stream =
        client.watch("a", Some(WatchOptions::new().with_start_revision(2))).await.expect("watch");
    assert!(next(&mut stream).await.created());
    let canceled = next(&mut stream).await;
    assert!(canceled.canceled() && canceled.events().is_empty());
    assert_eq!(canceled.compact_revision(), 4);
    // The stream is still good, and the revision that it named is the oldest to start from.
    let options = WatchOptions::new().with_start_revision(canceled.compact_revision()).with_watch_id(5);
    stream.watch("a", Some(options)).await.expect("again");
    assert!(next(&mut stream).await.created());
    assert_eq!(next_events(&mut stream, 2).await, ["put a=3 @4", "put a=4 @5"]);
}

async fn expired_lease(server: Server) {
    let mut client = connect(&server).await;
    let mut stream =
        client.watch("", Some(WatchOptions::new().with_all_keys().with_prev_key())).await.expect("watch");
    assert!(next(&mut stream).await.created());
    let lease = client.lease_grant(1, None).await.expect("grant").id();
    for key in ["b", "a"] {
        client.put(key, "1", Some(PutOptions::new().with_lease(lease))).await.expect("put");
    }
    assert_eq!(next_events(&mut stream, 2).await, ["put b=1 @2", "put a=1 @3"]);
    let response = next(&mut stream).await;
    assert_eq!(events(&response), ["delete a @4", "delete b @4"]);
    assert_eq!(response.events()[0].prev_kv().expect("the previous pair").lease(), lease);
}
