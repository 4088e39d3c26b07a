//! The thread that hands applied changes to synced watchers.

use super::keys::KeyMap;
use super::{Inner, Matched, State, Watcher, WatcherKey};
use crate::metrics::METRICS;
use crate::mvcc::EventBatch;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Runs until the hub is stopped.
pub(super) fn run(inner: &Inner) {
    while let Some(batches) = next(inner) {
        hand_out(inner, &batches);
    }
}

/// Hands out what is queued now.
pub(super) fn step(inner: &Inner) {
    let batches = std::mem::take(&mut inner.queue.lock().batches);
    hand_out(inner, &batches);
}

fn hand_out(inner: &Inner, batches: &[Arc<EventBatch>]) {
    let mut fell_behind = false;
    for chunk in batches.chunks(64) {
        // In chunks, so that a new watcher need not wait long for the lock.
        let mut state = inner.state.lock();
        for batch in chunk {
            fell_behind |= distribute(&mut state, batch);
            inner.end_those_up_to(&mut state, batch.revision);
        }
        answer_asked(&mut state);
        drop(state);
        inner.bells.ring();
    }
    if fell_behind {
        inner.want_replay();
    }
}

fn next(inner: &Inner) -> Option<Vec<Arc<EventBatch>>> {
    let mut queue = inner.queue.lock();
    queue.is_distributing = false;
    while queue.batches.is_empty() {
        if queue.is_closed {
            return None;
        }
        inner.queue_filled.wait(&mut queue);
    }
    queue.is_distributing = true;
    inner.queue_filled.notify_all(); // the applier may wait for room
    Some(std::mem::take(&mut queue.batches))
}

/// Answers requests for progress whose time has come.
pub(super) fn answer_asked(state: &mut State) {
    let mut asked = std::mem::take(&mut state.asked);
    asked.retain(|asked| {
        let is_due = state.distributed >= asked.revision;
        if is_due {
            asked.answer(state, state.distributed);
        }
        !is_due
    });
    state.asked = asked;
}

/// Delivers one revision; whether some watcher had no room for it.
fn distribute(state: &mut State, batch: &EventBatch) -> bool {
    state.distributed = state.distributed.max(batch.revision); // behind it only after a jump
    let mut found: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    let mut groups = Vec::new();
    for (position, event) in batch.events.iter().enumerate() {
        groups.clear();
        state.index.matches(&event.key, &mut groups);
        for &group in &groups {
            found.entry(group).or_default().push(position);
        }
    }
    let (mut full, mut handed) = (Vec::new(), 0);
    for (id, positions) in found {
        let group = &state.groups[&id];
        let wanted = positions.into_iter().map(|p| &batch.events[p]).filter(|e| group.spec.wants(e));
        let events: Vec<_> = wanted.cloned().collect();
        if events.is_empty() {
            continue;
        }
        let matched = Arc::new(Matched::new(batch.revision, events));
        for key in &group.members {
            if deliver(&mut state.watchers, *key, &matched, &mut full) {
                handed += matched.events.len();
            }
        }
    }
    METRICS.watch.events.inc_by(handed as u64);
    for key in &full {
        state.leave_group(*key);
        state.unsynced.insert(*key);
    }
    !full.is_empty()
}

/// Whether the watcher got it.
fn deliver(
    watchers: &mut KeyMap<Watcher>,
    key: WatcherKey,
    matched: &Arc<Matched>,
    full: &mut Vec<WatcherKey>,
) -> bool {
    let watcher = watchers.get_mut(&key).expect("a group's member exists");
    if watcher.next > matched.revision || watcher.end <= matched.revision {
        return false; // it starts later, was given this by the replay, or is about to end
    }
    let has_room = watcher.stream.push_events(watcher.id, matched);
    if has_room {
        watcher.next = matched.revision + 1;
        watcher.was_active = true;
    } else {
        watcher.next = matched.revision;
        full.push(key);
    }
    has_room
}
