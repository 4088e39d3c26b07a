//! Writes, transactions and compaction.

use super::Rfc;
use super::convert;
use super::error::{Error, Fault, unexpected};
use crate::api::caller::Credentials;
use crate::engine::command::{Command, Op, Outcome, Txn, TxnOutcome};
use crate::engine::{self, Caller, Origin};
use crate::pb::rfc::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    TnxRequest, TnxResponse,
};
use tonic::Request;

impl Rfc {
    /// Who sent a request.
    pub(super) fn caller<T>(&self, request: &Request<T>) -> engine::Result<Option<Caller>> {
        if !self.engine.is_auth_enabled() {
            return Ok(None);
        }
        Credentials::of_call(request).caller(&self.engine)
    }

    pub(super) async fn try_put(&self, request: Request<PutRequest>) -> Result<PutResponse, Fault> {
        let caller = self.caller(&request)?;
        let put = convert::put(request.into_inner())?;
        self.engine.check_quota(convert::put_cost(&put)).await?;
        let txn = Txn { success: vec![Op::BoundPut(put)], ..Txn::default() };
        let outcome = self.write_txn(caller, txn).await?;
        Ok(PutResponse { header: Some(self.header(outcome.revision)) })
    }

    pub(super) async fn try_delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<DeleteRangeResponse, Fault> {
        let caller = self.caller(&request)?;
        let delete = convert::delete_range(request.into_inner())?;
        match self.engine.write(Origin::Client(caller), Command::DeleteRange(delete)).await? {
            Outcome::DeleteRange { revision, .. } => {
                Ok(DeleteRangeResponse { header: Some(self.header(revision)) })
            }
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn try_tnx(&self, request: Request<TnxRequest>) -> Result<TnxResponse, Fault> {
        let caller = self.caller(&request)?;
        let txn = convert::tnx(request.into_inner(), self.cluster(), self.txn_ops_max)?;
        let tokens = Tokens::of(&txn);
        let outcome = self.run(caller, txn).await?;
        Ok(self.tnx_response(outcome, &tokens))
    }

    /// Runs a transaction: by the log if it may change something.
    pub(super) async fn run(&self, caller: Option<Caller>, txn: Txn) -> Result<TxnOutcome, Fault> {
        if convert::is_read_only(&txn) {
            self.engine.read_index().await?;
            let mut permit = self.engine.permit_txn(caller.as_ref(), &txn)?;
            let outcome = self.engine.read_txn(txn).await?;
            self.engine.still_permits(&mut permit)?;
            return Ok(outcome);
        }
        self.engine.check_quota(convert::cost(&txn)).await?;
        self.write_txn(caller, txn).await
    }

    /// Gets a transaction through the log.
    pub(super) async fn write_txn(&self, caller: Option<Caller>, txn: Txn) -> Result<TxnOutcome, Fault> {
        match self.engine.write(Origin::Client(caller), Command::Txn(txn)).await? {
            Outcome::Txn(outcome) => Ok(outcome),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) fn tnx_response(&self, outcome: TxnOutcome, tokens: &Tokens) -> TnxResponse {
        let TxnOutcome { revision, succeeded, results } = outcome;
        let header = self.header(revision);
        let read_at = if succeeded { &tokens.success } else { &tokens.failure };
        let responses = convert::responses(results, read_at, &header, self.cluster());
        TnxResponse { header: Some(header), succeeded: Some(succeeded), responses }
    }

    pub(super) async fn try_compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<CompactionResponse, Fault> {
        let caller = self.caller(&request)?;
        self.engine.permit_root(caller.as_ref())?;
        let index = request.into_inner().index.unwrap_or(0);
        if index <= 0 {
            return Err(Error::Compacted.into()); // also of a store that never was
        }
        let revision = self.engine.compact(Origin::Client(caller), index, false).await?;
        Ok(CompactionResponse { header: Some(self.header(revision)) })
    }
}

/// What the reads of each list of a transaction read at, see [`convert::indexes_of_tokens`].
pub(super) struct Tokens {
    success: Vec<i64>,
    failure: Vec<i64>,
}

impl Tokens {
    /// Of a transaction that is about to run.
    pub fn of(txn: &Txn) -> Tokens {
        let success = convert::indexes_of_tokens(&txn.success);
        Tokens { success, failure: convert::indexes_of_tokens(&txn.failure) }
    }
}
