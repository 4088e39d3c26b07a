//! The configuration of a server: etcd's flags and `ETCD_*` environment, checked once and never changed after.
//!
//! ```text
//! argv ──args──▶ Settings ──env──▶ Settings ──verify──▶ Config ──▶ logging, data directory, server
//!           (every value has its kind)      (values fit together)
//! YAML ──file──▶ Settings ──────────────────▲  if there is a file, nothing else counts
//! ```
//! What a flag is called, what it takes, and where it goes is one entry of [`flags::FLAGS`]; the parser, the
//! environment names and `--help` follow from it. Two kinds of failure: a text that is no value of its flag
//! ([`args::UsageError`], exit code 2), and values that this server cannot run with ([`Error`], exit code 1).
//! Depends on nothing of ours. Called by `main` and by tests that start a server in-process.

pub mod alias;
pub mod arch;
pub mod args;
mod auth;
mod draft;
pub mod env;
pub mod file;
pub mod flags;
pub mod gates;
pub mod help;
pub mod ids;
mod load;
pub mod log;
mod monitoring;
mod peer;
mod protocols;
pub mod tls;
pub mod url;
pub mod value;
mod verify;

pub use auth::{Auth, Jwt, Token};
pub use gates::FeatureGates;
pub use log::Log;
pub use monitoring::{Monitoring, Tracing};
pub use peer::{PeerTransport, Transport};
pub use protocols::Protocols;
pub use tls::{Tls, TlsFiles, TlsRules, TlsVersion};
pub use url::{EndpointUrl, ListenUrl, Place};

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Everything a server needs to know before it starts.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// Name of this member, for people.
    pub name: String,
    /// Directory that holds everything the server writes, except perhaps the log.
    pub data_dir: PathBuf,
    /// Directory of the write-ahead log, if it is not inside the data directory.
    pub dedicated_wal_dir: Option<PathBuf>,
    /// Sockets and connections.
    pub listen: Listen,
    /// Who this member is, and with whom the cluster starts.
    pub cluster: Cluster,
    /// Consensus.
    pub raft: Raft,
    /// How other members are called.
    pub peer_transport: PeerTransport,
    /// What clients may speak.
    pub protocols: Protocols,
    /// What is kept on disk, and how.
    pub storage: Storage,
    /// Removal of old revisions.
    pub compaction: Compaction,
    /// What one request may ask.
    pub limits: Limits,
    /// How often an idle watcher that wants it hears of progress.
    pub watch_progress_interval: Duration,
    /// How users log in.
    pub auth: Auth,
    /// Time between two checks for corruption; `None`: never.
    pub corrupt_check_interval: Option<Duration>,
    /// Time between two comparisons of what was compacted; `None`: never.
    pub compaction_check_interval: Option<Duration>,
    /// When a slow operation is worth a log line.
    pub slow: Slow,
    /// Metrics and traces.
    pub monitoring: Monitoring,
    /// Gates of behaviour in trial.
    pub gates: FeatureGates,
    /// The server's own log.
    pub log: Log,
    /// How long requests in hand may take to finish after the signal to stop.
    pub shutdown_grace_period: Duration,
}

impl Config {
    /// Directory of what the member must not lose.
    pub fn member_dir(&self) -> PathBuf {
        self.data_dir.join("member")
    }

    /// Directory of the write-ahead log.
    pub fn wal_dir(&self) -> PathBuf {
        self.dedicated_wal_dir.clone().unwrap_or_else(|| self.member_dir().join("wal"))
    }
}

/// Sockets and connections.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Listen {
    /// Where clients connect; at least one.
    pub client: Vec<ListenUrl>,
    /// Where HTTP is served, if apart from gRPC; `client` then has gRPC alone.
    pub http: Vec<ListenUrl>,
    /// Where other members connect; at least one.
    pub peer: Vec<ListenUrl>,
    /// Further places for metrics and health.
    pub metrics: Vec<ListenUrl>,
    /// Options of TCP sockets.
    pub sockets: SocketOptions,
    /// Certificates, and whom they let in.
    pub tls: Tls,
    /// HTTP/2 streams one connection may have open.
    pub streams_max: u32,
    /// Pings on client connections.
    pub keepalive: Keepalive,
    /// Whether the JSON gateway is served.
    pub json_gateway: bool,
    /// Origins that browsers may come from; `*` is all.
    pub origins: Vec<String>,
    /// Host names that HTTP requests without TLS may use; `*` is all.
    pub hosts: Vec<String>,
    /// Whether profiles are served.
    pub pprof: bool,
}

/// Options of listening TCP sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SocketOptions {
    /// Whether others may listen on the same port.
    pub reuse_port: bool,
    /// Whether a port may be taken that is in TIME_WAIT; always so here, as in Go.
    pub reuse_address: bool,
}

/// Pings on client connections.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Keepalive {
    /// A client that pings more often than this is sent away.
    pub min_time: Duration,
    /// Idle time after which the server pings; `None` is never.
    pub interval: Option<Duration>,
    /// How long the answer to a ping may take; `None` is for ever.
    pub timeout: Option<Duration>,
}

