//! Sequences in files: what a failure leaves, what `REPLAY` reads, and golden files, which also hold etcd's answers.

use std::fmt::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::sequence::Sequence;

/// A sequence, and what etcd answered if that was recorded.
#[derive(Serialize, Deserialize)]
pub struct Golden {
    #[serde(flatten)]
    pub sequence: Sequence,
    #[serde(default)]
    pub answers: Vec<Value>,
}

pub fn read(path: &Path) -> Golden {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// JSON with a line for each step and each answer, so that differences of files can be read.
pub fn write(path: &Path, sequence: &Sequence, answers: &[Value]) {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    }
    let text = to_text(sequence, answers);
    std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// The same as text.
pub fn to_text(sequence: &Sequence, answers: &[Value]) -> String {
    let mut text = String::from("{\n");
    if !sequence.about.is_empty() {
        writeln!(text, "\"about\": {},", json(&sequence.about)).expect("a string grows");
    }
    if !sequence.flags.is_empty() {
        writeln!(text, "\"flags\": {},", json(&sequence.flags)).expect("a string grows");
    }
    let steps: Vec<String> = sequence.steps.iter().map(json).collect();
    write!(text, "\"steps\": [\n{}\n]", steps.join(",\n")).expect("a string grows");
    if !answers.is_empty() {
        let answers: Vec<String> = answers.iter().map(json).collect();
        write!(text, ",\n\"answers\": [\n{}\n]", answers.join(",\n")).expect("a string grows");
    }
    text + "\n}\n"
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data is JSON")
}
