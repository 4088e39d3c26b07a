//! Watches from now on: order, boundaries, several on a stream, progress, ends.

use kvist::pb::rfc as pb;

use super::client::{brief, put_op, range_op, sound, start, tnx, watch, watch_from};

#[tokio::test]
async fn case_21_from_now_on() {
    let (_server, client) = start(&[]).await;
    client.put("foo0", "before").await;
    let base = client.index().await;
    for start in [None, Some(0), Some(-5)] {
        let mut watches =
            client.watching(pb::WatchRangeRequest { start_index: start, ..watch("foo", "fop") }).await;
        let written = client.put("foo1", "v").await - base;
        let message = watches.next().await;
        assert_eq!(message.events[0].event_type, Some(0), "zero is there");
        assert_eq!(brief(&message, base), format!("{written:+}: put foo1=v@{written:+} v{written}"));
    }
}

#[tokio::test]
async fn case_22_an_end_is_an_end() {
    let (_server, client) = start(&[]).await;
    let base = client.index().await;
    let bounded = pb::WatchRangeRequest { end_index: Some(base + 3), ..watch_from("foo", "", base + 1) };
    // Once from history, and once as it happens.
    let mut live = client.watching(bounded.clone()).await;
    for value in ["1", "2", "3"] {
        client.put("foo", value).await;
    }
    let mut late = client.watching(bounded).await;
    for watches in [&mut live, &mut late] {
        assert_eq!(watches.brief(base).await, "+1: put foo=1@+1 v1");
        assert_eq!(watches.brief(base).await, "+2: put foo=2@+2 v2");
        watches.half_close();
        watches.expect_end().await;
    }
}

/// An end is reached by whatever happens, not by changes of the watch's own keys only.
#[tokio::test]
async fn an_end_comes_with_the_changes_of_others() {
    let (_server, client) = start(&[]).await;
    let base = client.index().await;
    let mut watches = client.watches().await;
    let request = pb::WatchRangeRequest { end_index: Some(base + 3), ..watch_from("foo", "", base + 1) };
    let told = pb::WatchRangeRequest { progress_notification: Some(true), ..request.clone() };
    watches.open(request).await;
    watches.open(told).await;
    watches.half_close();
    client.put("other", "1").await;
    client.put("other", "2").await;
    // Of the two, the one that asked for it hears that it has seen everything.
    assert_eq!(watches.brief(base).await, "+2: ");
    watches.expect_end().await;
}

#[tokio::test]
async fn ends_that_leave_nothing() {
    let (_server, client) = start(&[]).await;
    let base = client.put("foo", "1").await;
    let mut watches = client.watches().await;
    for (from, to) in [(base, base), (base + 5, base), (base + 5, base + 5)] {
        let request = pb::WatchRangeRequest {
            end_index: Some(to),
            progress_notification: Some(true),
            ..watch_from("foo", "", from)
        };
        watches.open(request).await;
    }
    let over = pb::WatchRangeRequest { end_index: Some(base), ..watch("foo", "") };
    watches.open(over).await;
    client.put("foo", "2").await;
    watches.half_close();
    watches.expect_end().await;
    // Nothing was ever asked for.
    let mut idle = client.watches().await;
    idle.half_close();
    idle.expect_end().await;
}

/// A half-closed stream goes on while a watch does.
#[tokio::test]
async fn a_stream_may_be_half_closed() {
    let (_server, client) = start(&[]).await;
    let base = client.index().await;
    let bounded = pb::WatchRangeRequest { end_index: Some(base + 4), ..watch("k", "") };
    let mut watches = client.watching(bounded).await;
    watches.half_close();
    for n in 1..=3 {
        client.put("k", "v").await;
        assert_eq!(watches.brief(base).await, format!("+{n}: put k=v@+{n} v{n}"));
    }
    watches.expect_end().await;
}

#[tokio::test]
async fn case_23_a_start_to_come() {
    let (_server, client) = start(&[]).await;
    let base = client.index().await;
    let mut watches = client.watching(watch_from("k", "", base + 50)).await;
    for _ in 0..51 {
        client.put("k", "v").await;
    }
    assert_eq!(watches.brief(base).await, "+50: put k=v@+50 v50");
    assert_eq!(watches.brief(base).await, "+51: put k=v@+51 v51");
}

#[tokio::test]
async fn case_24_25_one_message_a_watch_and_an_index() {
    let (_server, client) = start(&[]).await;
    let base = client.index().await;
    let mut watches = client.watches().await;
    watches.open(watch("a", "b")).await;
    watches.open(watch("b", "c")).await;
    client.tnx(tnx([], [put_op("a1", "x"), put_op("b1", "y")], [])).await;
    let mut seen = [watches.brief(base).await, watches.brief(base).await];
    seen.sort();
    assert_eq!(seen, ["+1: put a1=x@+1 v1", "+1: put b1=y@+1 v1"]);

    // Order is that of the operations.
    client.tnx(tnx([], [put_op("a2", "x"), range_op("a", "c"), put_op("a1", "z")], [])).await;
    assert_eq!(watches.brief(base).await, "+2: put a2=x@+2 v1, put a1=z@+2 v2");

    // Watches of the same keys have a copy each.
    watches.open(watch("a1", "")).await;
    client.put("a1", "w").await;
    for _ in 0..2 {
        assert_eq!(watches.brief(base).await, "+3: put a1=w@+3 v3");
    }
}

#[tokio::test]
async fn case_27_progress_while_nothing_happens() {
    let (_server, client) = start(&["--watch-progress-notify-interval=100ms"]).await;
    let base = client.put("other", "v").await;
    let told = |request| pb::WatchRangeRequest { progress_notification: Some(true), ..request };
    let mut watches = client.watching(told(watch("k", ""))).await;
    let message = watches.next().await;
    assert_eq!((sound(&message.header), message.events.len()), (base, 0));
    client.put("other", "w").await;
    let mut index = base;
    while index < base + 1 {
        let message = watches.next().await;
        assert!(message.events.is_empty() && sound(&message.header) >= index, "{message:?}");
        index = sound(&message.header);
    }
    assert_eq!(index, base + 1);
}

#[tokio::test]
async fn progress_when_history_has_been_told() {
    let (_server, client) = start(&[]).await;
    let base = client.index().await;
    client.put("k", "1").await;
    client.put("other", "2").await;
    let told = pb::WatchRangeRequest { progress_notification: Some(true), ..watch_from("k", "", base + 1) };
    let mut watches = client.watches().await;
    watches.send(told).await;
    assert_eq!(watches.brief(base).await, "+1: put k=1@+1 v1");
    assert_eq!(watches.brief(base).await, "+2: ");
    client.put("k", "3").await;
    assert_eq!(watches.brief(base).await, "+3: put k=3@+3 v2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_streams() {
    let (mut server, client) = start(&[]).await;
    let mut watching = client.watching(watch("k", "")).await;
    let mut idle = client.watches().await;
    let mut renewing = client.keep_alives().await;
    tokio::task::block_in_place(|| server.terminate());
    for watches in [&mut watching, &mut idle] {
        let status = watches.try_next().await.expect_err("the server stops");
        assert_eq!(
            (status.code(), status.message()),
            (tonic::Code::Unavailable, "etcdserver: server stopped")
        );
    }
    let end = renewing.try_next().await;
    assert!(!matches!(end, Ok(Some(_))), "{end:?}");
}
