//! Reads of keys and of prefixes, each at one revision. What is short is read on the connection's own thread.

use super::convert::Consistency;
use super::{DEngine, convert, error};
use crate::api::caller::Credentials;
use crate::api::waiter::{Waiter, Work};
use crate::engine::command::Range;
use crate::engine::scan::{Budget, Scan};
use crate::engine::timing::What;
use crate::engine::{Engine, Image, Permit, Snapshot, Value};
use crate::pb::d_engine::client::{ClientResult, KvEntry, ScanResponse};
use crate::types::KeyRange;
use bytes::Bytes;
use std::collections::HashSet;
use std::sync::Arc;
use tonic::Status;

/// Keys of one request that are looked up on the connection's own thread, and that are told of if that took long.
const INLINE_KEYS: usize = 32;
/// What of a scan is read there.
const INLINE: Budget = Budget { keys: 2000, bytes: 256 << 10 };
/// What a step of a longer scan reads, on a thread that may block.
const STEP: Budget = Budget { keys: 20_000, bytes: 1 << 20 };
/// Longest answer, in bytes of keys and values: it is put together in memory. The crate takes 4 MiB.
const ANSWER_BYTES_MAX: usize = 256 << 20;

impl DEngine {
    /// Looks keys up at one revision: those that exist, each once.
    pub async fn get(
        &self,
        credentials: &Credentials,
        keys: Vec<Bytes>,
        consistency: Consistency,
    ) -> Result<Vec<ClientResult>, Status> {
        match consistency {
            Consistency::Linearizable => self.engine.read_index().await,
            Consistency::Lease => self.engine.lease_read().await,
            Consistency::Eventual => Ok(()),
        }
        .map_err(error::status)?;
        let keys = distinct(keys);
        let mut permits = self.permits(credentials, &keys)?;
        let reading = self.engine.begin_read(what(&keys));
        let found = if keys.len() <= INLINE_KEYS {
            look_up(&self.engine, keys)
        } else {
            let engine = self.engine.clone();
            blocking(move || look_up(&engine, keys)).await
        };
        reading.end(found.as_ref().ok().map(|found| (found.len() as i64, None)));
        let found = found?;
        for permit in &mut permits {
            self.engine.still_permits(permit).map_err(error::status)?;
        }
        Ok(found)
    }

    fn permits(&self, credentials: &Credentials, keys: &[Bytes]) -> Result<Vec<Permit>, Status> {
        let caller = self.caller(credentials)?;
        let permit = |key: &Bytes| self.engine.permit_range(caller.as_ref(), &KeyRange::single(key.clone()));
        keys.iter().map(permit).collect::<Result<_, _>>().map_err(error::status)
    }

    /// Reads every key with a prefix, and the revision as of which they are.
    pub async fn scan(&self, credentials: &Credentials, prefix: Bytes) -> Result<ScanResponse, Status> {
        self.engine.read_index().await.map_err(error::status)?;
        let query = convert::range(convert::prefixed(prefix));
        let caller = self.caller(credentials)?;
        let permit = self.engine.permit_range(caller.as_ref(), &query.range).map_err(error::status)?;
        let reading = self.engine.begin_read(What::Range(query.clone()));
        let found = self.read_all(query, permit).await;
        reading.end(found.as_ref().ok().map(|found| (found.entries.len() as i64, None)));
        found
    }

    async fn read_all(&self, query: Range, mut permit: Permit) -> Result<ScanResponse, Status> {
        let (mut scan, snapshot) = self.engine.scan(query).map_err(error::status)?;
        let revision = scan.revision().unsigned_abs();
        let mut found = Found::default();
        scan.step_in(&snapshot, INLINE, |s, key, image| found.add(s, key, image))
            .map_err(|e| error::status(e.into()))?;
        drop(snapshot);
        // What comes later is of the same revision, which has been reached.
        self.engine.still_permits(&mut permit).map_err(error::status)?;
        if !scan.is_done() {
            let (_waiter, work) = Waiter::new();
            found = blocking(move || rest(scan, found, &work)).await?;
        }
        Ok(ScanResponse { entries: found.entries, revision })
    }
}

/// What a scan has found so far.
#[derive(Default)]
struct Found {
    entries: Vec<KvEntry>,
    /// Of keys and values.
    bytes: usize,
}

impl Found {
    /// Adds a pair; the bytes that it takes.
    fn add(&mut self, snapshot: &Snapshot, key: &[u8], image: &Image<'_>) -> crate::mvcc::Result<usize> {
        let value = snapshot.value(image)?.into_owned().into();
        let entry = KvEntry { key: Bytes::copy_from_slice(key), value };
        let bytes = entry.key.len() + entry.value.len();
        self.bytes += bytes;
        self.entries.push(entry);
        Ok(bytes)
    }
}

/// Reads on to the end, or until the answer is too long.
fn rest(mut scan: Scan, mut found: Found, work: &Work) -> Result<Found, Status> {
    while !scan.is_done() {
        work.is_wanted()?;
        scan.step(STEP, |s, key, image| found.add(s, key, image)).map_err(|e| error::status(e.into()))?;
        if found.bytes > ANSWER_BYTES_MAX {
            return Err(error::long_answer(ANSWER_BYTES_MAX));
        }
    }
    Ok(found)
}

/// The keys without those that come again, and without the empty one, which never exists.
fn distinct(mut keys: Vec<Bytes>) -> Vec<Bytes> {
    let is_alone = keys.len() == 1;
    let mut seen = HashSet::new();
    keys.retain(|key| !key.is_empty() && (is_alone || seen.insert(key.clone())));
    keys
}

/// What is told of a read that took long; of many keys the first ones.
fn what(keys: &[Bytes]) -> What {
    match keys {
        [key] => What::Range(convert::range(KeyRange::single(key.clone()))),
        keys => What::Txn(Arc::new(convert::reads(&keys[..keys.len().min(INLINE_KEYS)]))),
    }
}

fn look_up(engine: &Engine, keys: Vec<Bytes>) -> Result<Vec<ClientResult>, Status> {
    let snapshot = engine.snapshot().map_err(error::status)?;
    let (mut results, mut bytes) = (Vec::with_capacity(keys.len()), 0);
    for key in keys {
        let image = snapshot.get(&key).map_err(|e| error::status(e.into()))?;
        let Some(image) = image else { continue };
        let value = value(&snapshot, &image).map_err(|e| error::status(e.into()))?;
        bytes += key.len() + value.len();
        if bytes > ANSWER_BYTES_MAX {
            return Err(error::long_answer(ANSWER_BYTES_MAX));
        }
        results.push(ClientResult { key, value });
    }
    Ok(results)
}

/// The value of an image that the snapshot gave; not copied if it is in there.
fn value(snapshot: &Snapshot, image: &Bytes) -> crate::mvcc::Result<Bytes> {
    let parsed = Image::parse(image)?;
    Ok(match parsed.value {
        Value::Inline(value) => image.slice_ref(value),
        Value::Blob(_) => snapshot.value(&parsed)?.into_owned().into(),
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|_| error::stopped())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_looked_up_once_and_the_empty_one_never() {
        let keys = |names: &[&'static str]| names.iter().map(|name| Bytes::from(*name)).collect::<Vec<_>>();
        assert_eq!(distinct(keys(&["b", "", "a", "b", "a", "c"])), keys(&["b", "a", "c"]));
        assert_eq!(distinct(keys(&["a"])), keys(&["a"]));
        assert_eq!(distinct(keys(&[""])), keys(&[]));
    }
}
