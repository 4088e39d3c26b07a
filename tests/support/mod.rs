//! What every black-box test needs: a started server, free ports, waiting for a condition with a reason.
//!
//! The server under test is the kvist binary that cargo built. `KVIST_TEST_SERVER=/path/to/etcd` runs the same
//! tests against another server that takes etcd's flags: that is how the tests themselves are checked.
#![allow(dead_code)] // each test binary uses its own part

pub mod certs;

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The line that etcd and kvist log once clients are served.
pub const READY: &str = "ready to serve client requests";
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Path of the server under test.
pub fn server_binary() -> PathBuf {
    std::env::var_os("KVIST_TEST_SERVER").map_or_else(|| env!("CARGO_BIN_EXE_kvist").into(), PathBuf::from)
}

/// True when the tests run against something else than kvist.
pub fn is_foreign_server() -> bool {
    std::env::var_os("KVIST_TEST_SERVER").is_some()
}

/// A program that `make tools` gets: "etcd", "etcdctl" or "etcdutl" of the newest release, or "promtool"; `KVIST_ETCD` and the
/// like name others. `None` where there is none; then the test says what it skips.
pub fn tool(name: &str, skipped: &str) -> Option<PathBuf> {
    let variable = match name {
        "etcdctl" => None, // KVIST_ETCDCTL is a list of further ones
        name => std::env::var_os(format!("KVIST_{}", name.to_ascii_uppercase())),
    };
    let named = variable.map(PathBuf::from);
    // The tools lie beside the profile's directory: target/debug/kvist, target/tools/etcd.
    let target =
        Path::new(env!("CARGO_BIN_EXE_kvist")).parent().and_then(Path::parent).expect("a target directory");
    let path = named.unwrap_or_else(|| target.join("tools").join(name));
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED {skipped}: there is no {name}; get it with: make tools");
    None
}

/// A port of the loopback interface that was free a moment ago. It lies below those that the kernel gives to clients, so
/// that no connection of another test takes it meanwhile, and is not given out twice by this process.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 20_000;
    let own = u16::try_from(std::process::id() % u32::from(COUNT)).expect("below COUNT");
    for _ in 0..COUNT {
        // A prime step, so that processes that run at the same time are soon apart.
        let n = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(7).wrapping_add(own);
        let port = FIRST + n % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port on loopback");
}

/// A running server on loopback with its own data directory; killed when dropped.
pub struct Server {
    binary: PathBuf,
    child: Child,
    pub client_port: u16,
    pub peer_port: u16,
    data_dir: PathBuf,
    args: Vec<String>,
    /// What a shell runs before the server.
    before: Option<String>,
    log: Arc<Mutex<Vec<String>>>,
    _temp: Option<tempfile::TempDir>,
}

impl Server {
    /// Starts a server with a fresh data directory and waits until it is ready.
    pub fn start() -> Server {
        Server::start_with(&[])
    }

    /// The same with further flags, such as `["--max-txn-ops=4"]`.
    pub fn start_with(args: &[&str]) -> Server {
        let temp = tempfile::tempdir().expect("temporary directory");
        let data_dir = temp.path().join("data");
        let mut server = Server::start_in(&data_dir, args);
        server._temp = Some(temp);
        server
    }

    /// Starts a server on a given data directory, which outlives it.
    pub fn start_in(data_dir: &Path, args: &[&str]) -> Server {
        Server::start_on(data_dir, free_port(), free_port(), args)
    }

    /// Starts a server with a fresh data directory from a shell that has run a command before.
    pub fn start_after(command: &str, args: &[&str]) -> Server {
        let temp = tempfile::tempdir().expect("temporary directory");
        let data_dir = temp.path().join("data");
        let mut server =
            Server::launch(server_binary(), &data_dir, free_port(), free_port(), args, Some(command));
        server._temp = Some(temp);
        server
    }

