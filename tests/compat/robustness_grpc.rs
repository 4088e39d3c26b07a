//! Malformed gRPC inside sound HTTP/2: bad protobuf, truncated and oversized messages, wrong framing. Each call fails
//! alone; the connection, its other streams and the memory of the server stay as they were.

use std::future::poll_fn;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use kvist::pb::etcdserverpb as pb;
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use tonic::Code;
use tonic::body::Body;
use tonic::transport::Channel;
use tower_service::Service;

use crate::robustness::GROWTH_MAX;
use crate::support::Server;
use crate::watch_client::{
    Clients, REPLY_TIMEOUT, delete_request, put_op, put_request, rss_anon_bytes, watch_key,
};

const UNARY: [&str; 12] = [
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.KV/Put",
    "/etcdserverpb.KV/DeleteRange",
    "/etcdserverpb.KV/Txn",
    "/etcdserverpb.KV/Compact",
    "/etcdserverpb.Lease/LeaseGrant",
    "/etcdserverpb.Lease/LeaseRevoke",
    "/etcdserverpb.Lease/LeaseTimeToLive",
    "/etcdserverpb.Cluster/MemberAdd",
    "/etcdserverpb.Maintenance/Alarm",
    "/etcdserverpb.Maintenance/HashKV",
    "/grpc.health.v1.Health/Check",
];
const STREAMING: [&str; 3] =
    ["/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive", "/etcdserverpb.KV/RangeStream"];

/// Posts `body` as it is and returns the gRPC status, from headers or trailers; `None` when there is none in time.
async fn post(channel: &Channel, path: &str, body: Vec<u8>) -> Option<Code> {
    let request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Full::new(bytes::Bytes::from(body))))
        .expect("a request");
    let mut channel = channel.clone();
    poll_fn(|context| channel.poll_ready(context)).await.expect("the connection is up");
    let exchange = async {
        let response = channel.call(request).await.ok()?;
        let status = response.headers().get("grpc-status").cloned();
        let status = match status {
            Some(status) => status,
            None => response.into_body().collect().await.ok()?.trailers()?.get("grpc-status")?.clone(),
        };
        Some(Code::from_bytes(status.as_bytes()))
    };
    tokio::time::timeout(Duration::from_secs(3), exchange).await.ok().flatten()
}

/// A message with its gRPC prefix; `claimed` may differ from the length.
fn framed(compressed: u8, claimed: usize, message: &[u8]) -> Vec<u8> {
    let claimed = u32::try_from(claimed).expect("a 32-bit length");
    [&[compressed], claimed.to_be_bytes().as_slice(), message].concat()
}

fn whole(message: &[u8]) -> Vec<u8> {
    framed(0, message.len(), message)
}

async fn fixture() -> (Server, Clients, u64) {
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    clients.put("a", "1").await;
    let memory = rss_anon_bytes(&server);
    (server, clients, memory)
}

async fn assert_serving(server: &Server, clients: &Clients, memory: u64) {
    clients.put("a", "again").await;
    assert_eq!(clients.range("a", "").await.count, 1);
    let growth = rss_anon_bytes(server).saturating_sub(memory);
    assert!(growth < GROWTH_MAX, "anonymous memory grew by {growth} bytes");
}

/// Bytes that are no protobuf of the method: Internal, for unary calls and streams.
#[tokio::test]
async fn robust_invalid_protobuf() {
    let (server, clients, memory) = fixture().await;
    let cases: [&[u8]; 5] = [
        &[0x0a],                                                 // a field without its length
        &[0x0a, 0x7f, 1],                                        // a field longer than the message
        &[0xff; 16],                                             // a varint without end
        &[0x0f],                                                 // wire type 7
        &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], // a length near 2^56
    ];
    for path in UNARY.iter().chain(&STREAMING) {
        for case in cases {
            let code = post(&clients.channel, path, whole(case)).await;
            assert_eq!(code, Some(Code::Internal), "{path} {case:?}");
        }
    }
    let not_utf8 = whole(&[0x0a, 2, 0xff, 0xfe]); // peerURLs is a string
    assert_eq!(
        post(&clients.channel, "/etcdserverpb.Cluster/MemberAdd", not_utf8).await,
        Some(Code::Internal)
    );
    assert_serving(&server, &clients, memory).await;
}

/// Wrong gRPC framing: cut off, empty, compressed without saying how, larger than allowed.
#[tokio::test]
async fn robust_grpc_framing() {
    let (server, clients, memory) = fixture().await;
    let put = put_request("cut", "off", 0).encode_to_vec();
    for path in UNARY {
        for body in [vec![0, 0, 0], framed(0, put.len() + 100, &put), framed(1, put.len(), &put)] {
            let code = post(&clients.channel, path, body).await;
            assert!(code.is_some_and(|c| c != Code::Ok), "{path}: {code:?}");
        }
        let huge = framed(0, 0xffff_ffff, &[1; 1000]);
        assert_eq!(post(&clients.channel, path, huge).await, Some(Code::ResourceExhausted), "{path}");
    }
    // grpc-go leaves some calls that end without a message unanswered, so only success is wrong here.
    assert_ne!(post(&clients.channel, "/etcdserverpb.KV/Compact", Vec::new()).await, Some(Code::Ok));
    assert_eq!(clients.range("cut", "").await.count, 0, "half a message has no effect");
    assert_serving(&server, &clients, memory).await;
}

