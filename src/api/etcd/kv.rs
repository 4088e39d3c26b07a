//! The KV service, but for `Range`, which `range` serves.

use super::{Etcd, check, convert, error, range_stream};
use crate::engine::command::{Command, Outcome};
use crate::pb::etcdserverpb::kv_server::Kv;
use crate::pb::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use tonic::{Request, Response, Status};

impl Etcd {
    async fn write(&self, command: Command) -> Result<Outcome, Status> {
        self.engine.write(command).await.map_err(error::status)
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
        let request = request.into_inner();
        check::range_stream(&request)?;
        if !request.serializable {
            self.engine.read_index().await.map_err(error::status)?;
        }
        range_stream::Chunks::begin(self.clone(), convert::range(request)).map(Response::new)
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        self.check(request.metadata())?;
        let request = request.into_inner();
        self.check_quota(convert::put_cost(&request)).await?;
        check::put(&request)?;
        match self.write(Command::Put(convert::put(request))).await? {
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
        let request = request.into_inner();
        check::delete_range(&request)?;
        match self.write(Command::DeleteRange(convert::delete_range(request))).await? {
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
        let request = request.into_inner();
        self.check_quota(convert::txn_cost(&request)).await?;
        check::txn(&request, self.txn_ops_max)?;
        let is_read_only = convert::is_read_only(&request);
        if is_read_only && !convert::is_serializable(&request) {
            self.engine.read_index().await.map_err(error::status)?;
        }
        let txn = convert::txn(request);
        let outcome = if is_read_only {
            self.engine.read_txn(txn).await.map_err(error::status)?
        } else {
            match self.write(Command::Txn(txn)).await? {
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
        let CompactionRequest { revision, physical } = request.into_inner();
        let revision = self.engine.compact(revision, physical).await.map_err(error::status)?;
        Ok(Response::new(CompactionResponse { header: Some(self.header(revision)) }))
    }
}

/// The applier answers each command with its own kind of outcome.
pub(super) fn unexpected(outcome: &Outcome) -> Status {
    Status::internal(format!("the outcome is of another command: {outcome:?}"))
}
