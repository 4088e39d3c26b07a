//! From single values to a [`Config`]: what etcd demands between flags, what this build cannot do, and the values
//! that stand for others (0 for a default). The order of the checks is etcd's where both have them. Pure, except
//! that a wildcard listener without an advertised URL asks the kernel for this machine's address.
//! Called by `main`, after the environment.

use super::args::{Origin, Settings};
use super::draft::Draft;
use super::flags::{Effect, Flag};
use super::url::{EndpointUrl, join, same_addresses};
use super::{
    Auth, AutoCompaction, Cluster, Compaction, Config, Discovery, Error, Initial, Note, Raft, Storage,
    Transport, value,
};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

mod listen;

const QUOTA_DEFAULT_BYTES: u64 = 2 << 30;
const QUOTA_ADVISED_BYTES: i64 = 8 << 30;
const REQUEST_ADVISED_BYTES: u64 = 10 << 20;
/// The longest request whose JSON, up to twice as long, fits into a message of `wolf.raft`, which may have 16 MiB.
const WOLF_REQUEST_BYTES_MAX: u64 = 7 << 20;
const ELECTION_TIMEOUT_MAX: Duration = Duration::from_millis(50_000);
const WATCH_PROGRESS_MIN: Duration = Duration::from_millis(100);

const DEFAULT_NAME: &str = "default";
/// Flags that etcd means to drop, with its words about them.
const DEPRECATED: [(&str, &str); 2] = [
    ("max-snapshots", "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8."),
    (
        "v2-deprecation",
        "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, ignoring \
         user input.",
    ),
];

type Result<T> = std::result::Result<T, Error>;

fn invalid<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::Invalid(message.into()))
}

impl Settings {
    /// Checks everything that does not depend on whether there is data already.
    pub fn verify(self) -> (Vec<Note>, Result<Config>) {
        let mut notes = Vec::new();
        if let Some(word) = &self.positional {
            return (notes, Err(Error::Positional(word.clone())));
        }
        self.note_effects(&mut notes);
        let config = self.build(&mut notes);
        (notes, config)
    }

    fn note_effects(&self, notes: &mut Vec<Note>) {
        for flag in Flag::all().filter(|flag| self.given.contains_key(flag.name)) {
            if let Some((_, text)) = DEPRECATED.iter().find(|(name, _)| *name == flag.name) {
                notes.push(Note::Deprecated(text));
            } else if flag.effect == Effect::Tuning {
                notes.push(Note::WithoutEffect(flag.name));
            }
        }
    }

    fn asks_for(&self, flag: &Flag) -> bool {
        self.given.get(flag.name).is_some_and(|text| !flag.is_default(text))
    }

