//! The reader on a file that bbolt 1.5 made: 1 KiB pages, buckets of every kind, free pages. And on damaged ones.

use super::{Bucket, Error, Reader};
use proptest::prelude::*;
use std::io::Write;

const MADE_BY_BBOLT: &[u8] = include_bytes!("testdata/made_by_bbolt.db");

fn open(bytes: &[u8]) -> Result<Reader, Error> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Reader::new(file, bytes.len() as u64)
}

fn pairs(bucket: &Bucket<'_>) -> Vec<(String, Vec<u8>)> {
    let text =
        |pair: Result<(Vec<u8>, Vec<u8>), Error>| pair.map(|(k, v)| (String::from_utf8(k).unwrap(), v));
    bucket.iter().map(|pair| text(pair).unwrap()).collect()
}

/// Reads everything that can be reached; the number of pairs.
fn read_all(bucket: &Bucket<'_>, is_sound: bool, nesting: usize) -> Result<usize, Error> {
    let mut count = 0;
    for pair in bucket.iter() {
        let (key, value) = pair?;
        count += 1;
        assert!(!is_sound || bucket.get(&key)? == Some(value), "what is listed is found");
    }
    for name in bucket.buckets()? {
        if let Some(inner) = bucket.bucket(&name)?.filter(|_| nesting < 4) {
            count += read_all(&inner, is_sound, nesting + 1)?;
        }
    }
    Ok(count)
}

#[test]
fn a_file_of_bbolt_is_read_and_found_sound() {
    let reader = open(MADE_BY_BBOLT).unwrap();
    assert_eq!(reader.page_size(), 1024);
    assert_eq!(reader.buckets().unwrap(), [&b"empty"[..], b"large", b"many", b"nest", b"small"]);
    reader.check(&mut |_| {}).unwrap();

    let expected: Vec<_> =
        (0..300).filter(|i| i % 7 != 0).map(|i| (format!("k{i:05}"), format!("v{i}").into_bytes())).collect();
    let many = reader.bucket(b"many").unwrap().unwrap();
    assert!(pairs(&many) == expected);
    assert_eq!(many.get(b"k00299").unwrap().unwrap(), b"v299");
    assert_eq!(many.get(b"k00098").unwrap(), None);
    assert_eq!(many.get(b"").unwrap(), None);

    let large = pairs(&reader.bucket(b"large").unwrap().unwrap());
    assert_eq!(large, [("x".to_owned(), vec![b'x'; 3000]), ("y".repeat(1500), b"y".to_vec())]);
    let small = pairs(&reader.bucket(b"small").unwrap().unwrap());
    assert_eq!(small, [("a".to_owned(), b"1".to_vec()), ("b".to_owned(), Vec::new())]);
    assert!(pairs(&reader.bucket(b"empty").unwrap().unwrap()).is_empty());

    let nest = reader.bucket(b"nest").unwrap().unwrap();
    assert_eq!(pairs(&nest), [("p".to_owned(), b"q".to_vec())]);
    assert!(nest.get(b"inner").unwrap().is_none(), "a bucket has no value");
    assert_eq!(pairs(&nest.bucket(b"inner").unwrap().unwrap()), [("deep".to_owned(), b"down".to_vec())]);
    assert!(reader.bucket(b"no").unwrap().is_none());
}

#[test]
fn a_file_that_is_cut_off_is_refused() {
    for len in [0, 100, 1023, 1024, MADE_BY_BBOLT.len() - 1] {
        let error = open(&MADE_BY_BBOLT[..len]).err().expect("refused");
        assert!(matches!(error, Error::Truncated { .. } | Error::NotBolt(_)), "{len}: {error}");
    }
}

#[test]
fn one_meta_page_is_enough() {
    for page in [0, 1] {
        let mut bytes = MADE_BY_BBOLT.to_vec();
        bytes[page * 1024 + 20] ^= 1;
        // Either the other one says the same, or it shows the state before; both are sound states of the file.
        open(&bytes).unwrap().bucket(b"many").unwrap().unwrap();
    }
    let mut bytes = MADE_BY_BBOLT.to_vec();
    bytes[20] ^= 1;
    bytes[1024 + 20] ^= 1;
    assert!(matches!(open(&bytes), Err(Error::NotBolt(_) | Error::Version(_))));
}

#[test]
fn damage_is_named_with_its_page() {
    let reader = open(MADE_BY_BBOLT).unwrap();
    let root = usize::try_from(reader.meta().root).unwrap();
    let check = |at: usize, byte: u8| {
        let mut bytes = MADE_BY_BBOLT.to_vec();
        bytes[root * 1024 + at] = byte;
        let error = open(&bytes).unwrap().check(&mut |_| {}).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        error.to_string()
    };
    assert!(check(0, 0xee).contains(&format!("damaged at page {root}: says that it is page")));
    assert!(check(8, 1).contains("page"), "a leaf that calls itself a branch");
    assert!(check(8, 4).contains("of kind 0x4"));
    assert!(check(13, 1).contains("beyond the end"));
    assert!(check(16 + 4 + 1, 0x80).contains("element 0 of 5 does not lie on the page"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever bits flip: an error or an answer, in time. And no change of the tree itself goes unnoticed by `check`
    /// in such a way that reading fails after it.
    #[test]
    fn flipped_bits_do_not_bring_it_down(flips in prop::collection::vec((0..MADE_BY_BBOLT.len(), 0..8u8), 1..12)) {
        let mut bytes = MADE_BY_BBOLT.to_vec();
        for (at, bit) in flips {
            bytes[at] ^= 1 << bit;
        }
        if let Ok(reader) = open(&bytes) {
            let checked = reader.check(&mut |_| {});
            let read = read_all(&reader.root(), checked.is_ok(), 0);
            prop_assert!(checked.is_err() || read.is_ok(), "checked, but {:?}", read);
        }
    }

    /// The same for pages that were replaced by any bytes, or by other pages.
    #[test]
    fn swapped_pages_do_not_bring_it_down(from in 2..30usize, to in 2..30usize, fill in any::<Option<u8>>()) {
        let mut bytes = MADE_BY_BBOLT.to_vec();
        match fill {
            Some(byte) => bytes[to * 1024..(to + 1) * 1024].fill(byte),
            None => bytes.copy_within(from * 1024..(from + 1) * 1024, to * 1024),
        }
        let reader = open(&bytes).unwrap();
        let is_sound = reader.check(&mut |_| {}).is_ok();
        let _ = read_all(&reader.root(), is_sound, 0);
    }
}
