//! Leases, and the keys that are attached to them.

use super::calls::Answers;
use super::error::{Answer, Error, Fault, unexpected};
use super::kv::Tokens;
use super::{Rfc, convert};
use crate::api::caller::Credentials;
use crate::engine::command::{Command, Op, OpOutcome, Outcome, Txn};
use crate::engine::{LEASE_COST, Origin};
use crate::pb::rfc::{
    LeaseAttachRequest, LeaseAttachResponse, LeaseCreateRequest, LeaseCreateResponse, LeaseKeepAliveRequest,
    LeaseKeepAliveResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseTnxRequest, LeaseTnxResponse,
};
use futures_util::StreamExt;
use std::sync::Arc;
use tonic::{Request, Status, Streaming};

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
        let answers = request.into_inner().then(move |request| {
            let (rfc, credentials) = (rfc.clone(), Arc::clone(&credentials));
            async move { rfc.keep_alive(request?, &credentials).await }
        });
        Box::pin(answers.take_until(async move { shutdown.requested().await }))
    }

    /// A lease that is not there is told of in the answer, and does not end the stream.
    async fn keep_alive(
        &self,
        request: LeaseKeepAliveRequest,
        credentials: &Credentials,
    ) -> Result<LeaseKeepAliveResponse, Status> {
        let lease = request.lease_id.unwrap_or(0);
        let header = self.header_now();
        let ttl = self.renew(lease, credentials).await.or_else(|fault| match fault {
            Fault::Refused(_) => Ok(0),
            Fault::Status(status) => Err(status),
        })?;
        let answer = if ttl > 0 {
            LeaseKeepAliveResponse { header: Some(header), ..Default::default() }
        } else {
            let index = self.engine.revision();
            Answer::refused(self.header_of_error(Error::LeaseNotFound.message(), index))
        };
        Ok(LeaseKeepAliveResponse { lease_id: Some(lease), ttl: Some(ttl), ..answer })
    }

    /// The TTL that a lease has again, seconds; 0 if it is no more.
    async fn renew(&self, lease: i64, credentials: &Credentials) -> Result<i64, Fault> {
        let caller = credentials.caller(&self.engine)?;
        self.engine.permit_renewal(caller.as_ref(), lease)?;
        Ok(self.engine.lease_keep_alive(lease).await?)
    }
}

fn extend(ops: &mut Vec<Op>, attachments: Vec<LeaseAttachRequest>) -> Result<(), Error> {
    for attachment in attachments {
        ops.push(convert::attach(attachment)?);
    }
    Ok(())
}
