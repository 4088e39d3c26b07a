//! Transactions.

use kvist::pb::rfc as pb;
use pb::compare::{CompareType, Target};
use pb::request_union::Request as Op;

use super::client::{
    Client, DUPLICATE_KEY, EMPTY_KEY, TOO_MANY_OPS, answers, bytes, compare, delete_op, missing, put_op,
    range, range_op, refused, sound, start, tnx,
};

/// Whether a compare holds now.
async fn holds(client: &Client, compare: pb::Compare) -> bool {
    client.tnx(tnx([compare], [], [])).await.succeeded.expect("there in any case")
}

#[tokio::test]
async fn case_11_12_a_guard_chooses_the_list() {
    let (_server, client) = start(&[]).await;
    let base = client.index().await;
    client.put("foo0", "a").await;
    client.put("foo1", "b").await;
    let request = || {
        let guard = [
            compare(CompareType::Equal, "foo0", Target::ModIndex(base + 1)),
            compare(CompareType::Greater, "foo1", Target::ModIndex(base + 1)),
        ];
        tnx(guard, [put_op("foo2", "success")], [put_op("foo2", "failure")])
    };
    let done = client.tnx(request()).await;
    assert_eq!((sound(&done.header), done.succeeded), (base + 3, Some(true)));
    assert_eq!(answers(&done), ["put"]);
    assert_eq!(client.value("foo2").await, "success");

    client.put("foo0", "c").await;
    let done = client.tnx(request()).await;
    assert_eq!((sound(&done.header), done.succeeded), (base + 5, Some(false)), "false is there");
    assert_eq!(client.value("foo2").await, "failure");
}

