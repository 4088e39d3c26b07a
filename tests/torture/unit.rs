//! The judges of `tests/torture` are judged themselves: violations are planted in histories, and must be found.

#![allow(dead_code)] // the rest of these modules is for the torture itself

mod check;
mod history;
mod journal;
mod register;

use std::collections::BTreeMap;

use history::{Event, History};
use journal::{Answer, Call, LeaseRecord, Operation, Pair};
use register::Verdict;

const KEY: &str = "k";

fn pair(value: u64, created: i64, modified: i64, version: i64) -> Pair {
    Pair { value, created, modified, version, lease: 0 }
}

fn put_event(value: u64, created: i64, modified: i64, version: i64) -> Event {
    Event { key: KEY.into(), pair: Some(pair(value, created, modified, version)) }
}

/// Revision 2 puts 20, revision 3 puts 30, revision 4 deletes.
fn history() -> History {
    let deleted = Event { key: KEY.into(), pair: None };
    let events = [(2, vec![put_event(20, 2, 2, 1)]), (3, vec![put_event(30, 2, 3, 2)]), (4, vec![deleted])];
    History::new(events.into()).expect("a history")
}

fn operation(call: Call, invoked: u64, answer: Option<(u64, Answer)>) -> Operation {
    Operation { client: 1, call, invoked, answer }
}

fn put(value: u64, from: u64, to: u64, revision: i64) -> Operation {
    let call = Call::Put { keys: vec![KEY.into()], value, lease: 0 };
    operation(call, from, Some((to, Answer { revision, has_changed: true, pair: None })))
}

fn lost_put(value: u64, from: u64) -> Operation {
    operation(Call::Put { keys: vec![KEY.into()], value, lease: 0 }, from, None)
}

fn get(from: u64, to: u64, revision: i64, pair: Option<Pair>) -> Operation {
    let call = Call::Get { key: KEY.into(), is_local: false };
    operation(call, from, Some((to, Answer { revision, has_changed: false, pair })))
}

fn swap(guard: i64, value: u64, from: u64, to: u64, answer: Answer) -> Operation {
    operation(Call::Swap { key: KEY.into(), guard, value }, from, Some((to, answer)))
}

fn delete(from: u64, to: u64, revision: i64, has_changed: bool) -> Operation {
    let call = Call::Delete { key: KEY.into() };
    operation(call, from, Some((to, Answer { revision, has_changed, pair: None })))
}

/// What truly happened: two puts and a delete, with reads between.
fn honest() -> Vec<Operation> {
    vec![
        put(20, 0, 10, 2),
        get(11, 20, 2, Some(pair(20, 2, 2, 1))),
        put(30, 21, 30, 3),
        get(31, 40, 3, Some(pair(30, 2, 3, 2))),
        delete(41, 50, 4, true),
        get(51, 60, 4, None),
    ]
}

/// Both judges find nothing, or what was planted.
fn assert_judged(operations: &[Operation], by_revision: Option<&str>, by_search: Verdict) {
    let found = check::check(&history(), operations);
    match (by_revision, found) {
        (None, found) => assert_eq!(found, Ok(())),
        (Some(text), found) => {
            let found = found.expect_err("a violation was planted");
            assert!(found.contains(text), "{found}");
        }
    }
    assert_eq!(register::judge(KEY, &history(), operations), by_search);
}

#[test]
fn what_truly_happened_is_accepted() {
    assert_judged(&honest(), None, Verdict::Linearizable);
    let mut lost = honest();
    lost[2].answer = None;
    lost.push(lost_put(99, 5));
    assert_judged(&lost, None, Verdict::Linearizable);
}

#[test]
fn a_stale_read_is_found() {
    let mut stale = honest();
    stale[3] = get(31, 40, 2, Some(pair(20, 2, 2, 1)));
    assert_judged(&stale, Some("after 3 had been told"), Verdict::Violation);
    // The same read at the same time as the write is no violation.
    stale[3] = get(22, 40, 2, Some(pair(20, 2, 2, 1)));
    assert_judged(&stale, None, Verdict::Linearizable);
    // A local read may be old, but must have been true once.
    stale[3].call = Call::Get { key: KEY.into(), is_local: true };
    stale[3].invoked = 31;
    assert_judged(&stale, None, Verdict::Linearizable);
    stale[3].answer.as_mut().unwrap().1.pair = Some(pair(77, 2, 2, 1));
    assert_judged(&stale, Some("it should have read"), Verdict::Linearizable);
}

