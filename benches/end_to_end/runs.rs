//! One run of one workload against one fresh server: start, fill, load, take figures, check what the store holds.
//! Called by `main` for every round; the watch and restart workloads have files of their own.

use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use serde::Serialize;

use crate::Result;
use crate::client::Client;
use crate::load::{Figures, Ledger, Load, Op, Window};
use crate::options::Options;
use crate::scrape::Scrapes;
use crate::server::{Server, Side};
use crate::workload::{self as w, Kind, RANGE_KEYS, Workload};
use crate::{restart, watch};

/// What one run has shown. With a problem, its figures do not enter the report.
#[derive(Debug, Serialize)]
pub struct Run {
    pub workload: &'static str,
    pub side: Side,
    pub round: u32,
    pub figures: Figures,
    pub problems: Vec<String>,
}

/// Figures of a run, and what the checks found wrong.
#[derive(Debug, Default)]
pub struct Findings {
    pub figures: Figures,
    pub problems: Vec<String>,
}

impl Findings {
    /// Keeps `problem` unless `holds`.
    pub fn check(&mut self, holds: bool, problem: impl FnOnce() -> String) {
        if !holds {
            self.problems.push(problem());
        }
    }
}

/// Runs a workload once; an error becomes a problem of the run, so that the others go on.
pub async fn run(workload: &Workload, side: Side, binary: &Path, round: u32, options: &Options) -> Run {
    let found = match workload.kind {
        Kind::Put | Kind::Get | Kind::Range => measure(workload, binary, options).await,
        Kind::Watch => watch::measure(workload, binary, options).await,
        Kind::Restart => restart::measure(workload, binary, options).await,
    };
    let Findings { figures, problems } =
        found.unwrap_or_else(|error| Findings { problems: vec![error.to_string()], ..Findings::default() });
    Run { workload: workload.name, side, round, figures, problems }
}

async fn measure(workload: &Workload, binary: &Path, options: &Options) -> Result<Findings> {
    let server = Server::start(binary, &options.dir, workload.security).await?;
    let client = Client::connect(server.access(), workload.connections).await?;
    let (op, preloaded) = match workload.kind {
        Kind::Range => (Op::Range, RANGE_KEYS),
        Kind::Get => (Op::Get { keys: options.keys }, options.keys),
        _ => (Op::Put { keys: options.keys, origin: Instant::now() }, 0),
    };
    client.preload(preloaded).await?;

    let ledger = Ledger::new()?;
    let load = Load::start(&client, op, workload.in_flight, None, &ledger);
    tokio::time::sleep(options.warmup()).await;
    let window = Window::open(&server)?;
    ledger.open();
    let scrapes = workload.is_scraped.then(|| Scrapes::start(server.access().port()));
    tokio::time::sleep(options.measured()).await;
    ledger.close();
    let spent = window.spent(&server)?;
    load.finish().await?;

    let mut findings = Findings { figures: spent.per_op(ledger.done()), ..Findings::default() };
    ledger.add_latency(&mut findings.figures);
    if let Some(scrapes) = scrapes {
        scrapes.finish(&mut findings).await?;
    }
    check_errors(&mut findings, &ledger);
    let puts = if matches!(op, Op::Put { .. }) { ledger.acked() } else { 0 };
    check_versions(&mut findings, &client, preloaded + puts, ledger.errors()).await?;
    Ok(findings)
}

/// Refusals are a figure; a wrong answer is a problem, and so is a run without any good one.
pub fn check_errors(findings: &mut Findings, ledger: &Rc<Ledger>) {
    findings.figures.insert(w::ERRORS, ledger.errors() as f64);
    let first_error = || ledger.first_error().unwrap_or_else(|| "none was sent".to_owned());
    findings.check(ledger.done() > 0, || format!("no request succeeded: {}", first_error()));
    let wrong = ledger.first_wrong();
    findings.check(wrong.is_none(), || format!("a wrong answer: {}", wrong.unwrap_or_default()));
    if let Some(error) = ledger.first_error() {
        eprintln!("    {} errors, the first: {error}", ledger.errors());
    }
}

/// Every acknowledged put must be in the store, and nothing but those and the puts that ended in an error.
pub async fn check_versions(findings: &mut Findings, client: &Client, acked: u64, errors: u64) -> Result<()> {
    let versions = client.versions().await?;
    findings.check((acked..=acked + errors).contains(&versions), || {
        format!("{acked} puts were acknowledged and {errors} failed, but the store has seen {versions}")
    });
    Ok(())
}
