//! Moving out: a snapshot of the server, restored by etcd's own etcdutl, and a real etcd started on it, which must show
//! the same keys, history, leases, alarms and hashes. Needs `make tools`; without them the test says what it skips.

use std::path::Path;
use std::process::Command;

use kvist::pb::etcdserverpb as pb;
use kvist::pb::mvccpb::Event;
use pb::alarm_request::AlarmAction;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::snapshot::take_snapshot;
use crate::support::{Server, tool};
use crate::watch_client::{Clients, put_leased_op, put_op, put_request};

const KEYS: usize = 100_000;
/// Operations in a txn; 128 is the limit.
const OPS: usize = 100;
/// Txns in flight.
const WRITERS: usize = 16;

fn key(i: usize) -> String {
    format!("/registry/pods/{:03}/pod-{i:06}", i % 300)
}

/// Writes `value` to the keys of `range`, every hundredth of them attached to a lease.
async fn write(clients: &Clients, range: std::ops::Range<usize>, value: &str, leases: &[i64]) {
    let txns: Vec<Vec<pb::RequestOp>> = range
        .step_by(OPS)
        .map(|from| {
            let op = |i: usize| match i % 100 {
                7 => put_leased_op(key(i), format!("{value}{i}"), leases[i / 100 % leases.len()]),
                _ => put_op(key(i), format!("{value}{i}")),
            };
            (from..from + OPS).map(op).collect()
        })
        .collect();
    for batch in txns.chunks(WRITERS) {
        futures_util::future::join_all(batch.iter().map(|ops| clients.txn(ops.clone()))).await;
    }
}

/// Old keys, new keys, deleted ones, keys of several generations; long keys, large values; a compaction in the middle.
pub async fn write_history(clients: &Clients) -> i64 {
    let mut leases = vec![clients.grant(100_000).await];
    for ttl in [5_000, 7_000, 9_000_000] {
        leases.push(clients.grant(ttl).await);
    }
    write(clients, 0..KEYS, "first ", &leases).await;
    for size in [0, 1024, 1025, 4000, 300_000, 1 << 20] {
        clients.put(format!("large {size}"), vec![b'v'; size]).await;
        clients.put(format!("{}{size}", "long key ".repeat(3000)), "x").await;
    }
    write(clients, 0..30_000, "second ", &leases).await;
    clients.try_delete(&key(1000), &key(1001)).await.expect("delete");
    clients.try_delete("/registry/pods/200/", "/registry/pods/210/").await.expect("delete");
    let compacted = clients.try_delete("/registry/pods/210/", "/registry/pods/215/").await.expect("delete");
    let compacted = compacted.header.expect("header").revision;
    write(clients, 0..10_000, "third ", &leases).await;
    clients.compact(compacted).await;
    clients.put("large 300000", vec![b'w'; 500_000]).await;
    clients.delete("large 1024").await;
    clients.try_delete("/registry/pods/250/", "/registry/pods/270/").await.expect("delete");
    write(clients, 5_000..15_000, "fourth ", &leases).await;
    clients.try_revoke(leases[1]).await.expect("revoke");
    clients.delete("large 0").await;
    compacted
}

/// Digest of every pair at a revision, and how many there are.
pub async fn pairs(clients: &Clients, revision: i64) -> (usize, u32) {
    let (mut digest, mut count, mut from) = (0, 0, vec![0]);
    loop {
        let request = pb::RangeRequest {
            key: from.clone(),
            range_end: vec![0],
            limit: 5000,
            revision,
            ..Default::default()
        };
        let found = clients.kv.clone().range(request).await.expect("range").into_inner();
        for pair in &found.kvs {
            digest = crc32c::crc32c_append(digest, &pair.encode_length_delimited_to_vec());
            count += 1;
        }
        let Some(last) = found.kvs.last().filter(|_| found.more) else {
            return (count, digest);
        };
        from = [&last.key[..], &[0]].concat();
    }
}

/// Everything that happened from a revision up to another.
pub async fn events(clients: &Clients, from: i64, to: i64) -> Vec<Event> {
    let mut stream = clients.watch_stream();
    let request = pb::WatchCreateRequest {
        key: vec![0],
        range_end: vec![0],
        start_revision: from,
        ..Default::default()
    };
    stream.create(request).await;
    let mut events: Vec<Event> = Vec::new();
    loop {
        let response = stream.next().await;
        assert!(!response.canceled, "{response:?}");
        events.extend(response.events);
        let last = events.last().and_then(|event| event.kv.as_ref());
        if last.is_some_and(|pair| pair.mod_revision >= to) {
            return events;
        }
    }
}

