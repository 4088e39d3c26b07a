//! Watch progress, contract 1.8 rows W-16, W-17 and W-22: timed notices and answers to progress requests.

use std::time::{Duration, Instant};

use kvist::pb::etcdserverpb as pb;

use crate::support::Server;
use crate::watch_client::{Clients, REPLY_TIMEOUT, watch_key, watch_range};

/// W-22: the shape by which clients recognise progress.
fn progress_revision(response: &pb::WatchResponse) -> Option<i64> {
    let revision = response.header.as_ref().expect("header").revision;
    let shape = response.events.is_empty() && !response.created && !response.canceled;
    (shape && response.compact_revision == 0 && revision != 0).then_some(revision)
}

fn timed(key: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { progress_notify: true, ..watch_key(key) }
}

/// W-16, W-22, trap 6: an idle watcher hears the current revision each interval, one that asked for nothing does not.
#[tokio::test]
async fn w_16_timed_progress_of_an_idle_watcher() {
    let server = Server::start_with(&["--watch-progress-notify-interval=1s"]);
    let clients = Clients::connect(&server).await;
    let mut stream = clients.watch_stream();
    let silent = stream.create(watch_key("idle")).await.watch_id;
    let notified = stream.create(timed("idle")).await.watch_id;
    let start = Instant::now();
    clients.put("other", "").await;
    clients.put("other", "").await;
    for tick in 1..=2 {
        let response = stream.next().await;
        assert_ne!(response.watch_id, silent);
        assert_eq!((response.watch_id, progress_revision(&response)), (notified, Some(3)));
        let elapsed = start.elapsed();
        // The stream may be a little older than `start`; an interval is 1 s and up to 10 % of jitter.
        let (low, high) = (Duration::from_millis(850), Duration::from_millis(1100 + 700));
        assert!(elapsed >= low * tick && elapsed <= high * tick, "tick {tick} after {elapsed:?}");
    }
}

/// W-16: a watcher that has had events since the last tick is skipped once.
#[tokio::test]
async fn w_16_busy_watcher_is_skipped_once() {
    let server = Server::start_with(&["--watch-progress-notify-interval=500ms"]);
    let clients = Clients::connect(&server).await;
    let mut stream = clients.watch_stream();
    let idle = stream.create(timed("idle")).await.watch_id;
    let busy = stream.create(timed("busy")).await.watch_id;
    clients.put("busy", "").await;
    assert_eq!(stream.briefs(1).await, ["put busy=@2"]);
    let mut order = Vec::new();
    while !order.contains(&busy) {
        let response = stream.next().await;
        assert_eq!(progress_revision(&response), Some(2), "{response:?}");
        order.push(response.watch_id);
    }
    assert_eq!(order[0], idle, "the first tick reaches the idle watcher only: {order:?}");
    assert!(order.len() <= 3, "the busy watcher is skipped once, not for ever: {order:?}");
}

/// W-17: one answer with watch_id -1 for the whole stream; none for a stream without watchers.
#[tokio::test]
async fn w_17_progress_request() {
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    let mut stream = clients.watch_stream();
    stream.request_progress().await; // no watcher, so no answer
    stream.create(watch_key("a")).await;
    stream.create(watch_key("b")).await;
    clients.put("other", "").await;
    stream.request_progress().await;
    let response = stream.next().await;
    assert_eq!((response.watch_id, progress_revision(&response)), (-1, Some(2)));
    clients.put("a", "1").await;
    assert_eq!(stream.briefs(1).await, ["put a=1@3"]);
}

/// W-17: a watcher that waits for a future revision holds back the progress of its stream.
#[tokio::test]
async fn w_17_future_watcher_holds_back_progress() {
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    let mut stream = clients.watch_stream();
    stream.create(watch_key("a")).await;
    let future = pb::WatchCreateRequest { start_revision: 1000, ..watch_key("a") };
    let future = stream.create(future).await.watch_id;
    stream.request_progress().await; // dropped
    stream.cancel(future).await;
    assert!(stream.next().await.canceled);
    stream.request_progress().await;
    let response = stream.next().await;
    assert_eq!((response.watch_id, progress_revision(&response)), (-1, Some(1)));
    clients.put("a", "1").await;
    assert_eq!(stream.briefs(1).await, ["put a=1@2"], "the dropped request is not answered later");
}

/// W-17, trap 4 (etcd 17507): a watcher created at an old revision with nothing to deliver gets its progress soon.
#[tokio::test]
async fn w_17_old_watcher_with_nothing_to_deliver() {
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    for _ in 0..5 {
        clients.put("other", "").await;
    }
    let mut stream = clients.watch_stream();
    stream.create(pb::WatchCreateRequest { start_revision: 2, ..watch_key("quiet") }).await;
    let deadline = Instant::now() + REPLY_TIMEOUT;
    let answer = loop {
        stream.request_progress().await;
        if let Some(response) = stream.next_within(Duration::from_millis(100)).await {
            break response;
        }
        assert!(Instant::now() < deadline, "no progress for a watcher with nothing to deliver");
    };
    assert_eq!((answer.watch_id, progress_revision(&answer)), (-1, Some(6)));
}

/// W-17, trap 3 (etcd 15220): under load, progress at R comes after every event up to R of every watcher.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w_17_progress_never_overtakes_events() {
    const WRITES: usize = 1500;
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    let mut stream = clients.watch_stream();
    for key in ["a", "b", "c"] {
        stream.create(watch_range(key, "z")).await;
    }
    let writer = clients.clone();
    let writes = tokio::spawn(async move {
        for i in 0..WRITES {
            writer.put("d", i.to_string()).await;
        }
    });
    // Every revision is a put of "d", so each watcher must have seen all revisions up to the one of the progress.
    let mut seen = [1_i64; 3];
    let mut answers = 0;
    let last = i64::try_from(WRITES).expect("a small number") + 1;
    stream.request_progress().await;
    while seen.iter().any(|r| *r < last) {
        let response = stream.next().await;
        if let Some(revision) = progress_revision(&response) {
            assert_eq!(response.watch_id, -1);
            assert!(seen.iter().all(|r| *r >= revision), "progress {revision} overtook events {seen:?}");
            answers += 1;
        }
        for event in &response.events {
            let slot = &mut seen[usize::try_from(response.watch_id).expect("an id")];
            assert_eq!(event.kv.as_ref().expect("kv").mod_revision, *slot + 1);
            *slot += 1;
        }
        stream.request_progress().await;
    }
    writes.await.expect("the writer ends");
    assert!(answers > 0, "no progress at all under load");
}
