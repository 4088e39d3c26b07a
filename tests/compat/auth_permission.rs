//! Who may do what with keys, leases and the server, contract 1.12 row A-13 and its matrix, W-7, L-12.
//!
//! Among them the holes that were found in etcd: each is shut here, and in the etcd that this was checked against.

use kvist::pb::authpb::permission::Type::{Read, Readwrite, Write};
use kvist::pb::etcdserverpb as pb;
use kvist::pb::v3electionpb::{self, election_client::ElectionClient};
use kvist::pb::v3lockpb::{self, lock_client::LockClient};
use pb::request_op::Request as Op;
use pb::watch_request::RequestUnion;
use tonic::{Code, Status};

use crate::auth_client::{As, DENIED, INVALID_TOKEN, USER_EMPTY, add_user, refuses, with_root};
use crate::client::{compare, delete_range, get, put, range};

fn op_put(request: pb::PutRequest) -> Op {
    Op::RequestPut(request)
}

fn txn(
    compare: impl Into<Vec<pb::Compare>>,
    success: impl Into<Vec<Op>>,
    failure: impl Into<Vec<Op>>,
) -> pb::TxnRequest {
    let ops = |ops: Vec<Op>| ops.into_iter().map(|op| pb::RequestOp { request: Some(op) }).collect();
    pb::TxnRequest { compare: compare.into(), success: ops(success.into()), failure: ops(failure.into()) }
}

fn txn_of(success: Vec<Op>, failure: Vec<Op>) -> pb::TxnRequest {
    txn([], success, failure)
}

/// The first answer of a watch on these keys.
async fn watch(caller: &As, key: &str, range_end: &str) -> Result<pb::WatchResponse, Status> {
    let create = pb::WatchCreateRequest {
        key: key.into(),
        range_end: range_end.into(),
        start_revision: 1,
        ..Default::default()
    };
    let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = tokio_stream::StreamExt::chain(tokio_stream::iter([request]), tokio_stream::pending());
    let mut answers = caller.watch().watch(caller.request(requests)).await?.into_inner();
    Ok(answers.message().await?.expect("an answer"))
}

#[tokio::test]
async fn a_13_ranges_need_to_be_covered_whole() {
    let (_server, root, nobody) = with_root(&[]).await;
    let grants = [
        (Read, "a", "c"),
        (Read, "c", "e"),
        (Read, "d", "f"),
        (Read, "k", ""),
        (Read, "k\0", "l"),
        (Read, "x", "\0"),
    ];
    add_user(&root, "ann", &grants).await;
    let ann = nobody.login("ann").await;
    for (key, end) in [
        ("a", ""),
        ("bzz", ""),
        ("c", ""),
        ("a", "f"),
        ("b", "e"),
        ("k", "l"),
        ("x", "\0"),
        ("y", "\0"),
        ("z", "zz"),
        ("b", "a"), // empty, and its first key is granted
    ] {
        ann.range(range(key, end)).await.unwrap_or_else(|e| panic!("{key:?} {end:?}: {e}"));
    }
    for (key, end) in [
        ("\0", "\0"),
        ("a", "\0"),
        ("a", "fa"),
        ("f", ""),
        ("Z", "b"),
        ("j", "l"),
        ("k", "\0"),
        ("e", "l"),
        ("g", "a"), // empty, and its first key is not granted
        ("w", "\0"),
    ] {
        refuses(ann.range(range(key, end)).await, DENIED);
    }
    refuses(ann.put(put("a", "v")).await, DENIED); // read is not write
    root.range(range("\0", "\0")).await.expect("root may everything");
    root.put(put("a", "v")).await.expect("root may everything");
}

