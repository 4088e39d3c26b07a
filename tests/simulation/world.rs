//! One world: a cluster, its clients, and the steps that chance chooses. In the end all faults are healed, and what was
//! promised must come true.

use kvist::engine::Origin;
use kvist::engine::apply::{LeaseChange, LogPosition};
use kvist::engine::command::{AlarmKind, Command};
use kvist::engine::entry::Entry;
use kvist::lease::lessor::Renewal;
use kvist::types::LeaseId;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::fmt::Display;

use crate::commands::{Source, TTL_MAX_SECS};
use crate::history::History;
use crate::log::{Log, Payload, entry};
use crate::member::Member;
use crate::promises::{DRIFT_MAX, Promises};
use crate::watchers::Client;

/// At multiples of this position members stop to be compared.
const COMPARED_EVERY: u64 = 16;
/// What a new leader adds to each lease, as the server does: an election timeout.
const EXTEND_MS: u64 = 1_000;
const EXPIRED_PER_STEP: usize = 10;
const CLIENTS_MAX: usize = 12;
/// Leases there are at a time, about.
const LEASES_MAX: usize = 8;

/// A renewal that is answered once the entry is applied by the leader that took it in.
struct PendingRenewal {
    id: LeaseId,
    ttl_secs: i64,
    at_ms: u64,
    term: u64,
    index: u64,
}

struct World {
    rng: StdRng,
    log: Log,
    members: Vec<Member>,
    history: History,
    promises: Promises,
    clients: Vec<Client>,
    /// Real time.
    now_ms: u64,
    /// Whether the leader has applied its first entry, and so decides about leases.
    is_serving: bool,
    leases: Vec<LeaseId>,
    /// As a cluster does; a lone member records what is idle.
    records_at_once: bool,
    pending: Vec<PendingRenewal>,
    /// Of late, so that they can come again.
    proposals: Vec<Entry>,
    /// Digest of everything that happened.
    trace: u32,
    is_shown: bool,
    next_id: i64,
}

/// Plays the world of a seed; returns a digest of what happened.
pub fn run(seed: u64) -> u32 {
    // Streams of watchers belong to a runtime; nothing ever runs on it.
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let _runtime = runtime.enter();
    let mut rng = StdRng::seed_from_u64(seed);
    let count = if rng.random_bool(0.7) { 3 } else { 5 };
    let steps = rng.random_range(300..1000);
    let records_at_once = rng.random_bool(0.8);
    let drifts: Vec<i64> = (0..count).map(|_| rng.random_range(-DRIFT_MAX..=DRIFT_MAX)).collect();
    let mut world = World {
        rng,
        log: Log::new(count),
        members: drifts.into_iter().map(Member::new).collect(),
        history: History::default(),
        promises: Promises::default(),
        clients: Vec::new(),
        now_ms: 0,
        is_serving: false,
        leases: Vec::new(),
        records_at_once,
        pending: Vec::new(),
        proposals: Vec::new(),
        trace: 0,
        is_shown: std::env::var_os("KVIST_TRACE").is_some_and(|text| !text.is_empty()),
        next_id: 1,
    };
    for _ in 0..steps {
        world.step();
    }
    world.settle();
    world.trace
}

impl World {
    fn tell(&mut self, what: impl Display) {
        let line = format!("{} ms, term {}: {what}", self.now_ms, self.log.term);
        self.trace = crc32c::crc32c_append(self.trace, line.as_bytes());
        if self.is_shown {
            println!("{line}");
        }
    }

    fn step(&mut self) {
        match self.rng.random_range(0..200) {
            0..50 => self.propose_random(),
            50..54 => self.repeat_proposal(),
            54..88 => self.receive(),
            88..124 => self.apply_some(),
            124..129 => self.grant(),
            129..139 => self.renew(),
            139..149 => self.pass_time(),
            149..165 => self.write_to_disk(),
            165 => self.kill(),
            166..171 => self.restart(),
            171 => self.cut_off(),
            172 => self.elect(),
            173..176 => self.purge(),
            176..180 => self.watch(),
            180..183 => self.ask_for_time(),
            _ => self.serve_watchers(),
        }
        if self.log.leader.is_none() {
            self.elect();
        }
    }

