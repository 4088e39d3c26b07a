//! The draft's messages into the engine's vocabulary, checked on the way, and its outcomes back.

use super::error::Error;
use super::token;
use crate::engine::command::{
    self, Attach, Binding, BoundPut, DeleteRange, Kv, Op, OpOutcome, Operand, Range, Relation,
    RevisionBounds, Sort, Txn,
};
use crate::engine::{Image, LEASE_COST, PUT_COST, Value};
use crate::pb::rfc::compare::{CompareType, Target};
use crate::pb::rfc::request_union::Request;
use crate::pb::rfc::response_union::Response;
use crate::pb::rfc::{self as pb, ResponseHeader, ResponseUnion};
use crate::types::KeyRange;
use bytes::Bytes;

/// Bytes of their own. Those of a message are part of the buffer that it was received in, and the store keeps keys and values
/// for a while, as the hub keeps ranges.
fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn key(key: Option<Bytes>) -> Result<Bytes, Error> {
    key.filter(|key| !key.is_empty()).map(|key| own(&key)).ok_or(Error::EmptyKey)
}

/// The keys of a request. An end that is there but empty counts as none.
pub fn keys(start: Option<Bytes>, range_end: Option<Bytes>) -> Result<KeyRange, Error> {
    Ok(KeyRange::from_wire(key(start)?, own(&range_end.unwrap_or_default())))
}

/// A read; at the index of its token, if there is one.
pub fn range(request: pb::RangeRequest, cluster: u64) -> Result<Range, Error> {
    let token = request.consistent_token.filter(|token| !token.is_empty());
    let index = token.map(|token| token::decode(&token, cluster).ok_or(Error::BadToken)).transpose();
    Ok(Range {
        range: keys(request.key, request.range_end)?,
        limit: request.limit.unwrap_or(0).max(0),
        revision: index?.unwrap_or(0),
        sort: Sort::default(),
        keys_only: false,
        count_only: false,
        bounds: RevisionBounds::default(),
    })
}

/// A write. Attachments are apart from values here: the key stays attached to what it is.
pub fn put(request: pb::PutRequest) -> Result<BoundPut, Error> {
    let value = own(&request.value.unwrap_or_default());
    Ok(BoundPut { key: key(request.key)?, value, binding: Binding::Keep })
}

/// A removal.
pub fn delete_range(request: pb::DeleteRangeRequest) -> Result<DeleteRange, Error> {
    Ok(DeleteRange { range: keys(request.key, request.range_end)?, prev_kv: false })
}

/// An attachment.
pub fn attach(request: pb::LeaseAttachRequest) -> Result<Op, Error> {
    Ok(Op::Attach(Attach { key: key(request.key)?, lease: request.lease_id.unwrap_or(0) }))
}

/// A transaction. No list may be longer than `ops_max`, or change a key twice.
pub fn tnx(request: pb::TnxRequest, cluster: u64, ops_max: usize) -> Result<Txn, Error> {
    let pb::TnxRequest { compare: compares, success, failure } = request;
    if compares.len().max(success.len()).max(failure.len()) > ops_max {
        return Err(Error::TooManyOps);
    }
    let compares = compares.into_iter().map(compare).collect::<Result<_, _>>()?;
    let ops = |list: Vec<pb::RequestUnion>| {
        list.into_iter().map(|request| op(request, cluster)).collect::<Result<Vec<_>, _>>()
    };
    let (success, failure) = (ops(success)?, ops(failure)?);
    if !changes_keys_once(&success) || !changes_keys_once(&failure) {
        return Err(Error::DuplicateKey);
    }
    Ok(Txn { compares, success, failure })
}

fn op(request: pb::RequestUnion, cluster: u64) -> Result<Op, Error> {
    Ok(match request.request.ok_or(Error::NoOperation)? {
        Request::RequestRange(request) => Op::Range(range(request, cluster)?),
        Request::RequestPut(request) => Op::BoundPut(put(request)?),
        Request::RequestDeleteRange(request) => Op::DeleteRange(delete_range(request)?),
    })
}

