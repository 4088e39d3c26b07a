//! The leader's chores: each a small loop over pure code that ends with `stop`.

use super::command::{Command, Refusal};
use super::versions::Versions;
use super::{Engine, Error, Origin};
use crate::engine::auto_compact::Schedule;
use crate::metrics::METRICS;
use crate::types::LeaseId;
use std::future::Future;
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval};

/// How often expired leases are looked for.
const EXPIRY_TICK: Duration = Duration::from_millis(200);
/// Leases ended by one entry.
const REVOKES_PER_ENTRY: usize = 100;
/// Leases ended in one tick; 1 000 a second, as etcd has it.
const REVOKES_PER_TICK: usize = 200;
/// How often the version of the cluster is looked at, as in etcd.
const VERSION_TICK: Duration = Duration::from_secs(4);

/// Ends leases whose time is up.
pub async fn expire_leases(engine: Engine) {
    let mut tick = interval(EXPIRY_TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let term = engine.0.leases.term();
        let expired = engine.0.leases.expired(REVOKES_PER_TICK);
        for ids in expired.chunks(REVOKES_PER_ENTRY) {
            revoke(&engine, term, ids.to_vec()).await;
        }
    }
}

async fn revoke(engine: &Engine, term: u64, ids: Vec<LeaseId>) {
    let count = ids.len();
    match engine.write_in(term, Command::LeaseRevoke { ids, expired: true }).await {
        Ok(_) => {
            METRICS.lease.expired.inc_by(count as u64);
            tracing::debug!(count, "revoked expired leases");
        }
        Err(Error::Refused(_)) => {} // revoked by a client meanwhile
        Err(error) => tracing::warn!(%error, count, "could not revoke expired leases; trying again"),
    }
}

/// Compacts by the schedule that `--auto-compaction-mode` and `--auto-compaction-retention` make.
pub async fn auto_compact(engine: Engine, mut schedule: Schedule) {
    let started = Instant::now();
    loop {
        let wake = schedule.next_wake();
        tokio::time::sleep(wake.saturating_sub(started.elapsed())).await;
        let Some(revision) = schedule.tick(started.elapsed(), engine.revision()) else { continue };
        if !engine.leads() {
            schedule.compacted(true); // by the leader, whose schedule is the same
            continue;
        }
        let (mode, begin) = (schedule.name(), Instant::now());
        tracing::info!(revision, "starting auto {mode} compaction");
        let ok = match engine.compact(Origin::Server, revision, false).await {
            Ok(_) | Err(Error::Refused(Refusal::Compacted)) => {
                tracing::info!(revision, took = ?begin.elapsed(), "completed auto {mode} compaction");
                true
            }
            Err(error) => {
                tracing::warn!(revision, %error, "failed auto {mode} compaction");
                false
            }
        };
        schedule.compacted(ok);
    }
}

/// Moves the version of the cluster to that of a downgrade, and back when it is called off.
pub async fn follow_version(engine: Engine) {
    let mut tick = interval(VERSION_TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Versions { cluster: from, downgrade } = engine.versions();
        let Some(to) = engine.versions().due() else { continue };
        if !engine.leads() {
            continue;
        }
        match engine.write(Origin::Server, Command::SetClusterVersion(to)).await {
            Ok(_) => tracing::info!(%from, %to, "updated cluster version"),
            Err(error) => tracing::warn!(%error, %from, %to, "failed to update cluster version"),
        }
        if downgrade == Some(to) {
            tracing::info!("target-version" = %to, "The server is ready to downgrade");
        }
    }
}

/// Runs a chore until `stop` resolves.
pub async fn until(stop: impl Future<Output = ()>, chore: impl Future<Output = ()>) {
    tokio::select! {
        () = stop => {}
        () = chore => {}
    }
}
