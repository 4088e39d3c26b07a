//! etcd's messages into the engine's vocabulary, and its outcomes back.

pub mod auth;

use crate::engine::command::{
    Compare, DeleteRange, Kv, Op, OpOutcome, Operand, Put, Range, Relation, RevisionBounds, Sort, SortOrder,
    SortTarget, Txn, TxnOutcome,
};
use crate::engine::{Image, PUT_COST, Value};
use crate::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::pb::etcdserverpb::request_op::Request;
use crate::pb::etcdserverpb::response_op::Response;
use crate::pb::etcdserverpb::{self as pb, ResponseHeader, range_request};
use crate::pb::mvccpb::KeyValue;
use crate::types::KeyRange;

/// A read.
pub fn range(request: pb::RangeRequest) -> Range {
    let sort = Sort {
        order: match request.sort_order() {
            range_request::SortOrder::None => SortOrder::None,
            range_request::SortOrder::Ascend => SortOrder::Ascend,
            range_request::SortOrder::Descend => SortOrder::Descend,
        },
        target: match request.sort_target() {
            range_request::SortTarget::Key => SortTarget::Key,
            range_request::SortTarget::Version => SortTarget::Version,
            range_request::SortTarget::Create => SortTarget::Create,
            range_request::SortTarget::Mod => SortTarget::Mod,
            range_request::SortTarget::Value => SortTarget::Value,
        },
    };
    Range {
        range: KeyRange::from_wire(request.key.into(), request.range_end.into()),
        limit: request.limit,
        revision: request.revision,
        sort,
        keys_only: request.keys_only,
        count_only: request.count_only,
        bounds: RevisionBounds {
            mod_min: request.min_mod_revision,
            mod_max: request.max_mod_revision,
            create_min: request.min_create_revision,
            create_max: request.max_create_revision,
        },
    }
}

/// A write.
pub fn put(request: pb::PutRequest) -> Put {
    Put {
        key: request.key.into(),
        value: request.value.into(),
        lease: request.lease,
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

/// A removal.
pub fn delete_range(request: pb::DeleteRangeRequest) -> DeleteRange {
    let range = KeyRange::from_wire(request.key.into(), request.range_end.into());
    DeleteRange { range, prev_kv: request.prev_kv }
}

/// A transaction that passed its checks.
pub fn txn(request: pb::TxnRequest) -> Txn {
    Txn {
        compares: request.compare.into_iter().map(compare).collect(),
        success: request.success.into_iter().filter_map(op).collect(),
        failure: request.failure.into_iter().filter_map(op).collect(),
    }
}

fn op(op: pb::RequestOp) -> Option<Op> {
    Some(match op.request? {
        Request::RequestRange(r) => Op::Range(range(r)),
        Request::RequestPut(r) => Op::Put(put(r)),
        Request::RequestDeleteRange(r) => Op::DeleteRange(delete_range(r)),
        Request::RequestTxn(r) => Op::Txn(txn(r)),
    })
}

/// A target that the union does not carry is compared with 0 or nothing; an unknown result always holds (KV-T5).
fn compare(compare: pb::Compare) -> Compare {
    let relation = match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => Relation::Equal,
        Ok(CompareResult::Greater) => Relation::Greater,
        Ok(CompareResult::Less) => Relation::Less,
        Ok(CompareResult::NotEqual) => Relation::NotEqual,
        Err(_) => Relation::Any,
    };
    let union = compare.target_union;
    let (operand, relation) = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => (Operand::Version(number(union, Field::Version)), relation),
        Ok(CompareTarget::Create) => (Operand::CreateRevision(number(union, Field::Create)), relation),
        Ok(CompareTarget::Mod) => (Operand::ModRevision(number(union, Field::Mod)), relation),
        Ok(CompareTarget::Lease) => (Operand::Lease(number(union, Field::Lease)), relation),
        Ok(CompareTarget::Value) => {
            let value = if let Some(TargetUnion::Value(value)) = union { value } else { Vec::new() };
            (Operand::Value(value.into()), relation)
        }
        // etcd compares an unknown target as equal.
        Err(_) => (Operand::Version(0), equal_side(relation)),
    };
    let range = KeyRange::from_wire(compare.key.into(), compare.range_end.into());
    Compare { range, relation, operand }
}

