//! Every family that is not about gRPC calls or other members, by area. To add one: a field, its line in `new`, a row in `docs/metrics.md`.

use super::doubling;
use super::peers::Peers;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};
use std::sync::LazyLock;

/// Everything that is shown.
pub(super) static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::new);

/// All of them. The first use registers them, so that each is shown from the start.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// See [`METRICS`].
pub struct Metrics {
    /// Log and state files.
    pub disk: Disk,
    /// Requests and consensus.
    pub server: Server,
    /// Other members.
    pub peers: Peers,
    /// The store.
    pub mvcc: Mvcc,
    /// Watchers.
    pub watch: Watch,
    /// Leases.
    pub lease: Lease,
    /// What etcd does not have.
    pub own: Own,
}

impl Metrics {
    fn new() -> Metrics {
        let process = prometheus::process_collector::ProcessCollector::for_self();
        REGISTRY.register(Box::new(process)).expect("each family is registered once");
        Metrics {
            disk: Disk::new(),
            server: Server::new(),
            peers: Peers::new(),
            mvcc: Mvcc::new(),
            watch: Watch::new(),
            lease: Lease::new(),
            own: Own::new(),
        }
    }
}

fn counter(name: &str, help: &str) -> IntCounter {
    super::register(IntCounter::new(name, help).expect("a valid name"))
}

pub(super) fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    super::register(IntCounterVec::new(Opts::new(name, help), labels).expect("valid names"))
}

fn gauge(name: &str, help: &str) -> IntGauge {
    super::register(IntGauge::new(name, help).expect("a valid name"))
}

fn float_gauge(name: &str, help: &str) -> Gauge {
    super::register(Gauge::new(name, help).expect("a valid name"))
}

pub(super) fn gauges(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    super::register(IntGaugeVec::new(Opts::new(name, help), labels).expect("valid names"))
}

fn histogram(name: &str, help: &str, buckets: Vec<f64>) -> Histogram {
    let options = HistogramOpts::new(name, help).buckets(buckets);
    super::register(Histogram::with_opts(options).expect("a valid name"))
}

pub(super) fn histograms(name: &str, help: &str, buckets: Vec<f64>, labels: &[&str]) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(buckets);
    super::register(HistogramVec::new(options, labels).expect("valid names"))
}

/// Log and state files.
pub struct Disk {
    /// Seconds of each fdatasync of the raft log.
    pub wal_fsync: Histogram,
    /// Seconds of each write to the raft log.
    pub wal_write: Histogram,
    /// Bytes written to the raft log.
    pub wal_write_bytes: IntGauge,
    /// Seconds of each durable commit of the state.
    pub backend_commit: Histogram,
    /// The part of it that is writing and syncing.
    pub backend_commit_write: Histogram,
    /// Seconds of each snapshot for a client.
    pub backend_snapshot: Histogram,
    /// Seconds of each defragmentation.
    pub defrag: Histogram,
    /// 1 while one is under way.
    pub defrag_inflight: IntGauge,
}

impl Disk {
    fn new() -> Disk {
        let short = || doubling(0.001, 14);
        Disk {
            wal_fsync: histogram(
                "etcd_disk_wal_fsync_duration_seconds",
                "The latency distributions of fsync called by WAL.",
                short(),
            ),
            wal_write: histogram(
                "etcd_disk_wal_write_duration_seconds",
                "The latency distributions of write called by WAL.",
                short(),
            ),
            wal_write_bytes: gauge(
                "etcd_disk_wal_write_bytes_total",
                "Total number of bytes written in WAL.",
            ),
            backend_commit: histogram(
                "etcd_disk_backend_commit_duration_seconds",
                "The latency distributions of commit called by backend.",
                short(),
            ),
            backend_commit_write: histogram(
                "etcd_debugging_disk_backend_commit_write_duration_seconds",
                "The latency distributions of writing and syncing in a commit of the backend.",
                short(),
            ),
            backend_snapshot: histogram(
                "etcd_disk_backend_snapshot_duration_seconds",
                "The latency distribution of backend snapshots.",
                doubling(0.01, 17),
            ),
            defrag: histogram(
                "etcd_disk_backend_defrag_duration_seconds",
                "The latency distribution of backend defragmentation.",
                doubling(0.1, 13),
            ),
            defrag_inflight: gauge(
                "etcd_disk_defrag_inflight",
                "Whether or not defrag is active on the member. 1 means active, 0 means not.",
            ),
        }
    }
}

