//! What the operating system lets this process have. Only looked at and warned about: raising a limit is the service
//! manager's business. Called by `server` at the start.

/// Descriptors that files, members and the rest of the process need; clients get what is left.
const RESERVED_DESCRIPTORS: u64 = 150;
/// Below this a busy server will refuse clients.
const ADVISED_DESCRIPTORS: u64 = 4096;

/// Warns if the process may open few files; silent where the limit cannot be read.
pub fn warn_about_descriptors() {
    let Some(limit) = descriptors_max() else { return };
    if limit < ADVISED_DESCRIPTORS {
        tracing::warn!(
            limit,
            "for-clients" = limit.saturating_sub(RESERVED_DESCRIPTORS),
            "the limit of open files is low; raise it (ulimit -n, LimitNOFILE)"
        );
    }
}

/// How many files the process may have open, if that can be known.
pub fn descriptors_max() -> Option<u64> {
    std::fs::read_to_string("/proc/self/limits").ok().as_deref().and_then(open_files)
}

/// How many it has open.
pub fn descriptors_used() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count())
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
