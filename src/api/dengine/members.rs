//! Who belongs to the cluster: discovery, which is the first thing that a client asks, and the stream of changes.
//!
//! The protocol knows a node by 32 bits, the cluster a member by 64: [`Ids`] is the one translation.

use super::{DEngine, error};
use crate::api::caller::Credentials;
use crate::config::url::{EndpointUrl, Scheme};
use crate::engine::Engine;
use crate::engine::command::Member;
use crate::engine::consensus::Membership;
use crate::pb::d_engine::client::MembershipSnapshot;
use crate::pb::d_engine::common::{NodeRole, NodeStatus};
use crate::pb::d_engine::server::cluster::cluster_management_service_server::ClusterManagementService;
use crate::pb::d_engine::server::cluster::{ClusterMembership, MetadataRequest, NodeMeta};
use crate::types::MemberId;
use futures_util::FutureExt;
use futures_util::stream::{self, Stream, StreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::pin::Pin;
use tonic::{Request, Response, Status};

/// Messages of a stream of memberships.
pub type Snapshots = Pin<Box<dyn Stream<Item = Result<MembershipSnapshot, Status>> + Send>>;

#[tonic::async_trait]
impl ClusterManagementService for DEngine {
    async fn get_cluster_metadata(
        &self,
        request: Request<MetadataRequest>,
    ) -> Result<Response<ClusterMembership>, Status> {
        self.require_user(&Credentials::of_call(&request))?;
        let leader = self.engine.status().leader;
        // In the middle of a change there is no such number, and nobody is to wait for it here.
        let version = self.engine.membership(None).now_or_never().map_or(0, |membership| membership.index);
        Ok(Response::new(metadata(&self.engine.members(), leader, version)))
    }
}

impl DEngine {
    /// The membership as it is, and as it comes to be, until the server stops.
    pub fn memberships(&self) -> Snapshots {
        let engine = self.engine.clone();
        let changes = stream::unfold((engine, None), |(engine, after)| async move {
            let membership = engine.membership(after).await;
            let snapshot = snapshot(&engine, &membership);
            Some((Ok(snapshot), (engine, Some(membership.index))))
        });
        let shutdown = self.shutdown.clone();
        let changes = changes.take_until(async move { shutdown.requested().await });
        Box::pin(changes.chain(stream::once(ready(Err(error::stopped())))))
    }
}

fn snapshot(engine: &Engine, membership: &Membership) -> MembershipSnapshot {
    let Membership { index, voters, learners } = membership;
    // The table of members changes before, or after, who takes part in consensus.
    let table = engine.members().into_iter().map(|member| member.id);
    let ids = Ids::of(table.chain(voters.iter().chain(learners).copied()));
    let translated = |of: &[MemberId]| of.iter().filter_map(|id| ids.get(*id)).collect();
    MembershipSnapshot {
        members: translated(voters),
        learners: translated(learners),
        committed_index: *index,
    }
}

/// The answer to discovery. Who has not said where clients reach it has an empty address, and is not named as the leader.
fn metadata(members: &[Member], leader: MemberId, version: u64) -> ClusterMembership {
    let ids = Ids::of(members.iter().map(|member| member.id));
    let node = |member: &Member| {
        let (role, status) = match (member.is_learner, member.id == leader) {
            (true, _) => (NodeRole::Learner, NodeStatus::Promotable),
            (false, true) => (NodeRole::Leader, NodeStatus::Active),
            (false, false) => (NodeRole::Follower, NodeStatus::Active),
        };
        let address = address(&member.client_urls).unwrap_or_default();
        Some(NodeMeta { id: ids.get(member.id)?, address, role: role as i32, status: status as i32 })
    };
    let nodes: Vec<NodeMeta> = members.iter().filter_map(node).collect();
    let is_reached = |id: &u32| nodes.iter().any(|node| node.id == *id && !node.address.is_empty());
    let current_leader_id = ids.get(leader).filter(is_reached);
    ClusterMembership { version, nodes, current_leader_id }
}

/// `host:port` of the first URL without TLS, which the crate does not speak, else of the first with it.
fn address(client_urls: &[String]) -> Option<String> {
    let urls: Vec<EndpointUrl> = client_urls.iter().filter_map(|url| EndpointUrl::parse(url).ok()).collect();
    let first = |scheme: Scheme| urls.iter().find(|url| url.scheme() == scheme);
    let url = first(Scheme::Http).or_else(|| first(Scheme::Https))?;
    Some(url.address().to_owned())
}

/// Ids of 32 bits for members: the low half of the member's id, or the next number that is free if it is 0 or taken. So
/// an id stays as long as the member, unless one comes or goes that has the same low half.
struct Ids(BTreeMap<MemberId, u32>);

impl Ids {
    /// Of these members, each of whom may be named more than once.
    fn of(members: impl IntoIterator<Item = MemberId>) -> Ids {
        let members: BTreeSet<MemberId> = members.into_iter().collect();
        let mut taken = BTreeSet::from([0]);
        let mut give = |member: MemberId| {
            let mut id = member as u32;
            while !taken.insert(id) {
                id = id.wrapping_add(1);
            }
            (member, id)
        };
        Ids(members.into_iter().map(&mut give).collect())
    }

    fn get(&self, member: MemberId) -> Option<u32> {
        self.0.get(&member).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(id: MemberId, urls: &[&str]) -> Member {
        let client_urls = urls.iter().map(|url| (*url).to_owned()).collect();
        Member { id, name: format!("m{id}"), client_urls, ..Member::default() }
    }

    #[test]
    fn a_leader_is_named_once_clients_can_reach_it() {
        let mut members = [member(5, &["http://10.0.0.1:2379"]), member(6, &[]), member(7, &["unix://x"])];
        members[0].is_learner = true;
        let found = metadata(&members, 6, 3);
        assert_eq!((found.nodes.len(), found.current_leader_id, found.version), (3, None, 3));
        assert_eq!(found.nodes[1].address, "");
        let node = &found.nodes[0];
        assert_eq!(
            (node.id, node.address.as_str(), node.role),
            (5, "10.0.0.1:2379", NodeRole::Learner as i32)
        );
        members[1].client_urls = vec!["http://10.0.0.2:2379".to_owned()];
        assert_eq!(metadata(&members, 6, 3).current_leader_id, Some(6));
        assert_eq!(metadata(&members, 0, 3).current_leader_id, None);
        assert_eq!(metadata(&members, 6, 3).nodes[1].role, NodeRole::Leader as i32);
    }

    #[test]
    fn clients_are_told_of_addresses_without_tls_first() {
        let of = |urls: &[&str]| address(&member(1, urls).client_urls);
        assert_eq!(of(&["https://a:1", "http://b:2"]).unwrap(), "b:2");
        assert_eq!(of(&["https://a:1", "unix://c"]).unwrap(), "a:1");
        assert_eq!(of(&["unix://c", "nonsense"]), None);
    }

    #[test]
    fn an_id_is_the_low_half_unless_it_is_taken() {
        let ids = Ids::of([0x1_0000_0005, 0x2_0000_0005, 0x3_0000_0000, 0x4_FFFF_FFFF, 0x5_FFFF_FFFF]);
        let found = [0x1_0000_0005, 0x2_0000_0005, 0x3_0000_0000, 0x4_FFFF_FFFF, 0x5_FFFF_FFFF]
            .map(|member| ids.get(member).unwrap());
        assert_eq!(found, [5, 6, 1, u32::MAX, 2]);
        assert_eq!(ids.get(7), None);
    }

    proptest! {
        #[test]
        fn ids_are_different_and_not_0(halves in prop::collection::btree_set((0u32..4, 0u32..4), 0..10)) {
            let members: Vec<MemberId> =
                halves.into_iter().map(|(high, low)| u64::from(high) << 32 | u64::from(low)).collect();
            let ids = Ids::of(members.iter().rev().copied());
            let found: BTreeSet<u32> = members.iter().filter_map(|member| ids.get(*member)).collect();
            prop_assert!(found.len() == members.len() && !found.contains(&0));
        }
    }
}
