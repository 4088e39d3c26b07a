//! Watches: what they match, what they tell, in which order, and how they end.

use super::client::{own, refused, shared, swap};
use kvist::pb::d_engine::client::WatchEventType as Kind;
use kvist::pb::d_engine::client::{self as pb};
use kvist::pb::d_engine::error::ErrorCode;
use kvist::pb::etcdserverpb as etcd;
use std::time::{Duration, Instant};
use tonic::Code;

#[tokio::test]
async fn a_watch_of_a_key_tells_every_change_of_it() {
    let client = shared();
    client.put("/wa/k", "before").await;
    let mut watch = client.watch("/wa/k").await;
    client.put("/wa/k", "1").await;
    client.put("/wa/kk", "another").await;
    client.put("/wa/k", "1").await;
    client.delete("/wa/k").await;
    client.delete("/wa/k").await;
    assert!(!client.write(swap("/wa/k", Some("x"), "y")).await);
    assert!(client.write(swap("/wa/k", None, "2")).await);
    let first = watch.expect_put("/wa/k", "1").await;
    let second = watch.expect_put("/wa/k", "1").await;
    let third = watch.expect_delete("/wa/k").await;
    let fourth = watch.expect_put("/wa/k", "2").await;
    assert!(first < second && second < third && third < fourth);
}

#[tokio::test]
async fn a_watch_of_a_prefix_is_about_a_path() {
    let client = shared();
    let mut watch = client.watch_prefix("/wp/a/").await;
    let mut root = client.watch_prefix("/").await;
    for key in ["/wp/a", "/wp/b/x", "/wp/a0", "/wp/a/", "/wp/a/b/c", "/wp/a/\u{7f}"] {
        client.put(key, "v").await;
    }
    for key in ["/wp/a/", "/wp/a/b/c", "/wp/a/\u{7f}"] {
        watch.expect_put(key, "v").await;
    }
    // Other tests write below the root as well.
    loop {
        if root.told().await.1 == "/wp/a/b/c" {
            break;
        }
    }
}

#[tokio::test]
async fn what_is_no_path_or_no_key_is_refused_before_the_stream() {
    let client = shared();
    for wrong in ["", "wx/", "/wx", "wx"] {
        let text = refused(client.try_watch(wrong, true, false).await.map(drop), Code::InvalidArgument);
        assert_eq!(text, "the prefix to watch must begin and end with '/'");
    }
    refused(client.try_watch("", false, false).await.map(drop), Code::InvalidArgument);
    // A key that is not a path is a key.
    let mut watch = client.watch("wx").await;
    client.put("wx", "1").await;
    watch.expect_put("wx", "1").await;
}

#[tokio::test]
async fn the_value_before_is_told_if_asked_for() {
    let client = shared();
    let mut asked = client.try_watch("/wv/k", false, true).await.expect("watch");
    let mut silent = client.watch("/wv/k").await;
    client.put("/wv/k", "1").await;
    client.put("/wv/k", "2").await;
    client.delete("/wv/k").await;
    let told = |kind: Kind, value: &str, before: &str| (kind, "/wv/k".into(), value.into(), before.into());
    for (kind, value, before) in [(Kind::Put, "1", ""), (Kind::Put, "2", "1"), (Kind::Delete, "", "2")] {
        assert_eq!(asked.told().await, told(kind, value, before));
        assert_eq!(silent.told().await, told(kind, value, ""));
    }
}

/// Headers come before any event, and whatever is written after them is told: the crate gives up after three seconds.
#[tokio::test]
async fn the_answer_begins_at_once_and_nothing_after_it_is_missed() {
    let client = shared();
    for n in 0..100 {
        let key = format!("/wh/{n}");
        let begin = Instant::now();
        let mut watch = client.watch(&key).await;
        assert!(begin.elapsed() < Duration::from_secs(2));
        client.put(key.clone(), "1").await;
        watch.expect_put(&key, "1").await;
    }
}

