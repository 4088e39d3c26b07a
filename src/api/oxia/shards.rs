//! Shards: names for parts of the one keyspace, so that clients that know of shards find some. Pure.

use crate::pb::oxia::{BatchRequest, ShardAssignment};
use crate::types::Slice;
use std::sync::Arc;

/// Items of a batch: each takes a hundred times the bytes of the shortest message while it is carried out.
const ITEMS_MAX: usize = 100_000;

/// The shards, in order of their hashes. A shard's id is its lowest hash, as the protocol has it. Cheap to clone.
#[derive(Clone)]
pub(super) struct Shards(Arc<[Slice]>);

impl Shards {
    /// So many shards that make up the keyspace.
    pub fn new(count: u32) -> Shards {
        Shards((0..count).map(|index| Slice::of(index, count)).collect())
    }

    /// What ranges of a request are about: the text keys of its shard, or of the keyspace if it names none.
    ///
    /// # Errors
    /// There is no such shard, or a key is of another one: ranges of its own would never find it. Or there are too many items.
    pub fn slice_of(&self, request: &BatchRequest) -> Result<Slice, String> {
        let BatchRequest { puts, deletes, delete_ranges, gets, get_ranges, .. } = request;
        let items = puts.len() + deletes.len() + delete_ranges.len() + gets.len() + get_ranges.len();
        if items > ITEMS_MAX {
            return Err(format!("there are more than {ITEMS_MAX} items"));
        }
        let Some(id) = request.shard_id else { return Ok(Slice::of(0, 1).of_text()) };
        let found = self.0.binary_search_by_key(&id, |slice| slice.first);
        let slice = found.map(|at| self.0[at]).map_err(|_| format!("there is no shard {id}"))?;
        let puts = request.puts.iter().map(|put| &put.key);
        let deletes = request.deletes.iter().map(|delete| &delete.key);
        let gets = request.gets.iter().map(|get| &get.key);
        for (kind, foreign) in [
            ("put", foreign(slice, puts)),
            ("delete", foreign(slice, deletes)),
            ("get", foreign(slice, gets)),
        ] {
            if let Some(at) = foreign {
                return Err(format!("the key of {kind} {at} is of another shard than {id}"));
            }
        }
        Ok(slice.of_text())
    }

    /// All of them, led by the server at this address. The highest hash cannot be named as an exclusive bound, so the last
    /// shard says one less than it holds.
    pub fn led_by(&self, leader: &str) -> Vec<ShardAssignment> {
        let assignment = |slice: &Slice| ShardAssignment {
            shard_id: slice.first,
            min_hash_inclusive: slice.first,
            max_hash_exclusive: slice.last.saturating_add(1),
            leader: leader.to_owned(),
        };
        self.0.iter().map(assignment).collect()
    }
}

/// The first key that is not of the slice. The empty key is of none, and gets an answer of its own.
fn foreign<'k>(slice: Slice, mut keys: impl Iterator<Item = &'k String>) -> Option<usize> {
    keys.position(|key| !key.is_empty() && !slice.contains(key.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_items_are_refused() {
        let request = |gets| BatchRequest { gets: vec![Default::default(); gets], ..Default::default() };
        let shards = Shards::new(1);
        assert!(shards.slice_of(&request(ITEMS_MAX)).is_ok());
        assert_eq!(shards.slice_of(&request(ITEMS_MAX + 1)), Err("there are more than 100000 items".into()));
    }
    use crate::pb::oxia::{DeleteRequest, GetRequest, PutRequest};

    #[test]
    fn assignments_make_up_the_whole() {
        for count in [1, 2, 3, 1024] {
            let shards = Shards::new(count).led_by("host:1");
            assert_eq!(shards.len(), count as usize);
            assert_eq!((shards[0].shard_id, shards[0].min_hash_inclusive), (0, 0));
            assert_eq!(shards.last().unwrap().max_hash_exclusive, u32::MAX);
            for pair in shards.windows(2) {
                assert_eq!(pair[0].max_hash_exclusive, pair[1].shard_id);
                assert_eq!(pair[1].shard_id, pair[1].min_hash_inclusive);
            }
        }
    }

    #[test]
    fn keys_must_be_of_the_shard_that_is_named() {
        let (two, id) = (Shards::new(2), Some(0x8000_0000));
        // Hashes: foo 0x077e_8b0a, bar 0xa031_93a2.
        let put = |key: &str| PutRequest { key: key.into(), ..Default::default() };
        let named = |shard_id| BatchRequest { shard_id, puts: vec![put("bar")], ..Default::default() };
        assert!(two.slice_of(&named(id)).is_ok_and(|slice| slice.first == 0x8000_0000 && slice.is_text));
        assert!(two.slice_of(&named(None)).is_ok_and(|slice| slice == Slice::of(0, 1).of_text()));
        let refusal = |request: &BatchRequest| two.slice_of(request).unwrap_err();
        assert_eq!(refusal(&named(Some(0))), "the key of put 0 is of another shard than 0");
        assert_eq!(refusal(&named(Some(1))), "there is no shard 1");
        let delete = |key: &str| DeleteRequest { key: key.into(), ..Default::default() };
        let deletes = vec![delete("bar"), delete("foo")];
        let other = BatchRequest { deletes, ..named(id) };
        assert_eq!(refusal(&other), "the key of delete 1 is of another shard than 2147483648");
        let gets = vec![GetRequest { key: "foo".into(), ..Default::default() }];
        assert!(two.slice_of(&BatchRequest { gets, ..named(id) }).is_err());
        assert!(Shards::new(1).slice_of(&named(Some(0))).is_ok());
    }
}
