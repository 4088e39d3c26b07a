//! Both ends of a transfer: what comes out is what went in, whatever is damaged is refused, and readers notice nothing.

use super::flush::SideRow;
use super::hash::Hash;
use super::history::Limit;
use super::transfer::{CHUNK_BYTES, Received, Receiver, Sender};
use super::{Error, Result, Store, defrag};
use crate::storage::Env;
use crate::storage::codec::{Image, RAW_KEY_MAX};
use crate::storage::schema::{TABLES, Table, meta};
use crate::types::KeyRange;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

const QUOTA: u64 = 1 << 30;

/// The row that says which entries a flush stands for.
pub(crate) fn applied(index: u64) -> SideRow {
    let value = [1u64.to_le_bytes(), index.to_le_bytes()].concat();
    SideRow { table: Table::Meta, key: meta::APPLIED.to_vec(), value: Some(value) }
}

/// Sends the last flush of `store` to a member whose directory is `base`.
pub(crate) fn transfer(store: &Store, base: &Path) -> Received {
    receive(base, chunks(store)).unwrap()
}

fn open(base: &Path) -> Store {
    Store::open(Env::open(&defrag::current_dir(base).unwrap(), QUOTA).unwrap()).unwrap()
}

fn put(store: &Store, key: &str, value: &[u8]) {
    let mut writer = store.write(0).unwrap();
    writer.put(Bytes::copy_from_slice(key.as_bytes()), value, 0).unwrap();
    writer.commit();
}

fn flush(store: &Store) {
    store.flush(&store.freeze(vec![applied(store.revision() as u64)])).unwrap();
}

fn chunks(store: &Store) -> Vec<Bytes> {
    let mut sender = Sender::open(store).unwrap();
    std::iter::from_fn(|| sender.next().unwrap()).collect()
}

fn receive(base: &Path, chunks: Vec<Bytes>) -> Result<Received> {
    let mut receiver = Receiver::create(base, QUOTA)?;
    for chunk in chunks {
        receiver.push(chunk)?;
    }
    receiver.finish()
}

/// Names below `base`, sorted.
fn names(base: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(base).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A few chunks' worth of keys: short, long and with long values; some changed, some deleted, some compacted.
fn filled(base: &Path) -> Store {
    let store = open(base);
    for n in 0..600 {
        let key =
            if n % 50 == 0 { format!("{}{n}", "k".repeat(RAW_KEY_MAX)) } else { format!("key {}", n % 400) };
        put(&store, &key, &vec![n as u8; if n % 7 == 0 { 5000 } else { 800 }]);
    }
    flush(&store);
    store.compact(100).unwrap();
    let mut writer = store.write(0).unwrap();
    writer.delete(Bytes::from_static(b"key 7"), false).unwrap();
    writer.commit();
    flush(&store);
    store.remove_compacted(60).unwrap();
    store
}

type Row = (usize, Vec<u8>, Vec<u8>);

fn rows(read: &crate::storage::ReadTxn) -> Vec<Row> {
    let mut rows = Vec::new();
    for table in TABLES {
        rows.extend(read.all(table).unwrap().map(|row| {
            let (key, value) = row.unwrap();
            (table as usize, key.to_vec(), value.to_vec())
        }));
    }
    rows
}

#[test]
fn every_row_arrives_and_one_more_tells_where_from() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = filled(from.path());
    let chunks = chunks(&store);
    assert!(chunks.len() > 6, "{} chunks", chunks.len());
    let received = receive(to.path(), chunks).unwrap();
    let mut arrived = received.read(|txn| Ok(rows(txn))).unwrap();
    let position = applied(602).value.unwrap();
    let extra = (Table::Meta as usize, meta::INSTALLED.to_vec(), position);
    let at = arrived.iter().position(|row| *row == extra).expect("the row that is added");
    arrived.remove(at);
    assert!(arrived == store.read_flushed(|txn| Ok(rows(txn))).unwrap());
}

