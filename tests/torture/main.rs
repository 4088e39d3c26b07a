//! Clusters under load and a fault each, many times over, and what clients saw is judged: see docs/torture.md.
//!
//! Each history runs in a process of its own, in namespaces of its own where the machine allows it, so that its network can be
//! cut and nothing is left of it. `ROUNDS`, `SEED` and `FAULT` choose; `make torture` hands them on.

mod check;
mod clients;
#[path = "../support/cluster/mod.rs"]
mod cluster;
mod faults;
mod history;
mod journal;
mod machine;
mod net;
mod register;
mod round;
mod runner;
#[path = "../support/mod.rs"]
mod support;
mod watcher;

use std::path::Path;
use std::process::ExitCode;

/// First argument of a process that plays one history: fault, seed and directory follow.
const ONE: &str = "one";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        [ONE, fault, seed, dir] => one(fault, seed.parse().expect("a seed"), Path::new(dir)),
        _ => runner::run(),
    }
}

/// Plays one history; the last line printed says what came of it.
fn one(fault: &str, seed: u64, dir: &Path) -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match runtime.block_on(round::play(fault, seed, dir)) {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("VIOLATION: {violation}");
            ExitCode::FAILURE
        }
    }
}
