//! The store against a plain in-memory model: random writes, reads of every shape at every revision, history,
//! compactions, flushes, defragmentations, reopenings and moves to another member in between.

use super::history::Limit;
use super::transfer_test::{applied, transfer};
use super::writer::Writer;
use super::{Error, Store};
use crate::storage::Env;
use crate::storage::codec::{Image, Stamp, Value};
use crate::types::{KeyRange, Revision};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// A key, its new value or a delete, and the lease of a put.
type Change = (usize, Option<Vec<u8>>, i64);

#[derive(Clone, Debug)]
enum Step {
    Txn(Vec<Change>),
    /// Several revisions that become visible together.
    Batch(Vec<Vec<Change>>),
    Attach(usize, i64),
    Compact(u8),
    Flush,
    Remove,
    Defragment,
    Reopen,
    /// Go on with another member's store, which got this one's state.
    Transfer,
}

/// Few keys, so that they meet; some long ones that share what LMDB sees of them.
fn keys() -> Vec<Bytes> {
    let long = |tail: &str| Bytes::from([&[b'm'; 1900][..], tail.as_bytes()].concat());
    let mut keys: Vec<Bytes> = ["a", "b", "ba", "c\0", "d\u{ff}", "z"].into_iter().map(Bytes::from).collect();
    keys.extend([long(""), long("0"), long("1"), long("\0"), long("zz"), Bytes::from(vec![b'm'; 1899])]);
    keys.push(Bytes::from(vec![b'n'; 5000]));
    keys.sort();
    keys
}

fn step() -> impl Strategy<Value = Step> {
    let value = prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..20).prop_map(Some),
        1 => (1000usize..7000, any::<u8>()).prop_map(|(len, byte)| Some(vec![byte; len])),
        2 => Just(None),
    ];
    let txn = prop::collection::vec((0usize..13, value, 0i64..3), 1..4);
    prop_oneof![
        12 => txn.clone().prop_map(Step::Txn),
        2 => prop::collection::vec(txn, 1..4).prop_map(Step::Batch),
        3 => (0usize..13, 0i64..3).prop_map(|(key, lease)| Step::Attach(key, lease)),
        1 => any::<u8>().prop_map(Step::Compact),
        2 => Just(Step::Flush),
        2 => Just(Step::Remove),
        1 => Just(Step::Defragment),
        1 => Just(Step::Reopen),
        1 => Just(Step::Transfer),
    ]
}

#[derive(Clone, Debug, PartialEq)]
struct Kv {
    key: Vec<u8>,
    value: Vec<u8>,
    create: i64,
    modified: i64,
    version: i64,
    lease: i64,
    stamp: Stamp,
}

#[derive(Default)]
struct Model {
    /// Per revision: the whole keyspace after it.
    states: Vec<BTreeMap<Bytes, Kv>>,
    /// Per revision: its changes, `None` is a delete.
    changes: Vec<Vec<(Bytes, Option<Vec<u8>>)>>,
    /// The lease that each key ends with now; 0: none.
    attached: BTreeMap<Bytes, i64>,
    compacted: i64,
}

impl Model {
    fn revision(&self) -> i64 {
        self.states.len() as i64
    }
}

struct Subject {
    dir: tempfile::TempDir,
    store: Store,
}

impl Subject {
    fn open(dir: tempfile::TempDir) -> Subject {
        let store =
            Store::open(Env::open(&super::defrag::current_dir(dir.path()).unwrap(), 1 << 30).unwrap());
        Subject { dir, store: store.unwrap() }
    }

    fn flush(&self) {
        let frozen = self.store.freeze(vec![applied(1)]);
        self.store.flush(&frozen).unwrap();
    }
}

/// The clock of the test.
fn time_of(revision: i64) -> u64 {
    1000 * revision as u64
}

fn apply(subject: &Subject, model: &mut Model, txns: &[Vec<Change>]) {
    let before = model.revision();
    let mut writer = subject.store.write(time_of(before + 1)).unwrap();
    for ops in txns {
        writer.seal();
        apply_one(&mut writer, model, before, ops);
    }
    assert_eq!(subject.store.revision(), before, "nothing is visible before the commit");
    let batches = writer.commit().batches;
    let revisions: Vec<i64> = batches.iter().map(|batch| batch.revision).collect();
    assert_eq!(revisions, (before + 1..=model.revision()).collect::<Vec<_>>());
}

