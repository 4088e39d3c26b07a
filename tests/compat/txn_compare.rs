//! Compares of a transaction: contract 1.6, rows KV-T5 to KV-T8.

use std::cmp::Ordering;

use kvist::pb::etcdserverpb as pb;
use pb::Compare;
use pb::compare::CompareResult::{self, Equal, Greater, Less, NotEqual};
use pb::compare::{CompareTarget, TargetUnion};

use crate::client::{
    ToOp, as_txn, compare, delete, get, keys, mod_revision_is, never, put, shared, txn, value_is,
};

const RESULTS: [CompareResult; 4] = [Equal, NotEqual, Greater, Less];

fn fits(result: CompareResult, ordering: Ordering) -> bool {
    match result {
        Equal => ordering.is_eq(),
        NotEqual => ordering.is_ne(),
        Greater => ordering.is_gt(),
        Less => ordering.is_lt(),
    }
}

/// KV-T5, KV-T7: each target with each result, against what the key holds.
#[tokio::test]
async fn kv_t5_t7_targets_and_results() {
    let c = shared().await;
    let lease = c.grant().await;
    c.put("t5", "x").await;
    c.try_put(pb::PutRequest { lease, ..put("t5", "mm") }).await.expect("put");
    let kv = c.get("t5").await.expect("kv");
    type Target = fn(i64) -> TargetUnion;
    let targets: [(i64, Target); 4] = [
        (kv.version, TargetUnion::Version),
        (kv.create_revision, TargetUnion::CreateRevision),
        (kv.mod_revision, TargetUnion::ModRevision),
        (kv.lease, TargetUnion::Lease),
    ];
    for (actual, target) in targets {
        for asked in [actual - 1, actual, actual + 1, 0, -1, i64::MIN, i64::MAX] {
            for result in RESULTS {
                let expected = fits(result, actual.cmp(&asked));
                let asked = compare("t5", result, target(asked));
                assert_eq!(c.holds(asked.clone()).await, expected, "{asked:?}");
            }
        }
    }
    let values: [&[u8]; 8] = [b"", b"m", b"mm", b"mmm", b"n", &[0], &[0x80], &[0xff, 0xff]];
    for asked in values {
        for result in RESULTS {
            let expected = fits(result, b"mm".as_slice().cmp(asked));
            let asked = compare("t5", result, TargetUnion::Value(asked.to_vec()));
            assert_eq!(c.holds(asked.clone()).await, expected, "{asked:?}");
        }
    }
}

/// KV-T5, trap 20: a missing key has zeroes; its value compares false, even as different.
#[tokio::test]
async fn kv_t5_missing_key() {
    let c = shared().await;
    c.put("t5gone", "v").await;
    c.delete(delete("t5gone")).await;
    for key in ["t5never", "t5gone"] {
        for target in
            [TargetUnion::Version, TargetUnion::CreateRevision, TargetUnion::ModRevision, TargetUnion::Lease]
        {
            for asked in [-1_i64, 0, 1] {
                for result in RESULTS {
                    let expected = fits(result, 0.cmp(&asked));
                    assert_eq!(c.holds(compare(key, result, target(asked))).await, expected);
                }
            }
        }
        for value in ["", "v"] {
            for result in RESULTS {
                let asked = compare(key, result, TargetUnion::Value(value.into()));
                assert!(!c.holds(asked).await, "the value of {key} {result:?} {value:?}");
            }
        }
    }
}

/// KV-T5, G-11: an unset or different value in the oneof is 0 or empty; unknown results hold; unknown targets are equal [Q].
#[tokio::test]
async fn kv_t5_unset_and_unknown() {
    let c = shared().await;
    c.put("t5u", "").await;
    let raw = |target: CompareTarget, result: i32, target_union| Compare {
        result,
        target: target as i32,
        key: b"t5u".to_vec(),
        target_union,
        range_end: Vec::new(),
    };
    let (equal, greater) = (Equal as i32, Greater as i32);
    assert!(c.holds(raw(CompareTarget::Value, equal, None)).await, "an empty value");
    assert!(c.holds(raw(CompareTarget::Lease, equal, None)).await, "no lease");
    for target in [CompareTarget::Version, CompareTarget::Create, CompareTarget::Mod] {
        assert!(c.holds(raw(target, greater, None)).await, "{target:?} against 0");
        assert!(
            c.holds(raw(target, greater, Some(TargetUnion::Lease(i64::MAX)))).await,
            "the wrong field counts as 0"
        );
    }
    assert!(c.holds(raw(CompareTarget::Value, equal, Some(TargetUnion::Version(1)))).await);
    for result in [4, 99, -1] {
        assert!(
            c.holds(raw(CompareTarget::Version, result, Some(TargetUnion::Version(12)))).await,
            "result {result}"
        );
        let missing = Compare { result, ..value_is("t5nobody", "") };
        assert!(!c.holds(missing).await, "the value of a missing key stays false");
    }
    for (result, expected) in [(Equal, true), (NotEqual, false), (Greater, false), (Less, false)] {
        let unknown = Compare { target: 42, ..raw(CompareTarget::Version, result as i32, None) };
        assert_eq!(c.holds(unknown).await, expected, "unknown target, {result:?}");
    }
}

