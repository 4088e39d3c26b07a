//! What operators ask a server, and the list of members.

use etcd_client::{AlarmAction, AlarmType, DowngradeOptions};

use crate::control::Server;
use crate::help::*;
use crate::suite::Case;

pub const CASES: &[Case] = &[
    crate::case!("maintenance/status", server_status, ["--quota-backend-bytes=1073741824"]),
    crate::case!("maintenance/alarms, and a full server", alarms, ["--quota-backend-bytes=268435456"]),
    crate::case!("maintenance/hashes", hashes),
    crate::case!("maintenance/defragment", defragment),
    crate::case!("maintenance/snapshot", snapshot),
    crate::case!("maintenance/members", members),
    crate::case!("maintenance/move the leader", move_leader),
    crate::case!("maintenance/downgrade", downgrade),
];

async fn server_status(server: Server) {
    let mut client = connect(&server).await;
    put(&mut client, &["a=1"]).await;
    let status = client.status().await.expect("status");
    let header = status.header().expect("a header");
    assert_eq!(status.version(), "3.7.1");
    assert_eq!((status.leader(), header.revision()), (header.member_id(), 2));
    assert!(status.db_size() > 0 && status.raft_used_db_size() > 0);
    assert!(status.raft_applied_index() > 0 && status.raft_applied_index() <= status.raft_index());
    assert!(status.raft_term() >= 1 && !status.is_learner() && status.errors().is_empty());
    assert_eq!(status.db_size_quota(), 1 << 30);
}

async fn alarms(server: Server) {
    let mut client = connect(&server).await;
    let member = client.status().await.expect("status").header().expect("a header").member_id();
    let get = client.alarm(AlarmAction::Get, AlarmType::None, None).await.expect("alarm");
    assert!(get.alarms().is_empty());
    put(&mut client, &["a=1"]).await;
    client.alarm(AlarmAction::Activate, AlarmType::Nospace, None).await.expect("alarm");
    let get = client.alarm(AlarmAction::Get, AlarmType::None, None).await.expect("alarm");
    let shown: Vec<_> = get.alarms().iter().map(|one| (one.member_id(), one.alarm())).collect();
    // Raised for member 0, since the request names none.
    assert_eq!(shown, [(0, AlarmType::Nospace)], "not of {member}");
    assert_eq!(
        refused(client.put("a", "2", None).await),
        status(RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")
    );
    assert_eq!(all(&mut client, "a").await, ["a=1"], "reading goes on");
    client.delete("a", None).await.expect("and so does deleting");
    client.alarm(AlarmAction::Deactivate, AlarmType::Nospace, None).await.expect("alarm");
    let get = client.alarm(AlarmAction::Get, AlarmType::None, None).await.expect("alarm");
    assert!(get.alarms().is_empty());
    put(&mut client, &["a=3"]).await;
}

async fn hashes(server: Server) {
    let mut client = connect(&server).await;
    put(&mut client, &["a=1", "a=2", "b=3"]).await;
    let now = client.hash_kv(0).await.expect("hash");
    assert_eq!((now.hash(), now.hash_revision()), (client.hash_kv(4).await.expect("hash").hash(), 4));
    assert_ne!(now.hash(), client.hash_kv(3).await.expect("hash").hash());
    assert_eq!(now.compact_version(), -1);
    assert_eq!(
        refused(client.hash_kv(5).await),
        status(OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision")
    );
    client.hash().await.expect("a hash of all");
    // The same history on another server has the same hash.
    let other = Server::start(&[]).await;
    let mut client = connect(&other).await;
    put(&mut client, &["a=1", "a=2", "b=3"]).await;
    assert_eq!(client.hash_kv(0).await.expect("hash").hash(), now.hash());
}

async fn defragment(server: Server) {
    let mut client = connect(&server).await;
    for n in 0..20 {
        client.put("a", vec![n; 100_000], None).await.expect("put");
    }
    client.compact(21, None).await.expect("compact");
    client.defragment().await.expect("defragment");
    assert_eq!(one(&mut client, "a").await.value(), vec![19; 100_000]);
}

/// etcd's database file, and behind it a SHA-256 of the file.
async fn snapshot(server: Server) {
    const PAGE: usize = 512; // bbolt's pages are multiples of this
    const SUM: usize = 32;
    let mut client = connect(&server).await;
    put(&mut client, &["a=1"]).await;
    let mut stream = client.snapshot().await.expect("snapshot");
    let (mut file, mut remaining) = (Vec::new(), u64::MAX);
    while let Some(part) = soon("a part", stream.message()).await.expect("a healthy stream") {
        assert!(part.remaining_bytes() <= remaining, "{} after {remaining}", part.remaining_bytes());
        assert_eq!(part.version(), "3.7.0", "of the storage");
        remaining = part.remaining_bytes();
        file.extend_from_slice(part.blob());
    }
    assert_eq!((remaining, file.len() % PAGE), (0, SUM));
    assert_eq!(file[16..20], 0xED0C_DAEDu32.to_le_bytes(), "bbolt's magic number");
}

async fn members(server: Server) {
    let mut client = connect(&server).await;
    let listed = client.member_list().await.expect("members");
    let own = listed.header().expect("a header").member_id();
    let [member] = listed.members() else { panic!("{listed:?}") };
    assert_eq!((member.id(), member.name(), member.is_learner()), (own, "default", false));
    assert_eq!(member.client_urls(), [server.endpoint.as_str()]);
    assert_eq!(member.peer_urls().len(), 1);
    assert_eq!(refused(client.member_remove(1).await), status(NOT_FOUND, "etcdserver: member not found"));
}

async fn move_leader(server: Server) {
    let mut client = connect(&server).await;
    let own = client.status().await.expect("status").leader();
    client.move_leader(own).await.expect("it leads already");
    assert_eq!(
        refused(client.move_leader(1).await),
        status(FAILED_PRECONDITION, "etcdserver: bad leader transferee")
    );
}

async fn downgrade(server: Server) {
    let client = connect(&server).await;
    let mut maintenance = client.maintenance_client();
    let answer = maintenance.downgrade(DowngradeOptions::Validate("3.2.0".to_owned())).await;
    assert_eq!(refused(answer), status(INVALID_ARGUMENT, "etcdserver: invalid downgrade target version"));
    let answer = maintenance.downgrade(DowngradeOptions::Validate("3.6.0".to_owned())).await;
    assert_eq!(answer.expect("one version down").version(), "3.7");
    let answer = maintenance.downgrade(DowngradeOptions::Cancel).await;
    assert_eq!(answer.expect("nothing to cancel").version(), "3.7");
}
