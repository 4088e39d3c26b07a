//! Golden transcripts: sequences that once showed a difference, and some of each area, with what etcd answered. They are
//! played against kvist alone. `UPDATE_GOLDENFILES=1 cargo test --test diff_golden` asks an etcd anew.
#![allow(dead_code)] // the fuzzer uses the rest

mod compare;
mod file;
mod last;
mod mask;
mod run;
mod sequence;
mod servers;
mod streams;
#[path = "../support/mod.rs"]
mod support;
mod wire;
mod world;

use std::path::{Path, PathBuf};

use serde_json::Value;

use sequence::Sequence;

/// A run whose answers may depend on the time is played again so often.
const TRIES: usize = 4;

fn answers(binary: PathBuf, sequence: &Sequence) -> Vec<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut doubt = None;
    for _ in 0..TRIES {
        let server = servers::start_one(binary.clone(), sequence).join().expect("the server starts");
        let transcript = runtime.block_on(run::play(&server, sequence));
        match transcript.doubt {
            None => return transcript.answers,
            why => doubt = why,
        }
    }
    panic!("could not be compared: {doubt:?}");
}

#[test]
fn kvist_answers_as_etcd_did() {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diff/golden"))
            .expect("the golden files")
            .map(|entry| entry.expect("an entry").path())
            .collect();
    paths.sort();
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        let Some(etcd) = support::tool("etcd", "recording etcd's answers") else { return };
        for path in &paths {
            let sequence = file::read(path).sequence;
            file::write(path, &sequence, &answers(etcd.clone(), &sequence));
        }
        return;
    }
    let mut different = Vec::new();
    for path in &paths {
        let golden = file::read(path);
        assert!(!golden.answers.is_empty(), "{} has no answers: record them", path.display());
        let found = answers(support::server_binary(), &golden.sequence);
        if let Some(difference) = compare::compare(&golden.sequence, &golden.answers, &found, |_| ()) {
            let (step, place) = (difference.step, &difference.place);
            let (etcd, kvist) = (&golden.answers[step], &found[step]);
            different
                .push(format!("{}: step {step}{place}\n  etcd  {etcd}\n  kvist {kvist}", path.display()));
        }
    }
    assert!(!paths.is_empty() && different.is_empty(), "{}", different.join("\n"));
}
