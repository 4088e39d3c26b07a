//! Where and what was measured: figures without it are worth nothing. Read once by `main`, printed by `report`.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::Result;

/// Description of the machine and the programs.
#[derive(Debug, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_gib: f64,
    pub kernel: String,
    /// File system of the data directories.
    pub file_system: String,
    /// One-minute load average before the first run. Figures of a busy machine show mostly its business.
    pub load_before: String,
    /// Commit of this tree.
    pub commit: String,
    /// Name of each server with the version that it reports.
    pub servers: Vec<String>,
}

impl Machine {
    /// Looks around; whatever cannot be found out is called unknown.
    ///
    /// # Errors
    /// `dir` is kept in memory, where flushing costs nothing.
    pub fn describe(dir: &Path) -> Result<Machine> {
        let file_system = file_system(dir).unwrap_or_else(unknown);
        if matches!(file_system.as_str(), "tmpfs" | "ramfs") {
            return Err(format!("{} lies on {file_system}: give --dir on a real disk", dir.display()).into());
        }
        let kib = proc_field("meminfo", "MemTotal").and_then(|m| m.split(' ').next()?.parse::<f64>().ok());
        Ok(Machine {
            cpu: proc_field("cpuinfo", "model name").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib.unwrap_or(0.0) / f64::from(1 << 20),
            kernel: first_line("/proc/sys/kernel/osrelease"),
            file_system,
            load_before: first_line("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
            commit: commit().unwrap_or_else(unknown),
            servers: Vec::new(),
        })
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path).ok().and_then(|t| t.lines().next().map(str::to_owned)).unwrap_or_else(unknown)
}

/// Value of the first `name : value` line of a file in `/proc`.
fn proc_field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{file}")).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Type of the file system that holds `dir`: that of the longest mount point above it, the last mounted of equals.
fn file_system(dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let mut fields = mounts.lines().map(|line| line.split(' '));
    let mut best: Option<(usize, String)> = None;
    for (mount, kind) in fields.by_ref().filter_map(|mut f| Some((f.nth(1)?, f.next()?))) {
        let depth = Path::new(mount).components().count();
        if dir.starts_with(mount) && best.as_ref().is_none_or(|(deepest, _)| depth >= *deepest) {
            best = Some((depth, kind.to_owned()));
        }
    }
    best.map(|(_, kind)| kind)
}

fn commit() -> Option<String> {
    let output = Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success()).then(|| text.trim().to_owned())
}
