//! Requests, commands and memberships as JSON and back, row by row of the mapping.

use super::super::{LogEntry, Membership, Payload, Peer, Types, Vote, codec};
use super::{command, json, readable};
use crate::auth::{Caller, Change, Permission, PermissionKind};
use crate::engine::command::*;
use crate::engine::entry::{Entry, Origin, Ticket};
use crate::engine::versions::ClusterVersion;
use crate::types::KeyRange;
use bytes::Bytes;
use openraft::entry::RaftPayload;
use openraft::raft::AppendEntriesRequest;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

fn request(entries: Vec<LogEntry>) -> AppendEntriesRequest<Types> {
    AppendEntriesRequest {
        vote: Vote::new_committed(3, 1),
        prev_log_id: Some(codec::log_id(2, 6)),
        entries,
        leader_commit: Some(codec::log_id(2, 6)),
    }
}

fn entry(index: u64, payload: Payload) -> LogEntry {
    LogEntry { log_id: codec::log_id(3, index), payload }
}

fn put(value: Vec<u8>) -> Entry {
    let put = Put { key: "k".into(), value: value.into(), ..Put::default() };
    Entry::new(Origin::Client(None), Command::Put(put), 5)
}

fn parsed(request: &AppendEntriesRequest<Types>) -> Value {
    serde_json::from_str(&json::write_append(request).unwrap().json).unwrap()
}

fn peer(name: &str) -> Peer {
    Peer { name: name.into(), urls: vec![format!("http://{name}:2380"), "http://b:1".into()] }
}

#[test]
fn wolf_8_a_heartbeat_has_no_entries_and_the_commit_index_of_the_protocol() {
    let expected = json!({
        "term": 3, "leader_id": 1, "prev_log_index": 7, "prev_log_term": 2, "entries": [], "leader_commit": 7,
        "leader_commit_term": 2,
    });
    assert_eq!(parsed(&request(vec![])), expected);
    let nothing = AppendEntriesRequest { prev_log_id: None, leader_commit: None, ..request(vec![]) };
    let parsed = parsed(&nothing);
    assert_eq!((&parsed["prev_log_index"], &parsed["leader_commit"]), (&json!(0), &json!(0)));
    let read = json::read_append(&parsed.to_string(), &[]).unwrap();
    assert_eq!((read.prev, read.commit_index), (None, 0));
}

#[test]
fn an_entry_is_readable() {
    let user = Caller { user: "ann".into(), revision: 9, is_pinned: true };
    let delete = DeleteRange { range: KeyRange::from_wire("a".into(), "b".into()), prev_kv: true };
    let delete = Entry::new(Origin::Client(Some(user)), Command::DeleteRange(delete), 6);
    let entries = vec![
        entry(7, Payload::blank()),
        entry(8, Payload::Normal(put(b"\xff".to_vec()))),
        entry(9, Payload::Normal(delete)),
    ];
    let expected = json!([
        { "term": 3, "index": 8, "payload": "Blank" },
        { "term": 3, "index": 9, "payload": { "Normal": { "data": {
            "cmd": "Put", "time_ms": 5, "origin": "anonymous",
            "args": {
                "key": { "u": "k" }, "value": { "b": "/w==" }, "lease": 0, "prev_kv": false, "ignore_value": false,
                "ignore_lease": false,
            },
        } } } },
        { "term": 3, "index": 10, "payload": { "Normal": { "data": {
            "cmd": "DeleteRange", "time_ms": 6, "origin": { "user": "ann", "revision": 9 },
            "args": { "range": { "start": { "u": "a" }, "end": { "Before": { "u": "b" } } }, "prev_kv": true },
        } } } },
    ]);
    assert_eq!(parsed(&request(entries))["entries"], expected);
}

