//! The same keys by this protocol and by etcd's, and what is not there.

use super::client::{own, shared, swap};
use kvist::pb::d_engine::client as pb;
use std::io::{Read, Write};
use tonic::Code;

#[tokio::test]
async fn what_one_protocol_writes_the_other_reads_and_watches() {
    let client = shared();
    let mut watch = client.watch_prefix("/m/").await;
    let mut etcd = client.etcd.watch(b"/m/", b"/m0", 0).await.expect("watch");
    // The first answer says that the watch is there.
    assert!(etcd.answers.message().await.expect("no end").expect("an answer").created);
    client.put("/m/a", "1").await;
    let revision = client.etcd.put("/m/a", "2").await.expect("put");
    assert!(client.write(swap("/m/a", Some("2"), "3")).await);
    let first = watch.expect_put("/m/a", "1").await;
    assert_eq!(watch.expect_put("/m/a", "2").await, revision.unsigned_abs());
    let last = watch.expect_put("/m/a", "3").await;
    assert!(first < last);
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let answer = etcd.answers.message().await.expect("no end").expect("an answer");
        let kvs = answer.events.into_iter().filter_map(|event| event.kv);
        seen.extend(kvs.map(|kv| (kv.value, kv.mod_revision.unsigned_abs())));
    }
    let expected = [(b"1".to_vec(), first), (b"2".to_vec(), revision.unsigned_abs()), (b"3".to_vec(), last)];
    assert_eq!(seen, expected);
    let pair = client.etcd.get("/m/a", false).await.expect("range").expect("the key");
    assert_eq!((pair.version, pair.mod_revision.unsigned_abs(), pair.lease), (3, last, 0));
    assert_eq!(client.get("/m/a").await.as_deref(), Some("3"));
}

#[tokio::test]
async fn calls_between_servers_are_not_there() {
    let client = shared();
    let channel = tonic::transport::Endpoint::from_shared(client.server.url()).expect("a URL").connect_lazy();
    for method in ["UpdateClusterConf", "JoinCluster", "DiscoverLeader"] {
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        grpc.ready().await.expect("connect");
        let path = format!("/d_engine.server.cluster.ClusterManagementService/{method}");
        let codec =
            tonic_prost::ProstCodec::<pb::WatchMembershipRequest, pb::WatchMembershipRequest>::default();
        let request = tonic::Request::new(pb::WatchMembershipRequest::default());
        let answer = grpc.unary(request, path.parse().expect("a path"), codec).await;
        assert_eq!(answer.expect_err("not there").code(), Code::Unimplemented);
    }
}

#[tokio::test]
async fn without_the_protocol_there_is_nothing() {
    let client = own(&["--protocols=etcd"]);
    let answer = client.kv.clone().handle_client_scan(pb::ScanRequest::default()).await;
    assert_eq!(answer.expect_err("not there").code(), Code::Unimplemented);
}

#[tokio::test]
async fn calls_are_counted() {
    let client = own(&[]);
    client.put("/k", "1").await;
    let mut page = String::new();
    let mut stream = std::net::TcpStream::connect(client.server.endpoint()).expect("connect");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: kvist\r\nConnection: close\r\n\r\n").expect("ask");
    stream.read_to_string(&mut page).expect("an answer");
    let line = "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"HandleClientWrite\",\
                grpc_service=\"d_engine.client.RaftClientService\",grpc_type=\"unary\"} 1";
    assert!(page.contains(line), "{page}");
}
