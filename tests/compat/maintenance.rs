//! Maintenance, contract 1.11 on one member: Status, Alarm, Defragment, Hash, HashKV, and their headers (contract 3).

use std::collections::BTreeMap;

use kvist::pb::etcdserverpb as pb;
use kvist::pb::mvccpb::KeyValue;
use pb::alarm_request::AlarmAction;
use prost::Message;
use tonic::{Code, Response, Status};

use crate::support::Server;
use crate::watch_client::{Clients, assert_refused, delete_op, put_op, put_request};

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";
const CORRUPT: &str = "etcdserver: corrupt cluster";

fn assert_header(header: Option<&pb::ResponseHeader>, revision: i64) {
    let header = header.expect("header");
    assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term != 0, "{header:?}");
    assert_eq!(header.revision, revision);
}

impl Clients {
    pub async fn alarm(
        &self,
        action: AlarmAction,
        member_id: u64,
        alarm: pb::AlarmType,
    ) -> pb::AlarmResponse {
        let request = pb::AlarmRequest { action: action as i32, member_id, alarm: alarm as i32 };
        self.maintenance.clone().alarm(request).await.expect("alarm").into_inner()
    }

    pub async fn hash_kv(&self, revision: i64) -> Result<pb::HashKvResponse, Status> {
        self.maintenance.clone().hash_kv(pb::HashKvRequest { revision }).await.map(Response::into_inner)
    }
}

/// X-1, trap 5: the version is three plain numbers, and one for which kube-apiserver enables progress requests.
#[tokio::test]
async fn x_1_version() {
    let server = Server::start();
    let version = Clients::connect(&server).await.status().await.version;
    let numbers: Vec<u32> = version.split('.').map(|n| n.parse().expect("a number")).collect();
    assert_eq!(numbers.len(), 3, "{version}");
    assert!(numbers >= vec![3, 5, 13], "{version}");
}

/// X-2, contract 3 (Status): every field, before and after writes.
#[tokio::test]
async fn x_2_status_fields() {
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    let before = clients.status().await;
    assert_header(before.header.as_ref(), 1);
    for i in 0..50 {
        clients.put("a", i.to_string()).await;
    }
    let after = clients.status().await;
    assert_header(after.header.as_ref(), 51);
    let header = after.header.as_ref().expect("header");
    assert_eq!((after.leader, after.raft_term), (header.member_id, header.raft_term));
    assert!(after.raft_index >= before.raft_index + 50, "{before:?} {after:?}");
    assert!(
        after.raft_applied_index <= after.raft_index && after.raft_applied_index >= before.raft_index + 50
    );
    assert!(
        after.db_size > 0 && after.db_size_in_use > 0 && after.db_size_in_use <= after.db_size,
        "{after:?}"
    );
    assert_eq!((after.db_size_quota, after.storage_version.as_str()), (2_147_483_648, "3.7.0"));
    let downgrade = after.downgrade_info.as_ref().expect("downgrade info");
    assert!(!downgrade.enabled && downgrade.target_version.is_empty());
    assert!(after.errors.is_empty() && !after.is_learner);
    assert!(after.version.starts_with("3.7."), "{}", after.version);
}

/// the quota in Status is the one of the flag.
#[tokio::test]
async fn x_2_status_shows_the_quota() {
    let server = Server::start_with(&["--quota-backend-bytes=123456789"]);
    assert_eq!(Clients::connect(&server).await.status().await.db_size_quota, 123_456_789);
}

/// Trap "ETag-like cluster_id": ids are the same after a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contract_9_ids_are_stable_across_restart() {
    let mut server = Server::start();
    let before = Clients::connect(&server).await.status().await;
    tokio::task::block_in_place(|| {
        server.kill();
        server.restart();
    });
    let after = Clients::connect(&server).await.status().await;
    let ids = |s: &pb::StatusResponse| s.header.as_ref().map(|h| (h.cluster_id, h.member_id));
    assert_eq!(ids(&before), ids(&after));
    assert!(after.raft_term >= before.raft_term && after.raft_index >= before.raft_index);
}

