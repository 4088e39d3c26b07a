//! `Maintenance.Snapshot`, X-8: its messages, what the database in them says, and that it is taken while all goes on.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kvist::bbolt::Reader;
use kvist::pb::etcdserverpb as pb;
use kvist::pb::mvccpb::KeyValue;
use pb::maintenance_client::MaintenanceClient;
use prost::Message;
use sha2::{Digest, Sha256};
use tokio_stream::StreamExt;

use crate::support::{Server, is_foreign_server, wait_until};
use crate::watch_client::{Clients, put_op};

const MESSAGE_BYTES_MAX: usize = 32 << 10;

/// Takes a snapshot; checks every message of it, and the checksum. The database, without the checksum.
pub async fn take_snapshot(client: &MaintenanceClient<tonic::transport::Channel>) -> Vec<u8> {
    let mut stream = client.clone().snapshot(pb::SnapshotRequest {}).await.expect("snapshot").into_inner();
    let (mut bytes, mut total, mut last) = (Vec::new(), None, None);
    while let Some(message) = stream.next().await {
        let message = message.expect("a message");
        assert!(message.header.is_none(), "a header");
        assert_eq!(message.version, "3.7.0");
        assert!(message.blob.len() <= MESSAGE_BYTES_MAX, "{} bytes", message.blob.len());
        if let Some(blob) = last.replace(message.blob) {
            bytes.extend_from_slice(&blob);
        }
        let seen = (bytes.len() + last.as_ref().map_or(0, Vec::len)) as u64;
        let total = *total.get_or_insert(message.remaining_bytes + seen);
        // The checksum comes on top.
        assert_eq!(message.remaining_bytes, total.saturating_sub(seen));
    }
    let checksum = last.expect("messages");
    assert_eq!(checksum, Sha256::digest(&bytes).to_vec(), "the last message is the SHA-256 of the others");
    assert_eq!((bytes.len() as u64, bytes.len() % 512), (total.expect("messages"), 0));
    bytes
}

/// The database, checked whole.
pub fn open(bytes: &[u8]) -> Reader {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(bytes).expect("write");
    let reader = Reader::new(file, bytes.len() as u64).expect("a bbolt database");
    reader.check(&mut |_| {}).expect("sound");
    reader
}

/// Revisions and pairs of the bucket `key`, in order.
fn versions(reader: &Reader) -> Vec<((i64, i64), bool, KeyValue)> {
    let bucket = reader.bucket(b"key").expect("read").expect("a bucket of keys");
    let number = |bytes: &[u8]| i64::from_be_bytes(bytes.try_into().expect("8 bytes"));
    let row = |row: kvist::bbolt::Result<(Vec<u8>, Vec<u8>)>| {
        let (key, value) = row.expect("read");
        let pair = KeyValue::decode(&value[..]).expect("a KeyValue");
        ((number(&key[..8]), number(&key[9..17])), key.get(17) == Some(&b't'), pair)
    };
    bucket.iter().map(row).collect()
}

fn small_bucket(reader: &Reader, name: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let bucket = reader.bucket(name.as_bytes()).expect("read").unwrap_or_else(|| panic!("no bucket {name}"));
    bucket.iter().map(|row| row.expect("read")).collect()
}

