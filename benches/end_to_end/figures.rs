//! The names of figures, and how values of several rounds are put together. A figure that the load tool invents keeps its
//! name and comes after these. Used by `measure`, `scenario` and `report`.

use std::collections::BTreeMap;

use serde::Serialize;

/// Named figures of one run.
pub type Figures = BTreeMap<String, f64>;

pub const OPS_PER_S: &str = "ops/s";
pub const P50: &str = "p50 (us)";
pub const P99: &str = "p99 (us)";
pub const P999: &str = "p99.9 (us)";
pub const SLOWEST: &str = "slowest (us)";
/// User and system time of all threads of all members.
pub const CPU_PER_OP: &str = "server CPU per op (us)";
/// The load tool's own cost: shows when it, not the server, was the limit.
pub const CLIENT_PER_OP: &str = "client CPU per op (us)";
pub const WRITTEN_PER_OP: &str = "written per op (B)";
/// Anonymous memory: without the pages of mapped files, which the kernel can drop at any time.
pub const ANON_MIB: &str = "anonymous memory (MiB)";
pub const TOTAL_MIB: &str = "memory with mapped files (MiB)";
pub const RATE: &str = "rate asked for (1/s)";
/// Without the share that the puts cost when nobody watches.
pub const CPU_PER_EVENT: &str = "server CPU per event (us)";
pub const CPU_PER_EVENT_RAW: &str = "server CPU per event, puts included (us)";
pub const CPU_PER_PUT: &str = "server CPU per put, nobody watching (us)";
/// From process start to the first linearizable read, after SIGTERM and after SIGKILL.
pub const RESTART_TERM: &str = "restart after SIGTERM (ms)";
pub const RESTART_KILL: &str = "restart after SIGKILL (ms)";
pub const STOP: &str = "stop on SIGTERM (ms)";
pub const RESTART_ANON_MIB: &str = "anonymous memory after restart (MiB)";
pub const DISK_MIB: &str = "data directory (MiB)";
pub const UPKEEP_S: &str = "time it took (s)";
pub const LONGEST_PUT: &str = "longest put during it (ms)";
pub const LONGEST_PUT_BEFORE: &str = "longest put before it, in the same time (ms)";
pub const SCRAPE_P50: &str = "scrape p50 (ms)";
pub const SCRAPE_MAX: &str = "scrape, slowest (ms)";
pub const FAILOVER: &str = "until a put is acknowledged again (ms)";
pub const FAILOVER_LONGEST: &str = "until a put is acknowledged again, longest (ms)";
pub const TRANSFER: &str = "time of a transfer (ms)";
pub const CATCH_UP_S: &str = "time until caught up (s)";
pub const CATCH_UP_P99: &str = "p99 meanwhile / before";
pub const ERRORS: &str = "errors";

/// Figures in the order of the report, with their decimals, and whether they belong to the summary; the others explain
/// them. Names of the load tool's own have underscores.
const KNOWN: &[(&str, usize, bool)] = &[
    (RATE, 0, true),
    (OPS_PER_S, 0, true),
    (P50, 0, true),
    (P99, 0, true),
    (P999, 0, false),
    (SLOWEST, 0, false),
    ("bytes_per_s", 0, true),
    (CPU_PER_OP, 1, true),
    (CPU_PER_EVENT, 2, true),
    (CPU_PER_EVENT_RAW, 2, false),
    (CPU_PER_PUT, 1, false),
    (RESTART_TERM, 0, true),
    (RESTART_KILL, 0, true),
    (STOP, 0, true),
    (UPKEEP_S, 2, true),
    (LONGEST_PUT, 1, true),
    (LONGEST_PUT_BEFORE, 1, true),
    (WRITTEN_PER_OP, 0, true),
    (ANON_MIB, 1, true),
    (TOTAL_MIB, 1, false),
    (RESTART_ANON_MIB, 1, true),
    (DISK_MIB, 1, true),
    (CLIENT_PER_OP, 1, false),
    (FAILOVER, 0, true),
    (FAILOVER_LONGEST, 0, true),
    (TRANSFER, 1, true),
    (CATCH_UP_S, 1, true),
    (CATCH_UP_P99, 2, true),
    (SCRAPE_P50, 2, true),
    (SCRAPE_MAX, 2, true),
    (ERRORS, 0, true),
];

/// The known names, and then those of `runs` that are not known, in order.
pub fn names<'a>(runs: impl Iterator<Item = &'a Figures>) -> Vec<String> {
    let is_known = |name: &str| KNOWN.iter().any(|known| known.0 == name);
    let foreign: std::collections::BTreeSet<&String> =
        runs.flat_map(BTreeMap::keys).filter(|name| !is_known(name)).collect();
    KNOWN.iter().map(|known| known.0.to_owned()).chain(foreign.into_iter().cloned()).collect()
}

/// Whether a figure belongs to the summary.
pub fn is_main(name: &str) -> bool {
    KNOWN.iter().any(|known| known.0 == name && known.2)
}

/// A figure over the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub rounds: usize,
}

impl Spread {
    /// Nothing of nothing.
    pub fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Spread { median: f64::midpoint(low, high), min, max, rounds: values.len() })
    }

    /// Median, with the extremes in brackets.
    pub fn cell(&self, figure: &str) -> String {
        let known = KNOWN.iter().find(|known| known.0 == figure).map(|known| known.1);
        let decimals = known.unwrap_or(if self.max < 100.0 { 2 } else { 0 });
        let Spread { median, min, max, .. } = self;
        if self.rounds == 1 {
            return format!("{median:.decimals$}");
        }
        format!("{median:.decimals$} ({min:.decimals$}-{max:.decimals$})")
    }
}
