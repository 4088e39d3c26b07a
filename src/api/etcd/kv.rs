//! The KV service, but for `Range`, which `range` serves.

use super::{Etcd, check, convert, error, range_stream};
use crate::engine::command::{Command, Outcome, Txn, TxnOutcome};
use crate::engine::{self, Caller, Origin};
use crate::pb::etcdserverpb::kv_server::Kv;
use crate::pb::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use tonic::{Request, Response, Status};

impl Etcd {
    async fn write(&self, origin: Origin, command: Command) -> Result<Outcome, Status> {
        self.engine.write(origin, command).await.map_err(error::status)
    }

    async fn read_txn(&self, caller: Option<Caller>, txn: Txn) -> engine::Result<TxnOutcome> {
        let mut permit = self.engine.permit_txn(caller.as_ref(), &txn)?;
        let outcome = self.engine.read_txn(txn).await?;
        self.engine.still_permits(&mut permit)?;
        Ok(outcome)
    }

    /// The quota comes before the checks of the request, as in etcd (KV-P8).
    async fn check_quota(&self, cost: u64) -> Result<(), Status> {
        self.engine.check_quota(cost).await.map_err(error::status)
    }
}

#[tonic::async_trait]
impl Kv for Etcd {
    async fn range(&self, _request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        Err(Status::internal("Range is served without generated code"))
    }

    type RangeStreamStream = range_stream::Chunks;

    async fn range_stream(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<range_stream::Chunks>, Status> {
        self.check(request.metadata())?;
        check::range_stream(request.get_ref())?;
        if !request.get_ref().serializable {
            self.engine.read_index().await.map_err(error::status)?;
        }
        let caller = self.caller(&request)?;
        let query = convert::range(request.into_inner());
        let permit = self.engine.permit_range(caller.as_ref(), &query.range).map_err(error::status)?;
        range_stream::Chunks::begin(self.clone(), query, permit).map(Response::new)
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        self.check(request.metadata())?;
        self.check_quota(convert::put_cost(request.get_ref())).await?;
        check::put(request.get_ref())?;
        let origin = self.origin(&request)?;
        match self.write(origin, Command::Put(convert::put(request.into_inner()))).await? {
            Outcome::Put { revision, previous } => {
                let prev_kv = previous.as_ref().map(convert::kv);
                Ok(Response::new(PutResponse { header: Some(self.header(revision)), prev_kv }))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        self.check(request.metadata())?;
        check::delete_range(request.get_ref())?;
        let origin = self.origin(&request)?;
        let delete = convert::delete_range(request.into_inner());
        match self.write(origin, Command::DeleteRange(delete)).await? {
            Outcome::DeleteRange { revision, deleted, previous } => Ok(Response::new(DeleteRangeResponse {
                header: Some(self.header(revision)),
                deleted,
                prev_kvs: previous.iter().map(convert::kv).collect(),
            })),
            other => Err(unexpected(&other)),
        }
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        self.check(request.metadata())?;
        let txn = request.get_ref();
        self.check_quota(convert::txn_cost(txn)).await?;
        check::txn(txn, self.txn_ops_max)?;
        let is_read_only = convert::is_read_only(txn);
        if is_read_only && !convert::is_serializable(txn) {
            self.engine.read_index().await.map_err(error::status)?;
        }
        let caller = self.caller(&request)?;
        let txn = convert::txn(request.into_inner());
        let outcome = if is_read_only {
            self.read_txn(caller, txn).await.map_err(error::status)?
        } else {
            match self.write(Origin::Client(caller), Command::Txn(txn)).await? {
                Outcome::Txn(outcome) => outcome,
                other => return Err(unexpected(&other)),
            }
        };
        let header = self.header(outcome.revision);
        Ok(Response::new(convert::txn_response(&outcome, header)))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        self.check(request.metadata())?;
        self.require_root(&request)?;
        let origin = self.origin(&request)?;
        let CompactionRequest { revision, physical } = request.into_inner();
        let revision = self.engine.compact(origin, revision, physical).await.map_err(error::status)?;
        Ok(Response::new(CompactionResponse { header: Some(self.header(revision)) }))
    }
}

/// The applier answers each command with its own kind of outcome.
pub(super) fn unexpected(outcome: &Outcome) -> Status {
    Status::internal(format!("the outcome is of another command: {outcome:?}"))
}
