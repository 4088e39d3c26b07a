//! What `/proc` tells about a process: time on the CPU, bytes written, anonymous memory. Linux only, like the rest of
//! this benchmark. Read by `server` for the server and by `load` for the load tool itself.

use std::fs;

use crate::Result;

/// Microseconds of a clock tick in `/proc/PID/stat`. The kernel's interface counts in 1/100 s on every machine we run on.
const TICK_US: u64 = 10_000;

/// Counters of a process since its start, and its memory now.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// User and system time of all threads, ended ones included.
    pub cpu_us: u64,
    /// Bytes caused to be sent to the disk.
    pub written_bytes: u64,
    pub anon_bytes: u64,
}

impl Usage {
    /// Reads the counters of a process.
    ///
    /// # Errors
    /// The process is gone, or a file is not of the known form.
    pub fn of(pid: u32) -> Result<Usage> {
        let read = |file: &str| {
            fs::read_to_string(format!("/proc/{pid}/{file}"))
                .map_err(|e| format!("process {pid}, {file}: {e}"))
        };
        let form = |file: &str| format!("/proc/{pid}/{file} has an unknown form");
        Ok(Usage {
            cpu_us: cpu_ticks(&read("stat")?).ok_or_else(|| form("stat"))? * TICK_US,
            written_bytes: field(&read("io")?, "write_bytes:").ok_or_else(|| form("io"))?,
            anon_bytes: field(&read("status")?, "RssAnon:").ok_or_else(|| form("status"))? * 1024,
        })
    }
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

/// Refuses a process that was told not to flush to disk: its figures would mean nothing.
///
/// # Errors
/// The flag or the variable is present, or `/proc` cannot be read.
pub fn refuse_without_fsync(pid: u32) -> Result<()> {
    for file in ["cmdline", "environ"] {
        let bytes = fs::read(format!("/proc/{pid}/{file}"))?;
        let text = String::from_utf8_lossy(&bytes).to_lowercase().replace('_', "-");
        if text.contains("unsafe-no-fsync") {
            return Err(format!("the server runs with unsafe-no-fsync (see its {file}); refused").into());
        }
    }
    Ok(())
}
