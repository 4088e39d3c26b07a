//! Requests by the version of the API that clients name in their metadata (contract G-2).
//!
//! The name is the client's to choose, and each is a series: after `VERSIONS_MAX` of them the rest count as one.

use super::METRICS;
use parking_lot::RwLock;
use prometheus::IntCounter;
use std::collections::HashMap;
use std::sync::LazyLock;

/// Versions that are counted apart, and bytes of each.
const VERSIONS_MAX: usize = 32;
const VERSION_BYTES_MAX: usize = 32;

/// What clients are called that name no version.
const UNKNOWN: &str = "unknown";
/// What stands for further versions.
const OTHER: &str = "other";

/// Unary requests and streams of one version.
type Counters = [IntCounter; 2];

static VERSIONS: LazyLock<RwLock<HashMap<String, Counters>>> = LazyLock::new(RwLock::default);

/// Counts a request of a client that names `version`, or none.
pub fn count(is_unary: bool, version: Option<&str>) {
    let version = version.unwrap_or(UNKNOWN);
    let kind = usize::from(!is_unary);
    if let Some(counters) = VERSIONS.read().get(version) {
        counters[kind].inc();
        return;
    }
    let mut versions = VERSIONS.write();
    let has_room = versions.len() < VERSIONS_MAX && version.len() <= VERSION_BYTES_MAX;
    let version = if has_room { version } else { OTHER };
    let new =
        || ["unary", "stream"].map(|kind| METRICS.server.client_requests.with_label_values(&[kind, version]));
    versions.entry(version.to_owned()).or_insert_with(new)[kind].inc();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_cannot_make_series_without_end() {
        for n in 0..10 * VERSIONS_MAX {
            count(n % 2 == 0, Some(&format!("test-{n}")));
        }
        count(true, Some(&"long".repeat(VERSION_BYTES_MAX)));
        assert!(VERSIONS.read().len() <= VERSIONS_MAX + 1);
        let counted = &VERSIONS.read()[OTHER];
        assert!(counted[0].get() > VERSIONS_MAX as u64);
    }
}
