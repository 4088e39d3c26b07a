//! grpc.health.v1: the server as a whole, under the empty name. It serves all the time, but for defragmentation behind the
//! gate `StopGRPCServiceOnDefrag`, which wants clients to go elsewhere meanwhile.

use super::Etcd;
use crate::pb::health::health_check_response::ServingStatus;
use crate::pb::health::health_server::Health;
use crate::pb::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};
use futures_util::stream::{self, Stream, StreamExt};
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

type Updates = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

/// What health checks are told. Cheap to clone.
#[derive(Clone)]
pub(super) struct Serving {
    status: Arc<watch::Sender<ServingStatus>>,
    stops_on_defrag: bool,
}

impl Serving {
    pub(super) fn new(stops_on_defrag: bool) -> Serving {
        Serving { status: Arc::new(watch::Sender::new(ServingStatus::Serving)), stops_on_defrag }
    }

    /// To be held while the member defragments.
    pub(super) fn defragmenting(&self) -> Defragmenting<'_> {
        if self.stops_on_defrag {
            self.tell(ServingStatus::NotServing);
        }
        Defragmenting(self)
    }

    fn tell(&self, status: ServingStatus) {
        self.status.send_if_modified(|known| {
            let is_new = *known != status;
            if is_new {
                tracing::info!(status = status.as_str_name(), "grpc service status changed");
            }
            *known = status;
            is_new
        });
    }
}

/// See [`Serving::defragmenting`].
pub(super) struct Defragmenting<'s>(&'s Serving);

impl Drop for Defragmenting<'_> {
    fn drop(&mut self) {
        self.0.tell(ServingStatus::Serving);
    }
}

#[tonic::async_trait]
impl Health for Etcd {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match request.into_inner().service.as_str() {
            "" => Ok(Response::new(told(*self.serving.status.borrow()))),
            _ => Err(Status::not_found("unknown service")),
        }
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        let statuses = [(String::new(), told(*self.serving.status.borrow()))].into();
        Ok(Response::new(HealthListResponse { statuses }))
    }

    type WatchStream = Updates;

    /// The present status, and then every change, until the server stops.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Updates>, Status> {
        let updates: Updates = match request.into_inner().service.as_str() {
            "" => {
                let mut status = self.serving.status.subscribe();
                status.mark_changed();
                let changes = stream::unfold(status, |mut status| async {
                    status.changed().await.ok()?;
                    let now = *status.borrow_and_update();
                    Some((Ok(told(now)), status))
                });
                Box::pin(changes)
            }
            _ => {
                let first = stream::once(async { Ok(told(ServingStatus::ServiceUnknown)) });
                Box::pin(first.chain(stream::pending()))
            }
        };
        let shutdown = self.shutdown.clone();
        let updates = updates.take_until(async move { shutdown.requested().await });
        Ok(Response::new(Box::pin(updates)))
    }
}

fn told(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}
