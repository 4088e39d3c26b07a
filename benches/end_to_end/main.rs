//! End-to-end benchmark: servers of the etcd API side by side, on the same machine, in turn, with the same load and fsync on.
//! Ratios between them are what counts; absolute figures belong to the machine. `--help` lists the options.
//!
//! Each run starts a cluster on loopback with fresh data directories and lets `kvist bench` load it, which measures and
//! checks. Rounds go around everything, and the servers take turns at going first. The report (`report`) has marks at the goals
//! of the project (`scenario`). A missed goal is no failure; a failed run is.

mod access;
mod figures;
mod kinds;
mod machine;
mod measure;
mod options;
mod page;
mod plot;
mod process;
mod record;
mod report;
mod scenario;
mod scrape;
mod server;
mod tool;

use std::process::ExitCode;
use std::time::SystemTime;

use machine::Machine;
use measure::{Bench, Run};
use options::Options;
use report::Report;
use scenario::{ALL, Plan};
use server::{Cluster, Contestant, PATIENCE};

/// Errors are only ever printed here, hence one type for all. They cross threads.
type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // Cargo gives `--bench` to benches only when benchmarking; `cargo test --all-targets` must not take minutes.
    if !words.iter().any(|word| word == "--bench") {
        println!("not started: this needs `cargo bench --bench end_to_end`");
        return ExitCode::SUCCESS;
    }
    match benchmark(words) {
        Ok(code) => code,
        Err(error) => match error.downcast::<clap::Error>() {
            // Help is an error to clap, and knows its own code.
            Ok(usage) => usage.exit(),
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        },
    }
}

fn benchmark(words: Vec<String>) -> Result<ExitCode> {
    let command: Vec<String> =
        words.iter().filter(|word| *word != "--bench").map(|word| without_folders(word)).collect();
    let (options, contestants) = Options::parse(words.into_iter())?;
    if let Some(document) = &options.record {
        record::record(document)?;
        return Ok(ExitCode::SUCCESS);
    }
    std::fs::create_dir_all(options.dir())?;
    let begun = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let mut machine = Machine::describe(&options.dir())?;
    machine.servers = introduce(&contestants, &options)?;
    let mut report = Report::new(begun, command.join(" "), machine, &options, &contestants);
    let out = options.out(&report.folder());
    std::fs::create_dir_all(&out)?;
    let mut rate = options.rate;
    for round in 1..=options.rounds() {
        all_scenarios(round, &contestants, &options, &mut rate, &mut report.runs);
        // After every round, so that a long benchmark that is stopped has not been for nothing.
        report.write(&out)?;
    }
    print!("{}", report.markdown()?);
    eprintln!("written: {}", out.join("report.html").display());
    let has_failed = report.runs.iter().any(|run| run.problem.is_some());
    Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A word of the command line as a report shows it: reports are published, and folders are nobody's business.
fn without_folders(word: &str) -> String {
    match (word.find('/'), word.rfind('/')) {
        (Some(first), Some(last)) => format!("{}{}", &word[..first], &word[last + 1..]),
        _ => word.to_owned(),
    }
}

/// Starts each contestant once: shows early that it works, which version it is, and that all are equally durable.
fn introduce(contestants: &[Contestant], options: &Options) -> Result<Vec<String>> {
    let (mut servers, mut first) = (Vec::new(), None);
    for contestant in contestants {
        let name = contestant.kind.name;
        let cluster = Cluster::start(contestant, &options.dir(), access::Security::Open)
            .map_err(|e| format!("{name}: {e}"))?;
        let durability = cluster.durability()?;
        let (other, settings) = first.get_or_insert_with(|| (name, durability.clone()));
        if *settings != durability {
            return Err(format!(
                "not comparable: the durability of {other} is set by {settings}, that of {name} by {durability}"
            )
            .into());
        }
        let program = contestant.binary.file_name().unwrap_or_default().to_string_lossy().into_owned();
        servers.push(format!("{name} = {program} {}", cluster.access().version(PATIENCE)?));
    }
    Ok(servers)
}

/// One round. The servers take turns at going first, from scenario to scenario and from round to round.
fn all_scenarios(
    round: u32,
    contestants: &[Contestant],
    options: &Options,
    rate: &mut Option<f64>,
    runs: &mut Vec<Run>,
) {
    for (number, scenario) in ALL.iter().filter(|scenario| options.wants(scenario)).enumerate() {
        let bench = |contestant, rate| Bench { scenario, contestant, options, round, rate };
        if let (Plan::Open(share), None) = (scenario.plan, *rate) {
            let reference = contestants.iter().find(|c| c.kind.name == kinds::REFERENCE);
            match bench(reference.unwrap_or(&contestants[0]), 0.0).peak() {
                Ok(peak) => *rate = Some(peak * share),
                Err(error) => {
                    eprintln!("  round {round}: {}: no peak: {error}", scenario.name);
                    continue;
                }
            }
        }
        let mut order: Vec<&Contestant> = contestants.iter().collect();
        order.rotate_left((round as usize + number) % contestants.len());
        for contestant in order {
            eprintln!("  round {round}: {} on {}", scenario.name, contestant.kind.name);
            let run = bench(contestant, rate.unwrap_or(0.0)).run();
            if let Some(problem) = &run.problem {
                eprintln!("    problem: {problem}");
            }
            runs.push(run);
        }
    }
}