/// Requests and consensus.
pub struct Server {
    /// 1 while there is a leader.
    pub has_leader: IntGauge,
    /// 1 while that is this member.
    pub is_leader: IntGauge,
    /// 1 for a member that only receives the log.
    pub is_learner: IntGauge,
    /// Leaders that this member has seen come.
    pub leader_changes: IntCounter,
    /// Proposals that came to nothing.
    pub proposals_failed: IntCounter,
    /// Index of the last committed entry.
    pub proposals_committed: IntGauge,
    /// Index of the last applied entry.
    pub proposals_applied: IntGauge,
    /// Proposals without an outcome yet.
    pub proposals_pending: IntGauge,
    /// Bytes of data allowed.
    pub quota: IntGauge,
    /// By type of call and version that the client names.
    pub client_requests: IntCounterVec,
    /// From proposal to outcome, by type and success.
    pub request_duration: HistogramVec,
    /// Inside the applier, by version ("v3"), operation and success.
    pub apply_duration: HistogramVec,
    /// Reads, by success.
    pub range_duration: HistogramVec,
    /// Entries whose application took longer than the warning limit.
    pub slow_apply: IntCounter,
    /// Read indexes that took too long.
    pub slow_read_indexes: IntCounter,
    /// Read indexes that came to nothing.
    pub read_indexes_failed: IntCounter,
    /// Heartbeats that could not be sent.
    pub heartbeat_send_failures: IntCounter,
    /// Answers of `/health`.
    pub health_success: IntCounter,
    /// See [`Server::health_success`].
    pub health_failures: IntCounter,
    /// Last result of each check of `/livez` and `/readyz`.
    pub healthcheck: IntGaugeVec,
    /// Their number, by type, name and status.
    pub healthchecks: IntCounterVec,
    /// 1, labelled with the member's id.
    pub id: IntGaugeVec,
    /// 1, labelled with the version of the API.
    pub version: IntGaugeVec,
    /// 1, labelled with the version of the cluster.
    pub cluster_version: IntGaugeVec,
    /// 1 for each feature gate that is on, by name and stage.
    pub feature_enabled: IntGaugeVec,
    /// Promotions of learners, by reason.
    pub learner_promote_failures: IntCounterVec,
    /// Promotions of learners.
    pub learner_promote_successes: IntCounter,
    /// 1 while a snapshot of a peer is put in place.
    pub snapshot_apply_in_progress: IntGauge,
    /// 1 for each alarm, by member and type.
    pub alarms: IntGaugeVec,
    /// Revision of users and roles.
    pub auth_revision: IntGauge,
    /// Members known, by id of this one and of the other.
    pub known_peers: IntGaugeVec,
    /// Descriptors in use.
    pub fd_used: IntGauge,
    /// Descriptors that may be used.
    pub fd_limit: IntGauge,
}

