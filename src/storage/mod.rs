//! The LMDB environment that holds the replicated state. The only code that imports heed.
//!
//! Always true here:
//! - there is one writer, the flush thread of `mvcc`; readers never block it and it never blocks them;
//! - every commit is fully synced, so what a committed write transaction wrote survives power loss;
//! - a read transaction stops LMDB from reusing pages: it must not outlive a bounded piece of work.
//!
//! The tables and their byte layouts are listed in [`schema`] and drawn in `docs/storage.md`.

pub mod codec;
mod env;
pub mod schema;

pub use env::{Env, ReadTxn, Sizes, WriteTxn};

/// Why the state could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// LMDB refused or failed; the text says what.
    #[error("state database: {0}")]
    Lmdb(String),
    /// The file is of a format that this version does not know.
    #[error(
        "state database has format {found}, this version of kvist reads up to {known}: install a newer kvist, or restore a backup"
    )]
    NewerFormat {
        /// Format version found in the file.
        found: u32,
        /// Newest format version known.
        known: u32,
    },
    /// A row can't be what we wrote.
    #[error("state database is damaged: {0}; restore it from another member or from a backup")]
    Damaged(String),
    /// The file system failed.
    #[error("state database: {0}")]
    Io(#[from] std::io::Error),
}

impl From<heed::Error> for Error {
    fn from(error: heed::Error) -> Error {
        match error {
            heed::Error::Io(e) => Error::Io(e),
            heed::Error::Mdb(
                heed::MdbError::Corrupted | heed::MdbError::Invalid | heed::MdbError::PageNotFound,
            ) => Error::Damaged("not a valid LMDB file".into()),
            other => Error::Lmdb(other.to_string()),
        }
    }
}

/// Result of a storage operation.
pub type Result<T> = std::result::Result<T, Error>;
