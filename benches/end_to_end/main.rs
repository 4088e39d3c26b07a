//! End-to-end benchmark: servers of the etcd API side by side, on the same machine, in turn, with the same load and fsync on.
//! Ratios between them are what counts; absolute figures belong to the machine. `--help` lists the options.
//!
//! Each run starts a cluster on loopback with fresh data directories and lets `kvist bench` load it, which measures and
//! checks. Rounds go around everything, and the servers take turns at going first. The report (`report`) has marks at the goals
//! of the project (`scenario`). A missed goal is no failure; a failed run is.

mod access;
mod failure;
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
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    // Ctrl-C reaches servers and load tool as well; we stay to report what there is, and to remove the data directories.
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&stop))?;
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&stop))?;
    let mut session = Session { contestants: &contestants, options: &options, rate: options.rate, stop };
    for round in 1..=options.rounds() {
        session.round(round, &mut report.runs);
        // After every round, so that a long benchmark that ends early has not been for nothing.
        report.is_whole = !session.is_stopped() && round == options.rounds();
        report.write(&out)?;
        if session.is_stopped() {
            break;
        }
    }
    print!("{}", report.markdown()?);
    eprintln!("written: {}", out.join("report.html").display());
    let has_failed = report.runs.iter().any(|run| run.problem.is_some());
    Ok(if has_failed || !report.is_whole { ExitCode::FAILURE } else { ExitCode::SUCCESS })
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
        let cluster = Cluster::start(contestant, &options.dir(), access::Security::Open, &[])
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

/// What the rounds share.
struct Session<'a> {
    contestants: &'a [Contestant],
    options: &'a Options,
    /// Requests per second of the open loop, once they are known.
    rate: Option<f64>,
    /// Whether somebody wants this to end.
    stop: Arc<AtomicBool>,
}

impl<'a> Session<'a> {
    /// One round. The servers take turns at going first, from scenario to scenario and from round to round.
    fn round(&mut self, round: u32, runs: &mut Vec<Run>) {
        let options = self.options;
        let scenarios = ALL.iter().filter(|scenario| options.wants(scenario));
        for (number, scenario) in scenarios.enumerate() {
            let can_run = |contestant: &&Contestant| scenario.is_for(contestant.kind.name);
            let mut order: Vec<&Contestant> = self.contestants.iter().filter(can_run).collect();
            let first = (round as usize + number) % order.len().max(1);
            order.rotate_left(first);
            for contestant in order {
                eprintln!("  round {round}: {} on {}", scenario.name, contestant.kind.name);
                let mut bench = Bench { scenario, contestant, options, round, rate: 0.0 };
                let run = match self.rate(&bench) {
                    Ok(rate) => {
                        bench.rate = rate;
                        bench.run()
                    }
                    Err(error) => bench.failed(format!("the peak is not known: {error}")),
                };
                if self.is_stopped() {
                    return; // and the run that was disturbed is no run
                }
                if let Some(problem) = &run.problem {
                    eprintln!("    problem: {problem}");
                }
                runs.push(run);
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The rate of a scenario with an open loop: a share of what the reference takes. Measured once, before the first of them.
    fn rate(&mut self, bench: &Bench<'a>) -> Result<f64> {
        let Plan::Open(share) = bench.scenario.plan else { return Ok(0.0) };
        if let Some(rate) = self.rate {
            return Ok(rate);
        }
        let reference = self.contestants.iter().find(|contestant| contestant.kind.name == kinds::REFERENCE);
        let contestant = reference.unwrap_or(&self.contestants[0]);
        eprintln!("    the peak of {}", contestant.kind.name);
        let rate = Bench { contestant, ..*bench }.peak()? * share;
        self.rate = Some(rate);
        Ok(rate)
    }
}
