//! The gRPC health service, and calls to what does not exist (contract 1.0).

use kvist::pb::etcdserverpb::DefragmentRequest;
use kvist::pb::health::health_check_response::ServingStatus;
use kvist::pb::health::health_client::HealthClient;
use kvist::pb::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest};
use tonic::Code;
use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstCodec;

use crate::support::Server;
use crate::watch_client::{Clients, REPLY_TIMEOUT};

fn asking(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

/// Contract 1.0 (Health): only the empty name has a status.
#[tokio::test]
async fn health_check() {
    let server = Server::start();
    let mut client = HealthClient::new(Clients::connect(&server).await.channel);
    let answer = client.check(asking("")).await.expect("check").into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
    for service in ["etcdserverpb.KV", "grpc.health.v1.Health", "nonsense"] {
        let status = client.check(asking(service)).await.expect_err("an unknown service");
        assert_eq!((status.code(), status.message()), (Code::NotFound, "unknown service"));
    }
}

/// Contract 1.0 (Health): a watch tells the state at once; an unknown name is told so and the stream stays.
#[tokio::test]
async fn health_watch() {
    let server = Server::start();
    let mut client = HealthClient::new(Clients::connect(&server).await.channel);
    for (service, expected) in [("", ServingStatus::Serving), ("nonsense", ServingStatus::ServiceUnknown)] {
        let mut stream = client.watch(asking(service)).await.expect("watch").into_inner();
        let first = tokio::time::timeout(REPLY_TIMEOUT, stream.message()).await.expect("an answer in time");
        let first: HealthCheckResponse = first.expect("a healthy stream").expect("a message");
        assert_eq!(first.status(), expected);
    }
}

/// Contract 1.0 (Health): the list has the empty name alone.
#[tokio::test]
async fn health_list() {
    let server = Server::start();
    let mut client = HealthClient::new(Clients::connect(&server).await.channel);
    let statuses = client.list(HealthListRequest {}).await.expect("list").into_inner().statuses;
    assert_eq!(
        statuses,
        [(String::new(), HealthCheckResponse { status: ServingStatus::Serving as i32 })].into()
    );
}

/// Contract 1.0 (Health): a defragmentation is told to those who check, behind its gate.
#[tokio::test]
async fn health_during_defragmentation() {
    let server = Server::start_with(&["--feature-gates=StopGRPCServiceOnDefrag=true"]);
    let clients = Clients::connect(&server).await;
    let mut client = HealthClient::new(clients.channel.clone());
    let mut stream = client.watch(asking("")).await.expect("watch").into_inner();
    let seen = async move {
        let mut statuses = Vec::new();
        while statuses.len() < 3 {
            statuses.push(stream.message().await.expect("a healthy stream").expect("a message").status());
        }
        statuses
    };
    let seen = tokio::spawn(tokio::time::timeout(REPLY_TIMEOUT, seen));
    while !seen.is_finished() {
        // A watcher may miss a short one.
        clients.maintenance.clone().defragment(DefragmentRequest {}).await.expect("defragment");
    }
    let (serving, not) = (ServingStatus::Serving, ServingStatus::NotServing);
    assert_eq!(seen.await.expect("no panic").expect("in time"), [serving, not, serving]);
}

/// Contract 1.0 (reflection): unknown services and methods are Unimplemented, and the connection stays good.
#[tokio::test]
async fn unknown_methods_are_unimplemented() {
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    let mut grpc = tonic::client::Grpc::new(clients.channel.clone());
    let paths = [
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/etcdserverpb.KV/NoSuchMethod",
        "/etcdserverpb.NoSuchService/Range",
        "/etcdserverpb.Lease/LeaseCheckpoint",
    ];
    for path in paths {
        grpc.ready().await.expect("ready");
        let codec: ProstCodec<HealthCheckRequest, HealthCheckResponse> = ProstCodec::default();
        let request = tonic::Request::new(asking(""));
        let status = grpc.unary(request, PathAndQuery::from_static(path), codec).await.expect_err("unknown");
        assert_eq!(status.code(), Code::Unimplemented, "{path}: {status:?}");
        let (service, method) = path[1..].rsplit_once('/').expect("a path of gRPC");
        let is_there = ["etcdserverpb.KV", "etcdserverpb.Lease"].contains(&service);
        let method = if is_there { format!("method {method} for ") } else { String::new() };
        assert_eq!(status.message(), format!("unknown {method}service {service}"));
    }
    clients.put("a", "").await;
}
