//! Who a member is when it starts for the first time, and with whom: computed from `--initial-cluster` for a new cluster, or from
//! what DNS has in its place, asked of the members of an existing one. Written down before anything else, so that later starts need no flags.

use super::discovery;
use crate::client::peer::{self, Cluster};
use crate::config::url::{Scheme, join, same_addresses};
use crate::config::{Config, EndpointUrl, Initial};
use crate::engine::Identity;
use crate::engine::command::Member;
use crate::identity::{self, Founding};
use crate::tls;
use crate::tls::client::Connector;
use futures_util::stream::{FuturesUnordered, Stream, StreamExt};
use std::io;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long the others are asked whether the cluster runs already. They are often not there yet.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long one question to a cluster that must be there may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a cluster that does not answer, or does not know of us yet, is asked again.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
const JOIN_PAUSE: Duration = Duration::from_millis(500);
/// What members were made of that began with nothing; see `identity::Founding::origin`.
const EMPTY: u64 = 0;

/// Why a member can't begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What is known of it can't be read or written.
    #[error("cannot use the data directory: {0}")]
    DataDir(#[from] io::Error),
    /// Certificates for connections to the others can't be used.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// DNS does not say who the members are.
    #[error(transparent)]
    Discovery(#[from] discovery::Error),
    /// It began before, and has lost what it knew.
    #[error(
        "member {0:x} has already been bootstrapped; if its data is lost, remove it from the cluster and add it again \
         (member remove, member add), then start it with --initial-cluster-state=existing"
    )]
    Lost(u64),
    /// The others run a cluster of this id without it.
    #[error(
        "member {0:x} does not belong to the cluster that the others run; add it (member add), then start it with \
         --initial-cluster-state=existing"
    )]
    NotListed(u64),
    /// The cluster to join can't be asked, or does not know of this member as it is configured.
    #[error("{0}")]
    Join(String),
}

type Result<T> = std::result::Result<T, Error>;

/// What is written down, or what is to be and then is.
pub async fn resolve(config: &Config) -> Result<Founding> {
    let dir = config.member_dir();
    if let Some(mut known) = identity::load(&dir)? {
        if known.is_new && known.members.is_empty() {
            let peer_urls = texts(&config.cluster.advertise_peer); // as the first versions had it
            known.members = vec![member(known.identity.member, &config.name, peer_urls)];
        }
        return Ok(known);
    }
    let discovered = match &config.cluster.discovery {
        Some(discovery) => Some(discovery::resolve(config, discovery).await?),
        None => None,
    };
    let others = Others::of(discovered.as_ref().unwrap_or(config))?;
    let mut founding = if config.cluster.existing { others.join().await? } else { others.found().await? };
    if discovered.is_some() {
        // Each member has numbered the others by itself, while the first entry of the log must be the same on all.
        founding.members.iter_mut().for_each(|member| member.name.clear());
    }
    identity::store(&dir, &founding)?;
    Ok(founding)
}

fn texts(urls: &[EndpointUrl]) -> Vec<String> {
    let mut texts: Vec<String> = urls.iter().map(ToString::to_string).collect();
    texts.sort();
    texts
}

fn member(id: u64, name: &str, peer_urls: Vec<String>) -> Member {
    Member { id, name: name.to_owned(), peer_urls, ..Member::default() }
}

/// The other members of the initial cluster, and how to reach them.
struct Others<'c> {
    config: &'c Config,
    tls: Option<Connector>,
}

