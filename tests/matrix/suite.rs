//! One suite from its preparation to its cases. Called by the workers in `main.rs`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Runtime;

use crate::control::Control;
use crate::process::{self, End};
use crate::report::Finished;
use crate::tap::{Case, Outcome, Tap};

const PREPARE_LIMIT: Duration = Duration::from_secs(600);
const RUN_LIMIT: Duration = Duration::from_secs(300);
/// How often a suite that is at work says so.
const PROGRESS: Duration = Duration::from_secs(10);
/// Exit code of a `prepare` that says that this machine can't.
const CANNOT: i32 = 77;

/// What all suites share.
pub struct Matrix {
    /// The server under test.
    pub binary: PathBuf,
    /// "kvist", or "etcd" for anything else.
    pub kind: &'static str,
    /// Where `make tools` puts etcd, etcdctl and etcdutl.
    pub tools: PathBuf,
    /// `target/matrix`.
    pub work: PathBuf,
    pub runtime: Runtime,
    /// Set by SIGINT and SIGTERM.
    pub stop: std::sync::Arc<AtomicBool>,
    /// Preparations take turns: they install packages and use all cores.
    pub preparing: Mutex<()>,
}

struct Suite<'a> {
    matrix: &'a Matrix,
    name: &'a str,
    dir: &'a Path,
    work: PathBuf,
    log_path: PathBuf,
    log: File,
}

/// Prepares and runs a suite; what goes wrong with it is a failed case of the result.
pub fn run(matrix: &Matrix, name: &str, dir: &Path) -> Finished {
    let work = matrix.work.join(name);
    let log_path = work.join("log");
    let made = std::fs::create_dir_all(&work).and_then(|()| File::create(&log_path));
    let result = match made {
        Ok(log) => Suite { matrix, name, dir, work, log_path: log_path.clone(), log }.work(),
        Err(error) => Err(Case::broken("log", format!("{}: {error}", log_path.display()))),
    };
    let finished = result.unwrap_or_else(|case| {
        println!("{name}: FAILED, {}: {}", case.name, case.reason);
        broken(name, log_path, case)
    });
    if let Some(reason) = &finished.skipped {
        println!("{name}: skipped, {reason}");
    }
    finished
}

fn broken(name: &str, log: PathBuf, case: Case) -> Finished {
    let text = std::fs::read(&log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let notes = lines[lines.len().saturating_sub(20)..].iter().map(|line| (*line).to_owned()).collect();
    Finished { cases: vec![case], notes, ..empty(name, log) }
}

fn empty(name: &str, log: PathBuf) -> Finished {
    let (client, notes) = (String::new(), Vec::new());
    Finished { name: name.to_owned(), client, seconds: 0.0, skipped: None, cases: Vec::new(), notes, log }
}

impl Suite<'_> {
    fn work(self) -> Result<Finished, Case> {
        if let Some(reason) = self.prepare()? {
            return Ok(Finished { skipped: Some(reason), ..empty(self.name, self.log_path) });
        }
        self.cases()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.dir.join(program));
        command
            .current_dir(self.dir)
            .env("KVIST_WORK", &self.work)
            .env("KVIST_TOOLS", &self.matrix.tools)
            .env("KVIST_SERVER_KIND", self.matrix.kind)
            // The suite is to see the servers that it asks for, and none of the caller's.
            .env_remove("ETCDCTL_ENDPOINTS")
            .env_remove("KVIST_TEST_SERVER");
        for (variable, _) in std::env::vars_os() {
            // Set by cargo for the runner's package; a suite that calls cargo has another.
            let of_package =
                |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
            if variable.to_str().is_some_and(of_package) {
                command.env_remove(variable);
            }
        }
        command
    }

    fn mark(&self) -> String {
        format!("{}-{}", std::process::id(), self.name)
    }

    /// Gets what the suite needs. A text: why this machine can't.
    fn prepare(&self) -> Result<Option<String>, Case> {
        let _turn = self.matrix.preparing.lock();
        println!("{}: preparing", self.name);
        let begin = Instant::now();
        let mut said = Instant::now();
        let mut last = String::new();
        let end = process::run(
            self.command("prepare"),
            &self.mark(),
            &self.log,
            PREPARE_LIMIT,
            &self.matrix.stop,
            |line| {
                if !line.trim().is_empty() {
                    line.trim().clone_into(&mut last);
                }
            },
            || {
                if said.elapsed() > PROGRESS {
                    said = Instant::now();
                    println!("{}: preparing for {} s", self.name, begin.elapsed().as_secs());
                }
            },
        );
        match end {
            Ok(End::Code(0)) => Ok(None),
            Ok(End::Code(CANNOT)) if last.is_empty() => Ok(Some("it did not say why".to_owned())),
            Ok(End::Code(CANNOT)) => Ok(Some(last)),
            Ok(End::Code(code)) => Err(Case::broken("prepare", format!("exit code {code}"))),
            Ok(End::Killed(reason)) => Err(Case::broken("prepare", reason)),
            Err(error) => Err(Case::broken("prepare", error.to_string())),
        }
    }

    /// Runs the cases, with a control service as long as they take.
    fn cases(self) -> Result<Finished, Case> {
        let begin = Instant::now();
        let control = Control::start(&self.matrix.runtime, &self.matrix.binary, &self.work);
        let control = control.map_err(|error| Case::broken("control", error.to_string()))?;
        let mut command = self.command("run");
        command.env("KVIST_CONTROL", &control.url);
        for variable in ["no_proxy", "NO_PROXY"] {
            command.env(variable, "127.0.0.1,localhost"); // where all servers are
        }
        println!("{}: running", self.name);
        let tap = Mutex::new(Tap::default());
        let mut said = Instant::now();
        let end = process::run(
            command,
            &self.mark(),
            &self.log,
            RUN_LIMIT,
            &self.matrix.stop,
            |line| {
                if let Some(case) = tap.lock().line(line)
                    && case.outcome == Outcome::Failed
                {
                    println!("{}: FAILED {}/{}: {}", self.name, case.feature, case.name, case.reason);
                }
            },
            || {
                if said.elapsed() > PROGRESS {
                    said = Instant::now();
                    let tap = tap.lock();
                    let last = tap.cases().last().map_or("none", |case| case.feature.as_str());
                    println!("{}: {} cases so far, the last of {last}", self.name, tap.cases().len());
                }
            },
        );
        drop(control);
        let ended = match end {
            Ok(End::Code(0)) => Ok(()),
            Ok(End::Code(code)) => Err(format!("exit code {code}")),
            Ok(End::Killed(reason)) => Err(reason),
            Err(error) => Err(error.to_string()),
        };
        let seconds = begin.elapsed().as_secs_f64();
        let tap = tap.into_inner();
        let client = tap.client.clone();
        let notes = tap.notes.iter().cloned().collect();
        let cases = tap.finish(ended);
        println!("{}: {} cases in {seconds:.0} s", self.name, cases.len());
        Ok(Finished { client, seconds, cases, notes, ..empty(self.name, self.log_path) })
    }
}