#[test]
fn wolf_23_a_membership_on_its_way_has_two_sets_and_learners_are_in_nodes_only() {
    let nodes: BTreeMap<u64, Peer> = [(1, peer("a")), (2, peer("b")), (3, peer("c"))].into();
    let sets = vec![BTreeSet::from([1]), BTreeSet::from([1, 2])];
    let joint = Membership::new(sets, nodes.clone()).unwrap();
    let single = Membership::new(vec![BTreeSet::from([1, 2])], nodes).unwrap();
    let request = request(vec![entry(7, Payload::Membership(joint)), entry(8, Payload::Membership(single))]);
    let parsed = parsed(&request);
    let change = |n: usize| parsed["entries"][n]["payload"]["ConfigChange"]["membership"].clone();
    assert_eq!((&change(0)["members"], &change(0)["members_after_consensus"]), (&json!([1]), &json!([1, 2])));
    assert_eq!(
        (&change(1)["members"], &change(1)["members_after_consensus"]),
        (&json!([1, 2]), &json!(null))
    );
    assert_eq!(change(0)["nodes"]["3"]["name"], "c");
    assert_eq!(change(0)["nodes"]["3"]["peer_url"], "http://c:2380");
    let read = json::read_append(&parsed.to_string(), &[]).unwrap();
    assert_eq!(read.entries, request.entries);
}

#[test]
fn without_nodes_the_table_says_where_members_are() {
    let text = json!({
        "term": 1, "leader_id": 1, "prev_log_index": 0, "prev_log_term": 0, "leader_commit": 1, "entries": [
            { "term": 0, "index": 1, "payload": { "ConfigChange": { "membership": {
                "members": [1, 2], "members_after_consensus": null,
            } } } },
        ],
    });
    let table = [(1, peer("a")), (2, peer("b")), (3, peer("c"))];
    let read = json::read_append(&text.to_string(), &table).unwrap();
    assert_eq!((read.commit_index, read.commit_term), (1, None));
    let Payload::Membership(membership) = &read.entries[0].payload else { panic!("{:?}", read.entries) };
    assert_eq!(
        membership.nodes().map(|(id, peer)| (*id, peer.clone())).collect::<Vec<_>>(),
        table[..2].to_vec()
    );
    assert!(json::read_append(&text.to_string(), &[]).is_err(), "nobody knows where they are");
}

#[test]
fn what_no_leader_sends_is_refused() {
    let base = parsed(&request(vec![entry(7, Payload::blank()), entry(8, Payload::blank())]));
    let with = |change: &dyn Fn(&mut Value)| {
        let mut changed = base.clone();
        change(&mut changed);
        json::read_append(&changed.to_string(), &[])
    };
    assert!(with(&|_| {}).is_ok() && with(&|v| v["unknown"] = json!({ "a": 1 })).is_ok());
    let refused: [&dyn Fn(&mut Value); 9] = [
        &|v| v["entries"][1]["index"] = json!(10),
        &|v| v["entries"][1]["term"] = json!(1),
        &|v| v["entries"][1]["term"] = json!(4),
        &|v| v["prev_log_index"] = json!(0),
        &|v| v["entries"][0]["payload"] = json!({ "SnapshotPointer": { "id": "x" } }),
        &|v| {
            v["entries"][0]["payload"] =
                json!({ "Normal": { "data": { "client": "c1", "serial": 4, "status": "on" } } });
        },
        &|v| {
            v["entries"][0]["payload"] = json!({ "Normal": { "data": { "cmd": "Put", "args": {}, "time_ms": 1, "origin": "server" } } });
        },
        &|v| {
            v["entries"][0]["payload"] =
                json!({ "ConfigChange": { "membership": { "members": [1], "nodes": {} } } });
        },
        &|v| {
            v.as_object_mut().unwrap().remove("term");
        },
    ];
    for (n, change) in refused.iter().enumerate() {
        assert!(with(change).is_err(), "case {n}");
    }
    assert!(json::read_append("{", &[]).is_err() && json::read_append("{}", &[]).is_err());
    assert!(json::read_append(&"[".repeat(1 << 20), &[]).is_err());
}