#[tokio::test]
async fn a_11_a_13_each_call_of_kv() {
    let (_server, root, nobody) = with_root(&[]).await;
    add_user(&root, "rw", &[(Readwrite, "k", "l")]).await;
    add_user(&root, "ro", &[(Read, "k", "l")]).await;
    add_user(&root, "wo", &[(Write, "k", "l")]).await;
    let (rw, ro, wo) = (nobody.login("rw").await, nobody.login("ro").await, nobody.login("wo").await);
    let prev_put = || pb::PutRequest { prev_kv: true, ..put("k1", "v") };
    let prev_delete = || pb::DeleteRangeRequest { prev_kv: true, ..delete_range("k", "l") };
    for (caller, reads, writes) in [(&rw, true, true), (&ro, true, false), (&wo, false, true)] {
        let check = |name: &str, is_allowed: bool, answer: Result<(), Status>| match answer {
            Ok(()) => assert!(is_allowed, "{name}: {reads} {writes}"),
            Err(status) => {
                assert!(!is_allowed, "{name}: {reads} {writes}: {status}");
                refuses(Err::<(), _>(status), DENIED);
            }
        };
        check("put", writes, caller.put(put("k1", "v")).await.map(drop));
        check("put prev_kv", reads && writes, caller.put(prev_put()).await.map(drop));
        check("range", reads, caller.range(range("k", "l")).await.map(drop));
        let serializable = pb::RangeRequest { serializable: true, ..range("k", "l") };
        check("serializable range", reads, caller.range(serializable).await.map(drop));
        let counted = pb::RangeRequest { count_only: true, ..range("k", "l") };
        check("count", reads, caller.range(counted).await.map(drop));
        let stream = caller.kv().range_stream(caller.request(range("k", "l"))).await;
        let first = match stream {
            Ok(answer) => answer.into_inner().message().await.map(drop),
            Err(status) => Err(status),
        };
        check("range stream", reads, first);
        check("delete", writes, caller.delete(delete_range("k", "l")).await.map(drop));
        check("delete prev_kv", reads && writes, caller.delete(prev_delete()).await.map(drop));
        let reading = txn_of(vec![Op::RequestRange(range("k", "l"))], vec![]);
        check("txn of reads", reads, caller.txn(reading).await.map(drop));
        let watched = watch(caller, "k", "l").await.expect("an answer");
        assert_eq!(watched.canceled, !reads);
    }
    for key in ["j", "l"] {
        refuses(rw.put(put(key, "v")).await, DENIED);
        refuses(rw.range(get(key)).await, DENIED);
        refuses(rw.delete(delete_range(key, "")).await, DENIED);
    }
    for (caller, expected) in [(&nobody, USER_EMPTY), (&nobody.with_token("no.1"), INVALID_TOKEN)] {
        refuses(caller.put(put("k1", "v")).await, expected);
        refuses(caller.range(range("k", "l")).await, expected);
        refuses(caller.delete(delete_range("k", "l")).await, expected);
        refuses(caller.txn(txn_of(vec![], vec![])).await.and(caller.range(get("k")).await), expected);
        refuses(caller.txn(txn_of(vec![op_put(put("k", "v"))], vec![])).await, expected);
        refuses(caller.lease_grant(7).await, expected);
    }
}

/// KV-T of both branches, compares and nested transactions (GHSA: nested transactions were not looked into).
#[tokio::test]
async fn a_13_transactions_need_everything_they_could_touch() {
    let (_server, root, nobody) = with_root(&[]).await;
    add_user(&root, "ann", &[(Readwrite, "a", "b"), (Write, "w", "x"), (Read, "r", "s")]).await;
    let ann = nobody.login("ann").await;
    root.put(put("z", "secret")).await.expect("put");
    root.put(put("w", "secret")).await.expect("put");
    let nested = |ops: Vec<Op>| Op::RequestTxn(txn_of(ops, vec![]));
    let prev = |key: &str| op_put(pb::PutRequest { prev_kv: true, ..put(key, "v") });
    let prev_delete =
        |key: &str| Op::RequestDeleteRange(pb::DeleteRangeRequest { prev_kv: true, ..delete_range(key, "") });
    let denied: Vec<Op> = vec![
        Op::RequestRange(get("z")),
        Op::RequestRange(get("w")),
        Op::RequestRange(range("a", "\0")),
        op_put(put("z", "v")),
        op_put(put("r", "v")),
        prev("w"),
        prev_delete("w"),
        Op::RequestDeleteRange(delete_range("z", "")),
        Op::RequestDeleteRange(delete_range("r", "")),
    ];
    for op in denied {
        for branches in [
            (vec![op.clone()], vec![]),
            (vec![], vec![op.clone()]),
            (vec![op_put(put("a", "v")), op.clone()], vec![]),
            (vec![nested(vec![op.clone()])], vec![]),
            (vec![], vec![nested(vec![nested(vec![op.clone()])])]),
            (vec![Op::RequestTxn(txn_of(vec![], vec![op.clone()]))], vec![]),
        ] {
            refuses(ann.txn(txn_of(branches.0, branches.1)).await, DENIED);
        }
    }
    let compares = |key: &str| {
        let value = pb::compare::TargetUnion::Version(0);
        compare(key, pb::compare::CompareResult::Equal, value)
    };
    refuses(ann.txn(txn([compares("z")], [], [])).await, DENIED);
    refuses(ann.txn(txn([compares("w")], [op_put(put("a", "v"))], [])).await, DENIED);
    let inner = Op::RequestTxn(txn([compares("z")], [], []));
    refuses(ann.txn(txn_of(vec![op_put(put("a", "v")), inner], vec![])).await, DENIED);
    let wide = pb::Compare { range_end: b"\0".to_vec(), ..compares("a") };
    refuses(ann.txn(txn([wide], [], [])).await, DENIED);
    let allowed = [prev("a"), op_put(put("w1", "v")), Op::RequestRange(get("r")), nested(vec![prev("a1")])];
    ann.txn(txn([compares("r")], allowed, [prev_delete("a")])).await.expect("all of it is granted");
    assert_eq!(root.range(get("z")).await.expect("get").kvs[0].value, b"secret");
}

