//! Connections to one server, and the calls around a run: filling it beforehand, counting what is there afterwards.
//! Keys are `key-` and twelve digits, so that one prefix holds them all and numeric order is key order.

use std::cell::Cell;
use std::time::Duration;

use kvist::pb::etcdserverpb as pb;
use pb::kv_client::KvClient;
use pb::maintenance_client::MaintenanceClient;
use pb::watch_client::WatchClient;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

use crate::Result;
use crate::access::{Access, Token};
use crate::options::{KEY_BYTES, VALUE_BYTES};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Largest response that we take; ranges of 10 000 keys are about 3 MiB.
const RESPONSE_BYTES_MAX: usize = 256 << 20;
/// Puts in one transaction of [`Client::preload`]; 128 is etcd's default limit.
const TXN_PUTS: u64 = 128;
/// Keys in one page of [`Client::versions`].
const PAGE_KEYS: i64 = 10_000;

/// The keys of all workloads lie in `[PREFIX, PREFIX_END)`.
pub const PREFIX: &[u8] = b"key-";
pub const PREFIX_END: &[u8] = b"key.";

/// The n-th key, 16 bytes.
pub fn key(n: u64) -> Vec<u8> {
    let key = format!("key-{n:012}").into_bytes();
    debug_assert_eq!(key.len(), KEY_BYTES);
    key
}

/// 256 bytes that do not compress, with `stamp` in the first eight.
pub fn value(stamp: u64) -> Vec<u8> {
    static BODY: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    let body = BODY.get_or_init(|| {
        let mut dice = Dice::new(0);
        (0..VALUE_BYTES / 8).flat_map(|_| dice.next().to_le_bytes()).collect()
    });
    let mut value = body.clone();
    value[..8].copy_from_slice(&stamp.to_le_bytes());
    value
}

/// The stamp of a [`value`], if it is one.
pub fn stamp(value: &[u8]) -> Option<u64> {
    let (stamp, _) = value.split_first_chunk()?;
    (value.len() == VALUE_BYTES).then(|| u64::from_le_bytes(*stamp))
}

/// Pseudo-random numbers (splitmix64): the same sequence for both servers.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

/// A connection whose calls carry the token, if there is one.
pub type Link = InterceptedService<Channel, Token>;

/// Connections to a server, handed out in turn.
pub struct Client {
    links: Vec<Link>,
    next: Cell<usize>,
}

impl Client {
    /// Opens `connections` connections.
    ///
    /// # Errors
    /// The server does not take them.
    pub async fn connect(access: &Access, connections: usize) -> Result<Client> {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", access.port()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20);
        let mut links = Vec::with_capacity(connections);
        for _ in 0..connections {
            links.push(InterceptedService::new(access.connect(&endpoint).await?, access.token.clone()));
        }
        Ok(Client { links, next: Cell::new(0) })
    }

    fn link(&self) -> Link {
        let turn = self.next.get();
        self.next.set(turn + 1);
        self.links[turn % self.links.len()].clone()
    }

    pub fn kv(&self) -> KvClient<Link> {
        KvClient::new(self.link()).max_decoding_message_size(RESPONSE_BYTES_MAX)
    }

    pub fn watch(&self) -> WatchClient<Link> {
        WatchClient::new(self.link()).max_decoding_message_size(RESPONSE_BYTES_MAX)
    }

    /// The server's version.
    pub async fn status(&self) -> Result<String> {
        let mut maintenance = MaintenanceClient::new(self.link());
        Ok(maintenance.status(pb::StatusRequest::default()).await?.into_inner().version)
    }

    /// The store's revision, by a linearizable read.
    pub async fn revision(&self) -> Result<i64> {
        let request = pb::RangeRequest { key: PREFIX.to_vec(), ..Default::default() };
        let header = self.kv().range(request).await?.into_inner().header;
        Ok(header.ok_or("a response without header")?.revision)
    }

    /// Puts keys `0..keys`, each with its number as stamp.
    pub async fn preload(&self, keys: u64) -> Result<()> {
        let mut kv = self.kv();
        for first in (0..keys).step_by(usize::try_from(TXN_PUTS)?) {
            let success = (first..keys.min(first + TXN_PUTS)).map(preload_op).collect();
            kv.txn(pb::TxnRequest { success, ..Default::default() }).await?;
        }
        Ok(())
    }

    /// Number of keys.
    pub async fn count(&self) -> Result<u64> {
        let (key, range_end) = (PREFIX.to_vec(), PREFIX_END.to_vec());
        let request = pb::RangeRequest { key, range_end, count_only: true, ..Default::default() };
        Ok(self.kv().range(request).await?.into_inner().count.unsigned_abs())
    }

    /// The sum of the versions of all keys: how many puts the store has seen.
    pub async fn versions(&self) -> Result<u64> {
        let mut kv = self.kv();
        let (mut versions, mut from) = (0, PREFIX.to_vec());
        loop {
            let request = pb::RangeRequest {
                key: from,
                range_end: PREFIX_END.to_vec(),
                limit: PAGE_KEYS,
                keys_only: true,
                ..Default::default()
            };
            let page = kv.range(request).await?.into_inner();
            versions += page.kvs.iter().map(|kv| kv.version.unsigned_abs()).sum::<u64>();
            match page.kvs.last() {
                // The smallest key after the last one.
                Some(last) if page.more => from = [&last.key[..], &[0]].concat(),
                _ => return Ok(versions),
            }
        }
    }
}

fn preload_op(n: u64) -> pb::RequestOp {
    let put = pb::PutRequest { key: key(n), value: value(n), ..Default::default() };
    pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
}
