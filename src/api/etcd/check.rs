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

/// KV-T1 to KV-T4. All shapes come before the first duplicate, whatever the branch.
pub fn txn(request: &TxnRequest, ops_max: usize) -> Result<(), Error> {
    shape(request, ops_max)?;
    for branch in [&request.success, &request.failure] {
        if !is_single(branch) {
            changes(branch)?;
        }
    }
    Ok(())
}

/// Whether a branch is too short for a duplicate. Most are, and are spared the bookkeeping.
fn is_single(ops: &[RequestOp]) -> bool {
    match ops {
        [] => true,
        [op] => !matches!(op.request, Some(Request::RequestTxn(_))),
        _ => false,
    }
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

/// What a list of ops changes, nested ones included.
#[derive(Default)]
struct Changes<'r> {
    puts: HashSet<&'r [u8]>,
    /// Keys deleted one by one.
    deleted_keys: HashSet<&'r [u8]>,
    /// Ranges deleted, start to end; those that touch are merged, so that one look finds what covers a key.
    deleted_ranges: BTreeMap<&'r [u8], &'r [u8]>,
}

impl<'r> Changes<'r> {
    /// An inverted range covers nothing. "From key on" counts as one, since its end is a zero byte: etcd does not
    /// notice that such a delete covers a put (KV-T4).
    fn delete(&mut self, mut start: &'r [u8], mut end: &'r [u8]) {
        if end.is_empty() {
            self.deleted_keys.insert(start);
        } else if start < end {
            while let Some((&s, &e)) = self.deleted_ranges.range(..=end).next_back() {
                if e < start {
                    break;
                }
                self.deleted_ranges.remove(s);
                start = start.min(s);
                end = end.max(e);
            }
            self.deleted_ranges.insert(start, end);
        }
    }

    fn is_deleted(&self, key: &[u8]) -> bool {
        self.deleted_keys.contains(key)
            || self.deleted_ranges.range(..=key).next_back().is_some_and(|(_, &end)| key < end)
    }

    fn put(&mut self, key: &'r [u8]) -> Result<(), Error> {
        if self.is_deleted(key) || !self.puts.insert(key) { Err(Error::DuplicateKey) } else { Ok(()) }
    }

    /// Adds a nested txn. Only one of its branches runs, so a key may be put in both; what either deletes counts for
    /// the ops that come later, not for its own or earlier nested ones (KV-T4).
    fn nest(&mut self, txn: &'r TxnRequest) -> Result<(), Error> {
        let success = changes(&txn.success)?;
        let failure = changes(&txn.failure)?;
        for key in success.puts.union(&failure.puts) {
            self.put(key)?;
        }
        for branch in [success, failure] {
            self.deleted_keys.extend(branch.deleted_keys);
            for (start, end) in branch.deleted_ranges {
                self.delete(start, end);
            }
        }
        Ok(())
    }
}

/// A key may be put once, and not put where it is deleted. The order of the passes is etcd's, and decides which
/// duplicates are found: deletes of this level, nested txns, puts of this level.
fn changes(ops: &[RequestOp]) -> Result<Changes<'_>, Error> {
    let mut changes = Changes::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(delete)) = &op.request {
            changes.delete(&delete.key, &delete.range_end);
        }
    }
    for op in ops {
        if let Some(Request::RequestTxn(txn)) = &op.request {
            changes.nest(txn)?;
        }
    }
    for op in ops {
        if let Some(Request::RequestPut(put)) = &op.request {
            changes.put(&put.key)?;
        }
    }
    Ok(changes)
}

#[cfg(test)]
mod tests;
