//! A cluster of one or several members of one kind: started on loopback with fresh data directories, asked until every
//! member answers, stopped or killed, removed with its data when dropped. Used by `main` and `measure`.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Result;
use crate::access::{self, Access, Files, Security};
use crate::kinds::{Kind, Seat};
use crate::process::{self, Durability};

/// Longest wait for a start, a stop or an answer.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two looks at a server that starts or stops; bounds the error of the restart figures.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// A kind of server that takes part, and how.
pub struct Contestant {
    pub kind: &'static Kind,
    pub binary: PathBuf,
    /// Flags on top of those that all servers get.
    pub extra: Vec<String>,
    pub members: usize,
}

/// A running cluster.
pub struct Cluster {
    members: Vec<Member>,
    files: Option<Files>,
    security: Security,
    dir: TempDir,
}

/// One process of a cluster.
struct Member {
    child: Child,
    command: Command,
    log: PathBuf,
    access: Access,
    /// Whether it was ended by itself, and has not come back.
    is_killed: bool,
}

impl Cluster {
    /// Starts a contestant with fresh data directories below `dir` and waits until all members answer.
    ///
    /// # Errors
    /// It cannot be started, ends at once, does not answer in time, or runs without fsync.
    pub fn start(contestant: &Contestant, dir: &Path, security: Security, flags: &[&str]) -> Result<Cluster> {
        let dir = tempfile::Builder::new().prefix("end-to-end-").tempdir_in(dir)?;
        let files = if security == Security::Tls { Some(Files::create(dir.path())?) } else { None };
        let ports = free_ports(2 * contestant.members)?;
        let (client_ports, peer_ports) = ports.split_at(contestant.members);
        let scheme = if files.is_some() { "https" } else { "http" };
        let seats: Vec<String> =
            peer_ports.iter().enumerate().map(|(n, port)| format!("m{n}=http://127.0.0.1:{port}")).collect();
        let mut cluster = Cluster { members: Vec::new(), files, security, dir };
        for (n, (client, peer)) in client_ports.iter().zip(peer_ports).enumerate() {
            let seat = Seat {
                name: format!("m{n}"),
                data: cluster.dir.path().join(format!("data-{n}")),
                client_url: format!("{scheme}://127.0.0.1:{client}"),
                peer_url: format!("http://127.0.0.1:{peer}"),
                cluster: seats.join(","),
                files: cluster.files.as_ref(),
            };
            let mut words = (contestant.kind.flags)(&seat);
            words.extend(flags.iter().map(|flag| (*flag).to_owned()));
            words.extend(contestant.extra.iter().cloned());
            let log = cluster.dir.path().join(format!("log-{n}"));
            let access = Access::new(*client, cluster.files.as_ref())?;
            cluster.members.push(Member::start(&contestant.binary, words, log, access)?);
        }
        cluster.wait_until_read()?;
        cluster.durability()?;
        if security == Security::Users {
            cluster.access().turn_users_on(PATIENCE)?;
        }
        Ok(cluster)
    }

    /// The way to the first member.
    pub fn access(&self) -> &Access {
        &self.members[0].access
    }

    /// The settings of durability of its members, which are all alike.
    ///
    /// # Errors
    /// A member runs without fsync, or is gone.
    pub fn durability(&self) -> Result<Durability> {
        let mut found = self.pids().map(Durability::of).collect::<Result<Vec<_>>>()?;
        found.pop().ok_or_else(|| "a cluster without members".into())
    }

    fn pids(&self) -> impl Iterator<Item = u32> {
        self.members.iter().map(|member| member.child.id())
    }

    /// The flags that tell the load tool where to go, and whose CPU and memory to measure.
    pub fn tool_flags(&self) -> Vec<String> {
        self.tool_flags_of(|_| true)
    }

    /// The same, with the load going to some members only. What is measured is all members that run.
    pub fn tool_flags_of(&self, takes_part: impl Fn(usize) -> bool) -> Vec<String> {
        let scheme = if self.files.is_some() { "https" } else { "http" };
        let chosen = self.members.iter().enumerate().filter(|(n, _)| takes_part(*n));
        let endpoints: Vec<String> =
            chosen.map(|(_, m)| format!("{scheme}://127.0.0.1:{}", m.access.port)).collect();
        let running = self.members.iter().filter(|member| !member.is_killed);
        let pids: Vec<String> = running.map(|member| member.child.id().to_string()).collect();
        let mut flags = access::tool_flags(self.security, self.files.as_ref());
        flags.push(format!("--endpoints={}", endpoints.join(",")));
        flags.push(format!("--server-pid={}", pids.join(",")));
        flags
    }

