//! The thread that lets unsynced watchers catch up from history, many of them in one pass over it.

use super::{Delivery, Inner, Matched, Spec, Watcher, WatcherKey, is_compacted};
use crate::metrics::METRICS;
use crate::mvcc::{Event, EventBatch, history::Limit};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Watchers served in one pass.
const WATCHERS_PER_PASS: usize = 512;
/// History read in one pass.
const STEP: Limit = Limit { revisions: 1000, bytes: 6 << 20 };
/// Pause after history could not be read: nobody else would wake the watchers that wait for it.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// Runs until the hub is stopped.
pub(super) fn run(inner: &Inner) {
    loop {
        {
            let mut signal = inner.replay.lock();
            while !signal.wanted {
                if signal.is_closed {
                    return;
                }
                inner.replay_wanted.wait(&mut signal);
            }
            if signal.is_closed {
                return;
            }
            signal.wanted = false;
        }
        catch_up(inner);
    }
}

/// Serves whoever waits for history now.
pub(super) fn step(inner: &Inner) {
    if std::mem::take(&mut inner.replay.lock().wanted) {
        catch_up(inner);
    }
}

fn catch_up(inner: &Inner) {
    let mut after = 0;
    while let Some(last) = pass(inner, after) {
        after = last;
    }
}

struct Pass {
    keys: Vec<Behind>,
    from: i64,
}

/// A watcher that is not synced, as of when it was chosen.
struct Behind {
    key: WatcherKey,
    next: i64,
    end: i64,
    spec: Spec,
}

/// Serves the next watchers behind `after`; returns the last of them, or `None` when nobody could be served.
fn pass(inner: &Inner, after: WatcherKey) -> Option<WatcherKey> {
    let pass = choose(inner, after)?;
    let last = pass.keys.last()?.key;
    let current = inner.store.revision(); // before history is read: nothing found means nothing up to here
    match inner.store.history(pass.from, STEP) {
        Ok(batches) => deliver(inner, &pass, &batches, current),
        Err(e) if is_compacted(&e) => {} // the next pass cancels whoever wanted it
        Err(e) => {
            tracing::error!(error = %e, "reading history for watchers failed; trying again");
            std::thread::sleep(AFTER_ERROR);
            inner.want_replay();
            return None;
        }
    }
    Some(last)
}

/// Cancels watchers whose next revision is gone, and picks up to a pass full of those whose streams have room. When none
/// is left behind `after`, starts again from the first.
fn choose(inner: &Inner, after: WatcherKey) -> Option<Pass> {
    let compacted = inner.store.compacted();
    let mut state = inner.state.lock();
    let behind: Vec<WatcherKey> = state.unsynced.iter().copied().collect();
    let mut gone = Vec::new();
    let mut keys = Vec::new();
    let split = behind.partition_point(|key| *key <= after);
    for key in behind[split..].iter().chain(&behind[..split]) {
        let watcher = &state.watchers[key];
        if watcher.next < compacted {
            gone.push(*key);
        } else if keys.len() < WATCHERS_PER_PASS && watcher.stream.wants_replay() {
            let Watcher { next, end, ref spec, .. } = *watcher;
            keys.push(Behind { key: *key, next, end, spec: spec.clone() });
        }
    }
    for key in gone {
        if let Some(watcher) = inner.remove(&mut state, key) {
            watcher.stream.push_control(Delivery::Compacted { id: watcher.id, compacted });
            watcher.stream.ring();
        }
    }
    let from = keys.iter().map(|behind| behind.next).min()?;
    // Whoever is far ahead of the slowest is better served in a later pass.
    keys.retain(|behind| behind.next < from + STEP.revisions as i64);
    Some(Pass { keys, from })
}

fn deliver(inner: &Inner, pass: &Pass, batches: &[Arc<EventBatch>], current: i64) {
    let mut matched: HashMap<(&Spec, i64, i64), Option<Arc<Matched>>> = HashMap::new();
    let last = batches.last().map_or(current.max(pass.from - 1), |b| b.revision);
    for behind in &pass.keys {
        let Behind { next, end, spec, .. } = behind;
        let found = matched.entry((spec, *next, *end)).or_insert_with(|| find(behind, last, batches));
        hand_over(inner, behind, last, found.as_ref());
    }
    inner.bells.ring();
}

/// What a watcher wants of batches that are complete up to `last`.
fn find(behind: &Behind, last: i64, batches: &[Arc<EventBatch>]) -> Option<Arc<Matched>> {
    let Behind { next, end, spec, .. } = behind;
    let events: Vec<Event> = batches
        .iter()
        .filter(|batch| (*next..*end).contains(&batch.revision))
        .flat_map(|batch| &batch.events)
        .filter(|event| spec.range.contains(&event.key) && spec.wants(event))
        .cloned()
        .collect();
    (!events.is_empty()).then(|| Arc::new(Matched::new(last, events)))
}

/// Gives a watcher what was found for it up to `last`, and lets it join the synced ones if that is all there is.
fn hand_over(inner: &Inner, &Behind { key, next, .. }: &Behind, last: i64, found: Option<&Arc<Matched>>) {
    let mut state = inner.state.lock();
    let undistributed_after = inner.undistributed_after(&state);
    let Some(watcher) = state.watchers.get_mut(&key) else { return };
    if watcher.next != next || watcher.group.is_some() {
        return; // changed while we read
    }
    if let Some(matched) = found {
        if !watcher.stream.push_replayed(watcher.id, matched) {
            return;
        }
        watcher.was_active = true;
        METRICS.watch.events.inc_by(matched.events.len() as u64);
    }
    watcher.next = next.max(last + 1);
    if watcher.next >= watcher.end {
        inner.end(&mut state, key);
    } else if watcher.next > undistributed_after {
        // What is still to be distributed below `next` will be passed over, what is above it delivered.
        if watcher.tells_caught_up {
            let (id, revision) = (watcher.id, watcher.next - 1);
            watcher.stream.push_control(Delivery::Progress { id, revision });
        }
        state.join_group(key);
    }
}