enum Field {
    Version,
    Create,
    Mod,
    Lease,
}

fn number(union: Option<TargetUnion>, field: Field) -> i64 {
    match (union, field) {
        (Some(TargetUnion::Version(n)), Field::Version)
        | (Some(TargetUnion::CreateRevision(n)), Field::Create)
        | (Some(TargetUnion::ModRevision(n)), Field::Mod)
        | (Some(TargetUnion::Lease(n)), Field::Lease) => n,
        _ => 0,
    }
}

/// A relation on two sides that are always equal: versions are never below 0, so these hold always or never.
fn equal_side(relation: Relation) -> Relation {
    match relation {
        Relation::Equal | Relation::Any => Relation::Any,
        Relation::Greater | Relation::Less | Relation::NotEqual => Relation::Less,
    }
}

/// Bytes that a put may add to the database (contract §8).
pub fn put_cost(request: &pb::PutRequest) -> u64 {
    PUT_COST + (request.key.len() + request.value.len()) as u64
}

/// Bytes that a transaction may add: those of the costlier branch (KV-T14).
pub fn txn_cost(request: &pb::TxnRequest) -> u64 {
    let branch = |ops: &[pb::RequestOp]| -> u64 {
        let cost = |op: &pb::RequestOp| match &op.request {
            Some(Request::RequestPut(r)) => put_cost(r),
            Some(Request::RequestTxn(r)) => txn_cost(r),
            _ => 0,
        };
        ops.iter().map(cost).sum()
    };
    branch(&request.success).max(branch(&request.failure))
}

/// Only reads at the top level, in both branches (KV-T13).
pub fn is_read_only(request: &pb::TxnRequest) -> bool {
    let is_range = |op: &pb::RequestOp| matches!(op.request, Some(Request::RequestRange(_)));
    request.success.iter().chain(&request.failure).all(is_range)
}

/// Every read of either branch is serializable; true without any (KV-T13).
pub fn is_serializable(request: &pb::TxnRequest) -> bool {
    let is_local =
        |op: &pb::RequestOp| matches!(&op.request, Some(Request::RequestRange(r)) if r.serializable);
    request.success.iter().chain(&request.failure).all(is_local)
}

/// A pair.
pub fn kv(kv: &Kv) -> KeyValue {
    let image = Image::parse(&kv.image).expect("the applier made it");
    let meta = image.meta();
    let value = match image.value {
        Value::Inline(value) => value.to_vec(),
        Value::Blob(_) => Vec::new(), // never in an outcome
    };
    KeyValue {
        key: kv.key.to_vec(),
        create_revision: meta.create_revision,
        mod_revision: meta.modified.main,
        version: meta.version,
        value,
        lease: meta.lease,
    }
}

/// Inner answers of a txn have headers with nothing but the revision; that of a nested txn is empty (KV-T11).
fn inner_header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

/// Answer to a transaction.
pub fn txn_response(outcome: &TxnOutcome, header: ResponseHeader) -> pb::TxnResponse {
    let responses = outcome.results.iter().map(op_response).collect();
    pb::TxnResponse { header: Some(header), succeeded: outcome.succeeded, responses }
}

fn op_response(outcome: &OpOutcome) -> pb::ResponseOp {
    let response = match outcome {
        OpOutcome::Range { revision, kvs, more, count } => Response::ResponseRange(pb::RangeResponse {
            header: inner_header(*revision),
            kvs: kvs.iter().map(kv).collect(),
            more: *more,
            count: *count,
        }),
        OpOutcome::Put { revision, previous } => Response::ResponsePut(pb::PutResponse {
            header: inner_header(*revision),
            prev_kv: previous.as_ref().map(kv),
        }),
        OpOutcome::DeleteRange { revision, deleted, previous } => {
            Response::ResponseDeleteRange(pb::DeleteRangeResponse {
                header: inner_header(*revision),
                deleted: *deleted,
                prev_kvs: previous.iter().map(kv).collect(),
            })
        }
        OpOutcome::Txn(txn) => Response::ResponseTxn(txn_response(txn, ResponseHeader::default())),
        // No request of etcd's asks for it.
        OpOutcome::Attach { .. } => return pb::ResponseOp::default(),
    };
    pb::ResponseOp { response: Some(response) }
}

#[cfg(test)]
mod tests;
