//! Load by the crate d-engine-client, the same for a d-engine and for kvist: puts or reads of random keys in a closed loop.
//!
//! Prints one line: operations, operations a second, latency in microseconds, CPU of the server for an operation, errors.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use d_engine::{Client, ClientApi};
use hdrhistogram::Histogram;

/// Longest latency that is told apart, microseconds.
const LATENCY_MAX_US: u64 = 60_000_000;
/// Clock ticks of the kernel in a second, as `/proc` counts them.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// Put a key
    Put,
    /// Read a key, linearizable
    Get,
    /// Read a key by the leader's lease
    GetLease,
    /// Read a key from any node
    GetEventual,
}

#[derive(Parser)]
struct Options {
    what: What,
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:2379")]
    endpoints: Vec<String>,
    /// Requests that may be outstanding
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Clients of the crate that they share, each with its connections
    #[arg(long, default_value_t = 8)]
    conns: usize,
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Keys to choose from; reads put them before
    #[arg(long, default_value_t = 10_000)]
    keys: u64,
    #[arg(long, default_value_t = 256)]
    value_size: usize,
    /// Processes whose CPU time is told
    #[arg(long, value_delimiter = ',')]
    server_pid: Vec<u32>,
}

/// What all tasks share.
struct Load {
    options: Options,
    value: Vec<u8>,
    is_over: AtomicBool,
    errors: AtomicU64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let mut clients = Vec::new();
    for _ in 0..options.conns.max(1) {
        clients.push(Client::builder(options.endpoints.clone()).build().await?);
    }
    let value = vec![b'v'; options.value_size];
    let load = Load { options, value, is_over: AtomicBool::new(false), errors: AtomicU64::new(0) };
    let load = Arc::new(load);
    if !matches!(load.options.what, What::Put) {
        preload(&load, &clients).await?;
    }
    let (begin, cpu) = (Instant::now(), cpu_seconds(&load.options.server_pid));
    let tasks: Vec<_> = (0..load.options.clients)
        .map(|n| tokio::spawn(work(Arc::clone(&load), clients[n % clients.len()].clone(), n as u64)))
        .collect();
    tokio::time::sleep(Duration::from_secs(load.options.seconds)).await;
    load.is_over.store(true, Ordering::Relaxed);
    let mut all = latencies();
    for task in tasks {
        all.add(task.await?)?;
    }
    let (seconds, cpu) = (begin.elapsed().as_secs_f64(), cpu_seconds(&load.options.server_pid) - cpu);
    let operations = all.len();
    println!(
        "{:?}: {operations} operations, {:.0}/s, p50 {} us, p99 {} us, server CPU {:.1} us each, {} errors",
        load.options.what,
        operations as f64 / seconds,
        all.value_at_quantile(0.5),
        all.value_at_quantile(0.99),
        cpu * 1e6 / operations.max(1) as f64,
        load.errors.load(Ordering::Relaxed),
    );
    Ok(())
}

fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).expect("bounds in order, digits that can be kept")
}

fn key(n: u64) -> String {
    format!("bench/{n:010}")
}

/// Puts every key, some at a time.
async fn preload(load: &Arc<Load>, clients: &[Client]) -> Result<(), Box<dyn std::error::Error>> {
    let tasks: Vec<_> = (0..load.options.clients as u64)
        .map(|n| {
            let (load, client) = (Arc::clone(load), clients[n as usize % clients.len()].clone());
            tokio::spawn(async move {
                for n in (n..load.options.keys).step_by(load.options.clients) {
                    client.put(key(n), &load.value).await?;
                }
                Ok::<_, d_engine::ClientApiError>(())
            })
        })
        .collect();
    for task in tasks {
        task.await?.map_err(|error| format!("{error:?}"))?;
    }
    Ok(())
}

/// One request after the other.
async fn work(load: Arc<Load>, client: Client, seed: u64) -> Histogram<u64> {
    let mut latencies = latencies();
    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while !load.is_over.load(Ordering::Relaxed) {
        // Marsaglia's xorshift.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let key = key(random % load.options.keys);
        let begin = Instant::now();
        let is_good = match load.options.what {
            What::Put => client.put(key, &load.value).await.is_ok(),
            What::Get => client.get_linearizable(key).await.is_ok_and(|value| value.is_some()),
            What::GetLease => client.get_lease(key).await.is_ok_and(|value| value.is_some()),
            What::GetEventual => client.get_eventual(key).await.is_ok(),
        };
        if is_good {
            latencies.saturating_record(begin.elapsed().as_micros() as u64);
        } else {
            load.errors.fetch_add(1, Ordering::Relaxed);
        }
    }
    latencies
}

/// User and system time of processes.
fn cpu_seconds(pids: &[u32]) -> f64 {
    let of = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Behind the name, which may hold anything: the 14th and 15th fields of all.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let mut ticks = || fields.next()?.parse::<f64>().ok();
        Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
    };
    pids.iter().filter_map(of).sum()
}
