//! Sizes and counts: contract 1.0 rows G-5 and G-6, contract 8 (request bytes, streams), trap 25.

use kvist::pb::etcdserverpb as pb;
use prost::Message;
use tonic::Code;

use crate::client::{TOO_LARGE, ToOp, as_range, expect_error, get, own, prefix, put, shared, txn, value_is};
use crate::watch_client::{Clients, watch_key};

const REQUEST_BYTES_MAX: usize = 1_572_864;
const RECEIVE_BYTES_MAX: usize = 2_097_152;
/// What etcd wraps around a request before it measures it: header, request id, tags.
const ENVELOPE_BYTES_MAX: usize = 64;

/// A put whose encoding has exactly `bytes` bytes.
fn put_of(key: &str, bytes: usize) -> pb::PutRequest {
    let mut request = put(key, vec![b'v'; bytes - key.len() - 16]);
    while request.encoded_len() < bytes {
        request.value.push(b'v');
    }
    assert_eq!(request.encoded_len(), bytes);
    request
}

fn over_receive_limit(bytes: usize, limit: usize) -> String {
    format!("grpc: received message larger than max ({bytes} vs. {limit})")
}

/// G-5, G-6: two levels: up to 1.5 MiB accepted, up to 2 MiB refused by etcd, above refused by gRPC.
#[tokio::test]
async fn g_5_g_6_two_levels() {
    let c = own(&[]).await;
    c.try_put(put_of("g6", REQUEST_BYTES_MAX - ENVELOPE_BYTES_MAX)).await.expect("just below the limit");
    let written = c.get("g6").await.expect("kv");
    for bytes in
        [REQUEST_BYTES_MAX, REQUEST_BYTES_MAX + 1, 1_800_000, RECEIVE_BYTES_MAX - 1, RECEIVE_BYTES_MAX]
    {
        expect_error(c.try_put(put_of("g6", bytes)).await, Code::InvalidArgument, TOO_LARGE);
        let half = put_of("g6a", bytes / 2 - 40);
        let other = put_of("g6b", bytes / 2 - 40);
        if bytes > REQUEST_BYTES_MAX + 100 {
            let request = txn([], [half.op(), other.op()], []);
            expect_error(c.try_txn(request).await, Code::InvalidArgument, TOO_LARGE);
        }
    }
    for bytes in [RECEIVE_BYTES_MAX + 1, 3_000_000] {
        let text = over_receive_limit(bytes, RECEIVE_BYTES_MAX);
        expect_error(c.try_put(put_of("g5", bytes)).await, Code::ResourceExhausted, &text);
    }
    assert_eq!(c.get("g6").await.expect("kv"), written, "the refused ones changed nothing");
    assert_eq!(c.get("g6a").await, None);
}

/// G-6: what does not go through the log is bounded by the receive limit alone.
#[tokio::test]
async fn g_6_reads_are_not_proposals() {
    let c = shared().await;
    let long = vec![b'k'; 1_700_000];
    assert_eq!(c.range(get(long.clone())).await.count, 0);
    assert!(!c.txn(txn([value_is("g6r", long.clone())], [get("g6r").op()], [])).await.succeeded);
    expect_error(c.try_delete(crate::client::delete(long)).await, Code::InvalidArgument, TOO_LARGE);
    let longer = vec![b'k'; RECEIVE_BYTES_MAX];
    let bytes = get(longer.clone()).encoded_len();
    let text = over_receive_limit(bytes, RECEIVE_BYTES_MAX);
    expect_error(c.try_range(get(longer)).await, Code::ResourceExhausted, &text);
}

/// G-5, G-6: both levels follow `--max-request-bytes`.
#[tokio::test]
async fn g_5_g_6_other_limit() {
    let c = own(&["--max-request-bytes=4096"]).await;
    let receive_max = 4096 + 512 * 1024;
    c.try_put(put_of("g6", 4000)).await.expect("below the limit");
    expect_error(c.try_put(put_of("g6", 4097)).await, Code::InvalidArgument, TOO_LARGE);
    expect_error(c.try_put(put_of("g6", receive_max)).await, Code::InvalidArgument, TOO_LARGE);
    let text = over_receive_limit(receive_max + 1, receive_max);
    expect_error(c.try_put(put_of("g6", receive_max + 1)).await, Code::ResourceExhausted, &text);
}

/// G-5, trap 25, contract 8: answers may be far larger than any request, and values of a MiB come back whole.
#[tokio::test]
async fn g_5_large_answers() {
    let c = own(&[]).await;
    const MIB: usize = 1 << 20;
    for i in 0..12_u8 {
        c.put(format!("big/{i:02}"), vec![i; MIB]).await;
    }
    let all = c.range(prefix("big/")).await;
    assert!(all.encoded_len() > 12 * MIB);
    for (i, kv) in (0..12_u8).zip(&all.kvs) {
        assert!(kv.value.len() == MIB && kv.value.iter().all(|byte| *byte == i), "value {i}");
    }
    let twice = c.txn(txn([], [prefix("big/").op(), prefix("big/").op()], [])).await;
    assert_eq!(as_range(&twice.responses[1]).kvs, all.kvs);
    let previous = pb::PutRequest { prev_kv: true, ..put("big/00", "") };
    assert_eq!(c.try_put(previous).await.expect("put").prev_kv.expect("a previous pair").value, vec![0; MIB]);
    let gone = pb::DeleteRangeRequest { prev_kv: true, ..crate::client::delete_range("big/", "big0") };
    assert_eq!(c.delete(gone).await.prev_kvs.len(), 12);
}

/// Trap 25, contract 8 (concurrent streams): hundreds of calls may be open on one connection.
#[tokio::test]
async fn contract_8_many_streams_on_a_connection() {
    let c = shared().await;
    let watch = Clients::connect(c.server()).await;
    let mut open = Vec::new();
    for _ in 0..400 {
        let mut stream = watch.watch_stream();
        stream.create(watch_key("many-streams")).await;
        open.push(stream);
    }
    watch.put("many-streams", "").await;
    for stream in &mut open {
        stream.events(1).await;
    }
}
