//! What came of a suite, and the report as a file for other programs. Called by `main.rs` and `table.rs`.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::table::Count;
use crate::tap::Case;

/// A suite that is over.
#[derive(Serialize)]
pub struct Finished {
    pub name: String,
    /// The client and its version, as far as the suite told.
    pub client: String,
    /// Of its run, without the preparation.
    pub seconds: f64,
    /// Why this machine can't run it.
    pub skipped: Option<String>,
    pub cases: Vec<Case>,
    /// The last lines of diagnostics.
    #[serde(skip)]
    pub notes: Vec<String>,
    pub log: PathBuf,
}

#[derive(Serialize)]
struct Report<'a> {
    /// The first line that the server under test prints for `--version`.
    server: &'a str,
    passed: usize,
    failed: usize,
    skipped: usize,
    suites: &'a [Finished],
}

/// Writes all of it as JSON.
pub fn write(path: &Path, server: &str, suites: &[Finished]) -> io::Result<()> {
    let Count { passed, failed, skipped } = Count::total(suites);
    let report = Report { server, passed, failed, skipped, suites };
    let mut text = serde_json::to_string_pretty(&report)?;
    text.push('\n');
    std::fs::write(path, text)
}
