//! Slow watchers, contract 1.8 row W-20 and the second half of W-5: a client that stops reading loses nothing, repeats
//! nothing, slows nobody, and costs the server a bounded amount of memory.

use std::time::{Duration, Instant};

use kvist::pb::etcdserverpb as pb;

use crate::support::Server;
use crate::watch_client::{Clients, WatchStream, rss_anon_bytes, watch_range};

/// Few log entries in memory, so that the log of a large load does not hide what the watchers cost.
const SHORT_LOG: [&str; 2] = ["--snapshot-count=50", "--snapshot-catchup-entries=10"];
const VALUE_BYTES: usize = 100 * 1024;

async fn write(clients: &Clients, count: usize) {
    for i in 0..count {
        clients.put(format!("k{}", i % 16), vec![b'v'; VALUE_BYTES]).await;
    }
}

/// Reads events and checks that the revisions go from `first` to `last` without gap or repeat.
async fn read_revisions(stream: &mut WatchStream, first: i64, last: i64) {
    let mut next = first;
    while next <= last {
        let response = stream.next().await;
        assert!(!response.canceled && response.compact_revision == 0, "{response:?}");
        for event in &response.events {
            let kv = event.kv.as_ref().expect("kv");
            assert_eq!((kv.mod_revision, kv.value.len()), (next, VALUE_BYTES));
            next += 1;
        }
    }
    assert_eq!(next, last + 1);
}

/// W-20, trap 2, contract 8 (watch buffers): 100 MB go by while five streams do not read; a reading watcher keeps up,
/// memory stays bounded, and then every slow stream reads everything exactly once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w_20_slow_watchers_lose_nothing_and_cost_little() {
    const WARM_UP: usize = 500;
    const WRITES: usize = 1000;
    const SLOW: usize = 5;
    // Queued without bound, the events would take 100 MB if shared by the streams and 500 MB if not.
    const GROWTH_MAX: u64 = 75 * 1000 * 1000;
    let server = Server::start_with(&SHORT_LOG);
    let writer = Clients::connect(&server).await;
    let mut slow = Vec::new();
    let reader = Clients::connect(&server).await;
    let mut fast = reader.watch_stream();
    fast.create(watch_range("k", "l")).await;
    // The same load without slow watchers brings buffers and caches to their working size.
    let first = i64::try_from(WARM_UP).expect("small") + 2;
    let last = first + i64::try_from(WRITES).expect("small") - 1;
    let warm_up = tokio::spawn(async move {
        read_revisions(&mut fast, 2, first - 1).await;
        fast
    });
    write(&writer, WARM_UP).await;
    let mut fast = warm_up.await.expect("the warm-up is read");
    for _ in 0..SLOW {
        let clients = Clients::connect(&server).await; // a connection each: HTTP/2 windows are shared per connection
        let mut stream = clients.watch_stream();
        stream.create(watch_range("k", "l")).await;
        slow.push(stream);
    }

    let reading = tokio::spawn(async move {
        read_revisions(&mut fast, first, last).await;
        Instant::now()
    });
    let base = rss_anon_bytes(&server);
    write(&writer, WRITES).await;
    let written = Instant::now();
    let growth = rss_anon_bytes(&server).saturating_sub(base);
    let read = reading.await.expect("the fast watcher reads all");
    assert!(
        read.saturating_duration_since(written) < Duration::from_secs(2),
        "slow watchers delay a fast one"
    );
    assert!(growth < GROWTH_MAX, "anonymous memory grew by {growth} bytes");

    for stream in &mut slow {
        read_revisions(stream, first, last).await;
    }
    write(&writer, 1).await;
    for stream in &mut slow {
        read_revisions(stream, last + 1, last + 1).await; // and they are live again
    }
}

/// W-20: a slow watcher does not hold up another watcher of its own stream once the client reads again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w_20_two_watchers_on_a_slow_stream() {
    const WRITES: usize = 200;
    let server = Server::start_with(&SHORT_LOG);
    let clients = Clients::connect(&server).await;
    let idle = Clients::connect(&server).await;
    let mut stream = idle.watch_stream();
    let ids = [
        stream.create(watch_range("k", "l")).await.watch_id,
        stream.create(watch_range("k", "z")).await.watch_id,
    ];
    write(&clients, WRITES).await;
    let last = i64::try_from(WRITES).expect("small") + 1;
    let mut next = [2, 2];
    while next.iter().any(|n| *n <= last) {
        let response = stream.next().await;
        let slot = ids.iter().position(|id| *id == response.watch_id).expect("a known id");
        for event in &response.events {
            assert_eq!(event.kv.as_ref().expect("kv").mod_revision, next[slot]);
            next[slot] += 1;
        }
    }
}

/// W-5 (second half), W-20: when history is compacted under a slow watcher, it reads a gapless beginning and then the
/// compaction notice; a watcher that kept up is not touched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w_5_compaction_overtakes_a_slow_watcher() {
    const WRITES: usize = 400;
    let server = Server::start_with(&SHORT_LOG);
    let writer = Clients::connect(&server).await;
    let idle = Clients::connect(&server).await;
    let mut slow = idle.watch_stream();
    let slow_id = slow.create(watch_range("k", "l")).await.watch_id;
    let reader = Clients::connect(&server).await;
    let mut fast = reader.watch_stream();
    fast.create(watch_range("k", "l")).await;

    let last = i64::try_from(WRITES).expect("small") + 1;
    let reading = tokio::spawn(async move {
        read_revisions(&mut fast, 2, last).await;
        fast
    });
    write(&writer, WRITES).await;
    writer.compact(last).await;
    let mut fast = reading.await.expect("the fast watcher reads all");

    let mut next = 2;
    let notice: pb::WatchResponse = loop {
        let response = slow.next().await;
        if response.canceled {
            break response;
        }
        for event in &response.events {
            assert_eq!(event.kv.as_ref().expect("kv").mod_revision, next);
            next += 1;
        }
        assert!(next <= last, "the slow watcher read everything: not slow enough for this test");
    };
    assert_eq!((notice.watch_id, notice.compact_revision), (slow_id, last));
    assert_eq!(notice.header.expect("header").revision, 0);
    assert!(notice.cancel_reason.is_empty() && notice.events.is_empty());

    write(&writer, 1).await;
    read_revisions(&mut fast, last + 1, last + 1).await;
}
