//! What the gRPC services of all protocols share: dispatch by service name, limits on messages, raw responses.

pub mod body;
pub mod limit;

use crate::api::etcd::{self, Etcd};
use crate::pb::etcdserverpb::auth_server::AuthServer;
use crate::pb::etcdserverpb::cluster_server::ClusterServer;
use crate::pb::etcdserverpb::kv_server::KvServer;
use crate::pb::etcdserverpb::lease_server::LeaseServer;
use crate::pb::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::pb::health::health_server::HealthServer;
use bytes::Bytes;
use http::{Request, Response};
use limit::Limited;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;

/// An answer on its way.
pub type Reply = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// Every service on the client port. Cheap to clone: one for each connection.
#[derive(Clone)]
pub struct Front {
    etcd: Etcd,
    message_bytes_max: usize,
    kv: KvServer<Etcd>,
    lease: LeaseServer<Etcd>,
    cluster: ClusterServer<Etcd>,
    maintenance: MaintenanceServer<Etcd>,
    auth: AuthServer<Etcd>,
    health: HealthServer<Etcd>,
}

impl Front {
    /// The services over an adapter. Larger messages than `message_bytes_max` are refused.
    pub fn new(etcd: Etcd, message_bytes_max: usize) -> Front {
        // The limit is enforced by `Limited`, with etcd's error; tonic's own must not come first.
        Front {
            message_bytes_max,
            kv: KvServer::new(etcd.clone()).max_decoding_message_size(usize::MAX),
            lease: LeaseServer::new(etcd.clone()).max_decoding_message_size(usize::MAX),
            cluster: ClusterServer::new(etcd.clone()).max_decoding_message_size(usize::MAX),
            maintenance: MaintenanceServer::new(etcd.clone()).max_decoding_message_size(usize::MAX),
            auth: AuthServer::new(etcd.clone()).max_decoding_message_size(usize::MAX),
            health: HealthServer::new(etcd.clone()).max_decoding_message_size(usize::MAX),
            etcd,
        }
    }

    /// Size of the largest message that is not refused.
    pub fn message_bytes_max(&self) -> usize {
        self.message_bytes_max
    }
}

impl<B> Service<Request<B>> for Front
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Reply;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Reply {
        let limit = self.message_bytes_max;
        let request = request.map(|body| Limited::new(body, limit));
        let path = request.uri().path();
        let service =
            path.strip_prefix('/').and_then(|p| p.split_once('/')).map_or("", |(service, _)| service);
        match (service, path) {
            (_, "/etcdserverpb.KV/Range") => Box::pin(etcd::range::serve(self.etcd.clone(), request)),
            (_, "/etcdserverpb.Watch/Watch") => {
                Box::pin(std::future::ready(Ok(etcd::watch::serve(self.etcd.clone(), request))))
            }
            ("etcdserverpb.KV", _) => self.kv.call(request),
            ("etcdserverpb.Lease", _) => self.lease.call(request),
            ("etcdserverpb.Cluster", _) => self.cluster.call(request),
            ("etcdserverpb.Maintenance", _) => self.maintenance.call(request),
            ("etcdserverpb.Auth", _) => self.auth.call(request),
            ("grpc.health.v1.Health", _) => self.health.call(request),
            ("", _) => refuse("malformed method name".to_owned()),
            (unknown, _) => refuse(format!("unknown service {unknown}")),
        }
    }
}

/// The answer to a call of a service that is not there.
fn refuse(text: String) -> Reply {
    Box::pin(std::future::ready(Ok(Status::unimplemented(text).into_http())))
}
