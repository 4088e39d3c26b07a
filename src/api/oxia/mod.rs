//! Oxia's early client protocol: a batch of its requests becomes a batch of the engine's transactions, and back.
//! `docs/protocols/oxia.md` says what the protocol leaves open, and what is made of it here.
//!
//! One batch that writes is one entry of the log. What it reads comes after all that it writes, so it is read at the
//! batch's own revision by this member alone, and costs neither the log nor the other members anything.

mod assignments;
mod convert;
mod shards;

use super::caller::Credentials;
use super::etcd::error;
use super::protocol::{Context, Protocol, Serve};
use crate::engine::command::{Batch, Command, Outcome, TxnOutcome};
use crate::engine::{self, Engine, Origin};
use crate::metrics::grpc::{SERVER, UNARY};
use crate::pb::oxia::oxia_client_server::{OxiaClient, OxiaClientServer};
use crate::pb::oxia::{BatchRequest, BatchResponse, ShardAssignmentsRequest};
use assignments::{Assignments, Lead};
use convert::Plan;
use shards::Shards;
use tonic::{Request, Response, Status};

/// The protocol.
pub const PROTOCOL: Protocol = Protocol {
    name: "oxia",
    services: &[(SERVICE, &[("ShardAssignments", SERVER), ("Batch", UNARY)])],
    is_for_learners: |path| path.ends_with("/ShardAssignments"),
    open,
};

const SERVICE: &str = "io.streamnative.oxia.client.OxiaClient";

/// The adapter. Cheap to clone.
#[derive(Clone)]
struct Oxia {
    engine: Engine,
    shards: Shards,
    lead: Lead,
}

fn open(context: &Context) -> Vec<(&'static str, Serve)> {
    let oxia = Oxia {
        engine: context.engine.clone(),
        shards: Shards::new(context.settings.oxia_shards),
        lead: Lead::watch(context.engine.clone(), context.shutdown.clone()),
    };
    // What is too long was refused before it comes here, by `grpc::limit`.
    let server = OxiaClientServer::new(oxia).max_decoding_message_size(usize::MAX);
    vec![(SERVICE, Serve::new(server))]
}

#[tonic::async_trait]
impl OxiaClient for Oxia {
    type ShardAssignmentsStream = Assignments;

    async fn shard_assignments(
        &self,
        request: Request<ShardAssignmentsRequest>,
    ) -> Result<Response<Assignments>, Status> {
        let caller = Credentials::of_call(&request).caller(&self.engine).map_err(error::status)?;
        self.engine.permit_known(caller.as_ref()).map_err(error::status)?;
        Ok(Response::new(self.lead.assignments(self.shards.clone())))
    }

    async fn batch(&self, request: Request<BatchRequest>) -> Result<Response<BatchResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let request = request.into_inner();
        let slice = self.shards.slice_of(&request).map_err(Status::invalid_argument)?;
        self.engine.check_quota(convert::cost(&request)).await.map_err(error::status)?;
        let Plan { writes, reads, questions } = Plan::of(request, slice);
        let (written, read) = self.run(&credentials, writes, reads).await.map_err(error::status)?;
        let answer = questions.answer(written, read);
        answer.map(Response::new).ok_or_else(|| Status::internal("the outcome is of another command"))
    }
}

impl Oxia {
    /// Writes, then reads what is there afterwards.
    async fn run(
        &self,
        credentials: &Credentials,
        writes: Batch,
        reads: Batch,
    ) -> engine::Result<(Vec<TxnOutcome>, Vec<TxnOutcome>)> {
        let is_read_only = writes.txns.is_empty();
        if is_read_only {
            self.engine.read_index().await?;
        }
        let caller = credentials.caller(&self.engine)?;
        // Asked before anything is written: a batch whose reads are refused does nothing.
        let permits = reads.txns.iter().map(|txn| self.engine.permit_txn(caller.as_ref(), txn));
        let mut permits = permits.collect::<engine::Result<Vec<_>>>()?;
        let (written, revision) =
            if is_read_only { (Vec::new(), 0) } else { self.write(Origin::Client(caller), writes).await? };
        if reads.txns.is_empty() {
            return Ok((written, Vec::new()));
        }
        let read = self.engine.read_batch_at(reads, revision).await?;
        permits.iter_mut().try_for_each(|permit| self.engine.still_permits(permit))?;
        Ok((written, read))
    }

    /// What became of each transaction, and the revision behind them all.
    async fn write(&self, origin: Origin, mut writes: Batch) -> engine::Result<(Vec<TxnOutcome>, i64)> {
        let command = match (writes.txns.pop(), writes.txns.is_empty(), writes.slice) {
            // One alone needs no batch around it.
            (Some(txn), true, None) => Command::Txn(txn),
            (last, _, _) => {
                writes.txns.extend(last);
                Command::Batch(writes)
            }
        };
        match self.engine.write(origin, command).await? {
            Outcome::Txn(outcome) => {
                let revision = outcome.revision;
                Ok((vec![outcome], revision))
            }
            // None of these transactions asks for anything that could be refused by itself.
            Outcome::Batch { revision, outcomes } => {
                Ok((outcomes.into_iter().collect::<Result<_, _>>()?, revision))
            }
            other => Err(engine::Error::Peer(format!("the outcome is of another command: {other:?}"))),
        }
    }
}
