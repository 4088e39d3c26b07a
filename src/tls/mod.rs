//! TLS by the rules of etcd's flags, with files that are read again when they change.
//!
//! An [`Endpoint`] stands for the files of one kind of listener. Each handshake looks whether they changed, so that
//! certificates, roots and revocations can be replaced while connections stay open; files that can't be used leave the
//! former ones in place. Who a client is, and whether it may come in, is decided before its first byte is read.
//! Knows `config` only. Called by `api::listen`.

pub mod auto;
mod check;
pub mod client;
mod material;
mod reload;
mod verify;

use crate::config::{TlsFiles, TlsRules, TlsVersion};
use check::Identity;
use material::Revocations;
use reload::Watched;
use rustls::SupportedProtocolVersion;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{Acceptor, ServerConfig, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use verify::Verifier;

/// A connection with TLS.
pub type Stream<S> = tokio_rustls::server::TlsStream<S>;

/// How long a client may take until it is let in.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes in progress at one endpoint; more wait, within their time.
const HANDSHAKES_MAX: usize = 1024;
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Why files can't be used. The text names the file.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl Error {
    fn new(text: impl Into<String>) -> Error {
        Error(text.into())
    }
}

/// For whom an endpoint is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Audience {
    /// Clients. They may come from anywhere.
    Clients,
    /// Readers of metrics. Their certificates name where they come from, if they name any host.
    Metrics,
    /// Other members. The same, unless the flags say otherwise.
    Members,
}

/// See the module.
pub struct Endpoint {
    config: Watched<ServerConfig>,
    revocations: Option<Watched<Revocations>>,
    files: TlsFiles,
    check_addresses: bool,
    audience: Audience,
    handshakes: Semaphore,
}

/// A client that was let in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Client {
    /// Whether it speaks HTTP/2.
    pub http2: bool,
    /// Common name of its certificate, where that is its name: with `client-cert-auth`.
    pub common_name: Option<Arc<str>>,
}

impl Endpoint {
    /// Reads the files. A list of revocations that can't be read does not fail here: then nobody who shows a
    /// certificate is let in, as at etcd.
    pub fn open(files: &TlsFiles, rules: &TlsRules, audience: Audience) -> Result<Endpoint, Error> {
        let paths = [&files.cert, &files.key, &files.trusted_ca];
        let load = {
            let (files, rules) = (files.clone(), rules.clone());
            move || server_config(&files, &rules)
        };
        if !files.client_cert.is_empty() {
            material::certified_key(&files.client_cert, &files.client_key)?;
        }
        let revocations = (!files.crl.is_empty()).then(|| {
            let path = files.crl.clone();
            let load = move || material::revocations(&path);
            Watched::open(&[&files.crl], load, Some(Revocations::Unreadable))
        });
        Ok(Endpoint {
            config: Watched::open(&paths, load, None)?,
            revocations: revocations.transpose()?,
            files: files.clone(),
            check_addresses: audience != Audience::Clients && !files.skip_address_check,
            audience,
            handshakes: Semaphore::new(HANDSHAKES_MAX),
        })
    }

