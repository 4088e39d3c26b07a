//! Tasks that do what is not writing keys: leases, compactions, defragmentations, digests.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use kvist::pb::etcdserverpb as pb;
use rand::Rng;

use crate::client::patient;
use crate::journal::{Change, Digest, Journal};
use crate::load::Worker;

/// Seconds; no lease runs out while the tests run.
pub const TTL_SECS: i64 = 36_000;
/// Leases alive at the same time.
const LEASES_MAX: usize = 12;

/// Grants leases, attaches keys to them, revokes them.
pub async fn lease(mut worker: Worker, mut alive: Vec<i64>) -> Journal {
    let mut next = i64::from(worker.shared.round) * 100_000;
    loop {
        let done = match worker.rng.random_range(0..10) {
            0..3 if alive.len() < LEASES_MAX => {
                next += 1;
                alive.push(next);
                grant(&mut worker, next).await
            }
            3 if !alive.is_empty() => {
                let id = alive.swap_remove(worker.rng.random_range(0..alive.len()));
                revoke(&mut worker, id).await
            }
            _ => {
                let id = if alive.is_empty() { 0 } else { alive[worker.rng.random_range(0..alive.len())] };
                let n = worker.rng.random_range(0..30);
                let (key, value) = (worker.key(n), worker.value());
                let request = pb::PutRequest {
                    key: key.clone(),
                    value: value.clone(),
                    lease: id,
                    ..Default::default()
                };
                let mut kv = worker.shared.clients.kv.clone();
                worker.write(vec![Change::Put { key, value, lease: id }], kv.put(request)).await.map(drop)
            }
        };
        if done.is_none() {
            return worker.journal;
        }
    }
}

async fn grant(worker: &mut Worker, id: i64) -> Option<()> {
    let mut lease = worker.shared.clients.lease.clone();
    worker.journal.grants.push((id, false));
    let answer = worker.call(lease.lease_grant(pb::LeaseGrantRequest { ttl: TTL_SECS, id })).await?;
    assert_eq!((answer.id, answer.ttl), (id, TTL_SECS));
    worker.journal.grants.last_mut().expect("just added").1 = true;
    Some(())
}

async fn revoke(worker: &mut Worker, id: i64) -> Option<()> {
    let mut lease = worker.shared.clients.lease.clone();
    let request = pb::LeaseRevokeRequest { id };
    let attached = worker.own.iter().filter(|(_, pair)| pair.lease == id);
    let changes: Vec<Change> = attached.map(|(key, _)| Change::Delete { key: key.clone() }).collect();
    if changes.is_empty() {
        worker.journal.revokes.push((id, false));
        worker.call(lease.lease_revoke(request)).await?;
        worker.journal.revokes.last_mut().expect("just added").1 = true;
        return Some(());
    }
    let at = worker.journal.attempts.len();
    // The attempt is journalled by `write`, before the request is sent; the note is added when it has ended.
    let answer = worker.write(changes, lease.lease_revoke(request)).await;
    worker.journal.attempts[at].revokes = Some(id);
    answer.map(drop)
}

/// Compacts to what every watcher has seen, or somewhat before. `last` is the last compaction so far.
pub async fn compact(mut worker: Worker, seen: Vec<Arc<AtomicI64>>, mut last: i64) -> Journal {
    loop {
        worker.pause(5..60).await;
        let bound = seen.iter().map(|s| s.load(Ordering::SeqCst)).min().unwrap_or(0);
        let revision = bound - worker.rng.random_range(0..200);
        if worker.shared.dying.load(Ordering::SeqCst) {
            return worker.journal;
        }
        if revision <= last {
            continue;
        }
        last = revision;
        worker.journal.compactions.push((revision, false));
        let mut kv = worker.shared.clients.kv.clone();
        let physical = worker.rng.random_ratio(1, 3);
        if worker.call(kv.compact(pb::CompactionRequest { revision, physical })).await.is_none() {
            return worker.journal;
        }
        worker.journal.compactions.last_mut().expect("just added").1 = true;
    }
}

/// Rewrites the state again and again, which also flushes it first.
pub async fn defragment(mut worker: Worker) -> Journal {
    loop {
        worker.pause(5..80).await;
        let mut maintenance = worker.shared.clients.maintenance.clone();
        let answer = patient(maintenance.defragment(pb::DefragmentRequest {})).await;
        if worker.finish(answer).is_none() {
            return worker.journal;
        }
    }
}

/// Asks for digests of history, to be compared after the crash.
pub async fn digest(mut worker: Worker) -> Journal {
    loop {
        worker.pause(10..60).await;
        let mut maintenance = worker.shared.clients.maintenance.clone();
        let Some(answer) = worker.call(maintenance.hash_kv(pb::HashKvRequest { revision: 0 })).await else {
            return worker.journal;
        };
        let digest =
            Digest { revision: answer.hash_revision, compacted: answer.compact_revision, hash: answer.hash };
        worker.journal.digests.push(digest);
    }
}

impl Worker {
    /// Lets others work for some milliseconds.
    async fn pause(&mut self, millis: std::ops::Range<u64>) {
        tokio::time::sleep(Duration::from_millis(self.rng.random_range(millis))).await;
    }
}
