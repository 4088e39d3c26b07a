//! Whole members: directories copied from a running server at an unsuitable moment, on which another server starts.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kvist::pb::etcdserverpb as pb;
use kvist::pb::mvccpb::KeyValue;
use kvist::storage::Env;
use kvist::storage::schema::{Table, meta};
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::maintenance_client::MaintenanceClient;
use tonic::transport::{Channel, Endpoint};

use crate::image::last_txn_id;
use crate::support::{Server, wait_until};

const PATIENCE: Duration = Duration::from_secs(30);
/// Copies taken until one falls between two flushes.
const COPIES_MAX: u32 = 10;

/// What a server tells of itself.
struct Told {
    revision: i64,
    pairs: Vec<KeyValue>,
    hash: u32,
    compacted: i64,
    leases: Vec<i64>,
}

impl Told {
    /// The same as `expected`; without printing it all.
    fn assert_is(&self, expected: &Told, when: &str) {
        assert_eq!(self.revision, expected.revision, "{when}");
        for (found, expected) in self.pairs.iter().zip(&expected.pairs) {
            assert_eq!(found, expected, "{when}");
        }
        assert_eq!(self.pairs.len(), expected.pairs.len(), "{when}");
        let rest = |told: &Told| (told.compacted, told.hash, told.leases.clone());
        assert_eq!(rest(self), rest(expected), "compacted revision, hash and leases {when}");
    }
}

struct Client {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
    /// Writes so far; no value is written twice.
    writes: u32,
}

impl Client {
    async fn connect(server: &Server) -> Client {
        let endpoint = Endpoint::from_shared(server.url()).expect("a URL").timeout(PATIENCE);
        let channel = endpoint.connect().await.expect("connect to the server");
        Client {
            kv: KvClient::new(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel),
            writes: 0,
        }
    }

    /// Writes of every kind; returns the last revision acknowledged.
    async fn write(&mut self, count: u32) -> i64 {
        let lease = self.lease.lease_grant(pb::LeaseGrantRequest { ttl: 3600, id: 0 }).await.expect("grant");
        let lease = lease.into_inner().id;
        let mut revision = 0;
        for n in 0..count {
            self.writes += 1;
            let key = format!("key-{:02}", self.writes % 37).into_bytes();
            let header = if n % 9 == 8 {
                let request = pb::DeleteRangeRequest { key, ..Default::default() };
                self.kv.delete_range(request).await.expect("delete").into_inner().header
            } else {
                let mut value = format!("{}.", self.writes).into_bytes();
                value.resize(if n % 10 == 3 { 5000 } else { 40 }, b'v');
                let lease = if n % 4 == 0 { lease } else { 0 };
                let request = pb::PutRequest { key, value, lease, ..Default::default() };
                self.kv.put(request).await.expect("put").into_inner().header
            };
            revision = header.expect("header").revision;
        }
        revision
    }

    async fn compact(&mut self, revision: i64) {
        let request = pb::CompactionRequest { revision, physical: false };
        self.kv.compact(request).await.expect("compact");
    }

    async fn told(&mut self) -> Told {
        let all = pb::RangeRequest { key: vec![0], range_end: vec![0], ..Default::default() };
        let all = self.kv.range(all).await.expect("range").into_inner();
        let hash =
            self.maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await.expect("hash").into_inner();
        let leases = self.lease.lease_leases(pb::LeaseLeasesRequest {}).await.expect("leases").into_inner();
        let mut leases: Vec<i64> = leases.leases.iter().map(|l| l.id).collect();
        leases.sort_unstable();
        Told {
            revision: all.header.expect("header").revision,
            pairs: all.kvs,
            hash: hash.hash,
            compacted: hash.compact_revision,
            leases,
        }
    }
}

