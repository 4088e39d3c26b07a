//! Insert, Delete, CompareAndSwap, and what is refused.

use super::client::{delete, insert, own, refused, shared, swap};
use bytes::Bytes;
use kvist::pb::d_engine::client as pb;
use kvist::pb::d_engine::error::ErrorCode;
use tonic::Code;
use tonic::codec::CompressionEncoding::Gzip;

#[tokio::test]
async fn a_write_puts_overwrites_and_deletes() {
    let client = shared();
    client.put("/w/a", "1").await;
    client.put("/w/a", "2").await;
    assert_eq!(client.get("/w/a").await.as_deref(), Some("2"));
    client.delete("/w/a").await;
    assert_eq!(client.get("/w/a").await, None);
    // What is not there is deleted as well.
    client.delete("/w/a").await;
}

#[tokio::test]
async fn an_empty_value_is_not_a_missing_key() {
    let client = shared();
    client.put("/w/empty", "").await;
    assert_eq!(client.get("/w/empty").await.as_deref(), Some(""));
}

#[tokio::test]
async fn keys_are_any_bytes() {
    let client = shared();
    let key = Bytes::from_static(b"\xff\x00w\xfe");
    client.put(key.clone(), "1").await;
    let request = pb::ClientReadRequest { keys: vec![key.clone()], ..Default::default() };
    let answer = client.kv.clone().handle_client_read(request).await.expect("read").into_inner();
    let Some(pb::client_response::SuccessResult::ReadData(data)) = answer.success_result else {
        panic!("no read data");
    };
    assert_eq!(data.results[0].key, key);
}

#[tokio::test]
async fn compare_and_swap_tells_by_its_result() {
    let client = shared();
    let key = "/w/cas";
    // Missing: an expected value does not fit, not even the empty one.
    assert!(!client.write(swap(key, Some(""), "x")).await);
    assert!(!client.write(swap(key, Some("a"), "x")).await);
    assert_eq!(client.get(key).await, None);
    assert!(client.write(swap(key, None, "")).await);
    assert!(!client.write(swap(key, None, "x")).await);
    // There, with an empty value.
    assert!(client.write(swap(key, Some(""), "a")).await);
    assert!(!client.write(swap(key, Some("b"), "x")).await);
    assert!(client.write(swap(key, Some("a"), "b")).await);
    assert_eq!(client.get(key).await.as_deref(), Some("b"));
}

/// A lock as the d-engine's own tests have it: the empty value is "nobody".
#[tokio::test]
async fn distributed_lock_standalone() {
    let client = shared();
    let key = "/w/lock";
    assert!(client.write(swap(key, None, "a")).await);
    assert!(!client.write(swap(key, None, "b")).await);
    assert!(!client.write(swap(key, Some("b"), "")).await, "only who holds it lets it go");
    assert!(client.write(swap(key, Some("a"), "")).await);
    assert!(client.write(swap(key, Some(""), "b")).await);
    assert!(!client.write(swap(key, Some(""), "a")).await);
    client.delete(key).await;
    assert!(client.write(swap(key, None, "a")).await);
}

#[tokio::test]
async fn what_is_no_write_is_refused() {
    let client = shared();
    for operation in [insert("", "v", 0), delete(""), swap("", None, "v")] {
        refused(client.try_write(operation).await, Code::InvalidArgument);
    }
    let nothing = pb::ClientWriteRequest { client_id: 7, command: None };
    refused(client.kv.clone().handle_client_write(nothing).await, Code::InvalidArgument);
    let no_operation =
        pb::ClientWriteRequest { client_id: 7, command: Some(pb::WriteCommand { operation: None }) };
    refused(client.kv.clone().handle_client_write(no_operation).await, Code::InvalidArgument);
    let long = Bytes::from(vec![b'v'; 1_600_000]);
    refused(client.try_write(insert("/w/long", long, 0)).await, Code::InvalidArgument);
}

#[tokio::test]
async fn longer_values_are_a_matter_of_a_flag() {
    let client = own(&["--max-request-bytes=4194304"]);
    client.put("/long", vec![b'v'; 3_900_000]).await;
    assert_eq!(client.get("/long").await.map(|value| value.len()), Some(3_900_000));
}

#[tokio::test]
async fn a_full_disk_is_said_in_the_answer() {
    let client = own(&["--quota-backend-bytes=100000"]);
    let value = Bytes::from(vec![b'v'; 20_000]);
    let mut full = None;
    for n in 0..20 {
        let answer =
            client.try_write(insert(format!("/full/{n}"), value.clone(), 0)).await.expect("an answer");
        if answer.error != 0 {
            full = Some(answer);
            break;
        }
    }
    let full = full.expect("the quota is reached");
    assert_eq!(full.error(), ErrorCode::DiskFull);
    assert_eq!(full.success_result, None);
    assert!(full.metadata.and_then(|m| m.debug_message).is_some_and(|text| text.contains("space exceeded")));
    client.delete("/full/0").await;
}

#[tokio::test]
async fn compressed_requests_are_taken() {
    let client = shared();
    let mut kv = client.kv.clone().send_compressed(Gzip).accept_compressed(Gzip);
    let operation = Some(insert("/w/gzip", "v".repeat(1000), 0));
    let command = Some(pb::WriteCommand { operation });
    let answer =
        kv.handle_client_write(pb::ClientWriteRequest { client_id: 7, command }).await.expect("write");
    assert!(answer.metadata().get("grpc-encoding").is_none());
    let mut cluster = client.cluster.clone().send_compressed(Gzip).accept_compressed(Gzip);
    let request = kvist::pb::d_engine::server::cluster::MetadataRequest {};
    assert_eq!(cluster.get_cluster_metadata(request).await.expect("metadata").into_inner().nodes.len(), 1);
    let scan = pb::ScanRequest { client_id: 7, prefix: "/w/gzip".into() };
    assert_eq!(kv.handle_client_scan(scan).await.expect("scan").into_inner().entries.len(), 1);
    let watch = pb::WatchRequest { key: "/w/gzip".into(), ..Default::default() };
    let mut events = kv.watch(watch).await.expect("watch").into_inner();
    client.delete("/w/gzip").await;
    assert_eq!(events.message().await.expect("no end").expect("an event").key, "/w/gzip");
}

/// A small message that unpacks to a large one costs no memory.
#[tokio::test]
async fn what_unpacks_to_too_much_is_refused() {
    let client = shared();
    let operation = Some(insert("/w/bomb", vec![0; 64 << 20], 0));
    let command = Some(pb::WriteCommand { operation });
    let mut kv = client.kv.clone().send_compressed(Gzip);
    let answer = kv.handle_client_write(pb::ClientWriteRequest { client_id: 7, command }).await;
    refused(answer, Code::ResourceExhausted);
}
