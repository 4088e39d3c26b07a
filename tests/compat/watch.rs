//! Watch, contract 1.8: creating, cancelling and the shape of what comes back. One server, one stream per test.

use kvist::pb::etcdserverpb as pb;
use kvist::pb::etcdserverpb::watch_create_request::FilterType;
use tonic::Code;

use crate::support::Server;
use crate::watch_client::{
    Clients, WatchStream, brief, delete_op, put_op, put_request, text, watch_key, watch_range,
};

const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const EMPTY_RANGE: &str = "mvcc: watcher range is empty";

fn revision(response: &pb::WatchResponse) -> i64 {
    response.header.as_ref().expect("header").revision
}

fn assert_rejected(response: &pb::WatchResponse, reason: &str) {
    assert!(response.created && response.canceled, "{response:?}");
    assert_eq!((response.watch_id, response.cancel_reason.as_str()), (-1, reason));
    assert_eq!((response.compact_revision, response.events.len()), (0, 0));
}

async fn fixture() -> (Server, Clients, WatchStream) {
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    let stream = clients.watch_stream();
    (server, clients, stream)
}

/// W-1, W-2, W-9, contract 3 (Watch created): requests are answered in order, ids count from 0, headers are current.
#[tokio::test]
async fn creates_are_answered_in_order_with_automatic_ids() {
    let (_server, clients, mut stream) = fixture().await;
    clients.put("a", "1").await;
    for _ in 0..3 {
        stream.request(pb::watch_request::RequestUnion::CreateRequest(watch_key("a"))).await;
    }
    for id in 0..3 {
        let response = stream.next().await;
        assert!(response.created && !response.canceled && response.events.is_empty(), "{response:?}");
        assert_eq!((response.watch_id, response.cancel_reason.as_str()), (id, ""));
        let header = response.header.expect("header");
        assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term != 0, "{header:?}");
        assert_eq!(header.revision, 2);
    }
    clients.put("a", "2").await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let response = stream.next().await;
        assert_eq!(brief(&response.events), ["put a=2@3"]);
        ids.push(response.watch_id);
    }
    ids.sort_unstable();
    assert_eq!(ids, [0, 1, 2]);
}

/// W-2: chosen ids, the duplicate error, skipping of used ids, reuse after cancel.
#[tokio::test]
async fn w_2_chosen_watch_ids() {
    let (_server, clients, mut stream) = fixture().await;
    let chosen = |id, key: &str| pb::WatchCreateRequest { watch_id: id, ..watch_key(key) };
    assert_eq!(stream.create(chosen(1, "a")).await.watch_id, 1);
    assert_eq!(stream.create(watch_key("b")).await.watch_id, 0);
    assert_eq!(stream.create(watch_key("c")).await.watch_id, 2, "automatic ids skip used ones");
    assert_rejected(&stream.create(chosen(1, "d")).await, DUPLICATE_ID);
    clients.put("d", "").await;
    clients.put("a", "1").await;
    let response = stream.next().await;
    assert_eq!((response.watch_id, brief(&response.events)), (1, vec!["put a=1@3".to_owned()]));

    stream.cancel(1).await;
    assert!(stream.next().await.canceled);
    assert_eq!(stream.create(chosen(1, "d")).await.watch_id, 1, "an id is free again after cancel");
    clients.put("a", "2").await;
    clients.put("d", "3").await;
    assert_eq!(stream.briefs(1).await, ["put d=3@5"]);
    assert_eq!(stream.create(chosen(-7, "e")).await.watch_id, -7);
}

/// W-3: from now, from the past inclusive, from a future revision.
#[tokio::test]
async fn w_3_start_revision() {
    let (_server, clients, mut stream) = fixture().await;
    for value in ["1", "2", "3"] {
        clients.put("a", value).await; // revisions 2, 3, 4
    }
    let from = |revision| pb::WatchCreateRequest { start_revision: revision, ..watch_key("a") };
    stream.create(from(1)).await;
    assert_eq!(stream.briefs(3).await, ["put a=1@2", "put a=2@3", "put a=3@4"]);
    stream.create(from(3)).await;
    assert_eq!(stream.briefs(2).await, ["put a=2@3", "put a=3@4"]);
    stream.create(from(4)).await;
    assert_eq!(stream.briefs(1).await, ["put a=3@4"]);

    let mut future = clients.watch_stream();
    future.create(from(7)).await;
    let mut now = clients.watch_stream();
    now.create(from(0)).await;
    for value in ["4", "5", "6"] {
        clients.put("a", value).await; // revisions 5, 6, 7
    }
    assert_eq!(now.briefs(3).await, ["put a=4@5", "put a=5@6", "put a=6@7"]);
    assert_eq!(future.briefs(1).await, ["put a=6@7"]);
}

