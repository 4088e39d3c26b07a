//! Entries about logs, features, unsafe switches, and what kvist has for itself.

use super::Kind::{Any, Bool, Choice, Duration, HumanDuration, Int, Text, Uint, Uint32, Urls};
use super::{Effect, Flag, flag, nowhere, tuning};

/// What can be seen from outside.
pub(super) const MONITORING: &[Flag] = &[
    flag(
        "logger",
        "zap",
        Text(|d, v| d.log.logger = v),
        "Kind of log; only zap, which is what etcd calls its own.",
    ),
    flag(
        "log-level",
        "info",
        Text(|d, v| d.log.level = v),
        "Least severe line: debug, info, warn, error, dpanic, panic or fatal.",
    ),
    flag("log-format", "json", Text(|d, v| d.log.format = v), "Shape of log lines: json or console."),
    flag(
        "log-outputs",
        "default",
        Text(|d, v| d.log.outputs = v),
        "Where log lines go: default, stderr, stdout, systemd/journal or paths, separated by commas.",
    ),
    flag(
        "enable-log-rotation",
        "false",
        Bool(|d, v| d.log.rotate = v),
        "Begin a new log file when one is full; needs a single path in log-outputs.",
    ),
    flag(
        "log-rotation-config-json",
        ROTATION,
        Text(|d, v| d.log.rotation = v),
        "When a log file is full (maxsize, in MiB), and which old ones go (maxage, in days; maxbackups) or are compressed (compress).",
    ),
    flag(
        "listen-metrics-urls",
        "",
        Urls(|d, v| d.listen_metrics_urls = v),
        "Comma-separated URLs to listen on for metrics and health only.",
    ),
    flag(
        "metrics",
        "basic",
        Text(|d, v| d.monitoring.metrics = v),
        "Detail of the metrics: basic, or extensive, which has the time of each kind of call.",
    ),
    tuning("enable-pprof", "false", Bool(|d, v| d.pprof = v), "Serve profiles under /debug/pprof/."),
    flag(
        "warning-apply-duration",
        "100ms",
        Duration(|d, v| d.slow.apply = v),
        "Applying an entry for longer is logged.",
    ),
    flag(
        "warning-unary-request-duration",
        "300ms",
        Duration(|d, v| d.slow.unary = v),
        "Answering a request for longer is logged.",
    ),
    flag(
        "enable-distributed-tracing",
        "false",
        Bool(|d, v| d.monitoring.tracing = v),
        "Send traces to a collector, by OpenTelemetry's protocol over gRPC.",
    ),
    flag(
        "distributed-tracing-address",
        "localhost:4317",
        Text(|d, v| d.monitoring.address = v),
        "Host and port of the collector.",
    ),
    flag(
        "distributed-tracing-service-name",
        "etcd",
        Text(|d, v| d.monitoring.service = v),
        "Name of the service in traces; the same for all members.",
    ),
    flag(
        "distributed-tracing-instance-id",
        "",
        Text(|d, v| d.monitoring.instance = v),
        "Id of this member in traces.",
    ),
    flag(
        "distributed-tracing-sampling-rate",
        "0",
        Int(|d, v| d.monitoring.rate = v),
        "Traces that are kept of a million that begin here; clients decide about theirs.",
    ),
];

const ROTATION: &str =
    r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#;

