//! `kvist config --check`: says whether a server could start with a configuration, and starts none. It looks at no data
//! directory, so it always asks what matters before there is data, such as the initial cluster.

use super::{complain, say};
use crate::config::args::{self, Command, Settings};
use crate::config::{Config, Error, Note};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// The words behind `kvist config`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Say what is wrong, or that nothing is: with the file FILE, or else with the flags behind -- and the environment
    #[arg(long, required = true, num_args = 0..=1, value_name = "FILE")]
    check: Option<Option<PathBuf>>,
    /// The server's flags
    #[arg(last = true, value_name = "FLAGS")]
    flags: Vec<OsString>,
}

impl Arguments {
    pub(super) fn run(self) -> ExitCode {
        if let Some(path) = self.check.flatten() {
            return tell(Settings::configure_file(&path));
        }
        match args::parse(self.flags) {
            Ok(Command::Serve(settings)) => tell(settings.configure(std::env::vars_os())),
            Ok(Command::Help | Command::Version) => {
                say("ok: with these flags no server starts");
                ExitCode::SUCCESS
            }
            Err(error) => {
                complain(format_args!("error: {}", error.0));
                ExitCode::FAILURE
            }
        }
    }
}

fn tell((notes, config): (Vec<Note>, Result<Config, Error>)) -> ExitCode {
    for note in notes.iter().filter(|note| note.is_warning()) {
        complain(format_args!("warning: {note}"));
    }
    match config.and_then(|config| config.check_bootstrap()) {
        Ok(()) => {
            say("ok");
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}