/// W-4: a negative start revision.
#[tokio::test]
async fn w_4_negative_start_revision() {
    let (_server, clients, mut stream) = fixture().await;
    let negative = pb::WatchCreateRequest { start_revision: -1, ..watch_key("a") };
    assert_rejected(&stream.create(negative).await, COMPACTED);
    assert_eq!(stream.create(watch_key("a")).await.watch_id, 0, "the stream stays usable");
    clients.put("a", "1").await;
    assert_eq!(stream.briefs(1).await, ["put a=1@2"]);
}

/// W-5, trap 7, trap 10, contract 3 (compaction cancel): start below, at and above the compacted revision.
#[tokio::test]
async fn w_5_compacted_start_revision() {
    let (_server, clients, mut stream) = fixture().await;
    clients.put("a", "1").await;
    clients.put("a", "2").await;
    assert_eq!(clients.delete("a").await, 4);
    clients.put("b", "1").await;
    clients.compact(4).await;

    let from = |revision| pb::WatchCreateRequest { start_revision: revision, ..watch_range("a", "z") };
    let created = stream.create(from(3)).await;
    assert!(!created.canceled, "{created:?}");
    assert_eq!(revision(&created), 5);
    let canceled = stream.next().await;
    assert!(canceled.canceled && !canceled.created && canceled.events.is_empty(), "{canceled:?}");
    assert_eq!((canceled.watch_id, canceled.compact_revision), (created.watch_id, 4));
    assert_eq!((revision(&canceled), canceled.cancel_reason.as_str()), (0, ""));

    stream.create(from(4)).await;
    assert_eq!(stream.briefs(2).await, ["delete a@4", "put b=1@5"], "the tombstone at the bound is kept");
}

/// W-6: an empty range.
#[tokio::test]
async fn w_6_empty_range() {
    let (_server, _clients, mut stream) = fixture().await;
    assert_rejected(&stream.create(watch_range("b", "a")).await, EMPTY_RANGE);
    assert_rejected(&stream.create(watch_range("b", "b")).await, EMPTY_RANGE);
    assert!(!stream.create(watch_range("b", "\0")).await.canceled, "0x00 means from the key on");
}

/// M-7, M-8, trap 19: the forms of a range, and the empty key, which Watch takes as 0x00.
#[tokio::test]
async fn m_8_range_forms() {
    let (_server, clients, mut stream) = fixture().await;
    let forms = [("b", ""), ("b", "c"), ("b", "\0"), ("\0", "\0"), ("", "\0"), ("", "")];
    let mut ids = Vec::new();
    for (key, end) in forms {
        ids.push(stream.create(watch_range(key, end)).await.watch_id);
    }
    let ops = ["\0", "a", "b", "ba", "c"].map(|key| put_op(key, ""));
    clients.txn(ops.to_vec()).await;
    let mut seen = vec![String::new(); forms.len()];
    for _ in 0..forms.len() {
        let response = stream.next().await;
        let keys: Vec<_> = response.events.iter().map(|e| text(&e.kv.as_ref().expect("kv").key)).collect();
        let slot = ids.iter().position(|id| *id == response.watch_id).expect("a known watch id");
        seen[slot] = keys.join(" ");
    }
    assert_eq!(seen, ["b", "b ba", "b ba c", "\0 a b ba c", "\0 a b ba c", "\0"]);
}