#[tokio::test]
async fn case_13_14_15_compares() {
    let (_server, client) = start(&[]).await;
    let base = client.index().await;
    // A value compare never holds on a missing key; its numbers are 0.
    for kind in [CompareType::Equal, CompareType::Less, CompareType::Greater] {
        for value in ["", "a"] {
            assert!(!holds(&client, compare(kind, "k", Target::Value(value.into()))).await, "{kind:?}");
        }
    }
    for target in [Target::Version(0), Target::CreateIndex(0), Target::ModIndex(0)] {
        assert!(holds(&client, compare(CompareType::Equal, "k", target)).await);
    }
    let create = || tnx([missing("k")], [put_op("k", "v")], []);
    let first = client.tnx(create()).await;
    assert_eq!((sound(&first.header), first.succeeded), (base + 1, Some(true)));
    let second = client.tnx(create()).await;
    assert_eq!((sound(&second.header), second.succeeded), (base + 1, Some(false)));
    assert!(second.responses.is_empty());

    let holding = [
        compare(CompareType::Less, "k", Target::ModIndex(base + 100)),
        compare(CompareType::Equal, "k", Target::CreateIndex(base + 1)),
        compare(CompareType::Greater, "k", Target::Version(0)),
        compare(CompareType::Less, "k", Target::Value("w".into())),
        compare(CompareType::Greater, "k", Target::Value("".into())),
        pb::Compare { r#type: None, key: bytes("k"), target: Some(Target::Value("v".into())) },
    ];
    for compare in holding {
        assert!(holds(&client, compare.clone()).await, "{compare:?}");
    }
    assert!(!holds(&client, compare(CompareType::Greater, "k", Target::Value("v".into()))).await);
    assert_eq!(client.index().await, base + 1);
}

#[tokio::test]
async fn case_16_18_operations_run_in_order_at_one_index() {
    let (_server, client) = start(&[]).await;
    client.put("a", "1").await;
    let base = client.put("b", "old").await;
    let list =
        [range_op("a", ""), put_op("b", "new"), range_op("b", ""), delete_op("a", ""), range_op("a", "c")];
    let done = client.tnx(tnx([], list, [])).await;
    assert_eq!((sound(&done.header), done.succeeded), (base + 1, Some(true)));
    assert_eq!(answers(&done), ["range a=1", "put", "range b=new", "delete", "range b=new"]);

    let read = client.tnx(tnx([], [range_op("a", "z"), range_op("b", "")], [])).await;
    assert_eq!((sound(&read.header), answers(&read).len()), (base + 1, 2));
    assert_eq!(answers(&read), ["range b=new", "range b=new"]);
    let nothing = client.tnx(tnx([], [delete_op("a", "")], [])).await;
    assert_eq!((sound(&nothing.header), answers(&nothing)), (base + 1, vec!["delete".to_owned()]));
    let empty = client.tnx(tnx([], [], [])).await;
    assert_eq!((sound(&empty.header), empty.succeeded), (base + 1, Some(true)));
}

/// A read in a transaction may belong to an answer before it; its own token is of what it saw.
#[tokio::test]
async fn tokens_in_a_transaction() {
    let (_server, client) = start(&[]).await;
    client.put("k", "1").await;
    let token = client.range(range("k", "")).await.consistent_token;
    client.put("k", "2").await;
    let pinned = pb::RangeRequest { consistent_token: token.clone(), ..range("k", "") };
    let pinned = pb::RequestUnion { request: Some(Op::RequestRange(pinned)) };
    for list in [vec![range_op("k", ""), pinned.clone()], vec![range_op("k", ""), put_op("k", "3"), pinned]] {
        let done = client.tnx(tnx([], list.clone(), [])).await;
        let seen = answers(&done);
        assert_eq!((seen[0].as_str(), seen.last().map(String::as_str)), ("range k=2", Some("range k=1")));
        let tokens: Vec<_> = done.responses.iter().filter_map(token_of).collect();
        assert_eq!(Some(&tokens[1]), token.as_ref());
        let again = pb::RangeRequest { consistent_token: Some(tokens[0].clone()), ..range("k", "") };
        assert_eq!(client.range(again).await.kvs[0].value, bytes("2"), "as that read saw it");
    }
}

fn token_of(response: &pb::ResponseUnion) -> Option<bytes::Bytes> {
    match response.response.as_ref()? {
        pb::response_union::Response::ReponseRange(range) => range.consistent_token.clone(),
        _ => None,
    }
}

#[tokio::test]
async fn case_17_a_key_changes_once() {
    let (_server, client) = start(&["--max-txn-ops=3"]).await;
    let base = client.index().await;
    let twice = [put_op("k", "1"), put_op("k", "2")];
    let both = [put_op("k", "1"), delete_op("a", "z")];
    for request in [tnx([], twice.clone(), []), tnx([], [], twice), tnx([], both, [])] {
        let answer = client.tnx(request).await;
        assert_eq!(refused(&answer.header, DUPLICATE_KEY), base);
        assert_eq!((answer.succeeded, answer.responses.len()), (None, 0));
    }
    let long: Vec<_> = (0..4).map(|n| put_op(&format!("k{n}"), "")).collect();
    refused(&client.tnx(tnx([], [], long)).await.header, TOO_MANY_OPS);
    assert!(client.range(range("k", "l")).await.kvs.is_empty());
    assert_eq!(client.index().await, base);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let (_server, client) = start(&[]).await;
    let base = client.index().await;
    let of = |compare: pb::Compare| tnx([compare], [put_op("k", "")], []);
    let rows = [
        (of(pb::Compare { target: None, ..missing("k") }), "etcdserver: compare target is not provided"),
        (of(pb::Compare { r#type: Some(7), ..missing("k") }), "etcdserver: compare type is not valid"),
        (of(pb::Compare { key: None, ..missing("k") }), EMPTY_KEY),
        (tnx([], [pb::RequestUnion::default()], []), "etcdserver: operation is not provided"),
        (tnx([], [], [put_op("", "")]), EMPTY_KEY),
    ];
    for (request, error) in rows {
        assert_eq!(refused(&client.tnx(request).await.header, error), base);
    }
    assert!(client.get("k").await.is_none());
}
