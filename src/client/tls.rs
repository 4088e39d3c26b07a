//! TLS of the client: which servers it believes, and who it says it is.

use super::{Error, Options};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Where systems keep the CAs that they trust; `SSL_CERT_FILE` names another.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Makes TLS of a TCP connection to one server. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connector {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Connector {
    /// For the server at `address`, `host:port`.
    pub fn new(options: &Options, address: &str) -> Result<Connector, Error> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Error::File(format!("{host:?} is no name that a certificate can have")))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let versions = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::File(e.to_string()))?;
        let believing = if options.skip_verify {
            let verifier = Arc::new(Anyone(provider));
            versions.dangerous().with_custom_certificate_verifier(verifier)
        } else {
            versions.with_root_certificates(roots(options.ca.as_deref())?)
        };
        let mut config = match &options.certificate {
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|e| unusable(key, &e))?;
                believing.with_client_auth_cert(chain, key).map_err(|e| unusable(certificate, &e))?
            }
            None => believing.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Connector { connector: TlsConnector::from(Arc::new(config)), name })
    }

    /// Shakes hands.
    pub async fn connect(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.name.clone(), stream).await
    }
}

fn unusable(path: &Path, reason: &dyn std::fmt::Display) -> Error {
    Error::File(format!("cannot use {}: {reason}", path.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|e| unusable(path, &e))?;
    if found.is_empty() { Err(unusable(path, &"it has no certificate")) } else { Ok(found) }
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    let path = match ca {
        Some(path) => path.to_owned(),
        None => {
            let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
            let known = SYSTEM_ROOTS.iter().map(PathBuf::from).find(|path| path.exists());
            named.or(known).ok_or_else(|| Error::File("no CA is known; name one with --cacert".into()))?
        }
    };
    store.add_parsable_certificates(certificates(&path)?);
    if store.is_empty() { Err(unusable(&path, &"it has no CA")) } else { Ok(store) }
}

/// Believes every certificate, as `--insecure-skip-tls-verify` asks for.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