    fn build(self, notes: &mut Vec<Note>) -> Result<Config> {
        if self.draft.discovery_fallback == "proxy" {
            return invalid(
                "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"",
            );
        }
        let log = self.draft.log.verify().map_err(Error::Invalid)?;
        let listen = listen::listen(&self.draft, notes)?;
        let cluster = self.cluster(notes)?;
        let Draft { name, data_dir, wal_dir, raft, slow, gates, .. } = self.draft;
        check_raft(&raft)?;
        gates.check().map_err(Error::Invalid)?;
        if self.draft.max_learners < 0 {
            return invalid("membership: too many learner members in cluster");
        }
        if self.draft.compact_hash_check_time.is_zero() {
            return invalid("--compact-hash-check-time must be >0 (set to 0s)");
        }
        if gates.any_without_effect() {
            notes.push(Note::WithoutEffect("feature-gates"));
        }
        let compaction = Compaction {
            auto: auto_compaction(&self.draft.auto_compaction_mode, &self.draft.auto_compaction_retention)?,
            batch_limit: or_default(self.draft.compaction.batch_limit, 1000),
            sleep_interval: or_default(self.draft.compaction.sleep_interval, Duration::from_millis(10)),
        };
        let auth =
            Auth::new(&self.draft.auth_token, self.draft.auth_token_ttl_secs, self.draft.bcrypt_cost, notes)?;
        let limits = self.draft.limits;
        let peer_transport = self.draft.peer_transport.verify()?;
        if peer_transport.transport == Transport::Wolf && limits.request_bytes_max > WOLF_REQUEST_BYTES_MAX {
            return invalid(format!(
                "--max-request-bytes can be at most {WOLF_REQUEST_BYTES_MAX} with --peer-transport=wolf, whose messages are \
                 twice as long"
            ));
        }
        if limits.request_bytes_max > REQUEST_ADVISED_BYTES {
            notes.push(Note::Unwise { flag: "max-request-bytes", why: "large requests delay all others" });
        }
        if self.draft.quota_backend_bytes > QUOTA_ADVISED_BYTES {
            notes.push(Note::Unwise {
                flag: "quota-backend-bytes",
                why: "more than 8 GiB is slow to start and to copy",
            });
        }
        Ok(Config {
            data_dir: if data_dir.is_empty() {
                PathBuf::from(format!("{name}.kvist"))
            } else {
                data_dir.into()
            },
            dedicated_wal_dir: Some(wal_dir).filter(|dir| !dir.is_empty()).map(PathBuf::from),
            name,
            listen,
            cluster,
            raft: Raft { snapshot_count: or_default(raft.snapshot_count, 10_000), ..raft },
            storage: Storage {
                defrag_threshold: Some(self.draft.defrag_threshold_mib)
                    .filter(|mib| *mib > 0)
                    .map(|mib| mib.saturating_mul(1 << 20)),
                ..storage(self.draft.storage, self.draft.quota_backend_bytes)
            },
            peer_transport,
            protocols: self.draft.protocols.verify()?,
            compaction,
            limits,
            corrupt_check_interval: Some(self.draft.corrupt_check_interval).filter(|time| !time.is_zero()),
            compaction_check_interval: gates
                .is_open("CompactHashCheck")
                .then_some(self.draft.compact_hash_check_time),
            watch_progress_interval: or_default(self.draft.watch_progress_interval, Duration::from_secs(600))
                .max(WATCH_PROGRESS_MIN),
            auth,
            slow,
            monitoring: self.draft.monitoring.verify()?,
            gates,
            log,
            shutdown_grace_period: self.draft.shutdown_grace_period,
        })
    }

    fn cluster(&self, notes: &mut Vec<Note>) -> Result<Cluster> {
        let draft = &self.draft;
        let given = |name: &str| self.given.contains_key(name);
        let (mut advertise_peer, mut advertise_client) =
            (draft.initial_advertise_peer_urls.clone(), draft.advertise_client_urls.clone());
        check_hosts("--initial-advertise-peer-urls", &advertise_peer, "\"host:port\"")?;
        let form = "in the format \"host:port\", \"unix:/path/to/socket\" or \"unixs:/path/to/socket\"";
        check_hosts("--advertise-client-urls", &advertise_client, form)?;
        self.check_discovery()?;
        if self.origin == Origin::CommandLine
            && given("listen-client-urls")
            && !given("advertise-client-urls")
        {
            return invalid(
                "--advertise-client-urls is required when --listen-client-urls is set explicitly",
            );
        }
        advertise_reachable(
            &draft.listen_peer_urls,
            &mut advertise_peer,
            "initial-advertise-peer-urls",
            notes,
        );
        advertise_reachable(&draft.listen_client_urls, &mut advertise_client, "advertise-client-urls", notes);
        if advertise_peer.is_empty() {
            return invalid("--initial-advertise-peer-urls must not be empty");
        }
        // etcd has a default for the initial cluster, and takes that text for not given.
        let default = format!("{DEFAULT_NAME}=http://localhost:2380");
        let as_default = draft.initial_cluster == default && draft.name != DEFAULT_NAME;
        let discovery = Some(&draft.discovery_srv)
            .filter(|domain| !domain.is_empty())
            .map(|domain| Discovery { domain: domain.clone(), suffix: draft.discovery_srv_name.clone() });
        let initial = if discovery.is_some() {
            Vec::new()
        } else if given("initial-cluster") && !as_default {
            Initial::parse_list(&draft.initial_cluster)?
        } else {
            let name = if draft.name.is_empty() { DEFAULT_NAME } else { &draft.name };
            vec![Initial { name: name.to_owned(), urls: advertise_peer.clone() }]
        };
        let refused_at_bootstrap = Flag::all().find_map(|flag| match flag.effect {
            Effect::RefusedAtBootstrap(why) if self.asks_for(flag) => Some((flag.name, why)),
            _ => None,
        });
        Ok(Cluster {
            advertise_client,
            advertise_peer,
            initial,
            discovery,
            existing: draft.initial_cluster_state == "existing",
            token: draft.initial_cluster_token.clone(),
            strict_reconfig_check: draft.strict_reconfig_check,
            wait_for_bootstrap: draft.wait_for_bootstrap,
            learners_max: usize::try_from(draft.max_learners).unwrap_or_default(),
            force_new: draft.force_new_cluster,
            refused_at_bootstrap,
        })
    }

