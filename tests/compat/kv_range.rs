//! KV.Range case by case: contract 1.3, rows KV-R1 to KV-R20. All shapes at once are in `kv_range_model`.

use kvist::pb::etcdserverpb as pb;
use pb::alarm_request::AlarmAction;
use pb::range_request::{SortOrder, SortTarget};
use pb::response_op;
use tonic::Code;

use crate::client::{
    COMPACTED, Client, EMPTY_KEY, FUTURE, ToOp, delete, delete_range, expect_error, get, keys, numbers, own,
    prefix, put, range, revision, shared, txn,
};

const INVALID_SORT: &str = "etcdserver: invalid sort option";

fn sorted(request: pb::RangeRequest, target: SortTarget, order: SortOrder) -> pb::RangeRequest {
    pb::RangeRequest { sort_target: target as i32, sort_order: order as i32, ..request }
}

fn limited(request: pb::RangeRequest, limit: i64) -> pb::RangeRequest {
    pb::RangeRequest { limit, ..request }
}

/// Puts the keys with the values, in this order; returns the revisions.
async fn fill(c: &Client, pairs: &[(&str, &str)]) -> Vec<i64> {
    let mut revisions = Vec::new();
    for (key, value) in pairs {
        revisions.push(c.put(*key, *value).await);
    }
    revisions
}

/// KV-R1, KV-R2: what is refused before anything is read, and in which order.
#[tokio::test]
async fn kv_r1_r2_refusals() {
    let c = shared().await;
    expect_error(c.try_range(get("")).await, Code::InvalidArgument, EMPTY_KEY);
    expect_error(c.try_range(range("", [0])).await, Code::InvalidArgument, EMPTY_KEY);
    for (sort_order, sort_target) in [(3, 0), (-1, 0), (0, 5), (0, -1), (i32::MAX, i32::MIN)] {
        let request = pb::RangeRequest { sort_order, sort_target, ..get("r2") };
        expect_error(c.try_range(request).await, Code::InvalidArgument, INVALID_SORT);
    }
    let both = pb::RangeRequest { sort_order: 9, revision: i64::MAX, ..get("") };
    expect_error(c.try_range(both).await, Code::InvalidArgument, EMPTY_KEY);
    let both = pb::RangeRequest { sort_order: 9, revision: i64::MAX, ..get("r2") };
    expect_error(c.try_range(both).await, Code::InvalidArgument, INVALID_SORT);
}

/// KV-R3, KV-R4, KV-R6: revisions to read at; the header always tells the current one.
#[tokio::test]
async fn kv_r3_r4_r6_revisions() {
    let c = own(&[]).await;
    let first = c.put("r3", "first").await;
    let second = c.put("r3", "second").await;
    for (at, value) in
        [(0, "second"), (-1, "second"), (i64::MIN, "second"), (first, "first"), (second, "second")]
    {
        for serializable in [false, true] {
            let response = c.range(pb::RangeRequest { revision: at, serializable, ..get("r3") }).await;
            assert_eq!(response.kvs[0].value, value.as_bytes(), "at {at}");
            assert_eq!(revision(&response.header), second, "KV-R6: current, not {at}");
        }
    }
    for at in [second + 1, second + 1000, i64::MAX] {
        for serializable in [false, true] {
            let request = pb::RangeRequest { revision: at, serializable, ..get("r3") };
            expect_error(c.try_range(request).await, Code::OutOfRange, FUTURE);
            let request = pb::RangeRequest { revision: at, count_only: true, ..range("x", "a") };
            expect_error(c.try_range(request).await, Code::OutOfRange, FUTURE);
        }
    }
}

/// KV-R5: below the compacted revision nothing is readable, at it everything is.
#[tokio::test]
async fn kv_r5_compacted() {
    let c = own(&[]).await;
    let revisions = fill(&c, &[("r5", "1"), ("r5", "2"), ("r5", "3"), ("r5", "4")]).await;
    c.compact(revisions[2]).await;
    for at in [1, revisions[0], revisions[1]] {
        expect_error(
            c.try_range(pb::RangeRequest { revision: at, ..get("r5") }).await,
            Code::OutOfRange,
            COMPACTED,
        );
        let missing = pb::RangeRequest { revision: at, keys_only: true, ..get("never-there") };
        expect_error(c.try_range(missing).await, Code::OutOfRange, COMPACTED);
    }
    for (at, value) in [(revisions[2], "3"), (revisions[3], "4"), (-1, "4")] {
        let response = c.range(pb::RangeRequest { revision: at, ..get("r5") }).await;
        assert_eq!(response.kvs[0].value, value.as_bytes());
        assert_eq!(revision(&response.header), revisions[3]);
    }
}

