//! The matrix as text: a row for each feature, a column for each suite. Called by `main.rs`; plain data in, text out.

use crate::report::Finished;
use crate::tap::{FEATURES, Outcome, SUITE};

/// How many cases there are of each outcome.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl Count {
    /// The cases of a suite, or of one feature of it. A suite that this machine can't run counts as one skipped.
    pub fn of(suite: &Finished, feature: Option<&str>) -> Count {
        let mut count = Count::default();
        for case in suite.cases.iter().filter(|case| feature.is_none_or(|feature| case.feature == feature)) {
            match case.outcome {
                Outcome::Passed => count.passed += 1,
                Outcome::Failed => count.failed += 1,
                Outcome::Skipped => count.skipped += 1,
            }
        }
        if feature.is_none() && suite.skipped.is_some() {
            count.skipped += 1;
        }
        count
    }

    /// All suites together.
    pub fn total(suites: &[Finished]) -> Count {
        suites.iter().fold(Count::default(), |sum, suite| {
            let count = Count::of(suite, None);
            Count {
                passed: sum.passed + count.passed,
                failed: sum.failed + count.failed,
                skipped: sum.skipped + count.skipped,
            }
        })
    }

    /// `12`; `12+1s` with one skipped; `2/12 FAIL`, two of twelve; `-` for nothing.
    fn cell(self) -> String {
        let Count { passed, failed, skipped } = self;
        match (passed, failed, skipped) {
            (0, 0, 0) => "-".to_owned(),
            (_, 0, 0) => passed.to_string(),
            (0, 0, _) => format!("{skipped}s"),
            (_, 0, _) => format!("{passed}+{skipped}s"),
            _ => format!("{failed}/{} FAIL", passed + failed),
        }
    }
}

/// The last line: `N passed, N failed, N skipped`.
pub fn summary(suites: &[Finished]) -> String {
    let Count { passed, failed, skipped } = Count::total(suites);
    format!("{passed} passed, {failed} failed, {skipped} skipped")
}

/// The table, and below it how to read it as far as it needs that.
pub fn render(suites: &[Finished]) -> String {
    let mut rows =
        vec![std::iter::once(String::new()).chain(suites.iter().map(|s| s.name.clone())).collect()];
    for feature in FEATURES.iter().chain([&SUITE]) {
        let counts: Vec<Count> = suites.iter().map(|suite| Count::of(suite, Some(feature))).collect();
        if *feature == SUITE && counts.iter().all(|count| *count == Count::default()) {
            continue;
        }
        let cells = counts.iter().zip(suites).map(|(count, suite)| match suite.skipped {
            Some(_) => "skip".to_owned(),
            None => count.cell(),
        });
        rows.push(std::iter::once((*feature).to_owned()).chain(cells).collect());
    }
    let all = suites.iter().map(|suite| Count::of(suite, None).cell());
    rows.push(std::iter::once("all".to_owned()).chain(all).collect());
    let mut text = align(&rows);
    text.push_str("\nN cases passed; Ns: N skipped; n/N FAIL: n of N failed; -: the suite has none\n");
    text
}

/// Columns as wide as their widest cell; the first to the left, the others to the right.
fn align(rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or_default())
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = format!("{:<width$}", row[0], width = widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            line.push_str(&format!("  {cell:>width$}"));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// What is behind the table: clients, what was skipped and why, what failed.
pub fn details(suites: &[Finished]) -> String {
    let mut text = String::new();
    for suite in suites.iter().filter(|suite| !suite.client.is_empty()) {
        text.push_str(&format!("{}: {}, {:.0} s\n", suite.name, suite.client, suite.seconds));
    }
    let mut skipped = String::new();
    let mut failed = String::new();
    for suite in suites {
        if let Some(reason) = &suite.skipped {
            skipped.push_str(&format!("  {}: {reason}\n", suite.name));
        }
        for case in &suite.cases {
            let line = format!("  {}: {}/{}: {}\n", suite.name, case.feature, case.name, case.reason);
            match case.outcome {
                Outcome::Passed => {}
                Outcome::Failed => failed.push_str(&line),
                Outcome::Skipped => skipped.push_str(&line),
            }
        }
        if Count::of(suite, None).failed > 0 {
            for note in &suite.notes {
                failed.push_str(&format!("    # {note}\n"));
            }
            failed.push_str(&format!("    the whole log: {}\n", suite.log.display()));
        }
    }
    for (title, lines) in [("skipped", skipped), ("FAILED", failed)] {
        if !lines.is_empty() {
            text.push_str(&format!("\n{title}\n{lines}"));
        }
    }
    text
}