impl Server {
    fn new() -> Server {
        let server = Server {
            has_leader: gauge(
                "etcd_server_has_leader",
                "Whether or not a leader exists. 1 is existence, 0 is not.",
            ),
            is_leader: gauge(
                "etcd_server_is_leader",
                "Whether or not this member is a leader. 1 if is, 0 otherwise.",
            ),
            is_learner: gauge(
                "etcd_server_is_learner",
                "Whether or not this member is a learner. 1 if is, 0 otherwise.",
            ),
            leader_changes: counter(
                "etcd_server_leader_changes_seen_total",
                "The number of leader changes seen.",
            ),
            proposals_failed: counter(
                "etcd_server_proposals_failed_total",
                "The total number of failed proposals seen.",
            ),
            proposals_committed: gauge(
                "etcd_server_proposals_committed_total",
                "The total number of consensus proposals committed.",
            ),
            proposals_applied: gauge(
                "etcd_server_proposals_applied_total",
                "The total number of consensus proposals applied.",
            ),
            proposals_pending: gauge(
                "etcd_server_proposals_pending",
                "The current number of pending proposals to commit.",
            ),
            quota: gauge("etcd_server_quota_backend_bytes", "Current backend storage quota size in bytes."),
            client_requests: counters(
                "etcd_server_client_requests_total",
                "The total number of client requests per client version.",
                &["type", "client_api_version"],
            ),
            request_duration: histograms(
                "etcd_server_request_duration_seconds",
                "Response latency distribution in seconds for each type.",
                doubling(0.001, 14),
                &["type", "success"],
            ),
            apply_duration: histograms(
                "etcd_server_apply_duration_seconds",
                "The latency distributions of applying entries.",
                doubling(0.0001, 20),
                &["version", "op", "success"],
            ),
            range_duration: histograms(
                "etcd_server_range_duration_seconds",
                "The latency distributions of reads of ranges.",
                doubling(0.0001, 20),
                &["success"],
            ),
            slow_apply: counter(
                "etcd_server_slow_apply_total",
                "The total number of slow apply requests (likely overloaded from slow disk).",
            ),
            slow_read_indexes: counter(
                "etcd_server_slow_read_indexes_total",
                "The total number of pending read indexes not in sync with leader's or timed out read index requests.",
            ),
            read_indexes_failed: counter(
                "etcd_server_read_indexes_failed_total",
                "The total number of failed read indexes seen.",
            ),
            heartbeat_send_failures: counter(
                "etcd_server_heartbeat_send_failures_total",
                "The total number of leader heartbeat send failures (likely overloaded from slow disk).",
            ),
            health_success: counter(
                "etcd_server_health_success",
                "The total number of successful health checks",
            ),
            health_failures: counter(
                "etcd_server_health_failures",
                "The total number of failed health checks",
            ),
            healthcheck: gauges(
                "etcd_server_healthcheck",
                "The result of each kind of healthcheck.",
                &["type", "name"],
            ),
            healthchecks: counters(
                "etcd_server_healthchecks_total",
                "The total number of each kind of healthcheck.",
                &["type", "name", "status"],
            ),
            id: gauges(
                "etcd_server_id",
                "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.",
                &["server_id"],
            ),
            version: gauges(
                "etcd_server_version",
                "Which version is running. 1 for 'server_version' label with current version.",
                &["server_version"],
            ),
            cluster_version: gauges(
                "etcd_cluster_version",
                "Which version is running. 1 for 'cluster_version' label with current cluster version",
                &["cluster_version"],
            ),
            feature_enabled: gauges(
                "etcd_server_feature_enabled",
                "Whether or not a feature is enabled. 1 is enabled, 0 is not.",
                &["name", "stage"],
            ),
            learner_promote_failures: counters(
                "etcd_server_learner_promote_failures",
                "The total number of failed learner promotions (likely learner not ready) while this member is leader.",
                &["Reason"],
            ),
            learner_promote_successes: counter(
                "etcd_server_learner_promote_successes",
                "The total number of successful learner promotions while this member is leader.",
            ),
            snapshot_apply_in_progress: gauge(
                "etcd_server_snapshot_apply_in_progress_total",
                "1 if the server is applying the incoming snapshot. 0 if none.",
            ),
            alarms: gauges(
                "etcd_debugging_server_alarms",
                "Alarms for every member in cluster. 1 for 'server_id' label with current ID. 2 for 'alarm_type' label \
                 with type of this alarm",
                &["server_id", "alarm_type"],
            ),
            auth_revision: gauge("etcd_debugging_auth_revision", "The current revision of auth store."),
            known_peers: gauges(
                "etcd_network_known_peers",
                "The current number of known peers.",
                &["Local", "Remote"],
            ),
            fd_used: gauge("os_fd_used", "The number of used file descriptors."),
            fd_limit: gauge("os_fd_limit", "The file descriptor limit."),
        };
        server.range_duration.with_label_values(&["true"]);
        server
    }
}

