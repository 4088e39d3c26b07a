//! `kvist bench`: loads a server and says what came of it. Names and flags are those of etcd's own benchmark tool where it
//! has them. Exit code 1 is a failed check or a server that can't be reached.

use super::{complain, say};
use crate::bench::{self, Access, Consistency, Phase, Settings, Workload};
use crate::client;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::process::ExitCode;

/// The words behind `kvist bench`.
#[derive(clap::Args)]
#[command(after_help = "docs/bench.md describes the workloads, and how to read the figures.")]
pub(super) struct Arguments {
    /// What to do
    #[arg(value_enum)]
    workload: Workload,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    result: Outcome,
}

/// Whom to ask.
#[derive(clap::Args)]
#[command(next_help_heading = "Server")]
struct Server {
    /// Servers, to which the connections are spread: host:port, http://, https:// or unix://
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:2379")]
    endpoints: Vec<String>,
    /// CA of the servers' certificates [default: those of the system]
    #[arg(long)]
    cacert: Option<PathBuf>,
    /// Certificate of this client
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// Key of the certificate
    #[arg(long, requires = "cert")]
    key: Option<PathBuf>,
    /// Take any certificate of the servers
    #[arg(long)]
    insecure_skip_tls_verify: bool,
    /// User, as name:password
    #[arg(long)]
    user: Option<String>,
}

/// How much.
#[derive(clap::Args)]
#[command(next_help_heading = "Load")]
struct Load {
    /// Requests that may be outstanding [default: 1; with --put-rate: 16; with --rate: 1000]
    #[arg(long)]
    clients: Option<usize>,
    /// Connections that the clients share
    #[arg(long, default_value_t = 1)]
    conns: usize,
    /// Threads of the load tool
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Requests a second, whatever the answers do; 0 sends the next when the last is answered
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
    /// Measured time, such as 10s or 2m
    #[arg(long, default_value = "10s", conflicts_with = "total")]
    duration: humantime::Duration,
    /// Measured requests, instead of a time
    #[arg(long)]
    total: Option<u64>,
    /// Time of load before the measured one
    #[arg(long, default_value = "1s")]
    warmup: humantime::Duration,
    /// Seed of everything random
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Of what.
#[derive(clap::Args)]
#[command(next_help_heading = "Keys and values")]
struct Keys {
    /// Bytes of a key
    #[arg(long, default_value_t = 16)]
    key_size: usize,
    /// Bytes of a value [default: 256; kubernetes: 1536, and up to a third more or less]
    #[arg(long)]
    val_size: Option<usize>,
    /// Keys that writes choose from
    #[arg(long, default_value_t = 100_000)]
    key_space_size: u64,
    /// Keys that are put before the load, where a workload reads or deletes [default: 100000; kubernetes: 10000]
    #[arg(long)]
    total_keys: Option<u64>,
    /// Write the key space in order, not at random
    #[arg(long)]
    sequential_keys: bool,
    /// What every key begins with
    #[arg(long, default_value = "bench/")]
    prefix: String,
    /// Leave the keys when done; a prefix that had keys before is always left
    #[arg(long)]
    keep: bool,
}

/// Of one workload or another.
#[derive(clap::Args)]
#[command(next_help_heading = "Workloads")]
struct Shape {
    /// Reads: linearizable or serializable
    #[arg(long, value_enum, default_value = "l")]
    consistency: Consistency,
    /// Serializable reads, as --consistency=s
    #[arg(long)]
    serializable: bool,
    /// range: keys that a read returns
    #[arg(long, default_value_t = 1)]
    range_keys: u64,
    /// txn-mixed: most keys that a read returns
    #[arg(long, default_value_t = 1000)]
    limit: u64,
    /// txn-put: puts in a transaction
    #[arg(long, default_value_t = 1)]
    txn_ops: u64,
    /// txn-mixed: reads for each write
    #[arg(long, default_value_t = 1.0)]
    rw_ratio: f64,
    /// watch and kubernetes: watchers [default: 100; watch-latency: 1; watch-many: 10000; watch-replay, kubernetes: 10]
    #[arg(long)]
    watchers: Option<usize>,
    /// watch and kubernetes: streams that the watchers share [default: one each; watch-many: 10]
    #[arg(long)]
    streams: Option<usize>,
    /// watch, lease-expiry: puts or grants a second; 0 sends the next when the last is answered [default: 500;
    /// watch-latency, lease-expiry: 100]
    #[arg(long)]
    put_rate: Option<f64>,
    /// lease: seconds that a lease lives [default: 60; lease-expiry: 2]
    #[arg(long)]
    ttl: Option<i64>,
}

/// What comes of it.
#[derive(clap::Args)]
#[command(next_help_heading = "Result")]
struct Outcome {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Processes of the server, whose CPU time, memory and writes are reported
    #[arg(long, value_delimiter = ',')]
    server_pid: Vec<u32>,
    /// Do not look whether the server kept what it promised
    #[arg(long)]
    no_check: bool,
}

impl Arguments {
    pub(super) fn run(self) -> ExitCode {
        let json = self.result.json;
        let (settings, access) = match self.read() {
            Ok(read) => read,
            Err(error) => {
                complain(format_args!("error: {error}"));
                return ExitCode::from(2);
            }
        };
        let mut bar = Bar(None);
        let result = bench::run(settings, access, &mut |phase, done, total| bar.show(phase, done, total));
        drop(bar);
        match result {
            Ok(report) => {
                if json {
                    say(serde_json::to_string(&report).expect("a report is plain data with text for keys"));
                } else {
                    say(format_args!("{report}"));
                }
                if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
            }
            Err(error) => {
                complain(format_args!("error: {error}"));
                ExitCode::FAILURE
            }
        }
    }