/// Who this member is, and with whom the cluster starts. All but the client URLs matter only for an empty data
/// directory: a member that has data knows its cluster from there.
#[derive(Clone, PartialEq, Debug)]
pub struct Cluster {
    /// Where clients are told to find this member.
    pub advertise_client: Vec<EndpointUrl>,
    /// Where other members are told to find this member.
    pub advertise_peer: Vec<EndpointUrl>,
    /// Every first member, in the order of the flag; none while DNS is still to be asked.
    pub initial: Vec<Initial>,
    /// Where DNS names the first members.
    pub discovery: Option<Discovery>,
    /// Whether the cluster is there already.
    pub existing: bool,
    /// Keeps clusters apart that have the same addresses.
    pub token: String,
    /// Whether membership changes that would lose the quorum are refused.
    pub strict_reconfig_check: bool,
    /// Whether a new cluster begins only when somebody calls for it.
    pub wait_for_bootstrap: bool,
    /// Learners that the cluster may have.
    pub learners_max: usize,
    /// Whether the member goes on alone with what it has, whoever else belonged to the cluster.
    pub force_new: bool,
    /// A flag that asks for a way to start a cluster that does not exist here, and why it must not be ignored.
    pub refused_at_bootstrap: Option<(&'static str, &'static str)>,
}

/// Where SRV records name the first members of a cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Discovery {
    /// The domain.
    pub domain: String,
    /// What the names of the services end with; may be empty.
    pub suffix: String,
}

/// A first member of a cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Initial {
    /// Its name.
    pub name: String,
    /// Where its peers reach it.
    pub urls: Vec<EndpointUrl>,
}

impl Cluster {
    /// Id of a first member in a new cluster.
    pub fn id_of(&self, initial: &Initial) -> u64 {
        ids::member_id(&initial.urls, &self.token)
    }

    /// Id of this member, which has the name, in a new cluster.
    pub fn member_id(&self, name: &str) -> u64 {
        let initial = self.initial.iter().find(|initial| initial.name == name);
        ids::member_id(initial.map_or(&self.advertise_peer, |initial| &initial.urls), &self.token)
    }

    /// Id of a new cluster.
    pub fn cluster_id(&self) -> u64 {
        let members: Vec<u64> = self.initial.iter().map(|initial| self.id_of(initial)).collect();
        ids::cluster_id(&members)
    }
}

/// Consensus.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Raft {
    /// How often a leader shows that it lives.
    pub heartbeat_interval: Duration,
    /// Silence after which a follower stands for election; at least five heartbeats.
    pub election_timeout: Duration,
    /// Applied entries between two snapshots.
    pub snapshot_count: u64,
    /// Entries kept after a snapshot for followers that are a little behind.
    pub snapshot_catchup_entries: u64,
    /// Whether a member asks for votes first without raising its term.
    pub pre_vote: bool,
}

/// What is kept on disk, and how.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Storage {
    /// Bytes after which writes are refused; `None` is no limit.
    pub quota_bytes: Option<u64>,
    /// Whether acknowledged writes are on disk. False only for tests: a crash of the machine loses data.
    pub fsync: bool,
    /// Longest time between two commits of applied entries.
    pub batch_interval: Duration,
    /// Most changes between two commits of applied entries.
    pub batch_limit: u64,
    /// Bytes to gain that are worth a defragmentation at start.
    pub defrag_threshold: Option<u64>,
    /// Whether memory is kept from being swapped out.
    pub memory_lock: bool,
}

/// Removal of old revisions.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Compaction {
    /// Revisions removed in one step.
    pub batch_limit: u64,
    /// Pause between two steps.
    pub sleep_interval: Duration,
    /// What the server compacts by itself.
    pub auto: Option<AutoCompaction>,
}

/// What the server compacts by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AutoCompaction {
    /// What was the past this long ago.
    Periodic(Duration),
    /// All but this many of the last revisions.
    Revision(i64),
}

/// What one request may ask.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Limits {
    /// Operations in one list of a txn.
    pub txn_ops_max: u64,
    /// Bytes of a request that goes through the log.
    pub request_bytes_max: u64,
}

/// When a slow operation is worth a log line.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Slow {
    /// Applying one entry.
    pub apply: Duration,
    /// Answering one unary request.
    pub unary: Duration,
}

/// Why this server cannot run with what it was given.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// A word on the command line that belongs to no flag.
    #[error("{0:?} is not a valid flag")]
    Positional(String),
    /// A variable whose text is no value of its flag.
    #[error("invalid value {value:?} for {variable}: {reason}")]
    Environment {
        /// Name of the variable.
        variable: String,
        /// Its text.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A configuration file that cannot be read.
    #[error("{path}: {reason}")]
    File {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with it, and where.
        reason: String,
    },
    /// The same option in the environment and on the command line.
    #[error(
        "conflicting environment variable {0:?} is shadowed by corresponding command-line flag (either unset \
         environment variable or disable flag)"
    )]
    Conflict(String),
    /// A flag that must not be ignored, and whose feature does not exist.
    #[error("this build does not support --{flag} yet: {why}")]
    Unsupported {
        /// Name of the flag.
        flag: &'static str,
        /// What would go wrong if it were ignored.
        why: &'static str,
    },
    /// Values that are out of bounds or do not fit together.
    #[error("{0}")]
    Invalid(String),
}

