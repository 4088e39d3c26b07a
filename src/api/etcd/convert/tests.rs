//! The translation by contract row.

use super::*;
use crate::engine::{Meta, live_image, tombstone_image};
use crate::types::{RangeEnd, Revision};

fn compare_of(target: i32, result: i32, target_union: Option<TargetUnion>) -> Compare {
    compare(pb::Compare { result, target, key: b"k".to_vec(), range_end: Vec::new(), target_union })
}

fn range_op(serializable: bool) -> pb::RequestOp {
    let request = pb::RangeRequest { key: b"k".to_vec(), serializable, ..Default::default() };
    pb::RequestOp { request: Some(Request::RequestRange(request)) }
}

fn put_op(key_len: usize, value_len: usize) -> pb::RequestOp {
    let request = pb::PutRequest { key: vec![1; key_len], value: vec![2; value_len], ..Default::default() };
    pb::RequestOp { request: Some(Request::RequestPut(request)) }
}

fn txn_op(success: Vec<pb::RequestOp>, failure: Vec<pb::RequestOp>) -> pb::RequestOp {
    pb::RequestOp { request: Some(Request::RequestTxn(txn_of(success, failure))) }
}

fn txn_of(success: Vec<pb::RequestOp>, failure: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest { compare: Vec::new(), success, failure }
}

fn pair(lease: i64) -> Kv {
    let meta =
        Meta { modified: Revision::new(9, 1), create_revision: 4, version: 3, lease, ..Meta::default() };
    Kv { key: "k".into(), image: live_image(&meta, b"value") }
}

#[test]
fn requests_move_without_copying() {
    let mut request =
        pb::PutRequest { key: vec![1; 100], value: Vec::with_capacity(5000), ..Default::default() };
    request.value.extend([7; 4000]); // spare capacity, as decoders leave it
    let (key_at, value_at) = (request.key.as_ptr(), request.value.as_ptr());
    let put = put(request);
    assert_eq!((put.key.as_ptr(), put.value.as_ptr()), (key_at, value_at));
}

#[test]
fn every_field_of_a_put_and_a_range_arrives() {
    let request = pb::PutRequest {
        key: b"k".to_vec(),
        value: b"v".to_vec(),
        lease: -5,
        prev_kv: true,
        ignore_value: true,
        ignore_lease: true,
    };
    let expected = Put {
        key: "k".into(),
        value: "v".into(),
        lease: -5,
        prev_kv: true,
        ignore_value: true,
        ignore_lease: true,
    };
    assert_eq!(put(request), expected);
    let request = pb::RangeRequest {
        key: b"k".to_vec(),
        range_end: b"l".to_vec(),
        limit: -1,
        revision: 7,
        sort_order: 2,
        sort_target: 3,
        serializable: true,
        keys_only: true,
        count_only: true,
        min_mod_revision: 1,
        max_mod_revision: 2,
        min_create_revision: 3,
        max_create_revision: 4,
    };
    let expected = Range {
        range: KeyRange { start: "k".into(), end: RangeEnd::Before("l".into()) },
        limit: -1,
        revision: 7,
        sort: Sort { order: SortOrder::Descend, target: SortTarget::Mod },
        keys_only: true,
        count_only: true,
        bounds: RevisionBounds { mod_min: 1, mod_max: 2, create_min: 3, create_max: 4 },
    };
    assert_eq!(range(request), expected);
}

#[test]
fn m8_range_ends() {
    let end = |range_end: &[u8]| {
        let (key, range_end) = (b"k".to_vec(), range_end.to_vec());
        delete_range(pb::DeleteRangeRequest { key, range_end, prev_kv: true }).range.end
    };
    assert_eq!(end(b""), RangeEnd::Single);
    assert_eq!(end(&[0]), RangeEnd::Unbounded);
    assert_eq!(end(&[0, 0]), RangeEnd::Before(vec![0, 0].into()));
    assert_eq!(end(b"a"), RangeEnd::Before("a".into()), "an inverted range stays one");
}

#[test]
fn kv_t5_the_union_is_read_by_target() {
    let unions = [
        TargetUnion::Version(6),
        TargetUnion::CreateRevision(6),
        TargetUnion::ModRevision(6),
        TargetUnion::Value(vec![6]),
        TargetUnion::Lease(6),
    ];
    let number = |at: usize, n| match at {
        0 => Operand::Version(n),
        1 => Operand::CreateRevision(n),
        2 => Operand::ModRevision(n),
        _ => Operand::Lease(n),
    };
    for target in 0..5 {
        for (at, union) in unions.iter().enumerate() {
            let is_match = at == target;
            let expected = match target {
                3 => Operand::Value(if is_match { vec![6].into() } else { "".into() }),
                _ => number(target, if is_match { 6 } else { 0 }),
            };
            let found = compare_of(target as i32, 1, Some(union.clone()));
            assert_eq!((found.operand, found.relation), (expected, Relation::Greater));
        }
        let empty = if target == 3 { Operand::Value("".into()) } else { number(target, 0) };
        assert_eq!(compare_of(target as i32, 0, None).operand, empty, "an unset union is 0 or nothing");
    }
}

