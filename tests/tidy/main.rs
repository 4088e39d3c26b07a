//! What the compiler does not check about the source tree: direction of dependencies, size of files, and that the
//! documents mention what exists. Reads files only; `make verify` and `make test` run it.

mod documents;
mod flags;
mod layering;
mod source;

use std::path::Path;

/// Root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Fails with every finding at once, each on its line.
fn assert_none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}\n  {}", findings.join("\n  "));
}