fn compare(compare: pb::Compare) -> Result<command::Compare, Error> {
    let relation = match compare.r#type.map_or(Ok(CompareType::Equal), CompareType::try_from) {
        Ok(CompareType::Equal) => Relation::Equal,
        Ok(CompareType::Greater) => Relation::Greater,
        Ok(CompareType::Less) => Relation::Less,
        Err(_) => return Err(Error::BadCompareType),
    };
    let range = KeyRange::single(key(compare.key)?);
    let operand = match compare.target.ok_or(Error::NoTarget)? {
        Target::Version(version) => Operand::Version(version),
        Target::CreateIndex(index) => Operand::CreateRevision(index),
        Target::ModIndex(index) => Operand::ModRevision(index),
        Target::Value(value) => Operand::Value(own(&value)),
    };
    Ok(command::Compare { range, relation, operand })
}

/// Whether no key is put twice, or both put and deleted.
fn changes_keys_once(ops: &[Op]) -> bool {
    if ops.len() < 2 {
        return true;
    }
    let mut puts: Vec<&[u8]> = Vec::new();
    for op in ops {
        if let Op::BoundPut(put) = op {
            puts.push(&put.key);
        }
    }
    puts.sort_unstable();
    let is_put = |range: &KeyRange| {
        let first = puts.partition_point(|key| *key < &range.start[..]);
        puts.get(first).is_some_and(|key| range.contains(key))
    };
    let is_put_again = puts.windows(2).any(|pair| pair[0] == pair[1]);
    !is_put_again && !ops.iter().any(|op| matches!(op, Op::DeleteRange(delete) if is_put(&delete.range)))
}

/// Whether a transaction needs no entry of the log.
pub fn is_read_only(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| matches!(op, Op::Range(_)))
}

/// Bytes that a put may add to the database.
pub fn put_cost(put: &BoundPut) -> u64 {
    PUT_COST + (put.key.len() + put.value.len()) as u64
}

/// Bytes that a transaction may add: those of the costlier branch.
pub fn cost(txn: &Txn) -> u64 {
    let of = |op: &Op| match op {
        Op::BoundPut(put) => put_cost(put),
        Op::Attach(_) => LEASE_COST,
        Op::Put(_) | Op::Range(_) | Op::DeleteRange(_) | Op::Txn(_) => 0,
    };
    let branch = |ops: &[Op]| ops.iter().map(of).sum::<u64>();
    branch(&txn.success).max(branch(&txn.failure))
}

/// The index that each op of a list reads at by its token, or 0; nothing where there is no token at all.
pub fn indexes_of_tokens(ops: &[Op]) -> Vec<i64> {
    let index = |op: &Op| if let Op::Range(query) = op { query.revision } else { 0 };
    if ops.iter().all(|op| index(op) == 0) { Vec::new() } else { ops.iter().map(index).collect() }
}

/// A pair. Its value is not copied.
fn pair(kv: Kv) -> pb::KeyValue {
    let image = Image::parse(&kv.image).expect("the applier made it");
    let meta = image.meta();
    let value = match image.value {
        Value::Inline(value) => kv.image.slice_ref(value),
        Value::Blob(_) => Bytes::new(), // never in an outcome
    };
    pb::KeyValue {
        key: Some(kv.key),
        create_index: Some(meta.create_revision),
        mod_index: Some(meta.modified.main),
        version: Some(meta.version),
        value: Some(value),
    }
}

