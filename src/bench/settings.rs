//! What a run is to do, as plain data. Made by `cli`, printed with the results, read by everything else here.

use serde::Serialize;
use std::time::Duration;

/// The kinds of load. `docs/bench.md` describes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Put keys of the key space
    Put,
    /// Read preloaded keys, one or --range-keys a call
    Range,
    /// Put --txn-ops keys in one transaction
    TxnPut,
    /// Transactions that read a range, and transactions that put a key
    TxnMixed,
    /// Delete preloaded keys, each once
    Delete,
    /// Put keys that --watchers look at, all of them at each
    Watch,
    /// The same with few puts and one watcher: time from a put to its event
    WatchLatency,
    /// Put keys that --watchers look at, each at a key of its own
    WatchMany,
    /// Read the history of the preloaded keys, by --watchers at once
    WatchReplay,
    /// Grant leases
    LeaseGrant,
    /// Keep leases alive, each client its own
    LeaseKeepalive,
    /// Let leases with a key each end: time from when it should have to the key's delete event
    LeaseExpiry,
    /// Guarded updates, reads, lists, keys under leases, and watchers, as of a Kubernetes cluster
    Kubernetes,
    /// Take snapshots
    Snapshot,
    /// Put keys of the key space by Oxia's early client protocol, one a batch
    OxiaPut,
    /// Read preloaded keys by Oxia's early client protocol, one a batch
    OxiaGet,
    /// Put keys of the key space by the d-engine's client protocol
    DEnginePut,
    /// Read preloaded keys by the d-engine's client protocol
    DEngineGet,
    /// As put, by the draft of etcd's third API
    RfcPut,
    /// As range, by the draft of etcd's third API
    RfcRange,
}

/// How a read may lag behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
pub enum Consistency {
    /// Linearizable
    #[serde(rename = "l")]
    #[value(name = "l")]
    Linearizable,
    /// Serializable
    #[serde(rename = "s")]
    #[value(name = "s")]
    Serializable,
}

/// Everything that shapes the load.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// The kind of load.
    pub workload: Workload,
    /// Servers; connections are spread over them.
    pub endpoints: Vec<String>,
    /// Requests that may be outstanding.
    pub clients: usize,
    /// Connections that the clients share.
    pub conns: usize,
    /// Threads of the load tool.
    pub threads: usize,
    /// Requests a second, whatever the answers do; 0 is the closed loop.
    pub rate: f64,
    /// Measured time.
    pub duration_seconds: f64,
    /// Measured requests, instead of a time.
    pub total: Option<u64>,
    /// Time of load before the measured one.
    pub warmup_seconds: f64,
    /// Bytes of a key.
    pub key_size: usize,
    /// Bytes of a value.
    pub val_size: usize,
    /// Keys that writes choose from.
    pub key_space_size: u64,
    /// Keys that are there before the load begins, where a workload reads or deletes.
    pub total_keys: u64,
    /// Writes go through the key space in order, not at random.
    pub sequential_keys: bool,
    /// What every key begins with.
    pub prefix: String,
    /// Of reads.
    pub consistency: Consistency,
    /// Keys that one read returns.
    pub range_keys: u64,
    /// Most keys that a read of `txn-mixed` returns.
    pub limit: u64,
    /// Operations in a transaction of `txn-put`.
    pub txn_ops: u64,
    /// Reads for each write of `txn-mixed`.
    pub rw_ratio: f64,
    /// Watchers of the workloads that watch.
    pub watchers: usize,
    /// Streams that they share.
    pub streams: usize,
    /// Puts (or grants, of `lease-expiry`) a second that cause events; 0 is the closed loop.
    pub put_rate: f64,
    /// Seconds that a lease lives.
    pub ttl: i64,
    /// Seed of everything random.
    pub seed: u64,
    /// Look afterwards whether the server kept what it promised.
    pub check: bool,
    /// Leave the keys.
    pub keep: bool,
    /// Processes of the server, to be watched.
    pub server_pid: Vec<u32>,
}

impl Settings {
    /// As on the command line.
    pub fn workload_name(&self) -> String {
        clap::ValueEnum::to_possible_value(&self.workload)
            .map_or_else(String::new, |name| name.get_name().to_owned())
    }

    /// Time of load before the measured one.
    pub fn warmup(&self) -> Duration {
        Duration::from_secs_f64(self.warmup_seconds)
    }

    /// Measured time; without end when requests are counted.
    pub fn duration(&self) -> Duration {
        match self.total {
            Some(_) => Duration::MAX,
            None => Duration::from_secs_f64(self.duration_seconds),
        }
    }

