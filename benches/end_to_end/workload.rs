//! The list of workloads, and the goals that a release of kvist is held to. Pure data, read by `main`, `options` and
//! `report`. To add a workload, add a row to [`ALL`]; its figures find their way into the report by themselves.

use std::time::Duration;

use crate::access::Security;

/// What the clients of a workload do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Put a random key.
    Put,
    /// Read a random key, linearizable.
    Get,
    /// Read a prefix of [`RANGE_KEYS`] keys, linearizable.
    Range,
    /// Put at a fixed rate while [`WATCHERS`] watch every key.
    Watch,
    /// Fill, stop, start; fill stands, kill, start.
    Restart,
}

/// Keys that one call of the range workload returns.
pub const RANGE_KEYS: u64 = 10_000;
/// Far more often than any monitor does, so that an effect would show.
pub const SCRAPE_INTERVAL: Duration = Duration::from_millis(100);
/// Streams of the watch workload, one watcher on each.
pub const WATCHERS: usize = 100;

/// One row of the benchmark.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    pub name: &'static str,
    pub kind: Kind,
    /// Requests that the closed loop keeps in flight (for watch: the most it may have).
    pub in_flight: usize,
    pub connections: usize,
    pub security: Security,
    /// Whether a monitor reads `/metrics` every [`SCRAPE_INTERVAL`] meanwhile.
    pub is_scraped: bool,
}

impl Workload {
    const fn new(name: &'static str, kind: Kind, in_flight: usize, connections: usize) -> Workload {
        Workload { name, kind, in_flight, connections, security: Security::Open, is_scraped: false }
    }

    const fn with(self, security: Security) -> Workload {
        Workload { security, ..self }
    }

    const fn scraped(self) -> Workload {
        Workload { is_scraped: true, ..self }
    }
}

/// Every workload, in the order of the report.
pub const ALL: &[Workload] = &[
    Workload::new("put-1", Kind::Put, 1, 1),
    Workload::new("put-64", Kind::Put, 64, 8),
    Workload::new("put-1000", Kind::Put, 1000, 16),
    Workload::new("get-1", Kind::Get, 1, 1),
    Workload::new("get-64", Kind::Get, 64, 8),
    Workload::new("range-10k", Kind::Range, 4, 4),
    Workload::new("watch-100", Kind::Watch, 16, 8),
    Workload::new("put-64-tls", Kind::Put, 64, 8).with(Security::Tls),
    Workload::new("put-64-users", Kind::Put, 64, 8).with(Security::Users),
    Workload::new("get-64-tls", Kind::Get, 64, 8).with(Security::Tls),
    Workload::new("get-64-users", Kind::Get, 64, 8).with(Security::Users),
    Workload::new("put-64-scraped", Kind::Put, 64, 8).scraped(),
    Workload::new("restart-1m", Kind::Restart, 1000, 16),
];

/// Workloads that differ in one thing only: the one with it, the one without it. The report tells what it costs.
pub const PAIRS: &[(&str, &str)] = &[
    ("put-64-tls", "put-64"),
    ("put-64-users", "put-64"),
    ("get-64-tls", "get-64"),
    ("get-64-users", "get-64"),
    ("put-64-scraped", "put-64"),
];

/// Bound on the ratio kvist / etcd of one figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    /// Whether a ratio reaches the goal.
    pub fn is_met(self, ratio: f64) -> bool {
        match self {
            Bound::AtLeast(bound) => ratio >= bound,
            Bound::AtMost(bound) => ratio <= bound,
        }
    }
}

/// Goals: workload, figure, bound.
pub const GOALS: &[(&str, &str, Bound)] = &[
    ("put-1", OPS_PER_S, Bound::AtLeast(1.0)),
    ("put-64", OPS_PER_S, Bound::AtLeast(1.3)),
    ("put-64", CPU_US_PER_OP, Bound::AtMost(0.7)),
    ("put-1000", OPS_PER_S, Bound::AtLeast(1.3)),
    ("put-1000", CPU_US_PER_OP, Bound::AtMost(0.7)),
    ("get-1", CPU_US_PER_OP, Bound::AtMost(0.7)),
    ("get-64", CPU_US_PER_OP, Bound::AtMost(0.7)),
    ("range-10k", CPU_US_PER_OP, Bound::AtMost(0.4)),
    ("watch-100", CPU_US_PER_EVENT, Bound::AtMost(0.33)),
    ("restart-1m", RESTART_TERM_MS, Bound::AtMost(0.15)),
    ("restart-1m", RESTART_KILL_MS, Bound::AtMost(0.15)),
];

pub const OPS_PER_S: &str = "ops/s";
pub const P50_US: &str = "p50 (us)";
pub const P99_US: &str = "p99 (us)";
/// User and system time of all threads of the server.
pub const CPU_US_PER_OP: &str = "server CPU per op (us)";
/// The load tool's own cost: shows when it, not the server, was the limit.
pub const CLIENT_US_PER_OP: &str = "client CPU per op (us)";
pub const WRITTEN_PER_OP: &str = "written per op (B)";
/// Anonymous memory: without the pages of mapped files, which the kernel can drop at any time.
pub const ANON_MIB: &str = "anonymous memory (MiB)";
/// Time of one scrape, with a connection of its own.
pub const SCRAPE_P50_MS: &str = "scrape p50 (ms)";
pub const SCRAPE_MAX_MS: &str = "scrape, slowest (ms)";
pub const ERRORS: &str = "errors";
pub const EVENTS_PER_S: &str = "events/s";
/// Without the share that the puts cost when nobody watches.
pub const CPU_US_PER_EVENT: &str = "server CPU per event (us)";
pub const CPU_US_PER_EVENT_RAW: &str = "server CPU per event, puts included (us)";
pub const PUT_CPU_US: &str = "server CPU per put, nobody watching (us)";
/// From process start to the first linearizable read, after SIGTERM and after SIGKILL.
pub const RESTART_TERM_MS: &str = "restart after SIGTERM (ms)";
pub const RESTART_KILL_MS: &str = "restart after SIGKILL (ms)";
pub const STOP_MS: &str = "stop on SIGTERM (ms)";
pub const RESTART_ANON_MIB: &str = "anonymous memory after restart (MiB)";
pub const DISK_MIB: &str = "data directory (MiB)";

/// Every figure in the order of the report, with its decimals.
pub const FIGURES: &[(&str, usize)] = &[
    (OPS_PER_S, 0),
    (P50_US, 0),
    (P99_US, 0),
    (CPU_US_PER_OP, 1),
    (EVENTS_PER_S, 0),
    (CPU_US_PER_EVENT, 2),
    (CPU_US_PER_EVENT_RAW, 2),
    (PUT_CPU_US, 1),
    (RESTART_TERM_MS, 0),
    (RESTART_KILL_MS, 0),
    (STOP_MS, 0),
    (WRITTEN_PER_OP, 0),
    (ANON_MIB, 1),
    (RESTART_ANON_MIB, 1),
    (DISK_MIB, 1),
    (CLIENT_US_PER_OP, 1),
    (SCRAPE_P50_MS, 2),
    (SCRAPE_MAX_MS, 2),
    (ERRORS, 0),
];
