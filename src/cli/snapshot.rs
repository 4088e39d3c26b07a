//! `kvist snapshot`: save a snapshot of a running server, sum up a snapshot file, make a member's directory of one. Flags and
//! output are those of etcdctl and etcdutl; a file is of etcd's format whichever server it comes from.

use super::progress::Bars;
use super::{complain, say};
use crate::client::{self, save::save};
use crate::config::args::{self, Command};
use crate::config::{Config, EndpointUrl, Initial};
use crate::engine::Identity;
use crate::import::Phase;
use crate::import::restore::{self, Founder, Options};
use crate::import::status::{Status, status};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// The words behind `kvist snapshot`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Save a snapshot of a running server, kvist or etcd
    Save(SaveArguments),
    /// Check a snapshot file and sum it up
    Status(StatusArguments),
    /// Make a member's data directory of a snapshot of kvist or etcd
    ///
    /// The member begins a new cluster with the keys, leases and users of the snapshot. For a cluster of several members, run
    /// it for each, with the same file, --initial-cluster, --initial-cluster-token and --bump-revision, and with its own
    /// --name and --initial-advertise-peer-urls. Then start all with the same flags.
    Restore(RestoreArguments),
}

/// The flags of `etcdctl snapshot save`.
#[derive(clap::Args)]
struct SaveArguments {
    /// Where to; it appears when it is complete
    file: PathBuf,
    /// The server
    #[arg(long, default_value = "127.0.0.1:2379")]
    endpoints: String,
    /// CA of the server's certificate [default: those of the system]
    #[arg(long)]
    cacert: Option<PathBuf>,
    /// Certificate of this client
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// Key of the certificate
    #[arg(long, requires = "cert")]
    key: Option<PathBuf>,
    /// Take any certificate of the server
    #[arg(long)]
    insecure_skip_tls_verify: bool,
    /// User, as name:password, or as name with --password
    #[arg(long)]
    user: Option<String>,
    /// Password of the user
    #[arg(long, requires = "user")]
    password: Option<String>,
}

#[derive(clap::Args)]
struct StatusArguments {
    /// The snapshot, or a database file of etcd
    file: PathBuf,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Format::Simple)]
    write_out: Format,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    Simple,
    Json,
    Table,
    Fields,
}

/// The flags of `etcdutl snapshot restore`.
#[derive(clap::Args)]
struct RestoreArguments {
    /// The snapshot
    file: PathBuf,
    /// Data directory to make; missing or empty [default: <name>.kvist]
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Directory of the log, if it is not to be in the data directory; missing
    #[arg(long)]
    wal_dir: Option<PathBuf>,
    /// Name of the member
    #[arg(long, default_value = "default")]
    name: String,
    /// All members of the new cluster, as name=URL,... [default: <name>=<initial-advertise-peer-urls>]
    #[arg(long)]
    initial_cluster: Option<String>,
    /// Token of the new cluster, from which its ids are made
    #[arg(long, default_value = "etcd-cluster")]
    initial_cluster_token: String,
    /// URLs of the member for its peers
    #[arg(long, default_value = "http://localhost:2380")]
    initial_advertise_peer_urls: String,
    /// Take a file without a checksum: one that was copied from a data directory
    #[arg(long)]
    skip_hash_check: bool,
    /// How much the revision moves on, so that clients do not see it go back; needs --mark-compacted
    #[arg(long, default_value_t = 0)]
    bump_revision: u64,
    /// Mark everything before the moved revision as compacted; needs --bump-revision
    #[arg(long)]
    mark_compacted: bool,
    /// Of no effect here
    #[arg(long, hide = true)]
    initial_memory_map_size: Option<u64>,
}

impl Arguments {
    pub(super) fn run(self) -> ExitCode {
        match self.action {
            Action::Save(arguments) => arguments.run(),
            Action::Status(arguments) => arguments.run(),
            Action::Restore(arguments) => arguments.run(),
        }
    }
}

impl SaveArguments {
    fn run(self) -> ExitCode {
        let options = match self.options() {
            Ok(options) => options,
            Err(error) => {
                complain(format_args!("Error: {error}"));
                return ExitCode::FAILURE;
            }
        };
        let mut bars = Bars::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let result = runtime.map_err(|e| e.to_string()).and_then(|runtime| {
            let mut show = |done, total| bars.show(Phase::Download, done, total);
            runtime.block_on(save(&options, &self.file, &mut show)).map_err(|e| e.to_string())
        });
        drop(bars);
        match result {
            Ok(version) => {
                say(format_args!("Snapshot saved at {}", self.file.display()));
                if !version.is_empty() {
                    say(format_args!("Server version {version}"));
                }
                ExitCode::SUCCESS
            }
            Err(error) => {
                complain(format_args!("Error: {error}"));
                ExitCode::FAILURE
            }
        }
    }

    fn options(&self) -> Result<client::Options, String> {
        if self.endpoints.contains(',') {
            return Err("snapshot must be requested to one selected node, not multiple".into());
        }
        let user = match (&self.user, &self.password) {
            (None, _) => None,
            (Some(name), Some(password)) => Some((name.clone(), password.clone())),
            (Some(both), None) => {
                let (name, password) = both.split_once(':').ok_or("--user has no password; add :password")?;
                Some((name.to_owned(), password.to_owned()))
            }
        };
        Ok(client::Options {
            endpoint: self.endpoints.clone(),
            user,
            ca: self.cacert.clone(),
            certificate: self.cert.clone().zip(self.key.clone()),
            skip_verify: self.insecure_skip_tls_verify,
        })
    }
}

