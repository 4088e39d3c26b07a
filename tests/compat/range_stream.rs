//! KV.RangeStream: contract 1.4, rows KV-S1 to KV-S5.

use kvist::pb::etcdserverpb as pb;
use prost::Message;
use tonic::{Code, Status, Streaming};

use crate::client::{
    COMPACTED, Client, EMPTY_KEY, FUTURE, delete_range, expect_error, get, own, prefix, put, range, shared,
};

const NO_SORT: &str = "RangeStream does not support custom sort orders";
const NO_FILTERS: &str = "RangeStream does not support revision filters";

type Stream = Streaming<pb::RangeStreamResponse>;

async fn open(c: &Client, request: pb::RangeRequest) -> Result<Stream, Status> {
    Ok(c.kv.clone().range_stream(request).await?.into_inner())
}

async fn rest(stream: &mut Stream) -> Result<Vec<pb::RangeResponse>, Status> {
    let mut chunks = Vec::new();
    while let Some(message) = stream.message().await? {
        chunks.push(message.range_response.expect("a message holds a response"));
    }
    Ok(chunks)
}

async fn chunks(c: &Client, request: pb::RangeRequest) -> Result<Vec<pb::RangeResponse>, Status> {
    rest(&mut open(c, request).await?).await
}

/// The chunks as one response, by the rule of protobuf: the encodings one after the other.
fn merged(chunks: &[pb::RangeResponse]) -> pb::RangeResponse {
    let mut whole = pb::RangeResponse::default();
    for chunk in chunks {
        whole.merge(chunk.encode_to_vec().as_slice()).expect("a sound encoding");
    }
    whole
}

async fn fill(c: &Client, name: &str, count: usize, value_bytes: usize) {
    for i in 0..count {
        c.put(format!("{name}{i:04}"), vec![b'v'; value_bytes]).await;
    }
}

/// KV-S1, KV-S3: refusals.
#[tokio::test]
async fn kv_s1_refusals() {
    let c = own(&[]).await;
    c.put("s1", "").await;
    let order = |sort_order, sort_target| pb::RangeRequest { sort_order, sort_target, ..get("s1") };
    expect_error(chunks(&c, get("")).await, Code::InvalidArgument, EMPTY_KEY);
    expect_error(chunks(&c, order(3, 0)).await, Code::InvalidArgument, "etcdserver: invalid sort option");
    expect_error(chunks(&c, order(0, 5)).await, Code::InvalidArgument, "etcdserver: invalid sort option");
    for (sort_order, sort_target) in [(2, 0), (1, 1), (1, 2), (2, 3), (1, 4), (2, 4)] {
        expect_error(chunks(&c, order(sort_order, sort_target)).await, Code::Unimplemented, NO_SORT);
    }
    for filtered in [
        pb::RangeRequest { min_mod_revision: 1, ..get("s1") },
        pb::RangeRequest { max_mod_revision: 1, ..get("s1") },
        pb::RangeRequest { min_create_revision: 1, ..get("s1") },
        pb::RangeRequest { max_create_revision: -1, ..get("s1") },
    ] {
        expect_error(chunks(&c, filtered).await, Code::Unimplemented, NO_FILTERS);
    }
    let both = pb::RangeRequest { min_mod_revision: 1, ..order(2, 0) };
    expect_error(chunks(&c, both).await, Code::Unimplemented, NO_SORT);
    assert_eq!(chunks(&c, order(1, 0)).await.expect("by key, ascending").len(), 1);
    let future = pb::RangeRequest { revision: 3, ..get("s1") };
    expect_error(chunks(&c, future.clone()).await, Code::OutOfRange, FUTURE);
    let future = pb::RangeRequest { count_only: true, ..future };
    expect_error(chunks(&c, future).await, Code::OutOfRange, FUTURE);
    c.put("s1", "").await;
    c.compact(3).await;
    expect_error(
        chunks(&c, pb::RangeRequest { revision: 2, ..get("s1") }).await,
        Code::OutOfRange,
        COMPACTED,
    );
}

