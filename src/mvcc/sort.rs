//! External sort of versions by revision: what does not fit into memory goes to a temporary file in sorted runs, and the
//! runs are merged while they are read. Used by `versions`, for old versions that are stored in order of key.
//!
//! Memory: one buffer of `RUN_BYTES`, then a small buffer for each run; disk: the keys and short values once. The file has
//! no name, so it goes with the process however that ends.

use super::{Error, Result};
use crate::types::Revision;
use bytes::{Buf, BufMut};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of records that are sorted in memory.
const RUN_BYTES: usize = 16 << 20;
/// Bytes of read buffers while runs are merged, and of a single one at least and at most.
const MERGE_BYTES: usize = 16 << 20;
const READ_BYTES: (usize, usize) = (4 << 10, 256 << 10);
/// Bytes of a record before key and image: main (8), sub (4), length of key (4), length of image (4).
const HEAD: usize = 20;

/// A version with its key; the image may be left out, for whoever can look it up.
#[derive(Debug, PartialEq, Eq)]
pub struct Record {
    /// Revision that it is sorted by.
    pub revision: Revision,
    /// Its key.
    pub key: Vec<u8>,
    /// Its image, or nothing.
    pub image: Vec<u8>,
}

/// Takes records in any order.
pub struct Sorter {
    dir: PathBuf,
    run_bytes: usize,
    buffer: Vec<u8>,
    /// Where each record begins in the buffer.
    index: Vec<(Revision, u32)>,
    spilled: Option<Spill>,
}

struct Spill {
    file: Arc<File>,
    len: u64,
    /// Where each run ends.
    runs: Vec<u64>,
}

impl Sorter {
    /// A sorter that puts its file into `dir`.
    pub fn new(dir: &Path) -> Sorter {
        Sorter::with_run_bytes(dir, RUN_BYTES)
    }

    fn with_run_bytes(dir: &Path, run_bytes: usize) -> Sorter {
        Sorter { dir: dir.to_owned(), run_bytes, buffer: Vec::new(), index: Vec::new(), spilled: None }
    }

    /// Adds a record.
    pub fn add(&mut self, revision: Revision, key: &[u8], image: &[u8]) -> Result<()> {
        let size = HEAD + key.len() + image.len();
        if !self.index.is_empty() && self.buffer.len() + size > self.run_bytes {
            self.spill()?;
        }
        // A buffer is written out before it is longer than 16 MiB and one record.
        self.index.push((revision, self.buffer.len() as u32));
        self.buffer.put_i64(revision.main);
        self.buffer.put_u32(revision.sub);
        self.buffer.put_u32(key.len() as u32);
        self.buffer.put_u32(image.len() as u32);
        self.buffer.put_slice(key);
        self.buffer.put_slice(image);
        Ok(())
    }

    /// The records in order of revision.
    pub fn sorted(mut self) -> Result<Sorted> {
        if self.spilled.is_some() && !self.index.is_empty() {
            self.spill()?;
        }
        self.index.sort_unstable();
        match self.spilled {
            None => Ok(Sorted::Memory { buffer: self.buffer, index: self.index.into_iter() }),
            Some(spill) => Merge::new(&spill).map(Sorted::Runs),
        }
    }

    fn spill(&mut self) -> Result<()> {
        self.index.sort_unstable();
        if self.spilled.is_none() {
            let file = scratch_file(&self.dir).map_err(Error::Scratch)?;
            self.spilled = Some(Spill { file: Arc::new(file), len: 0, runs: Vec::new() });
        }
        let spill = self.spilled.as_mut().expect("just made");
        let mut out = BufWriter::with_capacity(READ_BYTES.1, &*spill.file);
        for (_, at) in &self.index {
            let record = &self.buffer[*at as usize..];
            let len = HEAD + lengths(record).0 + lengths(record).1;
            out.write_all(&record[..len]).map_err(Error::Scratch)?;
        }
        out.flush().map_err(Error::Scratch)?;
        spill.len += self.buffer.len() as u64;
        spill.runs.push(spill.len);
        self.buffer.clear();
        self.index.clear();
        Ok(())
    }
}

/// A new file in `dir` that has no name any more.
pub fn scratch_file(dir: &Path) -> io::Result<File> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = dir.join(format!("scratch-{}-{number}.tmp", std::process::id()));
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Lengths of key and image.
fn lengths(mut record: &[u8]) -> (usize, usize) {
    record.advance(12);
    (record.get_u32() as usize, record.get_u32() as usize)
}

