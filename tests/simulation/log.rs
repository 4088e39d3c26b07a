//! The consensus of a simulated cluster: one log of which every member has received a prefix.
//!
//! Entries are committed as in Raft: a majority has received them, and the last of them is of the leader's own term. A leader
//! is elected only if it has received as much as a majority. What it lacks is cut off, so proposals get lost. Cutting off is
//! simpler than in Raft: members that cannot be reached lose what they have too much at once.

use kvist::engine::Origin;
use kvist::engine::apply::LogPosition;
use kvist::engine::command::Command;
use kvist::engine::entry::Entry;

/// What an entry carries.
#[derive(Clone)]
pub enum Payload {
    /// A new leader's first.
    Blank,
    /// Who takes part; opaque, as it is to the applier.
    Membership(Vec<u8>),
    /// A command.
    Command(Entry),
}

/// The log. Indexes begin with 1.
pub struct Log {
    entries: Vec<(u64, Payload)>,
    /// How much each member has received, durably.
    pub received: Vec<u64>,
    /// Up to where everything is certain.
    pub committed: u64,
    /// Up to where each member has no entries any more.
    pub purged: Vec<u64>,
    /// The term of the newest leader.
    pub term: u64,
    /// Who leads, if anybody does.
    pub leader: Option<usize>,
    /// The newest leader's first entry: once it is applied there, the leader serves.
    pub first_of_term: u64,
}

impl Log {
    pub fn new(members: usize) -> Log {
        Log {
            entries: Vec::new(),
            received: vec![0; members],
            committed: 0,
            purged: vec![0; members],
            term: 0,
            leader: None,
            first_of_term: 0,
        }
    }

    fn majority(&self) -> usize {
        self.received.len() / 2 + 1
    }

    /// Index of the last entry.
    pub fn last(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The entry at a position, as a member has it.
    pub fn get(&self, member: usize, index: u64) -> (LogPosition, Payload) {
        let kept = self.purged[member] + 1..=self.received[member];
        assert!(kept.contains(&index), "member {member} has {kept:?}, not {index}");
        let (term, payload) = self.entries[index as usize - 1].clone();
        (LogPosition { term, index }, payload)
    }

    /// Makes `member` the leader, if those of `voters` that have no more than it are a majority.
    pub fn elect(&mut self, member: usize, voters: &[usize]) -> bool {
        let own = self.received[member];
        if voters.iter().filter(|voter| self.received[**voter] <= own).count() < self.majority() {
            return false;
        }
        assert!(own >= self.committed, "a leader lacks what is committed");
        self.entries.truncate(own as usize);
        for received in &mut self.received {
            *received = own.min(*received);
        }
        self.term += 1;
        self.leader = Some(member);
        self.first_of_term = self.append(Payload::Blank);
        true
    }

    /// The leader takes in an entry; returns its index.
    pub fn append(&mut self, payload: Payload) -> u64 {
        let leader = self.leader.expect("only a leader appends");
        self.entries.push((self.term, payload));
        self.received[leader] = self.last();
        self.advance();
        self.last()
    }

    /// A member receives up to `count` entries from the leader. False if it needs some that the leader has not any more.
    pub fn receive(&mut self, leader: usize, member: usize, count: u64) -> bool {
        let received = self.received[member];
        if received < self.purged[leader] {
            return false;
        }
        self.received[member] = self.last().min(received + count);
        self.advance();
        true
    }

    /// A member has got a state that stands for everything up to `index`.
    pub fn skip_to(&mut self, member: usize, index: u64) {
        self.received[member] = index;
        self.purged[member] = index;
    }

    fn advance(&mut self) {
        let mut received = self.received.clone();
        received.sort_unstable_by(|a, b| b.cmp(a));
        let candidate = received[self.majority() - 1];
        let is_own = |index: u64| self.entries[index as usize - 1].0 == self.term;
        if candidate > self.committed && is_own(candidate) {
            self.committed = candidate;
        }
    }
}

/// An entry as it comes out of the log: decoded from its bytes.
pub fn entry(origin: Origin, command: Command, time_ms: u64) -> Entry {
    let bytes = Entry::new(origin, command, time_ms).bytes().clone();
    Entry::decode(bytes).expect("an entry that was just encoded")
}