    /// The ways to all members, in order.
    pub fn accesses(&self) -> impl Iterator<Item = &Access> {
        self.members.iter().map(|member| &member.access)
    }

    /// The member that leads.
    ///
    /// # Errors
    /// None does, in time.
    pub fn leader(&self) -> Result<usize> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let leads = |access: &Access| access.status(PATIENCE).is_ok_and(access::Status::leads);
            if let Some(leader) = self.accesses().position(leads) {
                return Ok(leader);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Err("the cluster has no leader".into())
    }

    /// Ends one member at once, as a crash would. Returns when it was sent the signal.
    ///
    /// # Errors
    /// It cannot be ended.
    pub fn kill_member(&mut self, member: usize) -> Result<Instant> {
        let member = &mut self.members[member];
        let at = Instant::now();
        member.child.kill()?;
        member.child.wait()?;
        member.is_killed = true;
        Ok(at)
    }

    /// Starts one member again, and waits until it has answered a linearizable read.
    ///
    /// # Errors
    /// As for [`Cluster::start`].
    pub fn restart_member(&mut self, member: usize) -> Result<()> {
        let member = &mut self.members[member];
        member.child = member.command.spawn()?;
        member.is_killed = false;
        member.wait_until_read(Instant::now() + PATIENCE)
    }

    /// Anonymous memory of all members, in bytes.
    ///
    /// # Errors
    /// A member is gone.
    pub fn anon_bytes(&self) -> Result<u64> {
        self.pids().map(process::anon_bytes).sum()
    }

    /// Bytes in the data directories, as allocated lengths of their files.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn disk_bytes(&self) -> Result<u64> {
        directory_bytes(self.dir.path())
    }

    /// Sends SIGTERM to all members and returns the time until they have ended.
    ///
    /// # Errors
    /// One does not end in time.
    pub fn terminate(&mut self) -> Result<Duration> {
        let started = Instant::now();
        let pids: Vec<String> = self.pids().map(|pid| pid.to_string()).collect();
        if !Command::new("kill").arg("-TERM").args(pids).status()?.success() {
            return Err("kill -TERM failed".into());
        }
        for member in &mut self.members {
            while member.child.try_wait()?.is_none() {
                if started.elapsed() > PATIENCE {
                    return Err("the server does not stop on SIGTERM".into());
                }
                std::thread::sleep(LOOK_AGAIN);
            }
        }
        Ok(started.elapsed())
    }

    /// Ends the processes at once, as a crash would.
    ///
    /// # Errors
    /// One cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        for member in &mut self.members {
            // Ended already is as good.
            let _ = member.child.kill();
        }
        self.members.iter_mut().try_for_each(|member| Ok(member.child.wait().map(drop)?))
    }

    /// Starts all members again on the same data and returns the time until each has answered a linearizable read.
    ///
    /// # Errors
    /// As for [`Cluster::start`].
    pub fn restart(&mut self) -> Result<Duration> {
        let started = Instant::now();
        for member in &mut self.members {
            member.child = member.command.spawn()?;
        }
        self.wait_until_read()?;
        Ok(started.elapsed())
    }

    fn wait_until_read(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        self.members.iter_mut().try_for_each(|member| member.wait_until_read(deadline))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // An error means that they have ended already, which is what we want.
        let _ = self.kill();
    }
}

impl Member {
    fn start(binary: &Path, flags: Vec<String>, log: PathBuf, access: Access) -> Result<Member> {
        // Appended to, because the command is used again for a restart.
        let file = File::options().create(true).append(true).open(&log)?;
        let mut command = Command::new(binary);
        command.args(flags).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().map_err(|e| format!("cannot start {}: {e}", binary.display()))?;
        Ok(Member { child, command, log, access, is_killed: false })
    }

    /// Asks every millisecond until the member has answered a status and a linearizable read.
    fn wait_until_read(&mut self, deadline: Instant) -> Result<()> {
        loop {
            // A server may take the connection long before it answers, so a single question gets all the time.
            let Err(refused) = self.access.version(PATIENCE) else { return Ok(()) };
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("the server ended ({status}):\n{}", self.log_tail()).into());
            }
            if Instant::now() > deadline {
                return Err(format!("no answer in {PATIENCE:?} ({refused}):\n{}", self.log_tail()).into());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// The last lines that the server logged.
    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

/// Ports of the loopback interface that were free a moment ago, all different.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<Vec<_>>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
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
