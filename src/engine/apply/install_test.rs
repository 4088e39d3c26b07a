//! A received state, put in place by the flush thread: what the applier knows then, tells, and stores.

use super::{Applier, Effects, LogPosition};
use crate::auth::Change;
use crate::auth::store::TokenChange;
use crate::engine::command::{Command, Put};
use crate::engine::entry::{Entry, Origin};
use crate::engine::flusher::{Flusher, Options};
use crate::engine::leases::LeaseKeeper;
use crate::lease::clock::Reading;
use crate::lease::table::{Lease, Leases};
use crate::mvcc::transfer_test::transfer;
use crate::mvcc::{Store, defrag};
use crate::storage::Env;
use bytes::Bytes;
use parking_lot::Mutex;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

struct Member {
    store: Arc<Store>,
    applier: Arc<Mutex<Applier>>,
    flusher: Flusher,
    dir: tempfile::TempDir,
}

impl Member {
    fn new(dir: tempfile::TempDir) -> Member {
        let env = Env::open(&defrag::current_dir(dir.path()).unwrap(), 1 << 30).unwrap();
        let store = Arc::new(Store::open(env).unwrap());
        let applier = Arc::new(Mutex::new(Applier::load(Arc::clone(&store)).unwrap()));
        let options = Options {
            dir: dir.path().to_owned(),
            quota: 1 << 30,
            interval: Duration::from_secs(3600),
            memtable_bytes_max: 1 << 20,
            compaction_batch: 1000,
            compaction_pause: Duration::from_millis(10),
        };
        let fatal = |error: &crate::mvcc::Error| panic!("{error}");
        let flusher = Flusher::start(Arc::clone(&store), Arc::clone(&applier), options, |_| {}, fatal);
        Member { store, applier, flusher: flusher.unwrap(), dir }
    }

    fn apply(&self, index: u64, command: Command) {
        let entry = Entry::new(Origin::Server, command, 1);
        let mut applier = self.applier.lock();
        applier.apply(LogPosition { term: 2, index }, &entry).unwrap().unwrap();
        applier.take_effects();
    }

    /// Gets the last flush of `leader`; returns what is told of it.
    fn install(&self, leader: &Member) -> Effects {
        let received = transfer(&leader.store, self.dir.path());
        wait(self.flusher.install(received)).unwrap();
        self.applier.lock().take_effects()
    }

    fn restart(self) -> Member {
        let Member { store, applier, flusher, dir } = self;
        flusher.stop();
        drop((store, applier, flusher)); // one process opens an environment once
        Member::new(dir)
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn put(key: &'static str, lease: i64) -> Command {
    let (key, value) = (Bytes::from_static(key.as_bytes()), Bytes::from_static(b"value"));
    Command::Put(Put { key, value, lease, prev_kv: false, ignore_value: false, ignore_lease: false })
}

/// A member that has applied six entries and flushed them.
fn leader() -> Member {
    let leader = Member::new(tempfile::tempdir().unwrap());
    leader.apply(1, Command::LeaseGrant { id: 7, ttl_secs: 60 });
    leader.apply(2, put("attached", 7));
    leader.apply(3, put("other", 0));
    leader.apply(4, Command::LeaseRecord { now_ms: 100_000, since_ms: vec![(7, Some(60_000))] });
    let user = Change::UserAdd { name: "ann".into(), password: vec![1], no_password: false };
    leader.apply(5, Command::Auth(user));
    leader.apply(6, put("other", 0));
    wait(leader.flusher.sync()).unwrap();
    leader
}

#[test]
fn a_follower_goes_on_from_what_it_received() {
    let (leader, follower) = (leader(), Member::new(tempfile::tempdir().unwrap()));
    follower.apply(1, Command::LeaseGrant { id: 7, ttl_secs: 60 });
    let auth = Arc::clone(follower.applier.lock().auth());
    let told = follower.install(&leader);
    let leases = Leases::from([(7, Lease { ttl_secs: 60, since_ms: Some(60_000), belongs_to_keys: false })]);
    let installed = Some((leases, Reading { term: 2, ms: 100_000 }));
    assert_eq!((told.installed, told.tokens), (installed, vec![TokenChange::RevokedAll]));
    assert!(told.batches.is_empty() && told.leases.is_empty());
    assert!(auth.load().user("ann").is_some(), "who holds the users sees the new ones");
    assert_eq!(follower.store.keys_of_lease(7).unwrap(), [Bytes::from_static(b"attached")]);
    let position = Some(LogPosition { term: 2, index: 6 });
    assert_eq!((follower.applier.lock().applied(), follower.store.revision()), (position, 4));
    // What comes next is applied on top, and kept.
    follower.apply(7, put("more", 7));
    let follower = follower.restart();
    assert_eq!((follower.applier.lock().installed(), follower.store.revision()), (position, 5));
    assert_eq!(follower.store.keys_of_lease(7).unwrap().len(), 2);
    follower.applier.lock().clear_installed();
    let follower = follower.restart();
    assert_eq!((follower.applier.lock().installed(), follower.store.revision()), (None, 5));
}

#[test]
fn a_state_that_is_not_ahead_changes_nothing() {
    let (leader, follower) = (leader(), Member::new(tempfile::tempdir().unwrap()));
    assert!(follower.install(&leader).installed.is_some());
    follower.apply(7, put("more", 0));
    let told = follower.install(&leader);
    assert!(told.installed.is_none() && told.tokens.is_empty());
    assert_eq!(follower.store.revision(), 5);
    let names: Vec<_> =
        std::fs::read_dir(follower.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["state.2"], "what was received is gone");
}

#[test]
fn deadlines_of_leases_that_did_not_come_are_forgotten() {
    let lease = |ttl_secs, since_ms| Lease { ttl_secs, since_ms, belongs_to_keys: false };
    let reading = |ms| Reading { term: 1, ms };
    let leases = Leases::from([(1, lease(60, None)), (2, lease(60, None))]);
    let keeper = LeaseKeeper::new(&leases, reading(100_000), 1);
    keeper.reload(&Leases::from([(2, lease(60, Some(149_000))), (3, lease(500, None))]), reading(200_000));
    assert_eq!(keeper.leases(), [2, 3]);
    assert!(keeper.remaining(2).is_some_and(|(left_ms, ttl)| left_ms <= 9000 && ttl == 60));
    assert_eq!(keeper.remaining(1), None);
}
