//! What clients know: what they asked for, and what they were told. Plain data, written by the load, read by the checks.

use std::collections::BTreeMap;

pub type Key = Vec<u8>;

/// One change of one key.
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    Put { key: Key, value: Vec<u8>, lease: i64 },
    Delete { key: Key },
}

impl Change {
    pub fn key(&self) -> &Key {
        match self {
            Change::Put { key, .. } | Change::Delete { key } => key,
        }
    }
}

impl std::fmt::Debug for Change {
    /// Values can be long; their first bytes tell who wrote them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(32)]).into_owned();
        match self {
            Change::Put { key, value, lease } => {
                write!(f, "put {}={} ({} bytes, lease {lease})", text(key), text(value), value.len())
            }
            Change::Delete { key } => write!(f, "delete {}", text(key)),
        }
    }
}

/// A live key, besides its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub value: Vec<u8>,
    pub created: i64,
    pub modified: i64,
    pub version: i64,
    pub lease: i64,
}

/// A change as a watch shows it.
#[derive(Clone, Debug)]
pub struct Event {
    pub change: Change,
    pub created: i64,
    pub version: i64,
    /// The pair before; left out when it was not visible any more, so no part of what makes events equal.
    pub previous: Option<Pair>,
}

impl PartialEq for Event {
    fn eq(&self, other: &Event) -> bool {
        (&self.change, self.created, self.version) == (&other.change, other.created, other.version)
    }
}

/// Changes by revision.
pub type History = BTreeMap<i64, Vec<Event>>;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server died before it answered: done or not.
    Unknown,
    /// Acknowledged, at this revision.
    Done(i64),
    /// Acknowledged as without effect.
    Nothing,
}

/// A write of the load.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// What it changes, in order, in one revision.
    pub changes: Vec<Change>,
    /// It takes effect only while the first changed key has this `mod_revision`.
    pub guard: Option<i64>,
    /// The lease that it revokes.
    pub revokes: Option<i64>,
    /// It must come behind this revision: the last one that its task knew when it asked.
    pub after: i64,
    pub outcome: Outcome,
}

/// A digest of history that the server gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    pub revision: i64,
    pub compacted: i64,
    pub hash: u32,
}

/// What the tasks of one round did.
#[derive(Debug, Default)]
pub struct Journal {
    pub attempts: Vec<Attempt>,
    /// Leases asked for: id, and whether that was acknowledged.
    pub grants: Vec<(i64, bool)>,
    /// Leases without keys that were revoked: id, and whether that was acknowledged.
    pub revokes: Vec<(i64, bool)>,
    /// Compactions asked for: revision, and whether that was acknowledged.
    pub compactions: Vec<(i64, bool)>,
    pub digests: Vec<Digest>,
}

impl Journal {
    /// Takes in what another task did.
    pub fn join(&mut self, other: Journal) {
        self.attempts.extend(other.attempts);
        self.grants.extend(other.grants);
        self.revokes.extend(other.revokes);
        self.compactions.extend(other.compactions);
        self.digests.extend(other.digests);
    }
}