/// X-8, contract 7.3: every message, and every bucket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x_8_a_snapshot_is_a_database_of_etcd() {
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    let lease = clients.grant(600).await;
    clients.put("a", "1").await;
    clients.put_leased("b", vec![b'x'; 1 << 20], lease).await;
    clients.put("a", "2").await;
    clients.put("gone", "").await;
    clients.delete("gone").await;
    clients.compact(6).await;
    clients.txn(vec![put_op("c", "3"), put_op("d", "4")]).await;
    let status = async || clients.maintenance.clone().status(pb::StatusRequest {}).await.expect("status");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while status().await.into_inner().storage_version != "3.7.0" {
        assert!(std::time::Instant::now() < deadline, "the storage version is not known");
        tokio::time::sleep(Duration::from_millis(50)).await; // a new etcd takes a moment
    }
    let header = status().await.into_inner().header.expect("header");

    let reader = open(&take_snapshot(&clients.maintenance).await);
    let names: Vec<String> =
        reader.buckets().expect("read").into_iter().map(|n| String::from_utf8(n).expect("text")).collect();
    let expected = "alarm auth authRoles authUsers cluster key lease members members_removed meta";
    assert_eq!(names.join(" "), expected);
    let versions = versions(&reader);
    let found: Vec<_> = versions
        .iter()
        .map(|(revision, is_tombstone, pair)| (*revision, *is_tombstone, String::from_utf8_lossy(&pair.key)))
        .collect();
    let row = |main, sub, is_tombstone, key: &'static str| ((main, sub), is_tombstone, key.into());
    // A tombstone of the compacted revision stays for watchers that start there.
    let expected = [
        row(3, 0, false, "b"),
        row(4, 0, false, "a"),
        row(6, 0, true, "gone"),
        row(7, 0, false, "c"),
        row(7, 1, false, "d"),
    ];
    assert_eq!(found, expected);
    let b = &versions[0].2;
    assert_eq!((b.create_revision, b.mod_revision, b.version, b.lease), (3, 3, 1, lease));
    assert_eq!(b.value.len(), 1 << 20);
    assert_eq!((versions[1].2.create_revision, versions[1].2.version), (2, 2));

    let meta = small_bucket(&reader, "meta");
    let compacted = [&6i64.to_be_bytes()[..], b"_", &[0; 8]].concat();
    assert_eq!(meta[&b"finishedCompactRev"[..]], compacted);
    assert_eq!(meta[&b"scheduledCompactRev"[..]], compacted);
    assert_eq!(meta[&b"storageVersion"[..]], b"3.7.0");
    assert_eq!(meta[&b"term"[..]], header.raft_term.to_be_bytes());
    let conf_state: serde_json::Value = serde_json::from_slice(&meta[&b"confState"[..]]).expect("JSON");
    assert_eq!(conf_state, serde_json::json!({ "voters": [header.member_id], "auto_leave": false }));
    assert_eq!(small_bucket(&reader, "cluster")[&b"clusterVersion"[..]], b"3.7.0");
    let members = small_bucket(&reader, "members");
    let member = &members[format!("{:x}", header.member_id).as_bytes()];
    let member: serde_json::Value = serde_json::from_slice(member).expect("JSON");
    assert_eq!((&member["id"], &member["name"]), (&header.member_id.into(), &"default".into()));
    assert_eq!(member["clientURLs"], serde_json::json!([server.url()]));
    let leases = small_bucket(&reader, "lease");
    assert_eq!(leases.keys().collect::<Vec<_>>(), [&lease.to_be_bytes().to_vec()]);
}

/// X-8: everything acknowledged before the call is in it, and of what is written meanwhile whole revisions without a
/// gap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x_8_a_snapshot_shows_one_moment() {
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (clients, stop) = (clients.clone(), Arc::clone(&stop));
        async move {
            for i in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let value = i.to_string();
                clients
                    .txn(vec![put_op("x", value.as_str()), put_op(format!("k{}", i % 50), value.as_str())])
                    .await;
            }
        }
    });
    for _ in 0..5 {
        let acknowledged = clients.put("mark", "").await;
        let versions = versions(&open(&take_snapshot(&clients.maintenance).await));
        let ((last, _), ..) = *versions.last().expect("versions");
        assert!(last >= acknowledged, "{last} < {acknowledged}");
        let revisions: BTreeMap<i64, usize> =
            versions.iter().fold(BTreeMap::new(), |mut found, ((main, _), ..)| {
                *found.entry(*main).or_default() += 1;
                found
            });
        assert_eq!(revisions.keys().copied().collect::<Vec<_>>(), (2..=last).collect::<Vec<_>>());
        let marks = versions.iter().filter(|(.., pair)| pair.key == b"mark").count();
        assert_eq!(versions.len(), 2 * (revisions.len() - marks) + marks, "half a revision");
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.expect("the writer");
}

