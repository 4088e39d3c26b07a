//! The calls around a load: filling the store beforehand, counting what is there afterwards, clearing up. Used by
//! `coordinator`.

use super::Error;
use super::keys::Keys;
use crate::client::Link;
use crate::pb::etcdserverpb as pb;
use futures_util::{StreamExt, TryStreamExt, stream};
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::maintenance_client::MaintenanceClient;
use pb::range_request::{SortOrder, SortTarget};
use pb::request_op::Request;

/// Transactions of [`Store::preload`], and revocations, that are outstanding at once.
const IN_FLIGHT: usize = 32;
/// Keys in one page of [`Store::sum_up`].
const PAGE_KEYS: i64 = 10_000;
/// Longest answer that is taken.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What the store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Number of leases of the whole store.
    pub leases: u64,
    /// Number of keys under the prefix of the run.
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

    /// The revision of the oldest key.
    pub async fn oldest(&self) -> Result<i64, Error> {
        let request = pb::RangeRequest {
            key: self.keys.prefix(),
            range_end: self.keys.end(),
            limit: 1,
            sort_order: SortOrder::Ascend.into(),
            sort_target: SortTarget::Mod.into(),
            keys_only: true,
            ..Default::default()
        };
        let oldest = self.kv().range(request).await?.into_inner().kvs.into_iter().next();
        Ok(oldest.ok_or_else(|| Error::Failed("there are no keys".into()))?.mod_revision)
    }

    /// Puts keys `0..count`, each with its number as stamp, `puts` at once. `progress` hears how many are done.
    pub async fn preload(&self, count: u64, puts: u64, progress: &mut dyn FnMut(u64)) -> Result<(), Error> {
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
        let mut txns = txns.buffer_unordered(IN_FLIGHT);
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
        let (mut kv, mut from) = (self.kv(), self.keys.prefix());
        let mut sum = Sum { leases: self.leases().await?, ..Sum::default() };
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

    /// Number of leases.
    pub async fn leases(&self) -> Result<u64, Error> {
        let mut lease = LeaseClient::new(self.link.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        Ok(lease.lease_leases(pb::LeaseLeasesRequest {}).await?.into_inner().leases.len() as u64)
    }

    /// Ends leases; those that have ended are none of our concern.
    pub async fn revoke(&self, leases: Vec<i64>) {
        let revoke = |id| async move {
            let _ = LeaseClient::new(self.link.clone()).lease_revoke(pb::LeaseRevokeRequest { id }).await;
        };
        stream::iter(leases).map(revoke).buffer_unordered(IN_FLIGHT).collect::<()>().await;
    }

    /// Deletes every key under the prefix.
    pub async fn clear(&self) -> Result<(), Error> {
        let (key, range_end) = (self.keys.prefix(), self.keys.end());
        self.kv().delete_range(pb::DeleteRangeRequest { key, range_end, ..Default::default() }).await?;
        Ok(())
    }
}
