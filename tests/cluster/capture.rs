//! What members say to each other: a proxy in front of a member's peer port, which others take for that member. It passes
//! on what comes, HTTP/2 or HTTP/1.1, and notes the path of every request; of calls of `wolf.raft` the request, too.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, client, server};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};

/// Where calls of `wolf.raft` go.
pub const WOLF: &str = "/wolf.raft.Raft/";
/// Bytes of a gRPC message in front of it: a flag and its length.
const PREFIX: usize = 5;

/// A request that passed by.
#[derive(Clone)]
pub struct Call {
    pub path: String,
    /// The message, if it is a call of `wolf.raft`.
    pub message: Bytes,
    /// `wolf-kind`, if it is there.
    pub kind: Option<String>,
}

/// What passed by all proxies that it was given to, in order.
#[derive(Clone, Default)]
pub struct Capture(Arc<Mutex<Vec<Call>>>);

type Body = Either<Full<Bytes>, Incoming>;

impl Capture {
    pub fn calls(&self) -> Vec<Call> {
        self.0.lock().clone()
    }

    pub fn paths(&self) -> BTreeSet<String> {
        self.0.lock().iter().map(|call| call.path.clone()).collect()
    }

    pub fn forget(&self) {
        self.0.lock().clear();
    }

    /// Passes on what comes to one URL to another one, for ever.
    pub async fn stand_before(&self, url: &str, behind: &str) {
        let address = |url: &str| url.strip_prefix("http://").expect("a URL of HTTP").to_owned();
        let listener = TcpListener::bind(address(url)).await.expect("listen");
        let (capture, behind) = (self.clone(), address(behind));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Whoever calls sees that the connection is closed when the member is not there.
                tokio::spawn(capture.clone().pass_on(stream, behind.clone()));
            }
        });
    }

    async fn pass_on(self, stream: TcpStream, behind: String) -> Option<()> {
        let mut begin = [0; 3];
        while stream.peek(&mut begin).await.ok()? < begin.len() {
            stream.readable().await.ok()?;
        }
        let member = TcpStream::connect(behind).await.ok()?;
        for side in [&stream, &member] {
            side.set_nodelay(true).ok()?;
        }
        let (stream, member) = (TokioIo::new(stream), TokioIo::new(member));
        // HTTP/2 begins with PRI, which is no method of HTTP/1.1.
        if &begin == b"PRI" {
            let (sender, connection) =
                client::conn::http2::handshake(TokioExecutor::new(), member).await.ok()?;
            let end = tokio::spawn(connection);
            let service = service_fn(move |request| {
                let (capture, mut sender) = (self.clone(), sender.clone());
                async move { sender.send_request(capture.note(request).await?).await }
            });
            let server = server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::select! {
                _ = server.serve_connection(stream, service) => {}
                _ = end => {}
            }
        } else {
            let (sender, connection) = client::conn::http1::handshake(member).await.ok()?;
            tokio::spawn(connection);
            let sender = Arc::new(tokio::sync::Mutex::new(sender));
            let service = service_fn(move |request| {
                let (capture, sender) = (self.clone(), Arc::clone(&sender));
                async move {
                    let request = capture.note(request).await?;
                    let answer: Result<Response<Incoming>, hyper::Error> =
                        sender.lock().await.send_request(request).await;
                    answer
                }
            });
            server::conn::http1::Builder::new().serve_connection(stream, service).await.ok()?;
        }
        Some(())
    }

    /// Takes note of a request. Streams go by unread.
    async fn note(&self, request: Request<Incoming>) -> Result<Request<Body>, hyper::Error> {
        let path = request.uri().path().to_owned();
        let kind = request.headers().get("wolf-kind");
        let kind = kind.map(|kind| kind.to_str().expect("ASCII").to_owned());
        let is_wolf = path.starts_with(WOLF);
        let (head, body) = request.into_parts();
        let (message, body) = if is_wolf {
            let whole = body.collect().await?.to_bytes();
            (whole.slice(PREFIX.min(whole.len())..), Either::Left(Full::new(whole)))
        } else {
            (Bytes::new(), Either::Right(body))
        };
        self.0.lock().push(Call { path, message, kind });
        Ok(Request::from_parts(head, body))
    }
}
