//! KV.Compact: contract 1.7, rows KV-C1 to KV-C5 and KV-C7.

use kvist::pb::etcdserverpb as pb;
use tonic::Code;

use crate::client::{
    COMPACTED, FUTURE, Session, Stop, ToOp, delete, delete_range, expect_error, get, keys, own, prefix, put,
    range, revision, txn,
};
use crate::watch_client::{Clients, brief, watch_range};

async fn read_at(c: &Session, key: &str, at: i64) -> Vec<u8> {
    let response = c.range(pb::RangeRequest { revision: at, ..get(key) }).await;
    response.kvs.first().map(|kv| kv.value.clone()).unwrap_or_default()
}

/// KV-C1 [Q]: Compact(0) works once on a fresh store; negative revisions are below what was compacted.
#[tokio::test]
async fn kv_c1_fresh_store() {
    let c = own(&[]).await;
    expect_error(c.try_compact(2, false).await, Code::OutOfRange, FUTURE);
    expect_error(c.try_compact(-1, false).await, Code::OutOfRange, COMPACTED);
    assert_eq!(revision(&c.try_compact(0, false).await.expect("once").header), 1);
    expect_error(c.try_compact(0, false).await, Code::OutOfRange, COMPACTED);
    assert_eq!(c.range(pb::RangeRequest { revision: 1, ..get("a") }).await.count, 0);
    c.compact(1).await;
    expect_error(c.try_compact(1, true).await, Code::OutOfRange, COMPACTED);
    assert_eq!(c.put("a", "").await, 2);
}

/// KV-C1, KV-C2, KV-C4, KV-C5, trap 7: bounds, effect at once, physical or not, and the header.
#[tokio::test]
async fn kv_c1_c2_c4_c5_bounds() {
    let c = own(&[]).await;
    for i in 2..=9 {
        assert_eq!(c.put("c1", i.to_string()).await, i);
    }
    expect_error(c.try_compact(10, false).await, Code::OutOfRange, FUTURE);
    expect_error(c.try_compact(i64::MAX, true).await, Code::OutOfRange, FUTURE);
    for (at, physical) in [(4, false), (7, true)] {
        let response = c.try_compact(at, physical).await.expect("compact");
        assert_eq!(revision(&response.header), 9, "the current revision, not the compacted one");
        let old = pb::RangeRequest { revision: at - 1, ..get("c1") };
        expect_error(c.try_range(old.clone()).await, Code::OutOfRange, COMPACTED);
        let local = pb::RangeRequest { serializable: true, ..old };
        expect_error(c.try_range(local).await, Code::OutOfRange, COMPACTED);
        assert_eq!(
            read_at(&c, "c1", at).await,
            at.to_string().as_bytes(),
            "the compacted revision itself is readable"
        );
        for again in [at, at - 1, 1, 0, -1] {
            expect_error(c.try_compact(again, physical).await, Code::OutOfRange, COMPACTED);
        }
    }
    assert_eq!(c.compact(9).await.header.expect("header").revision, 9, "up to the current one");
    assert_eq!(c.get("c1").await.expect("kv").version, 8);
}

/// KV-C3, trap 10: what is kept: the newest at or below the revision, and a tombstone exactly at it.
#[tokio::test]
async fn kv_c3_keep_rule() {
    let c = own(&[]).await;
    c.put("c3/kept", "2").await; // 2
    c.put("c3/dead", "3").await; // 3
    c.delete(delete("c3/dead")).await; // 4
    c.put("c3/kept", "5").await; // 5
    c.put("c3/at", "6").await; // 6
    c.delete(delete("c3/at")).await; // 7: the revision to compact at
    c.put("c3/later", "8").await; // 8
    c.put("c3/dead", "9").await; // 9
    c.compact(7).await;
    let at = |revision| pb::RangeRequest { revision, ..prefix("c3/") };
    assert_eq!(keys(&c.range(at(7)).await.kvs), ["c3/kept"]);
    assert_eq!(keys(&c.range(at(8)).await.kvs), ["c3/kept", "c3/later"]);
    let now = c.range(prefix("c3/")).await.kvs;
    assert_eq!(keys(&now), ["c3/dead", "c3/kept", "c3/later"]);
    let kept = &now[1];
    assert_eq!((kept.create_revision, kept.mod_revision, kept.version), (2, 5, 2), "its numbers survive");
    assert_eq!((now[0].create_revision, now[0].version), (9, 1));

    let watch = Clients::connect(c.server()).await;
    let mut stream = watch.watch_stream();
    let from = pb::WatchCreateRequest { start_revision: 7, ..watch_range("c3/", "c30") };
    stream.create(from).await;
    let expected = ["delete c3/at@7", "put c3/later=8@8", "put c3/dead=9@9"];
    assert_eq!(
        brief(&stream.events(3).await),
        expected,
        "a watch from the compacted revision sees its delete"
    );
}

