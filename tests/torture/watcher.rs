//! Watchers of everything. Each resumes behind what it saw, on another member now and then, and in the end has seen all
//! revisions once, whole and in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;

use crate::clients::Shared;
use crate::cluster::Api;
use crate::history::{Event, event};

/// When each key was first seen to be deleted, in microseconds since the start.
pub type Deletes = Arc<Mutex<BTreeMap<String, u64>>>;

/// Events by revision, as one watcher saw them.
pub type Seen = BTreeMap<i64, Vec<Event>>;

/// One watcher, until it has seen the last revision, which is told once it is known.
pub async fn watcher(
    shared: Arc<Shared>,
    seed: u64,
    deletes: Deletes,
    mut last: watch::Receiver<Option<i64>>,
) -> Result<Seen, String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut seen = Seen::new();
    loop {
        let api = shared.api(&mut rng);
        follow(&api, &shared, &mut rng, &deletes, &mut seen, &mut last).await?;
        if is_done(&seen, *last.borrow()) {
            return Ok(seen);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_done(seen: &Seen, last: Option<i64>) -> bool {
    last.is_some_and(|last| last <= seen.last_key_value().map_or(1, |(&revision, _)| revision))
}

/// Watches on one member until the stream breaks, the watcher wants another, or everything was seen.
async fn follow(
    api: &Api,
    shared: &Shared,
    rng: &mut StdRng,
    deletes: &Deletes,
    seen: &mut Seen,
    last: &mut watch::Receiver<Option<i64>>,
) -> Result<(), String> {
    let from = seen.last_key_value().map_or(2, |(&revision, _)| revision + 1);
    let starting = tokio::time::timeout(Duration::from_secs(1), api.watch(b"\0", b"\0", from));
    let Ok(Ok(mut stream)) = starting.await else { return Ok(()) };
    while !is_done(seen, *last.borrow()) {
        let answer = match tokio::time::timeout(Duration::from_millis(300), stream.answers.message()).await {
            Ok(Ok(Some(answer))) => answer,
            // Nothing came: the member may be cut off.
            Err(_) if rng.random_bool(0.7) => continue,
            _ => return Ok(()),
        };
        if answer.canceled {
            return if answer.compact_revision == 0 { Ok(()) } else { Err(format!("cancelled: {answer:?}")) };
        }
        let now = shared.journal.now();
        append(seen, answer.events.iter().map(event))?;
        for (_, event) in answer.events.iter().map(event).filter(|(_, event)| event.pair.is_none()) {
            deletes.lock().entry(event.key).and_modify(|at| *at = now.min(*at)).or_insert(now);
        }
        if rng.random_bool(0.01) {
            return Ok(());
        }
    }
    Ok(())
}

/// Takes in the events of one answer: behind all before it, in order, no revision in two answers.
pub fn append(seen: &mut Seen, events: impl Iterator<Item = (i64, Event)>) -> Result<(), String> {
    let before = seen.last_key_value().map_or(1, |(&revision, _)| revision);
    let mut last = before;
    for (revision, event) in events {
        if revision <= before || revision < last {
            return Err(format!("a watch showed {event:?} at {revision} after {before} and {last}"));
        }
        last = revision;
        seen.entry(revision).or_default().push(event);
    }
    Ok(())
}

/// A watcher saw exactly the history, up to what it saw last.
pub fn check(seen: &Seen, history: &BTreeMap<i64, Vec<Event>>) -> Result<(), String> {
    for (revision, events) in history {
        let found = seen.get(revision).map(Vec::as_slice).unwrap_or_default();
        if found != events {
            return Err(format!("a watcher saw {found:?} at {revision}, which is {events:?}"));
        }
    }
    Ok(())
}