/// KV-R7, KV-R8, KV-R17, trap 18: limit, more and count.
#[tokio::test]
async fn kv_r7_r8_r17_limit_and_count() {
    let c = shared().await;
    fill(&c, &[("r7/a", ""), ("r7/b", ""), ("r7/c", ""), ("r7/d", "")]).await;
    for (limit, returned, more) in [
        (0, 4, false),
        (1, 1, true),
        (3, 3, true),
        (4, 4, false),
        (5, 4, false),
        (i64::MAX, 4, false),
        (-1, 4, false),
        (i64::MIN, 4, false),
    ] {
        let response = c.range(limited(prefix("r7/"), limit)).await;
        assert_eq!((response.kvs.len(), response.more, response.count), (returned, more, 4), "limit {limit}");
        assert_eq!(keys(&response.kvs), ["r7/a", "r7/b", "r7/c", "r7/d"][..returned]);
    }
    let one = c.range(limited(get("r7/a"), 1)).await;
    assert_eq!((one.kvs.len(), one.more, one.count), (1, false, 1));
}

/// KV-R8: pages as kube-apiserver reads them: pinned revision, from the last key plus a zero byte.
#[tokio::test]
async fn kv_r8_paging_at_a_revision() {
    let c = shared().await;
    let pairs: Vec<String> = (0..25).map(|i| format!("page/{i:02}")).collect();
    for key in &pairs {
        c.put(key.as_str(), "").await;
    }
    let first = c.range(limited(prefix("page/"), 10)).await;
    let at = revision(&first.header);
    c.delete(delete("page/12")).await;
    c.put("page/13x", "").await;
    let (mut seen, mut page) = (Vec::new(), first);
    loop {
        assert_eq!(
            page.count,
            25 - i64::try_from(seen.len()).expect("small"),
            "what is left from the page's start"
        );
        seen.extend(keys(&page.kvs));
        if !page.more {
            break;
        }
        let next = format!("{}\0", seen.last().expect("a page has keys"));
        page = c.range(pb::RangeRequest { revision: at, ..limited(range(next, "page0"), 10) }).await;
    }
    assert_eq!(seen, pairs);
}

/// KV-R9: count only.
#[tokio::test]
async fn kv_r9_count_only() {
    let c = shared().await;
    let revisions = fill(&c, &[("r9/a", ""), ("r9/b", ""), ("r9/c", "")]).await;
    let count = |request| pb::RangeRequest { count_only: true, ..request };
    for request in [
        prefix("r9/"),
        limited(prefix("r9/"), 1),
        pb::RangeRequest { keys_only: true, ..prefix("r9/") },
        pb::RangeRequest { min_mod_revision: i64::MAX, ..prefix("r9/") },
        sorted(prefix("r9/"), SortTarget::Value, SortOrder::Descend),
    ] {
        let response = c.range(count(request)).await;
        assert_eq!((response.kvs.len(), response.more, response.count), (0, false, 3));
    }
    let old = c.range(count(pb::RangeRequest { revision: revisions[1], ..prefix("r9/") })).await;
    assert_eq!(old.count, 2);
    assert_eq!(c.range(count(range("r9/x", "r9/y"))).await.count, 0);
}