    /// Lets a client in, or not. `from` is absent for Unix sockets.
    pub async fn handshake<S>(
        &self,
        stream: S,
        from: Option<IpAddr>,
    ) -> Result<(Stream<S>, Client), Box<Rejected>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut rejected = Rejected::new(self.audience);
        let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
        match timeout_at(deadline, self.try_handshake(stream, from, &mut rejected)).await {
            Ok(Ok(accepted)) => Ok(accepted),
            Ok(Err(error)) => Err(Box::new(rejected.because(&error))),
            Err(_) => Err(Box::new(rejected.because(&io::ErrorKind::TimedOut.into()))),
        }
    }

    async fn try_handshake<S>(
        &self,
        stream: S,
        from: Option<IpAddr>,
        rejected: &mut Rejected,
    ) -> io::Result<(Stream<S>, Client)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let _slot = self.handshakes.acquire().await.map_err(io::Error::other)?;
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        rejected.server_name = start.client_hello().server_name().unwrap_or_default().to_owned();
        let stream = start.into_stream(self.config.current()).await?;
        let session = stream.get_ref().1;
        let http2 = session.alpn_protocol() == Some(HTTP2);
        let mut common_name = None;
        if let Some(chain) = session.peer_certificates().filter(|chain| !chain.is_empty()) {
            let identity = Identity::read(chain).map_err(io::Error::other)?;
            rejected.identity = Some(identity);
            let identity = rejected.identity.as_ref();
            let identity = identity.ok_or_else(|| io::Error::other("no certificate"))?;
            self.check(identity, from).await.map_err(io::Error::other)?;
            common_name = identity.common_name.clone().filter(|_| self.files.client_cert_auth);
        }
        Ok((stream, Client { http2, common_name }))
    }

    /// What a good chain alone does not show. Also for resumed sessions.
    async fn check(&self, identity: &Identity, from: Option<IpAddr>) -> Result<(), Error> {
        identity.check_allowed(&self.files.allowed_names, &self.files.allowed_hosts)?;
        if let Some(from) = from.filter(|_| self.check_addresses) {
            identity.check_address(from.to_canonical()).await?;
        }
        match &self.revocations {
            Some(revocations) => identity.check_revoked(&revocations.current()),
            None => Ok(()),
        }
    }
}

fn server_config(files: &TlsFiles, rules: &TlsRules) -> Result<ServerConfig, Error> {
    let failed = |error: rustls::Error| Error::new(format!("tls: {error}"));
    let key = material::certified_key(&files.cert, &files.key)?;
    let provider = Arc::new(provider(rules));
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&protocol_versions(rules))
        .map_err(failed)?;
    let builder = match material::roots(files)? {
        Some((roots, certificates)) => {
            let algorithms = provider.signature_verification_algorithms;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            let verifier = verifier.map_err(|error| Error::new(format!("tls: {error}")))?;
            builder.with_client_cert_verifier(Arc::new(Verifier::new(verifier, certificates, algorithms)))
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
    // Tickets let clients come back without a full handshake. New files mean new keys for them.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(failed)?;
    Ok(config)
}

fn protocol_versions(rules: &TlsRules) -> Vec<&'static SupportedProtocolVersion> {
    [(TlsVersion::Tls13, &rustls::version::TLS13), (TlsVersion::Tls12, &rustls::version::TLS12)]
        .into_iter()
        .filter(|(version, _)| *version >= rules.min && rules.max.is_none_or(|max| *version <= max))
        .map(|(_, version)| version)
        .collect()
}

/// Suites of TLS 1.3 can't be chosen, as with Go.
fn provider(rules: &TlsRules) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    if !rules.suites.is_empty() {
        provider
            .cipher_suites
            .retain(|suite| suite.tls13().is_some() || rules.suites.contains(&u16::from(suite.suite())));
    }
    provider
}

/// A client that was not let in, and why.
#[derive(Debug)]
pub struct Rejected {
    audience: Audience,
    server_name: String,
    identity: Option<Identity>,
    error: String,
    /// It went away by itself.
    gone: bool,
}

impl Rejected {
    fn new(audience: Audience) -> Rejected {
        Rejected { audience, server_name: String::new(), identity: None, error: String::new(), gone: false }
    }

    fn because(self, error: &io::Error) -> Rejected {
        let gone = error.kind() == io::ErrorKind::UnexpectedEof;
        Rejected { error: error.to_string(), gone, ..self }
    }

    /// Writes a line to the log, as etcd's; for clients that only went away, to its finest level.
    pub fn log(&self, from: &str) {
        let message = match self.audience {
            Audience::Clients | Audience::Metrics => "rejected connection on client endpoint",
            Audience::Members => "rejected connection on peer endpoint",
        };
        let (server_name, error) = (&self.server_name, &self.error);
        let names = self.identity.as_ref();
        let ips = names.map(|i| i.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
        let dns = names.map(|i| i.dns_names.join(","));
        if self.gone {
            tracing::debug!("remote-addr" = from, "server-name" = server_name, error, "{message}");
        } else {
            tracing::warn!(
                "remote-addr" = from,
                "server-name" = server_name,
                "ip-addresses" = ips,
                "dns-names" = dns,
                error,
                "{message}"
            );
        }
    }
}
