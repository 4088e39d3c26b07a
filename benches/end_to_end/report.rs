//! Puts runs together: a cell is the median of the rounds with the extremes in brackets, a ratio the quotient of two medians.
//! Marks say whether a goal is reached. A run with a problem is in no table; it is listed by itself. Written as
//! Markdown, as a page with plots (`page`), as JSON, and as the summary that `record` copies. Called by `main`.

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::Result;
use crate::figures::{self as f, Spread};
use crate::kinds::{REFERENCE, SUBJECT};
use crate::machine::Machine;
use crate::measure::Run;
use crate::options::Options;
use crate::page::{self, Table};
use crate::scenario::{ALL, Bound, PAIRS, Scenario};
use crate::server::Contestant;

/// All that a benchmark has to say.
#[derive(Serialize)]
pub struct Report<'a> {
    /// Date and time.
    pub begun: String,
    /// The words that it was started with.
    pub command: String,
    pub machine: Machine,
    pub options: &'a Options,
    /// The kinds of server, one for each column.
    pub kinds: Vec<&'static str>,
    pub runs: Vec<Run>,
    /// Whether all rounds are done.
    pub is_whole: bool,
}

/// Everything, for programs.
#[derive(Serialize)]
struct Record<'a> {
    #[serde(flatten)]
    report: &'a Report<'a>,
    setting: Vec<String>,
    rows: Vec<Row>,
}

/// One figure of one scenario, all kinds side by side.
#[derive(Serialize)]
pub struct Row {
    #[serde(serialize_with = "name")]
    pub scenario: &'static Scenario,
    pub figure: String,
    pub cells: Vec<Option<Spread>>,
    /// For each kind, divided by the reference.
    pub ratios: Vec<Option<f64>>,
    pub goal: Option<Bound>,
    /// None if there is no goal, or nothing to compare with.
    pub is_met: Option<bool>,
}

