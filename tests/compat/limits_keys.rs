//! Keys of unusual lengths: no bound but the request size (M-7), exact order among long common prefixes.
//!
//! The lengths lie around what a B-tree page can hold as a key, so that an engine that shortens keys shows itself.

use std::collections::BTreeMap;

use kvist::pb::etcdserverpb as pb;
use kvist::pb::mvccpb::KeyValue;

use crate::client::{
    Session, Stop, ToOp, compare, delete, delete_range, get, mod_revision_is, numbers, own, prefix, put,
    range, revision, txn,
};
use pb::compare::{CompareResult, TargetUnion};

const LENGTHS: [usize; 16] =
    [1, 2, 255, 256, 510, 511, 512, 1022, 1900, 1901, 1978, 1982, 1983, 2000, 4096, 100_000];

/// Keys of each length over one common prefix, with tails that differ in the last byte.
fn long_keys() -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    for length in LENGTHS {
        for tail in [0x00, b'k', 0xff] {
            let mut key = vec![b'k'; length];
            key[length - 1] = tail;
            keys.push(key);
        }
    }
    // Differences in the middle, beyond any prefix an engine might keep, with equal lengths and tails.
    for middle in [0x00, 0x7f, 0x80, 0xff] {
        let mut key = vec![b'k'; 3000];
        key[2500] = middle;
        keys.push(key);
    }
    keys.sort();
    keys.dedup();
    keys
}

/// The state as the test knows it.
struct Expected {
    pairs: BTreeMap<Vec<u8>, KeyValue>,
}

impl Expected {
    fn put(&mut self, key: &[u8], value: &[u8], at: i64) {
        let (create_revision, version) =
            self.pairs.get(key).map_or((at, 1), |old| (old.create_revision, old.version + 1));
        let (key, value) = (key.to_vec(), value.to_vec());
        let pair = KeyValue { key: key.clone(), create_revision, mod_revision: at, version, value, lease: 0 };
        self.pairs.insert(key, pair);
    }

    async fn check(&self, c: &Session, at: i64) {
        let all = c.range(pb::RangeRequest { revision: at, ..range([0], [0]) }).await;
        assert!(all.kvs.iter().eq(self.pairs.values()), "all {} keys at revision {at}", self.pairs.len());
    }
}

/// M-7, M-8: long keys alone, in ranges at each boundary, and over paging.
#[tokio::test]
async fn m_7_long_keys_in_ranges() {
    let c = own(&[]).await;
    let keys = long_keys();
    let mut expected = Expected { pairs: BTreeMap::new() };
    // A stride that meets all keys in an order far from sorted.
    for i in 0..keys.len() {
        let key = &keys[i * 23 % keys.len()];
        let at = c.put(key.clone(), i.to_string()).await;
        expected.put(key, i.to_string().as_bytes(), at);
    }
    assert_eq!(expected.pairs.len(), keys.len());
    expected.check(&c, 0).await;
    for (i, key) in keys.iter().enumerate() {
        assert_eq!(c.get(key.clone()).await.as_ref(), expected.pairs.get(key), "length {}", key.len());
        let from = pb::RangeRequest { keys_only: true, ..range(key.clone(), [0]) };
        let from = c.range(from).await;
        assert!(from.kvs.iter().map(|kv| &kv.key).eq(&keys[i..]), "from key {i} on");
        let next = [key.as_slice(), &[0]].concat();
        let count = pb::RangeRequest { count_only: true, ..range(next, [0]) };
        assert_eq!(
            c.range(count).await.count,
            i64::try_from(keys.len() - i - 1).expect("small"),
            "after key {i}"
        );
        if let Some(end) = keys.get(i + 3) {
            let three = c.range(range(key.clone(), end.clone())).await;
            assert!(three.kvs.iter().map(|kv| &kv.key).eq(&keys[i..i + 3]), "three from key {i}");
        }
    }
    let mut seen = Vec::new();
    let mut from = vec![0];
    loop {
        let page = c.range(pb::RangeRequest { limit: 7, ..range(from, [0]) }).await;
        seen.extend(page.kvs.into_iter().map(|kv| kv.key));
        if !page.more {
            break;
        }
        from = [seen.last().expect("a page has keys").as_slice(), &[0]].concat();
    }
    assert_eq!(seen, keys);
}

