//! Each promise of the log once, without chance.

use std::fs;
use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::{Batch, Durability, Error, Options, Recovered, Wal, decode, decode_header, record};
use super::{SMALL, all, append, files, fill, id, open, options, payload, put, synced};

#[test]
fn an_empty_log_is_empty_again_after_reopening() {
    let dir = tempfile::tempdir().expect("tempdir");
    for _ in 0..2 {
        let (wal, recovered) = open(dir.path());
        assert_eq!(recovered, Recovered::default());
        assert!(wal.read(0, 10, 1000).expect("read").is_empty());
    }
}

#[test]
fn everything_is_there_after_reopening() {
    let dir = tempfile::tempdir().expect("tempdir");
    {
        let (wal, _) = open(dir.path());
        synced(&wal, |batch| {
            batch.vote(b"vote for 7");
            (0..20).for_each(|index| put(batch, id(3, index), 300));
            batch.purge(id(3, 4)).truncate_after(Some(id(3, 15))).committed(id(3, 12));
            put(batch, id(4, 16), 10);
        });
    }
    let (wal, recovered) = open(dir.path());
    assert_eq!(recovered.vote.as_deref(), Some(&b"vote for 7"[..]));
    assert_eq!((recovered.committed, recovered.purged), (Some(id(3, 12)), Some(id(3, 4))));
    assert_eq!((recovered.last, recovered.torn_bytes), (Some(id(4, 16)), 0));
    let entries = all(&wal, 5);
    let ids: Vec<_> = (5..16).map(|index| id(3, index)).chain([id(4, 16)]).collect();
    assert_eq!(entries.iter().map(|entry| entry.0).collect::<Vec<_>>(), ids);
    assert_eq!(entries[0].1, payload(id(3, 5), 300));
    assert!(matches!(wal.read(4, 9, 1), Err(Error::Purged(purged)) if purged == id(3, 4)));
    assert_eq!(wal.read(5, 9, 700).expect("read").len(), 2);
    assert_eq!(wal.read(5, 9, 0).expect("read").len(), 1);
    assert!(wal.read(17, 20, 1000).expect("read").is_empty());
}

#[test]
fn a_record_may_be_larger_than_a_segment() {
    let dir = tempfile::tempdir().expect("tempdir");
    let large = 5 * SMALL as usize;
    {
        let (wal, _) = open(dir.path());
        synced(&wal, |batch| put(batch, id(1, 1), 100));
        synced(&wal, |batch| {
            put(batch, id(1, 2), large);
            put(batch, id(1, 3), large);
            put(batch, id(1, 4), 100);
        });
        assert_eq!(wal.read(3, 4, 0).expect("read")[0].1, payload(id(1, 3), large));
    }
    let (wal, recovered) = open(dir.path());
    assert_eq!(recovered.last, Some(id(1, 4)));
    assert_eq!(all(&wal, 1)[2].1, payload(id(1, 3), large));
}

#[test]
fn purged_segments_are_reused_and_the_rest_deleted() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (wal, _) = open(dir.path());
    for round in 0..6 {
        fill(&wal, round * 400..(round + 1) * 400, 1000);
        synced(&wal, |batch| _ = batch.purge(id(1, round * 400 + 395)));
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let (segments, spares) = (files(dir.path(), "wal").len(), files(dir.path(), "spare").len());
        assert!(spares <= 2, "{spares} spare segments");
        if segments <= 3 {
            break;
        }
        assert!(Instant::now() < deadline, "{segments} segments stay");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(wal);
    let (wal, recovered) = open(dir.path());
    assert_eq!((recovered.purged, recovered.last), (Some(id(1, 2395)), Some(id(1, 2399))));
    assert_eq!(all(&wal, 2396).len(), 4);
}

#[test]
fn a_snapshot_beyond_the_end_moves_the_log() {
    let dir = tempfile::tempdir().expect("tempdir");
    {
        let (wal, _) = open(dir.path());
        fill(&wal, 1..50, 100);
        synced(&wal, |batch| _ = batch.purge(id(5, 1000)));
        synced(&wal, |batch| put(batch, id(5, 1001), 100));
        assert_eq!(all(&wal, 1001).len(), 1);
    }
    let (wal, recovered) = open(dir.path());
    assert_eq!((recovered.purged, recovered.last), (Some(id(5, 1000)), Some(id(5, 1001))));
    assert_eq!(all(&wal, 1001).len(), 1);
    synced(&wal, |batch| _ = batch.truncate_after(None));
    assert!(all(&wal, 1001).is_empty());
}

#[test]
fn a_gap_is_refused_without_effect() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (wal, _) = open(dir.path());
    fill(&wal, 1..3, 10);
    let mut batch = Batch::new();
    batch.vote(b"not this one");
    put(&mut batch, id(1, 4), 10);
    assert_eq!(append(&wal, batch, Durability::Sync).expect_err("a gap").kind(), ErrorKind::InvalidInput);
    fill(&wal, 3..4, 10);
    drop(wal);
    let (_wal, recovered) = open(dir.path());
    assert_eq!((recovered.vote, recovered.last), (None, Some(id(1, 3))));
}