/// The flush is done up to some entry, the log holds more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_running_member_replays_what_was_not_flushed() {
    let server = Server::start();
    let mut client = Client::connect(&server).await;
    for _ in 0..COPIES_MAX {
        let flushed = client.write(200).await;
        wait_for_flush(&server, flushed);
        let acknowledged = client.write(60).await;
        client.compact(flushed - 20).await;
        let copy = tempfile::tempdir().expect("temporary directory");
        copy_stopped(&server, copy.path());
        if flushed_revision(&state_dir(copy.path())) >= acknowledged {
            continue; // the next flush came before the copy
        }
        let told = client.told().await;
        assert_eq!(told.revision, acknowledged);
        check(copy.path(), &told).await;
        return;
    }
    panic!("every copy came after a flush of everything");
}

/// The last flushes did not survive, the log did: it is never purged so far that the flush before is not enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_state_and_a_new_log_make_the_new_state() {
    let server = Server::start();
    let mut client = Client::connect(&server).await;
    let first = client.write(150).await;
    wait_for_flush(&server, first);
    let old = tempfile::tempdir().expect("temporary directory");
    copy_stopped(&server, old.path());
    let second = client.write(150).await;
    client.compact(second - 30).await;
    wait_for_flush(&server, second);
    client.write(30).await;
    let new = tempfile::tempdir().expect("temporary directory");
    copy_stopped(&server, new.path());
    let (from, to) = (state_dir(old.path()), state_dir(new.path()));
    assert!(flushed_revision(&from) < flushed_revision(&to));
    std::fs::copy(from.join("data.mdb"), to.join("data.mdb")).expect("copy the state");
    let told = client.told().await;
    check(new.path(), &told).await;
}

/// Starts a server on the directory and compares what it tells; and again after a clean stop.
async fn check(data_dir: &Path, expected: &Told) {
    let mut server = tokio::task::block_in_place(|| Server::start_in(data_dir, &[]));
    Client::connect(&server).await.told().await.assert_is(expected, "after the replay");
    tokio::task::block_in_place(|| {
        assert_eq!(server.terminate().signal(), Some(15));
        server.restart();
    });
    let mut client = Client::connect(&server).await;
    client.told().await.assert_is(expected, "after a clean stop");
    assert_eq!(client.write(1).await, expected.revision + 1);
}

/// Waits until everything up to `revision` is in the state file.
fn wait_for_flush(server: &Server, revision: i64) {
    let file = state_dir(server.data_dir()).join("data.mdb");
    let mut seen = 0;
    let is_flushed = || {
        let last = last_txn_id(&std::fs::read(&file).expect("read the state"));
        if last == seen {
            return false;
        }
        seen = last;
        // Only its owner may open the file, so a copy is looked at.
        let copy = tempfile::tempdir().expect("temporary directory");
        while_stopped(server, || std::fs::copy(&file, copy.path().join("data.mdb")).expect("copy the state"));
        flushed_revision(copy.path()) >= revision
    };
    tokio::task::block_in_place(|| wait_until("the flush", PATIENCE, is_flushed));
}

/// Copies the data directory while the process stands still.
fn copy_stopped(server: &Server, to: &Path) {
    tokio::task::block_in_place(|| while_stopped(server, || copy_dir(server.data_dir(), to)));
}

/// Does something while the process stands still.
fn while_stopped<T>(server: &Server, act: impl FnOnce() -> T) -> T {
    let signal = |name: &str| {
        let status = Command::new("kill").args([name, &server.pid().to_string()]).status().expect("kill");
        assert!(status.success(), "kill {name} failed");
    };
    signal("-STOP");
    let stat = format!("/proc/{}/stat", server.pid());
    wait_until("the process to stand still", PATIENCE, || {
        std::fs::read_to_string(&stat).expect("process status").contains(") T ")
    });
    let done = act();
    signal("-CONT");
    done
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("create a directory");
    for entry in std::fs::read_dir(from).expect("read a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).expect("copy a file");
        }
    }
}

/// The directory of the state below a data directory; these servers never defragment.
fn state_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("member").join("state.1")
}

/// Revision of the last flush in the file of a directory that no server uses.
fn flushed_revision(dir: &Path) -> i64 {
    let env = Env::open(dir, 1 << 30).expect("an environment");
    let txn = env.read().expect("a read transaction");
    let revision = txn.get(Table::Meta, meta::REVISION).expect("read");
    revision.map_or(0, |bytes| i64::from_le_bytes(bytes.try_into().expect("eight bytes")))
}
