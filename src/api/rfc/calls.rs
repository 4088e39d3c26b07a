//! The service: which call is served by what. Reads and watches are served without generated code, since their answers
//! are written straight from storage.

use super::{Rfc, range, watch};
use crate::pb::rfc as pb;
use crate::pb::rfc::etcd_server::{Etcd, EtcdServer};
use futures_util::Stream;
use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::{Request, Response, Status, Streaming};
use tower_service::Service;

/// The service behind all paths.
#[derive(Clone)]
pub struct Calls {
    rfc: Rfc,
    generated: EtcdServer<Rfc>,
}

impl Calls {
    /// Of this adapter. The length of messages is limited before they come here.
    pub fn new(rfc: Rfc) -> Calls {
        Calls { generated: EtcdServer::new(rfc.clone()).max_decoding_message_size(usize::MAX), rfc }
    }
}

type Reply = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl Service<http::Request<Body>> for Calls {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Reply;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Reply {
        match request.uri().path() {
            "/etcd/Range" => Box::pin(range::serve(self.rfc.clone(), request)),
            "/etcd/WatchRange" => Box::pin(ready(Ok(watch::serve(self.rfc.clone(), request)))),
            _ => self.generated.call(request),
        }
    }
}

/// Answers of a stream.
pub type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Etcd for Rfc {
    async fn range(&self, _: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        Err(Status::internal("Range is served without generated code"))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        self.answer(self.try_put(request).await)
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        self.answer(self.try_delete_range(request).await)
    }

    async fn tnx(&self, request: Request<pb::TnxRequest>) -> Result<Response<pb::TnxResponse>, Status> {
        self.answer(self.try_tnx(request).await)
    }

    type WatchRangeStream = Answers<pb::WatchRangeResponse>;

    async fn watch_range(
        &self,
        _: Request<Streaming<pb::WatchRangeRequest>>,
    ) -> Result<Response<Self::WatchRangeStream>, Status> {
        Err(Status::internal("WatchRange is served without generated code"))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        self.answer(self.try_compact(request).await)
    }

    async fn lease_create(
        &self,
        request: Request<pb::LeaseCreateRequest>,
    ) -> Result<Response<pb::LeaseCreateResponse>, Status> {
        self.answer(self.try_lease_create(request).await)
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        self.answer(self.try_lease_revoke(request).await)
    }

    async fn lease_attach(
        &self,
        request: Request<pb::LeaseAttachRequest>,
    ) -> Result<Response<pb::LeaseAttachResponse>, Status> {
        self.answer(self.try_lease_attach(request).await)
    }

    async fn lease_tnx(
        &self,
        request: Request<pb::LeaseTnxRequest>,
    ) -> Result<Response<pb::LeaseTnxResponse>, Status> {
        self.answer(self.try_lease_tnx(request).await)
    }

    type LeaseKeepAliveStream = Answers<pb::LeaseKeepAliveResponse>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        Ok(Response::new(self.keep_alives(request)))
    }
}
