//! The flag table. One entry says how a flag is called, what it takes, what it is without being given, and what it
//! does; the command line, the environment names and `--help` are derived. To add a flag, add an entry.
//!
//! Names, kinds and defaults are those of etcd 3.7.1 (contract section 5.1), apart from the group "kvist". A flag
//! whose feature does not exist here is `Tuning` (accepted, and the log says that nothing came of it) or `RefusedAtBootstrap`
//! (ignoring it would weaken security or change what the server does).

mod member;
mod network;
mod other;

use super::draft::Draft;
use super::gates::FeatureGates;
use super::url::EndpointUrl;
use super::value::{self, ValueError};
use std::time::Duration;

/// All flags, by group, in the order of `--help`.
pub static FLAGS: &[Group] = &[
    Group { title: "Member", flags: member::MEMBER },
    Group { title: "Clustering", flags: member::CLUSTERING },
    Group { title: "Client connections", flags: network::CLIENTS },
    Group { title: "Security", flags: network::SECURITY },
    Group { title: "Logging and monitoring", flags: other::MONITORING },
    Group { title: "Features", flags: other::FEATURES },
    Group { title: "Unsafe", flags: other::UNSAFE },
    Group { title: "kvist", flags: other::OWN },
    Group { title: "Accepted and ignored, for old scripts", flags: other::IGNORED },
];

/// Flags that belong together.
pub struct Group {
    /// Heading in the help.
    pub title: &'static str,
    /// The entries.
    pub flags: &'static [Flag],
}

/// One entry of the table.
pub struct Flag {
    /// Name without dashes.
    pub name: &'static str,
    /// Value when not given, as it would be written.
    pub default: &'static str,
    /// What it takes, and where that goes.
    pub(super) kind: Kind,
    /// What becomes of it.
    pub effect: Effect,
    /// One sentence for the help.
    pub help: &'static str,
}

/// What becomes of a flag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Its value is part of the configuration.
    Applied,
    /// It could only tune, and there is nothing to tune.
    Tuning,
    /// The same, but only when there is no data yet.
    RefusedAtBootstrap(&'static str),
    /// etcd ignores it too.
    Ignored,
}

/// What a flag takes, and where its value goes.
pub(super) enum Kind {
    Text(fn(&mut Draft, String)),
    /// One of a few words.
    Choice(&'static [&'static str], fn(&mut Draft, String)),
    Bool(fn(&mut Draft, bool)),
    Int(fn(&mut Draft, i64)),
    Uint(fn(&mut Draft, u64)),
    Uint32(fn(&mut Draft, u32)),
    /// In Go's syntax.
    Duration(fn(&mut Draft, Duration)),
    /// In humantime's syntax, for flags that etcd does not have.
    HumanDuration(fn(&mut Draft, Duration)),
    Urls(fn(&mut Draft, Vec<EndpointUrl>)),
    /// URLs, or `*` for all.
    Origins(fn(&mut Draft, Vec<String>)),
    Gates(fn(&mut Draft) -> &mut FeatureGates),
    /// Anything or nothing.
    Any,
}

/// What a flag takes, as far as a file must know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    Bool,
    Int,
    Uint,
    /// Integer nanoseconds.
    Duration,
    Text,
    /// Comma-separated in one text, which may be empty to mean the default.
    Urls,
    List,
}

impl Shape {
    /// Name in messages, as Go calls the type.
    pub fn name(self) -> &'static str {
        match self {
            Shape::Bool => "bool",
            Shape::Int => "int64",
            Shape::Uint => "uint64",
            Shape::Duration => "time.Duration (integer nanoseconds)",
            Shape::Text | Shape::Urls => "string",
            Shape::List => "[]string",
        }
    }
}

