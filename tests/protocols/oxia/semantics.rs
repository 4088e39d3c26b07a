//! What a batch does, sentence by sentence.

use std::time::{SystemTime, UNIX_EPOCH};

use kvist::pb::oxia as pb;
use pb::{BatchRequest, put_response};

use super::client::{
    ABSENT, Client, after, delete, delete_if, delete_range, etcd_put, events, found, get, get_error,
    get_range, is_mismatch, is_not_found, keys, put, put_error, put_if, stat,
};
use crate::support::Server;

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("milliseconds of this age")
}

#[tokio::test]
async fn a3_order_is_puts_deletes_delete_ranges_gets_get_ranges() {
    let client = Client::shared().await;
    let answer = client
        .batch(BatchRequest {
            get_ranges: vec![get_range("order/", "order0", true)],
            gets: vec![get("order/a"), get("order/b"), get("order/c")],
            delete_ranges: vec![delete_range("order/b", "order/c")],
            deletes: vec![delete("order/a")],
            puts: vec![put("order/a", "1"), put("order/b", "2"), put("order/c", "3")],
            ..Default::default()
        })
        .await;
    assert!(answer.puts.iter().all(|put| stat(put).version == 0));
    assert_eq!(answer.deletes[0].error, None);
    assert_eq!(answer.delete_ranges[0].deletes.len(), 1);
    assert_eq!(answer.delete_ranges[0].deletes[0].key, "order/b");
    is_not_found(get_error(&answer.gets[0]));
    is_not_found(get_error(&answer.gets[1]));
    assert_eq!(answer.gets[2].payload.as_deref(), Some(&b"3"[..]));
    assert_eq!(keys(&answer.get_ranges[0].gets), ["order/c"]);
}

#[tokio::test]
async fn a3_put_then_delete_in_one_batch() {
    let client = Client::shared().await;
    let request = || BatchRequest {
        puts: vec![put("put-delete", "x")],
        deletes: vec![delete_if("put-delete", 0)],
        ..Default::default()
    };
    for _ in 0..2 {
        let answer = client.batch(request()).await;
        assert_eq!((stat(&answer.puts[0]).version, &answer.deletes[0].error), (0, &None));
        is_not_found(get_error(&client.get("put-delete").await));
    }
}