/// Sorted records.
pub enum Sorted {
    /// All of them were few.
    Memory {
        /// See [`Sorter`].
        buffer: Vec<u8>,
        /// See [`Sorter`].
        index: std::vec::IntoIter<(Revision, u32)>,
    },
    /// Runs in a file.
    Runs(Merge),
}

impl Iterator for Sorted {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Result<Record>> {
        match self {
            Sorted::Memory { buffer, index } => {
                let (revision, at) = index.next()?;
                let record = &buffer[at as usize..];
                let (key, image) = lengths(record);
                let (key, image) = (HEAD..HEAD + key, HEAD + key..HEAD + key + image);
                Some(Ok(Record { revision, key: record[key].to_vec(), image: record[image].to_vec() }))
            }
            Sorted::Runs(merge) => merge.next().map_err(Error::Scratch).transpose(),
        }
    }
}

/// Several sorted runs as one.
pub struct Merge {
    runs: Vec<BufReader<Run>>,
    /// The first record of each run: revision, number of the run, lengths of key and image.
    heads: BinaryHeap<Reverse<(Revision, usize, usize, usize)>>,
}

impl Merge {
    fn new(spill: &Spill) -> Result<Merge> {
        let buffer = (MERGE_BYTES / spill.runs.len()).clamp(READ_BYTES.0, READ_BYTES.1);
        let mut merge = Merge { runs: Vec::new(), heads: BinaryHeap::new() };
        let mut from = 0;
        for end in &spill.runs {
            let run = Run { file: Arc::clone(&spill.file), at: from, end: *end };
            merge.runs.push(BufReader::with_capacity(buffer, run));
            merge.advance(merge.runs.len() - 1).map_err(Error::Scratch)?;
            from = *end;
        }
        Ok(merge)
    }

    /// Reads the head of the next record of a run; its key and image stay where they are until they are wanted.
    fn advance(&mut self, run: usize) -> io::Result<()> {
        let reader = &mut self.runs[run];
        if reader.buffer().is_empty() && reader.get_ref().at == reader.get_ref().end {
            return Ok(());
        }
        let mut head = [0; HEAD];
        reader.read_exact(&mut head)?;
        let (key, image) = lengths(&head);
        let mut head = &head[..];
        let revision = Revision::new(head.get_i64(), head.get_u32());
        self.heads.push(Reverse((revision, run, key, image)));
        Ok(())
    }

    fn next(&mut self) -> io::Result<Option<Record>> {
        let Some(Reverse((revision, run, key, image))) = self.heads.pop() else { return Ok(None) };
        let (mut key, mut image) = (vec![0; key], vec![0; image]);
        self.runs[run].read_exact(&mut key)?;
        self.runs[run].read_exact(&mut image)?;
        self.advance(run)?;
        Ok(Some(Record { revision, key, image }))
    }
}

/// A part of the file.
struct Run {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Run {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let wanted = out.len().min(left);
        let read = self.file.read_at(&mut out[..wanted], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        /// The same as sorting in memory, whatever the sizes of records and runs; and no file stays behind.
        #[test]
        fn records_come_in_order(
            records in prop::collection::btree_map((1i64..500, 0u32..3), (0..300usize, 0..300usize), 0..200),
            seed: u64,
            run_bytes in 1..5000usize,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let record = |((main, sub), (key, image)): (&(i64, u32), &(usize, usize))| Record {
                revision: Revision::new(*main, *sub),
                key: vec![*main as u8; *key],
                image: vec![*sub as u8; *image],
            };
            let expected: Vec<Record> = records.iter().map(record).collect();
            let mut shuffled: Vec<&Record> = expected.iter().collect();
            shuffled.sort_by_key(|r| (r.revision.main as u64).wrapping_mul(seed | 1) ^ u64::from(r.revision.sub));
            let mut sorter = Sorter::with_run_bytes(dir.path(), run_bytes);
            for record in shuffled {
                sorter.add(record.revision, &record.key, &record.image).unwrap();
            }
            prop_assert_eq!(dir.path().read_dir().unwrap().count(), 0);
            let sorted: Vec<Record> = sorter.sorted().unwrap().map(Result::unwrap).collect();
            prop_assert_eq!(sorted, expected);
        }
    }

    #[test]
    fn a_directory_that_is_gone_is_an_error_of_its_own() {
        let mut sorter = Sorter::with_run_bytes(Path::new("/nowhere"), 10);
        sorter.add(Revision::new(2, 0), b"k", b"i").unwrap();
        assert!(matches!(sorter.add(Revision::new(3, 0), b"k", b"i"), Err(Error::Scratch(_))));
    }
}
