//! HashKV: a digest of stored history up to a revision, equal on all members, and equal to etcd's (contract X-7).
//!
//! CRC-32C over the word `key`, then over every version up to the revision, in order of revision: its key in etcd's
//! `key` bucket and its `mvccpb.KeyValue`. Of the versions at or below the compacted revision only those count that are
//! still visible at the revision asked for; or those visible at the compaction, if no key at all is there at that
//! revision. So it depends on the logical state alone, not on how far physical compaction or flushing has come.

use super::versions::{Version, Versions};
use super::{Error, Result, Store};

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
    /// Hashes everything up to `revision` (0: the current one). Takes time in proportion to the data. Up to a negative
    /// revision there is nothing, whatever was compacted.
    pub fn hash(&self, revision: i64) -> Result<Hash> {
        let versions = self.versions();
        let current = self.revision();
        let revision = if revision == 0 { current } else { revision };
        if revision > current {
            return Err(Error::FutureRevision);
        }
        let compacted = versions.compacted();
        if revision < 0 {
            return Ok(Hash { hash: crc32c::crc32c(b"key"), compacted, revision });
        }
        if revision < compacted {
            return Err(Error::Compacted);
        }
        Ok(Hash { hash: digest(&versions, revision)?, compacted, revision })
    }
}

fn digest(versions: &Versions<'_>, revision: i64) -> Result<u32> {
    let mut hash = crc32c::crc32c(b"key");
    let mut buffer = Vec::new();
    let mut add = |version: &Version<'_>| {
        buffer.clear();
        version.etcd_key(&mut buffer);
        version.etcd_value(&mut buffer);
        hash = crc32c::crc32c_append(hash, &buffer);
        Ok(())
    };
    if !versions.old(revision, false, &mut add)? {
        versions.old(versions.compacted(), false, &mut add)?;
    }
    versions.changes(revision, &mut add)?;
    Ok(hash)
}
