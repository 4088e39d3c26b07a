//! From single values to a [`Config`]: what etcd demands between flags, what this build cannot do, and the values
//! that stand for others (0 for a default). The order of the checks is etcd's where both have them. Pure, except
//! that a wildcard listener without an advertised URL asks the kernel for this machine's address.
//! Called by `main`, after the environment.

use super::args::Settings;
use super::draft::Draft;
use super::flags::{Effect, Flag};
use super::url::{EndpointUrl, ListenUrl, Place, join, same_addresses};
use super::{Auth, AutoCompaction, Cluster, Compaction, Config, Error, Log, Note, Raft, Storage, value};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

mod listen;

const QUOTA_DEFAULT_BYTES: u64 = 2 << 30;
const QUOTA_ADVISED_BYTES: i64 = 8 << 30;
const REQUEST_ADVISED_BYTES: u64 = 10 << 20;
const ELECTION_TIMEOUT_MAX: Duration = Duration::from_millis(50_000);
const WATCH_PROGRESS_MIN: Duration = Duration::from_millis(100);

type Result<T> = std::result::Result<T, Error>;

fn invalid<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::Invalid(message.into()))
}

impl Settings {
    /// Checks everything that does not depend on whether there is data already.
    pub fn verify(self) -> (Vec<Note>, Result<Config>) {
        let mut notes = Vec::new();
        let config = self.check_effects(&mut notes).and_then(|()| self.build(&mut notes));
        (notes, config)
    }

    fn check_effects(&self, notes: &mut Vec<Note>) -> Result<()> {
        if let Some(word) = &self.positional {
            return Err(Error::Positional(word.clone()));
        }
        for flag in Flag::all() {
            let Some(text) = self.given.get(flag.name) else { continue };
            match flag.effect {
                Effect::Refused(why) if !flag.is_default(text) => {
                    return Err(Error::Unsupported { flag: flag.name, why });
                }
                Effect::Tuning => notes.push(Note::WithoutEffect(flag.name)),
                Effect::Refused(_) | Effect::Applied | Effect::Ignored => {}
            }
        }
        Ok(())
    }

    fn build(self, notes: &mut Vec<Note>) -> Result<Config> {
        if self.draft.logger != "zap" {
            return invalid(format!("unknown logger option {:?}", self.draft.logger));
        }
        let log = Log::parse(&self.draft.log_level, &self.draft.log_format, &self.draft.log_outputs)
            .map_err(Error::Invalid)?;
        let listen = listen::listen(&self.draft, notes)?;
        let cluster = self.cluster()?;
        let Draft { name, data_dir, wal_dir, raft, slow, gates, .. } = self.draft;
        if name.is_empty() {
            return invalid("--name must not be empty");
        }
        check_raft(&raft)?;
        gates.check().map_err(Error::Invalid)?;
        if !gates_are_default(&gates) {
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
            storage: storage(self.draft.storage, self.draft.quota_backend_bytes),
            compaction,
            limits,
            watch_progress_interval: or_default(self.draft.watch_progress_interval, Duration::from_secs(600))
                .max(WATCH_PROGRESS_MIN),
            auth,
            slow,
            gates,
            log,
            shutdown_grace_period: self.draft.shutdown_grace_period,
        })
    }

    fn cluster(&self) -> Result<Cluster> {
        let draft = &self.draft;
        if self.given.contains_key("listen-client-urls") && !self.given.contains_key("advertise-client-urls")
        {
            return invalid(
                "--advertise-client-urls is required when --listen-client-urls is set explicitly",
            );
        }
        let mut advertise_peer = draft.initial_advertise_peer_urls.clone();
        if !self.given.contains_key("initial-advertise-peer-urls") {
            replace_wildcard(&draft.listen_peer_urls, &mut advertise_peer);
        }
        if advertise_peer.is_empty() {
            return invalid("--initial-advertise-peer-urls must not be empty");
        }
        let initial = if self.given.contains_key("initial-cluster") {
            initial_cluster(&draft.initial_cluster)?
        } else {
            vec![(draft.name.clone(), advertise_peer.clone())]
        };
        Ok(Cluster {
            advertise_client: draft.advertise_client_urls.clone(),
            advertise_peer,
            initial,
            existing: draft.initial_cluster_state == "existing",
            token: draft.initial_cluster_token.clone(),
            strict_reconfig_check: draft.strict_reconfig_check,
        })
    }
}

