//! What a transaction may look like, before anything is evaluated: contract 1.6, rows KV-T1 to KV-T4.

use kvist::pb::etcdserverpb as pb;
use pb::{RequestOp, TxnRequest};
use tonic::Code;

use crate::client::{
    DUPLICATE_KEY, EMPTY_KEY, KEY_NOT_FOUND, Session, TOO_MANY_OPS, ToOp, delete, delete_range, expect_error,
    get, mod_revision_is, never, own, put, range, shared, txn,
};

fn gets(count: usize) -> Vec<RequestOp> {
    vec![get("t1").op(); count]
}

/// A transaction with these operations in the taken branch.
fn then(ops: impl Into<Vec<RequestOp>>) -> TxnRequest {
    txn([], ops, [])
}

/// A nested transaction with both branches.
fn nested(success: impl Into<Vec<RequestOp>>, failure: impl Into<Vec<RequestOp>>) -> RequestOp {
    txn([], success, failure).op()
}

async fn too_many(c: &Session, request: TxnRequest) {
    expect_error(c.try_txn(request).await, Code::InvalidArgument, TOO_MANY_OPS);
}

/// KV-T1, contract 8: 128 of each list, not 129 of any.
#[tokio::test]
async fn kv_t1_max_txn_ops() {
    let c = shared().await;
    let compares = |count| vec![mod_revision_is("t1", 0); count];
    let full = c.txn(txn(compares(128), gets(128), gets(128))).await;
    assert_eq!(full.responses.len(), 128);
    too_many(&c, txn(compares(129), [], [])).await;
    too_many(&c, txn([], gets(129), [])).await;
    too_many(&c, txn([], [], gets(129))).await;
    // The count comes before the contents.
    too_many(&c, then(vec![RequestOp::default(); 129])).await;
}

/// KV-T1: nested transactions share what the enclosing level left of the budget.
#[tokio::test]
async fn kv_t1_nested_budget() {
    let c = own(&["--max-txn-ops=4"]).await;
    too_many(&c, then(gets(5))).await;
    c.txn(then(gets(4))).await;
    // One operation outside leaves three for each level below, counted by its longest list.
    c.txn(then([nested(gets(3), gets(3))])).await;
    too_many(&c, then([nested(gets(4), [])])).await;
    too_many(&c, then([nested([], gets(4))])).await;
    c.txn(then([nested(gets(2), gets(2)), nested(gets(2), [])])).await;
    too_many(&c, then([nested(gets(3), []), get("t1").op()])).await;
    // The longest list outside counts, even when it is the compares.
    let compares = vec![mod_revision_is("t1", 0); 3];
    c.txn(txn(compares.clone(), [nested(gets(1), [])], [])).await;
    too_many(&c, txn(compares, [nested(gets(2), [])], [])).await;
    // Four levels of one operation use it up; the fifth has nothing left, unless it is empty.
    let deep =
        |levels: usize, core: Vec<RequestOp>| (1..levels).fold(then(core), |inner, _| then([inner.op()]));
    c.txn(deep(4, gets(1))).await;
    c.txn(deep(5, vec![])).await;
    too_many(&c, deep(5, gets(1))).await;
}

