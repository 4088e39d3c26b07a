//! Servers that a suite asks for: started on loopback with a data directory of their own, killed when they are dropped.
//!
//! What goes wrong is told to the suite as a text; nothing here panics because of a suite. Called by `control.rs`.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::process::signal;
use crate::support::certs::Ca;
use crate::support::{READY, free_port};

/// At the same time, for each suite.
pub const SERVERS_MAX: usize = 16;
const START_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of its log a server that did not start is quoted with, in bytes.
const QUOTE_MAX: usize = 2_000;

/// What a suite asks for. Everything has a default.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wish {
    tls: bool,
    client_cert_auth: bool,
    flags: Vec<String>,
}

/// What a suite asks for to get a cluster. Everything has a default.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterWish {
    members: usize,
    /// Of all members.
    flags: Vec<String>,
}

impl Default for ClusterWish {
    fn default() -> ClusterWish {
        ClusterWish { members: 3, flags: Vec::new() }
    }
}

/// What a suite is told of its server.
#[derive(Clone, Serialize)]
pub struct Address {
    pub id: u32,
    host: &'static str,
    port: u16,
    endpoint: String,
    peer_endpoint: String,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    files: Option<Files>,
}

/// Certificates of a server with TLS; each has an authority of its own.
#[derive(Clone, Serialize)]
struct Files {
    ca: String,
    cert: String,
    key: String,
}

/// Why something was not done: HTTP's status, and a text.
pub type Refused = (u16, String);

/// A member's name, ports and companions.
struct Seat {
    name: String,
    port: u16,
    peer_port: u16,
    /// `name=url,...` of all members.
    cluster: String,
}

impl Seat {
    /// As many as a cluster is to have.
    fn all(members: usize) -> Vec<Seat> {
        let name = |n| if members == 1 { "default".to_owned() } else { format!("m{n}") };
        let seat =
            |n| Seat { name: name(n), port: free_port(), peer_port: free_port(), cluster: String::new() };
        let seats: Vec<Seat> = (0..members).map(seat).collect();
        let pairs: Vec<String> =
            seats.iter().map(|seat| format!("{}={}", seat.name, seat.peer_endpoint())).collect();
        let cluster = pairs.join(",");
        seats.into_iter().map(|seat| Seat { cluster: cluster.clone(), ..seat }).collect()
    }

    fn peer_endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer_port)
    }
}

struct Server {
    binary: PathBuf,
    flags: Vec<String>,
    port: u16,
    log: PathBuf,
    child: Option<Child>,
    _dir: tempfile::TempDir,
}

/// The servers of one suite.
pub struct Servers {
    binary: PathBuf,
    /// Where their logs go.
    logs: PathBuf,
    next: AtomicU32,
    /// `None` while it is being started.
    table: Mutex<BTreeMap<u32, Option<Arc<Mutex<Server>>>>>,
}

impl Servers {
    pub fn new(binary: &Path, logs: &Path) -> Servers {
        let (binary, logs) = (binary.to_owned(), logs.to_owned());
        Servers { binary, logs, next: AtomicU32::new(1), table: Mutex::default() }
    }

    /// Starts a fresh server and waits until it serves.
    pub fn create(&self, wish: Wish) -> Result<Address, Refused> {
        if wish.client_cert_auth && !wish.tls {
            return Err((400, "client_cert_auth goes with tls\n".to_owned()));
        }
        Ok(self.start(1, &wish)?.remove(0))
    }

    /// Starts fresh servers that are one cluster, and waits until all of them serve.
    pub fn create_cluster(&self, wish: ClusterWish) -> Result<Vec<Address>, Refused> {
        if wish.members == 0 {
            return Err((400, "a cluster has members\n".to_owned()));
        }
        self.start(wish.members, &Wish { flags: wish.flags, ..Wish::default() })
    }

