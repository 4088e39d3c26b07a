//! The server is killed again and again under load. Nothing that it acknowledged may be missing afterwards, and nothing may
//! be there that nobody wrote; watchers, leases, compactions and digests of history go on as if nothing had happened.
//!
//! `KVIST_CRASH_ROUNDS` sets the number of rounds, `KVIST_CRASH_SEED` the seed of what is written and when the kill comes.
//! A seed does not repeat a run exactly, because the timing of the machine differs. When a run fails, its data stays.

mod admin;
mod check;
mod client;
mod journal;
mod load;
#[path = "../support/mod.rs"]
mod support;
mod watcher;
mod writers;

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::Runtime;

use check::Checker;
use client::Clients;
use journal::Journal;
use load::{Load, Plan, Shared};
use support::Server;
use watcher::{Seen, Watcher};

const ROUNDS: u32 = 30;
/// Small steps, so that physical compaction is often cut off in the middle.
const FLAGS: [&str; 2] = ["--compaction-batch-limit=10", "--compaction-sleep-interval=1ms"];

#[test]
fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let rounds = setting("KVIST_CRASH_ROUNDS").unwrap_or(ROUNDS);
    let seed = setting("KVIST_CRASH_SEED").unwrap_or_else(rand::random);
    println!("KVIST_CRASH_SEED={seed} KVIST_CRASH_ROUNDS={rounds}");
    let dir = Kept(Some(tempfile::tempdir().expect("temporary directory")));
    let data_dir = dir.0.as_ref().expect("not taken yet").path().join("data");
    let mut run = Run {
        runtime: Runtime::new().expect("a runtime"),
        server: Server::start_in(&data_dir, &FLAGS),
        checker: Checker::new(),
        watchers: [Watcher::new((b"\0", b"\0")), Watcher::new((b"4/", b"7/"))],
        floor: Arc::new(AtomicI64::new(1)),
        rng: StdRng::seed_from_u64(seed),
    };
    for round in 1..=rounds {
        println!(
            "round {round}: verified up to {}, compacted {}",
            run.checker.verified, run.checker.compacted
        );
        run.round(round);
    }
    assert!(run.checker.verified > i64::from(rounds) * 10, "there was hardly any load");
}

struct Run {
    runtime: Runtime,
    server: Server,
    checker: Checker,
    /// The first sees everything.
    watchers: [Watcher; 2],
    floor: Arc<AtomicI64>,
    rng: StdRng,
}

impl Run {
    /// Load, kill, restart, check; then the watchers resume and must see what they missed.
    fn round(&mut self, round: u32) {
        let dying = Arc::new(AtomicBool::new(false));
        let plan = Plan {
            seed: self.rng.random(),
            compact: self.rng.random_ratio(1, 2).then_some(self.checker.compacted),
            defragment: self.rng.random_ratio(1, 3),
            seen: self.watchers.iter().map(Watcher::seen).collect(),
        };
        // Every third load is still running when the first timed flush begins, a second after the start.
        let millis = if self.rng.random_ratio(1, 3) { 850..1050 } else { 200..800 };
        let duration = Duration::from_millis(self.rng.random_range(millis));
        let load = self.runtime.block_on(async {
            let clients = Clients::connect(&self.server.url()).await;
            for watcher in &mut self.watchers {
                watcher.resume(&clients, Arc::clone(&dying)).await;
                watcher.reach(self.checker.last_for(watcher)).await;
                watcher.skip_to(self.checker.verified);
            }
            let shared = Shared { clients, dying: Arc::clone(&dying), floor: Arc::clone(&self.floor), round };
            let leases = self.checker.leases.iter().copied().collect();
            let load = Load::start(&shared, &self.checker.state, leases, plan);
            tokio::time::sleep(duration).await;
            load
        });
        dying.store(true, Ordering::SeqCst);
        self.server.kill();
        let (journal, seen) = self.runtime.block_on(async {
            let journal: Journal = load.cut_off().await;
            let mut seen: Vec<Seen> = Vec::new();
            for watcher in &mut self.watchers {
                seen.push(watcher.cut_off().await);
            }
            (journal, seen)
        });
        self.server.restart();
        let seen: Vec<(&Watcher, Seen)> = self.watchers.iter().zip(seen).collect();
        self.runtime.block_on(async {
            let clients = Clients::connect(&self.server.url()).await;
            let floor = self.floor.load(Ordering::SeqCst);
            self.checker.check(&clients, journal, &seen, floor).await;
        });
    }
}

fn setting<T: FromStr>(name: &str) -> Option<T> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// A directory that stays when the test fails.
struct Kept(Option<tempfile::TempDir>);

impl Drop for Kept {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(dir) = self.0.take()
        {
            println!("the data is in {}", dir.keep().display());
        }
    }
}