/// W-8: cancel of a live and of an unknown id; silence afterwards.
#[tokio::test]
async fn w_8_cancel() {
    let (_server, clients, mut stream) = fixture().await;
    let doomed = stream.create(watch_key("a")).await.watch_id;
    let kept = stream.create(watch_key("a")).await.watch_id;
    clients.put("other", "").await;
    stream.cancel(999).await;
    stream.cancel(doomed).await;
    let response = stream.next().await;
    assert!(response.canceled && !response.created, "{response:?}");
    assert_eq!((response.watch_id, revision(&response)), (doomed, 2));
    assert_eq!((response.cancel_reason.as_str(), response.compact_revision), ("", 0));
    for value in ["1", "2"] {
        clients.put("a", value).await;
        assert_eq!(stream.next().await.watch_id, kept);
    }
    stream.cancel(doomed).await; // no longer known, so no answer
    assert!(stream.create(watch_key("b")).await.created);
}

/// W-9: header revisions of live events and of a catch-up batch.
#[tokio::test]
async fn w_9_header_revisions() {
    let (_server, clients, mut stream) = fixture().await;
    stream.create(watch_key("a")).await;
    clients.put("other", "").await;
    clients.put("a", "1").await;
    let live = stream.next().await;
    assert_eq!((revision(&live), brief(&live.events)), (3, vec!["put a=1@3".to_owned()]));
    clients.put("other", "").await;
    let mut late = clients.watch_stream();
    late.create(pb::WatchCreateRequest { start_revision: 2, ..watch_key("a") }).await;
    let batch = late.next().await;
    assert_eq!((revision(&batch), brief(&batch.events)), (4, vec!["put a=1@3".to_owned()]));
}

/// W-10, trap 8: prev_kv of creations, updates and deletes, live and replayed, and below the compaction bound.
#[tokio::test]
async fn w_10_previous_pairs() {
    let (_server, clients, mut live) = fixture().await;
    let request = |start| pb::WatchCreateRequest { prev_kv: true, start_revision: start, ..watch_key("a") };
    live.create(request(0)).await;
    clients.put("a", "1").await;
    clients.put("a", "2").await;
    clients.delete("a").await;
    clients.put("a", "3").await;
    let expect = [None, Some((2, "1")), Some((3, "2")), None];
    let mut replay = clients.watch_stream();
    replay.create(request(2)).await;
    for stream in [&mut live, &mut replay] {
        let events = stream.events(4).await;
        let previous: Vec<_> = events.iter().map(|e| e.prev_kv.as_ref()).collect();
        let previous: Vec<_> =
            previous.iter().map(|p| p.map(|kv| (kv.mod_revision, text(&kv.value)))).collect();
        assert_eq!(previous, expect.map(|p| p.map(|(revision, value)| (revision, value.to_owned()))));
        let deleted = events[2].prev_kv.as_ref().expect("prev_kv of a delete");
        assert_eq!((deleted.create_revision, deleted.version), (2, 2));
    }
    clients.compact(4).await;
    let mut compacted = clients.watch_stream();
    compacted.create(request(4)).await;
    let events = compacted.events(2).await;
    assert_eq!(brief(&events), ["delete a@4", "put a=3@5"]);
    assert!(events.iter().all(|e| e.prev_kv.is_none()), "revision 3 is gone: {events:?}");

    let mut plain = clients.watch_stream();
    plain.create(watch_key("a")).await;
    clients.put("a", "4").await;
    assert_eq!(plain.events(1).await[0].prev_kv, None);
}

/// W-11: which fields of an event are set.
#[tokio::test]
async fn w_11_event_shape() {
    let (_server, clients, mut stream) = fixture().await;
    let lease = clients.grant(60).await;
    stream.create(watch_key("a")).await;
    clients.put("a", "1").await;
    clients.put_leased("a", "2", lease).await;
    clients.delete("a").await;
    let kvs: Vec<_> = stream.events(3).await.into_iter().map(|e| e.kv.expect("kv")).collect();
    let fields = |i: usize| (kvs[i].create_revision, kvs[i].mod_revision, kvs[i].version, kvs[i].lease);
    assert_eq!((fields(0), text(&kvs[0].value)), ((2, 2, 1, 0), "1".to_owned()));
    assert_eq!((fields(1), text(&kvs[1].value)), ((2, 3, 2, lease), "2".to_owned()));
    assert_eq!((fields(2), text(&kvs[2].value)), ((0, 4, 0, 0), String::new()));
    assert!(kvs.iter().all(|kv| text(&kv.key) == "a"));
}

