//! Leases, and the keys that are attached to them.

use super::calls::Answers;
use super::error::{Error, Fault, unexpected};
use super::kv::Tokens;
use super::{Rfc, convert};
use crate::api::caller::Credentials;
use crate::engine::command::{Command, Op, OpOutcome, Outcome, Txn};
use crate::engine::renewals::RENEWALS_AHEAD;
use crate::engine::{LEASE_COST, Origin};
use crate::pb::rfc::{
    LeaseAttachRequest, LeaseAttachResponse, LeaseCreateRequest, LeaseCreateResponse, LeaseKeepAliveRequest,
    LeaseKeepAliveResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseTnxRequest, LeaseTnxResponse,
};
use futures_util::StreamExt;
use std::sync::Arc;
use tonic::{Code, Request, Status, Streaming};

impl Rfc {
    /// The TTL that is asked for is a wish; the engine raises it to what a failover needs.
    pub(super) async fn try_lease_create(
        &self,
        request: Request<LeaseCreateRequest>,
    ) -> Result<LeaseCreateResponse, Fault> {
        let caller = self.caller(&request)?;
        self.engine.permit_known(caller.as_ref())?;
        self.engine.check_quota(LEASE_COST).await?;
        let ttl = request.into_inner().ttl.unwrap_or(0);
        let (id, ttl, revision) = self.engine.lease_grant(Origin::Client(caller), 0, ttl).await?;
        let header = Some(self.header(revision));
        Ok(LeaseCreateResponse { header, lease_id: Some(id), ttl: Some(ttl), error: None })
    }

    pub(super) async fn try_lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<LeaseRevokeResponse, Fault> {
        let caller = self.caller(&request)?;
        self.engine.permit_known(caller.as_ref())?;
        let ids = vec![request.into_inner().lease_id.unwrap_or(0)];
        let command = Command::LeaseRevoke { ids, expired: false };
        match self.engine.write(Origin::Client(caller), command).await? {
            Outcome::Done { revision } => Ok(LeaseRevokeResponse { header: Some(self.header(revision)) }),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn try_lease_attach(
        &self,
        request: Request<LeaseAttachRequest>,
    ) -> Result<LeaseAttachResponse, Fault> {
        let caller = self.caller(&request)?;
        let txn = Txn { success: vec![convert::attach(request.into_inner())?], ..Txn::default() };
        let outcome = self.run(caller, txn).await?;
        Ok(LeaseAttachResponse { header: Some(self.header(outcome.revision)) })
    }

    /// A transaction with attachments at the end of each list. If one of those that are to be made can't be, nothing
    /// is done at all.
    pub(super) async fn try_lease_tnx(
        &self,
        request: Request<LeaseTnxRequest>,
    ) -> Result<LeaseTnxResponse, Fault> {
        let caller = self.caller(&request)?;
        let LeaseTnxRequest { request, success, failure } = request.into_inner();
        if success.len().max(failure.len()) > self.txn_ops_max {
            return Err(Error::TooManyOps.into());
        }
        let mut txn = convert::tnx(request.unwrap_or_default(), self.cluster(), self.txn_ops_max)?;
        let tokens = Tokens::of(&txn);
        extend(&mut txn.success, success)?;
        extend(&mut txn.failure, failure)?;
        let mut outcome = self.run(caller, txn).await?;
        let is_attach = |result: &OpOutcome| matches!(result, OpOutcome::Attach { .. });
        let attached = outcome.results.extract_if(.., |result| is_attach(result)).count();
        let response = self.tnx_response(outcome, &tokens);
        let header = response.header.clone();
        let attach_responses = vec![LeaseAttachResponse { header: header.clone() }; attached];
        Ok(LeaseTnxResponse { header, response: Some(response), attach_responses })
    }

    /// Each request is answered in order; who may renew is found out each time. The server's stop ends the stream.
    pub(super) fn keep_alives(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Answers<LeaseKeepAliveResponse> {
        let (rfc, shutdown) = (self.clone(), self.shutdown.clone());
        let credentials = Arc::new(Credentials::of_call(&request));
        let answers = request.into_inner().map(move |request| {
            let (rfc, credentials) = (rfc.clone(), Arc::clone(&credentials));
            async move { rfc.keep_alive(request?, &credentials).await }
        });
        let answers = answers.buffered(RENEWALS_AHEAD);
        Box::pin(answers.take_until(async move { shutdown.requested().await }))
    }

    /// A lease that is not there is told of in the answer, and does not end the stream.
    async fn keep_alive(
        &self,
        request: LeaseKeepAliveRequest,
        credentials: &Credentials,
    ) -> Result<LeaseKeepAliveResponse, Status> {
        let lease = request.lease_id.unwrap_or(0);
        let index = self.engine.revision();
        let (header, ttl) = match self.renew(lease, credentials).await {
            Ok(ttl) => (self.header(index), ttl),
            Err(Fault::Refused(error)) => (self.header_of_error(error.message(), index), 0),
            // It concerns this lease, not the others of the stream.
            Err(Fault::Status(status)) if status.code() == Code::PermissionDenied => {
                (self.header_of_error(status.message(), index), 0)
            }
            Err(Fault::Status(status)) => return Err(status),
        };
        Ok(LeaseKeepAliveResponse { header: Some(header), lease_id: Some(lease), ttl: Some(ttl) })
    }

    /// The TTL that a lease has again, seconds.
    async fn renew(&self, lease: i64, credentials: &Credentials) -> Result<i64, Fault> {
        let caller = credentials.caller(&self.engine)?;
        self.engine.permit_renewal(caller.as_ref(), lease)?;
        let ttl = self.engine.lease_keep_alive(lease).await?;
        if ttl > 0 { Ok(ttl) } else { Err(Error::LeaseNotFound.into()) }
    }
}

fn extend(ops: &mut Vec<Op>, attachments: Vec<LeaseAttachRequest>) -> Result<(), Error> {
    for attachment in attachments {
        ops.push(convert::attach(attachment)?);
    }
    Ok(())
}
