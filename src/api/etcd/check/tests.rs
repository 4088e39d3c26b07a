//! The checks by contract row, and the duplicate rule against an oracle that compares everything with everything.

use super::*;
use crate::pb::etcdserverpb::Compare;
use proptest::prelude::*;
use tonic::Code;

fn put_op(key: &[u8]) -> RequestOp {
    op(Request::RequestPut(PutRequest { key: key.to_vec(), ..Default::default() }))
}

fn delete_op(key: &[u8], range_end: &[u8]) -> RequestOp {
    let (key, range_end) = (key.to_vec(), range_end.to_vec());
    op(Request::RequestDeleteRange(DeleteRangeRequest { key, range_end, prev_kv: false }))
}

fn range_op(request: RangeRequest) -> RequestOp {
    op(Request::RequestRange(request))
}

fn txn_op(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
    op(Request::RequestTxn(TxnRequest { compare: Vec::new(), success, failure }))
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// Checks the ops as either branch; both must come out the same.
fn branch(ops: &[RequestOp]) -> Result<(), Error> {
    let then = txn(&TxnRequest { success: ops.to_vec(), ..Default::default() }, 128);
    let otherwise = txn(&TxnRequest { failure: ops.to_vec(), ..Default::default() }, 128);
    assert_eq!(then, otherwise);
    then
}

fn range_of(key: &[u8]) -> RangeRequest {
    RangeRequest { key: key.to_vec(), ..Default::default() }
}

#[test]
fn kv_r1_r2_range() {
    assert_eq!(range(&range_of(b"")), Err(Error::EmptyKey));
    assert_eq!(
        range(&RangeRequest { sort_order: 9, ..Default::default() }),
        Err(Error::EmptyKey),
        "the key first"
    );
    for (sort_order, sort_target, is_valid) in
        [(0, 0, true), (2, 4, true), (3, 0, false), (-1, 0, false), (0, 5, false), (0, -1, false)]
    {
        let expected = if is_valid { Ok(()) } else { Err(Error::InvalidSortOption) };
        assert_eq!(range(&RangeRequest { sort_order, sort_target, ..range_of(b"k") }), expected);
    }
}

#[test]
fn kv_s1_range_stream() {
    let check = |request| range_stream(&request).map_err(|s| (s.code(), s.message().to_owned()));
    let sort = (Code::Unimplemented, "RangeStream does not support custom sort orders".to_owned());
    let bounds = (Code::Unimplemented, "RangeStream does not support revision filters".to_owned());
    for (sort_order, sort_target, is_served) in
        [(0, 0, true), (0, 4, true), (1, 0, true), (1, 1, false), (2, 0, false), (2, 3, false)]
    {
        let expected = if is_served { Ok(()) } else { Err(sort.clone()) };
        assert_eq!(check(RangeRequest { sort_order, sort_target, ..range_of(b"k") }), expected);
    }
    assert_eq!(check(RangeRequest { min_mod_revision: 1, ..range_of(b"k") }), Err(bounds.clone()));
    assert_eq!(check(RangeRequest { max_mod_revision: -1, ..range_of(b"k") }), Err(bounds.clone()));
    assert_eq!(check(RangeRequest { min_create_revision: 1, ..range_of(b"k") }), Err(bounds.clone()));
    assert_eq!(check(RangeRequest { max_create_revision: 1, ..range_of(b"k") }), Err(bounds));
    assert_eq!(check(range_of(b"")).unwrap_err().1, Error::EmptyKey.message());
    assert_eq!(
        check(RangeRequest { sort_target: 7, ..range_of(b"k") }).unwrap_err().0,
        Code::InvalidArgument
    );
}

#[test]
fn kv_p1_to_p3_put() {
    let full =
        PutRequest { value: vec![1], lease: 7, ignore_value: true, ignore_lease: true, ..Default::default() };
    assert_eq!(put(&full), Err(Error::EmptyKey));
    let full = PutRequest { key: vec![1], ..full };
    assert_eq!(put(&full), Err(Error::ValueProvided));
    let full = PutRequest { value: Vec::new(), ..full };
    assert_eq!(put(&full), Err(Error::LeaseProvided));
    assert_eq!(put(&PutRequest { lease: 0, ..full }), Ok(()));
}

#[test]
fn kv_d1_delete_range() {
    assert_eq!(
        delete_range(&DeleteRangeRequest { range_end: vec![0], ..Default::default() }),
        Err(Error::EmptyKey)
    );
    assert_eq!(delete_range(&DeleteRangeRequest { key: vec![0], ..Default::default() }), Ok(()));
}

#[test]
fn kv_t1_longest_list_counts_and_nested_txns_share_the_rest() {
    let compares = |n| vec![Compare { key: vec![1], ..Default::default() }; n];
    let ranges = |n| vec![range_op(range_of(b"k")); n];
    let request = |c, s, f| TxnRequest { compare: compares(c), success: ranges(s), failure: ranges(f) };
    assert_eq!(txn(&request(3, 3, 3), 3), Ok(()));
    for (c, s, f) in [(4, 0, 0), (0, 4, 0), (0, 0, 4)] {
        assert_eq!(txn(&request(c, s, f), 3), Err(Error::TooManyOps));
    }
    let outer = |inner| TxnRequest { compare: compares(2), success: vec![inner], ..Default::default() };
    assert_eq!(txn(&outer(op(Request::RequestTxn(request(0, 1, 0)))), 3), Ok(()));
    assert_eq!(txn(&outer(op(Request::RequestTxn(request(0, 0, 2)))), 3), Err(Error::TooManyOps));
    let siblings = vec![txn_op(ranges(2), ranges(2)); 2];
    assert_eq!(
        txn(&TxnRequest { success: siblings, ..Default::default() }, 4),
        Ok(()),
        "each has the whole rest"
    );
}

#[test]
fn kv_t2_both_branches_are_checked_before_any_duplicate() {
    let duplicates = vec![put_op(b"k"), put_op(b"k")];
    let bad = [
        (RequestOp { request: None }, Error::KeyNotFound),
        (put_op(b""), Error::EmptyKey),
        (delete_op(b"", b""), Error::EmptyKey),
        (range_op(RangeRequest { sort_order: 3, ..range_of(b"k") }), Error::InvalidSortOption),
        (txn_op(Vec::new(), vec![put_op(b"")]), Error::EmptyKey),
    ];
    for (op, error) in bad {
        assert_eq!(branch(std::slice::from_ref(&op)), Err(error));
        let request =
            TxnRequest { success: duplicates.clone(), failure: vec![op.clone()], ..Default::default() };
        assert_eq!(txn(&request, 128), Err(error));
        let compare = vec![Compare::default()];
        assert_eq!(
            txn(&TxnRequest { compare, success: vec![op], ..Default::default() }, 128),
            Err(Error::EmptyKey)
        );
    }
}

#[test]
fn kv_t3_duplicates_in_one_branch() {
    let duplicate = Err(Error::DuplicateKey);
    assert_eq!(branch(&[put_op(b"k"), put_op(b"k")]), duplicate);
    for delete in [delete_op(b"k", b""), delete_op(b"a", b"z"), delete_op(b"k", b"l")] {
        assert_eq!(branch(&[put_op(b"k"), delete.clone()]), duplicate);
        assert_eq!(branch(&[delete, put_op(b"k")]), duplicate);
    }
    assert_eq!(branch(&[put_op(b"k"), delete_op(b"a", b"k")]), Ok(()), "the end is not deleted");
    assert_eq!(branch(&[delete_op(b"a", b"m"), delete_op(b"c", b"z"), delete_op(b"d", b"")]), Ok(()));
    assert_eq!(branch(&[delete_op(b"a", b"c"), delete_op(b"c", b"e"), put_op(b"c")]), duplicate, "merged");
    assert_eq!(
        branch(&[delete_op(b"a", b"z"), delete_op(b"c", b"e"), put_op(b"m")]),
        duplicate,
        "one inside another"
    );
    let everything = RangeRequest { range_end: vec![0], ..range_of(&[0]) };
    assert_eq!(branch(&[put_op(b"k"), range_op(everything)]), Ok(()));
    let both = TxnRequest { success: vec![put_op(b"k")], failure: vec![put_op(b"k")], ..Default::default() };
    assert_eq!(txn(&both, 128), Ok(()), "each branch has its own rule");
}

#[test]
fn kv_t4_nested_txns() {
    let duplicate = Err(Error::DuplicateKey);
    assert_eq!(branch(&[txn_op(vec![put_op(b"k")], vec![put_op(b"k")])]), Ok(()));
    assert_eq!(branch(&[txn_op(vec![put_op(b"k"), put_op(b"k")], vec![])]), duplicate);
    assert_eq!(branch(&[put_op(b"k"), txn_op(vec![], vec![put_op(b"k")])]), duplicate);
    assert_eq!(branch(&[txn_op(vec![put_op(b"k")], vec![]), delete_op(b"k", b"")]), duplicate);
    assert_eq!(branch(&[txn_op(vec![delete_op(b"a", b"z")], vec![]), put_op(b"k")]), duplicate);
    assert_eq!(branch(&[txn_op(vec![put_op(b"k")], vec![]), txn_op(vec![put_op(b"k")], vec![])]), duplicate);
    assert_eq!(branch(&[txn_op(vec![put_op(b"k")], vec![delete_op(b"k", b"")])]), Ok(()), "one of them runs");
}

#[test]
fn kv_t4_quirks_are_etcds() {
    let (put, delete) = (txn_op(vec![put_op(b"k")], vec![]), txn_op(vec![delete_op(b"k", b"")], vec![]));
    assert_eq!(branch(&[put.clone(), delete.clone()]), Ok(()));
    assert_eq!(branch(&[delete, put]), Err(Error::DuplicateKey));
    assert_eq!(
        branch(&[put_op(b"k"), delete_op(b"a", &[0])]),
        Ok(()),
        "a delete from a key on covers no put"
    );
}

/// What the duplicate rule says, with nothing clever: all keys put and all ranges deleted, or nothing for a duplicate.
type Naive = Option<(Vec<Vec<u8>>, Vec<(Vec<u8>, Vec<u8>)>)>;

fn naive(ops: &[RequestOp]) -> Naive {
    let (mut puts, mut deletes) = (Vec::new(), Vec::new());
    let clashes = |puts: &[Vec<u8>], deletes: &[(Vec<u8>, Vec<u8>)], key: &Vec<u8>| {
        puts.contains(key) || deletes.iter().any(|(start, end)| start <= key && key < end)
    };
    for op in ops {
        if let Some(Request::RequestDeleteRange(r)) = &op.request {
            let next_key = [&r.key[..], &[0]].concat();
            deletes
                .push((r.key.clone(), if r.range_end.is_empty() { next_key } else { r.range_end.clone() }));
        }
    }
    for op in ops {
        if let Some(Request::RequestTxn(r)) = &op.request {
            let ((mut inner, deletes_then), (otherwise, deletes_else)) =
                (naive(&r.success)?, naive(&r.failure)?);
            inner.extend(otherwise);
            if inner.iter().any(|key| clashes(&puts, &deletes, key)) {
                return None;
            }
            puts.extend(inner);
            deletes.extend(deletes_then);
            deletes.extend(deletes_else);
        }
    }
    for op in ops {
        if let Some(Request::RequestPut(r)) = &op.request {
            if clashes(&puts, &deletes, &r.key) {
                return None;
            }
            puts.push(r.key.clone());
        }
    }
    Some((puts, deletes))
}

fn any_ops() -> impl Strategy<Value = Vec<RequestOp>> {
    let key = || prop::collection::vec(0u8..6, 1..3);
    let leaf = prop_oneof![
        3 => key().prop_map(|k| put_op(&k)),
        1 => key().prop_map(|k| range_op(range_of(&k))),
        1 => key().prop_map(|k| delete_op(&k, b"")),
        1 => key().prop_map(|k| delete_op(&k, &[0])),
        1 => (key(), key()).prop_map(|(k, end)| delete_op(&k, &end)),
    ];
    let tree = leaf.prop_recursive(3, 12, 3, |inner| {
        let ops = || prop::collection::vec(inner.clone(), 0..3);
        (ops(), ops()).prop_map(|(success, failure)| txn_op(success, failure))
    });
    prop::collection::vec(tree, 0..5)
}

/// Ranges deleted at this level and, through a nested txn, again; and one put that they may cover.
fn any_deletes_and_a_put() -> impl Strategy<Value = Vec<RequestOp>> {
    let deletes =
        || prop::collection::vec((0u8..16, 0u8..16).prop_map(|(k, end)| delete_op(&[k], &[end])), 0..6);
    (deletes(), deletes(), 0u8..16).prop_map(|(mut ops, nested, key)| {
        ops.push(put_op(&[key]));
        ops.push(txn_op(nested, Vec::new()));
        ops
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn kv_t3_t4_duplicates_as_the_naive_oracle_finds_them(ops in any_ops()) {
        let expected = if naive(&ops).is_some() { Ok(()) } else { Err(Error::DuplicateKey) };
        prop_assert_eq!(branch(&ops), expected);
    }

    #[test]
    fn kv_t3_merged_ranges_as_the_naive_oracle_sees_them(ops in any_deletes_and_a_put()) {
        let expected = if naive(&ops).is_some() { Ok(()) } else { Err(Error::DuplicateKey) };
        prop_assert_eq!(branch(&ops), expected);
    }
}
