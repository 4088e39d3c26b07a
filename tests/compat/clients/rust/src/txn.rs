//! Transactions: compares of every kind, branches, nesting, and the loop that applications write around them.

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse,
};

use crate::control::Server;
use crate::help::*;
use crate::suite::Case;

pub const CASES: &[Case] = &[
    crate::case!("txn/compare and swap", compare_and_swap),
    crate::case!("txn/every compare", every_compare),
    crate::case!("txn/compare of a range", compare_range),
    crate::case!("txn/answers in order, one revision", answers),
    crate::case!("txn/nested", nested),
    crate::case!("txn/one key twice is refused", one_key_twice),
    crate::case!("txn/too many operations are refused", too_many, ["--max-txn-ops=4"]),
    crate::case!("txn/a failing operation undoes all", undone),
    crate::case!("txn/counters by several tasks", counters),
];

async fn compare_and_swap(server: Server) {
    let mut client = connect(&server).await;
    put(&mut client, &["a=1"]).await;
    let swap = Txn::new()
        .when([
            Compare::value("a", CompareOp::Equal, "1"),
            Compare::version("b", CompareOp::Equal, 0), // b is not there
        ])
        .and_then([TxnOp::put("a", "2", None), TxnOp::put("b", "3", None)])
        .or_else([TxnOp::get("a", None)]);
    let first = client.txn(swap.clone()).await.expect("txn");
    assert!(first.succeeded());
    let second = client.txn(swap).await.expect("txn");
    assert!(!second.succeeded());
    match &second.op_responses()[..] {
        [TxnOpResponse::Get(found)] => assert_eq!(pairs(found.kvs()), ["a=2"]),
        other => panic!("{other:?}"),
    }
    // Reading takes no revision.
    assert_eq!(second.header().expect("a header").revision(), 3);
}

async fn holds(client: &mut Client, compare: Compare) -> bool {
    client.txn(Txn::new().when([compare])).await.expect("txn").succeeded()
}

async fn every_compare(server: Server) {
    let mut client = connect(&server).await;
    let lease = client.lease_grant(600, None).await.expect("grant").id();
    put(&mut client, &["other=0", "a=1"]).await;
    client.put("a", "m", Some(PutOptions::new().with_lease(lease))).await.expect("put");
    // version 2, created at 3, modified at 4
    for (op, less, equal, greater) in [
        (CompareOp::Equal, false, true, false),
        (CompareOp::NotEqual, true, false, true),
        (CompareOp::Greater, true, false, false),
        (CompareOp::Less, false, false, true),
    ] {
        for (offset, expected) in [(-1, less), (0, equal), (1, greater)] {
            let value = ["l", "m", "n"][(offset + 1) as usize];
            for compare in [
                Compare::version("a", op, 2 + offset),
                Compare::create_revision("a", op, 3 + offset),
                Compare::mod_revision("a", op, 4 + offset),
                Compare::lease("a", op, lease + offset),
                Compare::value("a", op, value),
            ] {
                assert_eq!(holds(&mut client, compare.clone()).await, expected, "{compare:?}");
            }
        }
    }
    // What is not there has no value to compare with, and zeros for the rest.
    assert!(!holds(&mut client, Compare::value("absent", CompareOp::Equal, "")).await);
    assert!(!holds(&mut client, Compare::value("absent", CompareOp::NotEqual, "x")).await);
    assert!(holds(&mut client, Compare::mod_revision("absent", CompareOp::Equal, 0)).await);
    assert!(holds(&mut client, Compare::lease("absent", CompareOp::Less, 1)).await);
}

async fn compare_range(server: Server) {
    let mut client = connect(&server).await;
    put(&mut client, &["a/x=1", "a/y=1", "b=2"]).await;
    let ones = || Compare::value("a/", CompareOp::Equal, "1").with_prefix();
    assert!(holds(&mut client, ones()).await);
    let range = Compare::value("a/", CompareOp::Equal, "1").with_range("c");
    assert!(!holds(&mut client, range).await);
    put(&mut client, &["a/y=2"]).await;
    assert!(!holds(&mut client, ones()).await);
    assert!(holds(&mut client, Compare::mod_revision("a/", CompareOp::Less, 6).with_prefix()).await);
}

