//! HashKV: a digest of stored history up to a revision, equal on all members, and equal to etcd's (contract X-7).
//!
//! CRC-32C over the word `key`, then over every version up to the revision, in order of revision: its key in etcd's
//! `key` bucket and its `mvccpb.KeyValue`. Of the versions at or below the compacted revision only those count that are
//! still visible at the revision asked for. So it depends on the logical state alone, not on how far physical compaction
//! or flushing has come.
//!
//! Memory: those older versions must be put in order of revision, which takes about their keys' size for the time of
//! the call.

use super::history::Limit;
use super::{Error, Pin, Result, Store};
use crate::storage::codec::{Image, Value, put_varint};
use crate::types::{KeyRange, RangeEnd, Revision};
use bytes::Bytes;
use std::ops::ControlFlow;

/// Keys read under one read transaction.
const KEYS_PER_STEP: usize = 10_000;
/// Compactions that may come in between before a call gives up.
const ATTEMPTS_MAX: usize = 10;
const HISTORY_STEP: Limit = Limit { revisions: 1000, bytes: 4 << 20 };

/// Answer of [`Store::hash`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hash {
    /// The digest.
    pub hash: u32,
    /// Compacted revision that it stands on, or -1.
    pub compacted: i64,
    /// Revision up to which it reaches.
    pub revision: i64,
}

impl Store {
    /// Hashes everything up to `revision` (0: the current one). Takes time in proportion to the data.
    pub fn hash(&self, revision: i64) -> Result<Hash> {
        for _ in 1..ATTEMPTS_MAX {
            match self.try_hash(revision) {
                // A compaction took away what was being read; the revision asked for is still there.
                Err(Error::Compacted) if revision <= 0 || revision >= self.compacted() => {}
                result => return result,
            }
        }
        self.try_hash(revision)
    }

    fn try_hash(&self, revision: i64) -> Result<Hash> {
        let current = self.revision();
        let revision = if revision <= 0 { current } else { revision };
        if revision > current {
            return Err(Error::FutureRevision);
        }
        let pin = self.pin(revision);
        let compacted = self.compacted();
        if revision < compacted {
            return Err(Error::Compacted);
        }
        let mut digest = Digest { hash: crc32c::crc32c(b"key"), buffer: Vec::new() };
        if compacted > 0 {
            self.hash_old(&pin, compacted, &mut digest)?;
        }
        self.hash_changes(compacted.max(0) + 1, revision, &mut digest)?;
        Ok(Hash { hash: digest.hash, compacted, revision })
    }

    /// Versions at or below `compacted` that are visible at the pinned revision.
    fn hash_old(&self, pin: &Pin, compacted: i64, digest: &mut Digest) -> Result<()> {
        let mut old = self.old_versions(pin, compacted)?;
        old.sort_unstable_by_key(|(revision, _)| *revision);
        for chunk in old.chunks(KEYS_PER_STEP) {
            let snapshot = self.pinned_snapshot(pin)?;
            for (_, key) in chunk {
                let image = snapshot.get(key)?.expect("a pinned revision does not change");
                let image = Image::parse(&image)?;
                digest.add(key, &image, &snapshot.value(&image)?);
            }
        }
        Ok(())
    }

    fn old_versions(&self, pin: &Pin, compacted: i64) -> Result<Vec<(Revision, Bytes)>> {
        let mut found = Vec::new();
        let mut range = KeyRange { start: Bytes::new(), end: RangeEnd::Unbounded };
        loop {
            let snapshot = self.pinned_snapshot(pin)?;
            let mut keys = 0;
            let mut last = None;
            snapshot.scan(&range, |key, image| {
                if image.modified.main <= compacted {
                    found.push((image.modified, Bytes::copy_from_slice(key)));
                }
                keys += 1;
                if keys == KEYS_PER_STEP {
                    last = Some(key.to_vec());
                    return Ok(ControlFlow::Break(()));
                }
                Ok(ControlFlow::Continue(()))
            })?;
            let Some(mut next) = last else { return Ok(found) };
            next.push(0);
            range.start = next.into();
        }
    }

    fn hash_changes(&self, mut from: i64, to: i64, digest: &mut Digest) -> Result<()> {
        while from <= to {
            let batches = self.history(from, HISTORY_STEP)?;
            let Some(last) = batches.last() else { break };
            from = last.revision + 1;
            for event in batches.iter().filter(|b| b.revision <= to).flat_map(|b| &b.events) {
                let new = self.with_inline_value(&event.new)?;
                let image = Image::parse(&new)?;
                if let Value::Inline(value) = image.value {
                    digest.add(&event.key, &image, value);
                }
            }
        }
        Ok(())
    }
}

struct Digest {
    hash: u32,
    buffer: Vec<u8>,
}

impl Digest {
    /// Adds one version: `main _ sub [t]`, big endian, then the pair with its fields in order; a tombstone's has its key only.
    fn add(&mut self, key: &[u8], image: &Image<'_>, value: &[u8]) {
        let out = &mut self.buffer;
        out.clear();
        out.extend_from_slice(&image.modified.main.to_be_bytes());
        out.push(b'_');
        out.extend_from_slice(&i64::from(image.modified.sub).to_be_bytes());
        if image.is_tombstone() {
            out.push(b't');
        }
        put_bytes(out, 1, key);
        if !image.is_tombstone() {
            let meta = image.meta();
            put_number(out, 2, meta.create_revision);
            put_number(out, 3, meta.modified.main);
            put_number(out, 4, meta.version);
            put_bytes(out, 5, value);
            put_number(out, 6, meta.lease);
        }
        self.hash = crc32c::crc32c_append(self.hash, out);
    }
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.push(field << 3 | 2);
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

fn put_number(out: &mut Vec<u8>, field: u8, number: i64) {
    if number != 0 {
        out.push(field << 3);
        put_varint(out, number as u64);
    }
}