/// KV-C3: thousands of revisions of many keys; the survivors are exact at every revision that is left.
#[tokio::test]
async fn kv_c3_many_revisions() {
    let c = own(&[]).await;
    for round in 0..12 {
        for half in 0..2 {
            let ops: Vec<_> =
                (0..100).map(|i| put(format!("c3m/{:03}", half * 100 + i), round.to_string()).op()).collect();
            c.txn(txn([], ops, [])).await;
        }
        c.delete(delete_range(format!("c3m/{round:03}"), format!("c3m/{:03}", round + 1))).await;
    }
    let current = c.revision().await;
    let mut before = Vec::new();
    for at in current - 9..=current {
        before.push(c.range(pb::RangeRequest { revision: at, ..prefix("c3m/") }).await.kvs);
    }
    c.compact(current - 9).await;
    for (kvs, at) in before.into_iter().zip(current - 9..) {
        assert_eq!(c.range(pb::RangeRequest { revision: at, ..prefix("c3m/") }).await.kvs, kvs, "at {at}");
    }
    c.compact(current).await;
    assert_eq!(c.range(prefix("c3m/")).await.count, 199, "key 11 was deleted last");
}

/// KV-C4: with `physical` the answer comes when the space is free, and even a refusal waits for it.
#[tokio::test]
async fn kv_c4_physical_frees_space() {
    let c = own(&[]).await;
    for _ in 0..24 {
        c.put("c4", vec![7; 500_000]).await;
    }
    c.compact(c.revision().await).await;
    expect_error(c.try_compact(2, true).await, Code::OutOfRange, COMPACTED);
    c.maintenance.clone().defragment(pb::DefragmentRequest {}).await.expect("defragment");
    let status = c.maintenance.clone().status(pb::StatusRequest {}).await.expect("status").into_inner();
    assert!(
        status.db_size_in_use < 3_000_000,
        "{} bytes in use for one value of 500 kB",
        status.db_size_in_use
    );
}

/// KV-C7, trap 11: the revision does not go back over a restart when the newest revisions were compacted tombstones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kv_c7_restart_after_compaction() {
    let mut c = own(&[]).await;
    c.put("c7/a", "").await;
    c.put("c7/b", "kept").await;
    c.delete(delete("c7/a")).await;
    c.delete(delete("c7/a")).await;
    c.put("c7/c", "").await;
    let current = revision(&c.delete(delete("c7/c")).await.header);
    assert_eq!(current, 6);
    c.compact(current).await;
    for stop in [Stop::Terminate, Stop::Kill] {
        c.restart(stop).await;
        assert_eq!(c.revision().await, current, "after {stop:?}");
        expect_error(c.try_compact(current, false).await, Code::OutOfRange, COMPACTED);
        let below = pb::RangeRequest { revision: current - 1, ..get("c7/b") };
        expect_error(c.try_range(below).await, Code::OutOfRange, COMPACTED);
        assert_eq!(keys(&c.range(range([0], [0])).await.kvs), ["c7/b"]);
    }
    assert_eq!(c.put("c7/d", "").await, current + 1);
}

/// KV-C7: a compaction cut off by a crash is finished after the start; what it promised holds at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kv_c7_interrupted_compaction() {
    let mut c = own(&["--compaction-batch-limit=10"]).await;
    for round in 0..30 {
        let ops: Vec<_> = (0..100).map(|i| put(format!("c7i/{i:03}"), round.to_string()).op()).collect();
        c.txn(txn([], ops, [])).await;
    }
    let current = c.revision().await;
    c.try_compact(current - 1, false).await.expect("compact");
    c.restart(Stop::Kill).await;
    assert_eq!(c.revision().await, current);
    expect_error(
        c.try_range(pb::RangeRequest { revision: current - 2, ..get("c7i/000") }).await,
        Code::OutOfRange,
        COMPACTED,
    );
    for at in [current - 1, current] {
        let found = c.range(pb::RangeRequest { revision: at, ..prefix("c7i/") }).await;
        assert_eq!(found.count, 100);
        assert!(
            found.kvs.iter().all(|kv| kv.value == (at - 2).to_string().as_bytes() && kv.version == at - 1)
        );
    }
    expect_error(c.try_compact(current - 1, true).await, Code::OutOfRange, COMPACTED);
    c.compact(current).await;
}