/// KV-T2: both branches are checked, at every depth, whichever will be taken.
#[tokio::test]
async fn kv_t2_shapes_of_both_branches() {
    let c = shared().await;
    let bad: [(RequestOp, &str); 9] = [
        (get("").op(), EMPTY_KEY),
        (put("", "").op(), EMPTY_KEY),
        (delete("").op(), EMPTY_KEY),
        (txn([mod_revision_is("", 0)], [], []).op(), EMPTY_KEY),
        (pb::RangeRequest { sort_order: 7, ..get("t2") }.op(), "etcdserver: invalid sort option"),
        (pb::RangeRequest { sort_target: -7, ..get("t2") }.op(), "etcdserver: invalid sort option"),
        (pb::PutRequest { ignore_value: true, ..put("t2", "v") }.op(), "etcdserver: value is provided"),
        (
            pb::PutRequest { ignore_lease: true, lease: 5, ..put("t2", "v") }.op(),
            "etcdserver: lease is provided",
        ),
        (RequestOp { request: None }, KEY_NOT_FOUND),
    ];
    for (op, text) in bad {
        for request in [
            txn([], [op.clone()], []),
            txn([], [], [op.clone()]),
            txn([never()], [op.clone()], []),
            txn([], [put("t2", "").op(), op.clone()], []),
            then([nested([], [op.clone()])]),
            txn([], [], [nested([nested([op.clone()], [])], [])]),
        ] {
            expect_error(c.try_txn(request).await, Code::InvalidArgument, text);
        }
    }
    expect_error(c.try_txn(txn([mod_revision_is("", 0)], [], [])).await, Code::InvalidArgument, EMPTY_KEY);
    assert_eq!(c.get("t2").await, None, "nothing was written");
}

/// KV-T2: with everything wrong at once, compares come first, then success, then failure, then duplicates.
#[tokio::test]
async fn kv_t2_everything_wrong() {
    let c = shared().await;
    let twice = [put("t2w", "").op(), put("t2w", "").op()];
    let value = pb::PutRequest { ignore_value: true, ..put("t2w", "v") }.op();
    let wrong = txn([mod_revision_is("", 0)], [value.clone()], [RequestOp::default()]);
    expect_error(c.try_txn(wrong).await, Code::InvalidArgument, EMPTY_KEY);
    let wrong = txn([], [value.clone()], [RequestOp::default()]);
    expect_error(c.try_txn(wrong).await, Code::InvalidArgument, "etcdserver: value is provided");
    let wrong = txn([], twice.clone(), [RequestOp::default()]);
    expect_error(c.try_txn(wrong).await, Code::InvalidArgument, KEY_NOT_FOUND);
    let unknown_lease = pb::PutRequest { lease: 77, ..put("t2x", "") }.op();
    let wrong = txn([], [unknown_lease], twice);
    expect_error(c.try_txn(wrong).await, Code::InvalidArgument, DUPLICATE_KEY);
}

/// KV-T3, trap 21: two puts of a key, or a put inside what the same branch deletes, in any order.
#[tokio::test]
async fn kv_t3_duplicates() {
    let c = shared().await;
    let p = || put("t3/k", "").op();
    let refused: [Vec<RequestOp>; 9] = [
        vec![p(), p()],
        vec![p(), get("t3/k").op(), p()],
        vec![p(), delete("t3/k").op()],
        vec![delete("t3/k").op(), p()],
        vec![p(), delete_range("t3/a", "t3/z").op()],
        vec![delete_range("t3/a", "t3/z").op(), p()],
        vec![delete_range("t3/k", "t3/l").op(), p()],
        vec![delete_range("t3/k", "t3/k\0").op(), p()],
        vec![delete_range("t3/a", "t3/c").op(), delete_range("t3/b", "t3/z").op(), p()],
    ];
    for ops in refused {
        for request in [txn([], ops.clone(), []), txn([], [], ops.clone()), txn([never()], ops.clone(), [])] {
            expect_error(c.try_txn(request).await, Code::InvalidArgument, DUPLICATE_KEY);
        }
    }
    let accepted: [Vec<RequestOp>; 7] = [
        vec![p(), put("t3/l", "").op()],
        vec![p(), get("t3/k").op(), range("t3/a", "t3/z").op(), get("t3/k").op()],
        vec![delete("t3/k").op(), delete("t3/k").op(), delete_range("t3/a", "t3/z").op()],
        vec![p(), delete_range("t3/a", "t3/k").op()],
        vec![p(), delete_range("t3/k\0", "t3/z").op()],
        vec![p(), delete("t3/k\0").op()],
        vec![p(), delete_range("t3/z", "t3/a").op()],
    ];
    for ops in accepted {
        let count = ops.len();
        assert_eq!(c.txn(then(ops)).await.responses.len(), count);
    }
    // The branches of one transaction exclude each other.
    c.txn(txn([], [p()], [delete("t3/k").op()])).await;
    c.txn(txn([], [p()], [p()])).await;
}

