//! The client matrix: the clients that people use, each in its own language, against started servers.
//!
//! `cargo test --test matrix` runs every suite of `tests/compat/clients` and prints a table client × feature. A suite
//! is a folder with two programs. `prepare` gets what it needs (exit code 77: this machine can't, and the last line says
//! why). `run` asks the control service (`control.rs`) for servers and prints its cases as TAP (`tap.rs`). Their
//! environment: `KVIST_WORK` (a directory that is kept between runs), `KVIST_TOOLS`, `KVIST_SERVER_KIND` ("kvist" or
//! "etcd", for the few intended differences), and for `run` `KVIST_CONTROL`, the address of the service.
//!
//! The server under test is the release build, or what `KVIST_TEST_SERVER` names. The exit code is 1 if a case or a
//! suite failed; what was skipped is listed with its reason.

mod control;
mod process;
mod report;
mod servers;
mod suite;
#[path = "../support/mod.rs"]
mod support;
mod table;
mod tap;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use parking_lot::Mutex;

use report::Finished;
use suite::Matrix;

/// The order of the columns; `python-etcd3` goes with `python`. What else is in the folder comes behind, by name.
const ORDER: [&str; 8] = ["go", "etcdctl", "rust", "python", "node", "java", "curl", "patroni"];
const JOBS_MAX: u16 = 8;

/// Runs real clients against the server and prints a table client × feature.
#[derive(Parser)]
#[command(name = "matrix")]
struct Options {
    /// Only these suites, such as go,python
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Suites that run at the same time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=i64::from(JOBS_MAX)))]
    jobs: u16,
    /// Folder of the suites, if it is another
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compat/clients"))]
    suites: PathBuf,
    /// Name the suites and end
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match matrix(&options) {
        Ok(code) => code,
        Err(reason) => {
            eprintln!("matrix: {reason}");
            ExitCode::from(2)
        }
    }
}

fn matrix(options: &Options) -> Result<ExitCode, String> {
    let clients =
        &options.suites.canonicalize().map_err(|error| format!("{}: {error}", options.suites.display()))?;
    let suites = select(suites(clients)?, &options.only)?;
    if options.list {
        suites.iter().for_each(|name| println!("{name}"));
        return Ok(ExitCode::SUCCESS);
    }
    let target = Path::new(env!("CARGO_BIN_EXE_kvist")).parent().and_then(Path::parent);
    let target = target.ok_or("no target directory")?;
    let binary =
        std::env::var_os("KVIST_TEST_SERVER").map_or_else(|| target.join("release/kvist"), PathBuf::from);
    let version = version(&binary)?;
    println!("{}: {version}", binary.display());

    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(|error| error.to_string())?;
    }
    let matrix = Matrix {
        kind: if version.contains("kvist") { "kvist" } else { "etcd" },
        binary,
        tools: target.join("tools"),
        work: target.join("matrix"),
        runtime: tokio::runtime::Runtime::new().map_err(|error| error.to_string())?,
        stop,
        preparing: Mutex::new(()),
    };
    let finished = run_all(&matrix, clients, &suites, options.jobs);
    if matrix.stop.load(Ordering::Relaxed) {
        eprintln!("matrix: stopped");
        return Ok(ExitCode::from(130));
    }
    let path = matrix.work.join("report.json");
    report::write(&path, &version, &finished).map_err(|error| format!("{}: {error}", path.display()))?;
    println!("\n{}\n{}", table::render(&finished), table::details(&finished));
    println!("{}", table::summary(&finished));
    let failed = table::Count::total(&finished).failed > 0;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Runs suites, some at a time; the results are in the order of `names`.
fn run_all(matrix: &Matrix, clients: &Path, names: &[String], jobs: u16) -> Vec<Finished> {
    let queue: Mutex<VecDeque<usize>> = Mutex::new((0..names.len()).collect());
    let finished = Mutex::new(Vec::new());
    let worker = || {
        loop {
            let next = queue.lock().pop_front();
            let Some(index) = next.filter(|_| !matrix.stop.load(Ordering::Relaxed)) else { break };
            let result = suite::run(matrix, &names[index], &clients.join(&names[index]));
            finished.lock().push((index, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(worker);
        }
    });
    let mut finished = finished.into_inner();
    finished.sort_by_key(|(index, _)| *index);
    finished.into_iter().map(|(_, result)| result).collect()
}

/// Names of the folders that hold a suite, in the order of the table.
fn suites(clients: &Path) -> Result<Vec<String>, String> {
    let entries = std::fs::read_dir(clients).map_err(|error| format!("{}: {error}", clients.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().join("run").exists())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let family = |name: &str| name.split('-').next().unwrap_or_default().to_owned();
    let place = |name: &String| ORDER.iter().position(|known| *known == family(name)).unwrap_or(ORDER.len());
    names.sort_by(|a, b| (place(a), a).cmp(&(place(b), b)));
    Ok(names)
}

fn select(all: Vec<String>, only: &[String]) -> Result<Vec<String>, String> {
    if let Some(unknown) = only.iter().find(|name| !all.contains(name)) {
        return Err(format!("there is no suite {unknown}; there are: {}", all.join(", ")));
    }
    Ok(all.into_iter().filter(|name| only.is_empty() || only.contains(name)).collect())
}

/// The first line of `--version`.
fn version(binary: &Path) -> Result<String, String> {
    let output = Command::new(binary).arg("--version").output();
    let output =
        output.map_err(|error| format!("{}: {error}; build it with: make build", binary.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().take(2).map(str::trim).collect();
    Ok(lines.join(", "))
}
