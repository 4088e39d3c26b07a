//! Moving in: from etcd's files, or from a snapshot of either server, to a data directory of kvist.
//!
//! `backend` reads etcd's database file, `wal` its raft log, `status` sums a file up. `target` is the new directory, `build`
//! fills it, `replay` adds what the log has and the database has not (each a `request`). `restore` and `migrate` are the two ways through.
//!
//! Always true here:
//! - a source is only read, and what it says is checked: damage is refused with what is wrong, and nothing is repaired;
//! - a directory appears whole, by one rename at the end, or not at all;
//! - keys, revisions, versions, leases and history are those of the source;
//! - memory does not grow with the data, except by the ids of leases and 16 bytes a key in `status`.
//!
//! Called by `cli`.

mod backend;
mod build;
pub mod migrate;
mod record;
mod replay;
mod request;
pub mod restore;
pub mod status;
mod target;
mod wal;

use crate::{bbolt, mvcc};
use std::io;
use std::path::{Path, PathBuf};

/// Why nothing was moved in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system says no.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was being used.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The database file can't be read.
    #[error("{}: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: bbolt::Error,
    },
    /// A file is read, and contradicts itself.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The new state could not be written.
    #[error("cannot write the new state: {0}")]
    State(#[from] mvcc::Error),
    /// What was asked for makes no sense, or is not for us. The text is for the user as it is.
    #[error("{0}")]
    Refused(String),
}

impl Error {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { path: path.to_owned(), source }
    }

    fn damaged(path: &Path, what: impl Into<String>) -> Error {
        Error::Damaged { path: path.to_owned(), what: what.into() }
    }
}

/// Result of moving in.
pub type Result<T> = std::result::Result<T, Error>;

/// What takes time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// A snapshot on its way from a server; in bytes.
    Download,
    /// The checksum of a snapshot; in bytes.
    Checksum,
    /// The pages of a database file; in pages.
    Check,
    /// Reading, and perhaps writing, keys; in bytes of the source.
    Keys,
    /// The entries of a raft log; in entries.
    Log,
}

/// Is told now and then what goes on, how much of it is done, and how much there is.
pub type Progress<'p> = &'p mut dyn FnMut(Phase, u64, u64);