/// Attaching a key to somebody's lease would let the holder of the key end the other keys.
#[tokio::test]
async fn a_13_l_12_leases_with_keys_of_others() {
    let (_server, root, nobody) = with_root(&[]).await;
    add_user(&root, "ann", &[(Readwrite, "a", "b")]).await;
    add_user(&root, "bob", &[(Readwrite, "a", "c"), (Read, "x", "")]).await;
    add_user(&root, "eve", &[]).await;
    let (ann, bob, eve) = (nobody.login("ann").await, nobody.login("bob").await, nobody.login("eve").await);
    bob.lease_grant(7).await.expect("any user may");
    let leased = |key: &str| pb::PutRequest { lease: 7, ..put(key, "v") };
    ann.put(leased("a1")).await.expect("nothing else on it");
    ann.keep_alive(7).await.expect("renew");
    bob.put(leased("b1")).await.expect("both are bob's to write");
    refuses(ann.put(leased("a2")).await, DENIED);
    refuses(ann.txn(txn_of(vec![op_put(leased("a2"))], vec![])).await, DENIED);
    refuses(ann.txn(txn_of(vec![], vec![op_put(leased("a2"))])).await, DENIED);
    let nested = Op::RequestTxn(txn_of(vec![op_put(leased("a2"))], vec![]));
    refuses(ann.txn(txn_of(vec![nested], vec![])).await, DENIED);
    refuses(ann.keep_alive(7).await, DENIED);
    refuses(ann.lease_revoke(7).await, DENIED);
    refuses(ann.time_to_live(7, true).await, DENIED);
    ann.time_to_live(7, false).await.expect("the time is no secret");
    refuses(ann.leases().await, DENIED);
    assert_eq!(bob.time_to_live(7, true).await.expect("ttl").keys.len(), 2);
    assert_eq!(bob.leases().await.expect("leases").leases.len(), 1);
    bob.keep_alive(7).await.expect("renew");
    for lease in [8, 9] {
        eve.lease_grant(lease).await.expect("any user may");
    }
    eve.keep_alive(8).await.expect("no keys on it");
    eve.lease_revoke(8).await.expect("no keys on it");
    assert_eq!(eve.keep_alive(99).await.expect("an unknown lease").ttl, 0);
    assert_eq!(eve.time_to_live(99, true).await.expect("an unknown lease").ttl, -1);
    for (caller, expected) in [(&nobody, USER_EMPTY), (&nobody.with_token("no"), INVALID_TOKEN)] {
        refuses(caller.lease_grant(10).await, expected);
        refuses(caller.lease_revoke(9).await, expected);
        refuses(caller.keep_alive(9).await, expected);
        refuses(caller.time_to_live(9, false).await, expected);
        refuses(caller.time_to_live(9, true).await, expected);
        refuses(caller.leases().await, expected);
    }
    root.keep_alive(7).await.expect("root may everything");
    root.lease_revoke(7).await.expect("root may everything");
    assert!(root.range(range("a", "c")).await.expect("range").kvs.is_empty());
}

