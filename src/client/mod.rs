//! A client of etcd's API, for subcommands that ask a running server. No retries: what the server says is what the user
//! sees. Called by `cli` and `bench`.

pub mod peer;
pub mod raw;
pub mod save;
mod tls;

use crate::pb::etcdserverpb::AuthenticateRequest;
use crate::pb::etcdserverpb::auth_client::AuthClient;
use hyper_util::rt::TokioIo;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

pub use tonic::{Code, Status, Streaming};

/// Time for a connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What a server may send ahead of our reading: on one stream, and on a connection. Large, so that long answers flow.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Whom to ask, and as whom.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `host:port`, with `http://` or `https://` in front perhaps, or `unix://` and the path of a socket.
    pub endpoint: String,
    /// Name and password of a user.
    pub user: Option<(String, String)>,
    /// CA that the server's certificate must come from; the system's when there is none.
    pub ca: Option<PathBuf>,
    /// Certificate and key of this client.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Take any certificate.
    pub skip_verify: bool,
}

/// Why the server gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate, key or file can't be used.
    #[error("{0}")]
    File(String),
    /// There is no connection.
    #[error("cannot connect to {0}: {1}")]
    Connect(String, String),
    /// The server says no.
    #[error("{}", .0.message())]
    Server(#[from] Status),
    /// What came is not what a server sends.
    #[error("{0}")]
    Answer(String),
}

/// A connection, and the token of the user.
pub struct Connection {
    channel: Channel,
    token: Token,
}

/// What calls are made over: a connection whose calls carry the token. Cheap to clone.
pub type Link = InterceptedService<Channel, Token>;

/// A user's token, if there is a user.
#[derive(Clone, Default)]
pub struct Token(Option<MetadataValue<Ascii>>);

impl Interceptor for Token {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("token", token.clone());
        }
        Ok(request)
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Connection {
    /// Connects, and logs in if there is a user.
    pub async fn open(options: &Options) -> Result<Connection, Error> {
        let mut connection = Connection::open_as(options, Token::default()).await?;
        if let Some((name, password)) = &options.user {
            let request = AuthenticateRequest { name: name.clone(), password: password.clone() };
            let answer = AuthClient::new(connection.channel.clone()).authenticate(request).await?;
            let token = answer.into_inner().token.parse();
            let token = token.map_err(|_| Error::Answer("the server's token is no text".into()))?;
            connection.token = Token(Some(token));
        }
        Ok(connection)
    }

    /// Connects as somebody who has logged in on another connection.
    pub async fn open_as(options: &Options, token: Token) -> Result<Connection, Error> {
        let (scheme, address) = options.endpoint.split_once("://").unwrap_or(("", &options.endpoint));
        let wants_tls = options.ca.is_some() || options.certificate.is_some() || options.skip_verify;
        let connector = match scheme {
            "https" => Some(tls::Connector::new(options, address)?),
            "" if wants_tls => Some(tls::Connector::new(options, address)?),
            "" | "http" | "unix" => None,
            _ => return Err(Error::Connect(options.endpoint.clone(), "the scheme is none of ours".into())),
        };
        let failed = |e: &dyn std::error::Error| {
            let mut reason = e as &dyn std::error::Error;
            while let Some(source) = reason.source() {
                reason = source; // the outer ones say "transport error"
            }
            Error::Connect(options.endpoint.clone(), reason.to_string())
        };
        let is_unix = scheme == "unix";
        let authority = if is_unix { "localhost" } else { address };
        let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(|e| failed(&e))?;
        let address = address.to_owned();
        let connect = tower::service_fn(move |_| {
            let (address, connector) = (address.clone(), connector.clone());
            async move {
                let stream: Box<dyn Stream> = if is_unix {
                    Box::new(UnixStream::connect(address).await?)
                } else {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    match connector {
                        Some(connector) => Box::new(connector.connect(stream).await?),
                        None => Box::new(stream),
                    }
                };
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let channel = endpoint.connect_with_connector(connect).await.map_err(|e| failed(&e))?;
        Ok(Connection { channel, token })
    }

    /// The token of the user who logged in.
    pub fn token(&self) -> Token {
        self.token.clone()
    }

    /// What calls are made over.
    pub fn link(&self) -> Link {
        InterceptedService::new(self.channel.clone(), self.token.clone())
    }
}
