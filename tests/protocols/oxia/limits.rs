//! How large a batch may be.

use kvist::pb::oxia as pb;
use pb::BatchRequest;
use tonic::Code;

use super::client::{Client, delete, get, get_error, is_not_found, put, refuses, stat};
use crate::support::Server;

const TOO_LARGE: &str = "etcdserver: request is too large";
const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";

/// Items are not counted: more than `--max-txn-ops` are fine.
#[tokio::test]
async fn a_batch_may_have_many_items() {
    let client = Client::of(Server::start_with(&["--max-txn-ops=4"])).await;
    let names: Vec<String> = (0..5000).map(|n| format!("many/{n:04}")).collect();
    let puts = names.iter().map(|name| put(name, "x")).collect();
    let gets = names.iter().map(get).collect();
    let answer = client.batch(BatchRequest { puts, gets, ..Default::default() }).await;
    assert!(answer.puts.iter().all(|put| stat(put).version == 0));
    assert!(answer.gets.iter().zip(&names).all(|(get, name)| get.key == *name && get.payload.is_some()));
    assert_eq!(client.delete_range("many/", "many0").await, names);
}

#[tokio::test]
async fn a_batch_is_bounded_as_requests_of_etcd_are() {
    let client = Client::of(Server::start_with(&["--max-request-bytes=10000"])).await;
    let payload = "x".repeat(3000);
    let puts = |count: usize| (0..count).map(|n| put(format!("large/{n}"), &payload)).collect::<Vec<_>>();
    let request = BatchRequest { puts: puts(4), ..Default::default() };
    refuses(client.try_batch(request).await, Code::InvalidArgument, TOO_LARGE);
    is_not_found(get_error(&client.get("large/0").await));
    client.batch(BatchRequest { puts: puts(3), ..Default::default() }).await;
    // What does not go through the log may be longer, up to what a message may be.
    let gets = vec![get("large/0"); 2000];
    let answer = client.batch(BatchRequest { gets, ..Default::default() }).await;
    assert!(answer.gets.iter().all(|get| get.payload.as_deref() == Some(payload.as_bytes())));
    let message = BatchRequest { puts: vec![put("large/0", &"x".repeat(600_000))], ..Default::default() };
    let refused = client.try_batch(message).await.expect_err("too long a message");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
}

/// A small request can ask for a large answer; the server does not gather more than 256 MiB of it.
#[tokio::test]
async fn an_answer_is_bounded() {
    let client = Client::of(Server::start()).await;
    client.put(put("big", &"x".repeat(1 << 20))).await;
    let gets = vec![get("big"); 300];
    refuses(
        client.try_batch(BatchRequest { gets, ..Default::default() }).await,
        Code::InvalidArgument,
        TOO_LARGE,
    );
    let gets = vec![get("big"); 20];
    let answer = client.batch(BatchRequest { gets, ..Default::default() }).await;
    assert!(
        answer.gets.iter().all(|get| get.payload.as_ref().is_some_and(|payload| payload.len() == 1 << 20))
    );
}

/// At the quota, puts are refused and deletes are not.
#[tokio::test]
async fn the_quota_holds() {
    let client = Client::of(Server::start_with(&["--quota-backend-bytes=300000"])).await;
    client.put(put("quota/small", "x")).await;
    let large = BatchRequest { puts: vec![put("quota/large", &"x".repeat(400_000))], ..Default::default() };
    refuses(client.try_batch(large).await, Code::ResourceExhausted, NO_SPACE);
    let mixed = BatchRequest {
        puts: vec![put("quota/tiny", "x")],
        deletes: vec![delete("quota/small")],
        ..Default::default()
    };
    refuses(client.try_batch(mixed).await, Code::ResourceExhausted, NO_SPACE);
    assert_eq!(client.get("quota/small").await.payload.as_deref(), Some(&b"x"[..]));
    assert_eq!(client.delete(delete("quota/small")).await.error, None);
}
