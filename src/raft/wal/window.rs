//! Forward reads of a segment in large steps, and the walk over its records.
//!
//! Memory is one chunk, or one record if that is larger; a length is believed only after its header's check.
//! Called by recovery and by reads.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::index::Source;
use super::record::{self, HEADER_BYTES, Malformed, Record};

/// A buffered part of a file that moves forward.
pub(super) struct Window<'a> {
    file: &'a File,
    salt: u32,
    /// Nothing is read from here on.
    limit: u64,
    chunk: usize,
    start: u64,
    filled: usize,
    buf: Vec<u8>,
}

/// Why there is no record at an offset.
#[derive(Debug)]
pub(super) enum Failure {
    Io(io::Error),
    Malformed(Malformed),
}

impl<'a> Window<'a> {
    /// Reads `source` up to `limit` in steps of `chunk` bytes.
    pub fn new(source: &'a Source, limit: u64, chunk: usize) -> Window<'a> {
        Window { file: &source.file, salt: source.salt, limit, chunk, start: 0, filled: 0, buf: Vec::new() }
    }

    /// The bytes at `offset`: `len` of them, or fewer in front of the limit.
    pub fn get(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let room = usize::try_from(self.limit.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = len.min(room);
        let inside = offset.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        if let Some(skip) = inside.filter(|skip| skip.saturating_add(len) <= self.filled) {
            return Ok(&self.buf[skip..skip + len]);
        }
        let step = len.max(self.chunk).min(room);
        if self.buf.len() < step {
            self.buf.resize(step, 0);
        }
        self.filled = 0;
        self.file.read_exact_at(&mut self.buf[..step], offset)?;
        (self.start, self.filled) = (offset, step);
        Ok(&self.buf[..len])
    }

    /// The record at `offset`.
    pub fn record(&mut self, offset: u64) -> Result<Record<'_>, Failure> {
        let salt = self.salt;
        let head = self.get(offset, HEADER_BYTES).map_err(Failure::Io)?;
        let header = record::decode_header(head, salt).map_err(Failure::Malformed)?;
        let len = HEADER_BYTES + header.payload_len as usize;
        let bytes = self.get(offset, len).map_err(Failure::Io)?;
        record::decode(bytes, salt).map_err(Failure::Malformed)
    }
}
