//! Renewals of leases: in the leader's memory at once, and in the log before they are answered, if the next leader has to
//! know of them (see `lease::lessor`). Those that come while an entry is on its way share the next one.

use super::ask::{self, Answer, Question, Whom};
use super::command::Command;
use super::{Engine, Error, Result};
use crate::lease::lessor::Renewal;
use crate::types::LeaseId;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// Renewals of one stream that adapters let be under way at a time: those that have to be recorded share an entry.
pub const RENEWALS_AHEAD: usize = 256;
/// How often leases are looked for that have to be recorded though nobody renews them.
const RECORD_TICK: Duration = Duration::from_millis(250);
/// Rest between two entries, during which renewals gather: at most 50 entries a second.
const RECORD_REST: Duration = Duration::from_millis(20);
/// Leases recorded by one entry; up to 18 bytes each.
const RECORDS_PER_ENTRY: usize = 4000;
/// How often a member that does not lead asks for the time.
const CLOCK_TICK: Duration = Duration::from_secs(1);

impl Engine {
    /// Renews a lease, at the leader; the TTL granted, or 0 when there is no such lease or it is about to end.
    pub async fn lease_keep_alive(&self, id: LeaseId) -> Result<i64> {
        match self.ask(Whom::Leader, Question::RenewLease(id)).await? {
            Answer::Renewed(ttl_secs) => Ok(ttl_secs),
            other => Err(ask::unexpected(&other)),
        }
    }

    /// Renews a lease here, as the leader.
    pub(super) async fn renew_here(&self, id: LeaseId) -> Result<i64> {
        let (mut renewal, mut recorded) = self.0.leases.renew(id);
        if matches!(renewal, Renewal::Expired | Renewal::Unknown) {
            // A leader of before, or one that has not applied the grant yet, must not say that a lease is gone.
            self.confirm_leader().await?;
            (renewal, recorded) = self.0.leases.renew(id);
        }
        let Renewal::Renewed { ttl_secs, .. } = renewal else {
            return if renewal == Renewal::Demoted { Err(Error::NoLeader) } else { Ok(0) };
        };
        let Some(recorded) = recorded else {
            // Another leader may decide by now, and would not know of it.
            self.confirm_leader().await?;
            return Ok(ttl_secs);
        };
        match timeout(self.0.limits.request_timeout, recorded).await {
            // It may have been revoked meanwhile.
            Ok(Ok(())) => Ok(self.0.leases.remaining(id).map_or(0, |_| ttl_secs)),
            Ok(Err(_)) => Err(Error::NoLeader),
            Err(_) => Err(Error::Timeout),
        }
    }

    /// Records what every lease has left; the last thing before this leader hands over or stops.
    pub async fn record_all_leases(&self) -> Result<()> {
        let leases = &self.0.leases;
        let term = leases.term();
        for ids in leases.leases().chunks(RECORDS_PER_ENTRY) {
            let _recording = leases.recording().await;
            let (now_ms, since_ms) = leases.records(ids);
            self.write_in(term, Command::LeaseRecord { now_ms, since_ms }).await?;
        }
        Ok(())
    }

    /// Records what is due; whether anything was.
    async fn record_due_leases(&self) -> bool {
        let leases = &self.0.leases;
        let term = leases.term();
        let others = self.members().len() > 1;
        let _recording = leases.recording().await;
        let Some(((now_ms, since_ms), waiting)) = leases.due_records(others, RECORDS_PER_ENTRY) else {
            return false;
        };
        match self.write_in(term, Command::LeaseRecord { now_ms, since_ms }).await {
            // Who waited may have gone.
            Ok(_) => waiting.into_iter().for_each(|(_, told)| _ = told.send(())),
            Err(error) => tracing::debug!(%error, renewals = waiting.len(), "could not record leases"),
        }
        true
    }
}

/// The leader's chore: gets on record what has to be.
pub async fn record_leases(engine: Engine) {
    let mut tick = interval(RECORD_TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = engine.0.leases.until_waiting() => {}
        }
        while engine.record_due_leases().await {
            sleep(RECORD_REST).await;
        }
    }
}

/// The others' chore: learns the time that the leader measures leases by. What it records tells the time, too, but not while
/// nobody renews anything.
pub async fn follow_clock(engine: Engine) {
    let mut tick = interval(CLOCK_TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if engine.leads() || !engine.has_leader() || engine.0.leases.count() == 0 {
            continue;
        }
        match engine.ask(Whom::Leader, Question::LeaseClock).await {
            Ok(Answer::LeaseClock(reading)) => engine.0.leases.hear(reading),
            Ok(other) => tracing::debug!(?other, "an answer that does not fit the question"),
            Err(error) => tracing::debug!(%error, "the leader does not tell the time"),
        }
    }
}
