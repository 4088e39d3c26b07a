//! How a transaction runs and what it answers: contract 1.6, rows KV-T9 to KV-T16.

use kvist::pb::etcdserverpb as pb;
use pb::compare::{CompareResult, TargetUnion};
use pb::response_op::Response as OpResponse;
use tonic::Code;

use crate::client::{
    COMPACTED, FUTURE, KEY_NOT_FOUND, LEASE_NOT_FOUND, ToOp, as_delete, as_put, as_range, as_txn, compare,
    delete, delete_range, expect_error, get, keys, mod_revision_is, never, numbers, own, prefix, put,
    revision, shared, txn, value_is,
};
use crate::watch_client::{Clients, brief, watch_range};

/// KV-T9, KV-T12: operations run in order, see what came before, and each has its answer in its place.
#[tokio::test]
async fn kv_t9_t12_order_and_answers() {
    let c = own(&[]).await;
    c.put("t9/a", "old").await;
    let inner = txn([], [prefix("t9/").op(), put("t9/c", "c").op(), prefix("t9/").op()], []);
    let ops = [
        get("t9/a").op(),
        pb::PutRequest { prev_kv: true, ..put("t9/a", "new") }.op(),
        get("t9/a").op(),
        put("t9/b", "b").op(),
        inner.op(),
        pb::DeleteRangeRequest { prev_kv: true, ..delete_range("t9/x", "t9/z") }.op(),
        prefix("t9/").op(),
    ];
    let response = c.txn(txn([], ops, [])).await;
    let at = revision(&response.header);
    assert_eq!((response.succeeded, at, response.responses.len()), (true, 3, 7));
    let r = &response.responses;
    assert_eq!(as_range(&r[0]).kvs[0].value, b"old");
    assert_eq!(as_put(&r[1]).prev_kv.as_ref().expect("a previous pair").value, b"old");
    let own_write = &as_range(&r[2]).kvs[0];
    assert_eq!((own_write.value.as_slice(), numbers(own_write)), (b"new".as_slice(), (2, at, 2, 0)));
    assert_eq!(as_put(&r[3]).prev_kv, None);
    let inner = as_txn(&r[4]);
    assert!(inner.succeeded);
    assert_eq!(keys(&as_range(&inner.responses[0]).kvs), ["t9/a", "t9/b"]);
    as_put(&inner.responses[1]);
    assert_eq!(keys(&as_range(&inner.responses[2]).kvs), ["t9/a", "t9/b", "t9/c"]);
    assert_eq!((as_delete(&r[5]).deleted, as_delete(&r[5]).prev_kvs.len()), (0, 0));
    assert_eq!((as_range(&r[6]).count, as_range(&r[6]).more), (3, false));
}

/// KV-T9: ranges inside see deletes, limits and orders too, over stored and fresh keys alike.
#[tokio::test]
async fn kv_t9_ranges_over_own_writes() {
    let c = shared().await;
    for key in ["t9r/a", "t9r/c", "t9r/e"] {
        c.put(key, "stored").await;
    }
    let two = pb::RangeRequest { limit: 2, ..prefix("t9r/") };
    let last = pb::RangeRequest { limit: 1, sort_order: 2, sort_target: 0, ..prefix("t9r/") };
    let newest = pb::RangeRequest { sort_order: 2, sort_target: 3, limit: 1, ..prefix("t9r/") };
    let count = pb::RangeRequest { count_only: true, ..prefix("t9r/") };
    let ops = [
        put("t9r/b", "fresh").op(),
        delete("t9r/c").op(),
        put("t9r/f", "fresh").op(),
        two.op(),
        last.op(),
        newest.op(),
        count.op(),
        pb::DeleteRangeRequest { prev_kv: true, ..delete_range("t9r/d", "t9r/e\0") }.op(),
        pb::RangeRequest { keys_only: true, ..prefix("t9r/") }.op(),
    ];
    let response = c.txn(txn([], ops, [])).await;
    let r = &response.responses;
    let two = as_range(&r[3]);
    assert_eq!((keys(&two.kvs), two.more, two.count), (vec!["t9r/a".into(), "t9r/b".into()], true, 4));
    assert_eq!(keys(&as_range(&r[4]).kvs), ["t9r/f"]);
    assert_eq!(as_range(&r[5]).kvs[0].mod_revision, revision(&response.header));
    assert_eq!((as_range(&r[6]).count, as_range(&r[6]).kvs.len()), (4, 0));
    assert_eq!(keys(&as_delete(&r[7]).prev_kvs), ["t9r/e"]);
    assert_eq!(keys(&as_range(&r[8]).kvs), ["t9r/a", "t9r/b", "t9r/f"]);
    assert!(as_range(&r[8]).kvs.iter().all(|kv| kv.value.is_empty()));
}

