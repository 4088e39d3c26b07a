//! Who this member is, and with whom it founds a cluster. Called by `member`.

use super::Error;
use crate::config::{Config, ids};
use crate::engine::Identity;
use crate::engine::command::Member;
use crate::identity;
use crate::tls::client::Connector;

/// What a member starts with.
pub struct Founding {
    /// Who it is.
    pub identity: Identity,
    /// The first members.
    pub members: Vec<Member>,
    /// Whether they are to found the cluster.
    pub is_new: bool,
}

/// stand-in
pub async fn resolve(config: &Config) -> Result<Founding, Error> {
    let member_dir = config.member_dir();
    let is_new = !identity::is_known(&member_dir);
    let identity = identity::load_or_create(&member_dir, || Identity {
        cluster: config.cluster.cluster_id(),
        member: config.cluster.member_id(),
    })?;
    let members = config
        .cluster
        .initial
        .iter()
        .map(|(name, urls)| Member {
            id: ids::member_id(urls, &config.cluster.token),
            name: name.clone(),
            peer_urls: urls.iter().map(ToString::to_string).collect(),
            ..Member::default()
        })
        .collect();
    Ok(Founding { identity, members, is_new })
}

/// stand-in
pub fn connector(_config: &Config) -> Result<Option<Connector>, Error> {
    Ok(None)
}
