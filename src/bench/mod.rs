//! `kvist bench`: a load tool for any server of the etcd v3 API. It sends requests as a closed loop (so many outstanding)
//! or an open one (so many a second), measures latency, errors, and what the server's processes spend, and checks that the
//! server kept what it acknowledged.
//!
//! `settings` say what to do; `coordinator` conducts; each `worker` is a thread with its own runtime, connections and
//! clients, whose tasks `load` drives and `pace` times; `workloads` say what a client does; `tally` counts; `report` is
//! the result. The tool shares the cores with the server more often than not, so it is sparing: one thread unless asked,
//! no lock, no channel and no map on the path of a request but those of the client library.
//!
//! Called by `cli`, and through it by `benches/end_to_end`.

mod coordinator;
mod keys;
mod load;
mod pace;
mod report;
mod settings;
mod store;
mod tally;
mod usage;
mod wire;
mod worker;
mod workloads;

pub use coordinator::Progress;
pub use report::{Check, Errors, Latency, Report};
pub use settings::{Consistency, Settings, Workload};
pub use usage::Spent;

use crate::client::{self, Connection, Link, Status, Token};
use std::sync::Arc;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no connection, or no login.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// A call before or after the load was refused.
    #[error("{}", .0.message())]
    Refused(#[from] Status),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// Another part of the run has failed, and says why.
    fn broken_off() -> Error {
        Error::Failed("the run was broken off".into())
    }
}

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Putting keys; counted in keys.
    Preload,
    /// Load that is not measured; in milliseconds.
    Warmup,
    /// Load that is measured; in requests if they are counted, else in milliseconds.
    Measure,
    /// Looking at what the store holds; of unknown length.
    Check,
}

/// The ways to the servers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Access(Arc<[client::Options]>);

impl Access {
    /// By these; there must be at least one.
    pub fn new(servers: Vec<client::Options>) -> Access {
        Access(servers.into())
    }

    /// Logs in, if there is a user: once for all connections, since a password costs the server much.
    async fn log_in(&self) -> Result<Token, Error> {
        let first = self.0.first().ok_or_else(|| Error::Failed("there is no server".into()))?;
        Ok(Connection::open(first).await?.token())
    }

    /// The n-th connection, to the servers in turn.
    async fn connect(&self, n: usize, token: &Token) -> Result<Link, Error> {
        let options = &self.0[n % self.0.len()];
        Ok(Connection::open_as(options, token.clone()).await?.link())
    }
}

/// Runs a workload; the calling thread conducts.
///
/// # Errors
/// The settings make no sense, the server can't be reached, or a run did not come to its end.
pub fn run(settings: Settings, access: Access, progress: Progress) -> Result<Report, Error> {
    settings.verify().map_err(Error::Failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::Failed(error.to_string()))?;
    runtime.block_on(coordinator::run(settings, access, progress))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The defaults of the command line.
    pub(super) fn settings() -> Settings {
        Settings {
            workload: Workload::Put,
            endpoints: vec!["127.0.0.1:2379".into()],
            clients: 1,
            conns: 1,
            threads: 1,
            rate: 0.0,
            duration_seconds: 10.0,
            total: None,
            warmup_seconds: 1.0,
            key_size: 16,
            val_size: 256,
            key_space_size: 100_000,
            total_keys: 100_000,
            sequential_keys: false,
            prefix: "bench/".into(),
            consistency: Consistency::Linearizable,
            range_keys: 1,
            limit: 1000,
            txn_ops: 1,
            rw_ratio: 1.0,
            watchers: 100,
            streams: 100,
            put_rate: 500.0,
            ttl: 60,
            seed: 0,
            check: true,
            keep: false,
            server_pid: vec![],
        }
    }

    #[test]
    fn senseless_settings_are_named() {
        assert_eq!(settings().verify(), Ok(()));
        let why = |change: fn(&mut Settings)| {
            let mut settings = settings();
            change(&mut settings);
            settings.verify().expect_err("senseless")
        };
        assert!(why(|s| s.clients = 0).contains("--clients"));
        assert!(why(|s| s.threads = 2).contains("--threads"));
        assert!(why(|s| s.rate = f64::NAN).contains("--rate"));
        assert!(why(|s| s.key_size = 10).contains("--key-size"));
        assert!(why(|s| s.txn_ops = 100_001).contains("--txn-ops"));
        assert!(why(|s| s.prefix.clear()).contains("--prefix"));
    }
}
