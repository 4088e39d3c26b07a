//! End-to-end benchmark: kvist beside a real etcd on the same machine, in one run, alternating, with the same load tool and
//! fsync on. Ratios between the two are what counts; absolute figures belong to the machine. `--help` lists the options.
//!
//! Each run starts a server on loopback with a fresh data directory, warms it up, measures, and checks that the store
//! holds what it acknowledged. Load tool: one thread, closed loop (`load`). The result is a Markdown table on standard output,
//! with marks at the goals of the project (`workload::GOALS`), and the same as JSON. A missed goal is no failure.

mod access;
mod client;
mod load;
mod machine;
mod options;
mod process;
mod report;
mod restart;
mod runs;
mod scrape;
mod server;
mod watch;
mod workload;

use std::path::PathBuf;

use access::Security;
use client::Client;
use machine::Machine;
use options::Options;
use report::Report;
use runs::Run;
use server::{Server, Side};
use tokio::task::LocalSet;
use workload::Kind;

/// Errors are only ever printed here, hence one type for all.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--help") {
        print!("{}", options::USAGE);
        return std::process::ExitCode::SUCCESS;
    }
    // Cargo gives `--bench` to benches only when benchmarking; `cargo test --all-targets` must not take minutes.
    if !args.iter().any(|arg| arg == "--bench") {
        println!("not started: this needs `cargo bench --bench end_to_end`");
        return std::process::ExitCode::SUCCESS;
    }
    match benchmark(args) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn benchmark(args: Vec<String>) -> Result<()> {
    let options = Options::parse(args.into_iter())?;
    std::fs::create_dir_all(&options.dir)?;
    let mut machine = Machine::describe(&options.dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let contestants = contestants(&options);
    let runs = LocalSet::new().block_on(&runtime, async {
        machine.servers = introduce(&contestants, &options).await?;
        Result::Ok(all_runs(&contestants, &options).await)
    })?;
    let report = Report::new(&machine, &options, &runs);
    let markdown = report.markdown()?;
    print!("{markdown}");
    if let Some(dir) = options.json.parent() {
        std::fs::create_dir_all(dir)?;
    }
    for (file, text) in
        [(options.json.with_extension("md"), markdown), (options.json.clone(), report.json()?)]
    {
        std::fs::write(&file, text)?;
        eprintln!("written: {}", file.display());
    }
    Ok(())
}

fn contestants(options: &Options) -> Vec<(Side, PathBuf)> {
    let kvist = (Side::Kvist, options.kvist.clone());
    match &options.etcd {
        Some(etcd) => vec![kvist, (Side::Etcd, etcd.clone())],
        None => {
            eprintln!("no etcd in PATH and none given with --etcd: kvist runs alone, without ratios");
            vec![kvist]
        }
    }
}

/// Starts each server once: shows early that it works, and which version it is.
async fn introduce(contestants: &[(Side, PathBuf)], options: &Options) -> Result<Vec<String>> {
    let mut servers = Vec::new();
    for (side, binary) in contestants {
        let server = Server::start(binary, &options.dir, Security::Open)
            .await
            .map_err(|e| format!("{}: {e}", side.name()))?;
        let version = Client::connect(server.access(), 1).await?.status().await?;
        let program = binary.file_name().unwrap_or_default().to_string_lossy().into_owned();
        servers.push(format!("{} = {program} {version}", side.name()));
    }
    Ok(servers)
}

/// All rounds of all workloads. The servers change places from round to round, so that neither always goes first.
async fn all_runs(contestants: &[(Side, PathBuf)], options: &Options) -> Vec<Run> {
    let mut runs = Vec::new();
    for round in 1..=options.rounds {
        for workload in workload::ALL.iter().filter(|w| options.only.iter().any(|name| name == w.name)) {
            if workload.kind == Kind::Restart && round > 1 {
                continue;
            }
            let mut order: Vec<_> = contestants.iter().collect();
            order.rotate_left(round as usize % contestants.len());
            for (side, binary) in order {
                eprintln!("  round {round}: {} on {}", workload.name, side.name());
                let run = runs::run(workload, *side, binary, round, options).await;
                for problem in &run.problems {
                    eprintln!("    problem: {problem}");
                }
                runs.push(run);
            }
        }
    }
    runs
}
