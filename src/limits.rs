//! What the operating system lets this process have. Raising a limit is the service manager's business. Called by
//! `server` at the start.

use nix::sys::mman::{MlockAllFlags, mlockall};
use std::io;

/// Descriptors that files, members and the rest of the process need; clients get what is left.
const RESERVED_DESCRIPTORS: u64 = 150;
/// Below this a busy server will refuse clients.
const ADVISED_DESCRIPTORS: u64 = 4096;

/// The process may not open enough files to serve anyone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "file descriptor limit of the process is too low; please set higher (limit {limit}, more than {RESERVED_DESCRIPTORS} are needed)"
)]
pub struct TooFewDescriptors {
    limit: u64,
}

/// How many clients may be connected at once, so that files never run out. Warns if that is few; without a bound where
/// the limit cannot be read.
pub fn clients_max() -> Result<usize, TooFewDescriptors> {
    let Some(limit) = descriptors_max() else { return Ok(usize::MAX) };
    if limit <= RESERVED_DESCRIPTORS {
        return Err(TooFewDescriptors { limit });
    }
    if limit < ADVISED_DESCRIPTORS {
        tracing::warn!(
            limit,
            "for-clients" = limit.saturating_sub(RESERVED_DESCRIPTORS),
            "the limit of open files is low; raise it (ulimit -n, LimitNOFILE)"
        );
    }
    Ok(usize::try_from(limit - RESERVED_DESCRIPTORS).unwrap_or(usize::MAX))
}

/// How many files the process may have open, if that can be known.
pub fn descriptors_max() -> Option<u64> {
    std::fs::read_to_string("/proc/self/limits").ok().as_deref().and_then(open_files)
}

/// How many it has open.
pub fn descriptors_used() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count())
}

/// Keeps every page in memory once it was touched. Pages of the database that nobody reads are not loaded for it.
pub fn lock_memory() -> io::Result<()> {
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    let flags = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault;
    mlockall(flags).map_err(|error| {
        io::Error::other(format!(
            "cannot lock memory: {error}; raise the limit (ulimit -l, LimitMEMLOCK=infinity)"
        ))
    })
}

/// The soft limit in a file of the form of `/proc/PID/limits`.
fn open_files(limits: &str) -> Option<u64> {
    let values = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match values.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_read() {
        let text = "Limit         Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files\n";
        assert_eq!(open_files(text), Some(1024));
        assert_eq!(open_files("Max open files   unlimited  unlimited  files"), Some(u64::MAX));
        assert_eq!(open_files(""), None);
        assert_eq!(open_files("Max open files"), None);
    }
}
