//! The Lease service.

use super::kv::unexpected;
use super::{Etcd, error};
use crate::engine::command::{Command, Outcome};
use crate::engine::{LEASE_COST, LEASE_TTL_MAX_SECS};
use crate::pb::etcdserverpb::lease_server::Lease;
use crate::pb::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};
use futures_util::{Stream, StreamExt};
use std::pin::Pin;
use tonic::{Request, Response, Status, Streaming};

type KeepAlives = Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Lease for Etcd {
    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        self.check(request.metadata())?;
        let LeaseGrantRequest { ttl, id } = request.into_inner();
        self.engine.check_quota(LEASE_COST).await.map_err(error::status)?;
        if ttl > LEASE_TTL_MAX_SECS {
            return Err(error::Error::LeaseTtlTooLarge.into());
        }
        let (id, ttl, revision) = self.engine.lease_grant(id, ttl).await.map_err(error::status)?;
        let header = Some(self.header(revision));
        Ok(Response::new(LeaseGrantResponse { header, id, ttl, error: String::new() }))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        self.check(request.metadata())?;
        let ids = vec![request.into_inner().id];
        let command = Command::LeaseRevoke { ids, expired: false };
        match self.engine.write(command).await.map_err(error::status)? {
            // The revision that deleted the keys (L-3), whatever was written since.
            Outcome::Done { revision } => {
                Ok(Response::new(LeaseRevokeResponse { header: Some(self.header(revision)) }))
            }
            other => Err(unexpected(&other)),
        }
    }

    type LeaseKeepAliveStream = KeepAlives;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<KeepAlives>, Status> {
        self.check(request.metadata())?;
        let etcd = self.clone();
        let shutdown = self.shutdown.clone();
        let answers = request.into_inner().then(move |request| {
            let etcd = etcd.clone();
            async move { etcd.keep_alive(request?).await }
        });
        let stopped = async move { shutdown.requested().await };
        Ok(Response::new(Box::pin(answers.take_until(stopped))))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        self.check(request.metadata())?;
        let LeaseTimeToLiveRequest { id, keys: with_keys } = request.into_inner();
        let mut response =
            LeaseTimeToLiveResponse { header: Some(self.header_now()), id, ttl: -1, ..Default::default() };
        if let Some((remaining_ms, granted_secs)) = self.engine.lease_remaining(id) {
            response.ttl = (remaining_ms / 1000) as i64;
            response.granted_ttl = granted_secs;
            if with_keys {
                let keys = self.engine.lease_keys(id).await.map_err(error::status)?;
                response.keys = keys.into_iter().map(Vec::from).collect();
            }
        }
        Ok(Response::new(response))
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        self.check(request.metadata())?;
        let leases = self.engine.leases().into_iter().map(|id| LeaseStatus { id }).collect();
        Ok(Response::new(LeaseLeasesResponse { header: Some(self.header_now()), leases }))
    }
}

impl Etcd {
    /// The header shows the revision before the renewal; an unknown lease is a TTL of 0, not an error (L-4).
    async fn keep_alive(&self, request: LeaseKeepAliveRequest) -> Result<LeaseKeepAliveResponse, Status> {
        let header = Some(self.header_now());
        let ttl = self.engine.lease_keep_alive(request.id).await.map_err(error::status)?;
        Ok(LeaseKeepAliveResponse { header, id: request.id, ttl })
    }
}