#[test]
fn wolf_28_a_large_request_is_split_between_entries() {
    let value: Vec<u8> = (0..1_500_000).map(|n| n as u8).collect();
    let mut request = request((7..10).map(|n| entry(n, Payload::Normal(put(value.clone())))).collect());
    let mut sent = Vec::new();
    while !request.entries.is_empty() {
        let batch = json::write_append(&request).unwrap();
        assert!((1..=request.entries.len()).contains(&batch.entries) && batch.json.len() < 4 << 20);
        let read = json::read_append(&batch.json, &[]).unwrap();
        request.entries.drain(..batch.entries);
        request.prev_log_id = read.entries.last().map(|entry| entry.log_id);
        sent.extend(read.entries);
    }
    assert_eq!(sent.len(), 3);
    for (n, sent) in sent.iter().enumerate() {
        assert_eq!(*sent, entry(7 + n as u64, Payload::Normal(put(value.clone()))));
    }
}

#[test]
fn what_json_has_no_words_for_goes_as_bytes() {
    let old = Entry::decode(Bytes::from_static(&[1, 5, 6, 6])).unwrap();
    let mut txn = Txn::default();
    for _ in 0..60 {
        txn = Txn { success: vec![Op::Txn(txn)], ..Txn::default() };
    }
    for entry in [old, Entry::new(Origin::Server, Command::Txn(txn), 1)] {
        let text = command::write(&entry);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(value["raw"].is_object() && value["cmd"].is_string(), "{text}");
        assert_eq!(command::read(&value).unwrap().bytes(), entry.bytes());
    }
}

fn bytes() -> impl Strategy<Value = Bytes> + Clone {
    prop_oneof![
        "[a-z\"\\\\é]{0,8}".prop_map(Bytes::from),
        prop::collection::vec(any::<u8>(), 0..12).prop_map(Bytes::from),
    ]
}

fn range() -> impl Strategy<Value = KeyRange> + Clone {
    (bytes(), bytes()).prop_map(|(key, end)| KeyRange::from_wire(key, end))
}

fn a_put() -> impl Strategy<Value = Put> + Clone {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (bytes(), bytes(), any::<i64>(), flags).prop_map(
        |(key, value, lease, (prev_kv, ignore_value, ignore_lease))| Put {
            key,
            value,
            lease,
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    )
}

fn compare() -> impl Strategy<Value = Compare> + Clone {
    let relation =
        prop::sample::select(vec![Relation::Equal, Relation::Greater, Relation::NotEqual, Relation::Any]);
    let operand = prop_oneof![
        any::<i64>().prop_map(Operand::ModRevision),
        bytes().prop_map(Operand::Value),
        any::<i64>().prop_map(Operand::Lease),
    ];
    (range(), relation, operand).prop_map(|(range, relation, operand)| Compare { range, relation, operand })
}

fn op() -> impl Strategy<Value = Op> {
    let read = (range(), any::<i64>(), any::<bool>()).prop_map(|(range, limit, keys_only)| {
        let sort = Sort { order: SortOrder::Descend, target: SortTarget::Mod };
        let bounds = RevisionBounds { mod_min: limit, ..RevisionBounds::default() };
        Op::Range(Range { range, limit, revision: 0, sort, keys_only, count_only: false, bounds })
    });
    let leaf = prop_oneof![
        read,
        a_put().prop_map(Op::Put),
        range().prop_map(|range| Op::DeleteRange(DeleteRange { range, prev_kv: false })),
    ];
    leaf.prop_recursive(4, 16, 3, |inner| {
        let ops = prop::collection::vec(inner, 0..3);
        (prop::collection::vec(compare(), 0..2), ops.clone(), ops)
            .prop_map(|(compares, success, failure)| Op::Txn(Txn { compares, success, failure }))
    })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        Just(Change::Enable),
        ("[a-z]{0,4}", any::<Vec<u8>>()).prop_map(|(name, password)| Change::UserAdd {
            name,
            password,
            no_password: false
        }),
        ("\\PC{0,4}", bytes(), bytes()).prop_map(|(name, key, range_end)| Change::RoleGrantPermission {
            name,
            permission: Permission { kind: PermissionKind::ReadWrite, key, range_end },
        }),
        (".*", any::<u64>()).prop_map(|(user, revision)| Change::Authenticate {
            token_prefix: user.clone(),
            user,
            revision,
        }),
    ]
}