/// KV-R10 [Q], KV-R11: keys only leaves out the value and, unless sorted by value, the lease.
#[tokio::test]
async fn kv_r10_r11_keys_only() {
    let c = shared().await;
    let lease = c.grant().await;
    for (key, value) in [("r10/a", "2"), ("r10/b", "1"), ("r10/c", "3")] {
        c.try_put(pb::PutRequest { lease, ..put(key, value) }).await.expect("put with a lease");
    }
    let full = c.range(prefix("r10/")).await.kvs;
    let only = |request| pb::RangeRequest { keys_only: true, ..request };
    let plain = c.range(only(prefix("r10/"))).await;
    assert_eq!(keys(&plain.kvs), ["r10/a", "r10/b", "r10/c"]);
    assert_eq!((plain.count, plain.more), (3, false));
    for (kv, full) in plain.kvs.iter().zip(&full) {
        assert!(kv.value.is_empty());
        let (create, modified, version, _) = numbers(full);
        assert_eq!(numbers(kv), (create, modified, version, 0), "no lease without the value");
    }
    let by_mod = c.range(only(sorted(prefix("r10/"), SortTarget::Mod, SortOrder::Descend))).await;
    assert_eq!(keys(&by_mod.kvs), ["r10/c", "r10/b", "r10/a"]);
    assert!(by_mod.kvs.iter().all(|kv| kv.lease == 0));

    let by_value = c.range(only(sorted(prefix("r10/"), SortTarget::Value, SortOrder::Ascend))).await;
    assert_eq!(keys(&by_value.kvs), ["r10/b", "r10/a", "r10/c"]);
    assert!(by_value.kvs.iter().all(|kv| kv.value.is_empty() && kv.lease == lease), "{by_value:?}");
    let limited = c.range(only(limited(prefix("r10/"), 2))).await;
    assert_eq!((keys(&limited.kvs).len(), limited.more, limited.count), (2, true, 3));
}

/// KV-R12, KV-R14: order by key, and by other targets with the limit after sorting.
#[tokio::test]
async fn kv_r12_r14_order() {
    let c = shared().await;
    fill(&c, &[("r12/b", "3"), ("r12/c", "1"), ("r12/a", "2"), ("r12/c", "0"), ("r12/d", "9")]).await;
    for (target, order, expected) in [
        (SortTarget::Key, SortOrder::None, "abcd"),
        (SortTarget::Key, SortOrder::Ascend, "abcd"),
        (SortTarget::Key, SortOrder::Descend, "dcba"),
        (SortTarget::Create, SortOrder::Ascend, "bcad"),
        (SortTarget::Create, SortOrder::Descend, "dacb"),
        (SortTarget::Mod, SortOrder::Ascend, "bacd"),
        (SortTarget::Mod, SortOrder::Descend, "dcab"),
        (SortTarget::Value, SortOrder::Ascend, "cabd"),
        (SortTarget::Value, SortOrder::Descend, "dbac"),
    ] {
        for limit in [0, 1, 2, 4] {
            let response = c.range(sorted(limited(prefix("r12/"), limit), target, order)).await;
            let shown: String = keys(&response.kvs).iter().map(|k| &k[4..]).collect();
            let kept = if limit == 0 { 4 } else { usize::try_from(limit).expect("small") };
            assert_eq!(shown, expected[..kept], "{target:?} {order:?} limit {limit}");
            assert_eq!((response.more, response.count), (kept < 4, 4));
        }
    }
    let by_version =
        c.range(sorted(limited(prefix("r12/"), 1), SortTarget::Version, SortOrder::Descend)).await;
    assert_eq!(keys(&by_version.kvs), ["r12/c"], "the only one written twice");
}

/// KV-R13 [Q]: without an order but with a target, the limit takes limit + 1 keys in key order, and these are sorted.
#[tokio::test]
async fn kv_r13_limit_before_sort() {
    let c = shared().await;
    fill(&c, &[("r13/a", "4"), ("r13/b", "3"), ("r13/c", "2"), ("r13/d", "1")]).await;
    let unordered = |limit| sorted(limited(prefix("r13/"), limit), SortTarget::Value, SortOrder::None);
    for (limit, expected) in [(0, "dcba"), (1, "b"), (2, "cb"), (3, "dcb"), (4, "dcba"), (-3, "dcba")] {
        let response = c.range(unordered(limit)).await;
        let shown: String = keys(&response.kvs).iter().map(|k| &k[4..]).collect();
        assert_eq!(shown, expected, "limit {limit}");
        assert_eq!((response.more, response.count), (expected.len() < 4, 4));
    }
    // A filter fetches everything first, so that the limit comes after the sort again (KV-R16).
    let filtered = c.range(pb::RangeRequest { min_mod_revision: 1, ..unordered(1) }).await;
    assert_eq!(keys(&filtered.kvs), ["r13/d"]);
}

