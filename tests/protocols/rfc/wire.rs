//! Paths and bytes.

use std::future::poll_fn;

use http_body_util::{BodyExt, Full};
use prost::Message;
use tonic::Code;
use tonic::body::Body;
use tonic::transport::Channel;
use tower_service::Service;

use super::client::{range, start};

const CALLS: [&str; 11] = [
    "Range",
    "Put",
    "DeleteRange",
    "Tnx",
    "WatchRange",
    "Compact",
    "LeaseCreate",
    "LeaseRevoke",
    "LeaseAttach",
    "LeaseTnx",
    "LeaseKeepAlive",
];

/// Posts one message, and returns the gRPC status with what was answered. The request ends there.
async fn post(channel: &Channel, path: &str, message: &[u8]) -> (Code, Vec<u8>) {
    let length = u32::try_from(message.len()).expect("a 32-bit length").to_be_bytes();
    let body = [&[0], &length[..], message].concat();
    let request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Full::new(bytes::Bytes::from(body))))
        .expect("a request");
    let mut channel = channel.clone();
    poll_fn(|context| channel.poll_ready(context)).await.expect("the connection is up");
    let response = channel.call(request).await.expect("an answer");
    let head = response.headers().get("grpc-status").cloned();
    let body = response.into_body().collect().await.expect("a whole body");
    let status = head.or_else(|| body.trailers()?.get("grpc-status").cloned()).expect("a status");
    (Code::from_bytes(status.as_bytes()), body.to_bytes().to_vec())
}

#[tokio::test]
async fn case_42_paths_have_no_package() {
    let (_server, client) = start(&[]).await;
    client.put("k", "").await;
    let (code, answer) = post(&client.channel, "/etcd/Range", &range("k", "").encode_to_vec()).await;
    assert_eq!(code, Code::Ok);
    let ends = |bytes: &[u8]| answer.windows(bytes.len()).any(|window| window == bytes);
    assert!(ends(&[0x0a, 1, b'k']) && ends(&[0x2a, 0]), "an empty value is there: {answer:?}");
    for call in CALLS {
        // A watch without a key and a lease without an id are refused, and the stream ends with the request.
        let (code, _) = post(&client.channel, &format!("/etcd/{call}"), &[]).await;
        assert_eq!(code, Code::Ok, "{call}");
    }
    for path in ["/etcd.etcd/Range", "/etcdpb.etcd/Range", "/etcd/Txn", "/etcd/Watch"] {
        assert_eq!(post(&client.channel, path, &[]).await.0, Code::Unimplemented, "{path}");
    }
}

#[tokio::test]
async fn foreign_bytes_are_an_error_of_the_call() {
    let (_server, client) = start(&[]).await;
    for call in CALLS {
        let (code, _) = post(&client.channel, &format!("/etcd/{call}"), &[0xff; 9]).await;
        assert_ne!(code, Code::Ok, "{call}");
    }
    client.put("k", "").await;
}

#[tokio::test]
async fn a_server_need_not_speak_it() {
    let (_server, client) = start(&["--protocols=etcd"]).await;
    let status = client.try_put("k", "v").await.expect_err("nobody answers");
    assert_eq!((status.code(), status.message()), (Code::Unimplemented, "unknown service etcd"));
}
