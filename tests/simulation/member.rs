//! One simulated member: the server's applier, store, hub and lessor on a directory of its own, and a clock that drifts.

use kvist::engine::apply::{Applier, Effects, LeaseChange, LogPosition};
use kvist::engine::command::Applied;
use kvist::engine::watch::Hub;
use kvist::lease::clock::Clock;
use kvist::lease::lessor::Lessor;
use kvist::mvcc::flush::Frozen;
use kvist::mvcc::{Store, defrag};
use kvist::storage::Env;
use kvist::storage::codec::Image;
use kvist::storage::schema::{Table, meta};
use kvist::types::{KeyRange, LeaseId};
use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

use crate::log::Payload;

/// Address space; nothing comes near.
const QUOTA: u64 = 1 << 30;
/// The shortest TTL, seconds.
pub const TTL_MIN_SECS: i64 = 2;

/// A member that runs.
pub struct Running {
    pub applier: Applier,
    pub store: Arc<Store>,
    pub hub: Hub,
    pub lessor: Lessor,
    /// What leases are measured by.
    pub clock: Clock,
    env: Env,
    /// A state on its way to the disk.
    frozen: Option<(Frozen, Option<LogPosition>)>,
}

/// A member, running or not.
pub struct Member {
    dir: TempDir,
    pub running: Option<Running>,
    /// Milliseconds on its own clock.
    pub clock_ms: u64,
    /// By how much its clock is too fast, in thousandths.
    pub drift: i64,
    /// Whether the others cannot be reached from it.
    pub is_cut_off: bool,
    /// Up to where its state on the disk stands.
    pub flushed: u64,
}

/// What an entry did, in a form that members can be compared by, and what others must learn of it.
pub struct Done {
    pub text: String,
    pub effects: Effects,
}

impl Member {
    pub fn new(drift: i64) -> Member {
        let builder = tempfile::Builder::new();
        let shared_memory = Path::new("/dev/shm");
        let dir = if shared_memory.is_dir() { builder.tempdir_in(shared_memory) } else { builder.tempdir() };
        let mut member = Member {
            dir: dir.expect("a temporary directory"),
            running: None,
            clock_ms: 0,
            drift,
            is_cut_off: false,
            flushed: 0,
        };
        member.start();
        member
    }

    /// Passes time: more or less of it than really went by.
    pub fn pass(&mut self, real_ms: u64) {
        self.clock_ms += real_ms * (1000 + self.drift).unsigned_abs() / 1000;
    }

    pub fn running(&mut self) -> &mut Running {
        self.running.as_mut().expect("chosen among those that run")
    }

    /// Position of the last entry applied.
    pub fn applied(&self) -> u64 {
        self.running
            .as_ref()
            .and_then(|running| running.applier.applied())
            .map_or(0, |position| position.index)
    }

    /// Loses everything that was not flushed.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// Starts from the last flush.
    pub fn start(&mut self) {
        let dir = defrag::current_dir(self.dir.path()).expect("the directory can be listed");
        let env = Env::open(&dir, QUOTA).expect("an environment");
        let store = Arc::new(Store::open(env.clone()).expect("a store"));
        let applier = Applier::load(Arc::clone(&store)).expect("a state");
        self.flushed = applier.applied().map_or(0, |position| position.index);
        let mut lessor = Lessor::new(TTL_MIN_SECS);
        let clock = Clock::new(applier.lease_clock(), self.clock_ms);
        for (id, lease) in applier.leases() {
            lessor.restore(*id, lease, clock.now_ms(self.clock_ms));
        }
        let hub = Hub::stepped(Arc::clone(&store));
        self.running = Some(Running { applier, store, hub, lessor, clock, env, frozen: None });
    }

    /// Takes the state of `other`'s last flush in place of its own.
    pub fn install(&mut self, other: &Member) {
        let source = &other.running.as_ref().expect("chosen among those that run").env;
        self.kill();
        let old = defrag::newest_dir(self.dir.path()).expect("the directory can be listed");
        let number =
            old.as_deref().and_then(Path::extension).and_then(|number| number.to_str()?.parse::<u64>().ok());
        let dir = self.dir.path().join(format!("state.{}", number.unwrap_or(0) + 1));
        std::fs::create_dir(&dir).expect("a directory");
        source.copy_compacted(&dir.join("data.mdb")).expect("a copy");
        self.start();
    }

    /// Applies an entry, and tells lessor and hub.
    pub fn apply(&mut self, position: LogPosition, payload: &Payload) -> Done {
        let local_ms = self.clock_ms;
        let running = self.running();
        let applied = match payload {
            Payload::Blank => {
                running.applier.skip(position);
                None
            }
            Payload::Membership(bytes) => {
                running.applier.set_membership(position, bytes.clone());
                None
            }
            Payload::Command(entry) => Some(running.applier.apply(position, entry).expect("an answer")),
        };
        let effects = running.applier.take_effects();
        let text = describe(&running.store, applied.as_ref(), &effects);
        running.hub.publish(effects.batches.clone());
        for change in &effects.leases {
            match *change {
                LeaseChange::Granted(id, lease) => {
                    running.lessor.restore(id, &lease, running.clock.now_ms(local_ms));
                }
                LeaseChange::Revoked(id) => _ = running.lessor.revoke(id),
                LeaseChange::Recorded(id, since_ms) => running.lessor.recorded(id, since_ms),
                LeaseChange::Checkpointed(id) => {
                    running.lessor.recorded(id, Some(running.clock.now_ms(local_ms)));
                }
                LeaseChange::Read(reading) => running.clock.hear(reading, local_ms),
            }
        }
        Done { text, effects }
    }