    fn start(&self, members: usize, wish: &Wish) -> Result<Vec<Address>, Refused> {
        let ids = self.reserve(members)?;
        let make = |(id, seat): (&u32, Seat)| {
            Server::create(&self.binary, self.logs.join(format!("server-{id}.log")), *id, wish, &seat)
        };
        let made = ids.iter().zip(Seat::all(members)).map(make).collect::<Result<Vec<_>, _>>();
        let started = made.and_then(|mut made| {
            // None of a cluster serves before most of them run.
            let begins = made.iter_mut().map(|(server, _)| server.launch()).collect::<Result<Vec<_>, _>>()?;
            for ((server, _), begin) in made.iter_mut().zip(begins) {
                server.until_ready(begin)?;
            }
            Ok(made)
        });
        let mut table = self.table.lock();
        match started {
            Ok(made) => Ok(made
                .into_iter()
                .map(|(server, address)| {
                    table.insert(address.id, Some(Arc::new(Mutex::new(server))));
                    address
                })
                .collect()),
            Err(reason) => {
                ids.iter().for_each(|id| drop(table.remove(id)));
                Err((500, reason))
            }
        }
    }

    /// Numbers for servers that are about to be started.
    fn reserve(&self, count: usize) -> Result<Vec<u32>, Refused> {
        let mut table = self.table.lock();
        if table.len() + count > SERVERS_MAX {
            return Err((429, format!("at most {SERVERS_MAX} servers at a time: DELETE some first\n")));
        }
        let ids: Vec<u32> = (0..count).map(|_| self.next.fetch_add(1, Ordering::Relaxed)).collect();
        table.extend(ids.iter().map(|id| (*id, None)));
        Ok(ids)
    }

    /// Does one of kill, stop, start, pause, resume to a server.
    pub fn act(&self, id: u32, verb: &str) -> Result<(), Refused> {
        let found = self.table.lock().get(&id).cloned().flatten();
        let server = found.ok_or_else(|| (404, format!("there is no server {id}\n")))?;
        let mut server = server.lock();
        match verb {
            "kill" => server.kill(),
            "stop" => server.stop().map_err(|reason| (500, reason))?,
            "start" if server.child.is_some() => {
                return Err((409, format!("server {id} has not ended\n")));
            }
            "start" => server.start().map_err(|reason| (500, reason))?,
            "pause" => server.pause()?,
            "resume" => {
                server.signal("CONT")?;
            }
            _ => return Err((404, format!("{verb} is none of kill, stop, start, pause, resume\n"))),
        }
        Ok(())
    }

    /// Kills a server and forgets it.
    pub fn remove(&self, id: u32) -> Result<(), Refused> {
        let removed = self.table.lock().remove(&id).flatten();
        removed.map(drop).ok_or_else(|| (404, format!("there is no server {id}\n")))
    }

    /// Kills all of them.
    pub fn clear(&self) {
        let all = std::mem::take(&mut *self.table.lock());
        drop(all);
    }
}