    fn check_discovery(&self) -> Result<()> {
        let given = |name: &str| self.given.get(name).is_some_and(|text| !text.is_empty());
        let ways = ["initial-cluster", "discovery-srv", "discovery-endpoints"];
        if ways.iter().filter(|name| given(name)).count() > 1 {
            return invalid(
                "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
                 \"discovery-endpoints\" or \"discovery-srv\"",
            );
        }
        if given("discovery-token") != given("discovery-endpoints") {
            return invalid("both --discovery-token and --discovery-endpoints must be set");
        }
        Ok(())
    }
}

impl Config {
    /// Checks what matters only before there is data: with whom the cluster starts. Where DNS is to say so, there is nothing
    /// to check before it did.
    pub fn check_bootstrap(&self) -> Result<()> {
        let cluster = &self.cluster;
        if let Some((flag, why)) = cluster.refused_at_bootstrap {
            return Err(Error::Unsupported { flag, why });
        }
        if cluster.discovery.is_some() {
            return Ok(());
        }
        let Some(own) = cluster.initial.iter().find(|initial| initial.name == self.name) else {
            return invalid(format!(
                "couldn't find local name {:?} in the initial cluster configuration",
                self.name
            ));
        };
        let mut seen = BTreeSet::new();
        if !cluster.initial.iter().flat_map(|initial| &initial.urls).all(|url| seen.insert(url)) {
            return invalid(format!("initial cluster {} has duplicate url", shown(&cluster.initial)));
        }
        // Who joins has told the cluster its URLs already.
        if !cluster.existing && !same_addresses(&own.urls, &cluster.advertise_peer) {
            return invalid(mismatch(own, &cluster.advertise_peer));
        }
        Ok(())
    }
}

/// What to say of a member that is not reached where the list of members says.
fn mismatch(own: &Initial, advertised: &[EndpointUrl]) -> String {
    let named = |urls: &[EndpointUrl]| shown(&[Initial { name: own.name.clone(), urls: urls.to_vec() }]);
    let missing = |from: &[EndpointUrl], urls: &[EndpointUrl]| -> Vec<EndpointUrl> {
        urls.iter().filter(|url| !from.contains(url)).cloned().collect()
    };
    let unknown = missing(advertised, &own.urls);
    if unknown.is_empty() {
        let more = join(&missing(&own.urls, advertised));
        return format!(
            "--initial-advertise-peer-urls has {more} but missing from --initial-cluster={}",
            named(&own.urls)
        );
    }
    format!(
        "--initial-cluster has {} but missing from --initial-advertise-peer-urls={}",
        named(&unknown),
        join(advertised)
    )
}

fn or_default<T: Default + PartialEq>(value: T, default: T) -> T {
    if value == T::default() { default } else { value }
}

fn check_raft(raft: &Raft) -> Result<()> {
    let (heartbeat, election) = (raft.heartbeat_interval, raft.election_timeout);
    if heartbeat.is_zero() {
        return invalid("--heartbeat-interval must be >0 (set to 0ms)");
    }
    if election.is_zero() {
        return invalid("--election-timeout must be >0 (set to 0ms)");
    }
    if election < heartbeat.saturating_mul(5) {
        return invalid(format!(
            "--election-timeout[{}ms] should be at least as 5 times as --heartbeat-interval[{}ms]",
            election.as_millis(),
            heartbeat.as_millis()
        ));
    }
    if election > ELECTION_TIMEOUT_MAX {
        return invalid(format!(
            "--election-timeout[{}ms] is too long, and should be set less than {}ms",
            election.as_millis(),
            ELECTION_TIMEOUT_MAX.as_millis()
        ));
    }
    Ok(())
}

