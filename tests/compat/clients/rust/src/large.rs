//! Large requests and answers, and what is too large.

use etcd_client::{Client, GetOptions, SortOrder, SortTarget, Txn, TxnOp};

use crate::control::Server;
use crate::help::*;
use crate::suite::Case;

pub const CASES: &[Case] = &[
    crate::case!("large/values of a mebibyte", values),
    crate::case!("large/a request that is too large", too_large),
    crate::case!("large/a message that is too large", message_too_large),
    crate::case!("large/an answer of 10 000 keys", many_keys),
    crate::case!("large/an answer of 16 MiB", long_answer),
    crate::case!(
        "large/a value of 4 MiB where the server takes it",
        raised_limit,
        ["--max-request-bytes=8388608"]
    ),
];

const MIB: usize = 1 << 20;

/// Puts `count` keys, 100 in a transaction.
async fn fill(client: &mut Client, count: usize) {
    for begin in (0..count).step_by(100) {
        let puts: Vec<_> = (begin..(begin + 100).min(count))
            .map(|n| TxnOp::put(format!("k{n:05}"), format!("v{n}"), None))
            .collect();
        client.txn(Txn::new().and_then(puts)).await.expect("txn");
    }
}

async fn values(server: Server) {
    let mut client = connect(&server).await;
    for n in 0..3u8 {
        client.put([n], vec![n; MIB], None).await.expect("put");
    }
    for n in 0..3u8 {
        let found = client.get([n], None).await.expect("get");
        assert!(found.kvs()[0].value() == vec![n; MIB]);
    }
}

async fn too_large(server: Server) {
    let mut client = connect(&server).await;
    let expected = status(INVALID_ARGUMENT, "etcdserver: request is too large");
    let value = vec![b'v'; 3 * MIB / 2];
    assert_eq!(refused(client.put("a", value.clone(), None).await), expected);
    let half = vec![b'v'; 3 * MIB / 4];
    let puts = [TxnOp::put("a", half.clone(), None), TxnOp::put("b", half, None)];
    assert_eq!(refused(client.txn(Txn::new().and_then(puts)).await), expected);
    assert_eq!(client.get("a", None).await.expect("get").count(), 0);
    // The connection is as good as before.
    client.put("a", vec![b'v'; 3 * MIB / 2 - 100], None).await.expect("just small enough");
}

async fn message_too_large(server: Server) {
    let mut client = connect(&server).await;
    let (code, text) = refused(client.put("a", vec![b'v'; 3 * MIB], None).await);
    assert_eq!(code, RESOURCE_EXHAUSTED, "{text}");
    let expected = format!("grpc: received message larger than max ({} vs. {})", 3 * MIB + 8, 2 * MIB);
    assert_eq!(text, expected);
    put(&mut client, &["a=1"]).await;
}

async fn many_keys(server: Server) {
    const COUNT: usize = 10_000;
    let mut client = connect(&server).await;
    fill(&mut client, COUNT).await;
    let expected: Vec<String> = (0..COUNT).map(|n| format!("k{n:05}=v{n}")).collect();
    assert!(all(&mut client, "k").await == expected, "in order of keys");
    let options =
        GetOptions::new().with_prefix().with_sort(SortTarget::Create, SortOrder::Descend).with_limit(5000);
    let newest = client.get("k", Some(options)).await.expect("get");
    assert_eq!((newest.kvs().len(), newest.count(), newest.more()), (5000, COUNT as i64, true));
    // A transaction has one revision: its keys come together, the last transaction first.
    assert!(text(newest.kvs()[0].key()).starts_with("k099"), "{:?}", newest.kvs()[0]);
    let stream = client.kv_client().get_stream("k", Some(GetOptions::new().with_prefix())).await;
    let (mut stream, mut seen) = (stream.expect("a stream"), Vec::new());
    while let Some(part) = soon("a part", stream.message()).await.expect("a healthy stream") {
        seen.extend(pairs(part.kvs()));
    }
    assert!(seen == expected, "in order of keys");
}

async fn long_answer(server: Server) {
    const COUNT: usize = 16;
    let mut client = connect(&server).await;
    for n in 0..COUNT as u8 {
        client.put([b'k', n], vec![n; MIB], None).await.expect("put");
    }
    let options = || Some(GetOptions::new().with_prefix());
    let mut large = client.kv_client().max_decoding_message_size(32 * MIB);
    let found = large.get("k", options()).await.expect("get");
    assert_eq!(found.kvs().len(), COUNT);
    for (n, kv) in found.kvs().iter().enumerate() {
        assert!(kv.key() == [b'k', n as u8] && kv.value() == vec![n as u8; MIB]);
    }
    // The client's own limit of 4 MiB refuses it, and the server does not mind.
    let (code, _) = refused(client.get("k", options()).await);
    assert_eq!(code, OUT_OF_RANGE);
    assert_eq!(client.get("k\0", None).await.expect("get").count(), 1);
}

async fn raised_limit(server: Server) {
    let mut client = connect(&server).await;
    client.put("a", vec![b'v'; 4 * MIB], None).await.expect("put");
    let mut large = client.kv_client().max_decoding_message_size(8 * MIB);
    let found = large.get("a", None).await.expect("get");
    assert!(found.kvs()[0].value() == vec![b'v'; 4 * MIB]);
}
