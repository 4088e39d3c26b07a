//! The command line of this benchmark. Read once by `main`; everything else gets the finished [`Options`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::{Result, workload};

/// What `--help` prints.
pub const USAGE: &str = "\
cargo bench --bench end_to_end -- [options]

  --etcd PATH         the etcd to compare with; default: etcd in PATH; without one, kvist runs alone
  --kvist PATH        the server under test; default: the release binary that cargo just built
  --only LIST         comma-separated workloads:
                      put-1,put-64,put-1000,get-1,get-64,range-10k,watch-100,put-64-tls,put-64-users,
                      get-64-tls,get-64-users,put-64-scraped,restart-1m
  --rounds N          rounds of every workload but restart-1m, which runs once (3)
  --seconds S         measured seconds of a run (10)
  --warmup S          seconds before them (2)
  --keys N            keys that put and get choose from (100000)
  --watch-rate N      puts per second of watch-100 (500)
  --restart-keys N    keys of restart-1m (1000000)
  --dir PATH          where data directories are made, on a real disk (the target directory)
  --json FILE         the results as JSON (target/bench/end_to_end.json); the tables go beside it as .md
";

/// Bytes of a key and of a value in every workload.
pub const KEY_BYTES: usize = 16;
pub const VALUE_BYTES: usize = 256;

/// Settings of one run of the benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct Options {
    #[serde(skip)]
    pub etcd: Option<PathBuf>,
    #[serde(skip)]
    pub kvist: PathBuf,
    pub only: Vec<String>,
    pub rounds: u32,
    pub seconds: f64,
    pub warmup_seconds: f64,
    pub keys: u64,
    pub watch_rate: u32,
    pub restart_keys: u64,
    #[serde(skip)]
    pub dir: PathBuf,
    /// The tables go beside it, with the extension `md`.
    #[serde(skip)]
    pub json: PathBuf,
}

impl Options {
    /// The settings for the given arguments (without the program's name).
    ///
    /// # Errors
    /// An unknown flag, a missing or malformed value, an unknown workload.
    pub fn parse(args: impl Iterator<Item = String>) -> Result<Options> {
        // Cargo's scratch directory for benches lies directly in the target directory.
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let mut options = Options {
            etcd: find_in_path("etcd"),
            kvist: env!("CARGO_BIN_EXE_kvist").into(),
            only: workload::ALL.iter().map(|w| w.name.to_owned()).collect(),
            rounds: 3,
            seconds: 10.0,
            warmup_seconds: 2.0,
            keys: 100_000,
            watch_rate: 500,
            restart_keys: 1_000_000,
            dir: scratch.to_owned(),
            json: scratch.parent().unwrap_or(scratch).join("bench/end_to_end.json"),
        };
        let mut args = args.filter(|a| a != "--bench");
        while let Some(flag) = args.next() {
            let value = args.next().ok_or_else(|| format!("{flag} needs a value\n\n{USAGE}"))?;
            options.set(&flag, &value).map_err(|e| format!("{flag} {value}: {e}"))?;
        }
        Ok(options)
    }

    fn set(&mut self, flag: &str, value: &str) -> Result<()> {
        match flag {
            "--etcd" => self.etcd = Some(value.into()),
            "--kvist" => self.kvist = value.into(),
            "--only" => self.only = workload_names(value)?,
            "--rounds" => self.rounds = positive(value)?,
            "--seconds" => self.seconds = seconds(value)?,
            "--warmup" => self.warmup_seconds = seconds(value)?,
            "--keys" => self.keys = positive(value)?,
            "--watch-rate" => self.watch_rate = positive(value)?,
            "--restart-keys" => self.restart_keys = positive(value)?,
            "--dir" => self.dir = value.into(),
            "--json" => self.json = value.into(),
            _ => return Err(format!("unknown flag\n\n{USAGE}").into()),
        }
        Ok(())
    }

    /// Time that load runs before figures are taken.
    pub fn warmup(&self) -> Duration {
        Duration::from_secs_f64(self.warmup_seconds)
    }

    /// Time over which figures are taken.
    pub fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

fn workload_names(list: &str) -> Result<Vec<String>> {
    let names: Vec<String> = list.split(',').map(str::to_owned).collect();
    match names.iter().find(|name| workload::ALL.iter().all(|w| w.name != **name)) {
        Some(unknown) => Err(format!("no workload {unknown:?}\n\n{USAGE}").into()),
        None => Ok(names),
    }
}

fn positive<T: std::str::FromStr + Default + PartialOrd>(value: &str) -> Result<T> {
    value.parse().ok().filter(|n| *n > T::default()).ok_or_else(|| "not a positive number".into())
}

/// Seconds of at most a day, so that they always make a `Duration`.
fn seconds(value: &str) -> Result<f64> {
    let range = 0.0..=86_400.0;
    value.parse().ok().filter(|s| range.contains(s)).ok_or_else(|| "not a number of seconds".into())
}

fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}
