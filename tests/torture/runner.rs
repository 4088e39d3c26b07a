//! Plays many histories, some at a time, and reports those that went wrong.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::machine::{ISOLATED, Machine};
use crate::{ONE, faults};

/// Histories, unless `ROUNDS` says otherwise.
const ROUNDS: u64 = 54;
/// Histories at the same time.
const LANES: u64 = 3;
/// Longest time that one may take.
const TIMEOUT: Duration = Duration::from_secs(120);
/// After so many failures it is time to look at them.
const FAILURES_MAX: usize = 5;

struct Runner {
    machine: Machine,
    faults: Vec<&'static str>,
    seed: u64,
    rounds: u64,
    next: AtomicU64,
    is_over: AtomicBool,
    dir: PathBuf,
    failures: Mutex<Vec<String>>,
}

/// Plays the histories that the environment asks for.
pub fn run() -> ExitCode {
    let seed = setting("SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let rounds = setting("ROUNDS").unwrap_or(ROUNDS);
    let wanted = std::env::var("FAULT").ok().filter(|name| !name.is_empty());
    let machine = Machine::probe();
    let (mut names, missing) = faults::possible(&machine);
    for (name, lack) in missing {
        println!("SKIPPED {name}: this machine lacks {lack}");
    }
    if let Some(wanted) = &wanted {
        names.retain(|name| name == wanted);
    }
    if names.is_empty() {
        println!("there is nothing to play: {}", wanted.unwrap_or_default());
        return ExitCode::FAILURE;
    }
    println!("ROUNDS={rounds} SEED={seed} of {} faults", names.len());
    let dir = tempfile::Builder::new().prefix("torture-").tempdir().expect("temporary directory").keep();
    let runner = Runner {
        machine,
        faults: names,
        seed,
        rounds,
        next: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
        dir,
        failures: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for _ in 0..LANES.min(rounds) {
            scope.spawn(|| runner.work());
        }
    });
    runner.report()
}

/// A number from the environment; `make` passes empty ones on.
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

impl Runner {
    /// Plays histories until there are none left.
    fn work(&self) {
        while !self.is_over.load(Ordering::SeqCst) {
            let round = self.next.fetch_add(1, Ordering::SeqCst);
            if round >= self.rounds {
                return;
            }
            // All faults take turns, whatever the seed.
            let turn = usize::try_from(round % self.faults.len() as u64).expect("few faults");
            self.play(self.faults[turn], self.seed.wrapping_add(round));
        }
    }

    fn play(&self, fault: &'static str, seed: u64) {
        let dir = self.dir.join(format!("{fault}-{seed}"));
        std::fs::create_dir_all(&dir).expect("a directory for the history");
        let output = dir.join("output.txt");
        let started = Instant::now();
        let status = self.run_one(fault, seed, &dir, &output);
        let text = std::fs::read_to_string(&output).unwrap_or_default();
        let seconds = started.elapsed().as_secs_f32();
        if status.is_some_and(|status| status.success()) {
            println!("{seconds:5.1} s  {fault:18} {seed:10}  {}", text.lines().last().unwrap_or_default());
            // What cannot be removed does no harm in a temporary directory.
            drop(std::fs::remove_dir_all(&dir));
            return;
        }
        let how = status.map_or_else(|| format!("took more than {TIMEOUT:?}"), |status| status.to_string());
        let repeat = format!("make torture ROUNDS=1 SEED={seed} FAULT={fault}");
        println!("FAILED {fault} {seed}: {how}\n{text}\n  kept: {}\n  repeat: {repeat}", dir.display());
        let mut failures = self.failures.lock();
        failures.push(repeat);
        if failures.len() >= FAILURES_MAX {
            self.is_over.store(true, Ordering::SeqCst);
        }
    }

    /// Plays a history in a process of its own; `None` when it took too long.
    fn run_one(&self, fault: &str, seed: u64, dir: &Path, output: &Path) -> Option<ExitStatus> {
        let own = std::env::current_exe().expect("our own path");
        let mut command = match &self.machine.isolation {
            None => Command::new(own),
            Some(isolation) => {
                let mut command = Command::new(isolation[0]);
                command.args(&isolation[1..]).arg(own).env(ISOLATED, "1");
                command
            }
        };
        let file = File::create(output).expect("a file for the output");
        let errors = file.try_clone().expect("the same file");
        command.arg(ONE).arg(fault).arg(seed.to_string()).arg(dir);
        let mut child =
            command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn().expect("start a history");
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(status) = child.try_wait().expect("wait for a history") {
                return Some(status);
            }
            if Instant::now() > deadline {
                child.kill().expect("end a history");
                child.wait().expect("wait for a history");
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn report(&self) -> ExitCode {
        let failures = self.failures.lock();
        if failures.is_empty() {
            println!("{} histories, no violation", self.rounds);
            drop(std::fs::remove_dir_all(&self.dir));
            return ExitCode::SUCCESS;
        }
        println!("{} histories went wrong; repeat them with:", failures.len());
        failures.iter().for_each(|line| println!("  {line}"));
        ExitCode::FAILURE
    }
}