    // Members by what can be done with them.

    fn running(&self) -> Vec<usize> {
        (0..self.members.len()).filter(|n| self.members[*n].running.is_some()).collect()
    }

    /// Those that can talk to each other.
    fn connected(&self) -> Vec<usize> {
        self.running().into_iter().filter(|n| !self.members[*n].is_cut_off).collect()
    }

    fn any_running(&mut self) -> Option<usize> {
        self.running().choose(&mut self.rng).copied()
    }

    // Consensus.

    fn elect(&mut self) {
        let voters = self.connected();
        let Some(&member) = voters.choose(&mut self.rng) else { return };
        if self.log.elect(member, &voters) {
            self.is_serving = false;
            self.pending.clear();
            self.tell(format_args!("{member} leads, the log ends at {}", self.log.last()));
        }
    }

    /// Hands a command to the leader. Whether it is ever committed is another question.
    fn propose(&mut self, origin: Origin, command: Command) -> Option<u64> {
        self.log.leader?;
        let entry = entry(origin, command, self.now_ms);
        Some(self.append(entry))
    }

    fn append(&mut self, entry: Entry) -> u64 {
        self.tell(format_args!("proposed: {entry}"));
        self.proposals.push(entry.clone());
        self.log.append(Payload::Command(entry))
    }

