//! The d-engine's messages into the engine's vocabulary, and its outcomes back. Pure.

use super::error;
use crate::engine::command::{
    Binding, BoundPut, Command, Compare, DeleteRange, Op, Operand, Put, Range, Relation, RevisionBounds,
    Sort, Txn,
};
use crate::engine::{LEASE_COST, LEASE_TTL_MAX_SECS, PUT_COST};
use crate::pb::d_engine::client::client_response::SuccessResult;
use crate::pb::d_engine::client::write_command::{CompareAndSwap, Delete, Insert, Operation};
use crate::pb::d_engine::client::{
    ClientResponse, ClientResult, ReadConsistencyPolicy, ReadResults, WriteResult,
};
use crate::types::{KeyRange, LeaseId, RangeEnd};
use bytes::Bytes;
use tonic::Status;

/// What a read may miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Nothing.
    Linearizable,
    /// Nothing, as long as clocks run alike.
    Lease,
    /// What has not come to this member.
    Eventual,
}

impl Consistency {
    /// What the policy of a request asks for. None, and one that nobody knows, is the d-engine's own default.
    pub fn of(policy: Option<i32>) -> Consistency {
        match policy.map(ReadConsistencyPolicy::try_from) {
            Some(Ok(ReadConsistencyPolicy::LeaseRead)) => Consistency::Lease,
            Some(Ok(ReadConsistencyPolicy::EventualConsistency)) => Consistency::Eventual,
            Some(Ok(ReadConsistencyPolicy::LinearizableRead) | Err(_)) | None => Consistency::Linearizable,
        }
    }
}

/// Refuses a write that cannot be one.
pub fn check(operation: &Operation) -> Result<(), Status> {
    let key = match operation {
        Operation::Insert(insert) => &insert.key,
        Operation::Delete(delete) => &delete.key,
        Operation::CompareAndSwap(swap) => &swap.key,
    };
    if key.is_empty() {
        return Err(error::empty_key());
    }
    match operation {
        Operation::Insert(insert) if insert.ttl_secs > LEASE_TTL_MAX_SECS.unsigned_abs() => {
            Err(error::long_ttl())
        }
        _ => Ok(()),
    }
}

/// Bytes that a write may add to the database.
pub fn cost(operation: &Operation) -> u64 {
    let put = |key: &Bytes, value: &Bytes| PUT_COST + (key.len() + value.len()) as u64;
    match operation {
        Operation::Insert(Insert { key, value, ttl_secs: 0 }) => put(key, value),
        Operation::Insert(Insert { key, value, .. }) => put(key, value) + LEASE_COST,
        Operation::CompareAndSwap(swap) => put(&swap.key, &swap.new_value),
        Operation::Delete(_) => 0,
    }
}

/// The command of a write that passed `check`. A key that is to go by itself gets a lease of its own, `lease`; a key that
/// is written without is let go by the one that it had.
pub fn command(operation: Operation, lease: LeaseId) -> Command {
    match operation {
        Operation::Insert(Insert { key, value, ttl_secs: 0 }) => Command::Put(put(&key, &value)),
        Operation::Insert(Insert { key, value, ttl_secs }) => {
            let ttl_secs = i64::try_from(ttl_secs).unwrap_or(i64::MAX);
            let binding = Binding::New { id: lease, ttl_secs };
            let put = BoundPut { key: own(&key), value: own(&value), binding };
            Command::Txn(Txn { success: vec![Op::BoundPut(put)], ..Txn::default() })
        }
        Operation::Delete(Delete { key }) => {
            Command::DeleteRange(DeleteRange { range: KeyRange::single(own(&key)), prev_kv: false })
        }
        Operation::CompareAndSwap(swap) => Command::Txn(compare_and_swap(&swap)),
    }
}

/// A key that is to be missing has no version; one that is to have a value must exist, even if the value is empty.
fn compare_and_swap(swap: &CompareAndSwap) -> Txn {
    let put = put(&swap.key, &swap.new_value);
    let operand = match &swap.expected_value {
        None => Operand::Version(0),
        Some(value) => Operand::Value(own(value)),
    };
    let range = KeyRange::single(put.key.clone());
    let compare = Compare { range, relation: Relation::Equal, operand };
    Txn { compares: vec![compare], success: vec![Op::Put(put)], failure: Vec::new() }
}

fn put(key: &Bytes, value: &Bytes) -> Put {
    Put { key: own(key), value: own(value), ..Put::default() }
}

/// The same bytes in memory of their own. What comes out of a message shares the buffer of its connection, which is some
/// kilobytes; the memtable and the log keep keys for longer than that should live.
fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// A read of all of a range, in the order of keys.
pub fn range(range: KeyRange) -> Range {
    Range {
        range,
        limit: 0,
        revision: 0,
        sort: Sort::default(),
        keys_only: false,
        count_only: false,
        bounds: RevisionBounds::default(),
    }
}

/// A transaction that reads keys.
pub fn reads(keys: &[Bytes]) -> Txn {
    let read = |key: &Bytes| Op::Range(range(KeyRange::single(key.clone())));
    Txn { success: keys.iter().map(read).collect(), ..Txn::default() }
}

