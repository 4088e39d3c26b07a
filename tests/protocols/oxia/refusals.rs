//! What is refused: a single item, or the whole batch.

use kvist::pb::oxia as pb;
use pb::{BatchRequest, ErrorType};
use tonic::Code;

use super::client::{
    Client, delete, delete_if, get, get_error, is_mismatch, is_not_found, put, put_error, raw_call, refuses,
    stat,
};
use crate::support::Server;

/// No key can be empty: such an item fails by itself, with the error of a key that is not there where there is one.
#[tokio::test]
async fn an_item_with_an_empty_key_fails_alone() {
    let client = Client::shared().await;
    let answer = client
        .batch(BatchRequest {
            puts: vec![put("", "x"), put("empty/a", "x"), put("", "y")],
            deletes: vec![delete(""), delete_if("", 0), delete("empty/a")],
            gets: vec![get(""), get("empty/a")],
            ..Default::default()
        })
        .await;
    for n in [0, 2] {
        let error = put_error(&answer.puts[n]).expect("an error");
        assert_eq!((error.r#type(), error.message.as_str()), (ErrorType::Unspecified, "the key is empty"));
    }
    assert_eq!(stat(&answer.puts[1]).version, 0);
    is_not_found(answer.deletes[0].error.as_ref());
    is_mismatch(answer.deletes[1].error.as_ref());
    assert_eq!(answer.deletes[2].error, None);
    is_not_found(get_error(&answer.gets[0]));
    is_not_found(get_error(&answer.gets[1]));
}

#[tokio::test]
async fn a_shard_that_is_not_there_is_refused_and_nothing_done() {
    let client = Client::shared().await;
    for shard_id in [1, u32::MAX] {
        let puts = vec![put("no-shard", "x")];
        let request = BatchRequest { shard_id: Some(shard_id), puts, ..Default::default() };
        let text = format!("there is no shard {shard_id}");
        refuses(client.try_batch(request).await, Code::InvalidArgument, &text);
    }
    is_not_found(get_error(&client.get("no-shard").await));
}

/// Bytes that are no message: keys must be UTF-8, fields of the right kind.
#[tokio::test]
async fn bytes_that_are_no_batch_are_refused() {
    let client = Client::shared().await;
    let puts = |key: &[u8]| {
        let put = [&[0x0a, key.len() as u8], key].concat();
        [&[0x12, put.len() as u8], &put[..]].concat()
    };
    for bytes in [puts(b"\xff\xfe"), vec![0x12, 0x05, 0x0a], vec![0x08], vec![0x10, 0x01]] {
        let refused = raw_call(&client, "Batch", bytes.clone()).await.expect_err("not a message");
        assert_eq!(refused.code(), Code::Internal, "{bytes:?}: {refused:?}");
    }
    assert_eq!(raw_call(&client, "Batch", puts(b"raw")).await.expect("a batch").puts.len(), 1);
    // Fields that nobody knows are passed over.
    assert_eq!(
        raw_call(&client, "Batch", vec![0x7a, 0x00]).await.expect("a batch"),
        pb::BatchResponse::default()
    );
}

#[tokio::test]
async fn a_method_that_is_not_there_is_unimplemented() {
    let client = Client::shared().await;
    refuses(
        raw_call(&client, "Write", Vec::new()).await,
        Code::Unimplemented,
        "unknown method Write for service io.streamnative.oxia.client.OxiaClient",
    );
}

#[tokio::test]
async fn without_the_protocol_there_is_no_service() {
    let client = Client::of(Server::start_with(&["--protocols=etcd"])).await;
    let text = "unknown service io.streamnative.oxia.client.OxiaClient";
    refuses(client.try_batch(BatchRequest::default()).await, Code::Unimplemented, text);
    refuses(client.assignments().await, Code::Unimplemented, text);
}
