//! Two snapshots that overlap let openraft panic (openraft #2116). One follower shows it; its calls are fed by hand.
//!
//! When openraft accepts a snapshot, it forgets the log ids below at once. The install itself is a command in a queue, and so is
//! the purge that follows. A purge waits until its snapshot is in place, and all that comes later waits behind it: here a new
//! leader's probes for entries that this log has already, and a second snapshot. Each probe waits for the one before, too. So the
//! second snapshot is still waiting when openraft goes to apply what the first probe has confirmed, whose ids it forgot.
//!
//! ```text
//! snapshot 10 is being installed:  purge 10 | probe 13 | probe 16 | install 18 | purge 18   (ids up to 18 are forgotten)
//!                 10 is in place:  runs       runs       waits      => 11 to 13 are to be applied: which id has 11?
//! ```
//! A purge of our own (`purge`) cannot do this: it ends where all is applied.

use super::installs::Installs;
use super::log_store::LogStore;
use super::network::{Activity, Network};
use super::peer::{Identity, Links};
use super::state_machine::Builder;
use super::transport::Transports;
use super::wal::{self, Wal};
use super::*;
use crate::storage::Env;
use futures_util::{FutureExt, Stream, StreamExt};
use openraft::errors::{Fatal, RaftError};
use openraft::raft::AppendEntriesRequest;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{Raft, SnapshotMeta, SnapshotPolicy};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

type Meta = openraft::alias::SnapshotMetaOf<Types>;
type Metrics = openraft::RaftMetrics<Types>;
type Call = Pin<Box<dyn Future<Output = Result<(), Fatal<Types>>>>>;

/// A state machine whose every install needs a permit.
struct Gated(Arc<Semaphore>);