#[test]
fn what_is_not_whole_or_not_in_order_is_refused_and_leaves_nothing() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let good = chunks(&filled(from.path()));
    let refused = |what: &str, chunks: Vec<Bytes>| {
        let error = receive(to.path(), chunks).err().unwrap_or_else(|| panic!("{what} was taken"));
        assert!(matches!(error, Error::Transfer(_) | Error::Storage(_)), "{what}: {error}");
        assert_eq!(names(to.path()), Vec::<String>::new(), "after {what}");
    };
    let changed = |change: &dyn Fn(&mut Vec<Bytes>)| {
        let mut chunks = good.clone();
        change(&mut chunks);
        chunks
    };
    refused("nothing", Vec::new());
    refused("a head alone", good[..1].to_vec());
    refused("a stream without its end", changed(&|c| _ = c.pop()));
    refused("a stream without its head", changed(&|c| _ = c.remove(0)));
    refused("a stream with a gap", changed(&|c| _ = c.remove(2)));
    refused("swapped chunks", changed(&|c| c.swap(2, 3)));
    refused("a chunk twice", changed(&|c| c.insert(2, c[2].clone())));
    refused("two streams", changed(&|c| c.extend(good.clone())));
    refused("a short chunk", changed(&|c| c[3] = c[3].slice(..c[3].len() - 1)));
    refused("an empty chunk", changed(&|c| c[3] = Bytes::new()));
    refused("a short trailer", changed(&|c| *c.last_mut().unwrap() = Bytes::from_static(&[2, 0, 0, 0])));
    let mut dice = StdRng::seed_from_u64(7);
    for _ in 0..40 {
        // Often in one of the short chunks at both ends.
        let chunk = [0, good.len() - 1, dice.random_range(0..good.len())][dice.random_range(0..3)];
        let at = dice.random_range(0..good[chunk].len());
        let bit = 1 << dice.random_range(0..8);
        let flipped = changed(&|c| {
            let mut bytes = c[chunk].to_vec();
            bytes[at] ^= bit;
            c[chunk] = bytes.into();
        });
        refused(&format!("byte {at} of chunk {chunk} with bit {bit} changed"), flipped);
    }
    drop(receive(to.path(), good).unwrap());
    assert_eq!(names(to.path()), Vec::<String>::new(), "what was never put in place");
}

#[test]
fn a_state_that_stands_for_no_entries_is_refused() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let error = receive(to.path(), chunks(&open(from.path()))).err().expect("refused");
    assert!(matches!(error, Error::Transfer(_)), "{error}");
}

#[test]
fn a_hundred_megabytes_pass_in_bounded_pieces() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(from.path());
    for n in 0..100 {
        put(&store, &format!("{n}"), &vec![n as u8; 1 << 20]);
        if n % 20 == 19 {
            flush(&store);
        }
    }
    let follower = open(to.path());
    let mut sender = Sender::open(&store).unwrap();
    let mut receiver = Receiver::create(to.path(), QUOTA).unwrap();
    let mut bytes = 0;
    while let Some(chunk) = sender.next().unwrap() {
        assert!(chunk.len() < CHUNK_BYTES + 4096, "no row of these is larger: {}", chunk.len());
        bytes += chunk.len();
        receiver.push(chunk).unwrap();
        assert!(receiver.pending() < 5 << 20);
    }
    assert!(bytes > 100 << 20);
    follower.install(to.path(), receiver.finish().unwrap()).unwrap();
    assert_eq!(follower.hash(0).unwrap(), store.hash(0).unwrap());
}

/// A start after a crash on each side of the rename, and after the end.
#[test]
fn a_crash_leaves_one_state_or_the_other() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let leader = filled(from.path());
    let follower = open(to.path());
    put(&follower, "old", b"value");
    flush(&follower);
    let copy = |source: &Path, target: &Path| {
        std::fs::create_dir(target).unwrap();
        std::fs::copy(source.join("data.mdb"), target.join("data.mdb")).unwrap();
    };
    let received = transfer(&leader, to.path());
    let aside = to.path().join(names(to.path()).into_iter().find(|n| n.starts_with("received.")).unwrap());
    let (before, between) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    copy(&to.path().join("state.1"), &before.path().join("state.1"));
    copy(&aside, &before.path().join("received.9"));
    copy(&to.path().join("state.1"), &between.path().join("state.1"));
    copy(&aside, &between.path().join("state.2"));
    follower.install(to.path(), received).unwrap();
    let hash = leader.hash(0).unwrap();
    assert_eq!((follower.hash(0).unwrap(), names(to.path())), (hash, vec!["state.2".to_owned()]));
    drop(follower);
    assert_eq!(open(to.path()).hash(0).unwrap(), hash);
    assert_eq!(
        (open(between.path()).hash(0).unwrap(), names(between.path())),
        (hash, vec!["state.2".to_owned()])
    );
    assert_eq!((open(before.path()).revision(), names(before.path())), (2, vec!["state.1".to_owned()]));
}

/// Revision r puts `r % 100` and deletes `(r + 50) % 100`; the value is the revision.
fn turn(store: &Store) {
    let revision = store.revision() + 1;
    let mut writer = store.write(0).unwrap();
    writer.put(format!("{:02}", revision % 100).into(), revision.to_string().as_bytes(), 0).unwrap();
    writer.delete(format!("{:02}", (revision + 50) % 100).into(), false).unwrap();
    writer.commit();
}

/// What `turn` has made of the keyspace up to a revision.
fn turned(revision: i64) -> BTreeMap<String, String> {
    let last = (2.max(revision - 49)..=revision).map(|r| (format!("{:02}", r % 100), r.to_string()));
    last.collect()
}

