//! The members of a new cluster by DNS (`--discovery-srv`): SRV records name host and peer port of each, and a member finds
//! itself among them by `--initial-advertise-peer-urls`. What comes of it is an `--initial-cluster`.
//! Called by `bootstrap`, when a member starts for the first time.

use crate::config::url::Scheme;
use crate::config::{self, Config, Discovery, EndpointUrl, Initial};
use futures_util::future::join_all;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::{ResolverBuilder, TokioResolver};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// What members are looked for under, and how they are reached then.
const SERVICES: [(&str, Scheme); 2] = [("etcd-server-ssl", Scheme::Https), ("etcd-server", Scheme::Http)];

/// Why nobody is found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There are no records, or none that fit.
    #[error("error setting up initial cluster: {0}")]
    Records(String),
    /// What was found is no cluster to begin with.
    #[error(transparent)]
    Cluster(#[from] config::Error),
}

/// A member that a record names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    priority: u16,
    /// `host:port`, without the dot that ends the name in the record.
    address: String,
    /// What the host resolves to.
    resolved: BTreeSet<SocketAddr>,
}

/// A URL under which this member is to be found.
struct Own {
    url: EndpointUrl,
    resolved: BTreeSet<SocketAddr>,
}

/// The configuration with the members that DNS names.
pub async fn resolve(config: &Config, discovery: &Discovery) -> Result<Config, Error> {
    let resolver = TokioResolver::builder_tokio().and_then(ResolverBuilder::build);
    let resolver = resolver.map_err(|e| Error::Records(format!("cannot read /etc/resolv.conf: {e}")))?;
    let own = own(&config.cluster.advertise_peer).await;
    let services = SERVICES.map(|(service, scheme)| (query(service, discovery), scheme));
    let looks = services.iter().map(|(query, _)| look(&resolver, query));
    let (mut pairs, mut failures) = (Vec::new(), Vec::new());
    for ((query, scheme), found) in services.iter().zip(join_all(looks).await) {
        let found = match found {
            Ok(targets) => {
                let named = name(&targets, *scheme, &config.name, &own);
                failures.extend(named.mismatches);
                named.pairs
            }
            Err(error) => {
                failures.push(error);
                Vec::new()
            }
        };
        tracing::info!(
            "service-name" = query,
            "server-name" = %config.name,
            "found-cluster" = ?found,
            "get cluster for SRV"
        );
        pairs.extend(found);
    }
    if pairs.is_empty() {
        return Err(Error::Records(failures.join("; ")));
    }
    let initial = Initial::parse_list(&pairs.join(","))?;
    if !initial.iter().any(|initial| initial.name == config.name) {
        let mut text = format!("cannot find local etcd member {:?} in SRV records", config.name);
        failures.iter().for_each(|failure| text += &format!("; {failure}"));
        return Err(Error::Records(text));
    }
    let mut config = config.clone();
    config.cluster.initial = initial;
    config.cluster.discovery = None;
    config.check_bootstrap()?;
    Ok(config)
}

/// The name whose records list the members of a service.
fn query(service: &str, discovery: &Discovery) -> String {
    let dash = if discovery.suffix.is_empty() { "" } else { "-" };
    format!("_{service}{dash}{}._tcp.{}", discovery.suffix, discovery.domain)
}

async fn own(urls: &[EndpointUrl]) -> Vec<Own> {
    let urls = urls.iter().filter(|url| matches!(url.scheme(), Scheme::Http | Scheme::Https));
    let own = |url: EndpointUrl| async { Own { resolved: addresses(url.address()).await, url } };
    join_all(urls.cloned().map(own)).await
}

/// The addresses of `host:port`; none if the host has none yet. It may still be somebody: names are compared as well.
async fn addresses(address: &str) -> BTreeSet<SocketAddr> {
    match tokio::net::lookup_host(address).await {
        Ok(found) => found.collect(),
        Err(error) => {
            tracing::warn!(address, %error, "failed to resolve the address of a member");
            BTreeSet::new()
        }
    }
}

/// Asks for the records of `query`, and for the addresses of whom they name; by priority, then by name.
async fn look(resolver: &TokioResolver, query: &str) -> Result<Vec<Target>, String> {
    let failed = |error: NetError| {
        let reason = if error.is_no_records_found() { "no such host".to_owned() } else { error.to_string() };
        format!("error querying DNS SRV records for {query}: {reason}")
    };
    let answer = resolver.srv_lookup(query).await.map_err(failed)?;
    let target = |data: &RData| match data {
        // The root as target says that there is no such service.
        RData::SRV(srv) if !srv.target.is_root() => {
            let host = srv.target.to_ascii();
            Some((srv.priority, format!("{}:{}", host.trim_end_matches('.'), srv.port)))
        }
        _ => None,
    };
    let found = answer.answers().iter().filter_map(|record| target(&record.data));
    let with_addresses = |(priority, address): (u16, String)| async move {
        let resolved = addresses(&address).await;
        Target { priority, address, resolved }
    };
    let mut targets = join_all(found.map(with_addresses)).await;
    targets.sort();
    Ok(targets)
}

