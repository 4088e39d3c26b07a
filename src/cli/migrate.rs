//! `kvist migrate`: a data directory of kvist from that of a stopped etcd member.

use super::progress::Bars;
use super::{complain, say};
use crate::import::migrate::{Options, migrate};
use std::path::PathBuf;
use std::process::ExitCode;

/// The words behind `kvist migrate`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Data directory of the stopped etcd member; it is only read
    #[arg(long)]
    data_dir: PathBuf,
    /// Its log, if it has a directory of its own
    #[arg(long)]
    wal_dir: Option<PathBuf>,
    /// Data directory to make; missing or empty
    #[arg(long)]
    to: PathBuf,
    /// Directory of the new log, if it is not to be in the data directory; missing
    #[arg(long)]
    to_wal_dir: Option<PathBuf>,
}

impl Arguments {
    pub(super) fn run(self) -> ExitCode {
        let options = Options {
            data_dir: self.data_dir,
            wal_dir: self.wal_dir,
            to: self.to,
            to_wal_dir: self.to_wal_dir,
        };
        let mut bars = Bars::new();
        let result = migrate(&options, &mut |phase, done, total| bars.show(phase, done, total));
        drop(bars);
        match result {
            Ok(report) => {
                say(format_args!(
                    "migrated member {:x} ({}) of cluster {:x} to {}: revision {}, with {} entries that only the log had",
                    report.identity.member,
                    report.name,
                    report.identity.cluster,
                    options.to.display(),
                    report.revision,
                    report.replayed
                ));
                ExitCode::SUCCESS
            }
            Err(error) => {
                complain(format_args!("Error: {error}"));
                ExitCode::FAILURE
            }
        }
    }
}
