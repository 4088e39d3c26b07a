//! The client service: writes here, reads by `read`, streams by `watch` and `members`.

use super::{DEngine, convert, error, members, watch};
use crate::api::caller::Credentials;
use crate::engine::command::{Outcome, Refusal};
use crate::engine::{self, Caller, Origin};
use crate::pb::d_engine::client::raft_client_service_server::RaftClientService;
use crate::pb::d_engine::client::write_command::{Insert, Operation};
use crate::pb::d_engine::client::{
    ClientReadRequest, ClientResponse, ClientWriteRequest, ScanRequest, ScanResponse, WatchMembershipRequest,
    WatchRequest,
};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl RaftClientService for DEngine {
    async fn handle_client_write(
        &self,
        request: Request<ClientWriteRequest>,
    ) -> Result<Response<ClientResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let operation = request.into_inner().command.and_then(|command| command.operation);
        let operation = operation.ok_or_else(error::no_command)?;
        convert::check(&operation)?;
        let answer = match self.write(&credentials, operation).await {
            Ok(succeeded) => convert::written(succeeded),
            Err(refused) => error::answer(refused)?,
        };
        Ok(Response::new(answer))
    }

    async fn handle_client_read(
        &self,
        request: Request<ClientReadRequest>,
    ) -> Result<Response<ClientResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let ClientReadRequest { keys, consistency_policy, .. } = request.into_inner();
        let consistency = convert::Consistency::of(consistency_policy);
        let results = self.get(&credentials, keys, consistency).await?;
        Ok(Response::new(convert::read(results)))
    }

    async fn handle_client_scan(
        &self,
        request: Request<ScanRequest>,
    ) -> Result<Response<ScanResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let found = self.scan(&credentials, request.into_inner().prefix).await?;
        Ok(Response::new(found))
    }

    type WatchStream = watch::Events;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<watch::Events>, Status> {
        let credentials = Credentials::of_call(&request);
        self.begin_watch(&credentials, request.into_inner()).map(Response::new)
    }

    type WatchMembershipStream = members::Snapshots;

    async fn watch_membership(
        &self,
        request: Request<WatchMembershipRequest>,
    ) -> Result<Response<members::Snapshots>, Status> {
        self.require_user(&Credentials::of_call(&request))?;
        Ok(Response::new(self.memberships()))
    }
}

impl DEngine {
    /// Who sends a request.
    pub fn caller(&self, credentials: &Credentials) -> Result<Option<Caller>, Status> {
        credentials.caller(&self.engine).map_err(error::status)
    }

    /// Refuses a request of nobody in particular.
    pub fn require_user(&self, credentials: &Credentials) -> Result<(), Status> {
        let caller = self.caller(credentials)?;
        self.engine.permit_known(caller.as_ref()).map_err(error::status)
    }

    /// Gets a write done that passed its checks. False: a compare did not hold.
    async fn write(&self, credentials: &Credentials, operation: Operation) -> engine::Result<bool> {
        self.engine.check_quota(convert::cost(&operation)).await?;
        let origin = Origin::Client(credentials.caller(&self.engine)?);
        let outcome = match operation {
            Operation::Insert(insert) if insert.ttl_secs > 0 => self.write_leased(origin, insert).await?,
            other => self.engine.write(origin, convert::command(other, 0)).await?,
        };
        Ok(match outcome {
            Outcome::Txn(txn) => txn.succeeded,
            _ => true,
        })
    }

    /// Writes a key with a new lease, whose id nobody has yet.
    async fn write_leased(&self, origin: Origin, insert: Insert) -> engine::Result<Outcome> {
        loop {
            let lease = rand::random_range(1..=i64::MAX);
            let command = convert::command(Operation::Insert(insert.clone()), lease);
            match self.engine.write(origin.clone(), command).await {
                Err(engine::Error::Refused(Refusal::LeaseExists)) => {} // unlikely; choose again
                other => return other,
            }
        }
    }
}
