//! What clusters go through: the leader dies or hands over, a member was away for long. How long writes wait for it. Called
//! by `measure`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::Result;
use crate::access::Access;
use crate::figures::{self as f, Figures, Spread};
use crate::measure::{Bench, Found, UPKEEP_PUTS, millis};
use crate::server::{Cluster, PATIENCE};

/// Deaths of the leader in one run.
const DEATHS: usize = 5;
/// Transfers in one run.
const TRANSFERS: usize = 5;
const BETWEEN_TRANSFERS: Duration = Duration::from_millis(500);
/// How long a put may wait at one member before the client tries again. Short: etcd lets a put that came in without a leader
/// wait for seven seconds, and a client that waits as long measures just that.
const PUT_PATIENCE: Duration = Duration::from_millis(100);
/// From the start of the load tool to what disturbs it.
const BEFORE: Duration = Duration::from_secs(1);

impl Bench<'_> {
    /// Kills the leader, and measures the time until one of the others acknowledges a put; then lets it come back.
    pub fn failover(&self, cluster: &mut Cluster) -> Result<Found> {
        let mut times = Vec::new();
        for _ in 0..DEATHS {
            let leader = cluster.leader()?;
            cluster.accesses().try_for_each(|access| access.put("before", PATIENCE))?;
            let died = cluster.kill_member(leader)?;
            let others =
                cluster.accesses().enumerate().filter(|(n, _)| *n != leader).map(|(_, access)| access);
            times.push(millis(first_put(others.collect())?.duration_since(died)));
            cluster.restart_member(leader)?;
        }
        let spread = Spread::of(times).ok_or("nobody died")?;
        let mut figures = Figures::new();
        figures.insert(f::FAILOVER.to_owned(), spread.median);
        figures.insert(f::FAILOVER_LONGEST.to_owned(), spread.max);
        Ok((figures, None))
    }

    /// Puts at a fixed rate, first undisturbed, then while the leader hands over to one member after the other.
    pub fn transfer(&self, cluster: &Cluster) -> Result<Found> {
        let seconds = BEFORE.as_secs_f64() * 2.0 + BETWEEN_TRANSFERS.as_secs_f64() * TRANSFERS as f64;
        let words = puts(seconds);
        let before = self.load(cluster, &[&words])?.finish()?;
        let during = self.load(cluster, &[&words])?;
        std::thread::sleep(BEFORE);
        let mut times = Vec::new();
        for _ in 0..TRANSFERS {
            let leader = cluster.leader()?;
            let members: Vec<&Access> = cluster.accesses().collect();
            let target = members[(leader + 1) % members.len()].status(PATIENCE)?.member;
            let started = Instant::now();
            members[leader].move_leader(target, PATIENCE)?;
            times.push(millis(started.elapsed()));
            std::thread::sleep(BETWEEN_TRANSFERS.saturating_sub(started.elapsed()));
        }
        let during = during.finish()?;
        let mut figures = during.figures();
        figures.insert(f::TRANSFER.to_owned(), Spread::of(times).ok_or("no transfer")?.median);
        figures.insert(f::LONGEST_PUT.to_owned(), during.slowest_ms().ok_or(NO_LATENCY)?);
        figures.insert(f::LONGEST_PUT_BEFORE.to_owned(), before.slowest_ms().ok_or(NO_LATENCY)?);
        Ok((figures, during.histogram()))
    }

    /// Loads the cluster without one of its followers; then puts at a fixed rate to the leader, first without the
    /// follower, then while it comes back.
    pub fn catch_up(&self, cluster: &mut Cluster, words: &str) -> Result<Found> {
        let leader = cluster.leader()?;
        let away = (leader + 1) % self.contestant.members;
        cluster.kill_member(away)?;
        self.load_by(cluster.tool_flags_of(|member| member != away), &[words, "--warmup=0s"])?.finish()?;
        let puts = puts(self.options.upkeep_seconds());
        let leader = cluster.leader()?;
        let before = self.load_by(cluster.tool_flags_of(|member| member == leader), &[&puts])?.finish()?;
        let during = self.load_by(cluster.tool_flags_of(|member| member == leader), &[&puts])?;
        std::thread::sleep(BEFORE);
        let started = Instant::now();
        cluster.restart_member(away)?;
        let took = started.elapsed();
        let during = during.finish()?;
        if (took + BEFORE).as_secs_f64() > self.options.upkeep_seconds() {
            return Err(format!("the puts ended before the member had caught up, in {took:.1?}").into());
        }
        let mut figures = during.figures();
        let before = before.figures().get(f::P99).copied().ok_or(NO_LATENCY)?;
        let p99 = figures.get(f::P99).copied().ok_or(NO_LATENCY)?;
        figures.insert(f::CATCH_UP_S.to_owned(), took.as_secs_f64());
        figures.insert(f::CATCH_UP_P99.to_owned(), p99 / before);
        Ok((figures, during.histogram()))
    }
}

const NO_LATENCY: &str = "no latency from the load tool";

/// Words for puts that any server can keep up with.
fn puts(seconds: f64) -> String {
    format!(
        "put --clients=64 --conns=8 --key-space-size=1000 --rate={UPKEEP_PUTS} --prefix=upkeep/ \
         --duration={:.0}ms --warmup=0s",
        seconds * 1e3
    )
}

/// Puts at all of these members, again whenever it fails; the time of the first acknowledgement.
fn first_put(members: Vec<&Access>) -> Result<Instant> {
    let deadline = Instant::now() + PATIENCE;
    let is_done = AtomicBool::new(false);
    let put = |access: &Access| {
        while !is_done.load(Ordering::SeqCst) && Instant::now() < deadline {
            if access.put("after", PUT_PATIENCE).is_ok() {
                is_done.store(true, Ordering::SeqCst);
                return Some(Instant::now());
            }
        }
        None
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = members.into_iter().map(|access| scope.spawn(move || put(access))).collect();
        let times = threads.into_iter().filter_map(|thread| thread.join().ok().flatten());
        times.min().ok_or_else(|| "no put was acknowledged in time".into())
    })
}