#[test]
fn old_segments_can_be_skipped_and_are_read_when_asked_for() {
    let dir = tempfile::tempdir().expect("tempdir");
    {
        let (wal, _) = open(dir.path());
        fill(&wal, 1..300, 1000);
        // The cut reaches back over two segments.
        synced(&wal, |batch| _ = batch.truncate_after(Some(id(1, 150))));
        (151..400).for_each(|index| synced(&wal, |batch| put(batch, id(2, index), 1000)));
        // The second cut takes all that the segments of the first one's time hold.
        synced(&wal, |batch| _ = batch.truncate_after(Some(id(1, 120))));
        (121..500).for_each(|index| synced(&wal, |batch| put(batch, id(3, index), 1000)));
    }
    let (wal, full) = open(dir.path());
    let expected = all(&wal, 1);
    assert_eq!(expected.len(), 499);
    drop(wal);
    for scan_from in [0, 1, 100, 121, 151, 200, 290, 400, 499, 500, 1000] {
        let (wal, recovered) =
            Wal::open(Options { scan_from: Some(scan_from), ..options(dir.path()) }).expect("open");
        assert_eq!(recovered, full);
        assert_eq!(wal.read(140, 160, 1 << 20).expect("read"), expected[139..159]);
        assert_eq!(wal.read(110, 130, 1 << 20).expect("read"), expected[109..129]);
        assert!(all(&wal, 1) == expected, "scan_from {scan_from}");
    }
    // A cut after a skipping start reaches into segments without points.
    let (wal, _) = Wal::open(Options { scan_from: Some(500), ..options(dir.path()) }).expect("open");
    synced(&wal, |batch| _ = batch.truncate_after(Some(id(1, 100))));
    synced(&wal, |batch| put(batch, id(4, 101), 10));
    assert!(all(&wal, 1)[..100] == expected[..100]);
    assert_eq!(all(&wal, 101), [(id(4, 101), payload(id(4, 101), 10))]);
}

#[test]
fn answers_come_in_order_and_share_fsyncs() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (wal, _) = Wal::open(options(dir.path())).expect("open");
    let (done, answers) = mpsc::channel();
    for index in 0..2000 {
        let mut batch = Batch::new();
        put(&mut batch, id(1, index), 256);
        let done = done.clone();
        wal.append(batch, Durability::Sync, Box::new(move |result| _ = done.send((index, result.is_ok()))));
    }
    for index in 0..2000 {
        assert_eq!(answers.recv().expect("an answer"), (index, true));
    }
    let fsyncs = wal.counters().fsyncs();
    assert!(fsyncs < 2000, "{fsyncs} fsyncs for 2000 appends");
    assert!(wal.counters().written_bytes() > 2000 * 256 && !wal.counters().fsync_time().is_zero());
}

#[test]
fn an_io_error_is_final() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (wal, _) = open(dir.path());
    fill(&wal, 1..3, 10);
    wal.counters().fail_writes.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        let mut batch = Batch::new();
        put(&mut batch, id(1, 3), 10);
        let error = append(&wal, batch, Durability::Sync).expect_err("a failed write");
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        wal.counters().fail_writes.store(false, Ordering::Relaxed);
    }
    assert_eq!(all(&wal, 1).len(), 2);
    drop(wal);
    assert_eq!(open(dir.path()).1.last, Some(id(1, 2)));
}

#[test]
fn no_room_for_the_next_segment_is_final() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (wal, _) = open(dir.path());
    fill(&wal, 1..3, 10);
    fs::remove_dir_all(dir.path()).expect("remove");
    let mut batch = Batch::new();
    (3..400).for_each(|index| put(&mut batch, id(1, index), 1000));
    append(&wal, batch, Durability::Sync).expect_err("nowhere to go");
    append(&wal, Batch::new(), Durability::Sync).expect_err("poisoned");
}

#[test]
fn a_log_without_fsync_survives_its_process() {
    let dir = tempfile::tempdir().expect("tempdir");
    let unsafe_options = Options { sync: false, ..options(dir.path()) };
    {
        let (wal, _) = Wal::open(unsafe_options.clone()).expect("open");
        fill(&wal, 1..300, 1000);
        assert_eq!(wal.counters().fsyncs(), 0);
    }
    let (wal, recovered) = Wal::open(unsafe_options).expect("open");
    assert_eq!((recovered.last, all(&wal, 1).len()), (Some(id(1, 299)), 299));
}

#[test]
fn segment_sizes_are_checked() {
    let dir = tempfile::tempdir().expect("tempdir");
    for segment_bytes in [0, 4096, 70_000, 2 << 30] {
        let result = Wal::open(Options { segment_bytes, ..options(dir.path()) });
        assert!(matches!(result, Err(Error::SegmentSize(size)) if size == segment_bytes));
    }
}

proptest! {
    #[test]
    fn decoding_anything_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), salt: u32) {
        let _ = (decode(&bytes, salt), decode_header(&bytes, salt));
    }

    #[test]
    fn a_record_validates_only_whole_and_with_its_salt(
        data in prop::collection::vec(any::<u8>(), 0..100), salt: u32, other: u32, at: prop::sample::Index, bit in 0u32..8,
    ) {
        let mut bytes = Vec::new();
        record::encode(&mut bytes, record::Kind::Entry, id(7, 8), |buf| buf.extend_from_slice(&data));
        record::seal(&mut bytes, salt, 3, 64);
        let whole = record::HEADER_BYTES + data.len();
        let decoded = decode(&bytes, salt).expect("a record");
        prop_assert_eq!((decoded.payload, decoded.header.group, decoded.header.log_id), (&data[..], 3, id(7, 8)));
        prop_assert!(salt == other || decode(&bytes, other).is_err());
        prop_assert!(decode(&bytes[..whole - 1], salt).is_err());
        bytes[at.index(whole)] ^= 1 << bit;
        prop_assert!(decode(&bytes, salt).is_err());
    }
}