    /// Keys that have to be there before the load begins.
    pub fn preloaded(&self) -> u64 {
        match self.workload {
            Workload::Range | Workload::RfcRange => self.total_keys.max(self.range_keys),
            Workload::Delete
            | Workload::WatchReplay
            | Workload::Kubernetes
            | Workload::Snapshot
            | Workload::OxiaGet
            | Workload::DEngineGet => self.total_keys,
            Workload::TxnMixed => self.key_space_size,
            Workload::Put
            | Workload::DEnginePut
            | Workload::TxnPut
            | Workload::Watch
            | Workload::WatchLatency
            | Workload::WatchMany
            | Workload::LeaseGrant
            | Workload::LeaseKeepalive
            | Workload::LeaseExpiry
            | Workload::OxiaPut
            | Workload::RfcPut => 0,
        }
    }

    /// Whether events are what is measured, and requests only cause them.
    pub fn counts_events(&self) -> bool {
        match self.workload {
            Workload::Watch | Workload::WatchLatency | Workload::WatchMany => self.watchers > 0,
            Workload::LeaseExpiry => true,
            Workload::Put
            | Workload::DEnginePut
            | Workload::DEngineGet
            | Workload::Range
            | Workload::TxnPut
            | Workload::TxnMixed
            | Workload::Delete
            | Workload::WatchReplay
            | Workload::LeaseGrant
            | Workload::LeaseKeepalive
            | Workload::Kubernetes
            | Workload::Snapshot
            | Workload::OxiaPut
            | Workload::OxiaGet
            | Workload::RfcPut
            | Workload::RfcRange => false,
        }
    }

    /// Events that each write causes; `None` where none are counted.
    pub fn events_per_write(&self) -> Option<u64> {
        match self.workload {
            Workload::Watch | Workload::WatchLatency | Workload::Kubernetes => Some(self.watchers as u64),
            Workload::WatchMany | Workload::LeaseExpiry => Some(1),
            Workload::Put
            | Workload::DEnginePut
            | Workload::DEngineGet
            | Workload::Range
            | Workload::TxnPut
            | Workload::TxnMixed
            | Workload::Delete
            | Workload::WatchReplay
            | Workload::LeaseGrant
            | Workload::LeaseKeepalive
            | Workload::Snapshot
            | Workload::OxiaPut
            | Workload::OxiaGet
            | Workload::RfcPut
            | Workload::RfcRange => None,
        }
    }

    /// Why the settings make no sense, if they do not.
    ///
    /// # Errors
    /// One sentence about the first thing that is wrong.
    pub fn verify(&self) -> Result<(), String> {
        let digits = self.key_size.saturating_sub(self.prefix.len());
        let keys = self.key_space_size.max(self.preloaded()).max(self.watchers as u64);
        let room = u32::try_from(digits).ok().and_then(|digits| 10_u64.checked_pow(digits));
        let is = |workload| self.workload == workload;
        let watches = self.events_per_write().is_some() && !is(Workload::LeaseExpiry);
        let rules = [
            (!self.endpoints.is_empty(), "--endpoints names no server"),
            (self.clients > 0, "--clients must be at least 1"),
            (self.conns > 0, "--conns must be at least 1"),
            (self.threads > 0 && self.threads <= self.clients, "--threads must be between 1 and --clients"),
            (self.rate.is_finite() && self.rate >= 0.0, "--rate must not be negative"),
            (self.key_space_size > 0 && self.total_keys > 0, "there must be at least one key"),
            (!self.prefix.is_empty(), "--prefix must not be empty"),
            (self.range_keys > 0 && self.limit > 0, "a read must return at least one key"),
            (
                self.txn_ops > 0 && self.txn_ops <= self.key_space_size,
                "--txn-ops must be between 1 and the keys",
            ),
            (self.rw_ratio.is_finite() && self.rw_ratio >= 0.0, "--rw-ratio must not be negative"),
            (self.put_rate.is_finite() && self.put_rate >= 0.0, "--put-rate must not be negative"),
            (self.ttl > 0, "--ttl must be at least 1"),
            (self.streams > 0, "--streams must be at least 1"),
            (self.val_size >= 8 || !watches, "--val-size must be at least 8, to tell events apart"),
            (self.watchers > 0 || !is(Workload::WatchMany), "--watchers must be at least 1"),
            (
                self.watchers >= self.threads || !is(Workload::WatchReplay),
                "--watchers must be at least --threads",
            ),
            (
                self.clients as u64 <= self.total_keys || !is(Workload::Kubernetes),
                "--clients must be at most --total-keys",
            ),
            (room.is_none_or(|room| keys <= room), "--key-size has no room for the prefix and so many keys"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, why)) => Err((*why).to_owned()),
            None => Ok(()),
        }
    }
}
