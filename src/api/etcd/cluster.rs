//! The Cluster service: listing members. Changing them comes with clusters of more than one.

use super::{Etcd, error};
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
        let members = self.engine.members().into_iter().map(|member| Member {
            id: member.id,
            name: member.name,
            peer_ur_ls: member.peer_urls,
            client_ur_ls: member.client_urls,
            is_learner: member.is_learner,
        });
        Ok(Response::new(MemberListResponse { header: Some(self.header(0)), members: members.collect() }))
    }

    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        self.require_root(&request)?;
        Err(absent("MemberAdd"))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        self.require_root(&request)?;
        Err(absent("MemberRemove"))
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        self.require_root(&request)?;
        Err(absent("MemberUpdate"))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        self.require_root(&request)?;
        Err(absent("MemberPromote"))
    }
}

/// An RPC that is not there yet.
pub(super) fn absent(rpc: &str) -> Status {
    Status::unimplemented(format!("kvist does not serve {rpc} yet"))
}
