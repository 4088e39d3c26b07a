//! The result of a run: as JSON for programs, as a table for people. Made by `coordinator`, printed by `cli`.

use super::settings::Settings;
use super::tally::Tally;
use super::usage::Spent;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Everything that a run has shown.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The name of the workload.
    pub workload: String,
    /// All settings, defaults included.
    pub settings: Settings,
    /// What the first server says of itself.
    pub server_version: String,
    /// Length of the measured window.
    pub seconds: f64,
    /// Good answers in it.
    pub operations: u64,
    /// Requests that failed, in the whole run.
    pub errors: Errors,
    /// Latency of the good answers.
    pub latency_us: Latency,
    /// Further numbers; the unit is in the name.
    pub figures: BTreeMap<String, f64>,
    /// CPU time of the load tool in the window.
    pub client_cpu_us: f64,
    /// What the processes of `--server-pid` did in the window.
    pub servers: Vec<Spent>,
    /// What was checked.
    pub checks: Vec<Check>,
}

/// Requests that failed.
#[derive(Debug, Default, Serialize)]
pub struct Errors {
    /// All of them.
    pub count: u64,
    /// What the first one said.
    pub first: Option<String>,
    /// By gRPC code.
    pub by_code: BTreeMap<String, u64>,
}

/// A distribution of microseconds.
#[derive(Debug, Serialize)]
pub struct Latency {
    /// The least.
    pub min: u64,
    /// The average.
    pub mean: f64,
    /// Quantiles.
    pub p50: u64,
    /// 90 in 100 are not above.
    pub p90: u64,
    /// 95 in 100.
    pub p95: u64,
    /// 99 in 100.
    pub p99: u64,
    /// 999 in 1000.
    pub p999: u64,
    /// The most.
    pub max: u64,
    /// All of it, as HdrHistogram V2 compressed, in base64.
    pub histogram: String,
}

impl From<&Histogram<u64>> for Latency {
    fn from(histogram: &Histogram<u64>) -> Latency {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(histogram, &mut bytes).expect("a vector takes all bytes");
        let at = |quantile| histogram.value_at_quantile(quantile);
        Latency {
            min: histogram.min(),
            mean: histogram.mean(),
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
            histogram: STANDARD.encode(bytes),
        }
    }
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What should be.
    pub name: String,
    /// Whether it is.
    pub ok: bool,
    /// What is instead.
    pub detail: String,
}

impl Check {
    /// `detail` is asked for only when the check failed.
    pub fn new(name: &str, ok: bool, detail: impl FnOnce() -> String) -> Check {
        let detail = if ok { String::new() } else { detail() };
        Check { name: name.to_owned(), ok, detail }
    }
}

/// The figures that follow from the counters.
pub fn figures(tally: &Tally, seconds: f64, client_cpu_us: f64, servers: &[Spent]) -> BTreeMap<String, f64> {
    let mut figures = BTreeMap::new();
    let mut put = |name: String, value: f64| {
        figures.insert(name, value);
    };
    let per_s = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
    put("ops_per_s".into(), per_s(tally.operations));
    for (name, sum) in &tally.sums {
        put((*name).to_owned(), *sum as f64);
        put(format!("{name}_per_s"), per_s(*sum));
    }
    for (kind, latency) in &tally.kinds {
        put(format!("{kind}_ops"), latency.len() as f64);
        put(format!("{kind}_ops_per_s"), per_s(latency.len()));
        put(format!("{kind}_p50_us"), latency.value_at_quantile(0.5) as f64);
        put(format!("{kind}_p99_us"), latency.value_at_quantile(0.99) as f64);
    }
    if tally.operations > 0 {
        let per_op = |amount: f64| amount / tally.operations as f64;
        put("client_cpu_us_per_op".into(), per_op(client_cpu_us));
        if !servers.is_empty() {
            let cpu_us: u64 = servers.iter().map(|server| server.cpu_us).sum();
            let written: u64 = servers.iter().map(|server| server.written_bytes).sum();
            put("server_cpu_us_per_op".into(), per_op(cpu_us as f64));
            put("written_bytes_per_op".into(), per_op(written as f64));
        }
    }
    figures
}

impl Report {
    /// Whether all checks hold.
    pub fn is_good(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Settings { clients, conns, rate, .. } = self.settings;
        let conns = conns.max(self.settings.threads);
        let pace = if rate > 0.0 { format!("{rate} a second") } else { "closed loop".to_owned() };
        writeln!(f, "{}: {clients} clients on {conns} connections, {pace}", self.workload)?;
        writeln!(f, "server {}, {:.2} s measured", self.server_version, self.seconds)?;
        writeln!(f, "\n  {:<28} {:>14}", "operations", self.operations)?;
        writeln!(f, "  {:<28} {:>14}", "errors", self.errors.count)?;
        for (code, count) in &self.errors.by_code {
            writeln!(f, "    {code:<26} {count:>14}")?;
        }
        if let Some(first) = &self.errors.first {
            writeln!(f, "    the first: {first}")?;
        }
        for (name, value) in &self.figures {
            let digits = if value.abs() < 100.0 { 2 } else { 0 };
            writeln!(f, "  {name:<28} {value:>14.digits$}")?;
        }
        let Latency { min, mean, p50, p90, p95, p99, p999, max, .. } = &self.latency_us;
        writeln!(f, "\nlatency in microseconds")?;
        let rows = [("least", *min as f64), ("mean", *mean), ("50 %", *p50 as f64), ("90 %", *p90 as f64)];
        let more = [("95 %", *p95), ("99 %", *p99), ("99.9 %", *p999), ("most", *max)];
        for (name, value) in rows.into_iter().chain(more.map(|(name, value)| (name, value as f64))) {
            writeln!(f, "  {name:<28} {value:>14.0}")?;
        }
        for server in &self.servers {
            let Spent { pid, cpu_us, written_bytes, anon_bytes, file_bytes, peak_anon_bytes } = server;
            let mib = |bytes: &u64| *bytes as f64 / f64::from(1 << 20);
            writeln!(f, "\nserver process {pid}")?;
            writeln!(f, "  {:<28} {:>14.2}", "CPU (s)", *cpu_us as f64 / 1e6)?;
            writeln!(f, "  {:<28} {:>14.1}", "written (MiB)", mib(written_bytes))?;
            writeln!(f, "  {:<28} {:>14.1}", "anonymous memory (MiB)", mib(anon_bytes))?;
            writeln!(f, "  {:<28} {:>14.1}", "  at most", mib(peak_anon_bytes))?;
            writeln!(f, "  {:<28} {:>14.1}", "mapped files (MiB)", mib(file_bytes))?;
        }
        writeln!(f)?;
        for Check { name, ok, detail } in &self.checks {
            let (verdict, colon) = if *ok { ("ok    ", "") } else { ("FAILED", ": ") };
            writeln!(f, "{verdict} {name}{colon}{detail}")?;
        }
        Ok(())
    }
}
