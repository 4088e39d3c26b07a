//! Segment files: names, header, creation, reuse.
//!
//! ```text
//! 00000000000000a1.wal    segment 0xa1: one header, then records; all bytes were written before it got this name
//! 000000000000009c.spare  a purged segment, waiting to become the next one
//! new.tmp                 a segment that is being filled with zeros; meaningless after a crash
//! ```
//! Always true: a file is called `.wal` only after its header was made durable, so a bad header is damage and
//! never the trace of a crash. Each step of a change of name is followed by an fsync of the directory, before the
//! bytes behind the old name change. Called by the preparing thread, and by recovery when nothing runs yet.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use super::index::Source;
use super::record::{u32_at, u64_at};

/// Records begin here.
pub(super) const SEGMENT_HEADER_BYTES: u64 = 64;
/// Files are a multiple of this, and writes are padded to it, so that the kernel never reads a page to write it.
pub(super) const PAGE_BYTES: u64 = 4096;
const MAGIC: &[u8; 8] = b"kvistwal";
const FORMAT_VERSION: u32 = 1;
const ZERO_CHUNK_BYTES: usize = 1 << 20;
const ZERO_SYNC_BYTES: u64 = 4 << 20;
const NEW_NAME: &str = "new.tmp";

/// What the header of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Position in the chain of segments.
    pub number: u64,
    /// One more than that of the segment before, from a random begin: the salt of the records.
    pub generation: u32,
    /// Size of the file in bytes.
    pub capacity: u64,
}

impl Identity {
    /// The segment behind this one.
    pub fn next(&self, capacity: u64) -> Identity {
        Identity { number: self.number + 1, generation: self.generation.wrapping_add(1), capacity }
    }

    fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES as usize] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.generation.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.capacity.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES as usize], path: &Path) -> Result<Identity, Error> {
        let bad = |reason| Error::BadHeader { file: path.to_owned(), reason };
        if &bytes[..8] != MAGIC {
            return Err(bad("it does not begin like a log segment"));
        }
        let version = u32_at(bytes, 8);
        if version > FORMAT_VERSION {
            return Err(Error::NewerFormat { file: path.to_owned(), version });
        }
        if u32_at(bytes, 60) != crc32c::crc32c(&bytes[..60]) || version == 0 {
            return Err(bad("its header fails the check"));
        }
        Ok(Identity { number: u64_at(bytes, 16), generation: u32_at(bytes, 12), capacity: u64_at(bytes, 24) })
    }
}

/// An open segment.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub identity: Identity,
    pub file: Arc<File>,
}

impl Segment {
    /// Opens and checks the segment with this number.
    pub fn open(dir: &Path, number: u64) -> Result<Segment, Error> {
        let path = segment_path(dir, number);
        let io = |source| Error::Io { path: path.clone(), source };
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(io)?;
        let file_bytes = file.metadata().map_err(io)?.len();
        let bad = |reason| Err(Error::BadHeader { file: path.clone(), reason });
        if file_bytes < SEGMENT_HEADER_BYTES {
            return bad("it is too short for a header");
        }
        let mut header = [0; SEGMENT_HEADER_BYTES as usize];
        file.read_exact_at(&mut header, 0).map_err(io)?;
        let identity = Identity::decode(&header, &path)?;
        if identity.number != number {
            return bad("its header carries another segment's number");
        }
        if identity.capacity != file_bytes {
            return bad("its size is not what its header says");
        }
        Ok(Segment { identity, file: Arc::new(file) })
    }

    /// How readers find it.
    pub fn source(&self, end: u64) -> Source {
        let Identity { number, generation, .. } = self.identity;
        Source { number, salt: generation, file: Arc::clone(&self.file), end }
    }
}

/// What a directory holds.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Numbers of the segments, rising.
    pub segments: Vec<u64>,
    /// Numbers that spare files had.
    pub spares: Vec<u64>,
}

/// Lists a directory; files with other names are not ours and are left alone.
pub(super) fn list(dir: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let Some((stem, extension)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
        let Some(number) = (stem.len() == 16).then(|| u64::from_str_radix(stem, 16).ok()).flatten() else {
            continue;
        };
        match extension {
            "wal" => listing.segments.push(number),
            "spare" => listing.spares.push(number),
            _ => (),
        }
    }
    listing.segments.sort_unstable();
    listing.spares.sort_unstable();
    Ok(listing)
}

pub(super) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.wal"))
}

pub(super) fn spare_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.spare"))
}

/// Makes a segment from nothing: zeros, header, fsync, name, fsync of the directory. The zeros go to the disk piece by piece,
/// so that a sync of the log meanwhile never waits for all of them.
pub(super) fn create(dir: &Path, identity: Identity) -> io::Result<Segment> {
    let path = dir.join(NEW_NAME);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
    let zeros = vec![0; ZERO_CHUNK_BYTES.min(usize::try_from(identity.capacity).unwrap_or(ZERO_CHUNK_BYTES))];
    let mut offset = 0;
    while offset < identity.capacity {
        let len = (identity.capacity - offset).min(zeros.len() as u64);
        file.write_all_at(&zeros[..usize::try_from(len).map_err(io::Error::other)?], offset)?;
        offset += len;
        if offset % ZERO_SYNC_BYTES == 0 {
            file.sync_data()?;
        }
    }
    publish(dir, &path, file, identity)
}

/// Makes a segment from a spare file, whose bytes stay: the new generation makes them invalid.
pub(super) fn reuse(dir: &Path, spare: u64, identity: Identity) -> io::Result<Segment> {
    let path = spare_path(dir, spare);
    let file = OpenOptions::new().read(true).write(true).open(&path)?;
    publish(dir, &path, file, identity)
}

fn publish(dir: &Path, path: &Path, file: File, identity: Identity) -> io::Result<Segment> {
    file.write_all_at(&identity.encode(), 0)?;
    file.sync_all()?;
    fs::rename(path, segment_path(dir, identity.number))?;
    sync_dir(dir)?;
    Ok(Segment { identity, file: Arc::new(file) })
}

/// Turns a purged segment into a spare file. True if it has the size that is wanted.
pub(super) fn make_spare(dir: &Path, number: u64, capacity: u64) -> io::Result<bool> {
    let path = segment_path(dir, number);
    if fs::metadata(&path)?.len() != capacity {
        return Ok(false);
    }
    fs::rename(&path, spare_path(dir, number))?;
    sync_dir(dir)?;
    Ok(true)
}

/// Deletes a file of the directory for good; that it is gone already is fine.
pub(super) fn remove(dir: &Path, path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_dir(dir),
    }
}

/// Deletes what a crash left of a segment in the making.
pub(super) fn remove_unfinished(dir: &Path) -> io::Result<()> {
    remove(dir, &dir.join(NEW_NAME))
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
