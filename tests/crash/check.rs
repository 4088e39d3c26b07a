//! What must hold after every restart. Keeps the verified history and folds it into the state that it leads to.

use std::collections::{BTreeMap, BTreeSet};

use kvist::pb::etcdserverpb as pb;

use crate::admin::TTL_SECS;
use crate::client::{Clients, patient};
use crate::journal::{Attempt, Change, Digest, Event, History, Journal, Key, Outcome, Pair};
use crate::watcher::{Seen, Watcher, append};

/// All that was verified so far.
pub struct Checker {
    /// Every revision up to here was checked.
    pub verified: i64,
    /// Last compaction, or 0.
    pub compacted: i64,
    pub state: BTreeMap<Key, Pair>,
    /// Leases alive.
    pub leases: BTreeSet<i64>,
    /// From the compacted revision to the verified one.
    history: History,
    /// What the server said of its history; it must say it again.
    digests: Vec<Digest>,
}

impl Checker {
    /// The state of a new member.
    pub fn new() -> Checker {
        Checker {
            verified: 1,
            compacted: 0,
            state: BTreeMap::new(),
            leases: BTreeSet::new(),
            history: History::new(),
            digests: Vec::new(),
        }
    }

    /// Compares the restarted server with what clients know. `seen` is what each watcher saw since the last check, the
    /// first of them everything; `floor` the highest revision that any answer told.
    pub async fn check(
        &mut self,
        clients: &Clients,
        mut journal: Journal,
        seen: &[(&Watcher, Seen)],
        floor: i64,
    ) {
        let (current, state) = clients.all().await;
        assert!(
            current >= floor,
            "revision {floor} was told before the crash, the server is at {current} now"
        );
        self.check_compaction(clients, &journal).await;
        let replay = replay(clients, self.compacted.max(1), current).await;
        let fresh = self.merge(replay, seen.first().map(|(_, seen)| &seen.history), current);
        for (&revision, events) in &fresh {
            self.fold(revision, events);
        }
        let unfinished = self.match_attempts(&fresh, &mut journal.attempts);
        self.history.extend(fresh);
        self.verified = current;
        for (watcher, seen) in seen {
            self.check_watcher(watcher, seen);
        }
        self.history = self.history.split_off(&self.compacted);
        assert!(
            state == self.state,
            "the state is not what the history leads to: {}",
            difference(&state, &self.state)
        );
        self.check_leases(clients, &journal, &unfinished).await;
        self.check_digests(clients, &journal).await;
    }

    /// Finds the compacted revision: at least what was acknowledged, and something that was asked for.
    async fn check_compaction(&mut self, clients: &Clients, journal: &Journal) {
        let mut stream = clients.watch((b"\0", b"\0"), 1).await;
        let acknowledged = journal.compactions.iter().filter(|c| c.1).map(|c| c.0).max().unwrap_or(0);
        let before = self.compacted;
        // Without a compaction the stream shows history, or nothing at all if there is none.
        let is_expected = before > 0 || acknowledged > 0;
        let is_possible = is_expected || !journal.compactions.is_empty();
        if is_possible {
            let answer = patient(stream.answers.message()).await.expect("watch").expect("an answer");
            assert!(
                answer.canceled || !is_expected,
                "compacted to {before} and {acknowledged}, yet: {answer:?}"
            );
            self.compacted = answer.compact_revision;
        }
        assert!(self.compacted >= before.max(acknowledged), "compaction to {acknowledged} was lost");
        let was_asked = journal.compactions.iter().any(|c| c.0 == self.compacted);
        assert!(self.compacted == before || was_asked, "nobody compacted to {}", self.compacted);
    }

    /// Joins what the server shows now with what it showed before, and returns what is new: without a gap.
    fn merge(&self, replay: History, watched: Option<&History>, current: i64) -> History {
        let first = self.compacted.max(2);
        let shown: Vec<i64> = replay.keys().copied().collect();
        assert_eq!(shown, (first..=current).collect::<Vec<_>>(), "history must be dense");
        for (revision, events) in replay.range(..=self.verified) {
            assert_eq!(Some(events), self.history.get(revision), "revision {revision} has changed");
        }
        let mut fresh: History =
            watched.map(|h| h.range(..first).map(|(r, e)| (*r, e.clone())).collect()).unwrap_or_default();
        fresh.extend(replay);
        let fresh = fresh.split_off(&(self.verified + 1));
        assert!(
            fresh.keys().copied().eq(self.verified + 1..=current),
            "revisions below the compaction are unknown"
        );
        fresh
    }

