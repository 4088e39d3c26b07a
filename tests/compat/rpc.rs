//! Rules of every call, as far as one member with a leader shows them: contract 1.0, rows G-1, G-2, G-9 and G-11.

use kvist::pb::etcdserverpb as pb;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use crate::client::{expect_error, get, own, put, shared};
use crate::watch_client::Clients;

/// A range request as a newer client might send it, with fields that nobody knows yet.
#[derive(Clone, PartialEq, prost::Message)]
struct FutureRange {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(uint64, tag = "77")]
    number: u64,
    #[prost(string, tag = "2001")]
    text: String,
    #[prost(fixed32, tag = "536870911")]
    word: u32,
}

fn with_metadata<T>(message: T, key: &'static str, value: &[u8]) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(key, MetadataValue::try_from(value).expect("a header value"));
    request
}

/// G-1: a client that requires a leader is served while there is one.
#[tokio::test]
async fn g_1_require_leader() {
    let c = shared().await;
    for value in ["true", "false", "nonsense"] {
        let request = with_metadata(put("g1", value), "hasleader", value.as_bytes());
        c.kv.clone().put(request).await.expect("put");
        let request = with_metadata(get("g1"), "hasleader", value.as_bytes());
        let found = c.kv.clone().range(request).await.expect("range").into_inner();
        assert_eq!(found.kvs[0].value, value.as_bytes());
        let request = with_metadata(get("g1"), "hasleader", value.as_bytes());
        let mut stream = c.kv.clone().range_stream(request).await.expect("range stream").into_inner();
        assert!(stream.message().await.expect("a healthy stream").is_some());
    }
}

/// G-2: the version a client claims is counted; bytes that are no text are refused.
#[tokio::test]
async fn g_2_client_api_version() {
    const KEY: &str = "client-api-version";
    const INVALID: &str = "etcdserver: invalid client api version";
    let c = own(&[]).await;
    let mut kv = c.kv.clone();
    for _ in 0..3 {
        kv.range(with_metadata(get("g2"), KEY, b"3.6")).await.expect("range");
    }
    kv.range(get("g2")).await.expect("range");
    expect_error(
        kv.range(with_metadata(get("g2"), KEY, &[b'3', 0xff])).await,
        Code::InvalidArgument,
        INVALID,
    );
    let stream = kv.range_stream(with_metadata(get("g2"), KEY, &[0xc3, 0x28])).await;
    let status = match stream {
        Err(status) => Err(status),
        Ok(stream) => stream.into_inner().message().await,
    };
    expect_error(status, Code::InvalidArgument, INVALID);
    kv.range(with_metadata(get("g2"), KEY, "3.π".as_bytes())).await.expect("any text will do");
}

/// G-9: a linearizable read on a connection of its own sees every completed write, under concurrent traffic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g_9_linearizable_reads() {
    let (session, reader) = (shared().await, shared().await);
    let noise = tokio::spawn({
        let c = (*session).clone();
        async move {
            for i in 0..200 {
                c.put(format!("g9/noise{i}"), "").await;
            }
        }
    });
    for i in 0..100 {
        let value = i.to_string();
        let at = session.put("g9", value.as_str()).await;
        let (first, second) = tokio::join!(reader.range(get("g9")), session.range(get("g9")));
        for response in [first, second] {
            assert_eq!(response.kvs[0].value, value.as_bytes());
            assert!(response.header.expect("header").revision >= at);
        }
    }
    noise.await.expect("the other client ends well");
}

/// G-11: fields that the server does not know are ignored.
#[tokio::test]
async fn g_11_unknown_fields() {
    let c = shared().await;
    c.put("g11", "value").await;
    let mut grpc = tonic::client::Grpc::new(Clients::connect(c.server()).await.channel);
    grpc.ready().await.expect("ready");
    let message = FutureRange { key: b"g11".to_vec(), number: u64::MAX, text: "new".into(), word: 7 };
    let codec: ProstCodec<FutureRange, pb::RangeResponse> = ProstCodec::default();
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
    let found = grpc.unary(Request::new(message), path, codec).await.expect("range").into_inner();
    assert_eq!(found.kvs[0].value, b"value");
}
