//! Entries about one member and the cluster it belongs to.

use super::Kind::{Bool, Choice, Duration, Gates, Int, Text, Uint, Urls};
use super::{Flag, flag, nowhere, refused_at_bootstrap, tuning};

const DISCOVERY: &str =
    "members cannot be found by a discovery service, and a cluster of one would be made instead";

/// One member: its directories, its sockets, its pace.
pub(super) const MEMBER: &[Flag] = &[
    flag("name", "default", Text(|d, v| d.name = v), "Human-readable name for this member."),
    flag("data-dir", "", Text(|d, v| d.data_dir = v), "Directory of all data; NAME.kvist if not given."),
    flag(
        "wal-dir",
        "",
        Text(|d, v| d.wal_dir = v),
        "Directory of the write-ahead log, if on a disk of its own.",
    ),
    flag(
        "listen-client-urls",
        "http://localhost:2379",
        Urls(|d, v| d.listen_client_urls = v),
        "Comma-separated URLs to listen on for clients; hosts are IP addresses or localhost.",
    ),
    flag(
        "listen-peer-urls",
        "http://localhost:2380",
        Urls(|d, v| d.listen_peer_urls = v),
        "Comma-separated URLs to listen on for other members; hosts are IP addresses or localhost.",
    ),
    flag(
        "listen-client-http-urls",
        "",
        Urls(|d, v| d.listen_client_http_urls = v),
        "URLs for HTTP alone, which listen-client-urls then do not serve.",
    ),
    flag(
        "snapshot-count",
        "10000",
        Uint(|d, v| d.raft.snapshot_count = v),
        "Number of applied entries after which the raft log is purged.",
    ),
    flag(
        "snapshot-catchup-entries",
        "5000",
        Uint(|d, v| d.raft.snapshot_catchup_entries = v),
        "Number of entries kept then for followers that are behind; with the default, 500000.",
    ),
    flag(
        "heartbeat-interval",
        "100",
        Uint(|d, v| d.raft.heartbeat_interval = std::time::Duration::from_millis(v)),
        "Time in milliseconds between two heartbeats.",
    ),
    flag(
        "election-timeout",
        "1000",
        Uint(|d, v| d.raft.election_timeout = std::time::Duration::from_millis(v)),
        "Time in milliseconds without a leader before an election.",
    ),
    tuning(
        "initial-election-tick-advance",
        "true",
        Bool(nowhere),
        "Shorten the first election after a start.",
    ),
    flag(
        "quota-backend-bytes",
        "0",
        Int(|d, v| d.quota_backend_bytes = v),
        "Size of the database after which writes are refused; 0 is 2 GiB, a negative number is no limit.",
    ),
    tuning(
        "backend-batch-interval",
        "0",
        Duration(|d, v| d.storage.batch_interval = v),
        "Longest time between two commits of applied entries; 0 is 100ms.",
    ),
    tuning(
        "backend-batch-limit",
        "0",
        Uint(|d, v| d.storage.batch_limit = v),
        "Most changes between two commits of applied entries; 0 is 10000.",
    ),
    tuning("backend-bbolt-freelist-type", "map", Text(nowhere), "Free page list of etcd's storage engine."),
    flag(
        "bootstrap-defrag-threshold-megabytes",
        "0",
        Uint(|d, v| d.defrag_threshold_mib = v),
        "Space to gain, in MiB, that is worth a defragmentation at start; 0 is never.",
    ),
    flag(
        "memory-mlock",
        "false",
        Bool(|d, v| d.storage.memory_lock = v),
        "Keep what the server uses in memory.",
    ),
    tuning("max-snapshots", "5", Uint(nowhere), "Number of snapshot files to keep."),
    tuning("max-wals", "5", Uint(nowhere), "Number of write-ahead log files to keep."),
    tuning("raft-read-timeout", "5s", Duration(nowhere), "Read timeout of connections between members."),
    tuning("raft-write-timeout", "5s", Duration(nowhere), "Write timeout of connections between members."),
    flag(
        "feature-gates",
        "",
        Gates(|d| &mut d.gates),
        "Switches for behaviour in trial: Gate=true,Gate=false.",
    ),
    flag(
        "config-file",
        "",
        Text(|d, v| d.config_file = v),
        "Path of a file with the configuration; other flags and variables are then ignored.",
    ),
    flag("version", "false", Bool(|d, v| d.print_version = v), "Print the version and exit."),
];

