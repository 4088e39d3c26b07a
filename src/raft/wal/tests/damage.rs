//! Damage is refused, and nothing is modified then; the traces of a crash are not mistaken for damage.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::super::{Error, LogId, Wal};
use super::{all, copy_dir, files, fill, id, open, options, payload, put, synced};

fn flip(path: &Path, offset: usize, bit: u32) {
    let mut bytes = fs::read(path).expect("read");
    bytes[offset] ^= 1 << bit;
    fs::write(path, bytes).expect("write");
}

fn contents(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let paths = fs::read_dir(dir).expect("read_dir").map(|entry| entry.expect("entry").path());
    let mut contents: Vec<_> = paths.map(|path| (path.clone(), fs::read(path).expect("read"))).collect();
    contents.sort();
    contents
}

fn refusal(dir: &Path) -> Error {
    let before = contents(dir);
    let error = Wal::open(options(dir)).expect_err("damage");
    assert!(contents(dir) == before, "a refused log was modified");
    assert!(error.to_string().starts_with("refusing to start: "), "{error}");
    error
}

/// Offset of the payload of the entry with this index in a segment.
fn offset_of(path: &Path, log_id: LogId) -> usize {
    let needle = payload(log_id, 0);
    let bytes = fs::read(path).expect("read");
    bytes.windows(needle.len()).position(|window| window == needle).expect("the entry")
}

#[test]
fn a_flipped_bit_in_front_of_a_later_group_is_damage() {
    let dir = tempfile::tempdir().expect("tempdir");
    fill(&open(dir.path()).0, 10..15, 100);
    let segment = files(dir.path(), "wal").remove(0);
    let offset = offset_of(&segment, id(1, 13));
    flip(&segment, offset, 3);
    let Error::Damaged { file, offset: found, .. } = refusal(dir.path()) else { panic!("another error") };
    assert_eq!((file, found as usize), (segment, offset - 48));
}

#[test]
fn a_flipped_bit_in_the_last_group_is_a_torn_end() {
    let dir = tempfile::tempdir().expect("tempdir");
    {
        let wal = open(dir.path()).0;
        fill(&wal, 10..13, 100);
        synced(&wal, |batch| (13..16).for_each(|index| put(batch, id(1, index), 100)));
    }
    let segment = files(dir.path(), "wal").remove(0);
    flip(&segment, offset_of(&segment, id(1, 14)), 3);
    {
        let (wal, recovered) = open(dir.path());
        assert_eq!((recovered.last, recovered.torn_bytes), (Some(id(1, 13)), 2 * 152));
        synced(&wal, |batch| put(batch, id(2, 14), 100));
    }
    let (wal, recovered) = open(dir.path());
    assert_eq!((recovered.last, recovered.torn_bytes), (Some(id(2, 14)), 0));
    assert_eq!(all(&wal, 14).len(), 1);
}

/// What replaces the cut records ends at a page, so that no padding hides the old entry 15 right behind it.
#[test]
fn what_was_cut_stays_cut_when_new_records_end_at_its_seam() {
    for first_lost in [13, 14] {
        let dir = tempfile::tempdir().expect("tempdir");
        let wal = open(dir.path()).0;
        fill(&wal, 10..13, 100);
        let segment = files(dir.path(), "wal").remove(0);
        // Behind the padded record 12, the whole record 13 and the header of record 14.
        let begin = offset_of(&segment, id(1, 12)) - 48 + 152 + 152 + 48;
        let lens = [(13, 100), (14, begin.next_multiple_of(4096) - begin), (15, 100)];
        synced(&wal, |batch| lens.iter().for_each(|(index, len)| put(batch, id(1, *index), *len)));
        drop(wal);
        flip(&segment, offset_of(&segment, id(1, first_lost)), 3);
        {
            let (wal, recovered) = open(dir.path());
            assert_eq!(recovered.last, Some(id(1, first_lost - 1)));
            let rewritten = lens.iter().filter(|(index, _)| (first_lost..15).contains(index));
            synced(&wal, |batch| rewritten.for_each(|(index, len)| put(batch, id(2, *index), *len)));
        }
        assert_eq!(offset_of(&segment, id(1, 15)) % 4096, 48);
        let (wal, recovered) = open(dir.path());
        assert_eq!((recovered.last, recovered.torn_bytes), (Some(id(2, 14)), 0));
        assert_eq!(all(&wal, 14).len(), 1);
    }
}

#[test]
fn a_full_segment_must_be_whole_to_its_end() {
    let dir = tempfile::tempdir().expect("tempdir");
    fill(&open(dir.path()).0, 10..100, 1000);
    let segments = files(dir.path(), "wal");
    let first = &segments[0];
    let bytes = fs::read(first).expect("read");
    // The last record of the first segment: no later group is in the same file.
    let last = (10..100).rev().find(|index| {
        let needle = payload(id(1, *index), 0);
        bytes.windows(needle.len()).any(|window| window == needle)
    });
    flip(first, offset_of(first, id(1, last.expect("an entry"))), 0);
    assert!(matches!(refusal(dir.path()), Error::Damaged { file, .. } if file == *first));
}

