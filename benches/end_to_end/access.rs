//! How clients reach a cluster: in the clear, over TLS, or as a user with a password; and the few calls that the harness
//! makes itself, around the load. All servers are set up alike, through etcd's flags and calls, so that the price of
//! security can be compared. Each question opens a connection of its own. Used by `server` and `measure`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use kvist::pb::authpb::{Permission, permission};
use kvist::pb::etcdserverpb as pb;
use pb::auth_client::AuthClient;
use pb::kv_client::KvClient;
use pb::maintenance_client::MaintenanceClient;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::Result;

/// The user that loads are run as, where there are users, and its password.
const USER: &str = "loader";
const PASSWORD: &str = "twig";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// What stands between a client and the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Nothing.
    Open,
    /// TLS; the server shows a certificate, clients have none.
    Tls,
    /// Users with simple tokens, and a role that may do everything with all keys.
    Users,
}

/// The way to one member.
pub struct Access {
    pub port: u16,
    tls: Option<TlsConnector>,
}

/// What a member says of itself and its leader.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    pub member: u64,
    pub leader: u64,
}

impl Status {
    /// Whether it is the leader.
    pub fn leads(self) -> bool {
        self.leader == self.member
    }
}

impl Access {
    /// The way to the member at a port of loopback, with the certificate of `files` if it has one.
    ///
    /// # Errors
    /// None that we know of: the files are our own.
    pub fn new(port: u16, files: Option<&Files>) -> Result<Access> {
        Ok(Access { port, tls: files.map(connector).transpose()? })
    }

    /// Whether the member answers: its version, once it has also answered a linearizable read.
    ///
    /// # Errors
    /// It does not, or not in time.
    pub fn version(&self, patience: Duration) -> Result<String> {
        // A plain connect first: cheap for us and for a server that is busy starting.
        std::net::TcpStream::connect(("127.0.0.1", self.port))?;
        self.ask(patience, async |channel| {
            let mut maintenance = MaintenanceClient::new(channel.clone());
            let version = maintenance.status(pb::StatusRequest::default()).await?.into_inner().version;
            KvClient::new(channel)
                .range(pb::RangeRequest { key: b"k".to_vec(), ..Default::default() })
                .await?;
            Ok(version)
        })
    }

    /// Who the member is, and who leads.
    ///
    /// # Errors
    /// As for [`Access::version`].
    pub fn status(&self, patience: Duration) -> Result<Status> {
        std::net::TcpStream::connect(("127.0.0.1", self.port))?;
        self.ask(patience, async |channel| {
            let answer =
                MaintenanceClient::new(channel).status(pb::StatusRequest::default()).await?.into_inner();
            let header = answer.header.ok_or("an answer without header")?;
            Ok(Status { member: header.member_id, leader: answer.leader })
        })
    }

    /// Lets the leader, which this must be, hand over to another member.
    ///
    /// # Errors
    /// As for [`Access::version`].
    pub fn move_leader(&self, target: u64, patience: Duration) -> Result<()> {
        self.ask(patience, async |channel| {
            let request = pb::MoveLeaderRequest { target_id: target };
            MaintenanceClient::new(channel).move_leader(request).await?;
            Ok(())
        })
    }

    /// Puts one key.
    ///
    /// # Errors
    /// As for [`Access::version`].
    pub fn put(&self, key: &str, patience: Duration) -> Result<()> {
        self.ask(patience, async |channel| {
            let request = pb::PutRequest { key: key.into(), value: key.into(), ..Default::default() };
            KvClient::new(channel).put(request).await?;
            Ok(())
        })
    }

    /// Number of keys, and the revision.
    ///
    /// # Errors
    /// As for [`Access::version`].
    pub fn keys_and_revision(&self, patience: Duration) -> Result<(u64, i64)> {
        self.ask(patience, async |channel| {
            let (key, range_end) = (vec![0], vec![0]);
            let request = pb::RangeRequest { key, range_end, count_only: true, ..Default::default() };
            let answer = KvClient::new(channel).range(request).await?.into_inner();
            let header = answer.header.ok_or("an answer without header")?;
            Ok((answer.count.unsigned_abs(), header.revision))
        })
    }

    /// Compacts up to the newest revision, and returns when what is superseded is gone from the disk.
    ///
    /// # Errors
    /// As for [`Access::version`].
    pub fn compact(&self, patience: Duration) -> Result<()> {
        let (_, revision) = self.keys_and_revision(patience)?;
        self.ask(patience, async |channel| {
            let request = pb::CompactionRequest { revision, physical: true };
            KvClient::new(channel).compact(request).await?;
            Ok(())
        })
    }

    /// # Errors
    /// As for [`Access::version`].
    pub fn defragment(&self, patience: Duration) -> Result<()> {
        self.ask(patience, async |channel| {
            MaintenanceClient::new(channel).defragment(pb::DefragmentRequest {}).await?;
            Ok(())
        })
    }

    /// Creates the superuser and a user who may use all keys, and turns users on.
    ///
    /// # Errors
    /// The server refuses any of it.
    pub fn turn_users_on(&self, patience: Duration) -> Result<()> {
        self.ask(patience, async |channel| {
            let mut auth = AuthClient::new(channel);
            let perm = Permission {
                perm_type: permission::Type::Readwrite.into(),
                key: vec![0],
                range_end: vec![0],
            };
            auth.role_add(pb::AuthRoleAddRequest { name: USER.into() }).await?;
            auth.role_grant_permission(pb::AuthRoleGrantPermissionRequest {
                name: USER.into(),
                perm: Some(perm),
            })
            .await?;
            for (user, role) in [("root", "root"), (USER, USER)] {
                let (name, password) = (user.to_owned(), PASSWORD.to_owned());
                auth.user_add(pb::AuthUserAddRequest { name, password, ..Default::default() }).await?;
                let (user, role) = (user.to_owned(), role.to_owned());
                auth.user_grant_role(pb::AuthUserGrantRoleRequest { user, role }).await?;
            }
            auth.auth_enable(pb::AuthEnableRequest {}).await?;
            Ok(())
        })
    }

    /// Opens a connection, asks, and closes it.
    fn ask<T>(&self, patience: Duration, question: impl AsyncFnOnce(Channel) -> Result<T>) -> Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let asked = async { question(self.connect().await?).await };
            tokio::time::timeout(patience, asked).await.map_err(|_| "no answer in time")?
        })
    }

    async fn connect(&self) -> Result<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", self.port))?;
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT);
        let Some(tls) = self.tls.clone() else { return Ok(endpoint.connect().await?) };
        let port = self.port;
        let connector = tower::service_fn(move |_: Uri| {
            let tls = tls.clone();
            async move {
                let stream = TcpStream::connect(("127.0.0.1", port)).await?;
                let name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
                std::io::Result::Ok(TokioIo::new(tls.connect(name, stream).await?))
            }
        });
        Ok(endpoint.connect_with_connector(connector).await?)
    }
}

/// The flags by which the load tool comes in as [`Access`] does.
pub fn tool_flags(security: Security, files: Option<&Files>) -> Vec<String> {
    let mut flags = Vec::new();
    if security == Security::Users {
        flags.push(format!("--user={USER}:{PASSWORD}"));
    }
    flags.extend(files.map(|files| format!("--cacert={}", files.ca.display())));
    flags
}

fn connector(files: &Files) -> Result<TlsConnector> {
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_file(&files.ca)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
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
