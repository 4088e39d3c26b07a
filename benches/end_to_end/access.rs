//! How clients reach a server: in the clear, over TLS, or as a user with a password. Both servers are set up alike, through
//! etcd's flags and calls, so that the price of security can be compared. Used by `server` and `client`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use kvist::pb::authpb::{Permission, permission};
use kvist::pb::etcdserverpb as pb;
use pb::auth_client::AuthClient;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::Result;
use crate::client::{PREFIX, PREFIX_END};

const PASSWORD: &str = "twig";

/// What stands between a client and the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Nothing.
    Open,
    /// TLS; the server shows a certificate, clients have none.
    Tls,
    /// Users with simple tokens: one token for the whole run, and a role for the keys of the workloads.
    Users,
}

/// The way into one server. Cheap to clone.
#[derive(Clone)]
pub struct Access {
    port: u16,
    tls: Option<TlsConnector>,
    pub token: Token,
}

impl Access {
    pub fn open(port: u16) -> Access {
        Access { port, tls: None, token: Token(None) }
    }

    /// The way to a server with the certificate of `files`.
    ///
    /// # Errors
    /// None that we know of: the files are our own.
    pub fn tls(port: u16, files: &Files) -> Result<Access> {
        use rustls::pki_types::pem::PemObject;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rustls::pki_types::CertificateDer::from_pem_file(&files.ca)?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Access { port, tls: Some(TlsConnector::from(Arc::new(config))), token: Token(None) })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// The server does not take it.
    pub async fn connect(&self, endpoint: &Endpoint) -> Result<Channel> {
        let Some(tls) = &self.tls else { return Ok(endpoint.connect().await?) };
        let (tls, port) = (tls.clone(), self.port);
        let connector = tower::service_fn(move |_: Uri| {
            let tls = tls.clone();
            async move {
                let stream = TcpStream::connect(("127.0.0.1", port)).await?;
                stream.set_nodelay(true)?;
                let name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
                std::io::Result::Ok(TokioIo::new(tls.connect(name, stream).await?))
            }
        });
        Ok(endpoint.connect_with_connector(connector).await?)
    }
}

/// Puts a user's token on every call, if there is one.
#[derive(Clone)]
pub struct Token(Option<AsciiMetadataValue>);

impl Interceptor for Token {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> std::result::Result<tonic::Request<()>, tonic::Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("token", token.clone());
        }
        Ok(request)
    }
}

/// A certificate of 127.0.0.1, its key and its CA, as files.
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub ca: PathBuf,
}

impl Files {
    /// Makes them in `dir`: ECDSA on P-256, as most clusters have it.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn create(dir: &Path) -> Result<Files> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(["127.0.0.1".to_owned()])?.signed_by(&key, &ca)?;
        let files =
            Files { certificate: dir.join("cert.pem"), key: dir.join("key.pem"), ca: dir.join("ca.pem") };
        std::fs::write(&files.certificate, certificate.pem())?;
        std::fs::write(&files.key, key.serialize_pem())?;
        std::fs::write(&files.ca, ca.pem())?;
        Ok(files)
    }
}

/// Creates the superuser and a user who may use the keys of the workloads, turns users on, and returns the user's token.
///
/// # Errors
/// The server refuses any of it.
pub async fn turn_users_on(channel: Channel) -> Result<Token> {
    let mut auth = AuthClient::new(channel);
    let (key, range_end) = (PREFIX.to_vec(), PREFIX_END.to_vec());
    let perm = Permission { perm_type: permission::Type::Readwrite.into(), key, range_end };
    auth.role_add(pb::AuthRoleAddRequest { name: "loader".into() }).await?;
    let grant = pb::AuthRoleGrantPermissionRequest { name: "loader".into(), perm: Some(perm) };
    auth.role_grant_permission(grant).await?;
    for (user, role) in [("root", "root"), ("loader", "loader")] {
        let add =
            pb::AuthUserAddRequest { name: user.into(), password: PASSWORD.into(), ..Default::default() };
        auth.user_add(add).await?;
        auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() }).await?;
    }
    auth.auth_enable(pb::AuthEnableRequest {}).await?;
    let login = pb::AuthenticateRequest { name: "loader".into(), password: PASSWORD.into() };
    let token = auth.authenticate(login).await?.into_inner().token;
    Ok(Token(Some(token.parse()?)))
}