#[test]
fn a_missing_or_foreign_or_newer_segment_is_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    fill(&open(dir.path()).0, 1..250, 1000);
    let segments = files(dir.path(), "wal");
    assert!(segments.len() >= 4);

    let away = dir.path().join("away");
    fs::rename(&segments[1], &away).expect("rename");
    assert!(matches!(refusal_beside(dir.path()), Error::MissingSegment { file } if file == segments[1]));
    fs::rename(&away, &segments[1]).expect("rename");

    fs::rename(&segments[0], &away).expect("rename");
    assert!(matches!(refusal_beside(dir.path()), Error::MissingSegment { file } if file == segments[0]));
    fs::rename(&away, &segments[0]).expect("rename");

    flip(&segments[1], 8, 1);
    assert!(matches!(refusal(dir.path()), Error::NewerFormat { version: 3, .. }));
    flip(&segments[1], 8, 1);

    flip(&segments[1], 20, 1);
    assert!(matches!(refusal(dir.path()), Error::BadHeader { .. }));
    flip(&segments[1], 20, 1);

    let other = tempfile::tempdir().expect("tempdir");
    fill(&open(other.path()).0, 1..250, 1000);
    fs::copy(&segments[1], &away).expect("copy");
    fs::copy(&files(other.path(), "wal")[1], &segments[1]).expect("copy");
    assert!(matches!(refusal(dir.path()), Error::BadHeader { .. }));
    fs::rename(&away, &segments[1]).expect("rename");

    let whole = fs::read(&segments[1]).expect("read");
    fs::write(&segments[1], &whole[..whole.len() / 2]).expect("write");
    assert!(matches!(refusal(dir.path()), Error::BadHeader { .. }));
    fs::write(&segments[1], whole).expect("write");
    assert_eq!(all(&open(dir.path()).0, 1).len(), 249);
}

fn refusal_beside(dir: &Path) -> Error {
    Wal::open(options(dir)).expect_err("a missing segment")
}

#[test]
fn what_a_crash_leaves_of_a_segment_in_the_making_is_no_harm() {
    let dir = tempfile::tempdir().expect("tempdir");
    fill(&open(dir.path()).0, 1..100, 1000);
    fs::write(dir.path().join("new.tmp"), b"half").expect("write");
    // A spare that already has the next header, but not its name yet; and one of another size.
    let spare = dir.path().join(format!("{:016x}.spare", 0));
    fs::copy(&files(dir.path(), "wal")[0], &spare).expect("copy");
    fs::write(dir.path().join("notes.txt"), b"not ours").expect("write");
    {
        let (wal, recovered) = open(dir.path());
        assert_eq!(recovered.last, Some(id(1, 99)));
        assert!(files(dir.path(), "tmp").is_empty());
        fill(&wal, 100..300, 1000);
    }
    assert_eq!(all(&open(dir.path()).0, 1).len(), 299);
}

#[test]
fn spares_without_a_segment_are_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    drop(open(dir.path()));
    let segment = files(dir.path(), "wal").remove(0);
    fs::rename(&segment, segment.with_extension("spare")).expect("rename");
    assert!(matches!(refusal(dir.path()), Error::MissingSegment { .. }));
}

#[test]
fn stale_bytes_of_an_earlier_life_never_validate() {
    let dir = tempfile::tempdir().expect("tempdir");
    {
        let wal = open(dir.path()).0;
        // All records have one size, so a new life's records end exactly where old ones begin.
        for index in 1..400 {
            fill(&wal, index..index + 1, 1000);
            synced(&wal, |batch| _ = batch.purge(id(1, index)));
        }
    }
    let (wal, recovered) = open(dir.path());
    assert_eq!((recovered.last, recovered.torn_bytes), (Some(id(1, 399)), 0));
    fill(&wal, 400..402, 1000);
    assert_eq!(all(&wal, 400).len(), 2);
}

/// A log of several segments, and the bytes of a directory that holds it.
fn template() -> &'static Path {
    static TEMPLATE: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
    let dir = TEMPLATE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("tempdir");
        let wal = open(dir.path()).0;
        for index in 1..=120 {
            synced(&wal, |batch| (0..2).for_each(|half| put(batch, id(1, 2 * index + half), 700)));
        }
        drop(wal);
        dir
    });
    dir.path()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 50, ..ProptestConfig::default() })]

    #[test]
    fn a_flipped_bit_never_loses_entries_in_front_of_others(
        file: prop::sample::Index, at: prop::sample::Index, bit in 0u32..8,
    ) {
        let dir = tempfile::tempdir().expect("tempdir");
        copy_dir(template(), dir.path());
        let segments = files(dir.path(), "wal");
        let path = &segments[file.index(segments.len())];
        flip(path, at.index(fs::metadata(path).expect("metadata").len() as usize), bit);
        if let Ok((wal, recovered)) = Wal::open(options(dir.path())) {
            // At most the last group of two is gone, and what is there is what was written.
            let found = all(&wal, 2);
            prop_assert!(found.len() >= 238, "{} of 240 entries", found.len());
            prop_assert_eq!(recovered.last, found.last().map(|entry| entry.0));
            for (index, (log_id, bytes)) in (2..).zip(&found) {
                prop_assert_eq!(*log_id, id(1, index));
                prop_assert!(*bytes == payload(*log_id, 700));
            }
        }
    }
}
