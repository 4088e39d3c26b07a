//! The calls around a load: filling the store beforehand, counting what is there afterwards, clearing up. Used by
//! `coordinator`.

use super::Error;
use super::keys::Keys;
use crate::client::Link;
use crate::pb::etcdserverpb as pb;
use futures_util::{StreamExt, TryStreamExt, stream};
use pb::kv_client::KvClient;
use pb::maintenance_client::MaintenanceClient;
use pb::request_op::Request;

/// Puts in one transaction of [`Store::preload`]; 128 is etcd's default limit.
const TXN_PUTS: u64 = 128;
/// Bytes of values in one transaction, below etcd's default limit of 1.5 MiB.
const TXN_BYTES: u64 = 1 << 20;
/// Transactions of [`Store::preload`] that are outstanding at once.
const TXNS_IN_FLIGHT: usize = 16;
/// Keys in one page of [`Store::sum_up`].
const PAGE_KEYS: i64 = 10_000;
/// Longest answer that is taken.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What is stored under the prefix of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Number of keys.
    pub keys: u64,
    /// The sum of their versions: how many puts made them what they are.
    pub versions: u64,
}

/// One connection, and the keys of the run.
pub struct Store {
    link: Link,
    keys: Keys,
}

impl Store {
    /// For this run.
    pub fn new(link: Link, keys: Keys) -> Store {
        Store { link, keys }
    }

    fn kv(&self) -> KvClient<Link> {
        KvClient::new(self.link.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The server's version.
    pub async fn version(&self) -> Result<String, Error> {
        let status = MaintenanceClient::new(self.link.clone()).status(pb::StatusRequest::default()).await?;
        Ok(status.into_inner().version)
    }

    /// The store's revision, by a linearizable read.
    pub async fn revision(&self) -> Result<i64, Error> {
        let request = pb::RangeRequest { key: self.keys.prefix(), ..Default::default() };
        let header = self.kv().range(request).await?.into_inner().header;
        Ok(header.ok_or_else(|| Error::Failed("an answer without header".into()))?.revision)
    }

    /// Puts keys `0..count`, each with its number as stamp. `progress` hears how many are done.
    pub async fn preload(
        &self,
        count: u64,
        val_size: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Error> {
        let puts = (TXN_BYTES / val_size.max(1)).clamp(1, TXN_PUTS);
        let parts = (0..count.div_ceil(puts)).map(|part| part * puts..count.min((part + 1) * puts));
        let txns = stream::iter(parts).map(|part| async move {
            let puts = part.end - part.start;
            let op = |n| {
                let put =
                    pb::PutRequest { key: self.keys.key(n), value: self.keys.value(n), ..Default::default() };
                pb::RequestOp { request: Some(Request::RequestPut(put)) }
            };
            let success = part.map(op).collect();
            self.kv().txn(pb::TxnRequest { success, ..Default::default() }).await.map(|_| puts)
        });
        let mut txns = txns.buffer_unordered(TXNS_IN_FLIGHT);
        let mut done = 0;
        while let Some(puts) = txns.try_next().await? {
            done += puts;
            progress(done);
        }
        Ok(())
    }

    /// Number of keys.
    pub async fn count(&self) -> Result<u64, Error> {
        let (key, range_end) = (self.keys.prefix(), self.keys.end());
        let request = pb::RangeRequest { key, range_end, count_only: true, ..Default::default() };
        Ok(self.kv().range(request).await?.into_inner().count.unsigned_abs())
    }

    /// Looks at every key.
    pub async fn sum_up(&self) -> Result<Sum, Error> {
        let (mut kv, mut sum, mut from) = (self.kv(), Sum::default(), self.keys.prefix());
        loop {
            let request = pb::RangeRequest {
                key: from,
                range_end: self.keys.end(),
                limit: PAGE_KEYS,
                keys_only: true,
                ..Default::default()
            };
            let page = kv.range(request).await?.into_inner();
            sum.keys += page.kvs.len() as u64;
            sum.versions += page.kvs.iter().map(|kv| kv.version.unsigned_abs()).sum::<u64>();
            match page.kvs.last() {
                // The smallest key after the last one.
                Some(last) if page.more => from = [&last.key[..], &[0]].concat(),
                _ => return Ok(sum),
            }
        }
    }

    /// Deletes every key under the prefix.
    pub async fn clear(&self) -> Result<(), Error> {
        let (key, range_end) = (self.keys.prefix(), self.keys.end());
        self.kv().delete_range(pb::DeleteRangeRequest { key, range_end, ..Default::default() }).await?;
        Ok(())
    }
}