/// W-12: filters, alone and together, live and replayed; unknown filter values change nothing.
#[tokio::test]
async fn w_12_filters() {
    let (_server, clients, mut stream) = fixture().await;
    let (no_put, no_delete) = (FilterType::Noput as i32, FilterType::Nodelete as i32);
    let sets = [vec![no_put], vec![no_delete], vec![no_put, no_delete], vec![77]];
    for filters in &sets {
        stream.create(pb::WatchCreateRequest { filters: filters.clone(), ..watch_key("a") }).await;
    }
    clients.put("a", "1").await;
    clients.txn(vec![delete_op("a")]).await;
    let mut seen = vec![Vec::new(); sets.len()];
    while seen.iter().map(Vec::len).sum::<usize>() < 4 {
        let response = stream.next().await;
        assert!(!response.events.is_empty(), "a fully filtered batch sends nothing: {response:?}");
        seen[usize::try_from(response.watch_id).expect("an id")].extend(brief(&response.events));
    }
    let (put, delete) = ("put a=1@2".to_owned(), "delete a@3".to_owned());
    assert_eq!(seen, [vec![delete.clone()], vec![put.clone()], vec![], vec![put, delete]]);

    let mut replay = clients.watch_stream();
    replay
        .create(pb::WatchCreateRequest { filters: vec![no_put], start_revision: 1, ..watch_key("a") })
        .await;
    assert_eq!(replay.briefs(1).await, ["delete a@3"]);
}

/// W-21, G-11: a request without a known union member is ignored and the stream goes on.
#[tokio::test]
async fn w_21_unknown_request_is_ignored() {
    let (_server, clients, mut stream) = fixture().await;
    stream.send(pb::WatchRequest { request_union: None }).await;
    assert_eq!(stream.create(watch_key("a")).await.watch_id, 0);
    stream.send(pb::WatchRequest { request_union: None }).await;
    clients.put("a", "1").await;
    assert_eq!(stream.briefs(1).await, ["put a=1@2"]);
}

/// W-19 (client side): ending the request side keeps the watchers; dropping the call ends only that stream.
#[tokio::test]
async fn w_19_half_close_keeps_the_watchers() {
    let (_server, clients, mut stream) = fixture().await;
    stream.create(watch_key("a")).await;
    let mut other = clients.watch_stream();
    other.create(watch_key("a")).await;
    stream.half_close();
    clients.put("a", "1").await;
    assert_eq!(stream.briefs(1).await, ["put a=1@2"]);
    drop(stream);
    clients.put("a", "2").await;
    assert_eq!(other.briefs(2).await, ["put a=1@2", "put a=2@3"]);
}

/// W-19 (server side): a stopping server ends every stream with a retryable status or closes the connection.
#[tokio::test]
async fn w_19_server_stop_ends_the_stream() {
    let (mut server, _clients, mut stream) = fixture().await;
    stream.create(watch_key("a")).await;
    let stopping = tokio::task::spawn_blocking(move || server.terminate());
    match tokio::time::timeout(crate::watch_client::REPLY_TIMEOUT, stream.try_next()).await {
        Ok(Ok(None)) => {}
        Ok(Err(status)) => {
            let retryable = [Code::Unavailable, Code::Unknown, Code::Internal, Code::Cancelled];
            assert!(retryable.contains(&status.code()), "{status:?}");
        }
        other => panic!("the stream did not end: {other:?}"),
    }
    stopping.await.expect("the server stops");
}

/// G-1 (with a leader), trap 29: a watch that requires a leader works on a healthy member.
#[tokio::test]
async fn g_1_watch_that_requires_a_leader() {
    let (_server, clients, _) = fixture().await;
    let mut client = clients.watch.clone();
    let mut stream = WatchStream::open(|mut requests| {
        requests.metadata_mut().insert("hasleader", "true".parse().expect("a metadata value"));
        async move { client.watch(requests).await }
    });
    stream.create(watch_key("a")).await;
    clients.try_put(put_request("a", "1", 0)).await.expect("put");
    assert_eq!(stream.briefs(1).await, ["put a=1@2"]);
}
