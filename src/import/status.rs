//! What `etcdutl snapshot status` says of a database file.

use super::backend::Backend;
use super::record::Record;
use super::{Error, Phase, Progress, Result};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::path::Path;

/// Bytes of a key's digest: enough that no two keys of a file have the same.
const DIGEST_BYTES: usize = 16;
/// How often progress is told, in rows.
const ROWS_PER_STEP: u64 = 10_000;

/// A file summed up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// CRC-32C over names of buckets, keys and values.
    pub hash: u32,
    /// Revision of the last row.
    pub revision: i64,
    /// Keys that exist at that revision.
    pub total_keys: u64,
    /// Bytes of the database.
    pub total_size: u64,
    /// Version of the schema; empty before etcd 3.6.
    pub version: String,
}

/// Checks `file` and sums it up.
pub fn status(file: &Path, progress: Progress<'_>) -> Result<Status> {
    let backend = Backend::open(file)?;
    backend.check(progress)?;
    let reader = backend.reader();
    let (mut hash, mut last, mut live, mut rows) = (0, 0, HashSet::new(), 0u64);
    for name in reader.buckets().map_err(|e| backend.database(e))? {
        hash = crc32c::crc32c_append(hash, &name);
        let Some(bucket) = reader.bucket(&name).map_err(|e| backend.database(e))? else { continue };
        for row in bucket.iter() {
            let (key, value) = row.map_err(|e| backend.database(e))?;
            hash = crc32c::crc32c_append(crc32c::crc32c_append(hash, &key), &value);
            if name == b"key" {
                last = count(&backend, &key, &value, &mut live)?;
            }
            rows += 1;
            if rows.is_multiple_of(ROWS_PER_STEP) {
                progress(Phase::Keys, 0, 0);
            }
        }
    }
    Ok(Status {
        hash,
        revision: last,
        total_keys: live.len() as u64,
        total_size: reader.pages() * u64::from(reader.page_size()),
        version: backend.storage_version()?,
    })
}

type Keys = HashSet<[u8; DIGEST_BYTES]>;

/// Adds the key of a row or takes it out; returns the row's revision. A mark counts as a key, as in etcd.
fn count(backend: &Backend, key: &[u8], value: &[u8], live: &mut Keys) -> Result<i64> {
    let damaged =
        |what| Error::damaged(backend.path(), format!("a row of bucket \"key\" is damaged: {what}"));
    let record = Record::parse(key, value).map_err(damaged)?;
    let mut digest = [0; DIGEST_BYTES];
    digest.copy_from_slice(&Sha256::digest(&record.key)[..DIGEST_BYTES]);
    if record.value.is_some() {
        live.insert(digest);
    } else {
        live.remove(&digest);
    }
    Ok(record.meta.modified.main)
}