impl Config {
    /// Checks what matters only before there is data: with whom the cluster starts.
    pub fn check_bootstrap(&self) -> Result<()> {
        let cluster = &self.cluster;
        if cluster.existing {
            return Err(Error::Unsupported {
                flag: "initial-cluster-state=existing",
                why: "it cannot join a cluster, and the data directory is empty",
            });
        }
        let Some((_, urls)) = cluster.initial.iter().find(|(name, _)| *name == self.name) else {
            return invalid(format!(
                "couldn't find local name {:?} in the initial cluster configuration",
                self.name
            ));
        };
        if cluster.initial.len() > 1 {
            return Err(Error::Unsupported {
                flag: "initial-cluster with more than one member",
                why: "it would run alone and not replicate",
            });
        }
        if !same_addresses(urls, &cluster.advertise_peer) {
            return invalid(format!(
                "--initial-cluster has {}={} but --initial-advertise-peer-urls is {}",
                self.name,
                join(urls),
                join(&cluster.advertise_peer)
            ));
        }
        Ok(())
    }
}

fn or_default<T: Default + PartialEq>(value: T, default: T) -> T {
    if value == T::default() { default } else { value }
}

fn gates_are_default(gates: &super::FeatureGates) -> bool {
    *gates == super::FeatureGates::default()
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

/// `periodic` takes a duration, or a bare number of hours; `revision` a number of revisions. Zero keeps everything.
fn auto_compaction(mode: &str, retention: &str) -> Result<Option<AutoCompaction>> {
    let number = retention.parse::<u32>().ok();
    let bad =
        |why: &str| Error::Invalid(format!("error parsing --auto-compaction-retention {retention:?}: {why}"));
    match mode {
        "periodic" => {
            let period = match number {
                Some(hours) => Duration::from_secs(3600 * u64::from(hours)),
                None => value::duration(retention).map_err(|e| bad(&e.0))?,
            };
            Ok(Some(AutoCompaction::Periodic(period)).filter(|_| !period.is_zero()))
        }
        "revision" => {
            let count = retention.parse::<i64>().map_err(|_| bad("not a number of revisions"))?;
            if count < 0 {
                return Err(bad("negative"));
            }
            Ok(Some(AutoCompaction::Revision(count)).filter(|_| count > 0))
        }
        "" => invalid("undefined auto-compaction-mode"),
        _ => invalid(format!("unknown auto-compaction-mode {mode:?}")),
    }
}

/// `name=url,name=url`; a name that comes again adds a URL to its member.
fn initial_cluster(text: &str) -> Result<Vec<(String, Vec<EndpointUrl>)>> {
    let mut members: Vec<(String, Vec<EndpointUrl>)> = Vec::new();
    for item in text.split(',').filter(|item| !item.is_empty()) {
        let (name, url) = item.split_once('=').unwrap_or((item, ""));
        let name = name.trim();
        let url = EndpointUrl::parse(url)
            .map_err(|e| Error::Invalid(format!("error setting up initial cluster: {e}")))?;
        match members.iter_mut().find(|(known, _)| known == name) {
            Some((_, urls)) => urls.push(url),
            None => members.push((name.to_owned(), vec![url])),
        }
    }
    Ok(members)
}

/// Nobody can connect to 0.0.0.0 from elsewhere: the advertised host becomes the one of the default route.
fn replace_wildcard(listen: &[EndpointUrl], advertise: &mut Vec<EndpointUrl>) {
    let Some(first) = listen.first().and_then(|url| ListenUrl::new(url.clone()).ok()) else { return };
    if !matches!(first.place(), Place::Tcp(address) if address.ip() == Ipv4Addr::UNSPECIFIED) {
        return;
    }
    if let Some(url) = default_route_host().and_then(|host| listen[0].with_host(host)) {
        *advertise = vec![url];
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
