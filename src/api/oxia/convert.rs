//! Batches of Oxia's into the engine's vocabulary, and its outcomes back. Pure.
//!
//! Oxia's version of a key is that of the store less one: both count puts since the key was created, from 0 and from 1.

use crate::engine::command::{
    Batch, Compare, DeleteRange, Kv, Op, OpOutcome, Operand, Put, Range, Relation, RevisionBounds, Sort, Txn,
    TxnOutcome,
};
use crate::engine::{Image, PUT_COST, Value};
use crate::pb::oxia::{
    BatchRequest, BatchResponse, DeleteRangeRequest, DeleteRangeResponse, DeleteRequest, DeleteResponse,
    Error, ErrorType, GetRangeResponse, GetRequest, GetResponse, PutResponse, Stat, get_response,
    put_response,
};
use crate::types::{KeyRange, RangeEnd, Slice};
use bytes::Bytes;

/// The expected version that means "no such key": -1 to a client whose versions are signed.
const ABSENT: u64 = u64::MAX;
/// A version that no key has.
const NEVER: i64 = -1;

/// Bytes that a batch may add to the database.
pub fn cost(request: &BatchRequest) -> u64 {
    request.puts.iter().map(|put| PUT_COST + (put.key.len() + put.payload.len()) as u64).sum()
}

/// What is to be done for a request.
pub struct Plan {
    /// Puts, deletes and deletes of ranges, each a transaction of its own.
    pub writes: Batch,
    /// Gets and gets of ranges, all in one transaction; none if nothing is to be read beside what is written.
    pub reads: Batch,
    /// What was asked.
    pub questions: Questions,
}

/// What the answer needs to know of a request. An item with an empty key is answered without being carried out: there is
/// no such key, and can be none.
#[derive(Default)]
pub struct Questions {
    puts: Vec<String>,
    /// Keys, and the error of those that are not there, should the key be empty.
    deletes: Vec<(String, Option<Error>)>,
    delete_ranges: usize,
    /// Keys, and whether the payload is wanted.
    gets: Vec<(String, bool)>,
    /// Whether payloads are wanted.
    get_ranges: Vec<bool>,
}

impl Plan {
    /// The plan for a request whose ranges are about this slice.
    pub fn of(request: BatchRequest, slice: Slice) -> Plan {
        let BatchRequest { shard_id: _, puts, deletes, delete_ranges, gets, get_ranges } = request;
        let mut questions = Questions { delete_ranges: delete_ranges.len(), ..Questions::default() };
        // Single keys are text and of the right shard already.
        let mut writes = Batch { slice: (!delete_ranges.is_empty()).then_some(slice), txns: Vec::new() };
        writes.txns.reserve(puts.len() + deletes.len() + delete_ranges.len());
        for put in puts {
            writes.txns.extend(put_txn(&put.key, &put.payload, put.expected_version));
            questions.puts.push(put.key);
        }
        for DeleteRequest { key, expected_version } in deletes {
            writes.txns.extend(delete_txn(&key, expected_version));
            questions.deletes.push((key, absent(expected_version)));
        }
        writes.txns.extend(delete_ranges.into_iter().map(delete_range_txn));

        let mut reads = Batch { slice: (!get_ranges.is_empty()).then_some(slice), txns: Vec::new() };
        let mut ops = Vec::with_capacity(gets.len() + get_ranges.len());
        for GetRequest { key, include_payload } in gets {
            if !key.is_empty() {
                ops.push(read(single(&key), !include_payload));
            }
            questions.gets.push((key, include_payload));
        }
        for get in get_ranges {
            ops.push(read(range(get.start_inclusive, get.end_exclusive), !get.include_payloads));
            questions.get_ranges.push(get.include_payloads);
        }
        if !ops.is_empty() {
            reads.txns.push(Txn { success: ops, ..Txn::default() });
        }
        Plan { writes, reads, questions }
    }
}

/// Writes a key, and reads what the answer says of it. Nothing for the empty key.
fn put_txn(key: &str, payload: &[u8], expected: Option<u64>) -> Option<Txn> {
    let range = (!key.is_empty()).then(|| single(key))?;
    // A copy: the log remembers it for a while, and would keep the connection's buffer around it from being used again.
    let value = Bytes::copy_from_slice(payload);
    let put = Put { key: range.start.clone(), value, ..Put::default() };
    Some(Txn {
        compares: expected.map(|expected| compare(range.clone(), expected)).into_iter().collect(),
        success: vec![Op::Put(put), read(range, true)],
        failure: Vec::new(),
    })
}

/// Deletes a key. With nothing to be deleted, the compare alone tells whether the key is there. Nothing for the empty key.
fn delete_txn(key: &str, expected: Option<u64>) -> Option<Txn> {
    let range = (!key.is_empty()).then(|| single(key))?;
    let delete = Op::DeleteRange(DeleteRange { range: range.clone(), prev_kv: false });
    Some(Txn {
        compares: expected.map(|expected| compare(range, expected)).into_iter().collect(),
        success: if expected == Some(ABSENT) { Vec::new() } else { vec![delete] },
        failure: Vec::new(),
    })
}

/// Reads which keys are there, then deletes them.
fn delete_range_txn(request: DeleteRangeRequest) -> Txn {
    let range = range(request.start_inclusive, request.end_exclusive);
    let delete = Op::DeleteRange(DeleteRange { range: range.clone(), prev_kv: false });
    Txn { success: vec![read(range, true), delete], ..Txn::default() }
}

fn compare(range: KeyRange, expected: u64) -> Compare {
    let version = match expected {
        ABSENT => 0,
        version => i64::try_from(version + 1).unwrap_or(NEVER),
    };
    Compare { range, relation: Relation::Equal, operand: Operand::Version(version) }
}