/// KV-R15: with equal sort keys every matching key comes exactly once, in some order.
#[tokio::test]
async fn kv_r15_equal_sort_keys() {
    let c = shared().await;
    for i in 0..20 {
        c.put(format!("r15/{i:02}"), if i % 2 == 0 { "even" } else { "odd" }).await;
    }
    for order in [SortOrder::None, SortOrder::Ascend, SortOrder::Descend] {
        let found = c.range(sorted(prefix("r15/"), SortTarget::Value, order)).await.kvs;
        let values: Vec<_> = found.iter().map(|kv| kv.value.clone()).collect();
        let mut expected = values.clone();
        expected.sort();
        if order == SortOrder::Descend {
            expected.reverse();
        }
        assert_eq!(values, expected);
        let mut names = keys(&found);
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 20);
    }
}

/// KV-R16: revision filters are inclusive, come before the limit, and leave the count alone.
#[tokio::test]
async fn kv_r16_revision_filters() {
    let c = shared().await;
    let r = fill(&c, &[("r16/a", ""), ("r16/b", ""), ("r16/c", ""), ("r16/d", ""), ("r16/a", "")]).await;
    let base = prefix("r16/");
    for (request, expected) in [
        (pb::RangeRequest { min_mod_revision: r[2], ..base.clone() }, "acd"),
        (pb::RangeRequest { max_mod_revision: r[2], ..base.clone() }, "bc"),
        (pb::RangeRequest { min_create_revision: r[1], ..base.clone() }, "bcd"),
        (pb::RangeRequest { max_create_revision: r[1], ..base.clone() }, "ab"),
        (pb::RangeRequest { min_mod_revision: r[1], max_mod_revision: r[3], ..base.clone() }, "bcd"),
        (pb::RangeRequest { min_mod_revision: r[4], max_create_revision: r[0], ..base.clone() }, "a"),
        (pb::RangeRequest { min_mod_revision: r[4] + 1, ..base.clone() }, ""),
        (pb::RangeRequest { min_mod_revision: 9, max_mod_revision: 8, ..base.clone() }, ""),
        (pb::RangeRequest { min_create_revision: -5, ..base.clone() }, "abcd"),
        (pb::RangeRequest { max_mod_revision: -5, ..base.clone() }, ""),
    ] {
        for limit in [0, 1, 2] {
            let response = c.range(limited(request.clone(), limit)).await;
            let kept = if limit == 0 {
                expected.len()
            } else {
                expected.len().min(usize::try_from(limit).expect("small"))
            };
            let shown: String = keys(&response.kvs).iter().map(|k| &k[4..]).collect();
            assert_eq!(shown, expected[..kept], "{request:?}");
            assert_eq!((response.more, response.count), (kept < expected.len(), 4));
        }
    }
}

/// KV-R8: the number of all keys, asked for again and again while keys come and go, in every shape that tells it.
#[tokio::test]
async fn kv_r8_counts_follow_every_change() {
    let c = shared().await;
    let all = || prefix("r8-many/");
    let name = |n: i64| format!("r8-many/{n:03}");
    let lease = c.grant().await;
    for n in 0..100 {
        let lease = if n < 10 { lease } else { 0 };
        c.try_put(pb::PutRequest { lease, ..put(name(n), "v") }).await.expect("a put");
    }
    let first = c.revision().await;
    let check = async |expected: i64| {
        // Twice: what the first one counted may serve the second.
        for _ in 0..2 {
            let page = c.range(limited(all(), 7)).await;
            assert_eq!((page.count, page.more, page.kvs.len()), (expected, true, 7));
            let count = c.range(pb::RangeRequest { count_only: true, ..all() }).await.count;
            let inside = c.txn(txn([], [limited(all(), 3).op()], [])).await.responses.remove(0);
            let Some(response_op::Response::ResponseRange(inside)) = inside.response else {
                panic!("a range")
            };
            assert_eq!((count, inside.count, inside.more), (expected, expected, true));
            assert_eq!(c.range(all()).await.kvs.len() as i64, expected);
        }
        assert_eq!(c.range(pb::RangeRequest { revision: first, ..limited(all(), 7) }).await.count, 100);
    };
    check(100).await;
    c.put(name(50), "again").await;
    check(100).await;
    c.put(name(100), "new").await;
    check(101).await;
    c.delete(delete_range(name(20), name(40))).await;
    check(81).await;
    // In one transaction: two come, one of them over a tombstone, two go, one is read after that.
    let ops = [put(name(101), "v").op(), put(name(30), "v").op(), delete_range(name(60), name(62)).op()];
    let answer = c.txn(txn([], [ops.to_vec(), vec![limited(all(), 1).op()]].concat(), [])).await;
    let Some(response_op::Response::ResponseRange(read)) = &answer.responses[3].response else {
        panic!("a range")
    };
    assert_eq!(read.count, 81);
    check(81).await;
    c.revoke(lease).await;
    check(71).await;
    // All of it is less than the limit.
    let whole = c.range(limited(all(), 1000)).await;
    assert_eq!((whole.count, whole.more, whole.kvs.len()), (71, false, 71));
}

