//! Shape checks on requests, done before anything is proposed, in etcd's order so that the same error comes first.

use super::error::Error;
use crate::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::pb::etcdserverpb::request_op::Request;
use crate::pb::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use std::collections::{BTreeMap, HashSet};
use tonic::Status;

/// KV-R1, KV-R2.
pub fn range(request: &RangeRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    if SortOrder::try_from(request.sort_order).is_err() || SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(Error::InvalidSortOption);
    }
    Ok(())
}

/// KV-S1.
pub fn range_stream(request: &RangeRequest) -> Result<(), Status> {
    range(request)?;
    let is_key_order = request.sort_order() == SortOrder::None
        || (request.sort_order() == SortOrder::Ascend && request.sort_target() == SortTarget::Key);
    if !is_key_order {
        return Err(Status::unimplemented("RangeStream does not support custom sort orders"));
    }
    let bounds = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if bounds != [0; 4] {
        return Err(Status::unimplemented("RangeStream does not support revision filters"));
    }
    Ok(())
}

/// KV-P1 to KV-P3.
pub fn put(request: &PutRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        Err(Error::EmptyKey)
    } else if request.ignore_value && !request.value.is_empty() {
        Err(Error::ValueProvided)
    } else if request.ignore_lease && request.lease != 0 {
        Err(Error::LeaseProvided)
    } else {
        Ok(())
    }
}

/// KV-D1.
pub fn delete_range(request: &DeleteRangeRequest) -> Result<(), Error> {
    if request.key.is_empty() { Err(Error::EmptyKey) } else { Ok(()) }
}

/// KV-T1 to KV-T4.
pub fn txn(request: &TxnRequest, ops_max: usize) -> Result<(), Error> {
    shape(request, ops_max)?;
    duplicates(&request.success)?;
    duplicates(&request.failure)?;
    Ok(())
}

fn shape(request: &TxnRequest, ops_max: usize) -> Result<(), Error> {
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    let Some(ops_left) = ops_max.checked_sub(ops) else { return Err(Error::TooManyOps) };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Error::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(r)) => range(r)?,
            Some(Request::RequestPut(r)) => put(r)?,
            Some(Request::RequestDeleteRange(r)) => delete_range(r)?,
            Some(Request::RequestTxn(r)) => shape(r, ops_left)?,
            None => return Err(Error::KeyNotFound),
        }
    }
    Ok(())
}

/// Ranges that are deleted: start to end (`None`: unbounded), merged, so that none overlap.
#[derive(Default)]
struct Deleted<'r>(BTreeMap<&'r [u8], &'r [u8]>, Vec<&'r [u8]>);

impl<'r> Deleted<'r> {
    /// Adds a range; an inverted one covers nothing. That is also what etcd makes of "from key on", whose end is a zero
    /// byte: it does not notice that such a delete covers a put (KV-T4).
    fn add(&mut self, start: &'r [u8], end: &'r [u8]) {
        if end.is_empty() {
            self.1.push(start); // a single key; rarely many
        } else if end > start {
            let (mut start, mut end) = (start, end);
            while let Some((&s, &e)) = self.0.range(..=end).next_back() {
                if e < start {
                    break;
                }
                self.0.remove(s);
                start = start.min(s);
                end = end.max(e);
            }
            self.0.insert(start, end);
        }
    }

    fn covers(&self, key: &[u8], points: &HashSet<&[u8]>) -> bool {
        points.contains(key) || self.0.range(..=key).next_back().is_some_and(|(_, &end)| key < end)
    }
}

/// Keys that a list of ops puts, and ranges that it deletes.
#[derive(Default)]
struct Changes<'r> {
    puts: HashSet<&'r [u8]>,
    deleted: Deleted<'r>,
    points: HashSet<&'r [u8]>,
}

impl<'r> Changes<'r> {
    fn delete(&mut self, start: &'r [u8], end: &'r [u8]) {
        self.deleted.add(start, end);
        self.points.extend(self.deleted.1.drain(..));
    }

    fn put(&mut self, key: &'r [u8]) -> Result<(), Error> {
        if self.deleted.covers(key, &self.points) || !self.puts.insert(key) {
            return Err(Error::DuplicateKey);
        }
        Ok(())
    }
}

/// A key may be put once, and not put where it is deleted; branches of a nested txn exclude each other.
fn duplicates(ops: &[RequestOp]) -> Result<Changes<'_>, Error> {
    let mut changes = Changes::default();
    if let [RequestOp { request: Some(Request::RequestPut(_) | Request::RequestRange(_)) }] = ops {
        if let Some(Request::RequestPut(put)) = &ops[0].request {
            changes.puts.insert(&put.key);
        }
        return Ok(changes);
    }
    for op in ops {
        if let Some(Request::RequestDeleteRange(delete)) = &op.request {
            changes.delete(&delete.key, &delete.range_end);
        }
    }
    for op in ops {
        if let Some(Request::RequestTxn(txn)) = &op.request {
            nested(&mut changes, txn)?;
        }
    }
    for op in ops {
        if let Some(Request::RequestPut(put)) = &op.request {
            changes.put(&put.key)?;
        }
    }
    Ok(changes)
}

fn nested<'r>(changes: &mut Changes<'r>, txn: &'r TxnRequest) -> Result<(), Error> {
    let success = duplicates(&txn.success)?;
    let failure = duplicates(&txn.failure)?;
    for key in &success.puts {
        changes.put(key)?;
    }
    for key in &failure.puts {
        if success.puts.contains(key) {
            continue; // put above already, and only one of the branches runs
        }
        changes.put(key)?;
    }
    for branch in [success, failure] {
        for (start, end) in branch.deleted.0 {
            changes.delete(start, end);
        }
        changes.points.extend(branch.points);
    }
    Ok(())
}