    /// Starts a server on given ports.
    pub fn start_on(data_dir: &Path, client_port: u16, peer_port: u16, args: &[&str]) -> Server {
        Server::launch(server_binary(), data_dir, client_port, peer_port, args, None)
    }

    /// Starts another server than the one under test on a given data directory, which outlives it.
    pub fn start_other(binary: &Path, data_dir: &Path) -> Server {
        Server::launch(binary.to_owned(), data_dir, free_port(), free_port(), &[], None)
    }

    /// Starts any server with a fresh data directory and further flags.
    pub fn start_fresh(binary: &Path, args: &[String]) -> Server {
        let temp = tempfile::tempdir().expect("temporary directory");
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let data_dir = temp.path().join("data");
        let mut server = Server::launch(binary.to_owned(), &data_dir, free_port(), free_port(), &args, None);
        server._temp = Some(temp);
        server
    }

    fn launch(
        binary: PathBuf,
        data_dir: &Path,
        client_port: u16,
        peer_port: u16,
        args: &[&str],
        before: Option<&str>,
    ) -> Server {
        let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        let log = Arc::new(Mutex::new(Vec::new()));
        let before = before.map(str::to_owned);
        let child = spawn(&binary, before.as_deref(), data_dir, client_port, peer_port, &args, &log);
        let data_dir = data_dir.to_owned();
        let server =
            Server { binary, child, client_port, peer_port, data_dir, args, before, log, _temp: None };
        server.wait_ready();
        server
    }

    /// `127.0.0.1:port`, as etcdctl takes it.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.endpoint())
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything logged so far, a line each.
    pub fn log_lines(&self) -> Vec<String> {
        self.log.lock().clone()
    }

    /// Kills the process at once, as a crash would; the data directory stays.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill the server");
        self.child.wait().expect("wait for the killed server");
    }

    /// Sends SIGTERM and waits for the end; returns the exit status.
    pub fn terminate(&mut self) -> std::process::ExitStatus {
        self.stop_by("TERM")
    }

    /// Sends a signal and waits for the end; returns the exit status.
    pub fn stop_by(&mut self, signal: &str) -> std::process::ExitStatus {
        let args = [format!("-{signal}"), self.pid().to_string()];
        assert!(Command::new("kill").args(args).status().expect("kill").success(), "kill -{signal} failed");
        self.ended()
    }

    /// Waits for the end of the process; returns the exit status.
    pub fn ended(&mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait for the server") {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the server did not stop; log:\n{}",
                self.log_lines().join("\n")
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts the process again (after `kill` or `terminate`) on the same ports and data directory.
    pub fn restart(&mut self) {
        self.child = spawn(
            &self.binary,
            self.before.as_deref(),
            &self.data_dir,
            self.client_port,
            self.peer_port,
            &self.args,
            &self.log,
        );
        self.wait_ready();
    }

    fn wait_ready(&self) {
        wait_until("the server to be ready", START_TIMEOUT, || {
            self.log.lock().iter().any(|l| l.contains(READY))
                && TcpStream::connect(("127.0.0.1", self.client_port)).is_ok()
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(
    binary: &Path,
    before: Option<&str>,
    data_dir: &Path,
    client: u16,
    peer: u16,
    args: &[String],
    log: &Arc<Mutex<Vec<String>>>,
) -> Child {
    log.lock().clear();
    let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    let mut command = match before {
        None => Command::new(binary),
        Some(before) => {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(format!("{before}; exec \"$0\" \"$@\"")).arg(binary);
            shell
        }
    };
    let mut child = command
        .arg("--data-dir")
        .arg(data_dir)
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the server");
    let stderr = child.stderr.take().expect("stderr is piped");
    let log = Arc::clone(log);
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            log.lock().push(line);
        }
    });
    child
}

/// Polls until `condition` holds; panics with `what` when `timeout` has passed.
pub fn wait_until(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + timeout;
    while !condition() {
        assert!(Instant::now() < deadline, "gave up waiting for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