/// Every key that begins with `prefix`.
pub fn prefixed(prefix: Bytes) -> KeyRange {
    let Some(last) = prefix.iter().rposition(|byte| *byte != 0xFF) else {
        return KeyRange { start: prefix, end: RangeEnd::Unbounded };
    };
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    KeyRange { start: prefix, end: RangeEnd::Before(end.into()) }
}

/// The keys that a watch is about.
pub fn watched(key: Bytes, is_prefix: bool) -> Result<KeyRange, Status> {
    if is_prefix {
        let is_path = key.starts_with(b"/") && key.ends_with(b"/");
        return if is_path { Ok(prefixed(key)) } else { Err(error::not_a_path()) };
    }
    if key.is_empty() { Err(error::empty_key()) } else { Ok(KeyRange::single(key)) }
}

/// The answer to a write.
pub fn written(succeeded: bool) -> ClientResponse {
    success(SuccessResult::WriteResult(WriteResult { succeeded }))
}

/// The answer to a read.
pub fn read(results: Vec<ClientResult>) -> ClientResponse {
    success(SuccessResult::ReadData(ReadResults { results }))
}

fn success(result: SuccessResult) -> ClientResponse {
    ClientResponse { error: 0, success_result: Some(result), metadata: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tonic::Code;

    fn insert(key: &'static str, ttl_secs: u64) -> Operation {
        Operation::Insert(Insert { key: key.into(), value: "v".into(), ttl_secs })
    }

    fn swap(expected: Option<&'static str>) -> Operation {
        let expected_value = expected.map(Bytes::from);
        Operation::CompareAndSwap(CompareAndSwap { key: "k".into(), expected_value, new_value: "v".into() })
    }

    #[test]
    fn an_absent_policy_is_not_the_first_one() {
        let of = Consistency::of;
        assert_eq!(
            [of(Some(0)), of(Some(1)), of(Some(2))],
            [Consistency::Lease, Consistency::Linearizable, Consistency::Eventual]
        );
        assert_eq!([of(None), of(Some(7)), of(Some(-1))], [Consistency::Linearizable; 3]);
    }

    #[test]
    fn a_ttl_is_a_lease_of_the_keys_own() {
        assert_eq!(command(insert("k", 0), 9), Command::Put(put(&"k".into(), &"v".into())));
        let binding = Binding::New { id: 9, ttl_secs: 1 };
        let bound = BoundPut { key: "k".into(), value: "v".into(), binding };
        let txn = Txn { success: vec![Op::BoundPut(bound)], ..Txn::default() };
        assert_eq!(command(insert("k", 1), 9), Command::Txn(txn));
        assert_eq!(cost(&insert("k", 1)) - cost(&insert("k", 0)), LEASE_COST);
    }

    #[test]
    fn what_is_expected_tells_a_missing_key_from_an_empty_value() {
        let operand = |operation| match command(operation, 0) {
            Command::Txn(txn) => txn.compares[0].operand.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(operand(swap(None)), Operand::Version(0));
        assert_eq!(operand(swap(Some(""))), Operand::Value(Bytes::new()));
        assert_eq!(operand(swap(Some("x"))), Operand::Value("x".into()));
    }

    #[test]
    fn keys_are_there_and_ttls_are_not_too_long() {
        let code = |operation| check(&operation).map_err(|status| status.code());
        assert_eq!(code(insert("", 0)), Err(Code::InvalidArgument));
        assert_eq!(code(Operation::Delete(Delete::default())), Err(Code::InvalidArgument));
        assert_eq!(code(Operation::CompareAndSwap(CompareAndSwap::default())), Err(Code::InvalidArgument));
        let longest = LEASE_TTL_MAX_SECS.unsigned_abs();
        assert_eq!(code(insert("k", longest)), Ok(()));
        for too_long in [longest + 1, u64::MAX] {
            assert_eq!(code(insert("k", too_long)), Err(Code::InvalidArgument));
        }
    }

    #[test]
    fn keys_do_not_hold_the_buffer_that_they_came_in() {
        let buffer = Bytes::from(vec![b'k'; 8192]);
        let Command::DeleteRange(delete) = command(Operation::Delete(Delete { key: buffer.slice(..4) }), 0)
        else {
            panic!("a delete is one");
        };
        assert!(!buffer.as_ptr_range().contains(&delete.range.start.as_ptr()));
    }

    #[test]
    fn prefixes_of_watches_are_paths() {
        for wrong in ["", "a/", "/a", "a"] {
            assert_eq!(watched(wrong.into(), true).unwrap_err().code(), Code::InvalidArgument, "{wrong:?}");
        }
        let all = watched("/".into(), true).unwrap();
        assert!(all.contains(b"/") && all.contains(b"/a/b") && !all.contains(b"a") && !all.contains(b"0"));
        assert_eq!(watched("a".into(), false).unwrap(), KeyRange::single("a".into()));
        assert_eq!(watched(Bytes::new(), false).unwrap_err().code(), Code::InvalidArgument);
    }

    proptest! {
        #[test]
        fn a_prefix_is_the_range_of_its_keys(
            prefix in prop::collection::vec(prop_oneof![Just(0u8), Just(0xFE), Just(0xFF)], 0..4),
            key in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xFE), Just(0xFF)], 0..6),
        ) {
            let range = prefixed(prefix.clone().into());
            prop_assert_eq!(range.contains(&key), key.starts_with(&prefix));
        }
    }
}
