//! TLS where this server is the client: connections to other members, by the `peer-*` flags. As at etcd, a member shows
//! its client certificate, or that of its listener if there is none, and the same common names and hosts are demanded of
//! those who listen as of those who connect. Files are read again when they change.
//! Called by whoever connects to members.

use super::check::Identity;
use super::reload::Watched;
use super::{Error, HTTP1, HTTP2, material, protocol_versions, provider};
use crate::config::{TlsFiles, TlsRules};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// A connection with TLS that this server has made.
pub type ClientStream<S> = tokio_rustls::client::TlsStream<S>;

/// What is spoken on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// See the module.
pub struct Connector {
    configs: Watched<Configs>,
    files: TlsFiles,
}

/// The same but for the protocol.
struct Configs {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl Connector {
    /// Reads the files.
    pub fn open(files: &TlsFiles, rules: &TlsRules) -> Result<Connector, Error> {
        let paths = [&files.cert, &files.key, &files.client_cert, &files.client_key, &files.trusted_ca];
        let load = {
            let (files, rules) = (files.clone(), rules.clone());
            move || configs(&files, &rules)
        };
        Ok(Connector { configs: Watched::open(&paths, load, None)?, files: files.clone() })
    }

    /// Shakes hands with the server at `host`, a name or an address.
    pub async fn connect<S>(&self, stream: S, host: &str, protocol: Protocol) -> io::Result<ClientStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let configs = self.configs.current();
        let config = match protocol {
            Protocol::Http1 => Arc::clone(&configs.http1),
            Protocol::Http2 => Arc::clone(&configs.http2),
        };
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let identity = Identity::read(chain).map_err(io::Error::other)?;
        identity
            .check_allowed(&self.files.allowed_names, &self.files.allowed_hosts)
            .map_err(io::Error::other)?;
        Ok(stream)
    }
}

fn configs(files: &TlsFiles, rules: &TlsRules) -> Result<Configs, Error> {
    let failed = |error: rustls::Error| Error::new(format!("tls: {error}"));
    let provider = Arc::new(provider(rules));
    let verifier: Arc<dyn ServerCertVerifier> = if files.auto && files.is_empty() {
        // Members make their own certificates: those encrypt, and prove nothing.
        Arc::new(Verifier { chains: None, roots: Vec::new(), provider: Arc::clone(&provider) })
    } else {
        let (store, roots) = material::roots_of_servers(files)?;
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider));
        let chains = chains.build().map_err(|error| Error::new(format!("tls: {error}")))?;
        Arc::new(Verifier { chains: Some(chains), roots, provider: Arc::clone(&provider) })
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&protocol_versions(rules))
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match own_certificate(files) {
        Some((cert, key)) => {
            let certified = material::certified_key(cert, key)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
        }
        None => builder.with_no_client_auth(),
    };
    let speaking = |protocol: &[u8]| {
        let mut config = config.clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config)
    };
    Ok(Configs { http1: speaking(HTTP1), http2: speaking(HTTP2) })
}

/// Paths of certificate and key to be shown.
fn own_certificate(files: &TlsFiles) -> Option<(&str, &str)> {
    let pairs = [(&files.client_cert, &files.client_key), (&files.cert, &files.key)];
    pairs.into_iter().find(|(cert, _)| !cert.is_empty()).map(|(cert, key)| (cert.as_str(), key.as_str()))
}

/// Whether a certificate is that of a server. rustls decides, but for one shape that Go accepts and people make by hand:
/// a certificate that is itself one of the trusted ones.
#[derive(Debug)]
struct Verifier {
    /// rustls's verdict; without it, anybody is believed.
    chains: Option<Arc<WebPkiServerVerifier>>,
    roots: Vec<CertificateDer<'static>>,
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl Verifier {
    /// Judges a certificate that is trusted by itself.
    fn verify_root(
        der: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| rustls::Error::from(CertificateError::BadEncoding))?;
        super::verify::check_time_at(&certificate, now)?;
        let serves = match certificate.extended_key_usage() {
            Ok(usage) => usage.is_none_or(|usage| usage.value.server_auth || usage.value.any),
            Err(_) => false,
        };
        if !serves {
            return Err(CertificateError::InvalidPurpose.into());
        }
        verify_server_name(&ParsedCertificate::try_from(der)?, name)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chains) = &self.chains else { return Ok(ServerCertVerified::assertion()) };
        if self.roots.iter().any(|root| root.as_ref() == end_entity.as_ref()) {
            return Verifier::verify_root(end_entity, server_name, now)
                .map(|()| ServerCertVerified::assertion());
        }
        chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{Audience, Endpoint, auto};

    /// Files of a member that made its certificate itself, for these hosts.
    fn made(dir: &std::path::Path, hosts: &[&str]) -> TlsFiles {
        auto::ensure(&TlsFiles { auto: true, ..TlsFiles::default() }, dir, hosts, 1).unwrap()
    }

    /// Whether a connector of `files` gets through to 127.0.0.1 where `listener` listens, and by which protocol.
    async fn connects(listener: &TlsFiles, files: &TlsFiles, protocol: Protocol) -> io::Result<bool> {
        let rules = TlsRules::default();
        let endpoint = Endpoint::open(listener, &rules, Audience::Clients).unwrap();
        let connector = Connector::open(files, &rules).unwrap();
        let (near, far) = tokio::io::duplex(1 << 16);
        let (accepted, connected) =
            tokio::join!(endpoint.handshake(far, None), connector.connect(near, "127.0.0.1", protocol));
        connected?;
        Ok(accepted.map_err(|_| io::ErrorKind::ConnectionRefused)?.1.http2)
    }

    #[tokio::test]
    async fn members_prove_who_they_are_unless_they_make_their_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let here = made(&dir.path().join("here"), &["127.0.0.1"]);
        let elsewhere = made(&dir.path().join("elsewhere"), &["127.0.0.2"]);
        let trusting =
            |files: &TlsFiles| TlsFiles { auto: false, trusted_ca: files.cert.clone(), ..files.clone() };
        let (http1, http2) = (Protocol::Http1, Protocol::Http2);
        assert!(connects(&here, &trusting(&here), http2).await.unwrap());
        assert!(!connects(&here, &trusting(&here), http1).await.unwrap());
        // A name that is not the server's, and a certificate that nobody trusts.
        assert!(connects(&elsewhere, &trusting(&elsewhere), http2).await.is_err());
        assert!(connects(&here, &trusting(&elsewhere), http2).await.is_err());
        let any = TlsFiles { auto: true, ..TlsFiles::default() };
        assert!(connects(&elsewhere, &any, http2).await.unwrap());
        let named = TlsFiles { allowed_names: vec!["somebody".into()], ..trusting(&here) };
        let refused = connects(&here, &named, http2).await.unwrap_err().to_string();
        assert!(refused.contains("authentication failed"), "{refused}");
    }
}