/// G-5: messages above the receive limit are refused again and again without holding on to them.
#[tokio::test]
async fn robust_oversized_messages() {
    let (server, clients, memory) = fixture().await;
    let body = whole(&put_request("big", vec![b'v'; 2_500_000], 0).encode_to_vec());
    for _ in 0..60 {
        let code = post(&clients.channel, "/etcdserverpb.KV/Put", body.clone()).await;
        // The server may answer before it has read all; some clients then see the reset only.
        assert!(matches!(code, Some(Code::ResourceExhausted) | None), "{code:?}");
    }
    assert_serving(&server, &clients, memory).await;
}

/// A transaction nested thousands of levels deep is refused; no stack overflows.
#[tokio::test]
async fn robust_deeply_nested_txn() {
    let (server, clients, memory) = fixture().await;
    let mut op = put_op("deep", "").encode_to_vec();
    let wrap = |tag: u8, inner: &[u8]| {
        let mut out = vec![tag];
        prost::encoding::encode_varint(inner.len() as u64, &mut out);
        out.extend(inner);
        out
    };
    for _ in 0..5000 {
        let txn = wrap(0x12, &op); // TxnRequest.success
        op = wrap(0x22, &txn); // RequestOp.request_txn
    }
    let code = post(&clients.channel, "/etcdserverpb.KV/Txn", whole(&wrap(0x12, &op))).await;
    assert!(code.is_some_and(|c| c != Code::Ok), "{code:?}");
    assert_eq!(clients.range("deep", "").await.count, 0);
    assert_serving(&server, &clients, memory).await;
}

/// A bad message in the middle of a watch stream ends that stream; the others of the connection go on.
#[tokio::test]
async fn robust_bad_message_amid_a_watch_stream() {
    let (server, clients, memory) = fixture().await;
    let mut good = clients.watch_stream();
    good.create(watch_key("a")).await;
    for _ in 0..5 {
        let create = pb::watch_request::RequestUnion::CreateRequest(watch_key("a"));
        let create = pb::WatchRequest { request_union: Some(create) }.encode_to_vec();
        let body = [whole(&create), whole(&[0xff; 16])].concat();
        let code = post(&clients.channel, "/etcdserverpb.Watch/Watch", body).await;
        assert_ne!(code, Some(Code::Ok));
    }
    clients.put("a", "2").await;
    assert_eq!(good.briefs(1).await, ["put a=2@3"]);
    assert_serving(&server, &clients, memory).await;
}

/// Thousands of mutated requests to methods that cannot take the member down: every one is answered.
#[tokio::test]
async fn robust_mutated_requests() {
    const ROUNDS: usize = 3000;
    let (server, clients, memory) = fixture().await;
    let range = pb::RangeRequest { key: "a".into(), range_end: "z".into(), limit: 3, ..Default::default() };
    let compare = pb::Compare { key: "a".into(), ..Default::default() };
    let txn = pb::TxnRequest { compare: vec![compare], success: vec![put_op("a", "1")], failure: vec![] };
    let seeds = [
        ("/etcdserverpb.KV/Range", range.encode_to_vec()),
        ("/etcdserverpb.KV/Put", put_request("a", "value", 7).encode_to_vec()),
        ("/etcdserverpb.KV/DeleteRange", delete_request("a", "c").encode_to_vec()),
        ("/etcdserverpb.KV/Txn", txn.encode_to_vec()),
        ("/etcdserverpb.KV/Compact", pb::CompactionRequest { revision: 2, physical: false }.encode_to_vec()),
        ("/etcdserverpb.Lease/LeaseGrant", pb::LeaseGrantRequest { ttl: 60, id: 9 }.encode_to_vec()),
        (
            "/etcdserverpb.Lease/LeaseTimeToLive",
            pb::LeaseTimeToLiveRequest { id: 9, keys: true }.encode_to_vec(),
        ),
        ("/etcdserverpb.Maintenance/HashKV", pb::HashKvRequest { revision: 3 }.encode_to_vec()),
    ];
    let mut random = StdRng::seed_from_u64(11);
    for round in 0..ROUNDS {
        let (path, seed) = &seeds[round % seeds.len()];
        let mut message = seed.clone();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..message.len());
            match random.random_range(0..3) {
                0 => message[at] = random.next_u32().to_le_bytes()[0],
                1 => message.truncate(at.max(1)),
                _ => message.insert(at, random.next_u32().to_le_bytes()[0]),
            }
        }
        let code = post(&clients.channel, path, whole(&message)).await;
        assert!(code.is_some(), "round {round}: no answer to {path} {message:?}");
    }
    assert_serving(&server, &clients, memory).await;
    let probe = tokio::time::timeout(REPLY_TIMEOUT, clients.status()).await.expect("status in time");
    assert!(probe.errors.is_empty());
}