    /// The time that leases are measured by, as far as this member knows.
    pub fn lease_ms(&self) -> u64 {
        self.running.as_ref().map_or(0, |running| running.clock.now_ms(self.clock_ms))
    }

    /// It decides about leases now.
    pub fn lead(&mut self, term: u64, extend_ms: u64) {
        let local_ms = self.clock_ms;
        let running = self.running();
        running.clock.lead(term, local_ms);
        running.lessor.promote(running.clock.now_ms(local_ms), extend_ms);
    }

    /// It decides no more.
    pub fn follow(&mut self) {
        let local_ms = self.clock_ms;
        if let Some(running) = &mut self.running {
            running.lessor.demote();
            running.clock.follow(local_ms);
        }
    }

    /// Takes the state that is to be flushed, if none waits.
    pub fn freeze(&mut self) {
        let running = self.running();
        if running.frozen.is_none() {
            running.frozen = running.applier.freeze();
        }
    }

    /// Flushes what was frozen.
    pub fn flush(&mut self) {
        let running = self.running();
        if let Some((frozen, position)) = running.frozen.take() {
            running.store.flush(&frozen).expect("a flush");
            self.flushed = position.map_or(0, |position| position.index);
        }
    }

    /// Rewrites the environment, and starts from it.
    pub fn defragment(&mut self) {
        let dir = self.dir.path().to_owned();
        self.running().store.defragment(&dir, QUOTA).expect("a defragmentation");
        self.kill();
        self.start();
    }

    /// All of the replicated state.
    pub fn state(&mut self) -> String {
        let Running { applier, store, .. } = self.running();
        let keys_of = |id: &LeaseId| store.keys_of_lease(*id).expect("keys of a lease");
        let keys: Vec<_> = applier.leases().keys().map(keys_of).collect();
        let hash = store.hash(0).expect("a hash");
        let auth = applier.auth().load();
        let (users, roles): (Vec<_>, Vec<_>) = (auth.users().collect(), auth.roles().collect());
        format!(
            "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {keys:?} {} {hash:?} {:?} {users:?} {roles:?}",
            applier.applied(),
            applier.membership(),
            applier.leases(),
            applier.lease_clock(),
            applier.alarms(),
            applier.members(),
            applier.versions(),
            store.keys(),
            (auth.is_enabled(), auth.revision()),
        )
    }

    /// The keys at a revision: key, revision of the last change, lease.
    pub fn keys(&mut self, revision: i64) -> Vec<(Vec<u8>, i64, LeaseId)> {
        let mut keys = Vec::new();
        let snapshot = self.running().store.snapshot(revision).expect("a revision that is kept");
        let visit = |key: &[u8], image: Image<'_>| {
            keys.push((key.to_vec(), image.modified.main, image.meta().lease));
            Ok(ControlFlow::Continue(()))
        };
        snapshot.scan(&KeyRange::all(), visit).expect("a scan");
        keys
    }

    /// Flushes and removes everything that may be.
    pub fn tidy(&mut self) {
        for _ in 0..2 {
            self.flush();
            self.freeze();
        }
        self.flush();
        while self.running().store.has_removable() {
            self.running().store.remove_compacted(1000).expect("a removal");
        }
    }

    /// The rows that members must have in common once they are tidy. Not those of history: what a change replaced is kept
    /// only as long as it can be asked for.
    pub fn rows(&mut self) -> String {
        let mut text = String::new();
        let txn = self.running().env.read().expect("a transaction");
        for table in [Table::Cur, Table::Lease, Table::LeaseKey, Table::Alarm, Table::Auth, Table::Meta] {
            for row in txn.all(table).expect("rows") {
                let (key, value) = row.expect("a row");
                if (table, key) != (Table::Meta, meta::REMOVED) {
                    writeln!(text, "{table:?} {key:?} {value:?}").expect("a text takes everything");
                }
            }
        }
        text
    }
}

/// A tombstone that went with a compaction is no image before the put that follows, and a long value may be elsewhere.
fn describe(store: &Store, applied: Option<&Applied>, effects: &Effects) -> String {
    let mut text = format!("{applied:?} {:?} {:?}", effects.leases, effects.tokens);
    for event in effects.batches.iter().flat_map(|batch| &batch.events) {
        let mut previous = event.previous.clone();
        if !previous.is_empty() {
            previous = store.with_inline_value(&previous).expect("the value before");
            if Image::parse(&previous).expect("an image").is_tombstone() {
                previous.clear();
            }
        }
        let (new, previous) = (crc32c::crc32c(&event.new), crc32c::crc32c(&previous));
        write!(text, " {:?} {new:x} {previous:x}", event.key).expect("a text takes everything");
    }
    text
}
