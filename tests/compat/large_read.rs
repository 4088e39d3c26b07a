//! Answers much larger than what the server may hold in memory: they are sent as they are read.

use crate::client::{get, own, prefix};
use crate::support::is_foreign_server;
use crate::watch_client::rss_anon_bytes;

const VALUE_BYTES: usize = 1 << 20;
const KEYS: usize = 128;
/// What the server may need for all readers together, far below one answer.
const GROWTH_MAX: u64 = 64 << 20;

/// G-5, KV-R7: several clients at once get an answer of 128 MiB; the server's memory hardly grows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g_5_large_answers_are_streamed() {
    if is_foreign_server() {
        return; // etcd holds every answer in memory
    }
    let c = own(&["--quota-backend-bytes=8589934592"]).await;
    for n in 0..KEYS {
        c.put(format!("large/{n:04}"), vec![n as u8; VALUE_BYTES]).await;
    }
    c.range(get("large/0000")).await;
    let before = rss_anon_bytes(c.server());
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let c = (*c).clone();
            tokio::spawn(async move { c.range(prefix("large/")).await })
        })
        .collect();
    let mut highest = before;
    while !readers.iter().all(tokio::task::JoinHandle::is_finished) {
        highest = highest.max(rss_anon_bytes(c.server()));
        tokio::task::yield_now().await;
    }
    for reader in readers {
        let response = reader.await.expect("a reader");
        assert_eq!((response.kvs.len(), response.count, response.more), (KEYS, KEYS as i64, false));
        for (n, kv) in response.kvs.iter().enumerate() {
            assert!(kv.value.len() == VALUE_BYTES && kv.value.iter().all(|b| *b == n as u8), "key {n}");
        }
    }
    let growth = highest - before;
    assert!(growth < GROWTH_MAX, "{growth} bytes more than before");
}
