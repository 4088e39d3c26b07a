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

/// Part of the keyspace: the keys whose hashes lie between two bounds, all of them or those that are text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Slice {
    /// Lowest hash.
    pub first: u32,
    /// Highest hash.
    pub last: u32,
    /// Whether only keys of UTF-8 belong to it: of protocols that have no other ones.
    pub is_text: bool,
}

impl Slice {
    /// The slice `index` of `count` that make up the whole and are as large as each other, give or take one hash.
    pub fn of(index: u32, count: u32) -> Slice {
        let bound = |index: u32| (u64::from(index) << 32) / u64::from(count.max(1));
        let (first, end) = (bound(index), bound(index + 1));
        Slice { first: first as u32, last: (end - 1) as u32, is_text: false }
    }

    /// Those keys of the slice that are UTF-8.
    pub fn of_text(self) -> Slice {
        Slice { is_text: true, ..self }
    }

    /// What decides: the low half of the key's XXH3. Part of replicated state, so it is the same for ever.
    pub fn hash(key: &[u8]) -> u32 {
        xxhash_rust::xxh3::xxh3_64(key) as u32
    }

    /// Whether a key belongs to it.
    pub fn contains(&self, key: &[u8]) -> bool {
        let is_whole = (self.first, self.last) == (0, u32::MAX);
        (is_whole || (self.first..=self.last).contains(&Slice::hash(key)))
            && (!self.is_text || std::str::from_utf8(key).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All keys over two letters up to this length, enough to tell apart ranges whose bounds are shorter.
    const LENGTH_MAX: usize = 5;

    fn all_keys() -> Vec<Vec<u8>> {
        let mut keys = vec![vec![]];
        let mut from = 0;
        for _ in 0..LENGTH_MAX {
            let to = keys.len();
            for k in from..to {
                keys.extend([0, 1].map(|letter| [&keys[k][..], &[letter]].concat()));
            }
            from = to;
        }
        keys
    }

    fn bound() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(0u8..2, 0..LENGTH_MAX - 1).prop_map(Bytes::from)
    }

    fn range() -> impl Strategy<Value = KeyRange> {
        (bound(), bound()).prop_map(|(key, range_end)| KeyRange::from_wire(key, range_end))
    }

    #[test]
    fn the_wire_form_of_a_range() {
        let range =
            |end: &'static [u8]| KeyRange::from_wire(Bytes::from_static(b"k"), Bytes::from_static(end)).end;
        assert_eq!(range(b""), RangeEnd::Single);
        assert_eq!(range(b"\0"), RangeEnd::Unbounded);
        assert_eq!(range(b"\0\0"), RangeEnd::Before(Bytes::from_static(b"\0\0")));
        assert_eq!(range(b"l"), RangeEnd::Before(Bytes::from_static(b"l")));
        let all = KeyRange::from_wire(Bytes::from_static(b"\0"), Bytes::from_static(b"\0"));
        assert!(all.contains(b"\0") && all.contains(b"\xff\xff"));
    }

    #[test]
    fn slices_make_up_the_whole_and_hashes_stay_as_they_are() {
        for count in [1, 2, 3, 7, 256] {
            let slices: Vec<Slice> = (0..count).map(|index| Slice::of(index, count)).collect();
            assert_eq!((slices[0].first, slices.last().unwrap().last), (0, u32::MAX));
            assert!(slices.windows(2).all(|pair| pair[0].last + 1 == pair[1].first), "{count}");
        }
        // Test vectors of Oxia's clients.
        let hashes = [("foo", 125_730_186), ("bar", 2_687_685_474), ("baz", 862_947_621)];
        assert!(hashes.iter().all(|(key, hash)| Slice::hash(key.as_bytes()) == *hash));
    }

    #[test]
    fn a_key_is_in_one_slice_and_in_that_of_text_if_it_is_text() {
        for (key, is_text) in [(&b"foo"[..], true), (b"", true), (b"\xc3\xa9", true), (b"\xff", false)] {
            for count in [1, 2, 7] {
                let slices: Vec<Slice> = (0..count).map(|index| Slice::of(index, count)).collect();
                let inside = |slices: &[Slice]| slices.iter().filter(|slice| slice.contains(key)).count();
                let text: Vec<Slice> = slices.iter().map(|slice| slice.of_text()).collect();
                assert_eq!((inside(&slices), inside(&text)), (1, usize::from(is_text)), "{key:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_range_contains_what_its_bounds_say(start in bound(), end in bound(), key in bound()) {
            let expected = match &end[..] {
                [] => key == start,
                [0] => key >= start,
                _ => key >= start && key < end,
            };
            prop_assert_eq!(KeyRange::from_wire(start, end).contains(&key), expected);
        }

        #[test]
        fn emptiness_and_overlap_follow_from_the_keys_contained(a in range(), b in range()) {
            let keys = all_keys();
            prop_assert_eq!(a.is_empty(), !keys.iter().any(|key| a.contains(key)));
            let shared = keys.iter().any(|key| a.contains(key) && b.contains(key));
            prop_assert_eq!((a.overlaps(&b), b.overlaps(&a)), (shared, shared));
        }
    }
}
