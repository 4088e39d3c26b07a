//! Watch, contract 1.8 rows W-13 to W-15: order, atomicity of a revision, fragments, and many watchers at once.

use std::collections::{BTreeMap, BTreeSet};

use kvist::pb::etcdserverpb as pb;
use prost::Message;

use crate::support::Server;
use crate::watch_client::{Clients, WatchStream, put_op, watch_key, watch_range};

/// Reads responses of one watcher until `last` is reached; checks W-13 and W-14 and returns keys by revision.
async fn read_whole_revisions(
    stream: &mut WatchStream,
    first: i64,
    last: i64,
) -> BTreeMap<i64, Vec<Vec<u8>>> {
    let mut revisions: BTreeMap<i64, Vec<Vec<u8>>> = BTreeMap::new();
    let mut next = first;
    while next <= last {
        let response = stream.next().await;
        let in_response: BTreeSet<i64> =
            response.events.iter().map(|e| e.kv.as_ref().expect("kv").mod_revision).collect();
        assert!(in_response.len() <= 1000, "more than 1000 revisions in a response");
        for revision in &in_response {
            assert_eq!(*revision, next, "a gap, a repeat or a split revision");
            next += 1;
        }
        assert!(response.header.expect("header").revision >= next - 1);
        for event in response.events {
            let kv = event.kv.expect("kv");
            revisions.entry(kv.mod_revision).or_default().push(kv.key);
        }
    }
    revisions
}

/// W-13, W-14, M-1, M-2, trap 1, trap 2, trap 9: concurrent transactions; live and replaying watchers see each revision
/// whole, in order, once, with the keys in the order of the operations.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w_13_w_14_concurrent_transactions_arrive_whole_and_in_order() {
    const TASKS: i64 = 8;
    const TXNS: i64 = 60;
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    let mut live = clients.watch_stream();
    live.create(watch_range("k", "l")).await;
    let mut writers = Vec::new();
    for task in 0..TASKS {
        let clients = clients.clone();
        writers.push(tokio::spawn(async move {
            let mut revisions = Vec::new();
            for txn in 0..TXNS {
                let ops = (0..5).rev().map(|i| put_op(format!("k{task}-{txn}-{i}"), vec![b'v'; 100]));
                revisions.push(clients.txn(ops.collect()).await);
            }
            revisions
        }));
    }
    let mut replays = Vec::new();
    for _ in 0..4 {
        let mut stream = clients.watch_stream();
        stream.create(pb::WatchCreateRequest { start_revision: 2, ..watch_range("k", "l") }).await;
        replays.push(stream);
    }
    let last = 1 + TASKS * TXNS;
    let expected = read_whole_revisions(&mut live, 2, last).await;
    for keys in expected.values() {
        let (base, _) = keys[0].rsplit_at_dash();
        let ordered: Vec<_> = (0..5).rev().map(|i| [base, format!("-{i}").as_bytes()].concat()).collect();
        assert_eq!(*keys, ordered, "the five keys of one transaction in the order of its operations");
    }
    for stream in &mut replays {
        assert!(
            read_whole_revisions(stream, 2, last).await == expected,
            "a replay differs from the live watch"
        );
    }
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.expect("the writer ends"));
    }
    acknowledged.sort_unstable();
    assert_eq!(acknowledged, (2..=last).collect::<Vec<_>>(), "each transaction has a revision of its own");
}

trait SplitAtDash {
    fn rsplit_at_dash(&self) -> (&[u8], &[u8]);
}

impl SplitAtDash for Vec<u8> {
    fn rsplit_at_dash(&self) -> (&[u8], &[u8]) {
        self.split_at(self.iter().rposition(|b| *b == b'-').expect("a dash"))
    }
}