    fn read(self) -> Result<(Settings, Access), String> {
        let Arguments { workload, server, load, keys, shape, result } = self;
        let user = match server.user.as_deref().map(|user| user.split_once(':')) {
            None => None,
            Some(Some((name, password))) => Some((name.to_owned(), password.to_owned())),
            Some(None) => return Err("--user has no password; add :password".into()),
        };
        let options = |endpoint: &String| client::Options {
            endpoint: endpoint.clone(),
            user: user.clone(),
            ca: server.cacert.clone(),
            certificate: server.cert.clone().zip(server.key.clone()),
            skip_verify: server.insecure_skip_tls_verify,
        };
        let access = Access::new(server.endpoints.iter().map(options).collect());
        let consistency = if shape.serializable { Consistency::Serializable } else { shape.consistency };
        let is = |one| workload == one;
        let default_watchers = match workload {
            Workload::WatchLatency => 1,
            Workload::WatchMany => 10_000,
            Workload::WatchReplay | Workload::Kubernetes => 10,
            _ => 100,
        };
        let watchers = shape.watchers.unwrap_or(default_watchers);
        let default_streams = if is(Workload::WatchMany) { 10 } else { watchers.max(1) };
        let is_slow = is(Workload::WatchLatency) || is(Workload::LeaseExpiry);
        let is_paced = matches!(
            workload,
            Workload::Watch | Workload::WatchLatency | Workload::WatchMany | Workload::LeaseExpiry
        );
        let default_clients = if is_paced {
            16
        } else if load.rate > 0.0 {
            1000
        } else {
            1
        };
        let settings = Settings {
            workload,
            endpoints: server.endpoints,
            clients: load.clients.unwrap_or(default_clients),
            conns: load.conns,
            threads: load.threads,
            rate: load.rate,
            duration_seconds: load.duration.as_secs_f64(),
            total: load.total,
            warmup_seconds: load.warmup.as_secs_f64(),
            key_size: keys.key_size,
            val_size: keys.val_size.unwrap_or(if is(Workload::Kubernetes) { 1536 } else { 256 }),
            key_space_size: keys.key_space_size,
            total_keys: keys.total_keys.unwrap_or(if is(Workload::Kubernetes) { 10_000 } else { 100_000 }),
            sequential_keys: keys.sequential_keys,
            prefix: keys.prefix,
            consistency,
            range_keys: shape.range_keys,
            limit: shape.limit,
            txn_ops: shape.txn_ops,
            rw_ratio: shape.rw_ratio,
            watchers,
            streams: shape.streams.unwrap_or(default_streams),
            put_rate: shape.put_rate.unwrap_or(if is_slow { 100.0 } else { 500.0 }),
            ttl: shape.ttl.unwrap_or(if is(Workload::LeaseExpiry) { 2 } else { 60 }),
            seed: load.seed,
            check: !result.no_check,
            keep: keys.keep,
            server_pid: result.server_pid,
        };
        settings.verify()?;
        Ok((settings, access))
    }
}

/// Progress on standard error, only when that is a terminal.
struct Bar(Option<(Phase, ProgressBar)>);

impl Bar {
    fn show(&mut self, phase: Phase, done: u64, total: u64) {
        if self.0.as_ref().is_none_or(|(current, _)| *current != phase) {
            let name = match phase {
                Phase::Preload => "filling",
                Phase::Warmup => "warming up",
                Phase::Measure => "measuring",
                Phase::Check => "checking",
            };
            let style = ProgressStyle::with_template("{msg:12} {wide_bar} {percent:>3} %");
            let style = style.expect("a constant template");
            self.finish();
            self.0 = Some((phase, ProgressBar::new(total).with_style(style).with_message(name)));
        }
        if let Some((_, bar)) = &self.0 {
            bar.set_position(done);
        }
    }

    fn finish(&mut self) {
        if let Some((_, bar)) = self.0.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.finish();
    }
}
