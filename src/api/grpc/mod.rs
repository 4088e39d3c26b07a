//! What the gRPC services of all protocols share: dispatch by service name, limits on messages, raw responses.

pub mod body;
mod framing;
pub mod gathered;
pub mod limit;
mod meter;

use crate::api::etcd::{self, Etcd};
use crate::api::protocol::{self, Context as Setting, Serve};
use crate::metrics::grpc::Method;
use crate::pb::etcdserverpb::auth_server::AuthServer;
use crate::pb::etcdserverpb::cluster_server::ClusterServer;
use crate::pb::etcdserverpb::kv_server::KvServer;
use crate::pb::etcdserverpb::lease_server::LeaseServer;
use crate::pb::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::pb::health::health_server::HealthServer;
use crate::pb::v3electionpb::election_server::ElectionServer;
use crate::pb::v3lockpb::lock_server::LockServer;
use bytes::Bytes;
use http::{Request, Response};
use limit::Limited;
use meter::{Call, Metered};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
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
    slow_unary: Duration,
    kv: KvServer<Etcd>,
    lease: LeaseServer<Etcd>,
    cluster: ClusterServer<Etcd>,
    maintenance: MaintenanceServer<Etcd>,
    auth: AuthServer<Etcd>,
    lock: LockServer<Etcd>,
    election: ElectionServer<Etcd>,
    health: HealthServer<Etcd>,
    others: Vec<Other>,
}

/// A service of another protocol than etcd's.
#[derive(Clone)]
struct Other {
    name: &'static str,
    serve: Serve,
    is_for_learners: fn(&str) -> bool,
}

impl Front {
    /// The services of all protocols, etcd's by its adapter. Larger messages than `message_bytes_max` are refused; a unary call that takes
    /// longer than `slow_unary` is logged.
    pub fn new(etcd: Etcd, setting: &Setting, message_bytes_max: usize, slow_unary: Duration) -> Front {
        let others = protocol::enabled(&setting.settings).flat_map(|protocol| {
            let is_for_learners = protocol.is_for_learners;
            (protocol.open)(setting).into_iter().map(move |(name, serve)| Other {
                name,
                serve,
                is_for_learners,
            })
        });
        // The limit is enforced by `Limited`, with etcd's error; tonic's own must not come first.
        Front {
            message_bytes_max,
            slow_unary,
            kv: KvServer::new(etcd.clone()).max_decoding_message_size(usize::MAX),
            lease: LeaseServer::new(etcd.clone()).max_decoding_message_size(usize::MAX),
            cluster: ClusterServer::new(etcd.clone()).max_decoding_message_size(usize::MAX),
            maintenance: MaintenanceServer::new(etcd.clone()).max_decoding_message_size(usize::MAX),
            auth: AuthServer::new(etcd.clone()).max_decoding_message_size(usize::MAX),
            lock: LockServer::new(etcd.clone()).max_decoding_message_size(usize::MAX),
            election: ElectionServer::new(etcd.clone()).max_decoding_message_size(usize::MAX),
            health: HealthServer::new(etcd.clone()).max_decoding_message_size(usize::MAX),
            others: others.collect(),
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
        let (limit, method) = (self.message_bytes_max, Method::find(request.uri().path()));
        let call = method.map(|method| Call::begin(method, request.headers(), self.slow_unary));
        let request = request.map(|body| Limited::new(body, limit, method));
        let reply = match (method, self.etcd.token_ahead(request.headers())) {
            (None, _) => refuse_unknown(request.uri().path()),
            (Some(_), None) => self.dispatch(request),
            (Some(_), Some(entry)) => {
                let mut front = self.clone();
                Box::pin(async move {
                    front.etcd.until_known(entry).await;
                    front.dispatch(request).await
                })
            }
        };
        match call {
            Some(call) => Box::pin(Metered::new(reply, call)),
            None => reply,
        }
    }
}

impl Front {
    /// Serves a method that there is.
    fn dispatch<B>(&mut self, request: Request<Limited<B>>) -> Reply
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let path = request.uri().path();
        let (service, _) = split(path);
        let other = self.others.iter_mut().find(|other| other.name == service);
        let is_for_learners =
            other.as_ref().map_or(etcd::is_for_learners as _, |other| other.is_for_learners);
        if let Err(status) = self.etcd.check_role(path, is_for_learners) {
            return Box::pin(std::future::ready(Ok(status.into_http())));
        }
        if let Some(other) = other {
            return other.serve.call(request.map(Body::new));
        }
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
            ("v3lockpb.Lock", _) => self.lock.call(request),
            ("v3electionpb.Election", _) => self.election.call(request),
            ("grpc.health.v1.Health", _) => self.health.call(request),
            _ => refuse_unknown(path),
        }
    }
}

/// Service and method of a path; the service is empty if it names none.
fn split(path: &str) -> (&str, &str) {
    path.strip_prefix('/').and_then(|path| path.rsplit_once('/')).unwrap_or_default()
}

/// The answer to a call of what is not there, in the words of etcd's gRPC library.
fn refuse_unknown(path: &str) -> Reply {
    let text = match split(path) {
        ("", _) => "malformed method name".to_owned(),
        (service, method) if Method::is_service(service) => {
            format!("unknown method {method} for service {service}")
        }
        (service, _) => format!("unknown service {service}"),
    };
    Box::pin(std::future::ready(Ok(Status::unimplemented(text).into_http())))
}
