//! Differential fuzzing: random sequences of requests on a fresh etcd and a fresh kvist, whose answers must be the same.
//! `make diff` runs it; docs/differential.md is the guide.
//!
//! Environment: `N` sequences, `KVIST_SEED` of the first, `WORKERS` at a time, `REPLAY=file.json` for one sequence.
//! A difference is made small, printed with both transcripts, and left in `target/diff`.

mod compare;
mod duel;
mod file;
mod generate;
mod last;
mod mask;
mod run;
mod sequence;
mod servers;
mod shrink;
mod stats;
mod streams;
#[path = "../support/mod.rs"]
mod support;
mod wire;
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;

use duel::{Different, Outcome, Verdict, duel};
use sequence::Sequence;
use servers::Starting;
use stats::Stats;

const SEQUENCES: u64 = 2000;
/// Two, and one more that waits for a lease or for etcd to look for watchers.
const WORKERS: u64 = 3;
/// A sequence that cannot be judged is played again so often.
const TRIES: usize = 4;
/// After so many differences it is time to look at them.
const DIFFERENCES_MAX: u64 = 5;

fn main() -> ExitCode {
    let Some(etcd) = support::tool("etcd", "comparing with etcd") else { return ExitCode::SUCCESS };
    if let Some(path) = std::env::var_os("REPLAY").filter(|path| !path.is_empty()) {
        return replay(&etcd, Path::new(&path));
    }
    let seed = setting("KVIST_SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let count = setting("N").unwrap_or(SEQUENCES);
    check_anchors();
    println!("KVIST_SEED={seed} N={count}");
    let fuzzing = Fuzzing {
        etcd,
        end: seed + count,
        next: AtomicU64::new(seed),
        is_over: AtomicBool::new(false),
        stats: Mutex::new(Stats::default()),
        bar: bar(count),
    };
    std::thread::scope(|scope| {
        for _ in 0..setting("WORKERS").unwrap_or(WORKERS).max(1) {
            scope.spawn(|| fuzzing.work());
        }
    });
    fuzzing.bar.finish_and_clear();
    let stats = fuzzing.stats.into_inner();
    if std::env::var_os("TABLE").is_some() {
        print!("{}", stats.table());
    }
    let gaps = stats.gaps();
    gaps.iter().for_each(|gap| println!("the generator has a gap: {gap}"));
    println!("{stats}");
    if stats.differences == 0 && gaps.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What is known to differ must be explained to users.
fn check_anchors() {
    let document = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/compat.md"));
    let document = document.expect("docs/compat.md");
    let avoided = generate::AVOIDED.iter().map(|(_, anchor)| *anchor);
    for anchor in compare::ALLOWED.iter().map(|allowed| allowed.anchor).chain(avoided) {
        assert!(document.contains(&format!("| {anchor} |")), "docs/compat.md has no row {anchor:?}");
    }
}

/// A number from the environment; `make` passes empty ones on.
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

fn bar(count: u64) -> ProgressBar {
    let style = "{bar:30} {pos}/{len} sequences, {per_sec}, {eta} left {msg}";
    ProgressBar::new(count).with_style(ProgressStyle::with_template(style).expect("a template"))
}

struct Fuzzing {
    etcd: PathBuf,
    /// Seeds go up to here.
    end: u64,
    next: AtomicU64,
    is_over: AtomicBool,
    stats: Mutex<Stats>,
    bar: ProgressBar,
}

impl Fuzzing {
    /// Plays sequences until there are none left. While one is played, the servers of the next are started.
    fn work(&self) {
        let mut next = self.prepare();
        while let Some((seed, sequence, starting)) = next {
            next = self.prepare();
            self.judge(seed, sequence, starting);
            self.bar.inc(1);
        }
    }

    fn prepare(&self) -> Option<(u64, Sequence, Starting)> {
        let seed = self.next.fetch_add(1, Ordering::Relaxed);
        if seed >= self.end || self.is_over.load(Ordering::Relaxed) {
            return None;
        }
        let sequence = generate::sequence(seed);
        let starting = servers::start(&self.etcd, &sequence);
        Some((seed, sequence, starting))
    }

    fn judge(&self, seed: u64, sequence: Sequence, starting: Starting) {
        let mut outcome = duel(&starting.wait(), &sequence);
        let mut tries = 1;
        while tries < TRIES && matches!(outcome.verdict, Verdict::Doubt(_)) {
            outcome = self.play(&sequence);
            tries += 1;
        }
        let mut stats = self.stats.lock();
        stats.sequences += 1;
        stats.retried += u64::from(tries > 1);
        for anchor in &outcome.allowed {
            *stats.allowed.entry(anchor).or_default() += 1;
        }
        let steps = sequence.steps.iter().cloned().chain(last::steps(&sequence));
        for (step, answer) in steps.zip(&outcome.answers) {
            stats.count(&step, answer);
        }
        match outcome.verdict {
            Verdict::Same => {}
            Verdict::Doubt(why) => {
                // What etcd answers each time, and kvist never, is no matter of time.
                let is_silent = why.starts_with("kvist: ") && !why.contains("expire");
                stats.differences += u64::from(is_silent);
                stats.skipped += u64::from(!is_silent);
                file::write(&left_over(seed), &sequence, &[]);
                self.bar.suspend(|| println!("seed {seed} could not be compared: {why}"));
            }
            Verdict::Different(found) => {
                stats.differences += 1;
                let is_over = stats.differences >= DIFFERENCES_MAX;
                self.is_over.fetch_or(is_over, Ordering::Relaxed);
                drop(stats);
                self.report(seed, sequence, *found);
            }
        }
    }

    fn play(&self, sequence: &Sequence) -> Outcome {
        duel(&servers::start(&self.etcd, sequence).wait(), sequence)
    }

    /// Makes the sequence small and prints what is left of it.
    fn report(&self, seed: u64, sequence: Sequence, found: Different) {
        let call = |sequence: &Sequence, found: &Different| {
            let n = found.difference.step;
            sequence.steps.get(n).map_or_else(|| "the state at the end".to_owned(), |step| step.call.clone())
        };
        let first = call(&sequence, &found);
        let mut smallest = found;
        let mut start = sequence;
        start.steps.truncate(smallest.difference.step + 1);
        let small = shrink::shrink(start, |candidate| {
            let mut outcome = self.play(candidate);
            if matches!(outcome.verdict, Verdict::Doubt(_)) {
                outcome = self.play(candidate);
            }
            match outcome.verdict {
                Verdict::Different(found) if call(candidate, &found) == first => {
                    smallest = *found;
                    true
                }
                _ => false,
            }
        });
        let path = left_over(seed);
        file::write(&path, &small, &[]);
        self.bar.suspend(|| print(&format!("seed {seed}"), &path, &small, &smallest));
    }
}

fn left_over(seed: u64) -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_kvist")).parent().and_then(Path::parent);
    target.expect("a target directory").join("diff").join(format!("seed-{seed}.json"))
}

fn print(what: &str, path: &Path, sequence: &Sequence, found: &Different) {
    println!("{what}: DIFFERENT at step {}{}", found.difference.step, found.difference.place);
    println!("{}", file::to_text(sequence, &[]));
    let last = last::steps(sequence);
    let steps = sequence.steps.iter().chain(&last);
    for (n, (step, (etcd, kvist))) in steps.zip(found.etcd.iter().zip(&found.kvist)).enumerate() {
        if n >= sequence.steps.len() && n != found.difference.step {
            continue; // the same on both
        }
        println!("{n} {}", serde_json::to_string(step).expect("plain data is JSON"));
        if etcd == kvist {
            println!("    both  {etcd}");
        } else {
            println!("    etcd  {etcd}\n    kvist {kvist}");
        }
    }
    println!("again: make diff REPLAY={}\n", path.display());
}

fn replay(etcd: &Path, path: &Path) -> ExitCode {
    let sequence = file::read(path).sequence;
    let outcome = duel(&servers::start(etcd, &sequence).wait(), &sequence);
    match outcome.verdict {
        Verdict::Same => {
            for (step, answer) in sequence.steps.iter().zip(&outcome.answers) {
                println!("{}", serde_json::to_string(step).expect("plain data is JSON"));
                println!("    both  {answer}");
            }
            println!("no difference; allowed: {:?}", outcome.allowed);
            ExitCode::SUCCESS
        }
        Verdict::Doubt(why) => {
            println!("this could not be compared: {why}");
            ExitCode::FAILURE
        }
        Verdict::Different(found) => {
            print("replay", path, &sequence, &found);
            ExitCode::FAILURE
        }
    }
}