/// What the server does by itself.
pub(super) const FEATURES: &[Flag] = &[
    flag(
        "auto-compaction-mode",
        "periodic",
        Text(|d, v| d.auto_compaction_mode = v),
        "How auto-compaction-retention is meant: periodic (time) or revision (number).",
    ),
    flag(
        "auto-compaction-retention",
        "0",
        Text(|d, v| d.auto_compaction_retention = v),
        "History that is kept, such as 30m or 1000; a bare number is hours in periodic mode; 0 keeps all.",
    ),
    flag(
        "compaction-batch-limit",
        "0",
        Uint(|d, v| d.compaction.batch_limit = v),
        "Revisions removed in one step of a compaction; 0 is 1000.",
    ),
    flag(
        "compaction-sleep-interval",
        "0",
        Duration(|d, v| d.compaction.sleep_interval = v),
        "Pause between two steps of a compaction; 0 is 10ms.",
    ),
    flag(
        "watch-progress-notify-interval",
        "0",
        Duration(|d, v| d.watch_progress_interval = v),
        "How often an idle watcher hears of progress; 0 is 10m.",
    ),
    flag(
        "corrupt-check-time",
        "0s",
        Duration(|d, v| d.corrupt_check_interval = v),
        "Time between two checks for corruption; 0 is never.",
    ),
    flag(
        "compact-hash-check-time",
        "1m",
        Duration(|d, v| d.compact_hash_check_time = v),
        "Time between two checks of compaction hashes; needs the gate CompactHashCheck.",
    ),
    tuning(
        "downgrade-check-time",
        "5s",
        Duration(nowhere),
        "Time between two looks at the state of a downgrade.",
    ),
    tuning(
        "v2-deprecation",
        "write-only",
        Choice(&["write-only", "write-only-skip-check", "write-only-drop-data", "gone"], nowhere),
        "Phase of the end of etcd's v2 store.",
    ),
];

/// What may lose data.
pub(super) const UNSAFE: &[Flag] = &[
    flag(
        "force-new-cluster",
        "false",
        Bool(|d, v| d.force_new_cluster = v),
        "Make a cluster of one from the data of a member whose cluster is lost.",
    ),
    flag(
        "unsafe-no-fsync",
        "false",
        Bool(|d, v| d.storage.fsync = !v),
        "Do not wait for the disk; a crash of the machine then loses data.",
    ),
];

/// What etcd does not have.
pub(super) const OWN: &[Flag] = &[
    flag(
        "shutdown-grace-period",
        "5s",
        HumanDuration(|d, v| d.shutdown_grace_period = v),
        "How long requests in hand may take to finish after SIGTERM or SIGINT, such as '5s' or '1min 30s'.",
    ),
    flag(
        "peer-transport",
        "native",
        Choice(&["native", "wolf"], |d, v| d.peer_transport.kind = v),
        "How this member calls others: native, or wolf, which people can read. All members answer both.",
    ),
    flag(
        "wolf-raft-code-base",
        "0",
        Uint32(|d, v| d.peer_transport.code_base = v),
        "Number added to the error codes of wolf.raft: 0, or 7000 for old clients.",
    ),
    flag(
        "peer-gzip",
        "false",
        Bool(|d, v| d.peer_transport.gzip = v),
        "Compress what goes to other members by wolf.raft; what comes may always be compressed.",
    ),
    flag(
        "wait-for-bootstrap",
        "false",
        Bool(|d, v| d.wait_for_bootstrap = v),
        "Do not begin a new cluster by oneself, but wait for the call Bootstrap of wolf.raft.",
    ),
    flag(
        "protocols",
        "etcd,rfc,d-engine,oxia",
        Text(|d, v| d.protocols.names = v),
        "What clients may speak on the client port, comma separated; etcd is always among them.",
    ),
    flag(
        "oxia-shards",
        "1",
        Uint32(|d, v| d.protocols.oxia_shards = v),
        "Shards that Oxia's clients are told of; the same on all members, and never changed.",
    ),
    flag(
        "rfc-errors",
        "header",
        Choice(&["header", "status"], |d, v| d.protocols.rfc_errors = v),
        "Where the RFC's protocol says why a request failed: in the header of the answer, or as a status of gRPC.",
    ),
];

/// What etcd ignores without a word.
pub(super) const IGNORED: &[Flag] = &[
    ignored("cluster-active-size"),
    ignored("cluster-remove-delay"),
    ignored("cluster-sync-interval"),
    ignored("config"),
    ignored("force"),
    ignored("max-result-buffer"),
    ignored("max-retry-attempts"),
    ignored("peer-heartbeat-interval"),
    ignored("peer-election-timeout"),
    ignored("retry-interval"),
    ignored("snapshot"),
    ignored("v"),
    ignored("vv"),
];

const fn ignored(name: &'static str) -> Flag {
    Flag { name, default: "", kind: Any, effect: Effect::Ignored, help: "No effect." }
}
