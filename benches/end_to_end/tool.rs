//! Runs `kvist bench` and reads what it found: one JSON object on standard output. A run whose checks failed is an error
//! here, so that its figures never get any further. Used by `measure`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::Result;
use crate::figures::{self as f, Figures};

/// Longest time that a load may take, filling beforehand and checks afterwards included.
const PATIENCE: Duration = Duration::from_secs(1800);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
const MIB: f64 = (1 << 20) as f64;
/// Figures of the tool that are named otherwise here, or follow from others.
const KNOWN_OTHERWISE: [&str; 7] = [
    "ops_per_s",
    "client_cpu_us_per_op",
    "server_cpu_us_per_op",
    "written_bytes_per_op",
    "bytes",
    "keys",
    "events",
];

/// What the tool says. Parts that it leaves out are empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Outcome {
    pub seconds: f64,
    pub operations: u64,
    errors: Errors,
    latency_us: Option<Latency>,
    /// Numbers of the workload; null where there is none.
    pub figures: BTreeMap<String, Option<f64>>,
    client_cpu_us: f64,
    servers: Vec<Process>,
    checks: Vec<Check>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Errors {
    count: u64,
    first: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Latency {
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
    histogram: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Process {
    cpu_us: f64,
    written_bytes: f64,
    anon_bytes: f64,
    file_bytes: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Check {
    name: String,
    ok: bool,
    detail: String,
}

/// A load that is going on.
pub struct Running {
    child: Child,
    out: File,
    err: File,
}

impl Running {
    /// Starts a load.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(tool: &Path, words: &[String]) -> Result<Running> {
        // Files rather than pipes: nobody has to read while the tool runs.
        let (out, err) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let mut command = Command::new(tool);
        command.arg("bench").args(words).stdin(Stdio::null());
        command.stdout(out.try_clone()?).stderr(err.try_clone()?);
        let child = command.spawn().map_err(|e| format!("cannot start {}: {e}", tool.display()))?;
        Ok(Running { child, out, err })
    }

    /// Waits for the end of the load.
    ///
    /// # Errors
    /// It took too long, failed, or its checks did.
    pub fn finish(mut self) -> Result<Outcome> {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                return Err("the load does not end".into());
            }
            std::thread::sleep(LOOK_AGAIN);
        };
        let (out, err) = (text(&mut self.out)?, text(&mut self.err)?);
        let outcome: Outcome = serde_json::from_str(&out)
            .map_err(|e| format!("the load tool ({status}): {}; {e}", tail(&err)))?;
        let failed: Vec<String> =
            outcome.checks.iter().filter(|check| !check.ok).map(Check::sentence).collect();
        if !failed.is_empty() {
            return Err(failed.join("; ").into());
        }
        if !status.success() {
            return Err(format!("the load tool ({status}): {}", tail(&err)).into());
        }
        if outcome.operations == 0 {
            let first = outcome.errors.first.as_deref().unwrap_or("none was sent");
            return Err(format!("no request succeeded: {first}").into());
        }
        Ok(outcome)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already, mostly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Outcome {
    /// CPU time of all members, in microseconds.
    pub fn server_cpu_us(&self) -> f64 {
        self.servers.iter().map(|server| server.cpu_us).sum()
    }

    /// The longest time that a request took, in milliseconds.
    pub fn slowest_ms(&self) -> Option<f64> {
        self.latency_us.as_ref().map(|latency| latency.max / 1e3)
    }

    /// The latencies, as the tool encodes them.
    pub fn histogram(&self) -> Option<String> {
        self.latency_us.as_ref()?.histogram.clone()
    }

    /// The figures that every load has, and those of this one.
    pub fn figures(&self) -> Figures {
        let ops = self.operations as f64;
        let sum = |of: fn(&Process) -> f64| self.servers.iter().map(of).sum::<f64>();
        let mut figures = Figures::new();
        let mut note = |name: &str, figure: f64| {
            // A division by nothing is no figure.
            if figure.is_finite() {
                figures.insert(name.to_owned(), figure);
            }
        };
        note(f::OPS_PER_S, ops / self.seconds);
        note(f::CLIENT_PER_OP, self.client_cpu_us / ops);
        note(f::ERRORS, self.errors.count as f64);
        if !self.servers.is_empty() {
            note(f::CPU_PER_OP, self.server_cpu_us() / ops);
            note(f::WRITTEN_PER_OP, sum(|server| server.written_bytes) / ops);
            note(f::ANON_MIB, sum(|server| server.anon_bytes) / MIB);
            note(f::TOTAL_MIB, sum(|server| server.anon_bytes + server.file_bytes) / MIB);
        }
        if let Some(latency) = &self.latency_us {
            note(f::P50, latency.p50);
            note(f::P99, latency.p99);
            note(f::P999, latency.p999);
            note(f::SLOWEST, latency.max);
        }
        for (name, figure) in
            self.figures.iter().filter(|(name, _)| !KNOWN_OTHERWISE.contains(&name.as_str()))
        {
            note(name, figure.unwrap_or(f64::NAN));
        }
        figures
    }
}

impl Check {
    fn sentence(&self) -> String {
        format!("check failed: {}: {}", self.name, self.detail)
    }
}

fn text(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last line that says anything.
fn tail(text: &str) -> &str {
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message")
}