/// W-7. The reason is a status as Go shows it, and the stream goes on. A watch from one granted key on was let through
/// once, because its end was rewritten before it was looked at (GHSA-xg4h-6gfc-h4m8).
#[tokio::test]
async fn w_7_watches_are_checked_when_they_are_made() {
    let (_server, root, nobody) = with_root(&[]).await;
    add_user(&root, "ann", &[(Read, "a", ""), (Read, "p", "q")]).await;
    let ann = nobody.login("ann").await;
    root.put(put("z", "secret")).await.expect("put");
    let reason = |caller: As, key: &'static str, end: &'static str| async move {
        let answer = watch(&caller, key, end).await.expect("an answer");
        assert!(answer.created);
        assert_eq!(answer.canceled, answer.watch_id == -1);
        assert_eq!(answer.canceled, !answer.cancel_reason.is_empty());
        assert!(answer.header.is_some_and(|h| h.revision == 2));
        answer.cancel_reason
    };
    let denied = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
    for (key, end) in [("a", "\0"), ("a", "b"), ("p", "\0"), ("z", ""), ("", ""), ("", "\0"), ("b", "a")] {
        assert_eq!(reason(ann.clone(), key, end).await, denied, "{key:?} {end:?}");
    }
    for (key, end) in [("a", ""), ("p", "q"), ("p1", "p2"), ("p", "")] {
        assert_eq!(reason(ann.clone(), key, end).await, "", "{key:?} {end:?}");
    }
    let empty = "rpc error: code = InvalidArgument desc = etcdserver: user name is empty";
    assert_eq!(reason(nobody.clone(), "a", "").await, empty);
    let invalid = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
    assert_eq!(reason(nobody.with_token("no.1"), "a", "").await, invalid);
    assert_eq!(reason(root.clone(), "\0", "\0").await, "");
}

/// A refused watcher leaves the others of its stream alone.
#[tokio::test]
async fn w_7_a_refusal_does_not_end_the_stream() {
    let (_server, root, nobody) = with_root(&[]).await;
    add_user(&root, "ann", &[(Read, "a", "b")]).await;
    let ann = nobody.login("ann").await;
    let create = |key: &str| {
        let create = pb::WatchCreateRequest { key: key.into(), ..Default::default() };
        pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
    };
    let requests = tokio_stream::iter([create("a1"), create("z"), create("a2")]);
    let requests = tokio_stream::StreamExt::chain(requests, tokio_stream::pending());
    let mut answers = ann.watch().watch(ann.request(requests)).await.expect("watch").into_inner();
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(answers.message().await.expect("a message").expect("an answer").watch_id);
    }
    ids.sort_unstable();
    assert_eq!(ids, [-1, 0, 1]);
    root.put(put("a2", "v")).await.expect("put");
    let events = answers.message().await.expect("a message").expect("an answer");
    assert_eq!((events.watch_id, events.events.len()), (1, 1));
}

/// The rest of the matrix: the server itself.
#[tokio::test]
async fn a_11_maintenance_and_cluster() {
    let (_server, root, nobody) = with_root(&[]).await;
    add_user(&root, "ann", &[(Readwrite, "\0", "\0")]).await;
    let ann = nobody.login("ann").await;
    root.put(put("a", "v")).await.expect("put");
    let alarm = |action| pb::AlarmRequest { action, ..Default::default() };
    for (caller, expected) in
        [(&ann, DENIED), (&nobody, USER_EMPTY), (&nobody.with_token("no"), INVALID_TOKEN)]
    {
        let mut maintenance = caller.maintenance();
        let compact = pb::CompactionRequest { revision: 1, physical: false };
        refuses(caller.kv().compact(caller.request(compact)).await, expected);
        refuses(maintenance.defragment(caller.request(pb::DefragmentRequest {})).await, expected);
        refuses(maintenance.hash(caller.request(pb::HashRequest {})).await, expected);
        refuses(maintenance.hash_kv(caller.request(pb::HashKvRequest::default())).await, expected);
        refuses(maintenance.alarm(caller.request(alarm(1))).await, expected);
        refuses(maintenance.alarm(caller.request(alarm(2))).await, expected);
        refuses(maintenance.alarm(caller.request(alarm(9))).await, expected);
        refuses(maintenance.move_leader(caller.request(pb::MoveLeaderRequest::default())).await, expected);
        refuses(maintenance.downgrade(caller.request(pb::DowngradeRequest::default())).await, expected);
        let snapshot = maintenance.snapshot(caller.request(pb::SnapshotRequest::default())).await;
        let snapshot = match snapshot {
            Ok(answer) => answer.into_inner().message().await,
            Err(status) => Err(status),
        };
        refuses(snapshot, expected);
        let mut cluster = caller.cluster();
        let remove = pb::MemberRemoveRequest { id: 1 };
        refuses(cluster.member_remove(caller.request(remove)).await, expected);
        let promote = pb::MemberPromoteRequest { id: 1 };
        refuses(cluster.member_promote(caller.request(promote)).await, expected);
        let add = pb::MemberAddRequest { peer_ur_ls: vec!["http://127.0.0.1:1".into()], is_learner: false };
        refuses(cluster.member_add(caller.request(add)).await, expected);
        let update = pb::MemberUpdateRequest { id: 1, peer_ur_ls: vec!["http://127.0.0.1:1".into()] };
        refuses(cluster.member_update(caller.request(update)).await, expected);
        if expected != DENIED {
            refuses(maintenance.status(caller.request(pb::StatusRequest {})).await, expected);
            refuses(maintenance.alarm(caller.request(alarm(0))).await, expected);
            let list = caller.request(pb::MemberListRequest::default());
            refuses(cluster.member_list(list).await, expected);
        }
    }
    let mut maintenance = ann.maintenance();
    maintenance.status(ann.request(pb::StatusRequest {})).await.expect("any user may");
    maintenance.alarm(ann.request(alarm(0))).await.expect("any user may");
    ann.cluster().member_list(ann.request(pb::MemberListRequest::default())).await.expect("any user may");
    root.kv()
        .compact(root.request(pb::CompactionRequest { revision: 2, physical: true }))
        .await
        .expect("root");
    root.maintenance().hash_kv(root.request(pb::HashKvRequest::default())).await.expect("root");
    root.maintenance().defragment(root.request(pb::DefragmentRequest {})).await.expect("root");
}

