//! The Cluster service: who belongs to the cluster. What the changes mean for a majority, the engine judges.

use super::{Etcd, error};
use crate::config::ids;
use crate::config::url::EndpointUrl;
use crate::engine::command;
use crate::pb::etcdserverpb::cluster_server::Cluster;
use crate::pb::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest,
    MemberUpdateResponse,
};
use std::time::{SystemTime, UNIX_EPOCH};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Cluster for Etcd {
    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        self.check(request.metadata())?;
        if request.get_ref().linearizable {
            self.engine.read_index().await.map_err(error::status)?;
        }
        self.require_user(&request)?;
        Ok(Response::new(MemberListResponse { header: Some(self.header(0)), members: self.members() }))
    }

    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        self.check(request.metadata())?;
        let urls = request.get_ref().peer_ur_ls.iter().map(|url| EndpointUrl::parse(url));
        let urls: Vec<_> = urls.collect::<Result<_, _>>().map_err(|_| error::Error::BadMemberUrls)?;
        if urls.is_empty() {
            return Err(error::Error::BadMemberUrls.into());
        }
        self.require_root(&request)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut peer_urls: Vec<String> = urls.iter().map(ToString::to_string).collect();
        peer_urls.sort();
        let added = command::Member {
            id: ids::added_member_id(&urls, now.as_secs()),
            peer_urls,
            is_learner: request.get_ref().is_learner,
            ..command::Member::default()
        };
        self.engine.add_member(added.clone()).await.map_err(error::status)?;
        Ok(Response::new(MemberAddResponse {
            header: Some(self.header(0)),
            member: Some(member(added)),
            members: self.members(),
        }))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        self.check(request.metadata())?;
        self.require_root(&request)?;
        self.engine.remove_member(request.into_inner().id).await.map_err(error::status)?;
        Ok(Response::new(MemberRemoveResponse { header: Some(self.header(0)), members: self.members() }))
    }

    /// The URLs are taken as they come (C-7).
    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        self.check(request.metadata())?;
        self.require_root(&request)?;
        let MemberUpdateRequest { id, peer_ur_ls: urls } = request.into_inner();
        self.engine.update_member(id, urls).await.map_err(error::status)?;
        Ok(Response::new(MemberUpdateResponse { header: Some(self.header(0)), members: self.members() }))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        self.check(request.metadata())?;
        self.require_root(&request)?;
        self.engine.promote_member(request.into_inner().id).await.map_err(error::status)?;
        Ok(Response::new(MemberPromoteResponse { header: Some(self.header(0)), members: self.members() }))
    }
}

impl Etcd {
    fn members(&self) -> Vec<Member> {
        self.engine.members().into_iter().map(member).collect()
    }
}

fn member(member: command::Member) -> Member {
    Member {
        id: member.id,
        name: member.name,
        peer_ur_ls: member.peer_urls,
        client_ur_ls: member.client_urls,
        is_learner: member.is_learner,
    }
}