/// One revision. All of a batch have the time of its first.
fn apply_one(writer: &mut Writer<'_>, model: &mut Model, before: i64, ops: &[Change]) {
    let keys = keys();
    let mut state = model.states.last().cloned().unwrap_or_default();
    let main = model.revision() + 1;
    let time = time_of(before + 1);
    let mut changes = Vec::new();
    let mut touched = BTreeSet::new();
    for (index, value, lease) in ops {
        let key = keys[*index].clone();
        if !touched.insert(key.clone()) {
            continue; // one change a key and revision, as etcd's API demands
        }
        let old = state.get(&key).cloned();
        let replaced = match value {
            Some(value) => {
                let (create, version) = old.as_ref().map_or((main, 1), |o| (o.create, o.version + 1));
                let created_ms = old.as_ref().map_or(time, |o| o.stamp.created_ms);
                let stamp = Stamp { created_ms, modified_ms: time };
                let (key_bytes, value_bytes) = (key.to_vec(), value.clone());
                let kv = Kv {
                    key: key_bytes,
                    value: value_bytes,
                    create,
                    modified: main,
                    version,
                    lease: *lease,
                    stamp,
                };
                state.insert(key.clone(), kv);
                model.attached.insert(key.clone(), *lease);
                changes.push((key.clone(), Some(value.clone())));
                writer.put(key, value, *lease).unwrap()
            }
            None => {
                if state.remove(&key).is_some() {
                    changes.push((key.clone(), None));
                }
                model.attached.remove(&key);
                writer.delete(key, false).unwrap()
            }
        };
        assert_eq!(replaced.is_some(), old.is_some());
    }
    if !changes.is_empty() {
        model.states.push(state);
        model.changes.push(changes);
    }
}

fn attach(subject: &Subject, model: &mut Model, key: &Bytes, lease: i64) {
    let mut writer = subject.store.write(1).unwrap();
    let is_there = model.attached.contains_key(key);
    assert_eq!(writer.attach(key, lease).unwrap(), is_there);
    let committed = writer.commit();
    assert!(committed.batches.is_empty(), "nobody can watch it");
    if is_there {
        let old = model.attached.insert(key.clone(), lease).unwrap_or(0);
        let released = if old != lease && old != 0 { vec![old] } else { Vec::new() };
        assert_eq!(committed.released, released);
    }
}