    fn source(&mut self) -> Source<'_> {
        Source { revision: self.history.revision(), leases: &self.leases, rng: &mut self.rng }
    }

    fn propose_random(&mut self) {
        if self.log.leader.is_some() && self.rng.random_bool(0.01) {
            let bytes = vec![self.rng.random(); 3];
            self.log.append(Payload::Membership(bytes));
            return;
        }
        let (origin, command) = (self.source().origin(), self.source().command());
        self.propose(origin, command);
    }

    /// A client that got no answer asks again.
    fn repeat_proposal(&mut self) {
        let recent = self.proposals.len().saturating_sub(10);
        if let Some(entry) = self.proposals[recent..].choose(&mut self.rng).cloned()
            && self.log.leader.is_some()
            // Nobody takes a promise about a lease back by accident: ids of leases are new each time.
            && !matches!(entry.command(), Command::LeaseGrant { .. } | Command::LeaseRecord { .. })
        {
            self.append(entry);
        }
    }

    fn receive(&mut self) {
        let (Some(leader), Some(member)) = (self.log.leader, self.connected().choose(&mut self.rng).copied())
        else {
            return;
        };
        let count = self.rng.random_range(1..20);
        self.receive_from(leader, member, count);
    }

    fn receive_from(&mut self, leader: usize, member: usize, count: u64) {
        if member == leader || self.members[leader].is_cut_off || self.members[leader].running.is_none() {
            return;
        }
        // Who led before hears of the new leader.
        self.members[member].follow();
        if self.log.receive(leader, member, count) {
            return;
        }
        let [member_ref, leader_ref] =
            self.members.get_disjoint_mut([member, leader]).expect("two different members");
        member_ref.install(leader_ref);
        let flushed = member_ref.flushed;
        self.lose_watchers(member);
        self.log.skip_to(member, flushed);
        self.tell(format_args!("{member} has the state of {leader} at {flushed}"));
    }

    /// A member needs its log only behind the state on its disk.
    fn purge(&mut self) {
        if let Some(member) = self.any_running() {
            let bound = self.members[member].flushed.saturating_sub(self.rng.random_range(0..10));
            self.log.purged[member] = self.log.purged[member].max(bound);
            self.tell(format_args!("{member} has purged its log up to {bound}"));
        }
    }

    // Applying.

    fn apply_some(&mut self) {
        if let Some(member) = self.any_running() {
            let count = self.rng.random_range(1..30);
            self.apply(member, count);
        }
    }

    fn apply(&mut self, member: usize, count: u64) {
        let first = self.members[member].applied() + 1;
        let last = self.log.committed.min(self.log.received[member]).min(first - 1 + count);
        for index in first..=last {
            let (position, payload) = self.log.get(member, index);
            let done = self.members[member].apply(position, &payload);
            self.history.applied(member, index, &done);
            if self.log.leader == Some(member) {
                self.leader_applied(member, position, &done.effects.leases);
            }
            if index % COMPARED_EVERY == 0 {
                let state = self.members[member].state();
                self.history.state(member, index, state);
                self.compare_keys(member);
            }
        }
        if first <= last {
            self.tell(format_args!("{member} has applied up to {last}"));
        }
    }

    /// What the leader's clients, and its own lessor, learn from an entry.
    fn leader_applied(&mut self, leader: usize, position: LogPosition, changes: &[LeaseChange]) {
        let LogPosition { term, index } = position;
        // Nobody gets an answer from a leader that applies what another one took in.
        let is_answered = term == self.log.term;
        for change in changes {
            match *change {
                LeaseChange::Granted(id, lease) if is_answered => {
                    self.promises.promise(id, lease.ttl_secs, self.now_ms);
                }
                LeaseChange::Granted(..) => {}
                LeaseChange::Revoked(id) => self.promises.end(id),
                LeaseChange::Recorded(..) | LeaseChange::Checkpointed(_) | LeaseChange::Read(_) => {}
            }
        }
        if index == self.log.first_of_term {
            self.members[leader].lead(term, EXTEND_MS);
            self.is_serving = true;
        }
        for renewal in self.pending.extract_if(.., |renewal| renewal.index <= index) {
            if renewal.index == index && renewal.term == term {
                self.promises.promise(renewal.id, renewal.ttl_secs, renewal.at_ms);
            }
        }
    }

    fn compare_keys(&mut self, member: usize) {
        let running = self.members[member].running();
        let (lowest, current) = (running.store.compacted().max(1), running.store.revision());
        let revision = self.rng.random_range(lowest..=current);
        assert_eq!(
            self.members[member].keys(revision),
            self.history.keys(revision),
            "{member} at {revision}"
        );
    }

    // Time and leases.

    fn grant(&mut self) {
        let living = |leader: usize| self.members[leader].running.as_ref().map_or(0, |r| r.lessor.len());
        if self.log.leader.is_none_or(|leader| living(leader) >= LEASES_MAX) {
            return;
        }
        let ttl_secs = self.source().ttl();
        let id = self.next_id;
        self.next_id += 1;
        self.leases.push(id);
        let old = self.leases.len().saturating_sub(2 * LEASES_MAX);
        self.leases.drain(..old);
        self.propose(Origin::Server, Command::LeaseGrant { id, ttl_secs });
    }

    /// The leader, if it can be sure that it is.
    fn certain_leader(&self) -> Option<usize> {
        let leader = self.log.leader.filter(|_| self.is_serving)?;
        let connected = self.connected();
        (connected.contains(&leader) && connected.len() > self.members.len() / 2).then_some(leader)
    }

    fn renew(&mut self) {
        let (Some(leader), Some(&id)) = (self.certain_leader(), self.leases.choose(&mut self.rng)) else {
            return;
        };
        let member = &mut self.members[leader];
        let now_ms = member.lease_ms();
        let lessor = &mut member.running().lessor;
        let Renewal::Renewed { ttl_secs, must_record } = lessor.renew(id, now_ms) else { return };
        let since_ms = if must_record { lessor.records(&[id], !self.records_at_once) } else { Vec::new() };
        self.tell(format_args!("{leader} renews lease {id}, and must record that: {must_record}"));
        if !must_record {
            self.promises.promise(id, ttl_secs, self.now_ms);
        } else if let Some(index) = self.propose(Origin::Server, Command::LeaseRecord { now_ms, since_ms }) {
            let (at_ms, term) = (self.now_ms, self.log.term);
            self.pending.push(PendingRenewal { id, ttl_secs, at_ms, term, index });
        }
    }

    /// A member asks the leader for the time, and perhaps it is one that leads no more.
    fn ask_for_time(&mut self) {
        let (Some(asked), Some(member)) = (self.any_running(), self.any_running()) else { return };
        let local_ms = self.members[asked].clock_ms;
        let reading = self.members[asked].running().clock.reading(local_ms);
        if let Some(reading) = reading.filter(|_| asked != member) {
            let local_ms = self.members[member].clock_ms;
            self.members[member].running().clock.hear(reading, local_ms);
        }
    }

    fn pass_time(&mut self) {
        let ms = self.rng.random_range(0..3_000);
        self.pass(ms);
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        for member in &mut self.members {
            member.pass(ms);
        }
        let Some(leader) = self.log.leader.filter(|_| self.is_serving) else { return };
        let member = &mut self.members[leader];
        let now_ms = member.lease_ms();
        let lessor = &mut member.running().lessor;
        let expired = lessor.expired(now_ms, EXPIRED_PER_STEP);
        let due = lessor.due_records(now_ms, self.records_at_once, EXPIRED_PER_STEP);
        for id in &expired {
            self.promises.check_expiry(*id, self.now_ms);
        }
        if !expired.is_empty() {
            self.propose(Origin::Server, Command::LeaseRevoke { ids: expired, expired: true });
        }
        if !due.is_empty() {
            self.propose(Origin::Server, Command::LeaseRecord { now_ms, since_ms: due });
        }
    }

    // Faults, and the disk.

    fn write_to_disk(&mut self) {
        let Some(member) = self.any_running() else { return };
        let rows = self.rng.random_range(1..20);
        match self.rng.random_range(0..20) {
            0..8 => self.members[member].freeze(),
            8..15 => self.members[member].flush(),
            15..19 => self.members[member].running().store.remove_compacted(rows).expect("a removal"),
            _ => {
                self.stop_leading(member);
                self.members[member].defragment();
                self.lose_watchers(member);
            }
        }
    }

    fn kill(&mut self) {
        if let Some(member) = self.any_running() {
            self.stop_leading(member);
            self.members[member].kill();
            self.lose_watchers(member);
            self.tell(format_args!("{member} dies"));
        }
    }

    fn stop_leading(&mut self, member: usize) {
        if self.log.leader == Some(member) {
            self.log.leader = None;
            self.is_serving = false;
        }
    }

    fn lose_watchers(&mut self, member: usize) {
        self.clients.iter_mut().filter(|client| client.member() == Some(member)).for_each(Client::lose);
    }

    fn restart(&mut self) {
        let running = self.running();
        if let Some(member) = (0..self.members.len()).find(|member| !running.contains(member)) {
            self.members[member].start();
            let flushed = self.members[member].flushed;
            self.tell(format_args!("{member} starts at {flushed}"));
        }
    }

    fn cut_off(&mut self) {
        let member = self.rng.random_range(0..self.members.len());
        self.members[member].is_cut_off ^= true;
    }

    // Watchers.

    fn watch(&mut self) {
        if self.clients.len() < CLIENTS_MAX {
            let spec = self.source().spec();
            let revision = self.history.revision();
            let next = self.rng.random_bool(0.6).then(|| self.rng.random_range(1..revision + 3));
            self.clients.push(Client::new(self.next_id, spec, next));
            self.next_id += 1;
        } else {
            let gone = self.rng.random_range(0..CLIENTS_MAX);
            let mut client = self.clients.swap_remove(gone);
            if let Some(member) = client.member() {
                client.close(self.members[member].running());
            }
        }
    }

    fn serve_watchers(&mut self) {
        let running = self.running();
        if running.is_empty() {
            return;
        }
        for n in 0..self.clients.len() {
            let client = &mut self.clients[n];
            match client.member() {
                None if self.rng.random_bool(0.3) => {
                    let member = *running.choose(&mut self.rng).expect("not empty");
                    client.open(member, self.members[member].running());
                }
                Some(member) if self.rng.random_bool(0.1) => {
                    client.ask_progress(self.members[member].running());
                }
                Some(_) if self.rng.random_bool(0.3) => {
                    client.read(self.rng.random_range(1..20), &self.members, &self.history);
                }
                _ => {}
            }
        }
        for member in running {
            if self.rng.random_bool(0.5) {
                self.members[member].running().hub.step();
            }
        }
    }

    // The end.

    /// Heals everything, and waits until everyone knows everything.
    fn settle(&mut self) {
        for member in 0..self.members.len() {
            self.members[member].is_cut_off = false;
            if self.members[member].running.is_none() {
                self.members[member].start();
            }
        }
        for _ in 0..1000 {
            if self.log.leader.is_some() {
                break;
            }
            self.elect();
        }
        for member in [1, 2] {
            for alarm in [AlarmKind::NoSpace, AlarmKind::Corrupt] {
                self.propose(Origin::Server, Command::Alarm { activate: false, member, alarm });
            }
        }
        self.spread();
        self.compare();
        self.finish_watchers();
        self.finish_leases();
        self.compare();
        self.compare_rows();
    }

    /// Everyone receives and applies everything.
    fn spread(&mut self) {
        let leader = self.log.leader.expect("elected among all");
        for member in 0..self.members.len() {
            self.receive_from(leader, member, u64::MAX / 2);
            self.receive_from(leader, member, u64::MAX / 2); // what is behind a state
        }
        assert_eq!(self.log.committed, self.log.last(), "all that can be committed is");
        for member in 0..self.members.len() {
            self.apply(member, u64::MAX / 2);
        }
    }

    fn compare(&mut self) {
        let index = self.log.last();
        for member in 0..self.members.len() {
            assert_eq!(self.members[member].applied(), index);
            let state = self.members[member].state();
            self.trace = crc32c::crc32c_append(self.trace, state.as_bytes());
            self.history.state(member, index, state);
            self.compare_keys(member);
        }
    }

    fn finish_watchers(&mut self) {
        for round in 0.. {
            for n in 0..self.clients.len() {
                let client = &mut self.clients[n];
                if client.member().is_none() {
                    let member = self.rng.random_range(0..self.members.len());
                    client.open(member, self.members[member].running());
                }
                while client.read(100, &self.members, &self.history) {}
            }
            self.members.iter_mut().for_each(|member| member.running().hub.step());
            if self.clients.iter().all(|client| client.is_complete(&self.history)) {
                break;
            }
            let waiting = self.clients.iter().find(|client| !client.is_complete(&self.history));
            assert!(round < 1000, "{}", waiting.map(Client::describe).unwrap_or_default());
        }
        let seen: usize = self.clients.iter().map(|client| client.seen).sum();
        self.tell(format_args!("clients have seen {seen} changes"));
    }

    /// Nobody renews any more: every lease must end, and its keys with it, everywhere.
    fn finish_leases(&mut self) {
        // As long as the slowest clock takes, from a leader that has just begun.
        let longest_secs = TTL_MAX_SECS.unsigned_abs() * 12 / 10 + EXTEND_MS / 1_000 + 10;
        for _ in 0..longest_secs {
            self.pass(1_000);
            self.spread();
        }
        for member in &mut self.members {
            assert!(member.running().applier.leases().is_empty(), "leases live for ever");
            let attached = member.keys(0).into_iter().find(|(_, _, lease)| *lease != 0);
            assert_eq!(attached, None, "a key outlives its lease");
        }
    }

    fn compare_rows(&mut self) {
        self.members.iter_mut().for_each(Member::tidy);
        let first = self.members[0].rows();
        for member in 1..self.members.len() {
            assert_eq!(self.members[member].rows(), first, "tables of member {member}");
        }
    }
}
