//! Turns the runs into tables (Markdown) and records (JSON). A cell is the median of the rounds with the extremes in brackets;
//! a ratio is the quotient of two medians. Marks say whether a goal is reached; nothing here fails. Called by `main`.

use std::fmt::Write;

use serde::Serialize;

use crate::Result;
use crate::machine::Machine;
use crate::options::{KEY_BYTES, Options, VALUE_BYTES};
use crate::runs::Run;
use crate::server::Side;
use crate::workload::{self as w, Bound};

/// All that a run of the benchmark has to say.
#[derive(Serialize)]
pub struct Report<'a> {
    pub machine: &'a Machine,
    pub options: &'a Options,
    rows: Vec<Row>,
    pub runs: &'a [Run],
}

/// One figure of one workload, both servers side by side.
#[derive(Serialize)]
struct Row {
    workload: &'static str,
    figure: &'static str,
    #[serde(skip)]
    decimals: usize,
    kvist: Option<Spread>,
    etcd: Option<Spread>,
    /// kvist / etcd.
    ratio: Option<f64>,
    goal: Option<String>,
    is_goal_met: Option<bool>,
}

/// A figure over the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
    rounds: usize,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Spread { median: f64::midpoint(low, high), min, max, rounds: values.len() })
    }
}

impl<'a> Report<'a> {
    /// Works out the rows from all runs without problems.
    pub fn new(machine: &'a Machine, options: &'a Options, runs: &'a [Run]) -> Report<'a> {
        let mut rows = Vec::new();
        for workload in w::ALL {
            for &(figure, decimals) in w::FIGURES {
                let of = |side| {
                    let good = runs.iter().filter(|r| r.problems.is_empty());
                    let these = good.filter(|r| r.workload == workload.name && r.side == side);
                    Spread::of(these.filter_map(|r| r.figures.get(figure).copied()).collect())
                };
                rows.extend(row(workload.name, figure, decimals, of(Side::Kvist), of(Side::Etcd)));
            }
        }
        Report { machine, options, rows, runs }
    }

    /// The record of everything.
    ///
    /// # Errors
    /// None that we know of.
    pub fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// The tables.
    ///
    /// # Errors
    /// None that we know of: writing into a string.
    pub fn markdown(&self) -> Result<String> {
        let mut out = String::from("# End to end, kvist beside etcd\n\n");
        self.write_setting(&mut out)?;
        let (goals, all): (Vec<&Row>, Vec<&Row>) =
            (self.rows.iter().filter(|row| row.goal.is_some()).collect(), self.rows.iter().collect());
        write_table(&mut out, "Goals", &goals)?;
        self.write_costs(&mut out)?;
        write_table(&mut out, "All figures", &all)?;
        self.write_problems(&mut out)?;
        Ok(out)
    }

    fn write_setting(&self, out: &mut String) -> Result<()> {
        let (m, o) = (self.machine, self.options);
        writeln!(
            out,
            "* Machine: {}, {} cores, {:.1} GiB, kernel {}",
            m.cpu, m.cores, m.memory_gib, m.kernel
        )?;
        writeln!(out, "* Data on {}, fsync on; load average before: {}", m.file_system, m.load_before)?;
        writeln!(out, "* Servers: {}; load tool at commit {}", m.servers.join(", "), m.commit)?;
        writeln!(
            out,
            "* {} rounds of {} s after {} s of warm-up, alternating, each on a fresh server; load tool and server \
             share the machine",
            o.rounds, o.seconds, o.warmup_seconds
        )?;
        writeln!(
            out,
            "* {KEY_BYTES}-byte keys, {VALUE_BYTES}-byte values, {} random keys; watch: {} watchers, {} puts/s; \
             restart: {} keys, one round",
            o.keys,
            w::WATCHERS,
            o.watch_rate,
            o.restart_keys
        )?;
        writeln!(
            out,
            "* Latencies are those of the requests; for watch from sending a put to getting its event, for restart of the \
             filling puts. A cell is the median of the rounds (least-most)\n"
        )?;
        Ok(())
    }

    /// What TLS, users and monitoring cost each server, from the workloads with and without them.
    fn write_costs(&self, out: &mut String) -> Result<()> {
        let find = |workload, figure| self.rows.iter().find(|r| r.workload == workload && r.figure == figure);
        let mut lines = String::new();
        for (with, without) in w::PAIRS {
            for figure in [w::OPS_PER_S, w::CPU_US_PER_OP, w::P99_US] {
                let Some((with, without)) = find(*with, figure).zip(find(*without, figure)) else { continue };
                let quotient = |of: fn(&Row) -> Option<Spread>| match of(with).zip(of(without)) {
                    Some((with, without)) => format!("{:.2}", with.median / without.median),
                    None => "-".to_owned(),
                };
                let (kvist, etcd) = (quotient(|row| row.kvist), quotient(|row| row.etcd));
                writeln!(
                    lines,
                    "| {} / {} | {figure} | {kvist} | {etcd} |",
                    with.workload, without.workload
                )?;
            }
        }
        if !lines.is_empty() {
            write!(
                out,
                "## What it costs\n\n| quotient | figure | kvist | etcd |\n|---|---|---|---|\n{lines}\n"
            )?;
        }
        Ok(())
    }

    fn write_problems(&self, out: &mut String) -> Result<()> {
        const PROBLEMS_MAX: usize = 5;
        let spoiled: Vec<&Run> = self.runs.iter().filter(|run| !run.problems.is_empty()).collect();
        if spoiled.is_empty() {
            writeln!(
                out,
                "All runs passed their checks: every acknowledged write present, every event once and in order."
            )?;
            return Ok(());
        }
        writeln!(out, "## Problems\n\nThese runs are not in the tables.\n")?;
        for run in spoiled {
            for problem in run.problems.iter().take(PROBLEMS_MAX) {
                writeln!(out, "* {} on {}, round {}: {problem}", run.workload, run.side.name(), run.round)?;
            }
            if run.problems.len() > PROBLEMS_MAX {
                writeln!(out, "* and {} more of this run", run.problems.len() - PROBLEMS_MAX)?;
            }
        }
        Ok(())
    }
}

/// A row, if either server has the figure.
fn row(
    workload: &'static str,
    figure: &'static str,
    decimals: usize,
    kvist: Option<Spread>,
    etcd: Option<Spread>,
) -> Option<Row> {
    kvist.or(etcd)?;
    let ratio = kvist.zip(etcd).map(|(k, e)| k.median / e.median).filter(|ratio| ratio.is_finite());
    let bound = w::GOALS.iter().find(|(of, what, _)| (*of, *what) == (workload, figure)).map(|goal| goal.2);
    Some(Row {
        workload,
        figure,
        decimals,
        kvist,
        etcd,
        ratio,
        goal: bound.map(|bound| match bound {
            Bound::AtLeast(bound) => format!(">= {bound}"),
            Bound::AtMost(bound) => format!("<= {bound}"),
        }),
        is_goal_met: bound.zip(ratio).map(|(bound, ratio)| bound.is_met(ratio)),
    })
}

fn write_table(out: &mut String, title: &str, rows: &[&Row]) -> Result<()> {
    writeln!(out, "## {title}\n")?;
    writeln!(out, "| workload | figure | kvist | etcd | kvist / etcd | goal | |")?;
    writeln!(out, "|---|---|---|---|---|---|---|")?;
    for row in rows {
        let cell = |spread: Option<Spread>| spread.map_or_else(|| "-".to_owned(), |s| cell(s, row.decimals));
        let ratio = row.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let mark = row.is_goal_met.map_or("", |met| if met { "reached" } else { "**missed**" });
        let goal = row.goal.as_deref().unwrap_or_default();
        let (kvist, etcd) = (cell(row.kvist), cell(row.etcd));
        writeln!(
            out,
            "| {} | {} | {kvist} | {etcd} | {ratio} | {goal} | {mark} |",
            row.workload, row.figure
        )?;
    }
    out.push('\n');
    Ok(())
}

fn cell(s: Spread, decimals: usize) -> String {
    if s.rounds == 1 {
        return format!("{:.decimals$}", s.median);
    }
    format!("{:.decimals$} ({:.decimals$}-{:.decimals$})", s.median, s.min, s.max)
}