/// KV-T5: compares are joined by and; none at all holds.
#[tokio::test]
async fn kv_t5_all_must_hold() {
    let c = shared().await;
    c.put("t5a", "1").await;
    let yes = || value_is("t5a", "1");
    for (compares, expected) in [
        (vec![], true),
        (vec![yes(), yes()], true),
        (vec![yes(), never()], false),
        (vec![never(), yes()], false),
        (vec![yes(), yes(), value_is("t5a", "2")], false),
    ] {
        assert_eq!(c.txn(txn(compares, [], [])).await.succeeded, expected);
    }
}

/// KV-T6: with a range end every key inside must satisfy; an empty range is like one missing key.
#[tokio::test]
async fn kv_t6_ranges() {
    let c = shared().await;
    for (key, value) in [("t6/a", "1"), ("t6/b", "2"), ("t6/c", "2")] {
        c.put(key, value).await;
    }
    let over = |from: &str, to: &str, result, value| Compare {
        range_end: to.into(),
        ..compare(from, result, value)
    };
    let value = |v: &str| TargetUnion::Value(v.into());
    for (asked, expected) in [
        (over("t6/a", "t6/z", Equal, value("2")), false),
        (over("t6/b", "t6/z", Equal, value("2")), true),
        (over("t6/a", "t6/z", Greater, value("0")), true),
        (over("t6/a", "t6/c", Less, value("2")), false),
        (over("t6/a", "t6/b", Less, value("2")), true),
        (over("t6/a", "t6/z", Equal, TargetUnion::Version(1)), true),
        (over("t6/a", "t6/z", NotEqual, TargetUnion::Version(1)), false),
        (over("t6/x", "t6/z", Equal, TargetUnion::Version(0)), true),
        (over("t6/x", "t6/z", Greater, TargetUnion::CreateRevision(0)), false),
        (over("t6/x", "t6/z", NotEqual, value("2")), false),
        (over("t6/z", "t6/a", Equal, TargetUnion::ModRevision(0)), true),
    ] {
        assert_eq!(c.holds(asked.clone()).await, expected, "{asked:?}");
    }
}

/// KV-T8: nested compares see the state before the transaction, not the writes around them.
#[tokio::test]
async fn kv_t8_compares_before_writes() {
    let c = shared().await;
    c.put("t8/a", "old").await;
    let inner = |value: &str| txn([value_is("t8/a", value)], [get("t8/a").op()], []).op();
    let response = c.txn(txn([], [put("t8/a", "new").op(), inner("old"), inner("new")], [])).await;
    let old = as_txn(&response.responses[1]);
    assert!(old.succeeded, "the compare saw the old value");
    assert_eq!(crate::client::as_range(&old.responses[0]).kvs[0].value, b"new", "the range sees the new one");
    assert!(!as_txn(&response.responses[2]).succeeded);

    // Two levels deep, on both branches, with a key that the transaction creates and one that it deletes.
    let created = || mod_revision_is("t8/c", 0);
    let deep = txn([created()], [txn([created()], [put("t8/mark", "").op()], []).op()], []);
    let response = c.txn(txn([never()], [], [put("t8/c", "").op(), deep.op(), delete("t8/a").op()])).await;
    assert!(!response.succeeded);
    let middle = as_txn(&response.responses[1]);
    assert!(middle.succeeded && as_txn(&middle.responses[0]).succeeded);
    assert_eq!(keys(&c.range(crate::client::prefix("t8/")).await.kvs), ["t8/c", "t8/mark"]);
}
