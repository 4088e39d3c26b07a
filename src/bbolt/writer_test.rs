//! What the writer writes is read back, and found sound, whatever the sizes.

use super::{KEY_MAX, PAGE_SIZE, Reader, Writer};
use proptest::prelude::*;
use std::collections::BTreeMap;

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

fn write(buckets: &BTreeMap<Vec<u8>, Pairs>) -> Reader {
    let mut writer = Writer::new(tempfile::tempfile().unwrap()).unwrap();
    for (name, pairs) in buckets {
        let mut bucket = writer.bucket(name).unwrap();
        for (key, value) in pairs {
            bucket.put(key, value).unwrap();
        }
        bucket.finish().unwrap();
    }
    let (file, len) = writer.finish().unwrap();
    assert_eq!((file.metadata().unwrap().len(), len % u64::from(PAGE_SIZE)), (len, 0));
    let reader = Reader::new(file, len).unwrap();
    reader.check(&mut |_| {}).unwrap();
    assert_eq!(reader.pages() * u64::from(PAGE_SIZE), len, "no page is lost");
    reader
}

fn read(reader: &Reader, name: &[u8]) -> Pairs {
    reader.bucket(name).unwrap().unwrap().iter().map(Result::unwrap).collect()
}

#[test]
fn many_pairs_make_a_tree() {
    let many: Pairs = (0..30_000u64).map(|i| (i.to_be_bytes().to_vec(), vec![i as u8; 60])).collect();
    let large: Pairs =
        [(vec![1], vec![7; 1 << 20]), (vec![2], Vec::new()), (vec![3; KEY_MAX], vec![8; 5000])].into();
    let buckets = BTreeMap::from([
        (b"large".to_vec(), large.clone()),
        (b"many".to_vec(), many.clone()),
        (b"none".to_vec(), Pairs::new()),
    ]);
    let reader = write(&buckets);
    assert!(read(&reader, b"many") == many);
    assert!(read(&reader, b"large") == large);
    assert!(read(&reader, b"none").is_empty());
    let payload: usize = many.iter().map(|(k, v)| k.len() + v.len() + 16).sum();
    let wasted = reader.len() as f64 / (payload + (1 << 20) + KEY_MAX) as f64;
    assert!(wasted < 1.06, "pages are full: {wasted}");
}

#[test]
fn a_file_without_buckets_is_one() {
    let reader = write(&BTreeMap::new());
    assert!(reader.buckets().unwrap().is_empty());
}

#[test]
fn disorder_is_refused() {
    let mut writer = Writer::new(tempfile::tempfile().unwrap()).unwrap();
    let mut bucket = writer.bucket(b"b").unwrap();
    bucket.put(b"k", b"").unwrap();
    assert!(bucket.put(b"k", b"").is_err());
    assert!(bucket.put(b"j", b"").is_err());
    assert!(bucket.put(b"", b"").is_err());
    assert!(bucket.put(&vec![b'z'; KEY_MAX + 1], b"").is_err());
    bucket.finish().unwrap();
    assert!(writer.bucket(b"b").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn what_is_written_is_read(
        sizes in prop::collection::vec((1..2000usize, prop_oneof![9 => 0..200usize, 2 => 0..9000usize]), 0..400),
        names in prop::collection::btree_set(prop::collection::vec(any::<u8>(), 1..300), 1..40),
    ) {
        let pair = |(i, (key, value)): (usize, &(usize, usize))| {
            let mut key = vec![b'k'; *key];
            key.extend_from_slice(&(i as u32).to_be_bytes());
            (key, vec![i as u8; *value])
        };
        let pairs: Pairs = sizes.iter().enumerate().map(pair).collect();
        let mut buckets: BTreeMap<Vec<u8>, Pairs> = names.into_iter().map(|name| (name, Pairs::new())).collect();
        *buckets.values_mut().next().unwrap() = pairs;
        let reader = write(&buckets);
        prop_assert_eq!(reader.buckets().unwrap(), buckets.keys().cloned().collect::<Vec<_>>());
        for (name, pairs) in &buckets {
            prop_assert!(read(&reader, name) == *pairs);
        }
    }
}