/// KV-T9: an explicit revision is checked against the state before the transaction, and reads the past in it.
#[tokio::test]
async fn kv_t9_explicit_revisions() {
    let c = own(&[]).await;
    for value in ["1", "2", "3", "4"] {
        c.put("t9", value).await;
    }
    let at = |revision| pb::RangeRequest { revision, ..get("t9") }.op();
    let response = c.txn(txn([], [put("t9", "5").op(), at(3), at(0), at(5)], [])).await;
    let values: Vec<_> = response.responses[1..].iter().map(|r| as_range(r).kvs[0].value[0]).collect();
    assert_eq!(values, b"254");
    expect_error(c.try_txn(txn([], [put("t9", "6").op(), at(7)], [])).await, Code::OutOfRange, FUTURE);
    expect_error(c.try_txn(txn([], [at(7)], [])).await, Code::OutOfRange, FUTURE);
    c.compact(4).await;
    for compacted in [1, 3] {
        let refused = c.try_txn(txn([], [put("t9", "6").op(), at(compacted)], [])).await;
        expect_error(refused, Code::OutOfRange, COMPACTED);
        expect_error(c.try_txn(txn([], [at(compacted)], [])).await, Code::OutOfRange, COMPACTED);
    }
    let nested = txn([], [at(2)], []).op();
    expect_error(c.try_txn(txn([], [put("t9", "6").op(), nested], [])).await, Code::OutOfRange, COMPACTED);
    assert_eq!(c.get("t9").await.expect("kv").value, b"5", "nothing of the refused ones was applied");
    assert_eq!(c.revision().await, 6);
    c.txn(txn([], [at(4)], [])).await;
}

/// KV-T9 [Q]: inside a transaction a negative revision is compared with the compacted one, which is -1 at first.
#[tokio::test]
async fn kv_t9_quirk_negative_revision() {
    let c = own(&[]).await;
    c.put("t9n", "1").await;
    c.put("t9n", "2").await;
    let at = |revision| txn([], [pb::RangeRequest { revision, ..get("t9n") }.op()], []);
    assert_eq!(as_range(&c.txn(at(-1)).await.responses[0]).kvs[0].value, b"2");
    for revision in [-2, i64::MIN] {
        expect_error(c.try_txn(at(revision)).await, Code::OutOfRange, COMPACTED);
    }
    c.compact(2).await;
    for revision in [-1, -2, i64::MIN] {
        expect_error(c.try_txn(at(revision)).await, Code::OutOfRange, COMPACTED);
    }
    let outside = c.range(pb::RangeRequest { revision: -1, ..get("t9n") }).await;
    assert_eq!(outside.kvs[0].value, b"2", "a plain range does not mind");
}

/// KV-T10: what only the state can tell is checked on the taken path alone, before the first write.
#[tokio::test]
async fn kv_t10_state_checks() {
    let c = shared().await;
    let bad: [(pb::RequestOp, Code, &str); 4] = [
        (pb::PutRequest { lease: 999, ..put("t10/x", "") }.op(), Code::NotFound, LEASE_NOT_FOUND),
        (
            pb::PutRequest { ignore_value: true, ..put("t10/x", "") }.op(),
            Code::InvalidArgument,
            KEY_NOT_FOUND,
        ),
        (
            pb::PutRequest { ignore_lease: true, ..put("t10/x", "v") }.op(),
            Code::InvalidArgument,
            KEY_NOT_FOUND,
        ),
        (pb::RangeRequest { revision: i64::MAX, ..get("t10/x") }.op(), Code::OutOfRange, FUTURE),
    ];
    for (op, code, text) in bad {
        let good = || put("t10/good", "").op();
        for request in [
            txn([], [good(), op.clone()], []),
            txn([never()], [], [good(), op.clone()]),
            txn([], [good(), txn([never()], [], [op.clone()]).op()], []),
        ] {
            expect_error(c.try_txn(request).await, code, text);
            assert_eq!(c.get("t10/good").await, None, "nothing is written when one operation fails");
        }
        c.txn(txn([], [get("t10/x").op()], [op.clone()])).await;
        c.txn(txn([], [get("t10/x").op(), txn([never()], [op.clone()], []).op()], [])).await;
    }
    // The key must exist before the transaction: a put earlier in it does not count, nor would it be allowed.
    let inside = [put("t10/y", "v").op(), txn([], [get("t10/y").op()], []).op()];
    c.txn(txn([], inside, [])).await;
    let deleted =
        [delete_range("t10/a", "t10/b").op(), pb::PutRequest { ignore_value: true, ..put("t10/y", "") }.op()];
    c.txn(txn([], deleted, [])).await;
    assert_eq!(c.get("t10/y").await.expect("kv").value, b"v");
}