/// X-3, contract 3 (Alarm): activate, get, deactivate; survives a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x_3_alarms() {
    use pb::AlarmType::{Corrupt, None, Nospace};
    let mut server = Server::start();
    let clients = Clients::connect(&server).await;
    let status = clients.status().await;
    let me = status.header.expect("header").member_id;
    let listed = |r: &pb::AlarmResponse| r.alarms.iter().map(|a| (a.member_id, a.alarm)).collect::<Vec<_>>();
    let empty = clients.alarm(AlarmAction::Get, 0, None).await;
    assert_header(empty.header.as_ref(), 1);
    assert!(empty.alarms.is_empty());
    assert!(
        clients.alarm(AlarmAction::Activate, me, None).await.alarms.is_empty(),
        "ACTIVATE NONE does nothing"
    );
    assert!(clients.alarm(AlarmAction::Get, 0, None).await.alarms.is_empty());
    assert!(clients.alarm(AlarmAction::Deactivate, me, Nospace).await.alarms.is_empty());

    let nospace = (me, Nospace as i32);
    assert_eq!(listed(&clients.alarm(AlarmAction::Activate, me, Nospace).await), [nospace]);
    assert_eq!(
        listed(&clients.alarm(AlarmAction::Activate, me, Nospace).await),
        [nospace],
        "twice is the same"
    );
    let foreign = (42, Nospace as i32);
    assert_eq!(listed(&clients.alarm(AlarmAction::Activate, 42, Nospace).await), [foreign], "any member id");
    assert_eq!(clients.alarm(AlarmAction::Get, 0, None).await.alarms.len(), 2);
    assert_eq!(clients.alarm(AlarmAction::Get, 0, Nospace).await.alarms.len(), 2);
    assert!(clients.alarm(AlarmAction::Get, 0, Corrupt).await.alarms.is_empty());
    let errors = clients.status().await.errors;
    assert_eq!(errors.len(), 2, "{errors:?}");

    assert!(clients.alarm(AlarmAction::Deactivate, 43, Nospace).await.alarms.is_empty());
    assert!(clients.alarm(AlarmAction::Deactivate, me, Corrupt).await.alarms.is_empty());
    assert_eq!(listed(&clients.alarm(AlarmAction::Deactivate, 42, Nospace).await), [foreign]);
    tokio::task::block_in_place(|| {
        server.kill();
        server.restart();
    });
    let clients = Clients::connect(&server).await;
    assert_eq!(listed(&clients.alarm(AlarmAction::Get, 0, None).await), [nospace], "alarms are persistent");
    clients.try_put(put_request("a", "", 0)).await.expect_err("the alarm still refuses writes");
    assert_eq!(listed(&clients.alarm(AlarmAction::Deactivate, me, Nospace).await), [nospace]);
    clients.put("a", "").await;
}

/// X-2 (errors), contract 11.3: the text of an alarm in Status names member and type. Go varies the space between them.
#[tokio::test]
async fn x_2_alarm_text_in_status() {
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    let me = clients.status().await.header.expect("header").member_id;
    clients.alarm(AlarmAction::Activate, me, pb::AlarmType::Nospace).await;
    let errors = clients.status().await.errors;
    let words: Vec<_> = errors.iter().flat_map(|e| e.split_whitespace()).collect();
    assert_eq!(words, [format!("memberID:{me}").as_str(), "alarm:NOSPACE"]);
}

/// X-2 (errors): the alarm of no member in particular has no member in its text. X-3: types that do not exist.
#[tokio::test]
async fn x_2_x_3_alarm_of_no_member() {
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    clients.alarm(AlarmAction::Activate, 0, pb::AlarmType::Nospace).await;
    assert_eq!(clients.status().await.errors, ["alarm:NOSPACE"]);
    let request = pb::AlarmRequest { action: AlarmAction::Get as i32, member_id: 0, alarm: 7 };
    let unknown = clients.maintenance.clone().alarm(request).await.expect("alarm").into_inner();
    assert!(unknown.alarms.is_empty());
    assert_eq!(clients.alarm(AlarmAction::Deactivate, 0, pb::AlarmType::Nospace).await.alarms.len(), 1);
    assert!(clients.status().await.errors.is_empty());
}

/// the check at the start and the one now and then; alone, they find nothing to complain of.
#[tokio::test(flavor = "multi_thread")]
async fn x_11_corruption_checks() {
    let mut server =
        Server::start_with(&["--feature-gates=InitialCorruptCheck=true", "--corrupt-check-time=100ms"]);
    let clients = Clients::connect(&server).await;
    clients.put("a", "").await;
    let has_checked =
        |server: &Server| server.log_lines().iter().any(|l| l.contains("initial corruption check"));
    assert!(!has_checked(&server), "a new member has nothing to check");
    tokio::task::block_in_place(|| {
        server.kill();
        server.restart();
    });
    let clients = Clients::connect(&server).await;
    let logged = |text: &str| server.log_lines().iter().any(|line| line.contains(text));
    assert!(logged("starting initial corruption check"));
    assert!(logged("initial corruption checking passed; no corruption"));
    let checked = async {
        while !logged("finished peer corruption check") {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), checked).await.expect("a check in time");
    assert!(logged("enabled corruption checking"));
    assert!(clients.status().await.errors.is_empty());
    clients.put("a", "").await;
}

