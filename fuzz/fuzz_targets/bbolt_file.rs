//! bbolt files, as snapshots bring them: opening, checking, reading all that can be reached.
#![no_main]

use kvist::bbolt::{Bucket, Reader, Result};
use libfuzzer_sys::fuzz_target;
use std::io::{Seek, Write};

fn read_all(bucket: &Bucket<'_>, is_sound: bool, nesting: usize) -> Result<()> {
    for pair in bucket.iter() {
        let (key, value) = pair?;
        let found = bucket.get(&key)?;
        assert!(!is_sound || found == Some(value), "what is listed is found");
    }
    for name in bucket.buckets()? {
        if let Some(inner) = bucket.bucket(&name)?.filter(|_| nesting < 4) {
            read_all(&inner, is_sound, nesting + 1)?;
        }
    }
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(bytes).and_then(|()| file.rewind()).expect("a temporary file takes bytes");
    let Ok(reader) = Reader::new(file, bytes.len() as u64) else { return };
    let checked = reader.check(&mut |_| {});
    let read = || -> Result<()> {
        for name in reader.buckets()? {
            if let Some(bucket) = reader.bucket(&name)? {
                read_all(&bucket, checked.is_ok(), 0)?;
            }
        }
        Ok(())
    };
    let read = read();
    assert!(checked.is_err() || read.is_ok(), "found sound, but {read:?}");
});