/// KV-T11, trap 13: the headers of a transaction and of the answers inside.
#[tokio::test]
async fn kv_t11_headers() {
    let c = own(&[]).await;
    c.put("t11", "").await;
    let ops = |tag: &str| {
        let inner = txn([], [put(format!("t11/{tag}"), "").op(), delete("t11/nothing").op()], []).op();
        [
            get("t11").op(),
            delete("t11/missing").op(),
            put("t11", tag).op(),
            get("t11").op(),
            inner,
            delete("t11/no").op(),
        ]
    };
    let response = c.txn(txn([], ops("one"), [])).await;
    let header = response.header.expect("a header");
    assert_eq!(header.revision, 3);
    assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term != 0);
    let mut found = Vec::new();
    collect_headers(&response, &mut found);
    // The first range and delete come before any change, so they tell the revision before; the nested one tells none.
    let expected = [2, 2, 3, 3, 0, 3, 3, 3];
    assert_eq!(found.iter().map(|h| h.revision).collect::<Vec<_>>(), expected);
    assert!(
        found.iter().all(|h| (h.cluster_id, h.member_id, h.raft_term) == (0, 0, 0)),
        "only the revision is set"
    );

    let unchanged = c.txn(txn([], [delete("t11/missing").op(), get("t11").op()], [])).await;
    assert_eq!(revision(&unchanged.header), 3);
    let mut found = Vec::new();
    collect_headers(&unchanged, &mut found);
    assert_eq!(found.iter().map(|h| h.revision).collect::<Vec<_>>(), [3, 3]);
    let empty = c.txn(txn([never()], [put("t11", "").op()], [])).await;
    assert_eq!((empty.succeeded, revision(&empty.header), empty.responses.len()), (false, 3, 0));
}

/// The headers of the answers in order, depth first; each must be there.
fn collect_headers(response: &pb::TxnResponse, into: &mut Vec<pb::ResponseHeader>) {
    for op in &response.responses {
        let header = match op.response.as_ref().expect("an answer") {
            OpResponse::ResponseRange(r) => r.header,
            OpResponse::ResponsePut(r) => r.header,
            OpResponse::ResponseDeleteRange(r) => r.header,
            OpResponse::ResponseTxn(r) => r.header,
        };
        into.push(header.expect("an inner header is never null"));
        if let Some(OpResponse::ResponseTxn(inner)) = &op.response {
            collect_headers(inner, into);
        }
    }
}

/// KV-T13, trap 22: read-only transactions, linearizable or not; nested ones are writes that change nothing.
#[tokio::test]
async fn kv_t13_read_only() {
    let (c, other) = (shared().await, shared().await);
    for i in 0..20 {
        let value = i.to_string();
        other.put("t13", value.as_str()).await;
        let local = || pb::RangeRequest { serializable: true, ..get("t13") }.op();
        for ops in [vec![get("t13").op()], vec![local(), local()], vec![local(), get("t13").op()]] {
            let response = c.txn(txn([value_is("t13", value.as_str())], ops, [])).await;
            assert!(response.succeeded);
            for op in &response.responses {
                assert_eq!(as_range(op).kvs[0].value, value.as_bytes());
            }
        }
        let nested = txn([], [txn([], [get("t13").op()], []).op()], []);
        let response = c.txn(nested).await;
        assert_eq!(as_range(&as_txn(&response.responses[0]).responses[0]).kvs[0].value, value.as_bytes());
        // [Q] compares without operations are answered locally; one member's local state is current.
        assert!(c.holds(value_is("t13", value.as_str())).await);
    }
}

/// KV-T13: a transaction that may write but does not leaves the revision alone.
#[tokio::test]
async fn kv_t13_no_change_no_revision() {
    let c = own(&[]).await;
    c.put("t13", "").await;
    let reading = txn([], [txn([never()], [put("t13", "").op()], []).op()], []);
    assert_eq!(revision(&c.txn(reading).await.header), 2);
    assert_eq!(revision(&c.txn(txn([never()], [put("t13", "").op()], [get("t13").op()])).await.header), 2);
    assert_eq!(c.put("t13", "").await, 3);
}

/// KV-T15: watchers receive a transaction in one response, in execution order.
#[tokio::test]
async fn kv_t15_one_event_batch() {
    let c = shared().await;
    c.put("t15/b", "").await;
    let watch = Clients::connect(c.server()).await;
    let mut stream = watch.watch_stream();
    stream.create(watch_range("t15/", "t150")).await;
    let inner = txn([never()], [], [put("t15/a", "2").op()]).op();
    let ops = [put("t15/z", "1").op(), inner, delete_range("t15/b", "t15/c").op(), put("t15/m", "3").op()];
    let at = revision(&c.txn(txn([], ops, [])).await.header);
    let response = stream.next().await;
    let expected = [
        format!("put t15/z=1@{at}"),
        format!("put t15/a=2@{at}"),
        format!("delete t15/b@{at}"),
        format!("put t15/m=3@{at}"),
    ];
    assert_eq!(brief(&response.events), expected);
    assert_eq!(revision(&response.header), at);
}