fn check_reads(subject: &Subject, model: &Model, revision: i64, range: &KeyRange) {
    if revision < model.compacted {
        assert!(matches!(subject.store.snapshot(revision), Err(Error::Compacted)));
        return;
    }
    let snapshot = subject.store.snapshot(revision).unwrap();
    let mut found: Vec<Kv> = Vec::new();
    snapshot
        .scan(range, |key, image| {
            let meta = image.meta();
            let value = snapshot.value(&image)?.into_owned();
            found.push(Kv {
                key: key.to_vec(),
                value,
                create: meta.create_revision,
                modified: meta.modified.main,
                version: meta.version,
                lease: meta.lease,
                stamp: meta.stamp,
            });
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    let state = &model.states[revision as usize - 1];
    let expected: Vec<Kv> = state.values().filter(|kv| range.contains(&kv.key)).cloned().collect();
    assert_eq!(found, expected, "at revision {revision} of {}", model.revision());
    for key in keys() {
        let image = snapshot.get(&key).unwrap();
        assert_eq!(image.is_some(), state.contains_key(&key));
    }
}

fn check_history(subject: &Subject, model: &Model, from: i64) {
    let mut at = from;
    let mut found = Vec::new();
    loop {
        match subject.store.history(at, Limit { revisions: 3, bytes: 1 << 20 }) {
            Err(Error::Compacted) => {
                assert!(at < model.compacted);
                return;
            }
            Err(e) => panic!("{e}"),
            Ok(batches) => {
                let Some(last) = batches.last() else { break };
                at = last.revision + 1;
                found.extend(batches);
            }
        }
    }
    assert!(from >= model.compacted);
    let from = from.max(2);
    assert_eq!(
        found.iter().map(|b| b.revision).collect::<Vec<_>>(),
        (from..=model.revision()).collect::<Vec<_>>()
    );
    for batch in found {
        let expected = &model.changes[batch.revision as usize - 1];
        assert_eq!(batch.events.len(), expected.len());
        for (sub, (event, (key, value))) in batch.events.iter().zip(expected).enumerate() {
            assert_eq!(&event.key, key);
            let new = subject.store.with_inline_value(&event.new).unwrap();
            let image = Image::parse(&new).unwrap();
            assert_eq!(image.modified, Revision::new(batch.revision, sub as u32));
            assert_eq!(image.is_tombstone(), value.is_none());
            assert_eq!(image.value, Value::Inline(value.as_deref().unwrap_or_default()));
            if batch.revision > model.compacted.max(1) && !event.previous.is_empty() {
                let previous = subject.store.with_inline_value(&event.previous).unwrap();
                let previous = Image::parse(&previous).unwrap();
                let before = model.states[batch.revision as usize - 2].get(key);
                assert_eq!(previous.is_tombstone(), before.is_none());
                if let Some(before) = before {
                    assert_eq!(previous.value, Value::Inline(&before.value));
                }
            }
        }
    }
}

fn check_leases(subject: &Subject, model: &Model) {
    for lease in 1..3 {
        let attached = model.attached.iter().filter(|(_, of)| **of == lease);
        let expected: Vec<Bytes> = attached.map(|(key, _)| key.clone()).collect();
        assert_eq!(subject.store.keys_of_lease(lease).unwrap(), expected);
    }
}

fn run(steps: Vec<Step>, probes: Vec<(u8, usize, usize)>) {
    let mut subject = Subject::open(tempfile::tempdir().unwrap());
    let mut model = Model { compacted: -1, ..Model::default() };
    model.states.push(BTreeMap::new());
    model.changes.push(Vec::new());
    for step in steps {
        match step {
            Step::Txn(ops) => apply(&subject, &mut model, &[ops]),
            Step::Batch(txns) => apply(&subject, &mut model, &txns),
            Step::Attach(key, lease) => attach(&subject, &mut model, &keys()[key], lease),
            Step::Compact(at) => {
                let at = 1 + i64::from(at) % model.revision();
                if subject.store.compact(at).is_ok() {
                    assert!(at > model.compacted);
                    model.compacted = at;
                } else {
                    assert!(at <= model.compacted);
                }
            }
            Step::Flush => subject.flush(),
            Step::Remove => subject.store.remove_compacted(2).unwrap(),
            Step::Defragment => {
                subject.flush();
                subject.store.defragment(subject.dir.path(), 1 << 30).unwrap();
            }
            Step::Reopen => {
                subject.flush(); // what was not flushed is the raft log's to replay
                let Subject { dir, store } = subject;
                drop(store);
                subject = Subject::open(dir);
            }
            Step::Transfer => {
                subject.flush();
                let other = Subject::open(tempfile::tempdir().unwrap());
                let received = transfer(&subject.store, other.dir.path());
                other.store.install(other.dir.path(), received).unwrap();
                subject = other;
            }
        }
        assert_eq!(subject.store.revision(), model.revision());
        assert_eq!(subject.store.keys() as usize, model.states.last().expect("a first state").len());
    }
    let keys = keys();
    check_reads(&subject, &model, model.revision(), &KeyRange::all());
    for (revision, from, to) in probes {
        let revision = 1 + i64::from(revision) % model.revision();
        let end = keys.get(to).cloned().unwrap_or_else(|| Bytes::from_static(&[0]));
        check_reads(&subject, &model, revision, &KeyRange::from_wire(keys[from].clone(), end));
        check_history(&subject, &model, revision);
    }
    check_leases(&subject, &model);
    let hash = subject.store.hash(0).unwrap();
    subject.flush();
    while subject.store.has_removable() {
        subject.store.remove_compacted(3).unwrap();
    }
    assert_eq!(subject.store.hash(0).unwrap(), hash, "flush and removal must not change the hash");
    check_reads(&subject, &model, model.compacted.max(1), &KeyRange::all());
    check_history(&subject, &model, model.compacted.max(1));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    #[test]
    fn the_store_equals_the_model(
        steps in prop::collection::vec(step(), 1..60),
        probes in prop::collection::vec((any::<u8>(), 0usize..13, 0usize..14), 4),
    ) {
        run(steps, probes);
    }
}
