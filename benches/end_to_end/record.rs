//! Copies the summary of the newest report into a document, above the older ones. The document begins with what stays; the
//! first heading of a date ends that. A summary of the same date is replaced. Called by `main` for `--record`.

use std::fs;
use std::path::Path;

use crate::Result;
use crate::options;

/// How the heading of a summary begins: dates are those of this century.
const DATED: &str = "## 20";

/// Writes the document anew.
///
/// # Errors
/// There is no report, or a file cannot be read or written.
pub fn record(document: &Path) -> Result<()> {
    let folders = fs::read_dir(options::reports_dir()).map_err(|e| format!("no reports: {e}"))?;
    let mut summaries: Vec<_> =
        folders.filter_map(|entry| Some(entry.ok()?.path().join("summary.md"))).collect();
    summaries.retain(|summary| summary.is_file());
    // Names of folders are dates and times.
    let newest = summaries.iter().max().ok_or("no report with a summary: run `make bench` first")?;
    let text = fs::read_to_string(document)?;
    fs::write(document, with(&text, fs::read_to_string(newest)?.trim_end()))?;
    eprintln!("{} now has {}", document.display(), newest.display());
    Ok(())
}

fn with(document: &str, summary: &str) -> String {
    let heading = summary.lines().next().unwrap_or_default();
    let mut sections: Vec<String> = vec![String::new()];
    for line in document.lines() {
        if line.starts_with(DATED) {
            sections.push(String::new());
        }
        let section = sections.last_mut().expect("it begins with one and only grows");
        section.push_str(line);
        section.push('\n');
    }
    let (stays, dated) = sections.split_at(1);
    let older: String =
        dated.iter().filter(|section| section.lines().next() != Some(heading)).cloned().collect();
    format!("{}{summary}\n\n{older}", stays.concat()).trim_end().to_owned() + "\n"
}
