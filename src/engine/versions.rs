//! The version that the cluster as a whole has, and a downgrade that has been announced. Pure.
//!
//! A cluster has the version of its oldest member, or of a downgrade's target. Clients and tools read it before they let an
//! older server take over; nothing that is stored depends on it. Stored by the applier, moved by [`super::tasks`].

use serde::{Deserialize, Serialize};
use std::fmt;

/// Major and minor version; a cluster does not know of patches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ClusterVersion {
    /// Major version.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
}

impl ClusterVersion {
    /// What this server answers as; the version of a cluster that has stored none.
    pub const CURRENT: ClusterVersion = ClusterVersion { major: 3, minor: 7 };

    /// Reads `X.Y` or `X.Y.Z`, the latter with a pre-release and metadata if it likes.
    pub fn parse(text: &str) -> Option<ClusterVersion> {
        let core = text.split_once('+').map_or(text, |(core, _)| core);
        let (core, pre_release) = core.split_once('-').map_or((core, None), |(core, pre)| (core, Some(pre)));
        let numbers: Vec<u32> = core.split('.').map(number).collect::<Option<_>>()?;
        match numbers[..] {
            [major, minor] if pre_release.is_none() && core == text => Some(ClusterVersion { major, minor }),
            [major, minor, _] => Some(ClusterVersion { major, minor }),
            _ => None,
        }
    }

    /// The only version to which one may go down from this one.
    pub fn below(self) -> Option<ClusterVersion> {
        Some(ClusterVersion { minor: self.minor.checked_sub(1)?, ..self })
    }

    /// `X.Y`, as answers to `Downgrade` have it.
    pub fn short(self) -> String {
        format!("{}.{}", self.major, self.minor)
    }
}

/// `X.Y.0`.
impl fmt::Display for ClusterVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.0", self.major, self.minor)
    }
}

fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Versions {
    /// Version of the cluster.
    pub cluster: ClusterVersion,
    /// Where an announced downgrade leads.
    pub downgrade: Option<ClusterVersion>,
}

impl Default for Versions {
    fn default() -> Versions {
        Versions { cluster: ClusterVersion::CURRENT, downgrade: None }
    }
}

impl Versions {
    /// The version that the cluster is to have next, if it is another one. All members are of this release.
    pub fn due(&self) -> Option<ClusterVersion> {
        let wanted = self.downgrade.unwrap_or(ClusterVersion::CURRENT);
        (wanted != self.cluster).then_some(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn x_10_versions_are_read_as_etcd_reads_them() {
        let v = |major, minor| Some(ClusterVersion { major, minor });
        for (text, version) in [
            ("3.6", v(3, 6)),
            ("3.6.0", v(3, 6)),
            ("3.6.14", v(3, 6)),
            ("3.6.0-rc.1", v(3, 6)),
            ("3.6.0+x", v(3, 6)),
            ("3", None),
            ("", None),
            ("3.6.0.1", None),
            ("3.6-rc.0", None),
            ("v3.6", None),
            ("3.-6", None),
            ("3.x", None),
            ("3.99999999999", None),
        ] {
            assert_eq!(ClusterVersion::parse(text), version, "{text}");
        }
    }

    #[test]
    fn a_cluster_follows_the_downgrade_and_comes_back() {
        let mut versions = Versions::default();
        assert_eq!(versions.due(), None);
        versions.downgrade = ClusterVersion::CURRENT.below();
        assert_eq!(versions.due(), versions.downgrade);
        versions.cluster = versions.due().unwrap();
        assert_eq!(versions.due(), None);
        versions.downgrade = None;
        assert_eq!(versions.due(), Some(ClusterVersion::CURRENT));
        assert_eq!(ClusterVersion { major: 4, minor: 0 }.below(), None);
    }

    proptest! {
        #[test]
        fn texts_round_trip(major: u32, minor: u32, foreign: String) {
            let version = ClusterVersion { major, minor };
            prop_assert_eq!(ClusterVersion::parse(&version.to_string()), Some(version));
            prop_assert_eq!(ClusterVersion::parse(&version.short()), Some(version));
            let _ = ClusterVersion::parse(&foreign);
        }
    }
}
