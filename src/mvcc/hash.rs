//! HashKV: a digest of the visible state and history up to a revision, equal on all members (contract X-7).
//!
//! CRC-32C over: the word `key`; every key that exists at the base revision, in key order, with its metadata and value;
//! then every change above the base up to the revision, in order. The base is the compacted revision, or 0. It depends on
//! the logical state only, not on how far physical compaction or flushing has come. The value differs from etcd's own
//! (which hashes its records by revision): see `docs/compat.md`.

use super::history::Limit;
use super::{Error, NEVER_COMPACTED, Result, Store};
use crate::storage::codec::Image;
use crate::types::{KeyRange, RangeEnd};
use bytes::Bytes;
use std::ops::ControlFlow;

/// Keys hashed under one read transaction.
const KEYS_PER_STEP: usize = 10_000;
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
        let current = self.revision();
        let revision = if revision <= 0 { current } else { revision };
        if revision > current {
            return Err(Error::FutureRevision);
        }
        let compacted = self.compacted();
        if revision < compacted {
            return Err(Error::Compacted);
        }
        let base = compacted.max(0);
        let _pin = self.pin(base);
        let mut hash = crc32c::crc32c(b"key");
        if compacted != NEVER_COMPACTED && base > 0 {
            hash = self.hash_base(base, hash)?;
        }
        hash = self.hash_changes(base + 1, revision, hash)?;
        Ok(Hash { hash, compacted, revision })
    }

    fn hash_base(&self, base: i64, mut hash: u32) -> Result<u32> {
        let mut range = KeyRange { start: Bytes::new(), end: RangeEnd::Unbounded };
        loop {
            let snapshot = self.snapshot(base)?;
            let mut keys = 0;
            let mut last = None;
            snapshot.scan(&range, |key, image| {
                hash = digest(hash, key, &image, &snapshot.value(&image)?);
                keys += 1;
                if keys == KEYS_PER_STEP {
                    last = Some(key.to_vec());
                    return Ok(ControlFlow::Break(()));
                }
                Ok(ControlFlow::Continue(()))
            })?;
            let Some(mut next) = last else { return Ok(hash) };
            next.push(0);
            range.start = next.into();
        }
    }

    fn hash_changes(&self, mut from: i64, to: i64, mut hash: u32) -> Result<u32> {
        while from <= to {
            let batches = self.history(from, HISTORY_STEP)?;
            let Some(last) = batches.last() else { break };
            from = last.revision + 1;
            for event in batches.iter().filter(|b| b.revision <= to).flat_map(|b| &b.events) {
                let new = self.with_inline_value(&event.new)?;
                let image = Image::parse(&new)?;
                let value = match image.value {
                    crate::storage::codec::Value::Inline(value) => value,
                    crate::storage::codec::Value::Blob(_) => &[],
                };
                hash = digest(hash, &event.key, &image, value);
            }
        }
        Ok(hash)
    }
}

fn digest(hash: u32, key: &[u8], image: &Image<'_>, value: &[u8]) -> u32 {
    let sub = image.modified.sub.to_be_bytes();
    let tombstone = [u8::from(image.is_tombstone())];
    let lengths = [(key.len() as u64).to_be_bytes(), (value.len() as u64).to_be_bytes()].concat();
    let parts: [&[u8]; 6] = [&lengths, key, image.wire_meta(), &sub, &tombstone, value];
    parts.into_iter().fold(hash, crc32c::crc32c_append)
}
