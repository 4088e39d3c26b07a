//! The order in which changes took place, as a watch from the first revision shows it, and the states that follow from it.

use std::collections::BTreeMap;

use kvist::pb::mvccpb::{self, event::EventType};

use crate::journal::Pair;

/// One change of one key: what it is from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub key: String,
    /// `None` when the key was deleted.
    pub pair: Option<Pair>,
}

/// An event of the wire with its revision.
pub fn event(event: &mvccpb::Event) -> (i64, Event) {
    let kv = event.kv.as_ref().expect("an event has a key");
    let key = String::from_utf8(kv.key.clone()).expect("keys are text");
    let pair = match event.r#type() {
        EventType::Put => Some(Pair::of(kv)),
        EventType::Delete => None,
    };
    (kv.mod_revision, Event { key, pair })
}

/// Events by revision.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub events: BTreeMap<i64, Vec<Event>>,
    /// For each key what it was from a revision on, in order.
    states: BTreeMap<String, Vec<(i64, Option<Pair>)>>,
}

impl History {
    /// Takes in all events, and checks that they are a history: dense from revision 2 on, each key once in a revision, and
    /// the numbers of each pair those that follow from the pair before.
    pub fn new(events: BTreeMap<i64, Vec<Event>>) -> Result<History, String> {
        let mut history = History::default();
        for (expected, (&revision, changes)) in (2..).zip(&events) {
            if revision != expected {
                return Err(format!("history has a gap: {revision} where {expected} should be"));
            }
            for change in changes {
                history.take(revision, change)?;
            }
        }
        history.events = events;
        Ok(history)
    }

    fn take(&mut self, revision: i64, change: &Event) -> Result<(), String> {
        let states = self.states.entry(change.key.clone()).or_default();
        let (last, before) = states.last().copied().unwrap_or((0, None));
        if last == revision {
            return Err(format!("{change:?} is the second change of its key at {revision}"));
        }
        match change.pair {
            None if before.is_none() => {
                return Err(format!("{change:?} at {revision}: there was no such key"));
            }
            None => {}
            Some(pair) => {
                let (created, version) = before.map_or((revision, 1), |b| (b.created, b.version + 1));
                if (pair.created, pair.version, pair.modified) != (created, version, revision) {
                    return Err(format!("{change:?} at {revision} does not follow from {before:?}"));
                }
            }
        }
        states.push((revision, change.pair));
        Ok(())
    }

    /// The last revision; 1 when nothing was written.
    pub fn last(&self) -> i64 {
        self.events.last_key_value().map_or(1, |(&revision, _)| revision)
    }

    /// A key as of a revision.
    pub fn at(&self, key: &str, revision: i64) -> Option<Pair> {
        let states = self.states.get(key)?;
        let behind = states.partition_point(|(from, _)| *from <= revision);
        states[..behind].last()?.1
    }
}