/// A user that is deleted loses its token; a role that is taken away, its permissions at once.
#[tokio::test]
async fn a_12_changes_count_at_once() {
    let (_server, root, nobody) = with_root(&[]).await;
    add_user(&root, "ann", &[(Readwrite, "a", "b")]).await;
    let ann = nobody.login("ann").await;
    ann.put(put("a", "1")).await.expect("granted");
    root.revoke("ann", "a", "b").await.expect("revoke");
    refuses(ann.put(put("a", "2")).await, DENIED);
    refuses(ann.range(get("a")).await, DENIED);
    root.grant("ann", Readwrite, "a", "").await.expect("grant");
    ann.put(put("a", "3")).await.expect("granted");
    root.revoke_role("ann", "ann").await.expect("revoke");
    refuses(ann.put(put("a", "4")).await, DENIED);
    root.grant_role("ann", "ann").await.expect("grant");
    ann.put(put("a", "5")).await.expect("granted");
    root.role_delete("ann").await.expect("delete");
    refuses(ann.put(put("a", "6")).await, DENIED);
    root.user_delete("ann").await.expect("delete");
    refuses(ann.put(put("a", "7")).await, INVALID_TOKEN);
    root.disable().await.expect("disable");
    ann.put(put("a", "8")).await.expect("everyone may do everything");
    assert_eq!(nobody.range(get("a")).await.expect("get").kvs[0].version, 4);
}

/// Locks and elections are keys, leases and watches of whoever asks (1.12). Refusals have the code Unknown there (E-4).
#[tokio::test]
async fn e_1_locks_need_the_permissions_of_their_keys() {
    let (_server, root, nobody) = with_root(&[]).await;
    add_user(&root, "ann", &[(Readwrite, "a/", "a0")]).await;
    add_user(&root, "eve", &[(Read, "a/", "a0")]).await;
    let (ann, eve) = (nobody.login("ann").await, nobody.login("eve").await);
    let lock = async |caller: &As, name: &str| {
        let request = v3lockpb::LockRequest { name: name.into(), lease: 0 };
        LockClient::new(caller.channel.clone()).lock(caller.request(request)).await
    };
    let observe = async |caller: &As, name: &str| {
        let request = v3electionpb::LeaderRequest { name: name.into() };
        ElectionClient::new(caller.channel.clone()).leader(caller.request(request)).await
    };
    let key = lock(&ann, "a/x").await.expect("ann's own").into_inner().key;
    let denied = (Code::Unknown, DENIED.1);
    refuses(lock(&ann, "b/x").await, denied);
    refuses(lock(&eve, "a/y").await, denied);
    refuses(lock(&nobody, "a/z").await, (Code::Unknown, USER_EMPTY.1));
    refuses(observe(&ann, "b/x").await, denied);
    refuses(observe(&eve, "a/none").await, (Code::Unknown, "election: no leader"));
    let unlock = async |caller: &As| {
        let request = v3lockpb::UnlockRequest { key: key.clone() };
        LockClient::new(caller.channel.clone()).unlock(caller.request(request)).await
    };
    refuses(unlock(&eve).await, denied);
    unlock(&ann).await.expect("ann's own");
}