/// With whom the cluster starts, and how it changes.
pub(super) const CLUSTERING: &[Flag] = &[
    flag(
        "initial-advertise-peer-urls",
        "http://localhost:2380",
        Urls(|d, v| d.initial_advertise_peer_urls = v),
        "Comma-separated URLs under which other members find this one.",
    ),
    flag(
        "advertise-client-urls",
        "http://localhost:2379",
        Urls(|d, v| d.advertise_client_urls = v),
        "Comma-separated URLs under which clients find this member.",
    ),
    flag(
        "initial-cluster",
        "",
        Text(|d, v| d.initial_cluster = v),
        "Members of a new cluster as name=url,name=url; this member alone if not given.",
    ),
    flag(
        "initial-cluster-state",
        "new",
        Choice(&["new", "existing"], |d, v| d.initial_cluster_state = v),
        "Whether the cluster is new or existing; ignored once there is data.",
    ),
    flag(
        "initial-cluster-token",
        "etcd-cluster",
        Text(|d, v| d.initial_cluster_token = v),
        "Keeps clusters apart that have the same addresses.",
    ),
    flag(
        "strict-reconfig-check",
        "true",
        Bool(|d, v| d.strict_reconfig_check = v),
        "Refuse membership changes that would lose the quorum.",
    ),
    flag("pre-vote", "true", Bool(|d, v| d.raft.pre_vote = v), "Ask for votes before raising the term."),
    flag("max-learners", "1", Int(|d, v| d.max_learners = v), "Number of learners the cluster may have."),
    refused_at_bootstrap(
        "discovery-endpoints",
        "",
        Text(nowhere),
        DISCOVERY,
        "Endpoints of a discovery service.",
    ),
    refused_at_bootstrap(
        "discovery-token",
        "",
        Text(nowhere),
        DISCOVERY,
        "Token of this cluster at the discovery service.",
    ),
    flag(
        "discovery-srv",
        "",
        Text(|d, v| d.discovery_srv = v),
        "DNS domain whose SRV records name the members of a new cluster, in place of initial-cluster.",
    ),
    flag(
        "discovery-srv-name",
        "",
        Text(|d, v| d.discovery_srv_name = v),
        "Suffix of the services that discovery-srv asks for: _etcd-server-NAME in place of _etcd-server.",
    ),
    tuning(
        "discovery-fallback",
        "exit",
        Choice(&["exit", "proxy"], |d, v| d.discovery_fallback = v),
        "What to do when discovery fails: exit; etcd knows proxy and refuses it.",
    ),
    tuning("discovery-dial-timeout", "2s", Duration(nowhere), "Dial timeout of discovery."),
    tuning("discovery-request-timeout", "5s", Duration(nowhere), "Request timeout of discovery."),
    tuning("discovery-keepalive-time", "2s", Duration(nowhere), "Keepalive time of discovery."),
    tuning("discovery-keepalive-timeout", "6s", Duration(nowhere), "Keepalive timeout of discovery."),
    tuning("discovery-insecure-transport", "true", Bool(nowhere), "Use discovery without TLS."),
    tuning(
        "discovery-insecure-skip-tls-verify",
        "false",
        Bool(nowhere),
        "Do not verify the discovery service.",
    ),
    tuning("discovery-cert", "", Text(nowhere), "Certificate for the discovery service."),
    tuning("discovery-key", "", Text(nowhere), "Key for the discovery service."),
    tuning("discovery-cacert", "", Text(nowhere), "CA of the discovery service."),
    tuning("discovery-user", "", Text(nowhere), "User at the discovery service."),
    tuning("discovery-password", "", Text(nowhere), "Password at the discovery service."),
];
