//! The table of scenarios: what the load tool does, on what kind of cluster, and the goals that a release is held to.
//! Pure data. To add a scenario, add a row to [`ALL`]; its figures find their way into the report by themselves.
//! Used by `main`, `options`, `measure` and `report`.

use serde::Serialize;

use crate::access::Security;
use crate::figures::{
    ANON_MIB, CATCH_UP_P99, CPU_PER_EVENT, CPU_PER_OP, FAILOVER, LONGEST_PUT, OPS_PER_S, P50, P99,
    RESTART_KILL, RESTART_TERM,
};
use crate::kinds::SUBJECT;

/// How a scenario is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Plan {
    /// The load, for the seconds of a run.
    Load,
    /// The load, to its end: for requests that are too long for an amount of time.
    Whole,
    /// The load at this share of the reference's peak.
    Open(f64),
    /// The load, which is a watch beside `puts` a second; then what those puts cost alone is taken off.
    Fanout { puts: u32 },
    /// The load, to its end; then stop, start, crash, start.
    Restart,
    /// The load, to its end; then puts at a fixed rate, first alone and then during this piece of upkeep.
    Upkeep(Upkeep),
    /// The load, sent to those members only that do not lead.
    Followers,
    /// The leader dies, again and again: how long until a write is acknowledged.
    Failover,
    /// Puts at a fixed rate, while the leader hands over again and again.
    Transfer,
    /// A member misses the load; then puts at a fixed rate, first without it and then while it catches up.
    CatchUp,
}

/// Goals: a figure and its bound.
pub type Goals = &'static [(&'static str, Bound)];

/// Whether a scenario is for clusters of several members.
#[derive(Clone, Copy, Debug)]
pub enum Clusters {
    /// It says nothing of them.
    No,
    /// For them as well, with these goals.
    Too(Goals),
    /// For them only.
    Only(Goals),
}

/// What an operator does now and then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Upkeep {
    Compact,
    Defragment,
}

/// Bound on a figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum Bound {
    /// Of the subject's median divided by the reference's.
    RatioAtLeast(f64),
    RatioAtMost(f64),
    /// Of the subject's worst round.
    WorstAtMost(f64),
}

/// One row of the benchmark.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    pub plan: Plan,
    /// Words behind `kvist bench`. `{keys}` and `{many}` are numbers of keys, which `--quick` makes smaller.
    pub load: &'static str,
    /// Goals with one member.
    goals: Goals,
    clusters: Clusters,
    /// Flags of all servers.
    pub flags: &'static [&'static str],
    pub security: Security,
    /// Whether a monitor reads `/metrics` meanwhile.
    pub is_scraped: bool,
    /// Whether it is part of `--quick`.
    pub is_quick: bool,
    /// Whether it speaks a protocol that only the subject knows.
    is_foreign: bool,
}

impl Scenario {
    const fn new(name: &'static str, plan: Plan, load: &'static str, about: &'static str) -> Scenario {
        let (security, clusters) = (Security::Open, Clusters::No);
        let (is_scraped, is_quick, is_foreign) = (false, false, false);
        Scenario {
            name,
            about,
            plan,
            load,
            goals: &[],
            clusters,
            flags: &[],
            security,
            is_scraped,
            is_quick,
            is_foreign,
        }
    }

    const fn goals(self, goals: Goals) -> Scenario {
        Scenario { goals, ..self }
    }

    const fn in_clusters(self, goals: Goals) -> Scenario {
        Scenario { clusters: Clusters::Too(goals), ..self }
    }

    const fn only_in_clusters(self, goals: Goals) -> Scenario {
        Scenario { clusters: Clusters::Only(goals), ..self }
    }

    const fn flags(self, flags: &'static [&'static str]) -> Scenario {
        Scenario { flags, ..self }
    }

    /// Whether it can be run with so many members.
    pub fn can_run(&self, members: usize) -> bool {
        members > 1 || !matches!(self.clusters, Clusters::Only(_))
    }

    /// Whether it is run with so many members when nobody asks for it by name.
    pub fn suits(&self, members: usize) -> bool {
        self.can_run(members) && (members == 1 || !matches!(self.clusters, Clusters::No))
    }

    /// Whether servers of this kind know what it speaks.
    pub fn is_for(&self, kind: &str) -> bool {
        !self.is_foreign || kind == SUBJECT
    }

    /// The goals with so many members.
    pub fn goals_of(&self, members: usize) -> Goals {
        match self.clusters {
            _ if members == 1 => self.goals,
            Clusters::No => &[],
            Clusters::Too(goals) | Clusters::Only(goals) => goals,
        }
    }

    const fn with(self, security: Security) -> Scenario {
        Scenario { security, ..self }
    }

    const fn scraped(self) -> Scenario {
        Scenario { is_scraped: true, ..self }
    }

    const fn foreign(self) -> Scenario {
        Scenario { is_foreign: true, ..self }
    }

    const fn quick(self) -> Scenario {
        Scenario { is_quick: true, ..self }
    }
}