/// M-3, M-7, KV-T5, KV-C3: updates, deletes, history, compares, compaction and a restart over long keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m_7_long_keys_over_a_life() {
    let mut c = own(&[]).await;
    let keys = long_keys();
    let mut expected = Expected { pairs: BTreeMap::new() };
    let mut history = Vec::new();
    for round in 0..3 {
        for (i, key) in keys.iter().enumerate().filter(|(i, _)| round == 0 || i % 3 == round) {
            let value = format!("{round}/{i}");
            let at = c.put(key.clone(), value.clone()).await;
            expected.put(key, value.as_bytes(), at);
        }
        history.push((c.revision().await, Expected { pairs: expected.pairs.clone() }));
    }
    for key in keys.iter().step_by(4) {
        let modified = expected.pairs[key].mod_revision;
        let swap = txn(
            [mod_revision_is(key.clone(), modified)],
            [delete(key.clone()).op()],
            [get(key.clone()).op()],
        );
        assert!(c.txn(swap).await.succeeded, "length {}", key.len());
        expected.pairs.remove(key);
    }
    let (from, to) = (keys[20].clone(), keys[30].clone());
    let removed =
        c.delete(pb::DeleteRangeRequest { prev_kv: true, ..delete_range(from.clone(), to.clone()) }).await;
    let inside: Vec<KeyValue> = expected.pairs.range(from..to).map(|(_, kv)| kv.clone()).collect();
    assert_eq!(removed.prev_kvs, inside);
    inside.iter().for_each(|kv| drop(expected.pairs.remove(&kv.key)));
    for (at, then) in &history {
        then.check(&c, *at).await;
    }
    let oldest = &history[1];
    c.compact(oldest.0).await;
    oldest.1.check(&c, oldest.0).await;
    history[2].1.check(&c, history[2].0).await;
    expected.check(&c, 0).await;

    c.restart(Stop::Kill).await;
    history[2].1.check(&c, history[2].0).await;
    expected.check(&c, 0).await;
    for key in &keys {
        let there = expected.pairs.contains_key(key);
        let exists = compare(key.clone(), CompareResult::Greater, TargetUnion::Version(0));
        assert_eq!(c.holds(exists).await, there, "length {}", key.len());
    }
    c.delete(delete_range([0], [0])).await;
    let again = c.put(keys[40].clone(), "again").await;
    assert_eq!(numbers(&c.get(keys[40].clone()).await.expect("kv")), (again, again, 1, 0));
}

/// M-7: a value of a MiB under a key of half a MiB, updated, read back at each revision, and deleted.
#[tokio::test]
async fn m_7_big_key_with_big_value() {
    let c = own(&[]).await;
    let key = [b"huge/".as_slice(), &[0xfe; 500_000]].concat();
    let first = c.put(key.clone(), vec![1; 1 << 20]).await;
    let neighbour = [key.as_slice(), &[0]].concat();
    c.put(neighbour.clone(), "neighbour").await;
    let second = c.put(key.clone(), vec![2; 1 << 20]).await;
    for (at, byte, count) in [(first, 1, 1), (second, 2, 2)] {
        let found = c.range(pb::RangeRequest { revision: at, ..prefix("huge/") }).await;
        assert_eq!(found.count, count);
        assert!(found.kvs[0].key == key && found.kvs[0].value == vec![byte; 1 << 20]);
    }
    let gone = c.delete(pb::DeleteRangeRequest { prev_kv: true, ..delete(key.clone()) }).await;
    assert!(gone.prev_kvs[0].value == vec![2; 1 << 20]);
    assert_eq!(c.range(prefix("huge/")).await.kvs[0].key, neighbour);
    assert_eq!(revision(&c.range(get(key)).await.header), revision(&gone.header));
    c.try_put(put("huge/", "")).await.expect("put");
}
