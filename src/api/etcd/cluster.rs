//! The Cluster service, as a cluster of one member answers. Adding another one is refused.

use super::{Etcd, error};
use crate::config::url::EndpointUrl;
use crate::engine::command;
use crate::pb::etcdserverpb::cluster_server::Cluster;
use crate::pb::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest,
    MemberUpdateResponse,
};
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
        let urls = request.get_ref().peer_ur_ls.clone();
        let urls: Vec<String> = urls
            .iter()
            .map(|url| EndpointUrl::parse(url).map(|url| url.to_string()))
            .collect::<Result<_, _>>()
            .map_err(|_| error::Error::BadMemberUrls)?;
        if urls.is_empty() {
            return Err(error::Error::BadMemberUrls.into());
        }
        self.require_root(&request)?;
        if self.engine.members().iter().any(|member| urls.iter().any(|url| member.peer_urls.contains(url))) {
            return Err(error::Error::PeerUrlExists.into());
        }
        Err(Status::failed_precondition("kvist does not support clusters of more than one member yet"))
    }

    /// This member is the last voter, which can't go (C-5).
    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        self.check(request.metadata())?;
        self.require_root(&request)?;
        self.known_member(request.into_inner().id)?;
        Err(error::Error::NotEnoughStarted.into())
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

    /// There are no learners (C-8).
    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        self.check(request.metadata())?;
        self.require_root(&request)?;
        self.known_member(request.into_inner().id)?;
        Err(error::Error::NotLearner.into())
    }
}

impl Etcd {
    fn members(&self) -> Vec<Member> {
        let member = |member: command::Member| Member {
            id: member.id,
            name: member.name,
            peer_ur_ls: member.peer_urls,
            client_ur_ls: member.client_urls,
            is_learner: member.is_learner,
        };
        self.engine.members().into_iter().map(member).collect()
    }

    pub(super) fn known_member(&self, id: u64) -> Result<(), Status> {
        let is_known = self.engine.members().iter().any(|member| member.id == id);
        if is_known { Ok(()) } else { Err(error::Error::MemberNotFound.into()) }
    }
}