use Bound::{RatioAtLeast, RatioAtMost, WorstAtMost};
use Plan::{CatchUp, Failover, Fanout, Followers, Load, Open, Restart, Transfer, Whole};

const HALF_CPU: &[(&str, Bound)] = &[(CPU_PER_OP, RatioAtMost(0.5))];
const MORE_PUTS: &[(&str, Bound)] = &[(OPS_PER_S, RatioAtLeast(1.5)), (CPU_PER_OP, RatioAtMost(0.5))];
const MORE_REPLICATED: &[(&str, Bound)] = &[(OPS_PER_S, RatioAtLeast(1.5)), (CPU_PER_OP, RatioAtMost(0.6))];
const SHORT_RANGE: &[(&str, Bound)] = &[(CPU_PER_OP, RatioAtMost(0.3))];
const CHEAP_EVENTS: &[(&str, Bound)] = &[(CPU_PER_EVENT, RatioAtMost(0.3))];
/// Milliseconds.
const NO_STALL: &[(&str, Bound)] = &[(LONGEST_PUT, WorstAtMost(50.0))];

/// Every scenario, in the order of the report.
#[rustfmt::skip] // a table: one row, one scenario
pub const ALL: &[Scenario] = &[
    Scenario::new("put-1", Load, "put --clients=1 --conns=1 --key-space-size={keys}",
        "puts, one at a time").goals(&[(P50, RatioAtMost(0.8))]),
    Scenario::new("put-64", Load, "put --clients=64 --conns=8 --key-space-size={keys}",
        "puts, 64 in flight").goals(MORE_PUTS).in_clusters(MORE_REPLICATED).quick(),
    Scenario::new("put-1000", Load, "put --clients=1000 --conns=16 --key-space-size={keys}",
        "puts, 1000 in flight").goals(MORE_PUTS).in_clusters(MORE_REPLICATED),
    Scenario::new("put-open", Open(0.7), "put --clients=1000 --conns=16 --key-space-size={keys}",
        "puts at a fixed rate, 70 % of etcd's peak").goals(&[(P99, RatioAtMost(0.6))]).quick(),
    Scenario::new("get-1", Load, "range --clients=1 --conns=1 --total-keys={keys}",
        "linearizable reads of one key, one at a time").goals(HALF_CPU),
    Scenario::new("get-64", Load, "range --clients=64 --conns=8 --total-keys={keys}",
        "linearizable reads of one key, 64 in flight").goals(HALF_CPU),
    Scenario::new("get-64-serializable", Load, "range --clients=64 --conns=8 --total-keys={keys} --consistency=s",
        "serializable reads of one key, 64 in flight").goals(HALF_CPU),
    Scenario::new("range-1k", Load, "range --clients=4 --conns=4 --total-keys=10000 --range-keys=1000",
        "ranges of 1000 keys"),
    Scenario::new("range-10k", Load, "range --clients=4 --conns=4 --total-keys=10000 --range-keys=10000",
        "ranges of 10 000 keys").goals(SHORT_RANGE),
    Scenario::new("txn-put", Load, "txn-put --clients=64 --conns=8 --key-space-size={keys} --txn-ops=8",
        "transactions of 8 puts"),
    Scenario::new("txn-mixed", Load, "txn-mixed --clients=64 --conns=8 --key-space-size={keys}",
        "transactions that read or write").goals(HALF_CPU),
    Scenario::new("delete", Whole, "delete --clients=64 --conns=8 --total-keys={keys} --total={keys} --warmup=0s",
        "deletes of one key"),
    Scenario::new("kubernetes", Load, "kubernetes --clients=32 --conns=8 --watchers=10",
        "what Kubernetes does: pages of a list, watches, guarded updates, leases").goals(HALF_CPU).quick(),
    Scenario::new("lease-grant", Load, "lease-grant --clients=64 --conns=8",
        "new leases"),
    Scenario::new("lease-keepalive", Load, "lease-keepalive --clients=64 --conns=8",
        "renewals of leases").goals(HALF_CPU),
    Scenario::new("lease-expiry", Load, "lease-expiry --clients=16 --conns=4 --put-rate=100 --ttl=2",
        "how late the keys of expired leases go"),
    Scenario::new("watch-100", Fanout { puts: 500 }, "watch --clients=16 --conns=8 --watchers=100",
        "events of 500 puts a second to 100 watchers of all keys").goals(CHEAP_EVENTS).quick(),
    Scenario::new("watch-1000", Fanout { puts: 50 }, "watch --clients=16 --conns=8 --watchers=1000",
        "events of 50 puts a second to 1000 watchers of all keys").goals(CHEAP_EVENTS),
    Scenario::new("watch-latency", Load, "watch-latency --clients=8 --conns=2 --put-rate=500",
        "from a put, 500 a second, to its event"),
    Scenario::new("watch-many", Load, "watch-many --clients=16 --conns=8 --watchers=10000 --put-rate=500",
        "events of 10 000 watchers on few streams, each with a key of its own"),
    Scenario::new("watch-replay", Whole, "watch-replay --conns=4 --watchers=4 --total-keys={keys} --total=20 --warmup=0s",
        "all history, read by four watchers at once").quick(),
    Scenario::new("snapshot", Whole, "snapshot --total-keys={keys} --total=5 --warmup=0s",
        "a snapshot, sent to a client"),
    Scenario::new("fill-1m", Restart,
        "put --clients=1000 --conns=16 --total={many} --key-space-size={many} --sequential-keys",
        "memory with one million keys, and starting with them")
        .goals(&[(ANON_MIB, RatioAtMost(0.3)), (RESTART_TERM, RatioAtMost(0.1)), (RESTART_KILL, RatioAtMost(0.1))]).quick(),
    Scenario::new("compact-1m", Plan::Upkeep(Upkeep::Compact),
        "put --clients=1000 --conns=16 --total={many} --key-space-size={keys}",
        "puts during a compaction of one million revisions").goals(NO_STALL),
    Scenario::new("defragment-1m", Plan::Upkeep(Upkeep::Defragment),
        "put --clients=1000 --conns=16 --total={many} --key-space-size={many} --sequential-keys --val-size=1000",
        "puts while one gigabyte is defragmented").goals(NO_STALL).quick(),
    Scenario::new("put-64-tls", Load, "put --clients=64 --conns=8 --key-space-size={keys}",
        "put-64 over TLS").with(Security::Tls).quick(),
    Scenario::new("get-64-tls", Load, "range --clients=64 --conns=8 --total-keys={keys}",
        "get-64 over TLS").with(Security::Tls),
    Scenario::new("put-64-users", Load, "put --clients=64 --conns=8 --key-space-size={keys}",
        "put-64 as a user with a token").with(Security::Users).quick(),
    Scenario::new("get-64-users", Load, "range --clients=64 --conns=8 --total-keys={keys}",
        "get-64 as a user with a token").with(Security::Users),
    Scenario::new("oxia-put-64", Load, "oxia-put --clients=64 --conns=8 --key-space-size={keys}",
        "put-64 by Oxia's early client protocol, one put a batch").foreign(),
    Scenario::new("oxia-get-64", Load, "oxia-get --clients=64 --conns=8 --total-keys={keys}",
        "get-64 by Oxia's early client protocol, one get a batch").foreign(),
    Scenario::new("d-engine-put-64", Load, "d-engine-put --clients=64 --conns=8 --key-space-size={keys}",
        "put-64 by the d-engine's client protocol").foreign(),
    Scenario::new("d-engine-get-64", Load, "d-engine-get --clients=64 --conns=8 --total-keys={keys}",
        "get-64 by the d-engine's client protocol").foreign(),
    Scenario::new("put-64-scraped", Load, "put --clients=64 --conns=8 --key-space-size={keys}",
        "put-64 while /metrics is read ten times a second").scraped().quick(),
    Scenario::new("rfc-put-64", Load, "rfc-put --clients=64 --conns=8 --key-space-size={keys}",
        "put-64 by the draft of etcd's third API").foreign(),
    Scenario::new("rfc-get-64", Load, "rfc-range --clients=64 --conns=8 --total-keys={keys}",
        "get-64 by the draft of etcd's third API").foreign(),
    Scenario::new("get-64-followers", Followers, "range --clients=64 --conns=8 --total-keys={keys}",
        "linearizable reads of one key, 64 in flight, answered by followers")
        .only_in_clusters(&[(OPS_PER_S, RatioAtLeast(2.0))]).quick(),
    Scenario::new("failover", Failover, "",
        "from the leader's death to the next acknowledged put")
        .only_in_clusters(&[(FAILOVER, RatioAtMost(1.0))]).quick(),
    Scenario::new("failover-fast", Failover, "",
        "failover with a heartbeat of 20 ms and an election timeout of 100 ms")
        .flags(&["--heartbeat-interval=20", "--election-timeout=100"])
        .only_in_clusters(&[(FAILOVER, WorstAtMost(300.0))]),
    Scenario::new("transfer", Transfer, "",
        "puts while the leader hands over").only_in_clusters(NO_STALL).quick(),
    Scenario::new("catch-up", CatchUp, "put --clients=1000 --conns=16 --total={many} --key-space-size={keys}",
        "puts while a member catches up that has missed one million entries")
        .only_in_clusters(&[(CATCH_UP_P99, WorstAtMost(2.0))]),
];

/// Scenarios that differ in one thing only: the one with it, the one without it. The report tells what it costs.
pub const PAIRS: &[(&str, &str)] = &[
    ("put-64-tls", "put-64"),
    ("put-64-users", "put-64"),
    ("get-64-tls", "get-64"),
    ("get-64-users", "get-64"),
    ("put-64-scraped", "put-64"),
    ("oxia-put-64", "put-64"),
    ("oxia-get-64", "get-64"),
    ("d-engine-put-64", "put-64"),
    ("d-engine-get-64", "get-64"),
    ("rfc-put-64", "put-64"),
    ("rfc-get-64", "get-64"),
];