impl<'c> Others<'c> {
    fn of(config: &'c Config) -> Result<Others<'c>> {
        let is_secure = |url: &EndpointUrl| matches!(url.scheme(), Scheme::Https | Scheme::Unixs);
        let mut urls = config.cluster.initial.iter().flat_map(|initial| &initial.urls);
        let tls = urls
            .any(is_secure)
            .then(|| Connector::open(&config.listen.tls.peer, &config.listen.tls.rules))
            .transpose()?;
        Ok(Others { config, tls })
    }

    /// The configured members but this one.
    fn configured(&self) -> impl Iterator<Item = &Initial> {
        self.config.cluster.initial.iter().filter(|initial| initial.name != self.config.name)
    }

    /// Begins a new cluster, unless it has begun without this member.
    async fn found(&self) -> Result<Founding> {
        let cluster = &self.config.cluster;
        let id = |initial: &Initial| cluster.id_of(initial);
        let members: Vec<Member> = cluster
            .initial
            .iter()
            .map(|initial| member(id(initial), &initial.name, texts(&initial.urls)))
            .collect();
        let identity =
            Identity { cluster: cluster.cluster_id(), member: cluster.member_id(&self.config.name) };
        let mut asked = self.ask(LOOK_TIMEOUT);
        while let Some(answer) = asked.next().await {
            if let Ok(running) = answer {
                check_running(&running, identity)?;
            }
        }
        // Who begins with nothing must not meet one that was restored from a snapshot.
        let origin = (members.len() > 1).then_some(EMPTY);
        Ok(Founding { identity, members, is_new: true, origin })
    }

    /// Learns from the members of a cluster who this one is there.
    async fn join(&self) -> Result<Founding> {
        if self.configured().next().is_none() {
            return Err(Error::Join(
                "--initial-cluster-state=existing needs an --initial-cluster that names every member of the cluster"
                    .into(),
            ));
        }
        let deadline = Instant::now() + JOIN_TIMEOUT;
        loop {
            let error = match self.try_join().await {
                Err(Error::Join(error)) => error,
                done => return done,
            };
            if Instant::now() >= deadline {
                return Err(Error::Join(error));
            }
            tracing::warn!(%error, "cannot join the cluster yet; trying again");
            sleep(JOIN_PAUSE).await;
        }
    }

    async fn try_join(&self) -> Result<Founding> {
        let mut asked = self.ask(ASK_TIMEOUT);
        let (mut silent, mut unfit) = (String::new(), None);
        while let Some(answer) = asked.next().await {
            match answer.map(|running| self.joined(&running)) {
                Ok(Err(Error::Join(reason))) => unfit = Some(reason), // another may know more
                Ok(done) => return done,
                Err(reason) => silent = reason,
            }
        }
        let reason = unfit.unwrap_or_else(|| format!("cannot fetch cluster info from peer urls: {silent}"));
        Err(Error::Join(reason))
    }

    /// Finds this member in a running cluster, by its peer URLs. Every other one must be configured, too.
    fn joined(&self, running: &Cluster) -> Result<Founding> {
        let configured = &self.config.cluster.initial;
        if !running.is_kvist {
            return Err(Error::Join(
                "the cluster to join is one of etcd; kvist members need a cluster of their own".into(),
            ));
        }
        if running.members.len() != configured.len() {
            return Err(Error::Join(format!(
                "member count is unequal: the cluster has {}, --initial-cluster has {}",
                running.members.len(),
                configured.len()
            )));
        }
        let mut me = None;
        let mut members = Vec::new();
        for known in &running.members {
            let urls: Vec<EndpointUrl> =
                known.peer_urls.iter().filter_map(|url| EndpointUrl::parse(url).ok()).collect();
            let Some(initial) = configured.iter().find(|initial| same_addresses(&initial.urls, &urls)) else {
                return Err(Error::Join(format!(
                    "unmatched member while checking PeerURLs: {:x} of the cluster has {}, which --initial-cluster \
                     does not name",
                    known.id,
                    join(&known.peer_urls)
                )));
            };
            if initial.name == self.config.name {
                me = Some(known);
            }
            let is_learner = known.is_learner;
            members.push(Member { is_learner, ..member(known.id, &initial.name, known.peer_urls.clone()) });
        }
        let Some(me) = me else {
            return Err(Error::Join("unmatched member while checking PeerURLs: two have the same".into()));
        };
        if !me.client_urls.is_empty() {
            return Err(Error::Lost(me.id));
        }
        let identity = Identity { cluster: running.id, member: me.id };
        Ok(Founding { identity, members, is_new: false, origin: None })
    }

    /// Asks the others at once; the answers in the order in which they come.
    fn ask(&self, limit: Duration) -> impl Stream<Item = std::result::Result<Cluster, String>> + Unpin {
        let ask = |url| async move {
            match timeout(limit, peer::cluster(url, self.tls.as_ref())).await {
                Ok(Ok(running)) => Ok(running),
                Ok(Err(error)) => Err(format!("{url}: {error}")),
                Err(_) => Err(format!("{url}: no answer in time")),
            }
        };
        let urls = self.configured().flat_map(|initial| &initial.urls);
        urls.map(ask).collect::<FuturesUnordered<_>>()
    }
}

/// Whether a member may begin where another already runs the cluster that it would begin.
fn check_running(running: &Cluster, me: Identity) -> Result<()> {
    if running.id != me.cluster {
        return Ok(()); // another one; its members will not talk to us
    }
    if running.members.is_empty() {
        return Ok(()); // it is only just beginning
    }
    match running.members.iter().find(|known| known.id == me.member) {
        Some(known) if known.client_urls.is_empty() => Ok(()),
        Some(_) => Err(Error::Lost(me.member)),
        None => Err(Error::NotListed(me.member)),
    }
}

#[cfg(test)]
mod tests;
