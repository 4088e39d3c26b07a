//! What everyone must have seen: what each entry did the first time that a member applied it, each change of the keyspace,
//! and the state at some positions. Whoever comes later, or again, must say the same.

use bytes::Bytes;
use kvist::engine::watch::Spec;
use kvist::mvcc::Event;
use kvist::storage::codec::Image;
use kvist::types::{LeaseId, Revision};
use std::collections::BTreeMap;

use crate::member::Done;

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub revision: Revision,
    pub key: Bytes,
    /// With the value inside.
    pub image: Bytes,
}

impl Change {
    fn of(event: &Event) -> Change {
        let revision = Image::parse(&event.new).expect("an image").modified;
        Change { revision, key: event.key.clone(), image: event.new.clone() }
    }

    pub fn is_delete(&self) -> bool {
        Image::parse(&self.image).expect("an image").is_tombstone()
    }

    fn lease(&self) -> LeaseId {
        Image::parse(&self.image).expect("an image").meta().lease
    }
}

/// See the module.
#[derive(Default)]
pub struct History {
    entries: BTreeMap<u64, String>,
    states: BTreeMap<u64, String>,
    /// In order of revision.
    changes: Vec<Change>,
}

impl History {
    /// A member has applied the entry at `index`.
    pub fn applied(&mut self, member: usize, index: u64, done: &Done) {
        let first = self.entries.entry(index).or_insert_with(|| {
            let events = done.effects.batches.iter().flat_map(|batch| &batch.events);
            self.changes.extend(events.map(Change::of));
            done.text.clone()
        });
        assert_eq!(first, &done.text, "entry {index} does something else on member {member}");
    }

    /// A member has this state when the entry at `index` is its last.
    pub fn state(&mut self, member: usize, index: u64, state: String) {
        let first = self.states.entry(index).or_insert_with(|| state.clone());
        assert_eq!(first, &state, "member {member} has another state at {index}");
    }

    /// Revision of the last change that anybody has made.
    pub fn revision(&self) -> i64 {
        self.changes.last().map_or(1, |change| change.revision.main)
    }

    /// The changes from a revision on that a watcher with this spec must be told.
    pub fn from<'h>(&'h self, revision: i64, spec: &'h Spec) -> impl Iterator<Item = &'h Change> {
        let begin = self.changes.partition_point(|change| change.revision.main < revision);
        self.changes[begin..].iter().filter(|change| {
            let is_filtered = if change.is_delete() { spec.no_delete } else { spec.no_put };
            !is_filtered && spec.range.contains(&change.key)
        })
    }

    /// The keys at a revision: key, revision of the last change, lease.
    pub fn keys(&self, revision: i64) -> Vec<(Vec<u8>, i64, LeaseId)> {
        let mut keys = BTreeMap::new();
        for change in self.changes.iter().take_while(|change| change.revision.main <= revision) {
            match change.is_delete() {
                true => keys.remove(&change.key[..]),
                false => keys.insert(&change.key[..], (change.revision.main, change.lease())),
            };
        }
        keys.into_iter().map(|(key, (revision, lease))| (key.to_vec(), revision, lease)).collect()
    }
}