/// KV-S2, KV-S4, KV-S5: merged chunks are the unary answer; header, more and count come last only.
#[tokio::test]
async fn kv_s2_s4_s5_equal_to_unary() {
    let c = own(&[]).await;
    fill(&c, "s2/", 150, 10).await;
    let old = c.revision().await;
    c.delete(delete_range("s2/0010", "s2/0020")).await;
    fill(&c, "s2/x", 3, 10).await;
    let all = || prefix("s2/");
    for request in [
        all(),
        get("s2/0000"),
        get("s2/none"),
        range("s2/0100", "s2/0050"),
        range("s2/0100", [0]),
        pb::RangeRequest { revision: old, ..all() },
        pb::RangeRequest { revision: -1, ..all() },
        pb::RangeRequest { keys_only: true, ..all() },
        pb::RangeRequest { serializable: true, ..all() },
        pb::RangeRequest { sort_order: 1, ..all() },
        pb::RangeRequest { count_only: true, ..all() },
        pb::RangeRequest { count_only: true, limit: 3, revision: old, ..all() },
        pb::RangeRequest { limit: 1, ..all() },
        pb::RangeRequest { limit: 10, ..all() },
        pb::RangeRequest { limit: 11, revision: old, ..all() },
        pb::RangeRequest { limit: 142, ..all() },
        pb::RangeRequest { limit: 143, ..all() },
        pb::RangeRequest { limit: 144, ..all() },
        pb::RangeRequest { limit: -1, ..all() },
        pb::RangeRequest { limit: i64::MAX, ..all() },
    ] {
        let parts = chunks(&c, request.clone()).await.expect("a healthy stream");
        let (last, before) = parts.split_last().expect("at least one message");
        assert!(last.header.is_some(), "{request:?}");
        for part in before {
            assert!(
                part.header.is_none() && part.count == 0 && !part.more && !part.kvs.is_empty(),
                "{request:?}"
            );
        }
        assert_eq!(merged(&parts), c.range(request.clone()).await, "{request:?}");
        if request.count_only {
            assert_eq!(parts.len(), 1);
        }
    }
    assert!(
        chunks(&c, all()).await.expect("a healthy stream").len() > 1,
        "140 keys do not come in one piece"
    );
}

/// KV-S1 [Q]: a sort target without an order passes the check and is sorted within each chunk only.
#[tokio::test]
async fn kv_s1_quirk_target_without_order() {
    let c = shared().await;
    c.put("s1q/a", "2").await;
    c.put("s1q/b", "1").await;
    let request = pb::RangeRequest { sort_target: 4, ..prefix("s1q/") };
    let parts = chunks(&c, request.clone()).await.expect("a healthy stream");
    assert_eq!(merged(&parts).kvs, c.range(request).await.kvs);
}

/// KV-S2, KV-S4: large values; every pair comes once and in order, whatever the sizes of the chunks.
#[tokio::test]
async fn kv_s4_large_values() {
    let c = own(&[]).await;
    for (i, bytes) in [0, 1_000_000, 5, 300_000, 1_000_000].into_iter().cycle().take(45).enumerate() {
        c.put(format!("s4/{i:02}"), vec![b'a'; bytes]).await;
    }
    let parts = chunks(&c, prefix("s4/")).await.expect("a healthy stream");
    assert!(parts.len() > 2, "{} messages for 20 MB", parts.len());
    assert!(merged(&parts) == c.range(prefix("s4/")).await);
}

/// KV-S3: the revision is pinned by the first chunk; a write in between is invisible, even in the header.
#[tokio::test]
async fn kv_s3_pinned_revision() {
    let c = own(&[]).await;
    fill(&c, "s3/", 60, 200_000).await;
    let expected = c.range(prefix("s3/")).await;
    let mut stream = open(&c, prefix("s3/")).await.expect("a stream");
    let first = stream.message().await.expect("a healthy stream").expect("a chunk");
    // The stream's flow-control window is long full; the server cannot have read on to the end.
    let other = Client::connect(c.server().url()).await;
    other.put("s3/0059", "late").await;
    other.put("s3/9999", "late").await;
    other.delete(delete_range("s3/0050", "s3/0055")).await;
    let mut parts = vec![first.range_response.expect("a response")];
    parts.extend(rest(&mut stream).await.expect("a healthy stream"));
    assert!(merged(&parts) == expected, "the later writes are invisible");
}

/// KV-S3: a compaction past the pinned revision ends a stream that is under way.
#[tokio::test]
async fn kv_s3_compaction_amid_a_stream() {
    let c = own(&[]).await;
    fill(&c, "s3c/", 60, 200_000).await;
    let mut stream = open(&c, prefix("s3c/")).await.expect("a stream");
    stream.message().await.expect("a healthy stream").expect("a chunk");
    let other = Client::connect(c.server().url()).await;
    let at = other.put("s3c/late", "").await;
    other.compact(at).await;
    expect_error(rest(&mut stream).await, Code::OutOfRange, COMPACTED);
    assert_eq!(other.range(prefix("s3c/")).await.count, 61);
    other.try_put(put("s3c/after", "")).await.expect("the server goes on");
}