/// Answers to the requests of the list that ran, each with the header of the whole. `read_at` is what
/// [`indexes_of_tokens`] says of the list.
pub fn responses(
    results: Vec<OpOutcome>,
    read_at: &[i64],
    header: &ResponseHeader,
    cluster: u64,
) -> Vec<ResponseUnion> {
    let response = |(n, outcome)| {
        let header = Some(header.clone());
        let response = match outcome {
            OpOutcome::Range { revision, kvs, .. } => {
                let index = read_at.get(n).copied().filter(|index| *index > 0).unwrap_or(revision);
                let kvs = kvs.into_iter().map(pair).collect();
                let consistent_token = Some(token::encode(cluster, index));
                Response::ReponseRange(pb::RangeResponse { header, kvs, consistent_token })
            }
            OpOutcome::Put { .. } => Response::ResponsePut(pb::PutResponse { header }),
            OpOutcome::DeleteRange { .. } => {
                Response::ResponseDeleteRange(pb::DeleteRangeResponse { header })
            }
            // No list holds one.
            OpOutcome::Txn(_) | OpOutcome::Attach { .. } => return ResponseUnion::default(),
        };
        ResponseUnion { response: Some(response) }
    };
    results.into_iter().enumerate().map(response).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OPS_MAX: usize = 4;

    fn request(request: Request) -> pb::RequestUnion {
        pb::RequestUnion { request: Some(request) }
    }

    fn put_of(key: &'static [u8]) -> pb::RequestUnion {
        request(Request::RequestPut(pb::PutRequest { key: Some(key.into()), value: None }))
    }

    fn delete_of(key: &'static [u8], range_end: &'static [u8]) -> pb::RequestUnion {
        let (key, range_end) = (Some(key.into()), Some(range_end.into()));
        request(Request::RequestDeleteRange(pb::DeleteRangeRequest { key, range_end }))
    }

    fn error(request: pb::TnxRequest) -> Option<Error> {
        tnx(request, 1, OPS_MAX).err()
    }

    #[test]
    fn a_key_changes_once_in_a_list() {
        let lists: [(Vec<pb::RequestUnion>, bool); 8] = [
            (vec![put_of(b"a"), put_of(b"b")], true),
            (vec![put_of(b"a"), put_of(b"b"), put_of(b"a")], false),
            (vec![put_of(b"b"), delete_of(b"a", b"c")], false),
            (vec![delete_of(b"a", b"b"), put_of(b"b")], true),
            (vec![delete_of(b"b", b""), put_of(b"b")], false),
            (vec![put_of(b"c"), delete_of(b"b", b"\0")], false),
            (vec![put_of(b"b"), delete_of(b"c", b"a")], true),
            (vec![delete_of(b"a", b"c"), delete_of(b"b", b"d")], true),
        ];
        for (list, is_good) in lists {
            let other = vec![put_of(b"a")];
            let expected = (!is_good).then_some(Error::DuplicateKey);
            let tnx = |success: &[_], failure: &[_]| pb::TnxRequest {
                compare: Vec::new(),
                success: success.to_vec(),
                failure: failure.to_vec(),
            };
            assert_eq!(error(tnx(&list, &other)), expected, "{list:?}");
            assert_eq!(error(tnx(&other, &list)), expected, "{list:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let good = pb::Compare {
            r#type: None,
            key: Some(Bytes::from_static(b"k")),
            target: Some(Target::Version(0)),
        };
        let of = |compare: pb::Compare| pb::TnxRequest { compare: vec![compare], ..Default::default() };
        assert_eq!(error(of(good.clone())), None);
        assert_eq!(error(of(pb::Compare { key: None, ..good.clone() })), Some(Error::EmptyKey));
        assert_eq!(error(of(pb::Compare { target: None, ..good.clone() })), Some(Error::NoTarget));
        assert_eq!(error(of(pb::Compare { r#type: Some(3), ..good })), Some(Error::BadCompareType));
        let of = |failure| pb::TnxRequest { failure, ..Default::default() };
        assert_eq!(error(of(vec![pb::RequestUnion::default()])), Some(Error::NoOperation));
        assert_eq!(error(of(vec![delete_of(b"a", b""); OPS_MAX])), None);
        assert_eq!(error(of(vec![delete_of(b"a", b""); OPS_MAX + 1])), Some(Error::TooManyOps));
        assert_eq!(error(of(vec![put_of(b"")])), Some(Error::EmptyKey));
    }

    proptest! {
        /// Compared with looking at every pair of ops.
        #[test]
        fn duplicates_are_found(ops in prop::collection::vec((0u8..5, prop::option::of(0u8..6)), 0..6)) {
            let op = |(key, end): &(u8, Option<u8>)| {
                let key = Bytes::copy_from_slice(&[*key + b'a']);
                match end {
                    None => Op::BoundPut(BoundPut { key, value: Bytes::new(), binding: Binding::Keep }),
                    Some(end) => {
                        let range = KeyRange::from_wire(key, Bytes::copy_from_slice(&[*end + b'a']));
                        Op::DeleteRange(DeleteRange { range, prev_kv: false })
                    }
                }
            };
            let ops: Vec<Op> = ops.iter().map(op).collect();
            let clash = |a: &Op, b: &Op| match (a, b) {
                (Op::BoundPut(a), Op::BoundPut(b)) => a.key == b.key,
                (Op::BoundPut(put), Op::DeleteRange(delete)) | (Op::DeleteRange(delete), Op::BoundPut(put)) => {
                    delete.range.contains(&put.key)
                }
                _ => false,
            };
            let is_clash = (0..ops.len()).any(|n| ops[..n].iter().any(|op| clash(op, &ops[n])));
            prop_assert_eq!(changes_keys_once(&ops), !is_clash);
        }
    }
}