#[tokio::test]
async fn a3_put_then_get_in_one_batch() {
    let client = Client::shared().await;
    let answer = client
        .batch(BatchRequest {
            puts: vec![put("put-get", "1"), put("put-get", "2")],
            gets: vec![get("put-get")],
            ..Default::default()
        })
        .await;
    assert_eq!(answer.puts.iter().map(|put| stat(put).version).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(answer.gets[0].payload.as_deref(), Some(&b"2"[..]));
    assert_eq!(found(&answer.gets[0]), stat(&answer.puts[1]));
}

#[tokio::test]
async fn a3_lists_of_answers_are_positional() {
    let client = Client::shared().await;
    let names = ["pos/c", "pos/a", "pos/none", "pos/b", "pos/a"];
    let answer = client
        .batch(BatchRequest {
            puts: vec![put("pos/b", "b"), put_if("pos/none", "", 7), put("pos/c", "c"), put("pos/a", "a")],
            deletes: vec![delete("pos/gone"), delete("pos/b"), delete_if("pos/a", 9)],
            gets: names.map(get).into(),
            get_ranges: vec![get_range("pos/x", "pos/y", false), get_range("pos/a", "pos/d", false)],
            ..Default::default()
        })
        .await;
    let puts: Vec<_> = answer.puts.iter().map(|put| (put.key.as_str(), put_error(put).is_some())).collect();
    assert_eq!(puts, [("pos/b", false), ("pos/none", true), ("pos/c", false), ("pos/a", false)]);
    let deletes: Vec<_> = answer.deletes.iter().map(|d| (d.key.as_str(), d.error.is_some())).collect();
    assert_eq!(deletes, [("pos/gone", true), ("pos/b", false), ("pos/a", true)]);
    assert_eq!(keys(&answer.gets), names);
    let payloads: Vec<_> = answer.gets.iter().map(|get| get.payload.as_deref()).collect();
    assert_eq!(payloads, [Some(&b"c"[..]), Some(b"a"), None, None, Some(b"a")]);
    assert!(answer.get_ranges[0].gets.is_empty());
    assert_eq!(keys(&answer.get_ranges[1].gets), ["pos/a", "pos/c"]);
}

#[tokio::test]
async fn a3_atomicity_is_one_commit_and_items_fail_alone() {
    let client = Client::shared().await;
    let mut watch = client.watch("atom/", client.revision().await + 1).await;
    let answer = client
        .batch(BatchRequest {
            puts: vec![put("atom/a", "1"), put_if("atom/b", "2", 5), put("atom/c", "3")],
            deletes: vec![delete("atom/none")],
            ..Default::default()
        })
        .await;
    is_mismatch(put_error(&answer.puts[1]));
    is_not_found(answer.deletes[0].error.as_ref());
    let seen = events(&mut watch, 2).await;
    assert_eq!(
        seen.iter().map(|(told, _)| told.as_str()).collect::<Vec<_>>(),
        ["put atom/a=1", "put atom/c=3"]
    );
    assert_eq!(seen[0].1, seen[1].1, "one commit is one revision");
}

#[tokio::test]
async fn a3_version_begins_at_0_counts_puts_and_restarts_after_a_delete() {
    let client = Client::shared().await;
    for _ in 0..2 {
        for expected in 0..3 {
            assert_eq!(stat(&client.put(put("version", "x")).await).version, expected);
            assert_eq!(found(&client.get("version").await).version, expected);
        }
        // A put that failed is none.
        is_mismatch(put_error(&client.put(put_if("version", "x", 17)).await));
        assert_eq!(found(&client.get("version").await).version, 2);
        assert_eq!(client.delete(delete("version")).await.error, None);
    }
}

#[tokio::test]
async fn a3_expected_version_of_a_put() {
    let client = Client::shared().await;
    // Of a missing key no version is right, not even the one that it would get.
    for wrong in [0, 1, u64::MAX - 1, i64::MAX as u64] {
        is_mismatch(put_error(&client.put(put_if("expected", "x", wrong)).await));
        is_not_found(get_error(&client.get("expected").await));
    }
    assert_eq!(stat(&client.put(put("expected", "x")).await).version, 0);
    assert_eq!(stat(&client.put(put_if("expected", "y", 0)).await).version, 1);
    for wrong in [0, 2, u64::MAX - 1] {
        is_mismatch(put_error(&client.put(put_if("expected", "z", wrong)).await));
    }
    let get = client.get("expected").await;
    assert_eq!((found(&get).version, get.payload.as_deref()), (1, Some(&b"y"[..])));
}

#[tokio::test]
async fn a3_expected_version_of_all_ones_means_no_such_key() {
    let client = Client::shared().await;
    assert_eq!(stat(&client.put(put_if("all-ones", "x", ABSENT)).await).version, 0);
    is_mismatch(put_error(&client.put(put_if("all-ones", "y", ABSENT)).await));
    assert_eq!(client.get("all-ones").await.payload.as_deref(), Some(&b"x"[..]));
    is_mismatch(client.delete(delete_if("all-ones", ABSENT)).await.error.as_ref());
    assert_eq!(found(&client.get("all-ones").await).version, 0);
}

#[tokio::test]
async fn a3_delete() {
    let client = Client::shared().await;
    is_not_found(client.delete(delete("delete")).await.error.as_ref());
    is_not_found(client.delete(delete_if("delete", ABSENT)).await.error.as_ref());
    is_mismatch(client.delete(delete_if("delete", 0)).await.error.as_ref());
    client.put(put("delete", "x")).await;
    is_mismatch(client.delete(delete_if("delete", 1)).await.error.as_ref());
    assert_eq!(found(&client.get("delete").await).version, 0, "the key is kept");
    assert_eq!(client.delete(delete_if("delete", 0)).await.error, None);
    is_not_found(client.delete(delete("delete")).await.error.as_ref());
}

/// The mismatch has the type that is 0, which the wire leaves out: a result must be there all the same.
#[tokio::test]
async fn a3_mismatch_is_an_error_that_is_present() {
    let client = Client::shared().await;
    let answer = client.put(put_if("present", "x", 3)).await;
    assert!(matches!(answer.result, Some(put_response::Result::Error(pb::Error { r#type: 0, .. }))));
    let get = client.get("present").await;
    assert!(get.result.is_some() && get.payload.is_none());
}

#[tokio::test]
async fn a3_get_has_the_payload_only_if_asked() {
    let client = Client::shared().await;
    client.put(put("asked/full", "x")).await;
    client.put(put("asked/empty", "")).await;
    let without = |key: &str| pb::GetRequest { include_payload: false, ..get(key) };
    let gets = vec![get("asked/full"), without("asked/full"), get("asked/empty"), without("asked/empty")];
    let answer = client.batch(BatchRequest { gets, ..Default::default() }).await;
    let payloads: Vec<_> = answer.gets.iter().map(|get| get.payload.as_deref()).collect();
    assert_eq!(payloads, [Some(&b"x"[..]), None, Some(b""), None]);
    assert!(answer.gets.iter().all(|get| found(get).version == 0));
}

#[tokio::test]
async fn a3_get_range_has_stats_and_payloads_if_asked() {
    let client = Client::shared().await;
    for (key, payload) in [("gr/b", "2"), ("gr/a", "1"), ("gr/c", ""), ("gr/d", "4")] {
        client.put(put(key, payload)).await;
    }
    client.put(put("gr/a", "1+")).await;
    let ranges = |payloads| vec![get_range("gr/a", "gr/d", payloads), get_range("gr/d", "gr/a", payloads)];
    let answer = client.batch(BatchRequest { get_ranges: ranges(true), ..Default::default() }).await;
    let gets = &answer.get_ranges[0].gets;
    assert_eq!(keys(gets), ["gr/a", "gr/b", "gr/c"]);
    assert_eq!(gets.iter().map(|get| found(get).version).collect::<Vec<_>>(), [1, 0, 0]);
    let payloads: Vec<_> = gets.iter().map(|get| get.payload.as_deref()).collect();
    assert_eq!(payloads, [Some(&b"1+"[..]), Some(b"2"), Some(b"")]);
    assert!(answer.get_ranges[1].gets.is_empty(), "an inverted range has nothing");
    let answer = client.batch(BatchRequest { get_ranges: ranges(false), ..Default::default() }).await;
    let gets = &answer.get_ranges[0].gets;
    assert!(gets.len() == 3 && gets.iter().all(|get| get.payload.is_none()));
}

#[tokio::test]
async fn a3_delete_range_names_what_it_deleted() {
    let client = Client::shared().await;
    for key in ["dr/c", "dr/a", "dr/b", "dr/d"] {
        client.put(put(key, "x")).await;
    }
    let delete_ranges =
        vec![delete_range("dr/a", "dr/c"), delete_range("dr/a", "dr/d"), delete_range("dr/x", "dr/a")];
    let answer = client.batch(BatchRequest { delete_ranges, ..Default::default() }).await;
    let deleted = |n: usize| -> Vec<&str> {
        let deletes = &answer.delete_ranges[n].deletes;
        assert!(deletes.iter().all(|delete| delete.error.is_none()));
        deletes.iter().map(|delete| delete.key.as_str()).collect()
    };
    assert_eq!(deleted(0), ["dr/a", "dr/b"]);
    assert_eq!(deleted(1), ["dr/c"]);
    assert!(deleted(2).is_empty());
    assert_eq!(keys(&client.list("dr/", "dr0").await), ["dr/d"]);
}

#[tokio::test]
async fn a3_key_is_echoed() {
    let client = Client::shared().await;
    let name = "echo/\u{e9}\u{0}/\u{1f600}";
    let answer = client
        .batch(BatchRequest {
            puts: vec![put(name, "x"), put_if(name, "x", 9)],
            deletes: vec![delete_if(name, 9), delete(name), delete(name)],
            gets: vec![get(name)],
            ..Default::default()
        })
        .await;
    assert!(answer.puts.iter().all(|put| put.key == name));
    assert!(answer.deletes.iter().all(|delete| delete.key == name));
    assert_eq!(answer.gets[0].key, name);
}

#[tokio::test]
async fn a3_timestamps_are_milliseconds_of_the_first_and_of_the_last_put() {
    let client = Client::shared().await;
    let before = now_ms();
    let first = stat(&client.put(put("stamp", "x")).await);
    assert_eq!(first.created_timestamp, first.modified_timestamp);
    assert!((before..=now_ms()).contains(&first.created_timestamp), "{first:?}");
    let later = first.created_timestamp + 2;
    while now_ms() < later {
        tokio::task::yield_now().await;
    }
    let second = stat(&client.put(put("stamp", "y")).await);
    assert_eq!(second.created_timestamp, first.created_timestamp);
    assert!(second.modified_timestamp >= later);
    assert_eq!(found(&client.get("stamp").await), second);
    assert_eq!(found(&client.list("stamp", "stamp0").await[0]), second);
    client.delete(delete("stamp")).await;
    let third = stat(&client.put(put("stamp", "z")).await);
    assert_eq!((third.version, third.created_timestamp), (0, third.modified_timestamp));
    assert!(third.created_timestamp >= second.modified_timestamp);
}

#[tokio::test]
async fn a3_key_order_is_that_of_bytes() {
    let client = Client::shared().await;
    let sorted = ["by/A", "by/a", "by/a/b", "by/aa", "by/b", "by/\u{e9}", "by/\u{1f600}"];
    for key in sorted.iter().rev() {
        client.put(put(*key, "x")).await;
    }
    assert_eq!(keys(&client.list("by/", "by0").await), sorted);
    assert_eq!(client.delete_range("by/", "by0").await, sorted);
}

#[tokio::test]
async fn a3_empty_end_is_unbounded_and_empty_start_is_the_first_key() {
    let client = Client::of(Server::start()).await;
    for key in ["a", "m", "\u{10ffff}"] {
        client.put(put(key, "x")).await;
    }
    assert_eq!(keys(&client.list("", "").await), ["a", "m", "\u{10ffff}"]);
    assert_eq!(keys(&client.list("b", "").await), ["m", "\u{10ffff}"]);
    assert_eq!(keys(&client.list("", "b").await), ["a"]);
    assert_eq!(client.delete_range("m", "").await, ["m", "\u{10ffff}"]);
    assert_eq!(client.delete_range("", "").await, ["a"]);
    assert!(client.list("", "").await.is_empty());
}

/// Keys that are not UTF-8 have no name in this protocol. They are not read, and above all not deleted.
#[tokio::test]
async fn a3_keys_that_are_not_utf8_are_left_alone() {
    let client = Client::of(Server::start()).await;
    let foreign: [&[u8]; 2] = [b"k\xff", b"\xc3\x28"];
    for key in foreign {
        etcd_put(&client, key, "etcd's", 0).await;
    }
    client.put(put("k", "x")).await;
    assert_eq!(keys(&client.list("", "").await), ["k"]);
    let answer = client
        .batch(BatchRequest {
            delete_ranges: vec![delete_range("", "")],
            get_ranges: vec![get_range("", "", true)],
            ..Default::default()
        })
        .await;
    assert_eq!(answer.delete_ranges[0].deletes.len(), 1);
    assert!(answer.get_ranges[0].gets.is_empty());
    let all =
        kvist::pb::etcdserverpb::RangeRequest { key: vec![0], range_end: vec![0], ..Default::default() };
    let left = client.etcd.kv.clone().range(all).await.expect("a range").into_inner();
    assert_eq!(left.kvs.iter().map(|kv| kv.key.as_slice()).collect::<Vec<_>>(), [&b"k\xff"[..], b"\xc3\x28"]);
}

/// Reads alone do not go through the log; with one write among them, the batch is one entry.
#[tokio::test]
async fn a3_reads_alone_are_not_logged_and_a_batch_is_one_entry() {
    let client = Client::of(Server::start()).await;
    let index = async || client.etcd.status().await.expect("status").raft_applied_index;
    client.put(put("logged", "x")).await;
    let before = index().await;
    let reads = || BatchRequest {
        gets: vec![get("logged"); 20],
        get_ranges: vec![get_range("", "", true)],
        ..Default::default()
    };
    client.batch(reads()).await;
    client.batch(BatchRequest::default()).await;
    assert_eq!(index().await, before);
    let puts = (0..50).map(|n| put(format!("logged/{}", n % 7), "x")).collect();
    let answer = client.batch(BatchRequest { puts, deletes: vec![delete("logged/0")], ..reads() }).await;
    assert_eq!(answer.get_ranges[0].gets.len(), 7);
    assert_eq!(index().await, before + 1);
}

/// A batch that asks for nothing is answered with nothing.
#[tokio::test]
async fn an_empty_batch_is_answered() {
    let client = Client::shared().await;
    assert_eq!(client.batch(BatchRequest::default()).await, pb::BatchResponse::default());
}

/// Payloads that the store keeps apart from their keys come back whole, from the memtable and from the file.
#[tokio::test]
async fn payloads_of_all_sizes_come_back() {
    let mut server = Server::start();
    let client = Client::connect(&server.url()).await;
    let sizes = [0, 1, 1024, 1025, 5000, 700_000];
    let payload = |size: usize| -> String { (0..size).map(|n| char::from(b'a' + (n % 23) as u8)).collect() };
    for size in sizes {
        client.put(put(format!("size/{size}"), &payload(size))).await;
    }
    let check = async |client: &Client| {
        let gets = sizes.map(|size| get(format!("size/{size}"))).into();
        let get_ranges = vec![get_range("size/", after("size/"), true)];
        let answer = client.batch(BatchRequest { gets, get_ranges, ..Default::default() }).await;
        let whole = |get: &pb::GetResponse, size| get.payload.as_deref() == Some(payload(size).as_bytes());
        assert!(answer.gets.iter().zip(sizes).all(|(get, size)| whole(get, size)));
        assert_eq!(answer.get_ranges[0].gets.len(), sizes.len());
        assert!(answer.get_ranges[0].gets.iter().all(|get| {
            whole(get, get.key.rsplit('/').next().and_then(|size| size.parse().ok()).expect("a size"))
        }));
    };
    check(&client).await;
    server.kill();
    server.restart();
    check(&Client::connect(&server.url()).await).await;
}
