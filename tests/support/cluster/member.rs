//! A member of a cluster: one process, with its flags, its data directory and a file for its log.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::api::{Api, PATIENCE};
use crate::support::server_binary;

/// Longest time that a process may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// A member that may or may not run at the moment; killed when dropped.
pub struct Member {
    pub name: String,
    pub client_url: String,
    pub peer_url: String,
    /// Where it listens for others, if that is not where they call it.
    pub peer_listen_url: Option<String>,
    pub data_dir: PathBuf,
    /// What the process writes on stderr, of all its lives.
    pub log: PathBuf,
    /// All flags but those that follow from the fields above.
    pub flags: Vec<String>,
    /// A command and its arguments that starts the server, such as `nsenter`.
    pub wrapper: Vec<String>,
    /// It was removed from the cluster, so it is not started with the others.
    pub is_removed: bool,
    pub(super) child: Option<Child>,
}

impl Member {
    /// Starts the process and does not wait for it.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = OpenOptions::new().create(true).append(true).open(&self.log).expect("a log file");
        let binary = server_binary();
        let mut command = match self.wrapper.split_first() {
            None => Command::new(binary),
            Some((wrapper, rest)) => {
                let mut command = Command::new(wrapper);
                command.args(rest).arg(binary);
                command
            }
        };
        command.args(["--name", &self.name]).arg("--data-dir").arg(&self.data_dir);
        for (flag, url) in [
            ("--listen-client-urls", &self.client_url),
            ("--advertise-client-urls", &self.client_url),
            ("--listen-peer-urls", self.peer_listen_url.as_ref().unwrap_or(&self.peer_url)),
            ("--initial-advertise-peer-urls", &self.peer_url),
        ] {
            command.arg(flag).arg(url);
        }
        command.args(&self.flags).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().expect("start a member"));
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("wait for a member").is_none())
    }

    /// Process id of the running member.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the member was started").id()
    }

    /// Ends the process at once, as a crash would; the data directory stays.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill a member");
            child.wait().expect("wait for the killed member");
        }
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.ended()
    }

    /// Stops the process where it is, with all its connections open.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets a paused process go on.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Lets each sync take that much longer, until what is returned is dropped. Takes `strace`.
    pub fn slow_syncs(&self, delay_ms: u64) -> SlowSyncs {
        let calls = "fdatasync,fsync,msync";
        let mut command = Command::new("strace");
        command.args(["--quiet=all", "--follow-forks", "--output=/dev/null", &format!("--trace={calls}")]);
        command.arg(format!("--inject={calls}:delay_enter={}", delay_ms * 1000));
        command.arg(format!("--attach={}", self.pid())).stdin(Stdio::null());
        SlowSyncs(command.spawn().expect("start strace"))
    }

    fn signal(&self, name: &str) {
        signal(name, self.pid());
    }

    /// Waits until the process has ended by itself.
    pub fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            let child = self.child.as_mut().expect("the member was started");
            if let Some(status) = child.try_wait().expect("wait for a member") {
                self.child = None;
                return status;
            }
            assert!(Instant::now() < deadline, "{} did not stop", self.name);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The member's API on a new connection.
    pub fn api(&self) -> Api {
        Api::new(&self.client_url, PATIENCE)
    }

    /// What `/metrics` shows.
    pub fn scrape(&self) -> String {
        let url = format!("{}/metrics", self.client_url);
        let output = Command::new("curl").args(["-s", "-m", "10", &url]).output().expect("run curl");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Everything logged so far.
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last 4 KiB of the log.
    pub fn log_tail(&self) -> String {
        const LENGTH: u64 = 4096;
        let mut tail = Vec::new();
        let read = || -> std::io::Result<File> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LENGTH)))?;
            Ok(file)
        };
        match read().and_then(|mut file| file.read_to_end(&mut tail)) {
            Ok(_) => String::from_utf8_lossy(&tail).into_owned(),
            Err(error) => format!("no log: {error}"),
        }
    }
}

fn signal(name: &str, pid: u32) {
    let status = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
    assert!(status.expect("kill").success(), "kill -{name} {pid} failed");
}

/// A tracer that delays the syncs of a member.
pub struct SlowSyncs(Child);

impl Drop for SlowSyncs {
    fn drop(&mut self) {
        // It lets go of the member on SIGTERM; killed, it could leave a thread stopped. It has ended already if the member has.
        if self.0.try_wait().expect("wait for strace").is_none() {
            signal("TERM", self.0.id());
            self.0.wait().expect("wait for strace");
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}