#[test]
fn kv_t5_unknown_enums() {
    let relations = [
        Relation::Equal,
        Relation::Greater,
        Relation::Less,
        Relation::NotEqual,
        Relation::Any,
        Relation::Any,
    ];
    for (result, expected) in [0, 1, 2, 3, 4, -1].into_iter().zip(relations) {
        assert_eq!(compare_of(0, result, None).relation, expected);
    }
    // An unknown target makes both sides equal; no version is below 0, so `Less` never holds.
    for (result, holds) in [(0, true), (1, false), (2, false), (3, false), (9, true)] {
        let found = compare_of(5, result, Some(TargetUnion::Version(6)));
        assert_eq!(found.operand, Operand::Version(0));
        assert_eq!(found.relation, if holds { Relation::Any } else { Relation::Less });
    }
}

#[test]
fn kv_t6_a_compare_keeps_its_range() {
    let request = pb::Compare { key: b"a".to_vec(), range_end: vec![0], ..Default::default() };
    assert_eq!(compare(request).range, KeyRange { start: "a".into(), end: RangeEnd::Unbounded });
}

#[test]
fn kv_t11_inner_headers_and_t12_order() {
    let inner = TxnOutcome {
        revision: 8,
        succeeded: false,
        results: vec![OpOutcome::Put { revision: 8, previous: None }],
    };
    let outcome = TxnOutcome {
        revision: 8,
        succeeded: true,
        results: vec![
            OpOutcome::Range { revision: 7, kvs: vec![pair(0)], more: true, count: 5 },
            OpOutcome::Put { revision: 8, previous: Some(pair(3)) },
            OpOutcome::DeleteRange { revision: 8, deleted: 2, previous: vec![pair(0), pair(1)] },
            OpOutcome::Txn(inner),
        ],
    };
    let header = ResponseHeader { cluster_id: 1, member_id: 2, revision: 8, raft_term: 3 };
    let only = |revision| Some(ResponseHeader { revision, ..Default::default() });
    let response = |r| pb::ResponseOp { response: Some(r) };
    let put_in_nested = Response::ResponsePut(pb::PutResponse { header: only(8), prev_kv: None });
    let expected = vec![
        response(Response::ResponseRange(pb::RangeResponse {
            header: only(7),
            kvs: vec![kv(&pair(0))],
            more: true,
            count: 5,
        })),
        response(Response::ResponsePut(pb::PutResponse { header: only(8), prev_kv: Some(kv(&pair(3))) })),
        response(Response::ResponseDeleteRange(pb::DeleteRangeResponse {
            header: only(8),
            deleted: 2,
            prev_kvs: vec![kv(&pair(0)), kv(&pair(1))],
        })),
        response(Response::ResponseTxn(pb::TxnResponse {
            header: Some(ResponseHeader::default()),
            succeeded: false,
            responses: vec![response(put_in_nested)],
        })),
    ];
    let found = txn_response(&outcome, header);
    assert_eq!(found, pb::TxnResponse { header: Some(header), succeeded: true, responses: expected });
}

#[test]
fn kv_t13_read_only_and_serializable() {
    let cases = [
        (vec![], vec![], true, true), // compares alone: local, without a quorum
        (vec![range_op(true)], vec![range_op(true)], true, true),
        (vec![range_op(true)], vec![range_op(false)], true, false),
        (vec![range_op(false)], vec![], true, false),
        (vec![range_op(true)], vec![put_op(1, 1)], false, false),
        (vec![txn_op(vec![range_op(true)], vec![])], vec![], false, false),
        (vec![txn_op(vec![], vec![])], vec![], false, false),
    ];
    for (success, failure, is_read, is_local) in cases {
        let request = txn_of(success, failure);
        assert_eq!((is_read_only(&request), is_serializable(&request)), (is_read, is_local), "{request:?}");
    }
}

#[test]
fn kv_t14_quota_cost_is_that_of_the_dearer_branch() {
    let cost_of = |success, failure| txn_cost(&txn_of(success, failure));
    let delete = pb::DeleteRangeRequest { key: vec![1; 999], ..Default::default() };
    let delete = pb::RequestOp { request: Some(Request::RequestDeleteRange(delete)) };
    assert_eq!(cost_of(vec![range_op(true), delete.clone()], vec![delete.clone()]), 0);
    assert_eq!(cost_of(vec![put_op(3, 5)], vec![]), 264);
    assert_eq!(cost_of(vec![put_op(1, 0)], vec![put_op(1, 1), put_op(1, 1)]), 2 * 258);
    let nested = txn_op(vec![put_op(1, 10)], vec![put_op(1, 20), delete]);
    assert_eq!(cost_of(vec![nested, put_op(1, 1)], vec![put_op(1, 500)]), 257 + 500);
}

#[test]
fn kv_p7_d2_a_pair_has_all_fields() {
    let expected = KeyValue {
        key: b"k".to_vec(),
        create_revision: 4,
        mod_revision: 9,
        version: 3,
        value: b"value".to_vec(),
        lease: -2,
    };
    assert_eq!(kv(&pair(-2)), expected);
}

#[test]
fn w11_a_tombstone_has_key_and_mod_revision_alone() {
    for is_expiry in [false, true] {
        let deleted = Kv { key: "k".into(), image: tombstone_image(Revision::new(9, 0), is_expiry) };
        assert_eq!(kv(&deleted), KeyValue { key: b"k".to_vec(), mod_revision: 9, ..Default::default() });
    }
}