pub fn run(program: &Path, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().expect("run the tool");
    assert!(output.status.success(), "{} {args:?}: {output:?}", program.display());
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

pub fn path(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

/// Compares what both servers say of everything that a client can see.
pub async fn assert_same(ours: &Clients, theirs: &Clients, compacted: i64) {
    let current = ours.revision().await;
    assert_eq!(theirs.revision().await, current);
    for revision in [compacted, compacted + 1, (compacted + 50).min(current), current - 1, current, 0] {
        assert_eq!(pairs(theirs, revision).await, pairs(ours, revision).await, "pairs at {revision}");
        if revision == compacted {
            continue; // etcd may answer from a cache with the hash before that compaction
        }
        let (found, expected) = (theirs.hash_kv(revision).await, ours.hash_kv(revision).await);
        let (found, expected) = (found.expect("hash"), expected.expect("hash"));
        assert_eq!((found.hash, found.compact_revision), (expected.hash, expected.compact_revision));
    }
    let (found, expected) =
        (events(theirs, compacted, current).await, events(ours, compacted, current).await);
    assert_eq!(found.len(), expected.len());
    assert!(found == expected, "events since {compacted} differ");

    let (mut found, mut expected) = (theirs.leases().await, ours.leases().await);
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    for lease in expected {
        let (found, expected) =
            (theirs.time_to_live(lease, true).await, ours.time_to_live(lease, true).await);
        let sorted = |mut keys: Vec<Vec<u8>>| {
            keys.sort_unstable();
            keys
        };
        assert_eq!(found.granted_ttl, expected.granted_ttl);
        assert_eq!(sorted(found.keys), sorted(expected.keys));
    }
}

/// X-8, contract 7.3: from the server to etcd, with everything that clients can see.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x_8_etcd_goes_on_from_a_snapshot() {
    let skipped = "x_8_etcd_goes_on_from_a_snapshot";
    let (Some(etcd), Some(etcdutl)) = (tool("etcd", skipped), tool("etcdutl", skipped)) else {
        return;
    };
    let temp = tempfile::tempdir().expect("temporary directory");
    let server = Server::start();
    let ours = Clients::connect(&server).await;
    let compacted = write_history(&ours).await;
    ours.alarm(AlarmAction::Activate, 77, pb::AlarmType::Nospace).await;

    let database = take_snapshot(&ours.maintenance).await;
    let hash = ours.hash_kv(0).await.expect("hash");
    let (snapshot, plain) = (temp.path().join("snapshot.db"), temp.path().join("plain.db"));
    std::fs::write(&plain, &database).expect("write");
    std::fs::write(&snapshot, [&database[..], &Sha256::digest(&database)].concat()).expect("write");
    let status = run(&etcdutl, &["snapshot", "status", path(&snapshot)]);
    let fields: Vec<&str> = status.split(", ").collect();
    assert_eq!((fields[1], fields[4]), (&*hash.hash_revision.to_string(), "3.7.0"), "{status}");
    assert_eq!(
        run(&etcdutl, &["hashkv", path(&plain)]),
        format!("{}, {}, {}", hash.hash, hash.hash_revision, hash.compact_revision)
    );

    let dir = temp.path().join("restored");
    run(&etcdutl, &["snapshot", "restore", path(&snapshot), "--data-dir", path(&dir)]);
    let other = Server::start_other(&etcd, &dir);
    let theirs = Clients::connect(&other).await;
    assert_same(&ours, &theirs, compacted).await;
    let alarms = theirs.alarm(AlarmAction::Get, 0, pb::AlarmType::None).await.alarms;
    assert_eq!(alarms, [pb::AlarmMember { member_id: 77, alarm: pb::AlarmType::Nospace as i32 }]);

    // And it goes on where the other stood.
    for clients in [&ours, &theirs] {
        clients.alarm(AlarmAction::Deactivate, 77, pb::AlarmType::Nospace).await;
        clients.try_put(put_request("next", "1", 0)).await.expect("put");
        clients.try_delete("large", "largf").await.expect("delete");
        clients.compact(clients.revision().await - 1).await;
    }
    assert_same(&ours, &theirs, theirs.revision().await - 1).await;
}