#[test]
fn a_lost_write_is_found() {
    let mut operations = honest();
    operations.push(put(50, 61, 70, 5));
    assert!(check::check(&history(), &operations).unwrap_err().contains("history ends at 4"));
    operations.push(get(71, 80, 4, None));
    assert_eq!(register::judge(KEY, &history(), &operations), Verdict::Violation);
}

#[test]
fn a_write_of_nobody_is_found() {
    let mut operations = honest();
    operations.remove(2);
    assert_judged(&operations, Some("nobody wrote revision 3"), Verdict::Violation);
    operations.push(lost_put(30, 41));
    assert_judged(&operations, Some("revision 3 after 3 had been told"), Verdict::Violation);
    operations.retain(|operation| !matches!(operation.call, Call::Get { .. }));
    operations.push(get(31, 34, 3, Some(pair(30, 2, 3, 2))));
    let late = operations.iter_mut().find(|o| o.answer.is_none()).unwrap();
    late.invoked = 20;
    assert_judged(&operations, None, Verdict::Linearizable);
}

#[test]
fn a_write_that_took_effect_before_it_was_asked_for_is_found() {
    let mut operations = honest();
    operations[2] = lost_put(30, 51);
    operations.retain(|operation| !matches!(operation.call, Call::Get { .. }));
    assert_judged(&operations, Some("revision 3 after 4 had been told"), Verdict::Linearizable);
}

#[test]
fn a_broken_comparison_is_found() {
    let honest_swap = Answer { revision: 3, has_changed: true, pair: None };
    let mut operations = honest();
    operations[2] = swap(2, 30, 21, 30, honest_swap);
    assert_judged(&operations, None, Verdict::Linearizable);
    // It held, but was told that it did not.
    let refused = Answer { revision: 3, has_changed: false, pair: Some(pair(30, 2, 3, 2)) };
    let mut wrong = honest();
    wrong.push(swap(3, 88, 31, 40, refused.clone()));
    assert_judged(&wrong, Some("the comparison held"), Verdict::Violation);
    let mut right = honest();
    right.push(swap(2, 88, 31, 40, refused));
    assert_judged(&right, None, Verdict::Linearizable);
}

#[test]
fn a_delete_that_saw_the_wrong_state_is_found() {
    let mut operations = honest();
    operations.push(delete(31, 40, 3, false));
    assert_judged(&operations, Some("the key was there"), Verdict::Violation);
}

#[test]
fn two_writes_of_one_revision_are_found() {
    let mut operations = honest();
    operations.push(put(30, 21, 30, 3));
    assert!(check::check(&history(), &operations).unwrap_err().contains("the same revision"));
}

#[test]
fn a_history_that_is_none_is_found() {
    let gap = [(2, vec![put_event(20, 2, 2, 1)]), (4, vec![put_event(30, 2, 4, 2)])];
    assert!(History::new(gap.into()).unwrap_err().contains("gap"));
    let version = [(2, vec![put_event(20, 2, 2, 1)]), (3, vec![put_event(30, 2, 3, 3)])];
    assert!(History::new(version.into()).unwrap_err().contains("does not follow"));
    let nothing = [(2, vec![Event { key: KEY.into(), pair: None }])];
    assert!(History::new(nothing.into()).unwrap_err().contains("no such key"));
    let twice = [(2, vec![put_event(20, 2, 2, 1), put_event(21, 2, 2, 2)])];
    assert!(History::new(twice.into()).unwrap_err().contains("second change"));
}

#[test]
fn a_lease_that_ends_early_is_found() {
    let record = LeaseRecord { id: 7, ttl: 2, key: KEY.into(), renewed: 1_000_000, gone: None };
    let seen = |at: u64| BTreeMap::from([(KEY.to_owned(), at)]);
    assert_eq!(check::check_leases(std::slice::from_ref(&record), &seen(3_000_000)), Ok(()));
    assert!(check::check_leases(std::slice::from_ref(&record), &seen(2_999_999)).is_err());
    let gone = LeaseRecord { gone: Some(2_000_000), ..record };
    assert!(check::check_leases(&[gone], &BTreeMap::new()).is_err());
}
