//! The process: a subcommand, which `cli` carries out, or a server: command line, log, data directory, server, exit
//! code. A stop that was asked for ends the process by the signal that asked, or with 0 as process 1; 1 is a start or run
//! that failed (the log says why), 2 a command line that cannot be read (standard error says why).

use kvist::cli;
use kvist::config::args::{self, Command, Settings, UsageError};
use kvist::config::{self, Config, Log, arch, help};
use kvist::datadir::DataDir;
use kvist::logging::{self, FATAL};
use kvist::server;
use kvist::shutdown::Shutdown;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Huge pages would round every small arena up to megabytes of anonymous memory. An old kernel may refuse.
    let _ = nix::sys::prctl::set_thp_disable(true);
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if words.first().is_some_and(|word| cli::is_subcommand(word)) {
        return cli::run(words);
    }
    match args::parse(words) {
        Ok(Command::Help) => print(&help::help(&cli::summary())),
        Ok(Command::Version) => print(&help::version()),
        Ok(Command::Serve(settings)) => serve(*settings),
        Err(UsageError(message)) => {
            let _ = write!(std::io::stderr(), "{message}\n{}", help::usage(&cli::summary()));
            ExitCode::from(2)
        }
    }
}

/// Prints to a reader that may have gone away (`kvist --help | head`).
fn print(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn serve(settings: Settings) -> ExitCode {
    match configure(settings) {
        Some(config) => match run(config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(target: FATAL, %error, "the server failed");
                ExitCode::FAILURE
            }
        },
        None => ExitCode::FAILURE,
    }
}

/// The checked configuration, with the log running; `None` after the reason was logged.
fn configure(settings: Settings) -> Option<Config> {
    let (notes, config) = settings.configure(std::env::vars_os());
    let log = config.as_ref().map_or_else(|_| Log::default(), |config| config.log.clone());
    if let Err(error) = logging::init(&log) {
        let _ = writeln!(std::io::stderr(), "cannot start the log: {error}");
        return None;
    }
    notes.iter().for_each(config::Note::log);
    match config {
        Ok(config) => Some(config),
        Err(config::Error::Conflict(variable)) => {
            tracing::error!(
                target: FATAL,
                { "environment-variable" = %variable },
                "conflicting environment variable is shadowed by corresponding command-line flag (either unset \
                 environment variable or disable flag)"
            );
            None
        }
        Err(error) => {
            tracing::warn!(%error, "failed to verify flags");
            None
        }
    }
}

fn run(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let named = std::env::var(arch::VARIABLE).ok();
    if !arch::may_run(arch::name(), named.as_deref()) {
        let (name, variable) = (arch::name(), arch::VARIABLE);
        return Err(format!(
            "refusing to run on {name}, which is not supported, since {variable} is not {name}"
        )
        .into());
    }
    let shutdown = Shutdown::on_signals()?;
    let data_dir = DataDir::open(&config)?;
    if !data_dir.has_data() {
        config.check_bootstrap()?;
    }
    server::run(config, shutdown.clone())?;
    drop(data_dir);
    shutdown.end_by_signal();
    Ok(())
}