impl RaftStateMachine<Types> for Gated {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((None, StoredMembership::default()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + Send,
    {
        while let Some(entry) = entries.next().await {
            entry?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        unreachable!("nobody asks for a snapshot")
    }

    async fn install_snapshot(&mut self, _: &Meta, _: SnapshotData) -> Result<(), io::Error> {
        self.0.acquire().await.map_err(io::Error::other)?.forget();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(None)
    }
}

fn membership() -> Membership {
    Membership::new_with_defaults(vec![(1..=3).collect()], [])
}

struct Follower {
    raft: Raft<Types, Gated>,
    installs: Arc<Semaphore>,
    store: Arc<Store>,
    _dir: tempfile::TempDir,
}

impl Follower {
    /// Has 20 entries of the leader of term 1, none of them committed as far as it knows.
    async fn start() -> Follower {
        let dir = tempfile::tempdir().unwrap();
        let (wal, recovered) = Wal::open(wal::Options::new(dir.path().join("wal"))).unwrap();
        let log = LogStore::new(wal, recovered).unwrap();
        let store = Store::open(Env::open(dir.path(), 1 << 20).unwrap()).unwrap();
        let links = Links::new(Identity { cluster: 1, member: 2 }, None, PATIENCE); // a follower calls nobody
        let transports = Transports {
            activity: Activity::default(),
            patience: PATIENCE,
            request_timeout: PATIENCE,
            wolf: None,
        };
        let network = Network::new(links, transports);
        // As in `node`, but nothing happens by itself.
        let config = openraft::Config {
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            enable_tick: false,
            enable_elect: false,
            ..openraft::Config::default()
        };
        let installs = Arc::new(Semaphore::new(0));
        let machine = Gated(Arc::clone(&installs));
        let raft = Raft::new(2, Arc::new(config.validate().unwrap()), network, log, machine).await.unwrap();
        let follower = Follower { raft, installs, store: Arc::new(store), _dir: dir };
        let payload = |index| if index == 0 { Payload::Membership(membership()) } else { Payload::Blank };
        let entry = |index| LogEntry { log_id: codec::log_id(1, index), payload: payload(index) };
        let entries = (0..=20).map(entry).collect();
        follower.append(Vote::new_committed(1, 1), None, entries).await.unwrap();
        follower
    }

    fn append(&self, vote: Vote, prev_log_id: Option<LogId>, entries: Vec<LogEntry>) -> Call {
        let request = AppendEntriesRequest { vote, prev_log_id, entries, leader_commit: None };
        let raft = self.raft.clone();
        begin(async move {
            let answer = raft.append_entries(request).await.map_err(RaftError::unwrap_fatal)?;
            assert!(answer.is_success(), "{answer}");
            Ok(())
        })
    }

    /// The leader of term 2 finds out whether this log has the entry.
    fn probe(&self, index: u64) -> Call {
        self.append(Vote::new_committed(2, 3), Some(codec::log_id(1, index)), Vec::new())
    }

    fn snapshot(&self, index: u64) -> Snapshot {
        let last_membership = StoredMembership::new(Some(codec::log_id(1, 0)), membership());
        let meta = SnapshotMeta { last_log_id: Some(codec::log_id(1, index)), last_membership };
        Snapshot { meta, snapshot: SnapshotData::Own(Arc::clone(&self.store)) }
    }

    /// The leader of term 2 sends a snapshot of entries up to `index`, which is accepted when this returns.
    async fn install(&self, index: u64) -> Call {
        // Snapshots come by a channel of their own, which must not overtake the probes.
        self.raft.with_raft_state(|_| ()).await.unwrap();
        let (raft, snapshot) = (self.raft.clone(), self.snapshot(index));
        let call = begin(async move {
            raft.install_full_snapshot(Vote::new_committed(2, 3), snapshot).await.map(drop)
        });
        let is_accepted = |m: &Metrics| m.local_committed.is_some_and(|id| id.index == index);
        self.raft.wait(Some(PATIENCE)).metrics(is_accepted, "the snapshot is accepted").await.unwrap();
        call
    }

    /// Gives way to all installs; once every call is answered, tells what is applied.
    async fn finish(&self, calls: Vec<Call>) -> Result<Option<u64>, Fatal<Types>> {
        self.installs.add_permits(2);
        for call in calls {
            tokio::time::timeout(PATIENCE, call).await.expect("an answer in time")?;
        }
        let is_done = |m: &Metrics| m.last_applied.is_some() && m.last_applied == m.local_committed;
        let metrics = self.raft.wait(Some(PATIENCE)).metrics(is_done, "all is applied").await.unwrap();
        Ok(metrics.last_applied.map(|id| id.index))
    }
}

/// Hands a call over; the answer takes longer.
fn begin(call: impl Future<Output = Result<(), Fatal<Types>>> + 'static) -> Call {
    let mut call: Call = Box::pin(call);
    assert!(call.as_mut().now_or_never().is_none(), "answered at once");
    call
}

/// Probes, and perhaps a second snapshot, while the first one is being installed. Tells what is applied in the end.
async fn while_installing(probes: &[u64], second: Option<u64>) -> Result<Option<u64>, Fatal<Types>> {
    let follower = Follower::start().await;
    let mut calls = vec![follower.install(10).await];
    calls.extend(probes.iter().map(|index| follower.probe(*index)));
    if let Some(index) = second {
        calls.push(follower.install(index).await);
    }
    follower.finish(calls).await
}

/// Turn round when openraft is fixed: then it is 18 that is applied, and `installs` can go.
#[tokio::test]
async fn overlapping_installs_break_openraft() {
    let applied = while_installing(&[13, 16], Some(18)).await;
    assert!(matches!(applied, Err(Fatal::Panicked)), "{applied:?}");
}

#[tokio::test]
async fn without_a_second_install_nothing_breaks() {
    assert_eq!(while_installing(&[13, 16], None).await, Ok(Some(10)));
}

#[tokio::test]
async fn without_probes_that_wait_for_each_other_nothing_breaks() {
    assert_eq!(while_installing(&[], Some(18)).await, Ok(Some(18)));
    assert_eq!(while_installing(&[13], Some(18)).await, Ok(Some(18)));
}

#[tokio::test]
async fn installs_one_after_another_are_fine() {
    let follower = Follower::start().await;
    let first = follower.install(10).await;
    assert_eq!(follower.finish(vec![first]).await, Ok(Some(10)));
    let mut calls = vec![follower.probe(13), follower.probe(16)];
    calls.push(follower.install(18).await);
    assert_eq!(follower.finish(calls).await, Ok(Some(18)));
}

/// The call that brought the first one ends early; the second one waits all the same.
#[tokio::test]
async fn our_installs_never_overlap() {
    let follower = Follower::start().await;
    let (guard, vote) = (Installs::default(), Vote::new_committed(2, 3));
    let mut first = Box::pin(guard.install(&follower.raft, vote, follower.snapshot(10)));
    assert!(first.as_mut().now_or_never().is_none());
    let is_accepted = |m: &Metrics| m.local_committed.is_some_and(|id| id.index == 10);
    follower.raft.wait(Some(PATIENCE)).metrics(is_accepted, "the snapshot is accepted").await.unwrap();
    drop(first);
    let probes = vec![follower.probe(13), follower.probe(16)];
    let second = tokio::spawn({
        let (guard, raft, snapshot) = (guard.clone(), follower.raft.clone(), follower.snapshot(18));
        async move { guard.install(&raft, vote, snapshot).await }
    });
    follower.raft.with_raft_state(|_| ()).await.unwrap();
    let applied = follower.finish(probes).await;
    assert!(matches!(applied, Ok(Some(10 | 18))), "{applied:?}"); // the second one may be there already
    assert_eq!(second.await.unwrap(), Ok(vote));
    let is_done = |m: &Metrics| m.last_applied.is_some_and(|id| id.index == 18);
    follower.raft.wait(Some(PATIENCE)).metrics(is_done, "all is applied").await.unwrap();
}
