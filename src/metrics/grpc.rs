//! Families about gRPC calls, and the table of every method that there is. `api::grpc` looks a call up by its path once,
//! and then adds to counters that are there already: nothing is hashed or allocated for a request.

use super::families::REGISTRY;
use prometheus::{DEFAULT_BUCKETS, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, OnceLock};

/// Names of the status codes, by number.
pub const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// A service: its name, and its methods with their kinds.
pub type Service = (&'static str, &'static [(&'static str, &'static str)]);

/// One request, one answer.
pub const UNARY: &str = "unary";
/// One request, any number of answers.
pub const SERVER: &str = "server_stream";
/// Any number of both.
pub const BIDI: &str = "bidi_stream";

/// Services, methods and kinds, as `grpc_...` families name them. What is shown from the start, as etcd does it.
const METHODS: &[Service] = &[
    (
        "etcdserverpb.KV",
        &[
            ("Range", UNARY),
            ("RangeStream", SERVER),
            ("Put", UNARY),
            ("DeleteRange", UNARY),
            ("Txn", UNARY),
            ("Compact", UNARY),
        ],
    ),
    ("etcdserverpb.Watch", &[("Watch", BIDI)]),
    (
        "etcdserverpb.Lease",
        &[
            ("LeaseGrant", UNARY),
            ("LeaseRevoke", UNARY),
            ("LeaseKeepAlive", BIDI),
            ("LeaseTimeToLive", UNARY),
            ("LeaseLeases", UNARY),
        ],
    ),
    (
        "etcdserverpb.Cluster",
        &[
            ("MemberAdd", UNARY),
            ("MemberRemove", UNARY),
            ("MemberUpdate", UNARY),
            ("MemberList", UNARY),
            ("MemberPromote", UNARY),
        ],
    ),
    (
        "etcdserverpb.Maintenance",
        &[
            ("Alarm", UNARY),
            ("Status", UNARY),
            ("Defragment", UNARY),
            ("Hash", UNARY),
            ("HashKV", UNARY),
            ("Snapshot", SERVER),
            ("MoveLeader", UNARY),
            ("Downgrade", UNARY),
        ],
    ),
    (
        "etcdserverpb.Auth",
        &[
            ("AuthEnable", UNARY),
            ("AuthDisable", UNARY),
            ("AuthStatus", UNARY),
            ("Authenticate", UNARY),
            ("UserAdd", UNARY),
            ("UserGet", UNARY),
            ("UserList", UNARY),
            ("UserDelete", UNARY),
            ("UserChangePassword", UNARY),
            ("UserGrantRole", UNARY),
            ("UserRevokeRole", UNARY),
            ("RoleAdd", UNARY),
            ("RoleGet", UNARY),
            ("RoleList", UNARY),
            ("RoleDelete", UNARY),
            ("RoleGrantPermission", UNARY),
            ("RoleRevokePermission", UNARY),
        ],
    ),
    ("grpc.health.v1.Health", &[("Check", UNARY), ("List", UNARY), ("Watch", SERVER)]),
];

/// The same; shown from their first call on, as in etcd.
const LATE_METHODS: &[Service] = &[
    ("v3lockpb.Lock", &[("Lock", UNARY), ("Unlock", UNARY)]),
    (
        "v3electionpb.Election",
        &[
            ("Campaign", UNARY),
            ("Proclaim", UNARY),
            ("Leader", UNARY),
            ("Observe", SERVER),
            ("Resign", UNARY),
        ],
    ),
];

/// One method and what is counted of it.
pub struct Method {
    path: String,
    labels: [&'static str; 3],
    counters: OnceLock<Counters>,
}

struct Counters {
    started: IntCounter,
    received: IntCounter,
    sent: IntCounter,
    handled: [IntCounter; CODES.len()],
    seconds: Option<Histogram>,
}

struct Families {
    started: IntCounterVec,
    received: IntCounterVec,
    sent: IntCounterVec,
    handled: IntCounterVec,
    seconds: Option<HistogramVec>,
    /// Bytes of messages, without gRPC's five in front.
    received_bytes: IntCounter,
    sent_bytes: IntCounter,
}

static EXTENSIVE: AtomicBool = AtomicBool::new(false);
/// Services of further protocols; shown from their first call on.
static OTHERS: OnceLock<Vec<Service>> = OnceLock::new();
static FAMILIES: LazyLock<Families> = LazyLock::new(Families::new);
static TABLE: LazyLock<Vec<Method>> = LazyLock::new(table);

const LABELS: [&str; 3] = ["grpc_type", "grpc_service", "grpc_method"];

impl Families {
    fn new() -> Families {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            super::register(IntCounterVec::new(Opts::new(name, help), labels).expect("valid names"))
        };
        let bytes =
            |name: &str, help: &str| super::register(IntCounter::new(name, help).expect("a valid name"));
        Families {
            started: counters(
                "grpc_server_started_total",
                "Total number of RPCs started on the server.",
                &LABELS,
            ),
            received: counters(
                "grpc_server_msg_received_total",
                "Total number of RPC stream messages received on the server.",
                &LABELS,
            ),
            sent: counters(
                "grpc_server_msg_sent_total",
                "Total number of gRPC stream messages sent by the server.",
                &LABELS,
            ),
            handled: counters(
                "grpc_server_handled_total",
                "Total number of RPCs completed on the server, regardless of success or failure.",
                &["grpc_type", "grpc_service", "grpc_method", "grpc_code"],
            ),
            seconds: EXTENSIVE.load(Ordering::SeqCst).then(handling_seconds),
            received_bytes: bytes(
                "etcd_network_client_grpc_received_bytes_total",
                "The total number of bytes received from grpc clients.",
            ),
            sent_bytes: bytes(
                "etcd_network_client_grpc_sent_bytes_total",
                "The total number of bytes sent to grpc clients.",
            ),
        }
    }
}

