//! bbolt database files, as etcd and its tools keep them: reading, checking, and writing new ones. File format 2.
//!
//! ```text
//!   page 0   page 1   page 2 ...                                       high water mark
//!   meta     meta     leaf, branch and freelist pages, in any order
//! ```
//!
//! A file is a B+ tree of *buckets*: names whose values lead to trees of their own. The meta page with the higher
//! transaction id names the root. All numbers are little endian. A page has a head of 16 bytes and goes on into the pages
//! behind it (*overflow*) when it does not fit into one. A small bucket may have its only page *inline*, in its value.
//!
//! Always true here: no byte of a file leads to a panic, to memory without bound, or to an endless walk. What a file
//! says is checked before it is followed; damage is an [`Error`] that names the page.
//!
//! The lowest layer, for files that leave us or come to us: snapshots are written and read by `backup`.

mod check;
mod format;
mod reader;
#[cfg(test)]
mod reader_test;
mod writer;
#[cfg(test)]
mod writer_test;

pub use reader::{Bucket, Iter, Reader};
pub use writer::{BucketWriter, PAGE_SIZE, Writer};

/// Longest key that bbolt takes, in bytes.
pub const KEY_MAX: usize = 32_768;

/// Why a file can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read or written.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Neither meta page is one.
    #[error("not a bbolt database: {0}")]
    NotBolt(&'static str),
    /// The file was made by a bbolt whose format we do not know.
    #[error("bbolt file format {0}, only 2 is known")]
    Version(u32),
    /// The file is shorter than it says.
    #[error("the file is cut off: it has {len} bytes, and should have {expected}")]
    Truncated {
        /// Bytes that there are.
        len: u64,
        /// Bytes that its meta page speaks of.
        expected: u64,
    },
    /// A page contradicts itself or another one.
    #[error("damaged at page {page}: {what}")]
    Damaged {
        /// Number of the page.
        page: u64,
        /// What is wrong.
        what: String,
    },
    /// A pair or bucket to be written is not above the one before it.
    #[error("keys are not in order")]
    Unsorted,
    /// A key or value to be written is empty or longer than bbolt allows.
    #[error("a key or value is larger than bbolt allows")]
    TooLarge,
}

impl Error {
    fn damaged(page: u64, what: impl Into<String>) -> Error {
        Error::Damaged { page, what: what.into() }
    }
}

/// Result of reading or writing a file.
pub type Result<T> = std::result::Result<T, Error>;