/// KV-T16: the transactions of kube-apiserver.
#[tokio::test]
async fn kv_t16_kube_apiserver_shapes() {
    let c = shared().await;
    let create = |value: &str| txn([mod_revision_is("t16", 0)], [put("t16", value).op()], []);
    let update =
        |at, value: &str| txn([mod_revision_is("t16", at)], [put("t16", value).op()], [get("t16").op()]);
    let remove = |at| txn([mod_revision_is("t16", at)], [delete("t16").op()], [get("t16").op()]);

    let created = c.txn(create("one")).await;
    assert!(created.succeeded);
    let r1 = revision(&created.header);
    let again = c.txn(create("two")).await;
    assert!(!again.succeeded && again.responses.is_empty());

    let r2 = revision(&c.txn(update(r1, "two")).await.header);
    let stale = c.txn(update(r1, "three")).await;
    assert!(!stale.succeeded);
    let current = &as_range(&stale.responses[0]).kvs[0];
    assert_eq!((current.value.as_slice(), current.mod_revision), (b"two".as_slice(), r2));

    assert!(!c.txn(remove(r1)).await.succeeded);
    let removed = c.txn(remove(r2)).await;
    let inner = as_delete(&removed.responses[0]);
    assert_eq!((removed.succeeded, inner.deleted), (true, 1));
    assert_eq!(revision(&inner.header), revision(&removed.header));
    let absent = c.txn(remove(r2)).await;
    assert!(!absent.succeeded && as_range(&absent.responses[0]).kvs.is_empty());

    let version = |n| compare("t16rev", CompareResult::Equal, TargetUnion::Version(n));
    let book = |n, value: &str| txn([version(n)], [put("t16rev", value).op()], [get("t16rev").op()]);
    assert!(c.txn(book(0, "5")).await.succeeded);
    assert!(c.txn(book(1, "9")).await.succeeded);
    let late = c.txn(book(1, "7")).await;
    assert!(!late.succeeded);
    assert_eq!(as_range(&late.responses[0]).kvs[0].version, 2);
}

/// Trap 1, KV-T8, KV-T11: eight clients count by compare-and-swap; no increment is lost, no revision shared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traps_1_counters_by_compare_and_swap() {
    const CLIENTS: u64 = 8;
    const STEPS: u64 = 25;
    let session = shared().await;
    session.put("cas", "0").await;
    let tasks = (0..CLIENTS).map(|_| {
        let url = session.server().url();
        tokio::spawn(async move {
            let c = crate::client::Client::connect(url).await;
            let mut revisions = Vec::new();
            let mut current = c.get("cas").await.expect("the counter");
            while revisions.len() < STEPS as usize {
                let count: u64 = String::from_utf8(current.value).expect("text").parse().expect("a number");
                let next = txn(
                    [mod_revision_is("cas", current.mod_revision)],
                    [put("cas", (count + 1).to_string()).op(), get("cas").op()],
                    [get("cas").op()],
                );
                let response = c.txn(next).await;
                current = as_range(response.responses.last().expect("an answer")).kvs[0].clone();
                if response.succeeded {
                    assert_eq!(current.mod_revision, revision(&response.header));
                    assert_eq!(current.value, (count + 1).to_string().as_bytes());
                    revisions.push(current.mod_revision);
                }
            }
            assert!(revisions.is_sorted());
            revisions
        })
    });
    let mut revisions = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        revisions.extend(task.await.expect("the client ends well"));
    }
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len() as u64, CLIENTS * STEPS, "no two writes share a revision");
    let end = session.get("cas").await.expect("the counter");
    assert_eq!(
        (end.value, end.version),
        ((CLIENTS * STEPS).to_string().into_bytes(), 1 + (CLIENTS * STEPS) as i64)
    );
}

/// Trap 1: revisions of concurrent blind writes are distinct, and each header tells its own write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traps_1_header_of_the_own_write() {
    let session = shared().await;
    let tasks = (0..8_i64).map(|client| {
        let url = session.server().url();
        tokio::spawn(async move {
            let c = crate::client::Client::connect(url).await;
            let mut revisions = Vec::new();
            for i in 0..40 {
                let key = format!("own/{client}/{i}");
                let at = c.put(key.as_str(), "").await;
                assert_eq!(c.get(key.as_str()).await.expect("kv").mod_revision, at);
                revisions.push(at);
            }
            revisions
        })
    });
    let mut all = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        all.extend(task.await.expect("the client ends well"));
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 320);
}
