//! The Lease service.

use super::kv::unexpected;
use super::{Etcd, error};
use crate::api::caller::Credentials;
use crate::engine::LEASE_COST;
use crate::engine::command::{Command, Outcome};
use crate::engine::renewals::RENEWALS_AHEAD;
use crate::pb::etcdserverpb::lease_server::Lease;
use crate::pb::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};
use futures_util::{Stream, StreamExt};
use std::pin::Pin;
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};

type KeepAlives = Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Lease for Etcd {
    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        self.check(request.metadata())?;
        self.engine.check_quota(LEASE_COST).await.map_err(error::status)?;
        self.require_user(&request)?;
        let origin = self.origin(&request)?;
        let LeaseGrantRequest { ttl, id } = request.into_inner();
        let (id, ttl, revision) = self.engine.lease_grant(origin, id, ttl).await.map_err(error::status)?;
        let header = Some(self.header(revision));
        Ok(Response::new(LeaseGrantResponse { header, id, ttl, error: String::new() }))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        self.check(request.metadata())?;
        self.require_user(&request)?;
        let origin = self.origin(&request)?;
        let ids = vec![request.into_inner().id];
        let command = Command::LeaseRevoke { ids, expired: false };
        match self.engine.write(origin, command).await.map_err(error::status)? {
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
        let headers = request.metadata().as_ref().clone();
        let credentials = Arc::new(Credentials::of(&headers, request.extensions()));
        let answers = request.into_inner().map(move |request| {
            let (etcd, credentials) = (etcd.clone(), Arc::clone(&credentials));
            async move { etcd.keep_alive(request?, &credentials).await }
        });
        let answers = answers.buffered(RENEWALS_AHEAD);
        let stopped = async move { shutdown.requested().await };
        Ok(Response::new(Box::pin(self.while_led(&headers, answers.take_until(stopped)))))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        self.check(request.metadata())?;
        self.require_user(&request)?;
        let caller = self.caller(&request)?;
        let LeaseTimeToLiveRequest { id, keys: with_keys } = request.into_inner();
        let wanted = if with_keys { vec![id] } else { Vec::new() };
        let mut permit = self.engine.permit_leases(caller.as_ref(), wanted).map_err(error::status)?;
        let mut response =
            LeaseTimeToLiveResponse { header: Some(self.header_now()), id, ttl: -1, ..Default::default() };
        let remaining = self.engine.lease_remaining(id).await.map_err(error::status)?;
        if let Some((remaining_ms, granted_secs)) = remaining {
            response.ttl = (remaining_ms / 1000) as i64;
            response.granted_ttl = granted_secs;
            if with_keys {
                let keys = self.engine.lease_keys(id).await.map_err(error::status)?;
                response.keys = keys.into_iter().map(Vec::from).collect();
                self.engine.still_permits(&mut permit).map_err(error::status)?;
            }
        }
        Ok(Response::new(response))
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        self.check(request.metadata())?;
        let caller = self.caller(&request)?;
        let ids = self.engine.leases();
        self.engine.permit_leases(caller.as_ref(), ids.clone()).map_err(error::status)?;
        let leases = ids.into_iter().map(|id| LeaseStatus { id }).collect();
        Ok(Response::new(LeaseLeasesResponse { header: Some(self.header_now()), leases }))
    }
}

impl Etcd {
    /// The header shows the revision before the renewal; an unknown lease is a TTL of 0, not an error (L-4).
    /// Who renews is found out for each request: tokens expire and permissions change while the stream lives.
    async fn keep_alive(
        &self,
        request: LeaseKeepAliveRequest,
        credentials: &Credentials,
    ) -> Result<LeaseKeepAliveResponse, Status> {
        let header = Some(self.header_now());
        let caller = self.caller_with(credentials)?;
        self.engine.permit_renewal(caller.as_ref(), request.id).map_err(error::status)?;
        let ttl = self.engine.lease_keep_alive(request.id).await.map_err(error::status)?;
        Ok(LeaseKeepAliveResponse { header, id: request.id, ttl })
    }
}
