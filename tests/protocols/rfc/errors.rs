//! Where it is said why a request failed.

use kvist::pb::rfc as pb;
use tonic::{Code, Status};

use super::client::{
    BAD_TOKEN, COMPACTED, DUPLICATE_KEY, EMPTY_KEY, FUTURE, KEY_NOT_FOUND, LEASE_NOT_FOUND, attachment,
    bytes, put_op, range, refused, start, tnx, watch, watch_from,
};

#[track_caller]
fn fails<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, text: &str) {
    let status = answer.expect_err("the call must fail");
    assert_eq!((status.code(), status.message()), (code, text));
}

#[tokio::test]
async fn errors_may_be_statuses() {
    let (_server, client) = start(&["--rfc-errors=status"]).await;
    let mut rfc = client.rfc.clone();
    let base = client.put("k", "1").await;
    let lease = client.lease().await;
    client.put("k", "2").await;
    client.compact(base + 1).await;
    fails(client.try_put("", "").await, Code::InvalidArgument, EMPTY_KEY);
    fails(client.try_range(pb::RangeRequest::default()).await, Code::InvalidArgument, EMPTY_KEY);
    let request = pb::RangeRequest { consistent_token: bytes("x"), ..range("k", "") };
    fails(client.try_range(request).await, Code::InvalidArgument, BAD_TOKEN);
    let twice = tnx([], [put_op("k", ""), put_op("k", "")], []);
    fails(rfc.tnx(twice).await, Code::InvalidArgument, DUPLICATE_KEY);
    let compact = |index| pb::CompactionRequest { index: Some(index) };
    fails(rfc.compact(compact(base)).await, Code::OutOfRange, COMPACTED);
    fails(rfc.compact(compact(base + 9)).await, Code::OutOfRange, FUTURE);
    fails(rfc.lease_attach(attachment(4711, "k")).await, Code::NotFound, LEASE_NOT_FOUND);
    fails(rfc.lease_attach(attachment(lease, "l")).await, Code::NotFound, KEY_NOT_FOUND);
    let create = pb::LeaseCreateRequest { ttl: Some(i64::MAX) };
    fails(rfc.lease_create(create).await, Code::OutOfRange, "etcdserver: too large lease TTL");

    // One watch or one lease does not end a stream in any case.
    let mut watches = client.watching(watch("k", "")).await;
    watches.send(watch_from("k", "", base)).await;
    refused(&watches.next().await.header, COMPACTED);
    let mut renewals = client.keep_alives().await;
    renewals.send(pb::LeaseKeepAliveRequest { lease_id: Some(4711) }).await;
    refused(&renewals.next().await.header, LEASE_NOT_FOUND);
}

#[tokio::test]
async fn what_leaves_no_answer_about_the_store_is_a_status() {
    let (_server, client) = start(&["--max-request-bytes=10000"]).await;
    let large = "v".repeat(11_000);
    fails(client.try_put("k", &large).await, Code::InvalidArgument, "etcdserver: request is too large");
    assert!(client.get("k").await.is_none());
}

#[tokio::test]
async fn the_quota_is_told_in_the_header() {
    const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";
    let (_server, client) = start(&["--quota-backend-bytes=100000"]).await;
    let base = client.put("k", "v").await;
    let large = "v".repeat(200_000);
    let answer = client.try_put("k", &large).await.expect("an answer");
    assert_eq!(refused(&answer.header, NO_SPACE), base);
    let lease = client.create(60).await;
    refused(&lease.header, NO_SPACE);
    assert_eq!(lease.error.as_deref(), Some(NO_SPACE));
    // What frees space goes on.
    client.delete("k", "").await;
}