impl Server {
    /// A server that does not run yet.
    fn create(
        binary: &Path,
        log: PathBuf,
        id: u32,
        wish: &Wish,
        seat: &Seat,
    ) -> Result<(Server, Address), String> {
        let dir = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}\n"))?;
        let scheme = if wish.tls { "https" } else { "http" };
        let port = seat.port;
        let endpoint = format!("{scheme}://127.0.0.1:{port}");
        let peer_endpoint = seat.peer_endpoint();
        let mut flags: Vec<String> = [
            format!("--name={}", seat.name),
            format!("--data-dir={}", dir.path().join("data").display()),
            format!("--listen-client-urls={endpoint}"),
            format!("--advertise-client-urls={endpoint}"),
            format!("--listen-peer-urls={peer_endpoint}"),
            format!("--initial-advertise-peer-urls={peer_endpoint}"),
            format!("--initial-cluster={}", seat.cluster),
        ]
        .into();
        let files = wish.tls.then(|| {
            let ca = Ca::new(&dir.path().join("certificates"));
            ca.issue_server();
            ca.issue("client", "client", &[], 2);
            flags.push(format!("--cert-file={}", ca.path("server.pem")));
            flags.push(format!("--key-file={}", ca.path("server.key")));
            if wish.client_cert_auth {
                // To etcd this file alone says that clients need a certificate.
                flags.push(format!("--trusted-ca-file={}", ca.path("ca.pem")));
                flags.push("--client-cert-auth".to_owned());
            }
            Files { ca: ca.path("ca.pem"), cert: ca.path("client.pem"), key: ca.path("client.key") }
        });
        flags.extend(wish.flags.iter().cloned());
        let binary = binary.to_owned();
        let server = Server { binary, flags, port, log, child: None, _dir: dir };
        Ok((server, Address { id, host: "127.0.0.1", port, endpoint, peer_endpoint, files }))
    }

    /// Starts the process on its data and ports, and waits until it serves.
    fn start(&mut self) -> Result<(), String> {
        let begin = self.launch()?;
        self.until_ready(begin)
    }

    /// Starts the process; where its part of the log begins.
    fn launch(&mut self) -> Result<u64, String> {
        let failed = |what: &str, error: std::io::Error| format!("{what}: {error}\n");
        let file = OpenOptions::new().create(true).append(true).open(&self.log);
        let file = file.map_err(|error| failed("no log", error))?;
        let begin = file.metadata().map_err(|error| failed("no log", error))?.len();
        let child = Command::new(&self.binary)
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn();
        self.child = Some(child.map_err(|error| failed("no server", error))?);
        Ok(begin)
    }

    /// Waits until the launched process serves; ends it if it does not.
    fn until_ready(&mut self, begin: u64) -> Result<(), String> {
        let child = self.child.as_mut().ok_or("the server was not launched\n")?;
        let deadline = Instant::now() + START_TIMEOUT;
        let reason = loop {
            if let Ok(Some(status)) = child.try_wait() {
                break format!("the server ended with {status}");
            }
            if Instant::now() > deadline {
                break format!("the server was not ready after {} s", START_TIMEOUT.as_secs());
            }
            if tail(&self.log, begin).contains(READY) && TcpStream::connect(("127.0.0.1", self.port)).is_ok()
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        self.kill();
        let log = tail(&self.log, begin);
        let quote = log.char_indices().rev().nth(QUOTE_MAX).map_or(0, |(at, _)| at);
        Err(format!("{reason}; its log:\n{}\n", &log[quote..]))
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and the end of the process.
    fn stop(&mut self) -> Result<(), String> {
        let Some(child) = &mut self.child else { return Ok(()) };
        signal("TERM", &child.id().to_string());
        signal("CONT", &child.id().to_string()); // a paused process would not hear of it
        let deadline = Instant::now() + STOP_TIMEOUT;
        while !matches!(child.try_wait(), Ok(Some(_))) {
            if Instant::now() > deadline {
                self.kill();
                return Err(format!("the server did not stop within {} s\n", STOP_TIMEOUT.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child = None;
        Ok(())
    }

    /// Returns when the last of its threads stands still; the signal alone leaves some of them running for a while.
    fn pause(&self) -> Result<(), Refused> {
        let child = self.signal("STOP")?;
        let pid = Pid::from_raw(child.id().try_into().expect("numbers of processes are below 2^22"));
        // Its end counts too, else this would wait for good; what is seen is left for whoever reaps it.
        let events = WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(pid), events) {
            Ok(WaitStatus::Stopped(..)) => Ok(()),
            seen => Err((500, format!("the server does not stand still: {seen:?}\n"))),
        }
    }

    /// The process that got the signal.
    fn signal(&self, name: &str) -> Result<&Child, Refused> {
        let child = self.child.as_ref().ok_or((409, "the server does not run\n".to_owned()))?;
        signal(name, &child.id().to_string());
        Ok(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a log has from a place on.
fn tail(log: &Path, begin: u64) -> String {
    let read = || {
        let mut file = File::open(log)?;
        file.seek(SeekFrom::Start(begin))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}