/// X-8: several at once; and clients that go away in the middle leave nothing behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x_8_clients_that_go_away_do_not_hold_others_up() {
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    for i in 0..20 {
        clients.put(format!("k{i}"), vec![i; 200_000]).await;
    }
    let mut gone = Vec::new();
    for _ in 0..6 {
        let clients = Clients::connect(&server).await;
        gone.push(tokio::spawn(async move {
            let stream =
                clients.maintenance.clone().snapshot(pb::SnapshotRequest {}).await.expect("snapshot");
            let _ = stream.into_inner().next().await;
        }));
    }
    let taken = (0..4).map(|_| async {
        let clients = Clients::connect(&server).await;
        versions(&open(&take_snapshot(&clients.maintenance).await)).len()
    });
    assert_eq!(futures_util::future::join_all(taken).await, [20; 4]);
    for client in gone {
        client.await.expect("a client that goes away");
    }
    if !is_foreign_server() {
        let files = format!("/proc/{}/fd", server.pid());
        let is_scratch = |file: std::io::Result<std::fs::DirEntry>| {
            let target = std::fs::read_link(file.expect("a descriptor").path()).unwrap_or_default();
            target.to_string_lossy().contains("scratch-")
        };
        wait_until("the temporary files to go", Duration::from_secs(20), || {
            !std::fs::read_dir(&files).expect("/proc").any(is_scratch)
        });
    }
}

/// X-8, contract 7.3: users and roles, as etcd stores them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x_8_users_and_roles_are_in_a_snapshot() {
    use kvist::pb::authpb::{Permission, Role, User, UserAddOptions, permission::Type};
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    let mut auth = pb::auth_client::AuthClient::new(clients.channel.clone());
    let permission = Permission { perm_type: Type::Readwrite as i32, key: "a".into(), range_end: "b".into() };
    auth.role_add(pb::AuthRoleAddRequest { name: "r".into() }).await.expect("role");
    let grant = pb::AuthRoleGrantPermissionRequest { name: "r".into(), perm: Some(permission.clone()) };
    auth.role_grant_permission(grant).await.expect("permission");
    for (name, password, no_password) in [("u", "secret", false), ("cn", "", true)] {
        let options = Some(UserAddOptions { no_password });
        let (name, password) = (name.into(), password.into());
        let user = pb::AuthUserAddRequest { name, password, options, ..Default::default() };
        auth.user_add(user).await.expect("user");
    }
    let grant = pb::AuthUserGrantRoleRequest { user: "u".into(), role: "r".into() };
    auth.user_grant_role(grant).await.expect("role of a user");
    let status = auth.auth_status(pb::AuthStatusRequest {}).await.expect("status").into_inner();

    let reader = open(&take_snapshot(&clients.maintenance).await);
    let facts = small_bucket(&reader, "auth");
    assert_eq!(facts[&b"authRevision"[..]], status.auth_revision.to_be_bytes());
    assert_ne!(facts.get(&b"authEnabled"[..]), Some(&vec![1]));
    let role = Role::decode(&small_bucket(&reader, "authRoles")[&b"r"[..]][..]).expect("a role");
    assert_eq!(role, Role { name: "r".into(), key_permission: vec![permission] });
    let users = small_bucket(&reader, "authUsers");
    let user = User::decode(&users[&b"u"[..]][..]).expect("a user");
    assert!(user.password.starts_with(b"$2a$") && user.password.len() == 60, "{user:?}");
    assert_eq!((&user.name[..], &user.roles[..]), (&b"u"[..], &["r".to_owned()][..]));
    let other = User::decode(&users[&b"cn"[..]][..]).expect("a user");
    assert!(other.options.is_some_and(|options| options.no_password) && other.roles.is_empty());
}
