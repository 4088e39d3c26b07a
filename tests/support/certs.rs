//! Certificates for tests, made anew for each, and a small TLS client that speaks just enough HTTP.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Longer than the 10 s that a server gives a handshake.
const PATIENCE: Duration = Duration::from_secs(20);

/// An authority, and a directory with its certificate and all that it issued.
pub struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub dir: PathBuf,
}

impl Ca {
    /// Makes an authority: `dir/ca.pem`, `dir/ca.key`.
    pub fn new(dir: &Path) -> Ca {
        std::fs::create_dir_all(dir).expect("directory of certificates");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("test CA {}", dir.display()));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        std::fs::write(dir.join("ca.key"), key.serialize_pem()).expect("write ca.key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        std::fs::write(dir.join("ca.pem"), issuer.pem()).expect("write ca.pem");
        Ca { issuer, dir: dir.to_owned() }
    }

    /// Path of a file, as text.
    pub fn path(&self, file: &str) -> String {
        self.dir.join(file).display().to_string()
    }

    /// Issues `dir/NAME.pem` and `dir/NAME.key` for a common name, hosts and a serial number.
    pub fn issue(&self, name: &str, common_name: &str, hosts: &[&str], serial: u64) {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("host names");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        std::fs::write(self.dir.join(format!("{name}.pem")), certificate.pem()).expect("write certificate");
        std::fs::write(self.dir.join(format!("{name}.key")), key.serialize_pem()).expect("write key");
    }

    /// A server's certificate for loopback: `server.pem`, `server.key`.
    pub fn issue_server(&self) {
        self.issue("server", "server", &["127.0.0.1", "localhost"], 1);
    }

    /// Writes `dir/FILE` with the serial numbers that are revoked, DER.
    pub fn revoke(&self, file: &str, serials: &[u64]) {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("a list");
        std::fs::write(self.dir.join(file), list.der()).expect("write the list");
    }
}

/// What a client knows and wants; it trusts `ca`.
#[derive(Clone)]
pub struct Client {
    pub roots: RootCertStore,
    pub identity: Option<(PathBuf, PathBuf)>,
    pub versions: Vec<&'static SupportedProtocolVersion>,
    /// IANA number of the only suite that it has, if not all.
    pub suite: Option<u16>,
    pub alpn: Vec<&'static str>,
}

/// What came of a connection.
#[derive(Debug)]
pub struct Reply {
    pub version: rustls::ProtocolVersion,
    pub suite: u16,
    pub alpn: Option<String>,
    pub certificate: CertificateDer<'static>,
    pub text: String,
}

impl Client {
    /// A client that trusts a file of certificates.
    pub fn trusting(ca: &Path) -> Client {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca).expect("a CA file") {
            roots.add(certificate.expect("a certificate")).expect("a root");
        }
        Client {
            roots,
            identity: None,
            versions: vec![&rustls::version::TLS13, &rustls::version::TLS12],
            suite: None,
            alpn: vec![],
        }
    }

    /// The same with a certificate of `ca`.
    pub fn with_identity(&self, ca: &Ca, name: &str) -> Client {
        let file = |extension: &str| ca.dir.join(format!("{name}.{extension}"));
        Client { identity: Some((file("pem"), file("key"))), ..self.clone() }
    }

    fn config(&self) -> ClientConfig {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        if let Some(number) = self.suite {
            provider.cipher_suites.retain(|suite| u16::from(suite.suite()) == number);
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&self.versions)
            .expect("versions")
            .with_root_certificates(self.roots.clone());
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = CertificateDer::pem_file_iter(certificate).expect("a certificate file");
                let chain = chain.collect::<Result<_, _>>().expect("certificates");
                let key = PrivateKeyDer::from_pem_file(key).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("an identity")
            }
        };
        config.alpn_protocols = self.alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        config
    }

    /// GET of a path on a port of loopback; with ALPN `h2`, only the server's first frame is awaited.
    pub fn get(&self, port: u16, path: &str) -> io::Result<Reply> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        self.get_over(stream, path)
    }

    /// The same on any stream.
    pub fn get_over<S: Read + Write>(&self, stream: S, path: &str) -> io::Result<Reply> {
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let session = ClientConnection::new(Arc::new(self.config()), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(session, stream);
        stream.conn.complete_io(&mut stream.sock)?;
        let alpn = stream.conn.alpn_protocol().map(|p| String::from_utf8_lossy(p).into_owned());
        let text = if alpn.as_deref() == Some("h2") {
            stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")?;
            let mut frame = [0; 9];
            stream.read_exact(&mut frame)?;
            format!("frame {}", frame[3])
        } else {
            plain_get(&mut stream, path)?
        };
        let certificate = stream.conn.peer_certificates().and_then(|chain| chain.first());
        Ok(Reply {
            version: stream.conn.protocol_version().expect("a version"),
            suite: stream.conn.negotiated_cipher_suite().expect("a suite").suite().into(),
            alpn,
            certificate: certificate.expect("a certificate").clone().into_owned(),
            text,
        })
    }
}

/// GET by HTTP/1.1 on an open stream; the whole answer.
pub fn plain_get<S: Read + Write>(stream: &mut S, path: &str) -> io::Result<String> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    stream.flush()?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // Not everyone says goodbye in TLS.
        Err(error) if answer.is_empty() => return Err(error),
        _ if answer.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
        _ => {}
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