/// KV-T4: duplicates across nested transactions.
#[tokio::test]
async fn kv_t4_nested_duplicates() {
    let c = shared().await;
    let (p, d) = (|| put("t4/k", "").op(), || delete("t4/k").op());
    let wide = || delete_range("t4/a", "t4/z").op();
    let refused: [Vec<RequestOp>; 12] = [
        vec![nested([p(), p()], [])],
        vec![nested([], [p(), d()])],
        vec![p(), nested([p()], [])],
        vec![nested([], [p()]), p()],
        vec![nested([p()], []), nested([p()], [])],
        vec![nested([p()], []), nested([], [p()])],
        vec![nested([nested([p()], [])], []), p()],
        vec![d(), nested([p()], [])],
        vec![nested([], [p()]), wide()],
        vec![p(), nested([d()], [])],
        vec![nested([wide()], []), nested([], [p()])],
        vec![nested([nested([], [wide()])], []), p()],
    ];
    for ops in refused {
        for request in [txn([], ops.clone(), []), txn([], [], ops.clone())] {
            expect_error(c.try_txn(request).await, Code::InvalidArgument, DUPLICATE_KEY);
        }
    }
    let accepted: [Vec<RequestOp>; 6] = [
        vec![nested([p()], [p()])],
        vec![nested([p()], [d()])],
        vec![nested([nested([p()], [p()])], [nested([], [p()])])],
        vec![nested([d()], []), nested([wide()], []), d()],
        vec![nested([p()], []), nested([put("t4/l", "").op()], [])],
        vec![get("t4/k").op(), nested([p(), get("t4/k").op()], [])],
    ];
    for ops in accepted {
        let count = ops.len();
        assert_eq!(c.txn(then(ops)).await.responses.len(), count);
    }
}

/// KV-T4 [Q]: a sibling that deletes after a sibling that puts goes unnoticed, and runs in order; the reverse is refused.
#[tokio::test]
async fn kv_t4_quirk_sibling_order() {
    let c = shared().await;
    let (p, d) = (nested([put("t4s", "new").op()], []), nested([delete("t4s").op()], []));
    expect_error(c.try_txn(then([d.clone(), p.clone()])).await, Code::InvalidArgument, DUPLICATE_KEY);
    c.put("t4s", "old").await;
    c.txn(then([p, d])).await;
    assert_eq!(c.get("t4s").await, None);
}

/// KV-T4 [Q]: a put and a from-key delete of the key in one branch run in order, at one revision.
#[tokio::test]
async fn kv_t4_quirk_from_key_delete() {
    let c = own(&[]).await;
    let from = || delete_range("k", [0]).op();
    c.put("k", "old").await;
    c.put("m", "old").await;
    let put_first = c.txn(then([put("k", "new").op(), from()])).await;
    assert_eq!(crate::client::as_delete(&put_first.responses[1]).deleted, 2);
    assert_eq!(c.range(range([0], [0])).await.count, 0);
    c.put("k", "old").await;
    c.put("m", "old").await;
    let before = c.revision().await;
    let delete_first = c.txn(then([from(), put("k", "new").op(), get("k").op()])).await;
    let at = crate::client::revision(&delete_first.header);
    assert_eq!(at, before + 1);
    let kv = c.get("k").await.expect("the put came last");
    assert_eq!(crate::client::numbers(&kv), (at, at, 1, 0), "a new generation at the same revision");
    assert_eq!(kv.value, b"new");
    assert_eq!(c.range(range([0], [0])).await.count, 1);
    let old = c.range(pb::RangeRequest { revision: before, ..range([0], [0]) }).await;
    assert_eq!(old.kvs.iter().map(|kv| kv.value.as_slice()).collect::<Vec<_>>(), [b"old", b"old"]);
    c.put("k", "newer").await;
    assert_eq!(c.get("k").await.expect("kv").version, 2);
}