fn storage(draft: Storage, quota: i64) -> Storage {
    Storage {
        quota_bytes: match u64::try_from(quota) {
            Ok(0) => Some(QUOTA_DEFAULT_BYTES),
            Ok(bytes) => Some(bytes),
            Err(_) => None,
        },
        batch_interval: or_default(draft.batch_interval, Duration::from_millis(100)),
        batch_limit: or_default(draft.batch_limit, 10_000),
        ..draft
    }
}

/// `periodic` takes a duration, or a bare number of hours; `revision` a number of revisions. Zero keeps everything. As in
/// etcd, `revision` takes a duration for its number of nanoseconds.
fn auto_compaction(mode: &str, retention: &str) -> Result<Option<AutoCompaction>> {
    let bad =
        || Error::Invalid(format!("error parsing CompactionRetention: time: invalid duration {retention:?}"));
    let (number, nanos) = (retention.parse::<u32>().ok(), value::nanoseconds(retention).filter(|n| *n >= 0));
    match mode {
        "periodic" => {
            let period = match (number, nanos) {
                (Some(hours), _) => Duration::from_secs(3600 * u64::from(hours)),
                (None, Some(nanos)) => Duration::from_nanos(nanos.unsigned_abs()),
                (None, None) => return Err(bad()),
            };
            Ok(Some(AutoCompaction::Periodic(period)).filter(|_| !period.is_zero()))
        }
        "revision" => {
            let number = retention.parse::<i64>().ok().filter(|number| *number >= 0);
            let count = number.or(nanos).ok_or_else(bad)?;
            Ok(Some(AutoCompaction::Revision(count)).filter(|_| count > 0))
        }
        "" => invalid("undefined auto-compaction-mode"),
        _ => invalid(format!("unknown auto-compaction-mode {mode:?}")),
    }
}

impl Initial {
    /// Reads `name=url,name=url`; a name that comes again adds a URL to its member.
    pub fn parse_list(text: &str) -> Result<Vec<Initial>> {
        let mut members: Vec<Initial> = Vec::new();
        for item in text.split(',').filter(|item| !item.is_empty()) {
            let (name, url) = item.split_once('=').unwrap_or((item, ""));
            let name = name.trim();
            let url = EndpointUrl::parse(url)
                .map_err(|e| Error::Invalid(format!("error setting up initial cluster: {e}")))?;
            match members.iter_mut().find(|known| known.name == name) {
                Some(known) => known.urls.push(url),
                None => members.push(Initial { name: name.to_owned(), urls: vec![url] }),
            }
        }
        Ok(members)
    }
}

/// The members as the flag has them, sorted.
fn shown(members: &[Initial]) -> String {
    let pairs =
        members.iter().flat_map(|member| member.urls.iter().map(|url| format!("{}={url}", member.name)));
    let mut pairs: Vec<String> = pairs.collect();
    pairs.sort();
    pairs.join(",")
}

/// Advertised URLs need a host.
fn check_hosts(flag: &str, urls: &[EndpointUrl], form: &str) -> Result<()> {
    match urls.iter().find(|url| url.has_empty_host()) {
        Some(url) => {
            invalid(format!("{flag} {:?} must be {form} (unexpected empty host ({url}))", join(urls)))
        }
        None => Ok(()),
    }
}

/// Nobody can connect to 0.0.0.0 from elsewhere (F-6): if that is where the server listens, and the default would be
/// advertised, the host of the default route is advertised instead. As in etcd, naming the default is not naming it.
fn advertise_reachable(
    listen: &[EndpointUrl],
    advertise: &mut [EndpointUrl],
    flag: &'static str,
    notes: &mut Vec<Note>,
) {
    let default = Flag::by_name(flag).map_or("", |flag| flag.default);
    let ([first, ..], [only]) = (listen, advertise) else { return };
    if only.to_string() != default || !first.is_wildcard() {
        return;
    }
    match default_route_host().and_then(|host| Some((first.on_host(only.scheme(), host)?, host))) {
        Some((url, host)) => {
            *only = url;
            notes.push(Note::HostDetected(host.to_string()));
        }
        None => notes.push(Note::HostNotDetected),
    }
}

/// Connecting a datagram socket sends nothing, but chooses the address that packets would have. The peer is one of
/// the addresses that are reserved for documentation.
fn default_route_host() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

#[cfg(test)]
mod tests;
