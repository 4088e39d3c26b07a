//! A server process: started on loopback with a fresh data directory, asked until it answers, stopped or killed, removed
//! with its data when dropped. Both servers get the same flags and default durability. Used by the workloads.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;
use tempfile::TempDir;

use crate::Result;
use crate::access::{self, Access, Files, Security};
use crate::client::Client;
use crate::process::{self, Usage};

/// Longest wait for a start or a stop.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two looks at a server that starts or stops; bounds the error of the restart figures.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// The two contestants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Kvist,
    Etcd,
}

impl Side {
    pub fn name(self) -> &'static str {
        match self {
            Side::Kvist => "kvist",
            Side::Etcd => "etcd",
        }
    }
}

/// A running server.
pub struct Server {
    child: Child,
    command: Command,
    access: Access,
    dir: TempDir,
}

impl Server {
    /// Starts `binary` with a fresh data directory below `dir` and waits until it answers.
    ///
    /// # Errors
    /// It cannot be started, ends at once, does not answer in time, or runs without fsync.
    pub async fn start(binary: &Path, dir: &Path, security: Security) -> Result<Server> {
        let dir = tempfile::Builder::new().prefix("end-to-end-").tempdir_in(dir)?;
        let (client_port, peer_port) = free_ports()?;
        let files = if security == Security::Tls { Some(Files::create(dir.path())?) } else { None };
        let mut command = command(binary, dir.path(), client_port, peer_port, files.as_ref())?;
        let access = match &files {
            Some(files) => Access::tls(client_port, files)?,
            None => Access::open(client_port),
        };
        let child = command.spawn().map_err(|e| format!("cannot start {}: {e}", binary.display()))?;
        let mut server = Server { child, command, access, dir };
        server.wait_until_read().await?;
        process::refuse_without_fsync(server.child.id())?;
        if security == Security::Users {
            let endpoint = format!("http://127.0.0.1:{client_port}").parse::<tonic::transport::Uri>()?;
            let channel = server.access.connect(&endpoint.into()).await?;
            server.access.token = access::turn_users_on(channel).await?;
        }
        Ok(server)
    }

    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Counters of the process.
    ///
    /// # Errors
    /// The process has ended.
    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.child.id())
    }

    /// Bytes in the data directory, as allocated lengths of its files.
    pub fn disk_bytes(&self) -> Result<u64> {
        directory_bytes(&self.dir.path().join("data"))
    }

    /// Sends SIGTERM and returns the time until the process has ended.
    ///
    /// # Errors
    /// It does not end in time.
    pub async fn terminate(&mut self) -> Result<Duration> {
        let started = Instant::now();
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        if !status.success() {
            return Err("kill -TERM failed".into());
        }
        while self.child.try_wait()?.is_none() {
            if started.elapsed() > PATIENCE {
                return Err("the server does not stop on SIGTERM".into());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(started.elapsed())
    }

    /// Ends the process at once, as a crash would.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts the process again on the same data and returns the time until its first linearizable read.
    ///
    /// # Errors
    /// As for [`Server::start`].
    pub async fn restart(&mut self) -> Result<Duration> {
        let started = Instant::now();
        self.child = self.command.spawn()?;
        self.wait_until_read().await?;
        Ok(started.elapsed())
    }

    /// Asks every millisecond until the server has answered a status and a linearizable read.
    async fn wait_until_read(&mut self) -> Result<()> {
        let started = Instant::now();
        loop {
            // A server may take the connection long before it answers, so a single question gets all the time.
            let refused = match tokio::time::timeout(PATIENCE, answers(&self.access)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "a question without answer".to_owned(),
            };
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("the server ended ({status}):\n{}", self.log_tail()).into());
            }
            if started.elapsed() > PATIENCE {
                return Err(format!("no answer in {PATIENCE:?} ({refused}):\n{}", self.log_tail()).into());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The last lines that the server logged.
    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error means that it has ended already, which is what we want.
        let _ = self.kill();
    }
}

async fn answers(access: &Access) -> Result<()> {
    // A plain connect first: cheap for us and for a server that is busy starting.
    tokio::net::TcpStream::connect(("127.0.0.1", access.port())).await?;
    let client = Client::connect(access, 1).await?;
    client.status().await?;
    client.revision().await?;
    Ok(())
}

fn command(
    binary: &Path,
    dir: &Path,
    client_port: u16,
    peer_port: u16,
    files: Option<&Files>,
) -> Result<Command> {
    let scheme = if files.is_some() { "https" } else { "http" };
    let (client, peer) =
        (format!("{scheme}://127.0.0.1:{client_port}"), format!("http://127.0.0.1:{peer_port}"));
    // Appended to, because the command is used again for a restart.
    let log = File::options().create(true).append(true).open(dir.join("log"))?;
    let mut command = Command::new(binary);
    command
        .arg("--data-dir")
        .arg(dir.join("data"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .args(["--quota-backend-bytes=8589934592", "--log-level=error"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    if let Some(files) = files {
        command.arg("--cert-file").arg(&files.certificate).arg("--key-file").arg(&files.key);
    }
    Ok(command)
}

/// Two ports of the loopback interface that were free a moment ago.
fn free_ports() -> Result<(u16, u16)> {
    let (a, b) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok((a.local_addr()?.port(), b.local_addr()?.port()))
}

fn directory_bytes(dir: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        // A block is 512 bytes here whatever the file system's own size.
        bytes += if metadata.is_dir() { directory_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}
