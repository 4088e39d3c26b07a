//! grpc.health.v1: the server as a whole, under the empty name, is serving.

use super::Etcd;
use crate::pb::health::health_check_response::ServingStatus;
use crate::pb::health::health_server::Health;
use crate::pb::health::{HealthCheckRequest, HealthCheckResponse};
use futures_util::stream::{self, Stream, StreamExt};
use std::pin::Pin;
use tonic::{Request, Response, Status};

type Updates = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Health for Etcd {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match request.into_inner().service.as_str() {
            "" => Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving as i32 })),
            _ => Err(Status::not_found("unknown service")),
        }
    }

    type WatchStream = Updates;

    /// The present status, and then whatever follows: nothing, until the server stops.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Updates>, Status> {
        let status = match request.into_inner().service.as_str() {
            "" => ServingStatus::Serving,
            _ => ServingStatus::ServiceUnknown,
        };
        let first = stream::once(async move { Ok(HealthCheckResponse { status: status as i32 }) });
        let shutdown = self.shutdown.clone();
        let updates = first.chain(stream::pending()).take_until(async move { shutdown.requested().await });
        Ok(Response::new(Box::pin(updates)))
    }
}