fn found(snapshot: &super::Snapshot) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    snapshot.scan(&KeyRange::all(), |key, image: Image<'_>| {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        found.insert(text(key), text(&snapshot.value(&image)?));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// Reads at a revision now, and again a little later by a pin. Whatever is not refused must be right.
fn read(store: &Store, wanted: i64) {
    let snapshot = match store.snapshot(wanted) {
        Ok(snapshot) => snapshot,
        Err(Error::Compacted | Error::FutureRevision) if wanted > 0 => return,
        Err(error) => panic!("{error}"),
    };
    let revision = snapshot.revision();
    assert_eq!(found(&snapshot).unwrap(), turned(revision), "at {revision}");
    drop(snapshot);
    let pin = store.pin(revision);
    std::thread::yield_now();
    match store.pinned_snapshot(&pin).and_then(|snapshot| found(&snapshot)) {
        Ok(found) => assert_eq!(found, turned(revision), "at {revision}, pinned"),
        Err(Error::Compacted) => assert!(revision < store.compacted()),
        Err(error) => panic!("{error}"),
    }
}

/// The next changes behind `after`, without a gap. Returns where to go on.
fn replay(store: &Store, after: i64) -> i64 {
    let current = store.revision();
    match store.history(after + 1, Limit { revisions: 100, bytes: 1 << 20 }) {
        Ok(batches) => {
            for (batch, expected) in batches.iter().zip(after + 1..) {
                assert_eq!(batch.revision, expected);
            }
            assert!(!batches.is_empty() || current <= after, "there is more behind {after}: {current}");
            batches.last().map_or(after, |batch| batch.revision)
        }
        Err(Error::Compacted) => {
            assert!(after + 1 < store.compacted());
            store.compacted() - 1
        }
        Err(error) => panic!("{error}"),
    }
}

/// The sender knows nothing of pins: it has cut off what a read just below its compacted revision needs.
#[test]
fn a_pin_does_not_hold_in_an_environment_that_came_later() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (leader, follower) = (open(from.path()), open(to.path()));
    for _ in 0..30 {
        turn(&leader);
        turn(&follower);
    }
    let (pin, kept) = (follower.pin(31), follower.snapshot(31).unwrap());
    turn(&leader);
    leader.compact(32).unwrap();
    flush(&leader);
    while leader.has_removable() {
        leader.remove_compacted(500).unwrap();
    }
    assert_eq!(leader.removed(), 32, "rows below go, that of 32 is stripped");
    follower.install(to.path(), transfer(&leader, to.path())).unwrap();
    assert!(matches!(follower.pinned_snapshot(&pin), Err(Error::Compacted)));
    assert_eq!(found(&kept).unwrap(), turned(31), "what was begun before goes on");
    assert_eq!(found(&follower.snapshot(0).unwrap()).unwrap(), turned(32));
}

#[test]
fn readers_and_replays_go_on_while_states_are_put_in_place() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (leader, follower) = (open(from.path()), open(to.path()));
    let is_done = AtomicBool::new(false);
    let replayed = AtomicI64::new(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                read(&follower, 0);
            }
        });
        scope.spawn(|| {
            let mut dice = StdRng::seed_from_u64(3);
            while !is_done.load(Ordering::Relaxed) {
                read(&follower, (follower.revision() - dice.random_range(0..90)).max(1));
            }
        });
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) || replayed.load(Ordering::Relaxed) < follower.revision() {
                replayed.store(replay(&follower, replayed.load(Ordering::Relaxed)), Ordering::Relaxed);
            }
        });
        let hashing = scope.spawn(|| {
            let mut hashes = Vec::new();
            while !is_done.load(Ordering::Relaxed) {
                match follower.hash(0) {
                    Ok(hash) => hashes.push(hash),
                    Err(error) => assert!(matches!(error, Error::Compacted), "{error}"),
                }
            }
            hashes
        });
        let mut expected = Vec::new();
        for round in 0..30 {
            for _ in 0..40 {
                turn(&leader);
                turn(&follower);
            }
            if round % 3 == 0 {
                flush(&follower);
            }
            for _ in 0..70 {
                turn(&leader);
            }
            leader.compact(leader.revision() - 20 * (round % 5)).unwrap();
            expected.push(leader.hash(0).unwrap());
            flush(&leader);
            while leader.has_removable() {
                leader.remove_compacted(500).unwrap();
            }
            let received = transfer(&leader, to.path());
            follower.install(to.path(), received).unwrap();
            assert_eq!((follower.revision(), follower.compacted()), (leader.revision(), leader.compacted()));
            assert_eq!((follower.keys(), follower.removed()), (leader.keys(), leader.removed()));
        }
        is_done.store(true, Ordering::Relaxed);
        for found in hashing.join().unwrap() {
            let is_same = |hash: &&Hash| (hash.revision, hash.compacted) == (found.revision, found.compacted);
            assert!(expected.iter().find(is_same).is_none_or(|expected| *expected == found), "{found:?}");
        }
    });
    assert_eq!(follower.hash(0).unwrap(), leader.hash(0).unwrap());
}