/// KV-R18, G-9: serializable reads answer from the member; a linearizable read sees what another client just wrote.
#[tokio::test]
async fn kv_r18_serializable_and_linearizable() {
    let (writer, reader) = (shared().await, shared().await);
    for i in 0..50_i64 {
        let written = writer.put("r18", i.to_string()).await;
        let response = reader.range(get("r18")).await;
        assert_eq!(response.kvs[0].value, i.to_string().as_bytes(), "G-9: a read sees the completed write");
        assert!(revision(&response.header) >= written);
        let local = reader.range(pb::RangeRequest { serializable: true, ..get("r18") }).await;
        assert_eq!(local.kvs[0].value, i.to_string().as_bytes(), "one member cannot lag behind itself");
        let header = local.header.expect("header");
        assert!(header.raft_term > 0 && header.member_id != 0 && header.cluster_id != 0);
    }
}

/// KV-R19: a key that is deleted or not yet created at the revision is simply absent.
#[tokio::test]
async fn kv_r19_absent_at_the_revision() {
    let c = shared().await;
    let before = c.put("r19/other", "").await;
    let created = c.put("r19/key", "1").await;
    let deleted = revision(&c.delete(delete("r19/key")).await.header);
    let again = c.put("r19/key", "2").await;
    for (at, count) in [(before, 0), (created, 1), (deleted, 0), (again, 1)] {
        let response = c.range(pb::RangeRequest { revision: at, ..get("r19/key") }).await;
        assert_eq!(
            (response.kvs.len(), response.count, response.more),
            (count, i64::try_from(count).expect("0 or 1"), false)
        );
    }
}

/// KV-R20: under a CORRUPT alarm ranges still work and writes fail as data loss.
#[tokio::test]
async fn kv_r20_corrupt_alarm() {
    const CORRUPT: &str = "etcdserver: corrupt cluster";
    let c = own(&[]).await;
    c.put("r20", "value").await;
    let me = c.range(get("r20")).await.header.expect("header").member_id;
    let alarm = |action: AlarmAction| pb::AlarmRequest {
        action: action as i32,
        member_id: me,
        alarm: pb::AlarmType::Corrupt as i32,
    };
    c.maintenance.clone().alarm(alarm(AlarmAction::Activate)).await.expect("activate");
    for serializable in [false, true] {
        let response = c.range(pb::RangeRequest { serializable, ..get("r20") }).await;
        assert_eq!(response.kvs[0].value, b"value");
    }
    expect_error(c.try_put(put("r20", "")).await, Code::DataLoss, CORRUPT);
    expect_error(c.try_delete(delete("r20")).await, Code::DataLoss, CORRUPT);
    expect_error(c.try_compact(1, false).await, Code::DataLoss, CORRUPT);
    expect_error(c.try_put(put("", "")).await, Code::InvalidArgument, EMPTY_KEY);
    c.maintenance.clone().alarm(alarm(AlarmAction::Deactivate)).await.expect("deactivate");
    c.put("r20", "").await;
}
