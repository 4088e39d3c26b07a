//! What stands behind a listener: gRPC, plain HTTP, or both, told apart request by request. Made by `server` for each
//! listener, called by `connection`.

use super::caller::CommonName;
use super::connection::Accepted;
use super::grpc::{Front, Reply};
use super::http::Http;
use crate::metrics::peers::Peer;
use crate::metrics::traffic::Tally;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use std::convert::Infallible;
use std::sync::Arc;
use tonic::body::Body;
use tonic::service::Routes;
use tower_service::Service;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Door {
    grpc: Option<Grpc>,
    http: Option<Http>,
    callers: Option<Callers>,
}

/// Tells from the head of a request which other member it comes from.
pub type Callers = Arc<dyn Fn(&HeaderMap) -> Option<Arc<Peer>> + Send + Sync>;

/// Services for other members, whoever offers them.
pub type Members = Routes;

/// gRPC services.
#[derive(Clone)]
pub enum Grpc {
    /// Those for clients.
    Clients(Box<Front>),
    /// Those for other members.
    Members(Members),
}

impl Grpc {
    fn call(&self, request: Request<Incoming>) -> Reply {
        match self {
            Grpc::Clients(front) => Front::clone(front).call(request),
            Grpc::Members(routes) => {
                let mut routes = routes.clone();
                Box::pin(async move { routes.call(request).await })
            }
        }
    }
}

impl Door {
    /// What is served; at least one of the two.
    pub fn new(grpc: Option<Grpc>, http: Option<Http>) -> Door {
        Door { grpc, http, callers: None }
    }

    /// Counts the traffic of the members that `callers` recognizes.
    pub fn counting(self, callers: Callers) -> Door {
        Door { callers: Some(callers), ..self }
    }

    /// Whether HTTP/1, which gRPC cannot use, is of any use here.
    pub fn takes_http1(&self) -> bool {
        self.http.is_some()
    }

    /// Answers the requests of one connection.
    pub fn for_connection(self, accepted: Accepted) -> Requests {
        Requests { door: self, secure: accepted.is_secure(), caller: accepted.caller, tally: None }
    }
}

/// The requests of one connection, and what is known of their client.
#[derive(Clone)]
pub struct Requests {
    door: Door,
    secure: bool,
    caller: Option<CommonName>,
    /// What is counted of the connection.
    tally: Option<Arc<Tally>>,
}

impl Requests {
    /// Finds out whose connection it is for `tally`.
    pub fn counted(self, tally: Arc<Tally>) -> Requests {
        Requests { tally: Some(tally), ..self }
    }

    fn recognize(&self, headers: &HeaderMap) {
        let (Some(tally), Some(callers)) = (&self.tally, &self.door.callers) else { return };
        if !tally.is_known()
            && let Some(peer) = callers(headers)
        {
            tally.belongs_to(peer);
        }
    }
}

impl hyper::service::Service<Request<Incoming>> for Requests {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Reply;

    fn call(&self, mut request: Request<Incoming>) -> Reply {
        self.recognize(request.headers());
        if let Some(caller) = &self.caller {
            request.extensions_mut().insert(caller.clone());
        }
        match (&self.door.grpc, &self.door.http) {
            (Some(grpc), _) if is_grpc(&request) => grpc.call(request),
            (_, Some(http)) => {
                let (http, secure) = (http.clone(), self.secure);
                Box::pin(async move { Ok(http.serve(request, secure).await) })
            }
            _ => Box::pin(std::future::ready(Ok(not_grpc(&request)))),
        }
    }
}

fn is_grpc(request: &Request<Incoming>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    request.version() == Version::HTTP_2
        && content_type.is_some_and(|content_type| content_type.starts_with(b"application/grpc"))
}

/// The answer of a gRPC server to something else.
fn not_grpc(request: &Request<Incoming>) -> Response<Body> {
    let content_type = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let text = format!("invalid gRPC request content-type {:?}", String::from_utf8_lossy(content_type));
    let mut response = tonic::Status::invalid_argument(text).into_http::<Bytes>().map(|_| Body::empty());
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}
