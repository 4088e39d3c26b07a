use super::*;
use crate::engine::{Meta, live_image};
use crate::pb::oxia::PutRequest;

const SLICE: Slice = Slice { first: 0, last: 9, is_text: true };

fn put(key: &str, expected_version: Option<u64>) -> PutRequest {
    PutRequest { key: key.into(), payload: Bytes::from_static(b"payload"), expected_version }
}

fn delete(key: &str, expected_version: Option<u64>) -> DeleteRequest {
    DeleteRequest { key: key.into(), expected_version }
}

fn plan(request: BatchRequest) -> Plan {
    Plan::of(request, SLICE)
}

/// An outcome of a transaction that wrote nothing and found these pairs.
fn found(succeeded: bool, kvs: Vec<Kv>) -> TxnOutcome {
    let count = kvs.len() as i64;
    let results = vec![OpOutcome::Range { revision: 7, kvs, more: false, count }];
    TxnOutcome { revision: 7, succeeded, results }
}

fn kv(key: &'static [u8], version: i64) -> Kv {
    let meta = Meta { version, ..Meta::default() };
    Kv { key: Bytes::from_static(key), image: live_image(&meta, b"payload") }
}

#[test]
fn versions_are_those_of_the_store_less_one() {
    let operand = |expected| compare(single("k"), expected).operand;
    assert_eq!(operand(0), Operand::Version(1));
    assert_eq!(operand(41), Operand::Version(42));
    assert_eq!(operand(ABSENT), Operand::Version(0));
    // What no key reaches holds for none.
    assert_eq!(operand(i64::MAX as u64), Operand::Version(NEVER));
    assert_eq!(operand(u64::MAX - 1), Operand::Version(NEVER));
    let image = live_image(&Meta { version: 1, ..Meta::default() }, b"");
    assert_eq!(stat(&Image::parse(&image).unwrap()).version, 0);
}

#[test]
fn a_batch_is_split_into_what_writes_and_what_reads() {
    let request = BatchRequest {
        puts: vec![put("a", None), put("", None), put("b", Some(0))],
        deletes: vec![delete("a", None), delete("", None), delete("b", Some(ABSENT))],
        gets: vec![GetRequest { key: "a".into(), include_payload: true }],
        ..Default::default()
    };
    assert_eq!(cost(&request), 3 * (PUT_COST + 7) + 2);
    let Plan { writes, reads, .. } = plan(request);
    let compares: Vec<usize> = writes.txns.iter().map(|txn| txn.compares.len()).collect();
    assert_eq!(compares, [0, 1, 0, 1]);
    // Nothing is deleted by a delete that wants no key there.
    assert!(writes.txns[3].success.is_empty());
    assert_eq!((writes.slice, reads.slice, reads.txns.len()), (None, None, 1));
    let only_empty = BatchRequest { puts: vec![put("", None)], ..Default::default() };
    let Plan { writes, reads, .. } = plan(only_empty);
    assert!(writes.txns.is_empty() && reads.txns.is_empty());
}

#[test]
fn ranges_see_the_slice_and_an_empty_end_is_none() {
    let delete_ranges = vec![DeleteRangeRequest { start_inclusive: "a".into(), end_exclusive: "b".into() }];
    let get_ranges = vec![crate::pb::oxia::GetRangeRequest::default()];
    let Plan { writes, reads, .. } = plan(BatchRequest { delete_ranges, get_ranges, ..Default::default() });
    assert_eq!((writes.slice, reads.slice), (Some(SLICE), Some(SLICE)));
    let Op::Range(query) = &reads.txns[0].success[0] else { panic!("a range") };
    let zero = Bytes::from_static(&[0]);
    assert_eq!(query.range, KeyRange::from_wire(zero.clone(), zero));
    assert!(query.keys_only);
}

#[test]
fn answers_are_positional() {
    let request = || BatchRequest {
        deletes: vec![delete("", Some(3)), delete("a", Some(3)), delete("", None)],
        gets: ["", "b", "c"].map(|key| GetRequest { key: key.into(), include_payload: key == "b" }).into(),
        ..Default::default()
    };
    let questions = plan(request()).questions;
    let absent = OpOutcome::Range { revision: 7, kvs: Vec::new(), more: false, count: 0 };
    let mut read = found(true, vec![kv(b"b", 3)]);
    read.results.push(absent);
    let answer = questions.answer(vec![found(false, Vec::new())], vec![read]).unwrap();
    let errors: Vec<&str> =
        answer.deletes.iter().map(|delete| delete.error.as_ref().unwrap().message.as_str()).collect();
    assert_eq!(errors, ["unexpected version", "unexpected version", "key not found"]);
    let gets: Vec<_> = answer.gets.iter().map(|get| (get.key.as_str(), get.payload.as_deref())).collect();
    assert_eq!(gets, [("", None), ("b", Some(&b"payload"[..])), ("c", None)]);
    assert!(matches!(&answer.gets[1].result, Some(get_response::Result::Stat(Stat { version: 2, .. }))));
}

#[test]
fn outcomes_of_something_else_are_no_answer() {
    let questions = || plan(BatchRequest { puts: vec![put("a", None)], ..Default::default() }).questions;
    assert!(questions().answer(Vec::new(), Vec::new()).is_none());
    assert!(questions().answer(vec![found(true, vec![kv(b"a", 1)])], Vec::new()).is_none());
}