impl<'a> Report<'a> {
    pub fn new(
        begun: String,
        command: String,
        machine: Machine,
        options: &'a Options,
        contestants: &[Contestant],
    ) -> Report<'a> {
        let kinds = contestants.iter().map(|contestant| contestant.kind.name).collect();
        Report { begun, command, machine, options, kinds, runs: Vec::new(), is_whole: false }
    }

    /// A name for the folder of this report, later ones behind earlier ones.
    pub fn folder(&self) -> String {
        self.begun.trim_end_matches('Z').replace(':', "-")
    }

    /// Writes all forms into a folder.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, out: &Path) -> Result<()> {
        let record = Record { report: self, setting: self.setting(), rows: self.rows() };
        fs::write(out.join("report.json"), serde_json::to_string_pretty(&record)?)?;
        fs::write(out.join("report.md"), self.markdown()?)?;
        fs::write(out.join("report.html"), page::html(self)?)?;
        fs::write(out.join("summary.md"), self.summary())?;
        Ok(())
    }

    /// The tables.
    ///
    /// # Errors
    /// None that we know of.
    pub fn markdown(&self) -> Result<String> {
        let tables: Vec<String> = self.tables().iter().map(Table::markdown).collect();
        Ok(format!(
            "# End to end\n\n{}\n{}{}",
            list(&self.setting()),
            tables.concat(),
            list(&self.problems())
        ))
    }

    /// A section of docs/benchmarks.md.
    pub fn summary(&self) -> String {
        let rows = self.rows();
        let is_main = |row: &&Row| row.goal.is_none() && f::is_main(&row.figure);
        let main: Vec<&Row> = rows.iter().filter(is_main).collect();
        let tables = [self.goals(&rows), self.costs(&rows), self.table("Other figures", &main)];
        let tables = tables.iter().filter(|table| !table.rows.is_empty());
        let tables: String = tables.map(|table| format!("#{}", table.markdown())).collect();
        let date = self.begun.split('T').next().unwrap_or_default();
        format!("## {date}\n\n{}\n{tables}{}", list(&self.setting()), list(&self.problems()))
    }

    /// Every table of the report.
    pub fn tables(&self) -> Vec<Table> {
        let rows = self.rows();
        let all: Vec<&Row> = rows.iter().collect();
        vec![self.goals(&rows), self.costs(&rows), self.table("All figures", &all)]
    }

    /// The rows of all scenarios that ran, from all runs without a problem.
    pub fn rows(&self) -> Vec<Row> {
        let names = f::names(self.runs.iter().map(|run| &run.figures));
        let mut rows = Vec::new();
        for scenario in ALL.iter().filter(|s| self.runs.iter().any(|run| run.scenario == s.name)) {
            rows.extend(names.iter().filter_map(|figure| self.row(scenario, figure)));
        }
        rows
    }

    /// A row, if any kind has the figure, or if there is a goal for it.
    fn row(&self, scenario: &'static Scenario, figure: &str) -> Option<Row> {
        let cell = |kind: &&str| {
            let good = self.runs.iter().filter(|run| run.problem.is_none());
            let these = good.filter(|run| run.scenario == scenario.name && run.server == *kind);
            Spread::of(these.filter_map(|run| run.figures.get(figure).copied()).collect())
        };
        let cells: Vec<Option<Spread>> = self.kinds.iter().map(cell).collect();
        let of = |kind| self.kinds.iter().position(|name| *name == kind).and_then(|column| cells[column]);
        let goals = scenario.goals_of(self.options.members);
        let goal = goals.iter().find(|(of, _)| *of == figure).map(|(_, bound)| *bound);
        let has_errors = cells.iter().flatten().any(|spread| spread.max > 0.0);
        if (goal.is_none() && cells.iter().all(Option::is_none)) || (figure == f::ERRORS && !has_errors) {
            return None;
        }
        let ratio = |(kind, cell): (&&str, &Option<Spread>)| {
            let (this, reference) = (*cell).zip(of(REFERENCE).filter(|_| *kind != REFERENCE))?;
            // Small costs that are differences of large ones can come out below nothing: then there is no ratio.
            (this.median >= 0.0 && reference.median > 0.0).then(|| this.median / reference.median)
        };
        let ratios: Vec<Option<f64>> = self.kinds.iter().zip(&cells).map(ratio).collect();
        let subject = self.kinds.iter().position(|kind| *kind == SUBJECT);
        let is_met = goal.zip(subject).and_then(|(goal, column)| goal.is_met(ratios[column], cells[column]));
        Some(Row { scenario, figure: figure.to_owned(), cells, ratios, goal, is_met })
    }

    fn goals(&self, rows: &[Row]) -> Table {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.goal.is_some()).collect();
        let mut table = self.table("Goals", &rows);
        table.head.extend(["goal".to_owned(), String::new()]);
        for (cells, row) in table.rows.iter_mut().zip(rows) {
            let mark = match row.is_met {
                Some(true) => "reached",
                Some(false) => "**missed**",
                None => "not known",
            };
            cells.extend([row.goal.map(|goal| goal.to_string()).unwrap_or_default(), mark.to_owned()]);
        }
        table
    }

    fn table(&self, title: &str, rows: &[&Row]) -> Table {
        let others = || self.kinds.iter().filter(|kind| **kind != REFERENCE);
        let has_reference = self.kinds.contains(&REFERENCE);
        let ratios = others().filter(|_| has_reference).map(|kind| format!("{kind} / {REFERENCE}"));
        let head = ["scenario", "figure"].iter().chain(&self.kinds).map(|name| (*name).to_owned());
        let line = |row: &&Row| {
            let dash = || "-".to_owned();
            let cells =
                row.cells.iter().map(|cell| cell.map_or_else(dash, |spread| spread.cell(&row.figure)));
            let ratios = self.kinds.iter().zip(&row.ratios).filter(|(kind, _)| **kind != REFERENCE);
            let ratios = ratios.filter(|_| has_reference).map(|(_, ratio)| ratio.map_or_else(dash, two));
            [row.scenario.name.to_owned(), row.figure.clone()]
                .into_iter()
                .chain(cells)
                .chain(ratios)
                .collect()
        };
        Table {
            title: title.to_owned(),
            head: head.chain(ratios).collect(),
            rows: rows.iter().map(line).collect(),
        }
    }

    /// What TLS, users, monitoring and other protocols cost each server, from the scenarios with and without them.
    fn costs(&self, rows: &[Row]) -> Table {
        let find = |name, figure| rows.iter().find(|row| row.scenario.name == name && row.figure == figure);
        let mut lines = Vec::new();
        for (with, without) in PAIRS {
            for figure in [f::OPS_PER_S, f::CPU_PER_OP, f::P99] {
                let Some((with, without)) = find(*with, figure).zip(find(*without, figure)) else { continue };
                let quotients = with.cells.iter().zip(&without.cells).map(|pair| match pair {
                    (Some(with), Some(without)) => two(with.median / without.median),
                    _ => "-".to_owned(),
                });
                let name = format!("{} / {}", with.scenario.name, without.scenario.name);
                lines.push([name, figure.to_owned()].into_iter().chain(quotients).collect());
            }
        }
        let head = ["quotient", "figure"].iter().chain(&self.kinds).map(|name| (*name).to_owned()).collect();
        Table { title: "What it costs".to_owned(), head, rows: lines }
    }

    /// Sentences about where and how.
    pub fn setting(&self) -> Vec<String> {
        let (m, o) = (&self.machine, self.options);
        let (keys, many) = o.keys();
        let plural = |n: u64, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        let mut sentences = vec![
            format!("Begun {}: `cargo bench --bench end_to_end -- {}`", self.begun, self.command),
            format!("Machine: {}, {} cores, {:.1} GiB, kernel {}", m.cpu, m.cores, m.memory_gib, m.kernel),
            format!("Data on {}, fsync on; load average before: {}", m.file_system, m.load_before),
            format!(
                "Servers: {}, {} each; this tree is at commit {}",
                m.servers.join(", "),
                plural(o.members as u64, "member"),
                m.commit
            ),
            format!(
                "{} of {} s after {} s of warm-up, alternating, each on fresh servers; load tool and servers share \
                 the machine",
                plural(o.rounds().into(), "round"),
                o.seconds(),
                o.warmup()
            ),
            format!("{keys} random keys, {many} keys in the large stores; a cell is the median (least-most)"),
        ];
        if o.quick {
            sentences.push("Quick: this shows that the benchmark works; its figures mean nothing".to_owned());
        }
        sentences
    }

    /// Sentences about runs that are not in the tables.
    pub fn problems(&self) -> Vec<String> {
        let spoiled = |run: &Run| {
            let problem = run.problem.as_ref()?;
            Some(format!(
                "Not in the tables: {} on {}, round {}: {problem}",
                run.scenario, run.server, run.round
            ))
        };
        let mut problems: Vec<String> = self.runs.iter().filter_map(spoiled).collect();
        if problems.is_empty() {
            problems.push("All runs passed their checks.".to_owned());
        }
        if !self.is_whole {
            problems.push("Not all rounds are done.".to_owned());
        }
        problems
    }
}

impl Bound {
    /// Whether a ratio, or the subject's own figure, reaches the goal.
    fn is_met(self, ratio: Option<f64>, own: Option<Spread>) -> Option<bool> {
        Some(match self {
            Bound::RatioAtLeast(bound) => ratio? >= bound,
            Bound::RatioAtMost(bound) => ratio? <= bound,
            Bound::WorstAtMost(bound) => own?.max <= bound,
        })
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bound::RatioAtLeast(bound) => write!(f, "ratio >= {bound}"),
            Bound::RatioAtMost(bound) => write!(f, "ratio <= {bound}"),
            Bound::WorstAtMost(bound) => write!(f, "{SUBJECT} always <= {bound}"),
        }
    }
}

fn name<S: serde::Serializer>(scenario: &Scenario, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(scenario.name)
}

fn two(number: f64) -> String {
    format!("{number:.2}")
}

fn list(sentences: &[String]) -> String {
    sentences.iter().map(|sentence| format!("- {sentence}\n")).collect()
}