fn a_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        a_put().prop_map(Command::Put),
        (prop::collection::vec(op(), 0..3), prop::collection::vec(compare(), 0..2))
            .prop_map(|(success, compares)| Command::Txn(Txn { compares, success, failure: vec![] })),
        (any::<i64>(), any::<i64>()).prop_map(|(id, ttl_secs)| Command::LeaseGrant { id, ttl_secs }),
        any::<Vec<i64>>().prop_map(|ids| Command::LeaseRevoke { ids, expired: true }),
        any::<Vec<(i64, i64)>>().prop_map(Command::LeaseCheckpoint),
        (any::<u64>(), any::<Vec<(i64, Option<u64>)>>())
            .prop_map(|(now_ms, since_ms)| Command::LeaseRecord { now_ms, since_ms }),
        any::<u64>().prop_map(|member| Command::Alarm { activate: true, member, alarm: AlarmKind::Corrupt }),
        (any::<u64>(), any::<Vec<String>>()).prop_map(|(id, urls)| {
            Command::PublishMember(Member {
                id,
                peer_urls: urls.clone(),
                client_urls: urls,
                ..Member::default()
            })
        }),
        any::<Option<u32>>().prop_map(|minor| Command::Downgrade {
            target: minor.map(|minor| ClusterVersion { major: 3, minor }),
        }),
        change().prop_map(Command::Auth),
    ]
}

fn origin() -> impl Strategy<Value = Origin> {
    prop_oneof![
        Just(Origin::Server),
        Just(Origin::Client(None)),
        (".{0,5}", any::<u64>()).prop_map(|(user, revision)| {
            Origin::Client(Some(Caller { user: user.into(), revision, is_pinned: true }))
        }),
    ]
}

proptest! {
    #[test]
    fn entries_come_back_byte_for_byte(
        (origin, command) in (origin(), a_command()),
        time_ms: u64,
        ticket: Option<(u64, u64)>,
    ) {
        let mut entry = Entry::new(origin, command, time_ms);
        if let Some((proposer, number)) = ticket {
            entry = entry.ticketed(Ticket { proposer, number });
        }
        let text = command::write(&entry);
        let value: Value = serde_json::from_str(&text).unwrap();
        prop_assert!(value["raw"].is_null(), "{}", text);
        let read = command::read(&value).unwrap();
        prop_assert_eq!(read.bytes(), entry.bytes());
    }

    #[test]
    fn log_ids_are_one_more_on_the_wire(term in 0u64..9, index in 0u64..u64::MAX - 1) {
        let id = codec::log_id(term, index);
        prop_assert_eq!(super::to_wire(Some(&id)), (term, index + 1));
        prop_assert_eq!(super::from_wire(term, index + 1), Some(id));
        prop_assert_eq!(super::from_wire(term, 0), None);
    }

    #[test]
    fn foreign_json_does_not_panic(text in "[\\[\\]{}\":,a-zA-Z0-9_.-]{0,200}", key in bytes()) {
        let _ = json::read_append(&text, &[]);
        let _ = (json::read_proposal(&text), json::read_hand_over(&text));
        let _ = json::is_elsewhere(&text, 1);
        let cmd = json!({ "cmd": text, "args": [{ "u": text }, readable::bytes(&key)], "time_ms": 1, "origin": "server" });
        prop_assert!(command::read(&cmd).is_err());
    }
}
