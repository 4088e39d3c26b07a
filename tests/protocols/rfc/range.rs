//! Reads: order, limits, pages that belong together.

use bytes::Bytes;
use kvist::pb::rfc as pb;

use super::client::{BAD_TOKEN, COMPACTED, Client, FUTURE, index, keys, range, refused, sound, start, text};

/// Puts foo0 to foo100.
async fn fill(client: &Client) {
    for n in 0..=100 {
        client.put(&format!("foo{n}"), "v").await;
    }
}

fn page(limit: i64, token: Option<Bytes>) -> pb::RangeRequest {
    pb::RangeRequest { limit: Some(limit), consistent_token: token, ..range("foo", "foo80") }
}

#[tokio::test]
async fn case_05_06_order_and_limit() {
    let (_server, client) = start(&[]).await;
    let base = client.index().await;
    fill(&client).await;
    let found = client.range(page(30, None)).await;
    assert_eq!(sound(&found.header), base + 101);
    let tens = (10..20).map(|n| format!("foo{n}"));
    let expected: Vec<String> = ["foo0", "foo1", "foo10", "foo100"]
        .map(str::to_owned)
        .into_iter()
        .chain(tens.skip(1))
        .chain(["foo2".to_owned()])
        .chain((20..30).map(|n| format!("foo{n}")))
        .chain(["foo3".to_owned()])
        .chain((30..35).map(|n| format!("foo{n}")))
        .collect();
    assert_eq!(keys(&found.kvs), expected[..30]);
    assert_eq!(keys(&found.kvs)[29], "foo34");
    assert_eq!(client.range(range("foo", "foo80")).await.kvs.len(), 80);
    for limit in [0, -1, 80, 1000] {
        assert_eq!(client.range(page(limit, None)).await.kvs.len(), 80, "{limit}");
    }
    // Ends: there but empty, a zero byte, below the key.
    let ends = [("", 1), ("\0", 101), ("a", 0)];
    for (end, count) in ends {
        let range_end = Some(Bytes::copy_from_slice(end.as_bytes()));
        let request = pb::RangeRequest { range_end, ..range("foo0", "") };
        assert_eq!(client.range(request).await.kvs.len(), count, "{end:?}");
    }
}

#[tokio::test]
async fn case_07_08_pages_of_one_index_until_it_is_compacted() {
    let (_server, client) = start(&[]).await;
    let base = client.index().await;
    fill(&client).await;
    let first = client.range(page(30, None)).await;
    let token = first.consistent_token.clone();
    assert_eq!(client.put("foo05", "x").await, base + 102);
    let (mut seen, mut last) = (first.kvs.len(), text(&first.kvs[29].key));
    for count in [30, 20] {
        let request = pb::RangeRequest { key: Some(format!("{last}\0").into()), ..page(30, token.clone()) };
        let next = client.range(request).await;
        assert_eq!((next.kvs.len(), sound(&next.header)), (count, base + 102));
        assert_eq!(next.consistent_token, token);
        assert!(!keys(&next.kvs).contains(&"foo05".to_owned()));
        seen += count;
        last = text(&next.kvs[count - 1].key);
    }
    assert_eq!(seen, 80);
    assert_eq!(client.range(page(0, token.clone())).await.kvs.len(), 80);
    assert_eq!(client.range(page(0, None)).await.kvs.len(), 81);

    client.compact(base + 102).await;
    let gone = client.range(page(30, token)).await;
    refused(&gone.header, COMPACTED);
    assert_eq!((gone.kvs.len(), gone.consistent_token), (0, None));
}

#[tokio::test]
async fn case_09_a_token_is_checked() {
    let (_server, client) = start(&[]).await;
    let token = client.range(range("k", "")).await.consistent_token.expect("a token");
    for wrong in [&[0xff, 0xff][..], &token[1..], &[&token[..], &[0]].concat()] {
        let answer = client.range(page(0, Some(Bytes::copy_from_slice(wrong)))).await;
        refused(&answer.header, BAD_TOKEN);
    }
    // Of another cluster, or of an index that is not there yet.
    let (_server, other) = start(&["--initial-cluster-token=another"]).await;
    refused(&other.range(page(0, Some(token.clone()))).await.header, BAD_TOKEN);
    let mut ahead = token.to_vec();
    ahead[9] = 1;
    let crc = crc32c::crc32c(&ahead[..17]);
    ahead[17..].copy_from_slice(&crc.to_be_bytes());
    refused(&client.range(page(0, Some(ahead.into()))).await.header, FUTURE);
    // There but empty counts as absent.
    index(&client.range(page(0, Some(Bytes::new()))).await.header);
}

/// Larger than what is kept in memory for an answer, so it is sent as it is read.
#[tokio::test]
async fn a_large_answer_is_whole() {
    let (_server, client) = start(&[]).await;
    let value = |n: usize| format!("{n:07}").repeat(60_000);
    for n in 0..16 {
        client.put(&format!("k{n:02}"), &value(n)).await;
    }
    client.put("k99", "").await;
    let found = client.range(range("k", "l")).await;
    sound(&found.header);
    assert_eq!(found.kvs.len(), 17);
    for (n, kv) in found.kvs[..16].iter().enumerate() {
        assert_eq!(text(&kv.key), format!("k{n:02}"));
        assert_eq!(kv.value.as_deref(), Some(value(n).as_bytes()));
    }
    assert_eq!(text(&found.kvs[16].value), "");
    let again = pb::RangeRequest { consistent_token: found.consistent_token, ..range("k", "l") };
    assert_eq!(client.range(again).await.kvs.len(), 17);
}
