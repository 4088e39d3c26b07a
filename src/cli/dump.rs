//! `kvist dump`: what the directory of a stopped member holds, as lines of JSON. See docs/dump.md.

use super::complain;
use crate::dump::{self, Error, Lines, Options};
use std::io::{self, BufWriter};
use std::path::PathBuf;
use std::process::ExitCode;

/// The words behind `kvist dump`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// The entries that the raft log still has
    Log(LogArguments),
    /// The state of the last flush; what came after it is in the log
    State(StateArguments),
}

#[derive(clap::Args)]
struct Directory {
    /// Data directory of the stopped member; it is only read
    #[arg(long)]
    data_dir: PathBuf,
    /// Its log, if that has a directory of its own
    #[arg(long)]
    wal_dir: Option<PathBuf>,
}

#[derive(clap::Args)]
struct LogArguments {
    #[command(flatten)]
    directory: Directory,
    /// First index
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Last index
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    to: u64,
}

#[derive(clap::Args)]
struct StateArguments {
    #[command(flatten)]
    directory: Directory,
    /// Leave the values of keys out
    #[arg(long)]
    keys_only: bool,
}

impl Arguments {
    pub(super) fn run(self) -> ExitCode {
        let mut lines = Lines::new(BufWriter::new(io::stdout().lock()));
        let dumped = match self.what {
            What::Log(LogArguments { directory, from, to }) => {
                dump::log(&directory.into(), from..=to, &mut lines)
            }
            What::State(StateArguments { directory, keys_only }) => {
                dump::state(&directory.into(), keys_only, &mut lines)
            }
        };
        match dumped.and_then(|()| Ok(lines.flush()?)) {
            Ok(()) => ExitCode::SUCCESS,
            // Whoever read has seen enough: `kvist dump ... | head`.
            Err(Error::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(error) => {
                // What was read before is worth having; whether it can be written does not matter any more.
                let _ = lines.flush();
                complain(format_args!("Error: {error}"));
                ExitCode::FAILURE
            }
        }
    }
}

impl From<Directory> for Options {
    fn from(directory: Directory) -> Options {
        Options { data_dir: directory.data_dir, wal_dir: directory.wal_dir }
    }
}
