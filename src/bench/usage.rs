//! What `/proc` tells about processes: time on the CPU, bytes written, memory. Linux only; elsewhere, and for processes
//! that may not be looked at, it is an error. Used by `coordinator` for the servers and for the load tool itself.

use serde::Serialize;
use std::fs;
use std::io;

/// Microseconds of a clock tick in `/proc/PID/stat`; the kernel counts in 1/100 s on every machine that we know.
const TICK_US: u64 = 10_000;

/// Counters of a process since its start, and its memory now.
#[derive(Clone, Copy, Debug)]
struct Usage {
    cpu_us: u64,
    written_bytes: u64,
    anon_bytes: u64,
    file_bytes: u64,
}

impl Usage {
    fn of(pid: u32) -> io::Result<Usage> {
        let form = |file: &str| io::Error::other(format!("/proc/{pid}/{file} has an unknown form"));
        let status = read(pid, "status")?;
        let memory = |name| field(&status, name).map(|kib| kib * 1024).ok_or_else(|| form("status"));
        Ok(Usage {
            cpu_us: cpu_us(pid)?,
            written_bytes: field(&read(pid, "io")?, "write_bytes:").ok_or_else(|| form("io"))?,
            anon_bytes: memory("RssAnon:")?,
            file_bytes: memory("RssFile:")?,
        })
    }
}

fn read(pid: u32, file: &str) -> io::Result<String> {
    fs::read_to_string(format!("/proc/{pid}/{file}"))
        .map_err(|error| io::Error::new(error.kind(), format!("process {pid}, {file}: {error}")))
}

/// User and system time of all threads of a process, ended ones included.
///
/// # Errors
/// The process is gone, or `/proc` is not of the known form.
pub fn cpu_us(pid: u32) -> io::Result<u64> {
    let ticks = cpu_ticks(&read(pid, "stat")?);
    let ticks = ticks.ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat has an unknown form")))?;
    Ok(ticks * TICK_US)
}

/// Fields 14 and 15 of `stat`, utime and stime. The second field, the name, may itself hold spaces and brackets.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// What a process of the server did in the measured time.
#[derive(Clone, Debug, Serialize)]
pub struct Spent {
    /// Of the process.
    pub pid: u32,
    /// User and system time.
    pub cpu_us: u64,
    /// Bytes sent to the disk.
    pub written_bytes: u64,
    /// Anonymous memory at the end.
    pub anon_bytes: u64,
    /// Memory that maps files at the end; the kernel can drop it at any time.
    pub file_bytes: u64,
    /// Most anonymous memory that was seen.
    pub peak_anon_bytes: u64,
}

/// Looks at processes from one moment to another.
pub struct Watchman {
    processes: Vec<Process>,
}

struct Process {
    pid: u32,
    before: Usage,
    peak_anon_bytes: u64,
}

impl Watchman {
    /// Begins now.
    ///
    /// # Errors
    /// A process can't be looked at.
    pub fn start(pids: &[u32]) -> io::Result<Watchman> {
        let begin = |&pid: &u32| {
            let before = Usage::of(pid)?;
            Ok(Process { pid, before, peak_anon_bytes: before.anon_bytes })
        };
        Ok(Watchman { processes: pids.iter().map(begin).collect::<io::Result<_>>()? })
    }

    /// Looks at the memory, for its peak. To be called now and then.
    pub fn look(&mut self) {
        for process in &mut self.processes {
            let now = read(process.pid, "status").ok().and_then(|status| field(&status, "RssAnon:"));
            process.peak_anon_bytes = process.peak_anon_bytes.max(now.unwrap_or(0) * 1024);
        }
    }

    /// What the processes did since the begin.
    ///
    /// # Errors
    /// A process is gone.
    pub fn spent(&self) -> io::Result<Vec<Spent>> {
        let end = |process: &Process| {
            let (before, now) = (process.before, Usage::of(process.pid)?);
            Ok(Spent {
                pid: process.pid,
                cpu_us: now.cpu_us - before.cpu_us,
                written_bytes: now.written_bytes - before.written_bytes,
                anon_bytes: now.anon_bytes,
                file_bytes: now.file_bytes,
                peak_anon_bytes: process.peak_anon_bytes.max(now.anon_bytes),
            })
        };
        self.processes.iter().map(end).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_does_not_confuse_the_counters() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 30 12 0 0 20 0 1 0 5 1 2";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(cpu_ticks("7 (a) S 1"), None);
        assert_eq!(field("Name:\tx\nRssAnon:\t   84 kB\n", "RssAnon:"), Some(84));
    }

    #[test]
    fn this_process_can_be_watched() {
        let mut watchman = Watchman::start(&[std::process::id()]).expect("our own process");
        watchman.look();
        let spent = watchman.spent().expect("our own process");
        assert!(spent[0].peak_anon_bytes >= spent[0].anon_bytes && spent[0].anon_bytes > 0);
        assert!(Watchman::start(&[u32::MAX]).is_err());
    }
}
