//! What the directory of a stopped member holds, as lines of JSON: the raft log ([`log`](self::log())), or the state of the
//! last flush ([`state`](self::state())). For people, and for checks that compare members. Reads only. Called by `kvist dump`.
//!
//! Keys and values are `{"u": text}` where they are printable UTF-8, and `{"b": base64}` where not. Passwords and tokens
//! are left out.

mod json;
mod log;
mod state;

pub use json::Lines;
pub use log::log;
pub use state::state;

use crate::datadir::{self, DataDir};
use crate::engine::entry;
use crate::{mvcc, raft, storage};
use std::io;
use std::path::{Path, PathBuf};

/// Whose directory.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory.
    pub data_dir: PathBuf,
    /// Directory of the log, if it is not in the data directory.
    pub wal_dir: Option<PathBuf>,
}

/// Why nothing, or no more, can be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A server runs there, or the directory cannot be read.
    #[error(transparent)]
    DataDir(#[from] datadir::Error),
    /// No server has ever run there.
    #[error("{path} holds no member of kvist", path = .0.display())]
    NoMember(PathBuf),
    /// The log is damaged.
    #[error(transparent)]
    Log(#[from] raft::wal::Error),
    /// An entry of the log cannot be read.
    #[error("entry {index} of the raft log: {source}")]
    Entry {
        /// Which.
        index: u64,
        /// Why.
        source: io::Error,
    },
    /// The state is damaged.
    #[error(transparent)]
    State(#[from] mvcc::Error),
    /// Nobody takes the lines.
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Error {
        Error::State(error.into())
    }
}

impl Options {
    fn member_dir(&self) -> PathBuf {
        self.data_dir.join("member")
    }

    fn wal_dir(&self) -> PathBuf {
        self.wal_dir.clone().unwrap_or_else(|| self.member_dir().join("wal"))
    }

    /// Keeps servers out until dropped.
    fn hold(&self) -> Result<DataDir, Error> {
        if !self.member_dir().is_dir() {
            return Err(Error::NoMember(self.data_dir.clone()));
        }
        let others: Option<&Path> = self.wal_dir.as_deref().filter(|dir| *dir != self.data_dir);
        Ok(DataDir::look(&self.data_dir, others)?)
    }
}

/// Who asked for an entry, as its line says it.
#[derive(serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Asker<'e> {
    Server,
    Client,
    User(&'e str),
}

impl<'e> Asker<'e> {
    fn of(origin: &'e entry::Origin) -> Asker<'e> {
        match origin {
            entry::Origin::Server => Asker::Server,
            entry::Origin::Client(None) => Asker::Client,
            entry::Origin::Client(Some(caller)) => Asker::User(&caller.user),
        }
    }
}