/// W-3, W-13, trap 2: watchers that register amid writes start exactly at the revision after their created answer, or
/// at the one they asked for, and miss nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w_3_registration_amid_writes_loses_nothing() {
    const WATCHERS: usize = 60;
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let writer = clients.clone();
    let writes = tokio::spawn(async move {
        while stopped.try_recv().is_err() {
            writer.put("k", "v").await;
        }
        writer.revision().await
    });
    let mut streams = Vec::new();
    for i in 0..WATCHERS {
        let mut stream = clients.watch_stream();
        let start_revision = if i % 3 == 0 { 0 } else { 1 + i64::try_from(i).expect("small") };
        let request = pb::WatchCreateRequest { start_revision, ..watch_key("k") };
        let created = stream.create(request).await;
        let current = created.header.expect("header").revision;
        streams.push((stream, if start_revision == 0 { current + 1 } else { start_revision.max(2) }));
    }
    stop.send(()).expect("the writer listens");
    let last = writes.await.expect("the writer ends");
    for (mut stream, first) in streams {
        read_whole_revisions(&mut stream, first, last).await;
    }
}

/// W-15: without `fragment` a large response is one message, with it every part but the last says so, and the parts
/// together are the same events. Trap 25: responses above 4 MiB are sent.
#[tokio::test]
async fn w_15_fragments() {
    const LIMIT: usize = 2 * 1024 * 1024; // max-request-bytes + 512 KiB at the defaults
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    let keys = 100;
    let mut last = 0;
    for round in 0..4_u8 {
        let ops = (0..keys).map(|i| put_op(format!("k{i:03}"), vec![round; 14_000])).collect();
        last = clients.txn(ops).await;
    }
    let request = |fragment| pb::WatchCreateRequest {
        start_revision: last - 2,
        prev_kv: true,
        fragment,
        ..watch_range("k", "l")
    };
    let mut whole = clients.watch_stream();
    whole.create(request(false)).await;
    let expected = whole.next().await;
    assert!(!expected.fragment);
    assert_eq!(expected.events.len(), 3 * keys);
    assert!(expected.encoded_len() > 2 * LIMIT);

    let mut split = clients.watch_stream();
    split.create(request(true)).await;
    let mut events = Vec::new();
    let mut parts = 0;
    loop {
        let part = split.next().await;
        assert_eq!(part.header, expected.header);
        assert!(part.encoded_len() < LIMIT + 64 * 1024, "a part of {} bytes", part.encoded_len());
        events.extend(part.events);
        parts += 1;
        if !part.fragment {
            break;
        }
    }
    assert!(parts >= 4, "{parts} parts");
    assert!(events == expected.events, "the parts differ from the whole");
}

/// W-1, W-13: a thousand watchers of one key and a thousand of a key each on one stream; each hears its own, once.
#[tokio::test]
async fn w_1_many_watchers_on_one_stream() {
    const EACH: usize = 1000;
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    let mut stream = clients.watch_stream();
    for i in 0..2 * EACH {
        let key = if i < EACH { "shared".to_owned() } else { format!("own{i:04}") };
        stream.request(pb::watch_request::RequestUnion::CreateRequest(watch_key(&key))).await;
    }
    for i in 0..2 * EACH {
        let response = stream.next().await;
        assert!(response.created && response.watch_id == i64::try_from(i).expect("small"), "{response:?}");
    }
    clients.put("shared", "1").await;
    let mut heard = BTreeSet::new();
    for _ in 0..EACH {
        assert!(heard.insert(stream.next().await.watch_id), "a watcher heard one event twice");
    }
    assert_eq!(heard, (0..1000).collect());
    for chunk in (EACH..2 * EACH).collect::<Vec<_>>().chunks(100) {
        clients.txn(chunk.iter().map(|i| put_op(format!("own{i:04}"), "1")).collect()).await;
    }
    let mut heard = BTreeSet::new();
    for _ in 0..EACH {
        let response = stream.next().await;
        let key = String::from_utf8(response.events[0].kv.as_ref().expect("kv").key.clone()).expect("text");
        assert_eq!((response.events.len(), key), (1, format!("own{:04}", response.watch_id)));
        heard.insert(response.watch_id);
    }
    assert_eq!(heard, (1000..2000).collect());
}

/// Contract 8 (concurrent streams), trap 25: hundreds of watch streams share one connection.
#[tokio::test]
async fn contract_8_many_streams_on_one_connection() {
    const STREAMS: usize = 500;
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = clients.watch_stream();
        stream.create(watch_key("a")).await;
        streams.push(stream);
    }
    clients.put("a", "1").await;
    for stream in &mut streams {
        assert_eq!(stream.briefs(1).await, ["put a=1@2"]);
    }
}
