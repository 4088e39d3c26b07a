//! Rows of the state environment: images of keys, rows of the log table, keys of it.
#![no_main]

use kvist::storage::codec::{Image, LogRow, RowKey, flushed_image, parse_revision_key, revision_key};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(image) = Image::parse(bytes) {
        let _ = (image.meta(), image.value.len(), image.is_tombstone(), image.is_expiry());
        assert!(image.wire_meta().starts_with(image.wire_meta_without_lease()));
        let mut stored = Vec::new();
        flushed_image(bytes, &mut stored).expect("an image that parses can be stored");
        let flushed = Image::parse(&stored).expect("a stored image parses");
        assert_eq!((flushed.modified, flushed.value.len()), (image.modified, image.value.len()));
    }
    if let Ok(row) = LogRow::parse(bytes)
        && let RowKey::Inline(key) = row.key
    {
        let mut again = Vec::new();
        LogRow::encode(key, row.new, row.previous, &mut again);
        let decoded = LogRow::parse(&again).expect("what we encode, we decode");
        assert_eq!((decoded.key, decoded.new, decoded.previous), (row.key, row.new, row.previous));
    }
    if let Ok(revision) = parse_revision_key(bytes) {
        assert_eq!(revision_key(revision), bytes);
    }
});