/// Something the log should tell about how the configuration came to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Note {
    /// A flag was set from this variable.
    EnvironmentUsed(String),
    /// A variable looks like ours and belongs to no flag.
    EnvironmentUnknown(String),
    /// A variable belongs to a flag that only the command line may set.
    EnvironmentSpecial(String),
    /// The file took the place of flags and variables.
    FileLoaded(PathBuf),
    /// A key of the file that means nothing here.
    KeyUnknown {
        /// The key, with the maps around it.
        key: String,
        /// Where the flag of this name has its place.
        place: Option<String>,
    },
    /// An option was given by a name that etcd 3.7 does not know any more.
    Renamed {
        /// As it was given.
        old: String,
        /// As it is called today.
        new: String,
    },
    /// A flag that etcd means to drop, in its words.
    Deprecated(&'static str),
    /// This host is advertised in place of a default that nobody could reach.
    HostDetected(String),
    /// There is no route that would tell which host to advertise.
    HostNotDetected,
    /// A listener without TLS, although there are certificates or clients are to show theirs.
    PlainDespite {
        /// What is ignored for this URL.
        what: &'static str,
        /// Whether it is a peer URL.
        peer: bool,
        /// The URL.
        url: String,
    },
    /// A flag that only tunes was set, and nothing here can be tuned by it.
    WithoutEffect(&'static str),
    /// A value is legal and unwise.
    Unwise {
        /// Name of the flag.
        flag: &'static str,
        /// What to expect from it.
        why: &'static str,
    },
}

impl Note {
    /// Whether the operator may want to change something.
    pub fn is_warning(&self) -> bool {
        !matches!(self, Note::EnvironmentUsed(_) | Note::FileLoaded(_) | Note::HostDetected(_))
    }

    /// Writes the note to the log.
    pub fn log(&self) {
        match self {
            Note::EnvironmentUsed(name) => {
                tracing::info!("variable-name" = %name, "recognized and used environment variable");
            }
            Note::EnvironmentUnknown(name) => {
                tracing::warn!("environment-variable" = %name, "unrecognized environment variable");
            }
            Note::EnvironmentSpecial(name) => {
                tracing::warn!("key" = %name, "cannot set special environment variable");
            }
            Note::FileLoaded(path) => tracing::info!(
                path = %path.display(),
                "loaded server configuration, other configuration command line flags and environment variables will \
                 be ignored if provided"
            ),
            Note::KeyUnknown { key, place: None } => {
                tracing::warn!(key = %key, "unknown key in the configuration file is ignored");
            }
            Note::KeyUnknown { key, place: Some(place) } => {
                tracing::warn!(key = %key, place = %place, "key in the wrong place of the configuration file is ignored");
            }
            Note::Renamed { old, new } => {
                tracing::warn!(name = %old, "new-name" = %new, "deprecated name of an option; use the new one");
            }
            Note::Deprecated(text) => tracing::warn!("{text}"),
            Note::HostDetected(host) => tracing::info!(host = %host, "detected default host for advertise"),
            Note::HostNotDetected => tracing::info!("failed to detect default host"),
            Note::PlainDespite { what, peer: false, url } => {
                tracing::warn!("client-url" = %url, "scheme is http or unix while {what}");
            }
            Note::PlainDespite { what, peer: true, url } => {
                tracing::warn!("peer-url" = %url, "scheme is HTTP while {what}");
            }
            Note::WithoutEffect(flag) => tracing::warn!(flag = *flag, "accepted without effect"),
            Note::Unwise { flag, why } => tracing::warn!(flag = *flag, reason = *why, "unwise value"),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::EnvironmentUsed(name) => write!(f, "{name} is used"),
            Note::EnvironmentUnknown(name) => write!(f, "{name} belongs to no flag"),
            Note::EnvironmentSpecial(name) => {
                write!(f, "{name} is ignored: only the command line may set it")
            }
            Note::FileLoaded(path) => write!(f, "{} is used, and nothing else", path.display()),
            Note::KeyUnknown { key, place: None } => write!(f, "{key} is an unknown key and ignored"),
            Note::KeyUnknown { key, place: Some(place) } => {
                write!(f, "{key} is ignored: its place is {place}")
            }
            Note::Renamed { old, new } => write!(f, "{old} is called {new} since etcd 3.7"),
            Note::Deprecated(text) => f.write_str(text),
            Note::HostDetected(host) => write!(f, "{host} is advertised"),
            Note::HostNotDetected => f.write_str("there is no route that tells which host to advertise"),
            Note::PlainDespite { what, url, .. } => write!(f, "{url} is without TLS while {what}"),
            Note::WithoutEffect(flag) => write!(f, "{flag} is accepted without effect"),
            Note::Unwise { flag, why } => write!(f, "{flag}: {why}"),
        }
    }
}
