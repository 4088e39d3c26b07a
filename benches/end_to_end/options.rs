//! The command line of the harness. Read once by `main`; everything else gets the finished [`Options`].

use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, CommandFactory, FromArgMatches, Parser};
use serde::Serialize;

use crate::Result;
use crate::kinds::KINDS;
use crate::scenario::{ALL, Scenario};
use crate::server::Contestant;

/// Compares servers of the etcd API side by side: fresh servers in turn, the same load, ratios of the medians
#[derive(Clone, Debug, Parser, Serialize)]
#[command(name = "cargo bench --bench end_to_end --")]
pub struct Options {
    /// Kinds of server to run; without it, all that are found
    #[arg(long, value_delimiter = ',', value_name = "KINDS")]
    pub servers: Vec<String>,
    /// Scenarios to run; without it, all
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub only: Vec<String>,
    /// Members of each cluster; with several, the scenarios that are about clusters run
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub members: usize,
    /// Rounds of every scenario [default: 5]
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Measured seconds of a run [default: 3]
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Seconds of load before them [default: 1]
    #[arg(long, value_name = "S")]
    warmup: Option<f64>,
    /// Seconds of puts around a compaction or defragmentation, which must end within them [default: 40]
    #[arg(long, value_name = "S")]
    upkeep_seconds: Option<f64>,
    /// Shows that the harness works, in less than a minute: one short round of some scenarios, with few keys
    #[arg(long)]
    pub quick: bool,
    /// Puts per second of put-open, instead of a share of etcd's peak in this run
    #[arg(long, value_name = "R")]
    pub rate: Option<f64>,
    /// The program whose `bench` is the load tool [default: the kvist that cargo just built]
    #[arg(long, value_name = "PATH")]
    #[serde(skip)]
    tool: Option<PathBuf>,
    /// Where data directories are made, on a real disk [default: in the target directory]
    #[arg(long, value_name = "PATH")]
    #[serde(skip)]
    dir: Option<PathBuf>,
    /// Where the report goes [default: target/bench/DATE-TIME]
    #[arg(long, value_name = "PATH")]
    #[serde(skip)]
    out: Option<PathBuf>,
    /// Only copies the summary of the newest report into this document
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub record: Option<PathBuf>,
    /// A further flag for one kind of server, as KIND=--flag=value; may be given again
    #[arg(long = "flag", value_name = "KIND=FLAG")]
    flags: Vec<String>,
    /// What cargo passes when it benchmarks
    #[arg(long, hide = true)]
    #[serde(skip)]
    bench: bool,
}

impl Options {
    /// Reads the words behind the program's name. Also returns the servers that take part.
    ///
    /// # Errors
    /// They cannot be read, or ask for what is not there. `--help` is such an error.
    pub fn parse(words: impl Iterator<Item = String>) -> Result<(Options, Vec<Contestant>)> {
        let lines: Vec<String> = ALL.iter().map(|s| format!("{:<22}{}", s.name, s.about)).collect();
        let mut command = Options::command();
        for kind in KINDS {
            let flag = Arg::new(kind.name).long(kind.name).value_name("PATH");
            command = command.arg(flag.help(format!("The program of {}", kind.name)));
        }
        let command = command.after_help(format!("Scenarios:\n  {}", lines.join("\n  ")));
        let matches = command.try_get_matches_from(std::iter::once("end_to_end".to_owned()).chain(words))?;
        let options = Options::from_arg_matches(&matches)?;
        if let Some(unknown) = options.only.iter().find(|name| ALL.iter().all(|s| s.name != **name)) {
            return Err(format!("there is no scenario {unknown:?}; --help lists them").into());
        }
        let alone = |name: &&String| ALL.iter().any(|s| s.name == **name && !s.can_run(options.members));
        if let Some(alone) = options.only.iter().find(alone) {
            return Err(format!("{alone} needs several members: --members=3").into());
        }
        if [options.seconds, options.warmup, options.rate].iter().flatten().any(|n| !(0.0..=1e6).contains(n))
        {
            return Err("seconds and rates are between 0 and 1000000".into());
        }
        let contestants = options.contestants(&matches)?;
        Ok((options, contestants))
    }