fn handling_seconds() -> HistogramVec {
    let options = HistogramOpts::new(
        "grpc_server_handling_seconds",
        "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server.",
    );
    let family = HistogramVec::new(options.buckets(DEFAULT_BUCKETS.to_vec()), &LABELS).expect("valid names");
    REGISTRY.register(Box::new(family.clone())).expect("each family is registered once");
    family
}

fn table() -> Vec<Method> {
    let methods = |services: &'static [Service]| {
        services.iter().flat_map(|(service, methods)| {
            methods.iter().map(move |(method, kind)| Method {
                path: format!("/{service}/{method}"),
                labels: [kind, service, method],
                counters: OnceLock::new(),
            })
        })
    };
    let others = OTHERS.get().map_or(&[][..], Vec::as_slice);
    let (early, late) = (methods(METHODS), methods(LATE_METHODS).chain(methods(others)));
    let early = early.inspect(|method| {
        method.counters();
    });
    let by_path: BTreeMap<String, Method> =
        early.chain(late).map(|method| (method.path.clone(), method)).collect();
    by_path.into_values().collect()
}

/// Shows the families, with a histogram of the time of calls if `extensive`, and knows the services of `others` besides
/// etcd's. To be called before the first call, and once.
pub fn show(extensive: bool, others: Vec<Service>) {
    EXTENSIVE.store(extensive, Ordering::SeqCst);
    if OTHERS.set(others).is_err() {
        tracing::debug!("the services were known already");
    }
    LazyLock::force(&TABLE);
}

impl Method {
    /// The method with this path, such as `/etcdserverpb.KV/Put`.
    pub fn find(path: &str) -> Option<&'static Method> {
        let table: &'static Vec<Method> = &TABLE;
        table.binary_search_by(|method| method.path.as_str().cmp(path)).ok().map(|at| &table[at])
    }

    /// Whether there is a service of this name, such as `etcdserverpb.KV`.
    pub fn is_service(name: &str) -> bool {
        let others = OTHERS.get().into_iter().flatten();
        METHODS.iter().chain(LATE_METHODS).chain(others).any(|(service, _)| *service == name)
    }

    /// Its path, without the slash in front.
    pub fn name(&self) -> &str {
        &self.path[1..]
    }

    /// Whether a call has one request and one answer.
    pub fn is_unary(&self) -> bool {
        self.labels[0] == UNARY
    }

    fn counters(&self) -> &Counters {
        self.counters.get_or_init(|| {
            let (families, [kind, service, method]) = (&*FAMILIES, self.labels);
            let handled =
                CODES.map(|code| families.handled.with_label_values(&[kind, service, method, code]));
            Counters {
                started: families.started.with_label_values(&self.labels),
                received: families.received.with_label_values(&self.labels),
                sent: families.sent.with_label_values(&self.labels),
                handled,
                seconds: families.seconds.as_ref().map(|family| family.with_label_values(&self.labels)),
            }
        })
    }

    /// Counts a call that begins.
    pub fn started(&self) {
        self.counters().started.inc();
    }

    /// Counts a message of `bytes` from the client.
    pub fn received(&self, bytes: usize) {
        self.counters().received.inc();
        FAMILIES.received_bytes.inc_by(bytes as u64);
    }

    /// Counts a message of `bytes` to the client.
    pub fn sent(&self, bytes: usize) {
        self.counters().sent.inc();
        FAMILIES.sent_bytes.inc_by(bytes as u64);
    }

    /// Counts the end of a call, with the number of its status code, after so many seconds.
    pub fn handled(&self, code: usize, seconds: f64) {
        let counters = self.counters();
        counters.handled.get(code).unwrap_or(&counters.handled[2]).inc();
        if let Some(histogram) = &counters.seconds {
            histogram.observe(seconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_found_by_its_path() {
        for method in TABLE.iter() {
            assert!(std::ptr::eq(Method::find(&method.path).unwrap(), method));
        }
        assert!(Method::find("/etcdserverpb.KV/Nothing").is_none());
        assert!(Method::find("").is_none());
    }
}