impl Flag {
    /// Finds an entry.
    pub fn by_name(name: &str) -> Option<&'static Flag> {
        Flag::all().find(|flag| flag.name == name)
    }

    /// Every entry.
    pub fn all() -> impl Iterator<Item = &'static Flag> {
        FLAGS.iter().flat_map(|group| group.flags)
    }

    /// Name of the variable that sets the flag.
    pub fn variable(&self) -> String {
        format!("ETCD_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    /// Whether the flag may stand without a value, which then is never the next word.
    pub fn is_switch(&self) -> bool {
        matches!(self.kind, Kind::Bool(_) | Kind::Any)
    }

    /// What it takes in a file.
    pub(super) fn shape(&self) -> Shape {
        match self.kind {
            Kind::Bool(_) => Shape::Bool,
            Kind::Int(_) => Shape::Int,
            Kind::Uint(_) | Kind::Uint32(_) => Shape::Uint,
            Kind::Duration(_) => Shape::Duration,
            Kind::Text(_) | Kind::HumanDuration(_) | Kind::Any => Shape::Text,
            Kind::Choice(..) | Kind::Urls(_) | Kind::Origins(_) | Kind::Gates(_) => Shape::Urls,
        }
    }

    /// Whether `text` means the same as not giving the flag at all.
    pub(super) fn is_default(&self, text: &str) -> bool {
        let same_switch = || value::boolean(text).is_ok_and(|v| value::boolean(self.default) == Ok(v));
        text == self.default || text.is_empty() || (matches!(self.kind, Kind::Bool(_)) && same_switch())
    }

    /// Reads `text` into its place.
    pub(super) fn set(&self, draft: &mut Draft, text: &str) -> Result<(), ValueError> {
        match &self.kind {
            Kind::Text(to) => to(draft, text.to_owned()),
            Kind::Choice(words, to) => {
                if !words.contains(&text) {
                    return Err(ValueError(format!("invalid value, supported values {}", words.join(", "))));
                }
                to(draft, text.to_owned());
            }
            Kind::Bool(to) => to(draft, value::boolean(text)?),
            Kind::Int(to) => to(draft, value::integer(text)?),
            Kind::Uint(to) => to(draft, value::unsigned(text)?),
            Kind::Uint32(to) => to(draft, value::unsigned32(text)?),
            Kind::Duration(to) => to(draft, value::duration(text)?),
            Kind::HumanDuration(to) => to(draft, value::human_duration(text)?),
            Kind::Urls(to) => to(draft, EndpointUrl::parse_list(text)?),
            Kind::Origins(to) if text == "*" => to(draft, vec![text.to_owned()]),
            Kind::Origins(to) => {
                to(draft, EndpointUrl::parse_list(text)?.iter().map(ToString::to_string).collect());
            }
            Kind::Gates(of) => of(draft).add(text)?,
            Kind::Any => {}
        }
        Ok(())
    }
}

/// An entry whose value is part of the configuration.
const fn flag(name: &'static str, default: &'static str, kind: Kind, help: &'static str) -> Flag {
    Flag { name, default, kind, effect: Effect::Applied, help }
}

/// An entry that could only tune what does not exist here.
const fn tuning(name: &'static str, default: &'static str, kind: Kind, help: &'static str) -> Flag {
    Flag { name, default, kind, effect: Effect::Tuning, help }
}

/// An entry that must not be ignored when the cluster starts.
const fn refused_at_bootstrap(
    name: &'static str,
    default: &'static str,
    kind: Kind,
    why: &'static str,
    help: &'static str,
) -> Flag {
    Flag { name, default, kind, effect: Effect::RefusedAtBootstrap(why), help }
}

/// The place of values that are only checked.
fn nowhere<T>(_: &mut Draft, _: T) {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_defaults_are_values() {
        let mut names = BTreeSet::new();
        for flag in Flag::all() {
            assert!(names.insert(flag.name), "{} stands twice", flag.name);
            assert!(!flag.help.is_empty() && flag.help.ends_with('.'), "help of {}", flag.name);
            assert_eq!(flag.set(&mut Draft::default(), flag.default), Ok(()), "{}", flag.name);
            assert!(flag.is_default(flag.default));
        }
        assert!(names.len() > 100);
    }

    #[test]
    fn variables_follow_names() {
        assert_eq!(Flag::by_name("listen-client-urls").unwrap().variable(), "ETCD_LISTEN_CLIENT_URLS");
        assert!(Flag::by_name("listen-client-url").is_none());
    }

    #[test]
    fn switches_compare_by_meaning() {
        let flag = Flag::by_name("client-cert-auth").unwrap();
        assert!(flag.is_default("F") && flag.is_default("0") && !flag.is_default("T"));
    }
}