    /// Applies one revision to the state, and compares all that its events tell with it.
    fn fold(&mut self, revision: i64, events: &[Event]) {
        assert!(!events.is_empty());
        for event in events {
            let before = self.state.get(event.change.key());
            // At the compacted revision the pair before may be gone.
            if event.previous.is_some() || revision > self.compacted {
                assert_eq!(event.previous.as_ref(), before, "pair before {event:?} at {revision}");
            }
            match event.change.clone() {
                Change::Delete { key } => {
                    assert!(self.state.remove(&key).is_some(), "{event:?} at {revision}");
                }
                Change::Put { key, value, lease } => {
                    let (created, version) = before.map_or((revision, 1), |b| (b.created, b.version + 1));
                    assert_eq!((event.created, event.version), (created, version), "{event:?} at {revision}");
                    self.state.insert(key, Pair { value, created, modified: revision, version, lease });
                }
            }
        }
    }

    /// Every acknowledged write is at its revision, every other revision is one unanswered write, and nothing else is
    /// there. Returns the leases whose revocation was not answered, and whether it took place.
    fn match_attempts(&self, fresh: &History, attempts: &mut Vec<Attempt>) -> BTreeMap<i64, bool> {
        let mut acknowledged = BTreeMap::new();
        let mut open = Vec::new();
        for attempt in attempts.drain(..) {
            match attempt.outcome {
                Outcome::Nothing => {}
                Outcome::Unknown => open.push(attempt),
                Outcome::Done(revision) => {
                    if let Some(other) = acknowledged.insert(revision, attempt) {
                        panic!("{other:?} and {:?} were told the same revision", acknowledged[&revision]);
                    }
                }
            }
        }
        let mut unfinished: BTreeMap<i64, bool> =
            open.iter().filter_map(|a| Some((a.revokes?, false))).collect();
        for (&revision, events) in fresh {
            let is_same = |a: &Attempt| a.changes.iter().eq(events.iter().map(|e| &e.change));
            let attempt = acknowledged.remove(&revision).unwrap_or_else(|| {
                let found = open.iter().position(is_same);
                open.swap_remove(
                    found.unwrap_or_else(|| panic!("nobody wrote revision {revision}: {events:?}")),
                )
            });
            assert!(is_same(&attempt), "revision {revision} was told for {attempt:?}, but is {events:?}");
            assert!(revision > attempt.after, "{attempt:?} took effect at {revision}");
            if let Some(guard) = attempt.guard {
                let before = events[0].previous.as_ref().map_or(0, |p| p.modified);
                let is_visible = revision > self.compacted || before > 0;
                assert!(!is_visible || before == guard, "{attempt:?} took effect on {before} at {revision}");
            }
            if let Some(id) = attempt.revokes {
                unfinished.insert(id, true);
            }
        }
        assert!(acknowledged.is_empty(), "acknowledged writes are lost: {acknowledged:?}");
        unfinished
    }

    /// A watcher saw its part of history up to some revision: all of it, and nothing else.
    fn check_watcher(&self, watcher: &Watcher, seen: &Seen) {
        let Some((&last, _)) = seen.history.last_key_value() else { return };
        for revision in seen.from..=last {
            let events = self.history.get(&revision).map(Vec::as_slice).unwrap_or_default();
            let expected = events.iter().filter(|e| watcher.contains(e.change.key()));
            let found = seen.history.get(&revision).map(Vec::as_slice).unwrap_or_default();
            assert!(
                found.iter().eq(expected),
                "the watcher of {:?} saw {found:?} at {revision}",
                watcher.range
            );
        }
    }

    /// The last revision at which a watcher has something to see.
    pub fn last_for(&self, watcher: &Watcher) -> i64 {
        let concerns = |events: &Vec<Event>| events.iter().any(|e| watcher.contains(e.change.key()));
        self.history.iter().rev().find(|(_, events)| concerns(events)).map_or(0, |(revision, _)| *revision)
    }

