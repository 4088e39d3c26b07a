//! Values of all flags before they are checked against each other. Every field is first written by the default of
//! its flag, so that defaults stand in one place, the flag table. Written by the table, read by `verify`.

use super::url::EndpointUrl;
use super::{
    Compaction, FeatureGates, Keepalive, Limits, Raft, Slow, SocketOptions, Storage, Tls, log, monitoring,
    peer,
};
use std::time::Duration;

/// See the file's head; a field has the name of its flag where `Config` has none for it.
#[derive(Default)]
pub struct Draft {
    pub name: String,
    pub data_dir: String,
    pub wal_dir: String,
    pub listen_client_urls: Vec<EndpointUrl>,
    pub listen_client_http_urls: Vec<EndpointUrl>,
    pub listen_peer_urls: Vec<EndpointUrl>,
    pub listen_metrics_urls: Vec<EndpointUrl>,
    pub advertise_client_urls: Vec<EndpointUrl>,
    pub initial_advertise_peer_urls: Vec<EndpointUrl>,
    pub initial_cluster: String,
    pub initial_cluster_state: String,
    pub initial_cluster_token: String,
    pub strict_reconfig_check: bool,
    pub force_new_cluster: bool,
    pub streams_max: u32,
    pub keepalive: Keepalive,
    pub sockets: SocketOptions,
    pub tls: Tls,
    pub tls_min_version: String,
    pub tls_max_version: String,
    pub cipher_suites: String,
    pub json_gateway: bool,
    pub cors: Vec<String>,
    pub host_whitelist: String,
    pub pprof: bool,
    pub raft: Raft,
    pub storage: Storage,
    pub quota_backend_bytes: i64,
    pub compaction: Compaction,
    pub auto_compaction_mode: String,
    pub auto_compaction_retention: String,
    pub limits: Limits,
    pub watch_progress_interval: Duration,
    pub auth_token: String,
    pub auth_token_ttl_secs: u64,
    pub bcrypt_cost: u64,
    pub corrupt_check_interval: Duration,
    pub slow: Slow,
    pub monitoring: monitoring::Draft,
    pub gates: FeatureGates,
    pub log: log::Draft,
    pub discovery_fallback: String,
    pub compact_hash_check_time: Duration,
    pub defrag_threshold_mib: u64,
    pub max_learners: i64,
    pub shutdown_grace_period: Duration,
    pub peer_transport: peer::Draft,
    pub wait_for_bootstrap: bool,
    pub config_file: String,
    pub print_version: bool,
}