    /// The kinds that take part, in the order of the table.
    fn contestants(&self, matches: &ArgMatches) -> Result<Vec<Contestant>> {
        if let Some(unknown) = self.servers.iter().find(|name| KINDS.iter().all(|kind| kind.name != **name)) {
            return Err(format!("there is no kind of server {unknown:?}").into());
        }
        let of_any = |flag: &String| KINDS.iter().any(|kind| flag.starts_with(&format!("{}=", kind.name)));
        if let Some(unclear) = self.flags.iter().find(|flag| !of_any(flag)) {
            return Err(format!("--flag {unclear}: it begins with a kind of server and `=`").into());
        }
        let mut contestants = Vec::new();
        for kind in KINDS {
            let is_asked_for = self.servers.iter().any(|name| name == kind.name);
            if !self.servers.is_empty() && !is_asked_for {
                continue;
            }
            let Some(binary) =
                matches.get_one::<String>(kind.name).map(PathBuf::from).or_else(|| (kind.binary)())
            else {
                if is_asked_for {
                    return Err(format!("there is no {0}: give it with --{0}", kind.name).into());
                }
                eprintln!("no {0} is found: give it with --{0}, or get it with `make tools`", kind.name);
                continue;
            };
            if !(1..=kind.members_max).contains(&self.members) {
                return Err(format!(
                    "{} runs with at most {} members so far, not {}; choose others with --servers",
                    kind.name, kind.members_max, self.members
                )
                .into());
            }
            let of_kind = |flag: &String| Some(flag.strip_prefix(kind.name)?.strip_prefix('=')?.to_owned());
            let extra = self.flags.iter().filter_map(of_kind).collect();
            contestants.push(Contestant { kind, binary, extra, members: self.members });
        }
        if contestants.is_empty() { Err("no server is left to run".into()) } else { Ok(contestants) }
    }

    /// Whether a scenario is to run.
    pub fn wants(&self, scenario: &Scenario) -> bool {
        if self.only.is_empty() {
            scenario.suits(self.members) && (!self.quick || scenario.is_quick)
        } else {
            self.only.iter().any(|name| name == scenario.name)
        }
    }

    pub fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 5 }).max(1)
    }

    /// Seconds over which figures are taken.
    pub fn seconds(&self) -> f64 {
        self.seconds.unwrap_or(if self.quick { 0.5 } else { 3.0 })
    }

    /// Seconds that load runs before figures are taken.
    pub fn warmup(&self) -> f64 {
        self.warmup.unwrap_or(if self.quick { 0.1 } else { 1.0 })
    }

    /// Seconds of puts around a compaction or defragmentation, which must end within them.
    pub fn upkeep_seconds(&self) -> f64 {
        self.upkeep_seconds.unwrap_or(if self.quick { 3.0 } else { 40.0 })
    }

    /// Keys that point reads and random puts choose from, and keys of the large stores.
    pub fn keys(&self) -> (u64, u64) {
        if self.quick { (10_000, 10_000) } else { (100_000, 1_000_000) }
    }

    pub fn tool(&self) -> PathBuf {
        self.tool.clone().unwrap_or_else(|| env!("CARGO_BIN_EXE_kvist").into())
    }

    pub fn dir(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into())
    }

    /// The folder of the report that was begun at `time`, a date and time.
    pub fn out(&self, time: &str) -> PathBuf {
        self.out.clone().unwrap_or_else(|| reports_dir().join(time))
    }
}

/// Cargo's target directory: its scratch directory for benches lies directly in it.
pub fn target_dir() -> &'static Path {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    scratch.parent().unwrap_or(scratch)
}

/// Where reports are kept, a folder for each.
pub fn reports_dir() -> PathBuf {
    target_dir().join("bench")
}
