//! Contract 7.2: several members, each made of the same snapshot by `kvist snapshot restore`, begin a cluster with its data.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use kvist::pb::etcdserverpb as pb;

use crate::cluster::api::PATIENCE;
use crate::cluster::{Api, Cluster, Member, Plan, READY_TIMEOUT, eventually};
use crate::support::{Server, is_foreign_server, tool};

const KEYS: usize = 500;

fn kvist() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_kvist"))
}

fn run(program: &Path, args: &[String]) -> String {
    let Output { status, stdout, stderr } = Command::new(program).args(args).output().expect("run a tool");
    assert!(status.success(), "{args:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("text")
}

/// A server with a history: keys that were put, replaced and removed, a compaction, a lease; its snapshot in a file.
async fn snapshot_of(server: &Server, file: PathBuf) -> PathBuf {
    let api = Api::new(&server.url(), PATIENCE);
    let lease = api.grant(9000).await.expect("grant");
    let put = pb::PutRequest { key: "leased".into(), value: "1".into(), lease, ..Default::default() };
    api.kv.clone().put(put).await.expect("put");
    let mut revision = 0;
    for n in 0..KEYS {
        revision = api.put(&format!("key-{}", n % 300), &n.to_string()).await.expect("put");
    }
    let delete = pb::DeleteRangeRequest { key: "key-7".into(), ..Default::default() };
    api.kv.clone().delete_range(delete).await.expect("delete");
    let compaction = pb::CompactionRequest { revision: revision - 100, physical: true };
    api.kv.clone().compact(compaction).await.expect("compact");
    let text = file.to_str().expect("a path of text");
    run(kvist(), &["snapshot", "save", text, "--endpoints", &server.endpoint()].map(str::to_owned));
    file
}

/// The flags of `snapshot restore` that say who a member is.
fn who(member: &Member) -> Vec<String> {
    let initial = member.flags.iter().filter(|flag| flag.starts_with("--initial-cluster"));
    let own = [
        format!("--name={}", member.name),
        format!("--initial-advertise-peer-urls={}", member.peer_url),
        format!("--data-dir={}", member.data_dir.display()),
    ];
    initial.cloned().chain(own).collect()
}

/// Makes the directory of a member; what the command says.
fn restore(program: &Path, file: &Path, flags: &[String]) -> String {
    let words = ["snapshot", "restore", file.to_str().expect("a path of text")].map(str::to_owned);
    run(program, &[&words[..], flags].concat())
}

fn dump_state(member: &Member) -> String {
    let dir = member.data_dir.display().to_string();
    run(kvist(), &["dump", "state", "--data-dir", &dir].map(str::to_owned))
}

/// The same state on all, before they start.
fn restore_all(cluster: &Cluster, file: &Path) {
    for member in &cluster.members {
        restore(kvist(), file, &who(member));
    }
    let states: Vec<String> = cluster.members.iter().map(dump_state).collect();
    assert!(states[0].lines().count() > 300, "{}", states[0]);
    assert!(states.iter().all(|state| *state == states[0]), "{states:#?}");
}

/// All that the snapshot had is on every member, new writes are, and the loss of the leader changes nothing about it.
async fn serves_what_was_saved(cluster: &mut Cluster, hash: (u32, i64)) {
    cluster.start_all();
    let leader = cluster.wait_ready().await;
    for index in 0..3 {
        let api = cluster.api(index);
        assert_eq!(api.members().await.expect("members").len(), 3);
        let found = api.hash_kv(hash.1).await.expect("hash");
        assert_eq!((found.hash, found.hash_revision), hash);
        assert_eq!(api.value("key-299").await.as_deref(), Some("299"));
        assert_eq!(api.value("key-7").await, None);
        let leased = api.get("leased", false).await.expect("get").expect("a pair");
        assert_eq!(api.time_to_live(leased.lease).await.expect("lease").granted_ttl, 9000);
    }
    assert_eq!(cluster.api(leader).put("later", "1").await.expect("put"), hash.1 + 1);
    cluster.same_hash(&[0, 1, 2]).await;
    cluster.members[leader].kill();
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    let api = cluster.api(next);
    assert_eq!(api.value("later").await.as_deref(), Some("1"));
    api.put("later", "2").await.expect("put");
    cluster.members[leader].start();
    cluster.serves(leader).await;
    assert_eq!(cluster.api(leader).value("later").await.as_deref(), Some("2"));
    cluster.same_hash(&[0, 1, 2]).await;
}

async fn hash_of(server: &Server) -> (u32, i64) {
    let hash = Api::new(&server.url(), PATIENCE).hash_kv(0).await.expect("hash");
    (hash.hash, hash.hash_revision)
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_begin_with_a_snapshot_of_kvist() {
    if is_foreign_server() {
        return;
    }
    let source = Server::start();
    let mut cluster = Cluster::prepare(Plan::of(3));
    let file = snapshot_of(&source, cluster.dir().join("snapshot.db")).await;
    restore_all(&cluster, &file);
    serves_what_was_saved(&mut cluster, hash_of(&source).await).await;
    // It is a cluster like any other: another one joins.
    let leader = cluster.leader().await;
    let (fourth, _) = cluster.add(leader, false).await;
    cluster.members[fourth].start();
    cluster.serves(fourth).await;
    cluster.same_hash(&[0, 1, 2, 3]).await;
}

/// The ids are those that etcdutl gives the same members.
#[tokio::test(flavor = "multi_thread")]
async fn three_members_begin_with_a_snapshot_of_etcd() {
    let skipped = "three_members_begin_with_a_snapshot_of_etcd";
    let (Some(etcd), Some(etcdutl)) = (tool("etcd", skipped), tool("etcdutl", skipped)) else {
        return;
    };
    if is_foreign_server() {
        return;
    }
    let mut cluster = Cluster::prepare(Plan::of(3));
    let source = Server::start_other(&etcd, &cluster.dir().join("etcd"));
    let file = snapshot_of(&source, cluster.dir().join("snapshot.db")).await;
    restore_all(&cluster, &file);
    let hash = hash_of(&source).await;
    serves_what_was_saved(&mut cluster, hash).await;
    let mut theirs = Cluster::prepare(Plan::of(0));
    for member in &cluster.members {
        let mut flags = who(member);
        flags.retain(|flag| !flag.starts_with("--data-dir"));
        flags.push(format!("--data-dir={}", theirs.dir().join(&member.name).display()));
        restore(&etcdutl, &file, &flags);
    }
    let ids = async |cluster: &Cluster| {
        let header = cluster.api(0).status().await.expect("status").header.expect("a header");
        let members = cluster.api(0).members().await.expect("members");
        let mut members: Vec<(String, u64)> = members.into_iter().map(|m| (m.name, m.id)).collect();
        members.sort();
        (header.cluster_id, members)
    };
    let expected = ids(&cluster).await;
    // etcd starts on the same addresses, so ours must be gone.
    cluster.members.iter_mut().for_each(Member::kill);
    let mut processes = Vec::new();
    for member in &cluster.members {
        let mut command = Command::new(&etcd);
        command.args(who(member).iter().filter(|flag| !flag.starts_with("--data-dir")));
        command.arg(format!("--data-dir={}", theirs.dir().join(&member.name).display()));
        command.arg(format!("--listen-peer-urls={}", member.peer_url));
        command.args([
            "--listen-client-urls",
            &member.client_url,
            "--advertise-client-urls",
            &member.client_url,
        ]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        processes.push(KillOnDrop(command.spawn().expect("start etcd")));
    }
    theirs.members.append(&mut cluster.members);
    theirs.leader_of(&[0, 1, 2]).await;
    assert_eq!(ids(&theirs).await, expected);
    let found = theirs.api(0).hash_kv(hash.1).await.expect("hash");
    assert_eq!((found.hash, found.hash_revision), hash);
}

struct KillOnDrop(std::process::Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until one of the members has logged a text.
async fn logs(members: &[&Member], text: &str) {
    eventually(text, READY_TIMEOUT, || async {
        members.iter().any(|member| member.log_text().contains(text)).then_some(())
    })
    .await;
}

/// Whoever was restored with another token, from another snapshot or with another revision is refused by the others, and takes
/// part once it was restored as they were.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_restored_otherwise_is_refused() {
    if is_foreign_server() {
        return;
    }
    let source = Server::start();
    let mut cluster = Cluster::prepare(Plan::of(3));
    let file = snapshot_of(&source, cluster.dir().join("snapshot.db")).await;
    let api = Api::new(&source.url(), PATIENCE);
    api.put("key-1", "newer").await.expect("put");
    let newer = cluster.dir().join("newer.db");
    let text = newer.to_str().expect("a path of text");
    run(kvist(), &["snapshot", "save", text, "--endpoints", &source.endpoint()].map(str::to_owned));
    for member in &cluster.members[..2] {
        restore(kvist(), &file, &who(member));
    }
    cluster.members[0].start();
    cluster.members[1].start();
    cluster.leader_of(&[0, 1]).await;
    let token = who(&cluster.members[2]).into_iter().map(|flag| flag.replace(crate::cluster::TOKEN, "other"));
    let token: Vec<String> = token.collect();
    let bumped = ["--bump-revision=1000", "--mark-compacted"].map(str::to_owned);
    let bumped = [&who(&cluster.members[2])[..], &bumped].concat();
    let same = who(&cluster.members[2]);
    for (file, flags, refusal) in [
        (&file, token, "cluster ID mismatch"),
        (&newer, same.clone(), "snapshot mismatch"),
        (&file, bumped, "snapshot mismatch"),
    ] {
        let third = &mut cluster.members[2];
        let _ = std::fs::remove_dir_all(&third.data_dir);
        for log in cluster.members.iter().map(|member| &member.log) {
            let _ = std::fs::write(log, ""); // the members append to it
        }
        let third = &mut cluster.members[2];
        restore(kvist(), file, &flags);
        third.start();
        let members: Vec<&Member> = cluster.members.iter().collect();
        logs(&members[..2], refusal).await;
        logs(&members[2..], refusal).await;
        cluster.api(0).put("key-2", refusal).await.expect("put");
        for n in 0..50 {
            cluster.api(n % 2).put("key-3", &n.to_string()).await.expect("put");
        }
        let api = cluster.api(2);
        let status = tokio::time::timeout(Duration::from_secs(1), api.status()).await;
        assert!(!matches!(status, Ok(Ok(status)) if status.leader != 0), "it must not follow");
        cluster.leader_of(&[0, 1]).await;
        cluster.members[2].kill();
    }
    // Nor may one take part that begins with nothing.
    let third = &mut cluster.members[2];
    let _ = std::fs::remove_dir_all(&third.data_dir);
    let _ = std::fs::write(&third.log, "");
    third.start();
    let members: Vec<&Member> = cluster.members.iter().collect();
    logs(&members[2..], "snapshot mismatch").await;
    cluster.members[2].kill();
    let _ = std::fs::remove_dir_all(&cluster.members[2].data_dir);
    restore(kvist(), &file, &same);
    cluster.members[2].start();
    cluster.serves(2).await;
    assert_eq!(cluster.api(2).value("key-2").await.as_deref(), Some("snapshot mismatch"));
    cluster.same_hash(&[0, 1, 2]).await;
}