async fn answers(server: Server) {
    let mut client = connect(&server).await;
    put(&mut client, &["a=1", "b=2", "c=3"]).await;
    let txn = Txn::new().and_then([
        TxnOp::put("a", "4", Some(PutOptions::new().with_prev_key())),
        TxnOp::get("a", Some(GetOptions::new().with_range("c"))),
        TxnOp::delete("b", Some(DeleteOptions::new().with_range("d").with_prev_key())),
        TxnOp::get("", Some(GetOptions::new().with_all_keys())),
    ]);
    let done = client.txn(txn).await.expect("txn");
    assert!(done.succeeded(), "no compares hold");
    match &done.op_responses()[..] {
        [
            TxnOpResponse::Put(put),
            TxnOpResponse::Get(two),
            TxnOpResponse::Delete(delete),
            TxnOpResponse::Get(one),
        ] => {
            assert_eq!(put.prev_key().expect("the previous pair").value(), b"1");
            assert_eq!(pairs(two.kvs()), ["a=4", "b=2"]);
            assert_eq!(
                (delete.deleted(), pairs(delete.prev_kvs())),
                (2, vec!["b=2".to_owned(), "c=3".to_owned()])
            );
            assert_eq!((pairs(one.kvs()), one.kvs()[0].mod_revision()), (vec!["a=4".to_owned()], 5));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(done.header().expect("a header").revision(), 5);
}

async fn nested(server: Server) {
    let mut client = connect(&server).await;
    put(&mut client, &["a=1"]).await;
    let inner = Txn::new()
        .when([Compare::value("a", CompareOp::Equal, "2")])
        .and_then([TxnOp::put("then", "1", None)])
        .or_else([TxnOp::put("else", "1", None)]);
    let outer = Txn::new()
        .when([Compare::value("a", CompareOp::Equal, "1")])
        .and_then([TxnOp::txn(inner), TxnOp::put("a", "2", None)]);
    let done = client.txn(outer).await.expect("txn");
    match &done.op_responses()[..] {
        [TxnOpResponse::Txn(inner), TxnOpResponse::Put(_)] => {
            assert!(!inner.succeeded());
            assert!(matches!(inner.op_responses()[..], [TxnOpResponse::Put(_)]));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(all(&mut client, "").await, ["a=2", "else=1"]);
    assert_eq!(done.header().expect("a header").revision(), 3);
}

async fn one_key_twice(server: Server) {
    let mut client = connect(&server).await;
    let expected = status(INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request");
    let put = |key: &str| TxnOp::put(key, "1", None);
    let twice = Txn::new().and_then([put("a"), put("b"), put("a")]);
    assert_eq!(refused(client.txn(twice).await), expected);
    let deleted = TxnOp::delete("a", Some(DeleteOptions::new().with_range("c")));
    assert_eq!(refused(client.txn(Txn::new().and_then([deleted, put("b")])).await), expected);
    let branches = Txn::new().and_then([put("a")]).or_else([put("a")]);
    assert!(client.txn(branches).await.expect("one in each branch").succeeded());
}

async fn too_many(server: Server) {
    let mut client = connect(&server).await;
    let puts = |count: usize| (0..count).map(|n| TxnOp::put(format!("{n}"), "1", None)).collect::<Vec<_>>();
    client.txn(Txn::new().and_then(puts(4))).await.expect("as many as may be");
    let expected = status(INVALID_ARGUMENT, "etcdserver: too many operations in txn request");
    assert_eq!(refused(client.txn(Txn::new().and_then(puts(5))).await), expected);
    assert_eq!(refused(client.txn(Txn::new().or_else(puts(5))).await), expected);
    let compares: Vec<_> = (0..5).map(|n| Compare::version(format!("{n}"), CompareOp::Equal, 1)).collect();
    assert_eq!(refused(client.txn(Txn::new().when(compares)).await), expected);
}

async fn undone(server: Server) {
    let mut client = connect(&server).await;
    put(&mut client, &["a=1"]).await;
    let bad = TxnOp::put("b", "2", Some(PutOptions::new().with_lease(99)));
    let txn = Txn::new().and_then([TxnOp::put("a", "2", None), bad]);
    assert_eq!(refused(client.txn(txn).await), status(NOT_FOUND, "etcdserver: requested lease not found"));
    let future = TxnOp::get("a", Some(GetOptions::new().with_revision(9)));
    let txn = Txn::new().and_then([TxnOp::put("a", "3", None), future]);
    assert_eq!(
        refused(client.txn(txn).await),
        status(OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision")
    );
    let found = client.get("a", None).await.expect("get");
    assert_eq!(
        (pairs(found.kvs()), found.header().expect("a header").revision()),
        (vec!["a=1".to_owned()], 2)
    );
}

/// Adds one to a number, and again if somebody else was faster.
async fn add_one(client: &mut Client) {
    loop {
        let found = client.get("n", None).await.expect("get");
        let number: u32 = text(found.kvs()[0].value()).parse().expect("a number");
        let unchanged = Compare::mod_revision("n", CompareOp::Equal, found.kvs()[0].mod_revision());
        let txn = Txn::new().when([unchanged]).and_then([TxnOp::put("n", (number + 1).to_string(), None)]);
        if client.txn(txn).await.expect("txn").succeeded() {
            return;
        }
    }
}

async fn counters(server: Server) {
    let mut client = connect(&server).await;
    put(&mut client, &["n=0"]).await;
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move {
                for _ in 0..25 {
                    add_one(&mut client).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a task that counts");
    }
    let found = client.get("n", None).await.expect("get");
    assert_eq!((pairs(found.kvs()), found.kvs()[0].version()), (vec!["n=100".to_owned()], 101));
}
