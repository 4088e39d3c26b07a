//! Moving in: data directories made of etcd's snapshots and of what a stopped etcd left, and a server started on them,
//! which must show the same keys, history, leases, alarms, users and hashes. Needs `make tools`; without them a test
//! says what it skips.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kvist::pb::etcdserverpb as pb;
use pb::alarm_request::AlarmAction;
use sha2::{Digest, Sha256};

use crate::backup_out::{assert_same, events, pairs, path, run, write_history};
use crate::snapshot::take_snapshot;
use crate::support::{Server, tool};
use crate::watch_client::{Clients, put_request};

fn kvist() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_kvist"))
}

/// Runs a subcommand that must fail, leaving nothing where its directory should be, and returns what it says.
fn refused(args: &[&str], target: &Path) -> String {
    let existed = target.exists();
    let Output { status, stderr, .. } = Command::new(kvist()).args(args).output().expect("run kvist");
    assert!(!status.success(), "{args:?} should be refused");
    assert_eq!(target.exists(), existed, "nothing is left behind");
    String::from_utf8_lossy(&stderr).trim_end().to_owned()
}

/// A snapshot of a server, in a file.
async fn save(clients: &Clients, file: PathBuf) -> PathBuf {
    let database = take_snapshot(&clients.maintenance).await;
    std::fs::write(&file, [&database[..], &Sha256::digest(&database)].concat()).expect("write");
    file
}

/// etcd → kvist in both ways, and from one of them → etcd: contract 7.2, 7.3.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_etcd_by_snapshot_and_by_migration_and_back() {
    let skipped = "from_etcd_by_snapshot_and_by_migration_and_back";
    let (Some(etcd), Some(etcdutl)) = (tool("etcd", skipped), tool("etcdutl", skipped)) else {
        return;
    };
    let temp = tempfile::tempdir().expect("temporary directory");
    let mut source = Server::start_other(&etcd, &temp.path().join("etcd"));
    let theirs = Clients::connect(&source).await;
    let compacted = write_history(&theirs).await;
    theirs.alarm(AlarmAction::Activate, 77, pb::AlarmType::Nospace).await;
    let snapshot = save(&theirs, temp.path().join("etcd.db")).await;
    for format in ["simple", "json", "fields", "table"] {
        let args = ["snapshot", "status", path(&snapshot), "-w", format];
        assert_eq!(run(kvist(), &args), run(&etcdutl, &args), "{format}");
    }
    // Its last writes are in the log only, as it is killed before it writes them to its database.
    theirs.alarm(AlarmAction::Deactivate, 77, pb::AlarmType::Nospace).await;
    let (restored, migrated) = (temp.path().join("restored"), temp.path().join("migrated"));
    theirs.try_put(put_request("last", "words", 0)).await.expect("put");
    source.kill();
    run(kvist(), &["migrate", "--data-dir", path(source.data_dir()), "--to", path(&migrated)]);
    run(kvist(), &["snapshot", "restore", path(&snapshot), "--data-dir", path(&restored)]);
    source.restart();

    let theirs = Clients::connect(&source).await;
    let migrated = Server::start_other(kvist(), &migrated);
    let ours = Clients::connect(&migrated).await;
    assert_same(&theirs, &ours, compacted).await;
    let ids = |clients: &Clients| {
        let mut cluster = clients.maintenance.clone();
        async move {
            let status = cluster.status(pb::StatusRequest {}).await.expect("status").into_inner();
            let header = status.header.expect("header");
            (header.cluster_id, header.member_id, status.raft_term >= 2 && status.raft_index > 0)
        }
    };
    assert_eq!(ids(&ours).await, ids(&theirs).await);
    drop((ours, migrated));

    // The snapshot is older by one write and an alarm.
    let restored = Server::start_other(kvist(), &restored);
    let ours = Clients::connect(&restored).await;
    let alarms = ours.alarm(AlarmAction::Get, 0, pb::AlarmType::None).await.alarms;
    assert_eq!(alarms, [pb::AlarmMember { member_id: 77, alarm: pb::AlarmType::Nospace as i32 }]);
    ours.alarm(AlarmAction::Deactivate, 77, pb::AlarmType::Nospace).await;
    ours.try_put(put_request("last", "words", 0)).await.expect("put");
    assert_same(&theirs, &ours, compacted).await;

    let back = save(&ours, temp.path().join("back.db")).await;
    let dir = temp.path().join("back");
    run(&etcdutl, &["snapshot", "restore", path(&back), "--data-dir", path(&dir)]);
    let back = Server::start_other(&etcd, &dir);
    assert_same(&theirs, &Clients::connect(&back).await, compacted).await;
}