fn single(key: &str) -> KeyRange {
    KeyRange::single(Bytes::copy_from_slice(key.as_bytes()))
}

/// Keys from the start to before the end; an empty end is none. The least key of all is one zero byte, which permissions for
/// all keys begin with.
fn range(start: String, end: String) -> KeyRange {
    let start = if start.is_empty() { Bytes::from_static(&[0]) } else { start.into() };
    let end = if end.is_empty() { RangeEnd::Unbounded } else { RangeEnd::Before(end.into()) };
    KeyRange { start, end }
}

fn read(range: KeyRange, keys_only: bool) -> Op {
    Op::Range(Range {
        range,
        limit: 0,
        revision: 0,
        sort: Sort::default(),
        keys_only,
        count_only: false,
        bounds: RevisionBounds::default(),
    })
}

impl Questions {
    /// The answer, from the outcomes of a plan; `None` if they are of something else.
    pub fn answer(self, written: Vec<TxnOutcome>, read: Vec<TxnOutcome>) -> Option<BatchResponse> {
        let mut written = written.into_iter();
        let mut answer = BatchResponse {
            puts: Vec::with_capacity(self.puts.len()),
            deletes: Vec::with_capacity(self.deletes.len()),
            delete_ranges: Vec::with_capacity(self.delete_ranges),
            gets: Vec::with_capacity(self.gets.len()),
            get_ranges: Vec::with_capacity(self.get_ranges.len()),
        };
        for key in self.puts {
            let result = match key.as_str() {
                "" => put_response::Result::Error(error(ErrorType::Unspecified, "the key is empty")),
                _ => put_result(&written.next()?)?,
            };
            answer.puts.push(PutResponse { key, result: Some(result) });
        }
        for (key, absent) in self.deletes {
            let error = if key.is_empty() { absent } else { delete_error(&written.next()?) };
            answer.deletes.push(DeleteResponse { key, error });
        }
        for _ in 0..self.delete_ranges {
            let found = pairs(written.next()?.results.into_iter().next()?)?;
            let deletes =
                found.into_iter().filter_map(|kv| Some(DeleteResponse { key: text(kv.key)?, error: None }));
            answer.delete_ranges.push(DeleteRangeResponse { deletes: deletes.collect() });
        }
        let mut read = read.into_iter().flat_map(|outcome| outcome.results);
        for (key, with_payload) in self.gets {
            let found = if key.is_empty() { None } else { pairs(read.next()?)?.pop() };
            answer.gets.push(get(key, found, with_payload)?);
        }
        for with_payloads in self.get_ranges {
            let found = pairs(read.next()?)?.into_iter();
            let found = found.filter_map(|kv| Some((text(kv.key.clone())?, kv)));
            let gets = found.map(|(key, kv)| get(key, Some(kv), with_payloads)).collect::<Option<_>>()?;
            answer.get_ranges.push(GetRangeResponse { gets });
        }
        Some(answer)
    }
}

fn put_result(outcome: &TxnOutcome) -> Option<put_response::Result> {
    match (outcome.succeeded, &outcome.results[..]) {
        (false, _) => Some(put_response::Result::Error(unexpected_version())),
        (true, [OpOutcome::Put { .. }, OpOutcome::Range { kvs, .. }]) => {
            Some(put_response::Result::Stat(stat(&Image::parse(&kvs.first()?.image).ok()?)))
        }
        (true, _) => None,
    }
}

fn delete_error(outcome: &TxnOutcome) -> Option<Error> {
    match (outcome.succeeded, outcome.results.first()) {
        (false, _) => Some(unexpected_version()),
        (true, Some(OpOutcome::DeleteRange { deleted: 1.., .. })) => None,
        (true, _) => Some(not_found()),
    }
}

/// The error of a delete of a key that is not there.
fn absent(expected: Option<u64>) -> Option<Error> {
    Some(match expected {
        None | Some(ABSENT) => not_found(),
        Some(_) => unexpected_version(),
    })
}

/// What is there under a key. `None` if that cannot be read.
fn get(key: String, found: Option<Kv>, with_payload: bool) -> Option<GetResponse> {
    let Some(kv) = found else {
        return Some(GetResponse {
            key,
            payload: None,
            result: Some(get_response::Result::Error(not_found())),
        });
    };
    let image = Image::parse(&kv.image).ok()?;
    let payload = with_payload.then(|| match image.value {
        Value::Inline(value) => kv.image.slice_ref(value),
        Value::Blob(_) => Bytes::new(), // never in an outcome
    });
    Some(GetResponse { key, payload, result: Some(get_response::Result::Stat(stat(&image))) })
}

fn stat(image: &Image<'_>) -> Stat {
    let meta = image.meta();
    Stat {
        version: u64::try_from(meta.version - 1).unwrap_or_default(),
        created_timestamp: meta.stamp.created_ms,
        modified_timestamp: meta.stamp.modified_ms,
    }
}

fn pairs(outcome: OpOutcome) -> Option<Vec<Kv>> {
    match outcome {
        OpOutcome::Range { kvs, .. } => Some(kvs),
        OpOutcome::Put { .. }
        | OpOutcome::DeleteRange { .. }
        | OpOutcome::Txn(_)
        | OpOutcome::Attach { .. } => None,
    }
}

/// The slice has no keys that are not text.
fn text(key: Bytes) -> Option<String> {
    String::from_utf8(key.into()).ok()
}

fn not_found() -> Error {
    error(ErrorType::KeyNotFound, "key not found")
}

/// The protocol has no type for it.
fn unexpected_version() -> Error {
    error(ErrorType::Unspecified, "unexpected version")
}

fn error(kind: ErrorType, message: &str) -> Error {
    Error { r#type: kind.into(), message: message.to_owned() }
}

#[cfg(test)]
mod tests;
