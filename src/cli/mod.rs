//! Subcommands of the binary, beside the server: `kvist config` and the like. The server's own command line has Go's
//! syntax and is read by `config::args`; a subcommand is recognized by being the first word, and from there on clap
//! reads. Exit codes are those of the server: 0 done, 1 failed, 2 a command line that cannot be read.
//!
//! To add a subcommand: a file with a `clap::Args` struct that has a `run`, a variant of `Subcommand`, and its arm in
//! [`run`]. `--help` lists what the enum holds. Called by `main`.

mod bench;
mod config;
mod dump;
mod migrate;
mod progress;
mod snapshot;

use clap::{CommandFactory, Parser};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::Write;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "kvist", disable_help_subcommand = true, disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    subcommand: Subcommand,
}

/// Everything that the binary does beside serving.
#[derive(clap::Subcommand)]
enum Subcommand {
    /// Look at a configuration without starting a server
    Config(config::Arguments),
    /// Save, look at and restore snapshots
    Snapshot(snapshot::Arguments),
    /// Make a data directory of the one that a stopped etcd left
    Migrate(migrate::Arguments),
    /// Print what the directory of a stopped member holds
    Dump(dump::Arguments),
    /// Load a server, measure it, and check what it kept
    Bench(Box<bench::Arguments>),
}

/// Whether `word`, the first behind the program's name, hands the rest over to [`run`].
pub fn is_subcommand(word: &OsStr) -> bool {
    Cli::command().get_subcommands().any(|known| word == known.get_name())
}

/// Carries out what the words behind the program's name ask for.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words = std::iter::once(OsString::from("kvist")).chain(words);
    match Cli::try_parse_from(words) {
        Ok(Cli { subcommand }) => match subcommand {
            Subcommand::Config(arguments) => arguments.run(),
            Subcommand::Snapshot(arguments) => arguments.run(),
            Subcommand::Migrate(arguments) => arguments.run(),
            Subcommand::Dump(arguments) => arguments.run(),
            Subcommand::Bench(arguments) => arguments.run(),
        },
        Err(error) => {
            // Nobody may be reading any more.
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        }
    }
}

/// Prints a line for whoever asked, who may have gone away (`kvist ... | head`).
fn say(line: impl fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints a line about what is wrong.
fn complain(line: impl fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The subcommands with a sentence each, for the server's usage.
pub fn summary() -> String {
    let entry = |subcommand: &clap::Command| {
        let about = subcommand.get_about().map(ToString::to_string).unwrap_or_default();
        format!("  kvist {} ...\n    {about}.\n\n", subcommand.get_name())
    };
    Cli::command().get_subcommands().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_well_formed_and_listed() {
        Cli::command().debug_assert();
        assert!(is_subcommand(OsStr::new("config")) && !is_subcommand(OsStr::new("--config")));
        assert!(summary().contains("  kvist config ...\n    Look at a configuration"));
    }
}
