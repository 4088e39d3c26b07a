//! What a member tells over HTTP on its peer port: who belongs to its cluster. Asked by `server` when a member starts
//! without data.

use crate::config::EndpointUrl;
use crate::config::url::Scheme;
use crate::tls::client::{Connector, Protocol};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Bytes of an answer.
const ANSWER_MAX: usize = 1 << 20;
const CLUSTER_ID: &str = "x-etcd-cluster-id";
/// Only kvist says this.
const VERSION: &str = "x-kvist-version";

/// A cluster, as one of its members sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cluster {
    /// Its id.
    pub id: u64,
    /// Who belongs to it.
    pub members: Vec<Member>,
    /// Whether the member is one of kvist, and not of etcd.
    pub is_kvist: bool,
}

/// A member of it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Its name; empty until it has started.
    pub name: String,
    /// Where its peers reach it.
    #[serde(rename = "peerURLs")]
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has started.
    #[serde(rename = "clientURLs")]
    pub client_urls: Vec<String>,
    /// Whether it only receives the log.
    #[serde(rename = "isLearner")]
    pub is_learner: bool,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Asks the member at `url`. The caller bounds the time.
pub async fn cluster(url: &EndpointUrl, tls: Option<&Connector>) -> io::Result<Cluster> {
    let stream = TokioIo::new(connect(url, tls).await?);
    let (mut sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
    let asked = async {
        let host =
            if matches!(url.scheme(), Scheme::Http | Scheme::Https) { url.address() } else { "localhost" };
        let request = Request::get("/members").header(header::HOST, host);
        let request = request.body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let (parts, body) = response.into_parts();
        if parts.status != StatusCode::OK {
            return Err(io::Error::other(format!("it answers {}", parts.status)));
        }
        let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(io::Error::other)?;
        parse(&parts.headers, &body.to_bytes())
    };
    tokio::pin!(connection, asked);
    tokio::select! {
        answer = &mut asked => answer,
        // Whatever came before the end is still to be read; without it, the question fails.
        _ = &mut connection => asked.await,
    }
}

async fn connect(url: &EndpointUrl, tls: Option<&Connector>) -> io::Result<Box<dyn Stream>> {
    let stream: Box<dyn Stream> = match url.scheme() {
        Scheme::Http | Scheme::Https => Box::new(TcpStream::connect(url.address()).await?),
        Scheme::Unix | Scheme::Unixs => Box::new(UnixStream::connect(url.address()).await?),
    };
    match (url.scheme(), tls) {
        (Scheme::Http | Scheme::Unix, _) => Ok(stream),
        (_, Some(tls)) => Ok(Box::new(tls.connect(stream, url.host(), Protocol::Http1).await?)),
        (_, None) => Err(io::Error::other("there is no TLS between members")),
    }
}

fn parse(headers: &HeaderMap, body: &[u8]) -> io::Result<Cluster> {
    let id = headers.get(CLUSTER_ID).and_then(|id| u64::from_str_radix(id.to_str().ok()?, 16).ok());
    let id = id.ok_or_else(|| io::Error::other("its answer names no cluster"))?;
    let members = serde_json::from_slice(body).map_err(io::Error::other)?;
    Ok(Cluster { id, members, is_kvist: headers.contains_key(VERSION) })
}