impl StatusArguments {
    fn run(self) -> ExitCode {
        let mut bars = Bars::new();
        let result = status(&self.file, &mut |phase, done, total| bars.show(phase, done, total));
        drop(bars);
        match result {
            Ok(status) => {
                say(format_args!("{}", self.write_out.print(&status)));
                ExitCode::SUCCESS
            }
            Err(error) => {
                complain(format_args!("Error: {error}"));
                ExitCode::FAILURE
            }
        }
    }
}

impl RestoreArguments {
    fn run(self) -> ExitCode {
        if (self.bump_revision > 0) != self.mark_compacted {
            complain("Error: --mark-compacted required if --revision-bump > 0");
            return ExitCode::from(128); // what etcdutl gives for arguments that do not fit
        }
        let mut bars = Bars::new();
        let result = self.options().and_then(|options| {
            let mut show = |phase, done, total| bars.show(phase, done, total);
            let report = restore::restore(&self.file, &options, &mut show).map_err(|e| e.to_string())?;
            Ok((options, report))
        });
        drop(bars);
        match result {
            Ok((options, report)) => {
                say(format_args!(
                    "restored {} at revision {} to {}: member {:x} of cluster {:x}",
                    self.file.display(),
                    report.revision,
                    options.data_dir.display(),
                    options.identity.member,
                    options.identity.cluster
                ));
                ExitCode::SUCCESS
            }
            Err(error) => {
                complain(format_args!("Error: {error}"));
                ExitCode::FAILURE
            }
        }
    }

    fn options(&self) -> Result<Options, String> {
        let config = self.config()?;
        let identity =
            Identity { cluster: config.cluster.cluster_id(), member: config.cluster.member_id(&config.name) };
        let bump =
            i64::try_from(self.bump_revision).map_err(|_| "--bump-revision is too large".to_owned())?;
        Ok(Options {
            data_dir: self.data_dir.clone().unwrap_or_else(|| format!("{}.kvist", self.name).into()),
            wal_dir: self.wal_dir.clone(),
            identity,
            founders: config.cluster.initial.iter().map(|initial| founder(&config, initial)).collect(),
            skip_hash_check: self.skip_hash_check,
            bump: (bump > 0).then_some(bump),
        })
    }

    /// What a server would make of the same flags at its first start, so that it finds what it expects.
    fn config(&self) -> Result<Config, String> {
        let mut words = vec![
            format!("--name={}", self.name),
            format!("--initial-cluster-token={}", self.initial_cluster_token),
            format!("--initial-advertise-peer-urls={}", self.initial_advertise_peer_urls),
        ];
        words.extend(self.initial_cluster.as_ref().map(|cluster| format!("--initial-cluster={cluster}")));
        let settings = match args::parse(words.into_iter().map(OsString::from)) {
            Ok(Command::Serve(settings)) => settings,
            Ok(Command::Help | Command::Version) => {
                return Err("flags of the server are not taken here".into());
            }
            Err(error) => return Err(error.0),
        };
        let (_, config) = settings.verify();
        let config = config.map_err(|e| e.to_string())?;
        config.check_bootstrap().map_err(|e| e.to_string())?;
        Ok(config)
    }
}

fn founder(config: &Config, initial: &Initial) -> Founder {
    Founder {
        id: config.cluster.id_of(initial),
        name: initial.name.clone(),
        peer_urls: initial.urls.iter().map(EndpointUrl::to_string).collect(),
    }
}

impl Format {
    fn print(self, status: &Status) -> String {
        let Status { hash, revision, total_keys, total_size, version } = status;
        let cells = [
            ("hash", format!("{hash:x}")),
            ("revision", revision.to_string()),
            ("total keys", total_keys.to_string()),
            ("total size", human_bytes(*total_size)),
            ("version", version.clone()),
        ];
        match self {
            Format::Simple => cells.map(|(_, value)| value).join(", "),
            Format::Json => format!(
                "{{\"hash\":{hash},\"revision\":{revision},\"totalKey\":{total_keys},\"totalSize\":{total_size},\
                 \"version\":{version:?}}}"
            ),
            Format::Fields => format!(
                "\"Hash\" : {hash}\n\"Revision\" : {revision}\n\"Keys\" : {total_keys}\n\"Size\" : {total_size}\n\
                 \"Version\" : {version}"
            ),
            Format::Table => table(&cells),
        }
    }
}

/// One row below its titles, in the frame that etcdutl draws.
fn table(cells: &[(&str, String)]) -> String {
    let widths: Vec<usize> = cells.iter().map(|(title, value)| title.len().max(value.len())).collect();
    let rule = |left: &str, cross: &str, right: &str| {
        let parts: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
        format!("{left}{}{right}", parts.join(cross))
    };
    let titles: Vec<String> = cells
        .iter()
        .zip(&widths)
        .map(|((title, _), width)| format!(" {:^width$} ", title.to_uppercase()))
        .collect();
    let values: Vec<String> =
        cells.iter().zip(&widths).map(|((_, value), width)| format!(" {value:>width$} ")).collect();
    [
        rule("┌", "┬", "┐"),
        format!("│{}│", titles.join("│")),
        rule("├", "┼", "┤"),
        format!("│{}│", values.join("│")),
        rule("└", "┴", "┘"),
    ]
    .join("\n")
}

/// A size as etcdutl prints it: two digits, units of a thousand.
fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut value = bytes as f64;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let value = (value * 10.0 + 0.5).floor() / 10.0;
    if value < 10.0 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}