/// this member is the only one that leadership can be moved to.
#[tokio::test]
async fn x_9_move_leader() {
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    let me = clients.status().await.leader;
    let to =
        async |target_id| clients.maintenance.clone().move_leader(pb::MoveLeaderRequest { target_id }).await;
    assert_eq!(to(me).await.expect("move leader").into_inner().header, None);
    for unknown in [0, 4711] {
        let refused = to(unknown).await;
        assert_refused(refused, Code::FailedPrecondition, "etcdserver: bad leader transferee");
    }
}

/// checks, what they answer, and that an announced downgrade is seen, follows the rules and survives a crash.
#[tokio::test(flavor = "multi_thread")]
async fn x_10_downgrade() {
    use pb::downgrade_request::DowngradeAction::{Cancel, Enable, Validate};
    let mut server = Server::start();
    let mut clients = Clients::connect(&server).await;
    let call = |clients: &Clients, action: i32, version: &str| {
        let request = pb::DowngradeRequest { action, version: version.into() };
        let mut maintenance = clients.maintenance.clone();
        async move { maintenance.downgrade(request).await.map(Response::into_inner) }
    };
    for (version, text) in [
        ("x", "etcdserver: wrong downgrade target version format"),
        ("3", "etcdserver: wrong downgrade target version format"),
        ("3.7", "etcdserver: invalid downgrade target version"),
        ("3.5.0", "etcdserver: invalid downgrade target version"),
    ] {
        for action in [Validate, Enable] {
            assert_refused(call(&clients, action as i32, version).await, Code::InvalidArgument, text);
        }
    }
    assert_refused(call(&clients, 7, "3.6").await, Code::Unknown, "etcdserver: unknown method");
    for (action, version) in [(Validate, "3.6"), (Validate, "3.6.11"), (Cancel, ""), (Enable, "3.6.1")] {
        let answer = call(&clients, action as i32, version).await.expect("downgrade");
        assert_header(answer.header.as_ref(), 1);
        assert_eq!(answer.version, "3.7");
    }
    let info = clients.status().await.downgrade_info.expect("downgrade info");
    assert_eq!((info.enabled, info.target_version.as_str()), (true, "3.6.0"));
    let version = async |clients: &Clients, expected: &str| {
        while clients.status().await.storage_version != expected {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let patience = std::time::Duration::from_secs(30);
    tokio::time::timeout(patience, version(&clients, "3.6.0")).await.expect("the data become those of 3.6");
    for (target, code, text) in [
        ("3.6", Code::InvalidArgument, "etcdserver: invalid downgrade target version"),
        ("3.5", Code::FailedPrecondition, "etcdserver: cluster has a downgrade job in progress"),
    ] {
        assert_refused(call(&clients, Enable as i32, target).await, code, text);
    }
    tokio::task::block_in_place(|| {
        server.kill();
        server.restart();
    });
    clients = Clients::connect(&server).await;
    let status = clients.status().await;
    assert_eq!(status.storage_version, "3.6.0");
    assert_eq!(status.downgrade_info.expect("downgrade info").target_version, "3.6.0");
    assert_eq!(call(&clients, Cancel as i32, "").await.expect("cancel").version, "3.6");
    let info = clients.status().await.downgrade_info.expect("downgrade info");
    assert_eq!((info.enabled, info.target_version.as_str()), (false, ""));
    tokio::time::timeout(patience, version(&clients, "3.7.0")).await.expect("the data become those of 3.7");
}

/// the CORRUPT alarm refuses what goes through the log; reading and disarming work.
#[tokio::test]
async fn x_4_corrupt_alarm() {
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    let lease = clients.grant(60).await;
    clients.put("a", "1").await;
    let me = clients.status().await.header.expect("header").member_id;
    clients.alarm(AlarmAction::Activate, me, pb::AlarmType::Corrupt).await;

    assert_refused(clients.try_put(put_request("a", "2", 0)).await, Code::DataLoss, CORRUPT);
    assert_refused(clients.try_delete("a", "").await, Code::DataLoss, CORRUPT);
    assert_refused(clients.try_txn(vec![put_op("a", "2")]).await, Code::DataLoss, CORRUPT);
    assert_refused(clients.try_txn(vec![delete_op("a")]).await, Code::DataLoss, CORRUPT);
    assert_refused(clients.try_grant(60, 0).await, Code::DataLoss, CORRUPT);
    assert_refused(clients.try_revoke(lease).await, Code::DataLoss, CORRUPT);
    let compaction = pb::CompactionRequest { revision: 2, physical: false };
    assert_refused(clients.kv.clone().compact(compaction).await, Code::DataLoss, CORRUPT);
    assert_eq!(clients.range("a", "").await.count, 1, "reads do not go through the log");

    clients.alarm(AlarmAction::Deactivate, me, pb::AlarmType::Corrupt).await;
    assert_eq!(clients.put("a", "2").await, 3);
}

/// when there is no room for a copy, the caller hears of it, and the server goes on as before.
#[tokio::test]
async fn x_5_failed_defragment_changes_nothing() {
    if crate::support::is_foreign_server() {
        return; // the obstacle is one for kvist
    }
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    clients.put("a", "1").await;
    // Where the copy would be made stands something that is no directory.
    let obstacle = server.data_dir().join("member/state.tmp");
    std::fs::write(&obstacle, b"").expect("write the obstacle");
    let defragment = || async { clients.maintenance.clone().defragment(pb::DefragmentRequest {}).await };
    defragment().await.expect_err("no copy can be made");
    clients.put("a", "2").await;
    std::fs::remove_file(&obstacle).expect("remove the obstacle");
    defragment().await.expect("defragment");
    assert_eq!(clients.range("a", "").await.kvs[0].value, b"2");
}

/// X-5, contract 3 (Defragment): no header in the answer, the file shrinks, and writes that go on meanwhile are kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x_5_defragment_under_load() {
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    for i in 0..30 {
        clients.put(format!("big{i}"), vec![b'v'; 1 << 20]).await;
    }
    clients.try_delete("big", "bih").await.expect("delete");
    clients.compact(clients.revision().await).await;
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let writer = clients.clone();
    let writes = tokio::spawn(async move {
        let mut count = 0;
        while stopped.try_recv().is_err() {
            writer.put(format!("k{count}"), "v").await;
            count += 1;
        }
        count
    });
    let before = clients.status().await.db_size;
    for _ in 0..3 {
        let response =
            clients.maintenance.clone().defragment(pb::DefragmentRequest {}).await.expect("defragment");
        assert_eq!(response.into_inner().header, None);
    }
    let after = clients.status().await.db_size;
    stop.send(()).expect("the writer listens");
    let count: i64 = writes.await.expect("no write fails during defragment");
    assert!(after < before / 2, "{before} bytes before, {after} after");
    assert_eq!(clients.range("k", "l").await.count, count);
    assert_eq!(clients.range("big", "bih").await.count, 0);
}

/// X-6, contract 3 (Hash): a hash of the whole state that changes with it.
#[tokio::test]
async fn x_6_hash() {
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    let hash = async || {
        let response = clients.maintenance.clone().hash(pb::HashRequest {}).await.expect("hash").into_inner();
        assert_header(response.header.as_ref(), clients.revision().await);
        response.hash
    };
    clients.put("a", "1").await;
    let first = hash().await;
    clients.put("a", "2").await;
    assert_ne!(hash().await, first);
}

/// One stored revision: (main, sub), tombstone, pair.
type Stored = ((i64, i64), bool, KeyValue);

/// The hash that etcd computes over the revisions up to `revision` with history compacted at `compacted`.
fn expected_hash(history: &[Stored], revision: i64, compacted: i64) -> u32 {
    // Below the bound only what a compaction at `revision` (not at `compacted`) would keep counts: the latest of each
    // key unless that is a tombstone. A tombstone at the bound itself never counts.
    let mut latest = BTreeMap::new();
    for (index, ((main, _), _, kv)) in history.iter().enumerate() {
        if *main <= revision {
            latest.insert(kv.key.clone(), index);
        }
    }
    let mut hash = crc32c::crc32c(b"key");
    for (index, ((main, sub), tombstone, kv)) in history.iter().enumerate() {
        let dropped = *main <= compacted && (*tombstone || latest.get(&kv.key) != Some(&index));
        if *main > revision || dropped {
            continue;
        }
        let mut key = [main.to_be_bytes().as_slice(), b"_", &sub.to_be_bytes()].concat();
        if *tombstone {
            key.push(b't');
        }
        hash = crc32c::crc32c_append(hash, &key);
        hash = crc32c::crc32c_append(hash, &kv.encode_to_vec());
    }
    hash
}

/// A little history with updates, deletes, new generations, a lease and transactions, recorded as etcd stores it.
async fn write_history(clients: &Clients) -> Vec<Stored> {
    let lease = clients.grant(600).await;
    let pair = |key: &str, create, revision, version, value: &str, lease| KeyValue {
        key: key.into(),
        create_revision: create,
        mod_revision: revision,
        version,
        value: value.into(),
        lease,
    };
    let tombstone = |key: &str| KeyValue { key: key.into(), ..Default::default() };
    clients.put("a", "1").await;
    clients.put_leased("b", "1", lease).await;
    clients.put("a", "2").await;
    clients.delete("a").await;
    clients.txn(vec![put_op("a", "3"), put_op("c", ""), delete_op("b")]).await;
    clients.put("a", "4").await;
    clients.delete("c").await;
    vec![
        ((2, 0), false, pair("a", 2, 2, 1, "1", 0)),
        ((3, 0), false, pair("b", 3, 3, 1, "1", lease)),
        ((4, 0), false, pair("a", 2, 4, 2, "2", 0)),
        ((5, 0), true, tombstone("a")),
        ((6, 0), false, pair("a", 6, 6, 1, "3", 0)),
        ((6, 1), false, pair("c", 6, 6, 1, "", 0)),
        ((6, 2), true, tombstone("b")),
        ((7, 0), false, pair("a", 6, 7, 2, "4", 0)),
        ((8, 0), true, tombstone("c")),
    ]
}

/// X-7, contract 3 (HashKV): the value itself, for every revision, before and after compactions, and after a restart.
/// At exactly the compacted revision etcd may answer from its cache with the hash made just before that compaction [Q].
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x_7_hash_kv() {
    let mut server = Server::start();
    let mut clients = Clients::connect(&server).await;
    let history = write_history(&clients).await;
    assert_refused(clients.hash_kv(9).await, Code::OutOfRange, FUTURE);
    for (previous, compacted) in [(-1, -1), (-1, 3), (3, 5), (5, 6), (6, 8)] {
        if compacted > 0 {
            clients.compact(compacted).await;
            assert_refused(clients.hash_kv(compacted - 1).await, Code::OutOfRange, COMPACTED);
        }
        for revision in compacted.max(1)..=8 {
            let response = clients.hash_kv(revision).await.expect("hash");
            assert_header(response.header.as_ref(), 8);
            assert_eq!(response.hash_revision, revision);
            let bound = response.compact_revision;
            assert!(bound == compacted || (bound == previous && revision == compacted), "{response:?}");
            let expected = expected_hash(&history, revision, bound);
            assert_eq!(response.hash, expected, "at {revision} with history from {bound}");
        }
        let current = clients.hash_kv(0).await.expect("hash");
        let bound = current.compact_revision;
        assert_eq!(
            (current.hash, current.hash_revision, bound),
            (expected_hash(&history, 8, bound), 8, compacted)
        );
        if compacted == 5 {
            tokio::task::block_in_place(|| {
                server.kill();
                server.restart();
            });
            clients = Clients::connect(&server).await;
        }
    }
}

/// when no key at all is there at the revision, etcd leaves out nothing of what the compaction kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x_7_hash_kv_without_any_key() {
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    clients.put("a", "1").await;
    clients.put("b", "1").await;
    clients.delete("b").await;
    clients.compact(4).await;
    let with_key = clients.hash_kv(0).await.expect("hash").hash;
    clients.delete("a").await;
    let a = KeyValue {
        key: "a".into(),
        create_revision: 2,
        mod_revision: 2,
        version: 1,
        value: "1".into(),
        ..Default::default()
    };
    let first = [&2i64.to_be_bytes()[..], b"_", &[0; 8], &a.encode_to_vec()].concat();
    let last = KeyValue { key: "a".into(), ..Default::default() };
    let last = [&5i64.to_be_bytes()[..], b"_", &[0; 8], b"t", &last.encode_to_vec()].concat();
    let old = crc32c::crc32c_append(crc32c::crc32c(b"key"), &first);
    let expected = crc32c::crc32c_append(old, &last);
    assert_eq!(with_key, old);
    assert_eq!(clients.hash_kv(0).await.expect("hash").hash, expected);
}
