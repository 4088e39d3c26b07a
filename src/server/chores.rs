//! What a member does now and then without being asked. Called by `server`.

use super::member::Running;
use crate::config::{AutoCompaction, Config};
use crate::engine::auto_compact::Schedule;
use crate::engine::{corruption, renewals, tasks};
use crate::raft;
use crate::shutdown::Shutdown;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Starts the chores of a member; they end with `shutdown`.
pub fn spawn(config: &Config, member: &Running, shutdown: &Shutdown) -> Vec<JoinHandle<()>> {
    let engine = member.engine();
    let stop = || {
        let shutdown = shutdown.clone();
        async move { shutdown.requested().await }
    };
    let mut chores = vec![
        tokio::spawn(tasks::until(stop(), tasks::expire_leases(engine.clone()))),
        tokio::spawn(tasks::until(stop(), renewals::record_leases(engine.clone()))),
        tokio::spawn(tasks::until(stop(), renewals::follow_clock(engine.clone()))),
        tokio::spawn(tasks::until(stop(), tasks::follow_version(engine.clone()))),
        // These go on until the lead has changed hands.
        tokio::spawn(raft::follow_table(Arc::clone(member.node()))),
        tokio::spawn(raft::ask_whether_removed(Arc::clone(member.node()))),
        tokio::spawn(raft::watch_disk(Arc::clone(member.node()))),
        tokio::spawn(member.follow_lead()),
    ];
    let (hub, stopped) = (engine.hub().clone(), stop());
    chores.push(tokio::spawn(async move {
        stopped.await;
        hub.end_streams();
    }));
    if let Some(interval) = config.corrupt_check_interval {
        let checks = corruption::check_now_and_then(engine.clone(), interval);
        chores.push(tokio::spawn(tasks::until(stop(), checks)));
    }
    if let Some(interval) = config.compaction_check_interval {
        let checks = corruption::check_compactions(engine.clone(), interval);
        chores.push(tokio::spawn(tasks::until(stop(), checks)));
    }
    let schedule = config.compaction.auto.map(|auto| match auto {
        AutoCompaction::Periodic(period) => Schedule::periodic(period),
        AutoCompaction::Revision(kept) => Schedule::revision(kept),
    });
    if let Some(schedule) = schedule {
        chores.push(tokio::spawn(tasks::until(stop(), tasks::auto_compact(engine.clone(), schedule))));
    }
    chores
}
