//! The leader's chores: each a small loop over pure code that ends with `stop`.

use super::command::Command;
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
/// How often remaining TTLs are recorded, and of how many leases at most.
const CHECKPOINT_TICK: Duration = Duration::from_secs(1);
const CHECKPOINTS_PER_ENTRY: usize = 1000;

/// Ends leases whose time is up.
pub async fn expire_leases(engine: Engine) {
    let mut tick = interval(EXPIRY_TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let expired = engine.0.leases.expired(REVOKES_PER_TICK);
        for ids in expired.chunks(REVOKES_PER_ENTRY) {
            revoke(&engine, ids.to_vec()).await;
        }
    }
}

async fn revoke(engine: &Engine, ids: Vec<LeaseId>) {
    let count = ids.len();
    match engine.write(Origin::Server, Command::LeaseRevoke { ids, expired: true }).await {
        Ok(_) => {
            METRICS.lease.expired.inc_by(count as u64);
            tracing::debug!(count, "revoked expired leases");
        }
        Err(Error::Refused(_)) => {} // revoked by a client meanwhile
        Err(error) => tracing::warn!(%error, count, "could not revoke expired leases; trying again"),
    }
}

/// Records how much time leases have left, so that a restart does not give them their full TTL again.
pub async fn checkpoint_leases(engine: Engine) {
    let mut tick = interval(CHECKPOINT_TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let due = engine.0.leases.due_checkpoints(CHECKPOINTS_PER_ENTRY);
        if !due.is_empty()
            && let Err(error) = engine.write(Origin::Server, Command::LeaseCheckpoint(due)).await
        {
            tracing::warn!(%error, "could not checkpoint leases; trying again");
        }
    }
}

/// Records what every lease has left; the last thing before a clean stop.
pub async fn checkpoint_all_leases(engine: &Engine) -> Result<(), Error> {
    for due in engine.0.leases.all_remaining().chunks(CHECKPOINTS_PER_ENTRY) {
        engine.write(Origin::Server, Command::LeaseCheckpoint(due.to_vec())).await?;
    }
    Ok(())
}

/// Compacts by the schedule that `--auto-compaction-mode` and `--auto-compaction-retention` make.
pub async fn auto_compact(engine: Engine, mut schedule: Schedule) {
    let started = Instant::now();
    loop {
        let wake = schedule.next_wake();
        tokio::time::sleep(wake.saturating_sub(started.elapsed())).await;
        let Some(revision) = schedule.tick(started.elapsed(), engine.revision()) else { continue };
        let result = engine.compact(Origin::Server, revision, false).await;
        match &result {
            Ok(_) => tracing::info!(revision, "auto-compacted"),
            Err(error) => tracing::warn!(%error, revision, "auto-compaction failed"),
        }
        schedule.compacted(matches!(result, Ok(_) | Err(Error::Refused(_))));
    }
}

/// Runs a chore until `stop` resolves.
pub async fn until(stop: impl Future<Output = ()>, chore: impl Future<Output = ()>) {
    tokio::select! {
        () = stop => {}
        () = chore => {}
    }
}