/// kvist → etcd → kvist.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_etcd_and_back() {
    let skipped = "to_etcd_and_back";
    let (Some(etcd), Some(etcdutl)) = (tool("etcd", skipped), tool("etcdutl", skipped)) else {
        return;
    };
    let temp = tempfile::tempdir().expect("temporary directory");
    let first = Server::start_other(kvist(), &temp.path().join("first"));
    let ours = Clients::connect(&first).await;
    let compacted = write_history(&ours).await;
    let snapshot = save(&ours, temp.path().join("first.db")).await;
    assert_eq!(
        run(kvist(), &["snapshot", "status", path(&snapshot)]),
        run(&etcdutl, &["snapshot", "status", path(&snapshot)])
    );
    let dir = temp.path().join("etcd");
    run(&etcdutl, &["snapshot", "restore", path(&snapshot), "--data-dir", path(&dir)]);
    let other = Server::start_other(&etcd, &dir);
    let snapshot = save(&Clients::connect(&other).await, temp.path().join("etcd.db")).await;
    drop(other);
    let dir = temp.path().join("second");
    run(kvist(), &["snapshot", "restore", path(&snapshot), "--data-dir", path(&dir)]);
    let second = Server::start_other(kvist(), &dir);
    assert_same(&ours, &Clients::connect(&second).await, compacted).await;
}

/// Users come along with their passwords, from the database and from the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_log_in_as_before() {
    let skipped = "users_log_in_as_before";
    let (Some(etcd), Some(etcdctl)) = (tool("etcd", skipped), tool("etcdctl", skipped)) else {
        return;
    };
    let temp = tempfile::tempdir().expect("temporary directory");
    let mut source = Server::start_other(&etcd, &temp.path().join("etcd"));
    let ctl = |server: &Server, words: &str| {
        let endpoints = format!("--endpoints={}", server.endpoint());
        let args = std::iter::once(&endpoints[..]).chain(words.split(' '));
        let output = Command::new(&etcdctl).args(args).output().expect("run etcdctl");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).trim_end().replace('\n', " "))
    };
    let done = |server: &Server, words: &str| {
        let (is_ok, text) = ctl(server, words);
        assert!(is_ok, "{words}: {text}");
        text
    };
    for words in [
        "user add root:secret",
        "user add cn --no-password",
        "user add alice:wonderland",
        "role add reader",
        "role grant-permission reader read a --prefix",
        "user grant-role alice reader",
        "user grant-role root root",
        "put abc 1",
        "auth enable",
    ] {
        done(&source, words);
    }
    let (snapshot, endpoints) = (temp.path().join("etcd.db"), format!("--endpoints={}", source.endpoint()));
    let save = ["snapshot", "save", path(&snapshot), &endpoints];
    let text = refused(&save, &snapshot);
    assert_eq!(text, "Error: etcdserver: user name is empty");
    let text = refused(&[&save[..], &["--user=alice:wonderland"]].concat(), &snapshot);
    assert_eq!(text, "Error: etcdserver: permission denied");
    let text = run(kvist(), &[&save[..], &["--user=root:secret"]].concat());
    assert_eq!(text, format!("Snapshot saved at {}\nServer version 3.7.0", snapshot.display()));
    for words in ["role grant-permission reader write z", "user passwd alice:x --interactive=false"] {
        let (_, _) = ctl(&source, &format!("--user=root:secret {words}"));
    }
    done(&source, "--user=root:secret role add late");
    source.kill();
    let (restored, migrated) = (temp.path().join("restored"), temp.path().join("migrated"));
    run(kvist(), &["snapshot", "restore", path(&snapshot), "--data-dir", path(&restored)]);
    run(kvist(), &["migrate", "--data-dir", path(source.data_dir()), "--to", path(&migrated)]);
    source.restart();
    for (dir, is_late) in [(restored, false), (migrated, true)] {
        let server = Server::start_other(kvist(), &dir);
        for words in [
            "--user=alice:wonderland get abc",
            "--user=alice:wonderland get b",
            "--user=alice:wonderland put abc 2",
            "--user=alice:wrong get abc",
            "get abc",
            "--user=root:secret get abc",
            "--user=root:secret user list",
            "--user=root:secret user get alice",
        ] {
            assert_eq!(ctl(&server, words), ctl(&source, words), "{words}");
        }
        if is_late {
            for words in ["role list", "role get reader", "auth status"] {
                let words = format!("--user=root:secret {words}");
                assert_eq!(ctl(&server, &words), ctl(&source, &words), "{words}");
            }
        }
    }
}

