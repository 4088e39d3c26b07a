//! Plain values that every module speaks of. Imports nothing of ours.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Id of a lease; any `i64` except 0, which means "no lease" (etcd allows negative ids).
pub type LeaseId = i64;
/// Id of a member of the cluster; 0 means "none".
pub type MemberId = u64;

/// A position in the history of the store: `main` counts write transactions, `sub` orders the changes inside one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Revision {
    /// Store-wide counter; 1 is the empty store, the first write makes 2.
    pub main: i64,
    /// Position inside the write transaction, from 0.
    pub sub: u32,
}

impl Revision {
    /// A revision from its two halves.
    pub const fn new(main: i64, sub: u32) -> Revision {
        Revision { main, sub }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.main, self.sub)
    }
}

/// The end of a [`KeyRange`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum RangeEnd {
    /// Only the start key itself.
    Single,
    /// Every key from the start on.
    Unbounded,
    /// Every key from the start up to, and without, this one.
    Before(Bytes),
}

/// A set of neighbouring keys, as `key` and `range_end` name it on the wire (etcd-contract M-8).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct KeyRange {
    /// First key of the range.
    pub start: Bytes,
    /// Where it ends.
    pub end: RangeEnd,
}

impl KeyRange {
    /// The range that `key` and `range_end` mean: an empty end is one key, a single zero byte is "from key on",
    /// anything else is half open and may be empty.
    pub fn from_wire(key: Bytes, range_end: Bytes) -> KeyRange {
        let end = match range_end.as_ref() {
            [] => RangeEnd::Single,
            [0] => RangeEnd::Unbounded,
            _ => RangeEnd::Before(range_end),
        };
        KeyRange { start: key, end }
    }

    /// The range of one key.
    pub fn single(key: Bytes) -> KeyRange {
        KeyRange { start: key, end: RangeEnd::Single }
    }

    /// Every key there can be.
    pub fn all() -> KeyRange {
        KeyRange { start: Bytes::new(), end: RangeEnd::Unbounded }
    }

    /// Whether `key` lies in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            RangeEnd::Single => self.start == key,
            RangeEnd::Unbounded => &self.start[..] <= key,
            RangeEnd::Before(end) => &self.start[..] <= key && key < &end[..],
        }
    }

    /// Whether no key can lie in the range.
    pub fn is_empty(&self) -> bool {
        matches!(&self.end, RangeEnd::Before(end) if *end <= self.start)
    }

    /// Whether some key lies in both ranges.
    pub fn overlaps(&self, other: &KeyRange) -> bool {
        match (&self.end, &other.end) {
            (RangeEnd::Single, _) => other.contains(&self.start),
            (_, RangeEnd::Single) => self.contains(&other.start),
            _ => {
                !self.is_empty()
                    && !other.is_empty()
                    && other.is_before_end(&self.start)
                    && self.is_before_end(&other.start)
            }
        }
    }

    fn is_before_end(&self, key: &[u8]) -> bool {
        match &self.end {
            RangeEnd::Single => key <= &self.start[..],
            RangeEnd::Unbounded => true,
            RangeEnd::Before(end) => key < &end[..],
        }
    }
}
