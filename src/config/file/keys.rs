//! Which key of the file stands for which flag. Mostly they are called the same; here is what differs. Pure tables.
//! Used by the reader of the file, and for the page of flags.

use super::super::alias::Target;
use super::super::draft::Draft;
use super::super::flags::{Effect, Flag};

/// A map in the file whose keys stand for flags.
pub(super) struct Section {
    pub name: &'static str,
    pub keys: &'static [(&'static str, Means)],
    pub maps: &'static [Section],
}

/// What a key of a map stands for.
#[derive(Clone, Copy)]
pub(super) enum Means {
    Flag(&'static str),
    /// A list for which there is no flag.
    Names(fn(&mut Draft, Vec<String>)),
    /// A switch for which there is no flag.
    Switch(fn(&mut Draft, bool)),
}

impl Means {
    fn is_flag(self, name: &str) -> bool {
        matches!(self, Means::Flag(flag) if flag == name)
    }
}

/// The whole file.
pub(super) const TOP: Section = Section {
    name: "",
    keys: &[],
    maps: &[
        Section {
            name: "client-transport-security",
            keys: &[
                ("cert-file", Means::Flag("cert-file")),
                ("key-file", Means::Flag("key-file")),
                ("client-cert-file", Means::Flag("client-cert-file")),
                ("client-key-file", Means::Flag("client-key-file")),
                ("client-cert-auth", Means::Flag("client-cert-auth")),
                ("trusted-ca-file", Means::Flag("trusted-ca-file")),
                ("auto-tls", Means::Flag("auto-tls")),
                ("allowed-cn", Means::Names(|d, v| d.tls.client.allowed_names = v)),
                ("allowed-hostname", Means::Flag("client-cert-allowed-hostname")),
                ("skip-client-san-verification", Means::Switch(|d, v| d.tls.client.skip_address_check = v)),
            ],
            maps: &[],
        },
        Section {
            name: "peer-transport-security",
            keys: &[
                ("cert-file", Means::Flag("peer-cert-file")),
                ("key-file", Means::Flag("peer-key-file")),
                ("client-cert-file", Means::Flag("peer-client-cert-file")),
                ("client-key-file", Means::Flag("peer-client-key-file")),
                ("client-cert-auth", Means::Flag("peer-client-cert-auth")),
                ("trusted-ca-file", Means::Flag("peer-trusted-ca-file")),
                ("auto-tls", Means::Flag("peer-auto-tls")),
                ("allowed-cn", Means::Flag("peer-cert-allowed-cn")),
                ("allowed-hostname", Means::Flag("peer-cert-allowed-hostname")),
                ("skip-client-san-verification", Means::Flag("peer-skip-client-san-verification")),
            ],
            maps: &[],
        },
        Section {
            name: "socket-options",
            keys: &[
                ("reuse-port", Means::Flag("socket-reuse-port")),
                ("reuse-address", Means::Flag("socket-reuse-address")),
            ],
            maps: &[],
        },
        Section {
            name: "discovery-config",
            keys: &[("token", Means::Flag("discovery-token"))],
            maps: &[Section {
                name: "client",
                keys: &[
                    ("endpoints", Means::Flag("discovery-endpoints")),
                    ("request-timeout", Means::Flag("discovery-request-timeout")),
                    ("dial-timeout", Means::Flag("discovery-dial-timeout")),
                    ("keepalive-time", Means::Flag("discovery-keepalive-time")),
                    ("keepalive-timeout", Means::Flag("discovery-keepalive-timeout")),
                ],
                maps: &[
                    Section {
                        name: "secure",
                        keys: &[
                            ("cert", Means::Flag("discovery-cert")),
                            ("key", Means::Flag("discovery-key")),
                            ("cacert", Means::Flag("discovery-cacert")),
                            ("insecure-transport", Means::Flag("discovery-insecure-transport")),
                            ("insecure-skip-tls-verify", Means::Flag("discovery-insecure-skip-tls-verify")),
                        ],
                        maps: &[],
                    },
                    Section {
                        name: "auth",
                        keys: &[
                            ("username", Means::Flag("discovery-user")),
                            ("password", Means::Flag("discovery-password")),
                        ],
                        maps: &[],
                    },
                ],
            }],
        },
    ],
};

/// Flags that only the command line knows, beside those that a map of the file stands for.
pub(super) const NOT_IN_FILES: [&str; 7] = [
    "config-file",
    "version",
    "raft-read-timeout",
    "raft-write-timeout",
    "discovery-fallback",
    "client-crl-file",
    "peer-crl-file",
];

/// Flags that are lists in the file.
pub(super) const LISTS: [&str; 6] = [
    "log-outputs",
    "cipher-suites",
    "client-cert-allowed-hostname",
    "peer-cert-allowed-cn",
    "peer-cert-allowed-hostname",
    "discovery-endpoints",
];

impl Section {
    /// Keys are matched as etcd does: as they are, or else without regard to case.
    pub fn map(&self, key: &str) -> Option<&'static Section> {
        self.maps.iter().find(|map| map.name.eq_ignore_ascii_case(key))
    }

    pub fn key(&self, key: &str) -> Option<Place> {
        if self.name.is_empty() {
            return top_level(&key.to_ascii_lowercase()).map(Place::Target);
        }
        let (_, means) = self.keys.iter().find(|(known, _)| known.eq_ignore_ascii_case(key))?;
        Some(match *means {
            Means::Flag(name) => Place::Target(Target::Flag(Flag::by_name(name)?)),
            Means::Names(to) => Place::Names(to),
            Means::Switch(to) => Place::Switch(to),
        })
    }

    /// Where the flag is below this map, as `map.key`.
    pub fn path_of(&self, flag: &str) -> Option<String> {
        if let Some((key, _)) = self.keys.iter().find(|(_, means)| means.is_flag(flag)) {
            return Some((*key).to_owned());
        }
        self.maps.iter().find_map(|map| Some(format!("{}.{}", map.name, map.path_of(flag)?)))
    }
}

/// Where a value goes.
pub(super) enum Place {
    Target(Target),
    Names(fn(&mut Draft, Vec<String>)),
    Switch(fn(&mut Draft, bool)),
}

pub(super) fn top_level(key: &str) -> Option<Target> {
    let target = Target::find(key)?;
    let settable = match target {
        Target::Flag(flag) | Target::Renamed(flag) => {
            flag.effect != Effect::Ignored
                && !NOT_IN_FILES.contains(&flag.name)
                && TOP.path_of(flag.name).is_none()
        }
        Target::Gate(_) => true,
    };
    settable.then_some(target)
}

/// The key of a flag, maps in front of it; nothing for a flag that only the command line knows.
pub fn key_of(flag: &Flag) -> Option<String> {
    TOP.path_of(flag.name).or_else(|| top_level(flag.name).map(|_| flag.name.to_owned()))
}