/// What does not fit is refused in etcdutl's words, damage with what is wrong, and no directory appears.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_refused() {
    let skipped = "what_does_not_fit_is_refused";
    let Some(etcd) = tool("etcd", skipped) else { return };
    let temp = tempfile::tempdir().expect("temporary directory");
    let source = Server::start_other(&etcd, &temp.path().join("etcd"));
    let clients = Clients::connect(&source).await;
    for n in 0..200 {
        clients.put(format!("key {n}"), vec![n as u8; 300]).await;
    }
    let file = save(&clients, temp.path().join("good.db")).await;
    let good = std::fs::read(&file).expect("read");
    let target = temp.path().join("target");
    let bad = temp.path().join("bad.db");
    let restore = |bytes: &[u8], more: &[&str]| {
        std::fs::write(&bad, bytes).expect("write");
        let args = ["snapshot", "restore", path(&bad), "--data-dir", path(&target)];
        refused(&[&args[..], more].concat(), &target)
    };
    let database = &good[..good.len() - 32];
    let skip = "--skip-hash-check";
    assert_eq!(restore(database, &[]), "Error: snapshot missing hash but --skip-hash-check=false");
    let mut flipped = good.clone();
    flipped[9000] ^= 1;
    assert!(restore(&flipped, &[]).starts_with("Error: expected sha256 ["));
    let cut = restore(&good[..good.len() / 2 / 4096 * 4096], &[skip]);
    assert!(cut.contains("cut off"), "{cut}");
    let foreign = restore(&[7; 8192], &[skip]);
    assert!(foreign.contains("not a bbolt database"), "{foreign}");
    let mut damaged = database.to_vec();
    for page in (8192..damaged.len()).step_by(4096) {
        damaged[page] ^= 0x40; // every page says that it is another
    }
    let text = restore(&damaged, &[skip]);
    assert!(text.contains("damaged at page"), "{text}");
    let both = "Error: --mark-compacted required if --revision-bump > 0";
    assert_eq!(restore(&good, &["--bump-revision=10"]), both);
    assert_eq!(restore(&good, &["--mark-compacted"]), both);
    let name = restore(&good, &["--name=m2", "--initial-cluster=m1=http://localhost:2380"]);
    assert!(name.contains("couldn't find local name \"m2\" in the initial cluster configuration"), "{name}");
    let two = "--initial-cluster=m1=http://localhost:1,m2=http://localhost:2";
    let urls = restore(&good, &["--name=m2", two, "--initial-advertise-peer-urls=http://localhost:1"]);
    let expected = "--initial-cluster has m2=http://localhost:2 but missing from \
                    --initial-advertise-peer-urls=http://localhost:1";
    assert!(urls.contains(expected), "{urls}");

    std::fs::create_dir_all(target.join("something")).expect("create");
    let text = restore(&good, &[]);
    assert!(text.ends_with("not empty or could not be read"), "{text}");
    let new = temp.path().join("new");
    let text = refused(&["migrate", "--data-dir", path(source.data_dir()), "--to", path(&new)], &new);
    assert!(text.contains("is in use by another process: stop etcd first"), "{text}");
    // A server does not take etcd's directory for its own, and says what to do.
    let started = Command::new(kvist()).args(["--data-dir", path(source.data_dir())]).output().expect("run");
    let log = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(!started.status.success() && log.contains("kvist migrate --data-dir"), "{log}");
}

/// `--bump-revision` moves the revision on and makes everything before compacted, as etcdutl does it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bumped_revision_is_what_etcdutl_makes_it() {
    let skipped = "a_bumped_revision_is_what_etcdutl_makes_it";
    let (Some(etcd), Some(etcdutl)) = (tool("etcd", skipped), tool("etcdutl", skipped)) else {
        return;
    };
    let temp = tempfile::tempdir().expect("temporary directory");
    let source = Server::start_other(&etcd, &temp.path().join("etcd"));
    let clients = Clients::connect(&source).await;
    for n in 0..50 {
        clients.put(format!("key {}", n % 20), format!("{n}")).await;
    }
    clients.delete("key 3").await;
    let file = save(&clients, temp.path().join("snapshot.db")).await;
    let mut servers = Vec::new();
    for (tool, server, name) in [(kvist(), kvist(), "ours"), (&etcdutl, &etcd, "theirs")] {
        let dir = temp.path().join(name);
        let flags = ["--bump-revision", "1000000", "--mark-compacted", "--data-dir", path(&dir)];
        run(tool, &[&["snapshot", "restore", path(&file)], &flags[..]].concat());
        servers.push(Server::start_other(server, &dir));
    }
    let (ours, theirs) = (Clients::connect(&servers[0]).await, Clients::connect(&servers[1]).await);
    assert_eq!(ours.revision().await, 1_000_052);
    for clients in [&ours, &theirs] {
        for n in 0..10 {
            clients.put(format!("key {n}"), "after").await;
        }
    }
    // Not the hash: etcd takes the mark that moves its revision on for a key without a name, and hashes that, too.
    let current = theirs.revision().await;
    assert_eq!(ours.revision().await, current);
    for revision in [1_000_052, 1_000_053, current] {
        assert_eq!(pairs(&ours, revision).await, pairs(&theirs, revision).await, "at {revision}");
    }
    let from = 1_000_052;
    assert!(events(&ours, from, current).await == events(&theirs, from, current).await);
    let mut stream = ours.watch_stream();
    let from = pb::WatchCreateRequest { key: b"key 1".to_vec(), start_revision: 20, ..Default::default() };
    stream.create(from).await;
    let canceled = stream.next().await;
    assert_eq!((canceled.canceled, canceled.compact_revision), (true, 1_000_052));
}
