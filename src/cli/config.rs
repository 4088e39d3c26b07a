//! `kvist config --check`: says whether a server could start with a configuration, and starts none. It looks at no data
//! directory, so it always asks what matters before there is data, such as the initial cluster.

use super::{complain, say};
use crate::config::args::{self, Command, Settings};
use std::ffi::OsString;
use std::process::ExitCode;

/// The words behind `kvist config`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Say what is wrong, or that nothing is
    #[arg(long, required = true)]
    check: bool,
    /// The server's flags, which are checked together with the environment
    #[arg(last = true, value_name = "FLAGS")]
    flags: Vec<OsString>,
}

impl Arguments {
    pub(super) fn run(self) -> ExitCode {
        match args::parse(self.flags) {
            Ok(Command::Serve(settings)) => check(*settings),
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

fn check(settings: Settings) -> ExitCode {
    let (notes, config) = settings.configure(std::env::vars_os());
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