    /// Leases are what the acknowledged requests made of them, and each has the keys that say so.
    async fn check_leases(&mut self, clients: &Clients, journal: &Journal, unfinished: &BTreeMap<i64, bool>) {
        let mut lease = clients.lease.clone();
        let answer =
            patient(lease.lease_leases(pb::LeaseLeasesRequest {})).await.expect("leases").into_inner();
        let found: BTreeSet<i64> = answer.leases.iter().map(|l| l.id).collect();
        let mut certain = std::mem::take(&mut self.leases);
        certain.extend(journal.grants.iter().filter(|g| g.1).map(|g| g.0));
        let mut possible: BTreeSet<i64> =
            certain.iter().copied().chain(journal.grants.iter().map(|g| g.0)).collect();
        for &(id, is_done) in &journal.revokes {
            certain.remove(&id);
            if is_done {
                possible.remove(&id);
            }
        }
        for (id, _) in unfinished.iter().filter(|(_, is_gone)| **is_gone) {
            assert!(certain.remove(id) && possible.remove(id), "lease {id} was revoked twice");
        }
        assert!(certain.is_subset(&found), "leases are lost: {:?}", certain.difference(&found));
        assert!(found.is_subset(&possible), "leases are back: {:?}", found.difference(&possible));
        for &id in &found {
            let request = pb::LeaseTimeToLiveRequest { id, keys: true };
            let left = patient(lease.lease_time_to_live(request)).await.expect("time to live").into_inner();
            assert_eq!(left.granted_ttl, TTL_SECS, "of lease {id}");
            assert!(
                (TTL_SECS - 3600..=TTL_SECS + 5).contains(&left.ttl),
                "lease {id} has {} s left",
                left.ttl
            );
            let keys = self.state.iter().filter(|(_, pair)| pair.lease == id).map(|(key, _)| key);
            assert!(left.keys.iter().eq(keys), "keys of lease {id}: {:?}", left.keys);
        }
        let dangling = self.state.iter().find(|(_, pair)| pair.lease != 0 && !found.contains(&pair.lease));
        assert!(dangling.is_none(), "a key outlived its lease: {dangling:?}");
        self.leases = found;
    }

    /// The digests of what was not compacted since are what they were, and new ones are taken for the next check.
    async fn check_digests(&mut self, clients: &Clients, journal: &Journal) {
        let mut known = std::mem::take(&mut self.digests);
        known.extend_from_slice(&journal.digests[journal.digests.len().saturating_sub(4)..]);
        for digest in known.into_iter().filter(|d| d.revision >= self.compacted) {
            let again = clients.hash_kv(digest.revision).await.expect("hash");
            if again.compact_revision == digest.compacted {
                assert_eq!(
                    again.hash, digest.hash,
                    "of history up to {} on {}",
                    digest.revision, digest.compacted
                );
            }
        }
        let now = clients.hash_kv(self.verified).await.expect("hash");
        self.digests =
            vec![Digest { revision: now.hash_revision, compacted: now.compact_revision, hash: now.hash }];
    }
}

/// All history from `from` up to `to`, by a watch.
async fn replay(clients: &Clients, from: i64, to: i64) -> History {
    let mut history = History::new();
    if to < from.max(2) {
        return history;
    }
    let mut stream = clients.watch((b"\0", b"\0"), from).await;
    while history.last_key_value().is_none_or(|(&last, _)| last < to) {
        let answer = patient(stream.answers.message()).await.expect("watch").expect("an answer");
        assert!(!answer.canceled, "the watch was cancelled: {answer:?}");
        append(&mut history, &answer.events, from - 1);
    }
    history
}

/// The first key on which two states differ.
fn difference(found: &BTreeMap<Key, Pair>, expected: &BTreeMap<Key, Pair>) -> String {
    let keys: BTreeSet<&Key> = found.keys().chain(expected.keys()).collect();
    let differs = keys.into_iter().find(|key| found.get(*key) != expected.get(*key));
    differs.map_or_else(String::new, |key| {
        format!("{}: {:?}, expected {:?}", String::from_utf8_lossy(key), found.get(key), expected.get(key))
    })
}