/// The store.
pub struct Mvcc {
    /// Reads.
    pub ranges: IntCounter,
    /// Writes of one key, inside transactions, too.
    pub puts: IntCounter,
    /// Removals of ranges, and of keys with their lease.
    pub deletes: IntCounter,
    /// Transactions.
    pub txns: IntCounter,
    /// Bytes of the file.
    pub db_bytes: IntGauge,
    /// Bytes of it in use.
    pub db_bytes_in_use: IntGauge,
    /// Read transactions of the file.
    pub open_reads: IntGauge,
    /// Seconds of each `Hash`.
    pub hash: Histogram,
    /// Seconds of each `HashKV`.
    pub hash_rev: Histogram,
    /// Keys.
    pub keys: IntGauge,
    /// Current revision.
    pub revision: IntGauge,
    /// Compacted revision.
    pub compacted: IntGauge,
    /// Bytes of keys and values that were put.
    pub put_bytes: IntGauge,
    /// When a removal of compacted history ended last, Unix seconds.
    pub compaction_last: Gauge,
    /// Versions removed.
    pub compaction_keys: IntCounter,
    /// Milliseconds of each step of removal: how long the flush thread does nothing else.
    pub compaction_pause: Histogram,
    /// Milliseconds from a compaction until its history was gone.
    pub compaction_total: Histogram,
}

impl Mvcc {
    fn new() -> Mvcc {
        Mvcc {
            ranges: counter("etcd_mvcc_range_total", "Total number of ranges seen by this member."),
            puts: counter("etcd_mvcc_put_total", "Total number of puts seen by this member."),
            deletes: counter("etcd_mvcc_delete_total", "Total number of deletes seen by this member."),
            txns: counter("etcd_mvcc_txn_total", "Total number of txns seen by this member."),
            db_bytes: gauge(
                "etcd_mvcc_db_total_size_in_bytes",
                "Total size of the underlying database physically allocated in bytes.",
            ),
            db_bytes_in_use: gauge(
                "etcd_mvcc_db_total_size_in_use_in_bytes",
                "Total size of the underlying database logically in use in bytes.",
            ),
            open_reads: gauge(
                "etcd_mvcc_db_open_read_transactions",
                "The number of currently open read transactions",
            ),
            hash: histogram(
                "etcd_mvcc_hash_duration_seconds",
                "The latency distribution of storage hash operation.",
                doubling(0.01, 15),
            ),
            hash_rev: histogram(
                "etcd_mvcc_hash_rev_duration_seconds",
                "The latency distribution of storage hash by revision operation.",
                doubling(0.01, 15),
            ),
            keys: gauge("etcd_debugging_mvcc_keys_total", "Total number of keys."),
            revision: gauge("etcd_debugging_mvcc_current_revision", "The current revision of store."),
            compacted: gauge(
                "etcd_debugging_mvcc_compact_revision",
                "The revision of the last compaction in store.",
            ),
            put_bytes: gauge(
                "etcd_debugging_mvcc_total_put_size_in_bytes",
                "The total size of put kv pairs seen by this member.",
            ),
            compaction_last: float_gauge(
                "etcd_debugging_mvcc_db_compaction_last",
                "The unix time of the last db compaction. Resets to 0 on start.",
            ),
            compaction_keys: counter(
                "etcd_debugging_mvcc_db_compaction_keys_total",
                "Total number of db keys compacted.",
            ),
            compaction_pause: histogram(
                "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
                "Bucketed histogram of db compaction pause duration.",
                doubling(1.0, 13),
            ),
            compaction_total: histogram(
                "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
                "Bucketed histogram of db compaction total duration.",
                doubling(100.0, 14),
            ),
        }
    }
}