/// Members as `--initial-cluster` has them, and why some of the targets are none.
#[derive(Debug, Default, PartialEq)]
struct Named {
    /// `name=url` of each.
    pairs: Vec<String>,
    mismatches: Vec<String>,
}

/// Gives the targets of one service their names: this member's own to those where it is to be found, numbers to all others.
fn name(targets: &[Target], scheme: Scheme, me: &str, own: &[Own]) -> Named {
    let (mut named, mut others) = (Named::default(), 0);
    let scheme_text = if scheme == Scheme::Https { "https" } else { "http" };
    for target in targets {
        let is_same = |own: &&Own| {
            own.url.address().eq_ignore_ascii_case(&target.address)
                || !own.resolved.is_disjoint(&target.resolved)
        };
        let same: Vec<&Own> = own.iter().filter(is_same).collect();
        let url = format!("{scheme_text}://{}", target.address);
        match same.first() {
            None => {
                named.pairs.push(format!("{others}={url}"));
                others += 1;
            }
            Some(_) if same.iter().any(|own| own.url.scheme() == scheme) => {
                named.pairs.push(format!("{me}={url}"));
            }
            Some(own) => named.mismatches.push(format!(
                "bootstrap at {url} from DNS has scheme mismatch with expected peer {}",
                own.url
            )),
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(address: &str, resolved: &[&str]) -> Target {
        let resolved = resolved.iter().map(|text| text.parse().unwrap()).collect();
        Target { priority: 0, address: address.into(), resolved }
    }

    fn own(url: &str, resolved: &[&str]) -> Own {
        let resolved = target("", resolved).resolved;
        Own { url: EndpointUrl::parse(url).unwrap(), resolved }
    }

    #[test]
    fn a_member_finds_itself_by_name_or_by_address() {
        let targets = [
            target("a.example:2380", &["10.0.0.1:2380"]),
            target("b.example:2380", &["10.0.0.2:2380"]),
            target("c.example:2380", &[]),
        ];
        let pairs = |own: Own| name(&targets, Scheme::Http, "me", &[own]).pairs;
        for (own, mine) in [
            (own("http://a.example:2380", &[]), 0),
            (own("http://B.example:2380", &["10.0.0.2:2380"]), 1),
            (own("http://10.0.0.2:2380", &["10.0.0.2:2380"]), 1),
            (own("http://c.example:2380", &["10.0.0.3:2380"]), 2),
        ] {
            let mut names = vec!["0", "1"];
            names.insert(mine, "me");
            let expected: Vec<String> =
                names.iter().zip(&targets).map(|(name, t)| format!("{name}=http://{}", t.address)).collect();
            assert_eq!(pairs(own), expected);
        }
        // Another port is another member.
        let expected = ["0=http://a.example:2380", "1=http://b.example:2380", "2=http://c.example:2380"];
        assert_eq!(pairs(own("http://10.0.0.1:2381", &["10.0.0.1:2381"])), expected);
    }

    #[test]
    fn a_record_for_another_scheme_does_not_name_this_member() {
        let targets = [target("a.example:1", &[]), target("b.example:1", &[])];
        let own = [own("http://a.example:1", &[])];
        let named = name(&targets, Scheme::Https, "a", &own);
        assert_eq!(named.pairs, ["0=https://b.example:1"]);
        let text = "bootstrap at https://a.example:1 from DNS has scheme mismatch with expected peer http://a.example:1";
        assert_eq!(named.mismatches, [text]);
    }

    #[test]
    fn the_suffix_belongs_to_the_service() {
        let with = |suffix: &str| {
            let discovery = Discovery { domain: "example.com".into(), suffix: suffix.into() };
            SERVICES.map(|(service, _)| query(service, &discovery))
        };
        assert_eq!(with(""), ["_etcd-server-ssl._tcp.example.com", "_etcd-server._tcp.example.com"]);
        assert_eq!(with("a"), ["_etcd-server-ssl-a._tcp.example.com", "_etcd-server-a._tcp.example.com"]);
    }
}