#[tokio::test]
async fn events_of_one_transaction_come_one_by_one_with_one_revision() {
    let client = shared();
    let mut watch = client.watch_prefix("/wt/").await;
    let put = |key: &str| etcd::RequestOp {
        request: Some(etcd::request_op::Request::RequestPut(etcd::PutRequest {
            key: key.into(),
            value: b"v".to_vec(),
            ..Default::default()
        })),
    };
    let success = vec![put("/wt/b"), put("/wt/a")];
    let txn = etcd::TxnRequest { success, ..Default::default() };
    client.etcd.kv.clone().txn(txn).await.expect("txn");
    let first = watch.expect_put("/wt/b", "v").await;
    assert_eq!(watch.expect_put("/wt/a", "v").await, first);
}

#[tokio::test]
async fn progress_has_the_revision_of_the_store() {
    let client = own(&["--watch-progress-notify-interval=100ms"]);
    let mut watch = client.watch("/k").await;
    let progress = |message: pb::WatchResponse| {
        assert_eq!((message.event_type(), message.key.len(), message.error), (Kind::Progress, 0, 0));
        message.revision
    };
    assert_eq!(progress(watch.next().await.expect("no end").expect("a message")), 1);
    client.put("/other", "1").await;
    let mut seen = 1;
    while seen < 2 {
        seen = progress(watch.next().await.expect("no end").expect("a message"));
    }
    // It never overtakes an event, and comes to busy watchers as well.
    let mut busy = client.watch("/k").await;
    let writer = {
        let client = super::client::Client::of(&client.server.url());
        tokio::spawn(async move {
            for n in 0..1000 {
                client.put("/k", n.to_string()).await;
            }
        })
    };
    let (mut last, mut puts, mut told) = (0, 0, 0);
    while puts < 1000 || told == 0 {
        let message = busy.next().await.expect("no end").expect("a message");
        match message.event_type() {
            Kind::Put => {
                assert!(message.revision > last);
                puts += 1;
            }
            _ => {
                assert!(message.revision >= last);
                told += 1;
            }
        }
        last = message.revision;
    }
    writer.await.expect("all written");
}

/// A client that does not read costs nobody anything and loses nothing: there is no overflow that would end its watch.
#[tokio::test]
async fn a_slow_watch_loses_nothing() {
    let client = own(&[]);
    let mut watch = client.watch_prefix("/slow/").await;
    let value = "v".repeat(200_000);
    for n in 0..150 {
        client.put(format!("/slow/{n:03}"), value.clone()).await;
    }
    for n in 0..150 {
        watch.expect_put(&format!("/slow/{n:03}"), &value).await;
    }
}

/// Only history that is compacted before a slow client gets there is lost, and it is told so.
#[tokio::test]
async fn a_watch_that_is_overtaken_by_a_compaction_is_canceled() {
    let client = own(&[]);
    let mut watch = client.watch_prefix("/slow/").await;
    let value = "v".repeat(200_000);
    for n in 0..300 {
        client.put(format!("/slow/{}", n % 10), value.clone()).await;
    }
    let compact = etcd::CompactionRequest { revision: 301, physical: true };
    client.etcd.kv.clone().compact(compact).await.expect("compact");
    let mut last = 0;
    let canceled = loop {
        let message = watch.event().await;
        match message.event_type() {
            Kind::Put => {
                assert_eq!(message.revision, if last == 0 { 2 } else { last + 1 });
                last = message.revision;
            }
            _ => break message,
        }
    };
    assert_eq!((canceled.event_type(), canceled.error()), (Kind::Canceled, ErrorCode::WatchBufferOverflow));
    assert_eq!((canceled.revision, canceled.key.len(), canceled.value.len()), (301, 0, 0));
    assert!(last < 301);
    refused(watch.next().await, Code::Unavailable);
    // The recipe: read everything, and watch again.
    let mut again = client.watch_prefix("/slow/").await;
    assert_eq!(client.scan("/slow/").await.0.len(), 10);
    client.put("/slow/0", "new").await;
    again.expect_put("/slow/0", "new").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_with_the_server() {
    let mut client = own(&[]);
    let mut watch = client.watch("/k").await;
    let mut memberships = client.memberships().await;
    assert_eq!(memberships.message().await.expect("no end").expect("a snapshot").members.len(), 1);
    let server = std::sync::Arc::get_mut(&mut client.server).expect("a server of one's own");
    let stopped = tokio::task::block_in_place(|| server.terminate());
    assert!(!stopped.success(), "it ends by the signal");
    refused(watch.next().await, Code::Unavailable);
    refused(memberships.message().await, Code::Unavailable);
}