/// Watchers.
pub struct Watch {
    /// Streams.
    pub streams: IntGauge,
    /// Watchers on them.
    pub watchers: IntGauge,
    /// Watchers that are behind.
    pub slow_watchers: IntGauge,
    /// Events that wait to be sent.
    pub pending_events: IntGauge,
    /// Events handed to streams.
    pub events: IntCounter,
}

impl Watch {
    fn new() -> Watch {
        Watch {
            streams: gauge("etcd_debugging_mvcc_watch_stream_total", "Total number of watch streams."),
            watchers: gauge("etcd_debugging_mvcc_watcher_total", "Total number of watchers."),
            slow_watchers: gauge(
                "etcd_debugging_mvcc_slow_watcher_total",
                "Total number of unsynced slow watchers.",
            ),
            pending_events: gauge(
                "etcd_debugging_mvcc_pending_events_total",
                "Total number of pending events to be sent.",
            ),
            events: counter(
                "etcd_debugging_mvcc_events_total",
                "Total number of events sent by this member.",
            ),
        }
    }
}

/// Leases.
pub struct Lease {
    /// Granted.
    pub granted: IntCounter,
    /// Revoked, expired ones included.
    pub revoked: IntCounter,
    /// Renewed.
    pub renewed: IntCounter,
    /// Seconds that leases were granted for.
    pub ttl: Histogram,
    /// Expired.
    pub expired: IntCounter,
}

impl Lease {
    fn new() -> Lease {
        Lease {
            granted: counter("etcd_debugging_lease_granted_total", "The total number of granted leases."),
            revoked: counter("etcd_debugging_lease_revoked_total", "The total number of revoked leases."),
            renewed: counter(
                "etcd_debugging_lease_renewed_total",
                "The number of renewed leases seen by the leader.",
            ),
            ttl: histogram(
                "etcd_debugging_lease_ttl_total",
                "Bucketed histogram of lease TTLs.",
                doubling(1.0, 24),
            ),
            expired: counter(
                "etcd_debugging_server_lease_expired_total",
                "The total number of expired leases.",
            ),
        }
    }
}

/// What etcd does not have.
pub struct Own {
    /// Leases there are.
    pub leases: IntGauge,
    /// Bytes of changes in memory.
    pub memtable_bytes: IntGauge,
    /// Revision up to which history has been removed.
    pub removed_revision: IntGauge,
    /// Pinned reads.
    pub pins: IntGauge,
    /// Seconds of each phase of a write.
    pub write_phases: HistogramVec,
    /// 1, labelled with versions.
    pub build: IntGaugeVec,
}

impl Own {
    fn new() -> Own {
        Own {
            leases: gauge("kvist_leases", "Leases that exist now."),
            memtable_bytes: gauge(
                "kvist_memtable_bytes",
                "Bytes of changes that are in memory and in the raft log, but not yet in the state file.",
            ),
            removed_revision: gauge(
                "kvist_removed_revision",
                "Revision up to which compacted history has been removed from the state file.",
            ),
            pins: gauge(
                "kvist_pinned_reads",
                "Long reads that hold back the removal of history: ranges, hashes, snapshots.",
            ),
            write_phases: histograms(
                "kvist_write_phase_seconds",
                "Seconds of each phase of one write in 16: queue, fsync, raft, apply, send.",
                doubling(0.000_05, 16),
                &["phase"],
            ),
            build: gauges(
                "kvist_build_info",
                "1, labelled with the version of kvist and of the API.",
                &["version", "etcd"],
            ),
        }
    }
}
