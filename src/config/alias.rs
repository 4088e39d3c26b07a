//! Names that flags had before etcd 3.7. Up to 3.6 many began with `experimental-`; 3.7 knows them no more, but
//! manifests written for older clusters still carry them. They work here, and the log tells the new name. Pure. Called
//! wherever a flag is looked up by name: command line, environment, file.

use super::flags::{Effect, Flag};

/// What the old names begin with.
pub const PREFIX: &str = "experimental-";

/// Switches that became feature gates, without the prefix, and the gates.
pub const GATES: [(&str, &str); 7] = [
    ("compact-hash-check-enabled", "CompactHashCheck"),
    ("enable-lease-checkpoint", "LeaseCheckpoint"),
    ("enable-lease-checkpoint-persist", "LeaseCheckpointPersist"),
    ("initial-corrupt-check", "InitialCorruptCheck"),
    ("set-member-localaddr", "SetMemberLocalAddr"),
    ("stop-grpc-service-on-defrag", "StopGRPCServiceOnDefrag"),
    ("txn-mode-write-with-shared-buffer", "TxnModeWriteWithSharedBuffer"),
];

/// What a name stands for.
#[derive(Clone, Copy)]
pub enum Target {
    /// The flag of this name.
    Flag(&'static Flag),
    /// A flag that is called otherwise today.
    Renamed(&'static Flag),
    /// A switch that is a feature gate today.
    Gate(&'static str),
}

impl Target {
    /// Finds what `name`, without dashes in front, stands for.
    pub fn find(name: &str) -> Option<Target> {
        if let Some(flag) = Flag::by_name(name) {
            return Some(Target::Flag(flag));
        }
        let rest = name.strip_prefix(PREFIX)?;
        if let Some((_, gate)) = GATES.iter().find(|(old, _)| *old == rest) {
            return Some(Target::Gate(gate));
        }
        let lived_on = |flag: &&Flag| flag.effect != Effect::Ignored && flag.name != "version";
        Flag::by_name(rest).filter(lived_on).map(Target::Renamed)
    }

    /// Finds what a variable sets.
    pub fn of_variable(variable: &str) -> Option<Target> {
        let name = variable.strip_prefix("ETCD_")?;
        if name.bytes().any(|b| b.is_ascii_lowercase() || b == b'-') {
            return None;
        }
        Target::find(&name.to_ascii_lowercase().replace('_', "-"))
    }

    /// Whether the flag may stand without a value, which then is never the next word.
    pub fn is_switch(&self) -> bool {
        match self {
            Target::Flag(flag) | Target::Renamed(flag) => flag.is_switch(),
            Target::Gate(_) => true,
        }
    }

    /// What it sets: two targets with one key are the same option.
    pub fn key(&self) -> &'static str {
        match self {
            Target::Flag(flag) | Target::Renamed(flag) => flag.name,
            Target::Gate(gate) => gate,
        }
    }

    /// The name that etcd 3.7 knows, if it is another one.
    pub fn new_name(&self) -> Option<String> {
        match self {
            Target::Flag(_) => None,
            Target::Renamed(flag) => Some(flag.name.to_owned()),
            Target::Gate(gate) => Some(format!("feature-gates={gate}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::gates::FeatureGates;
    use super::*;

    fn new_name(name: &str) -> Option<String> {
        Target::find(name).and_then(|target| target.new_name())
    }

    #[test]
    fn old_names_are_found() {
        assert_eq!(
            new_name("experimental-watch-progress-notify-interval").unwrap(),
            "watch-progress-notify-interval"
        );
        assert_eq!(
            new_name("experimental-initial-corrupt-check").unwrap(),
            "feature-gates=InitialCorruptCheck"
        );
        assert_eq!(new_name("watch-progress-notify-interval"), None);
        for unknown in
            ["experimental-", "experimental-enable-v2v3", "experimental-version", "experimental-v", "x"]
        {
            assert!(Target::find(unknown).is_none(), "{unknown}");
        }
        assert!(Target::find("experimental-initial-corrupt-check").unwrap().is_switch());
        assert!(!Target::find("experimental-max-learners").unwrap().is_switch());
    }

    #[test]
    fn variables_are_found_by_their_exact_form() {
        for flag in Flag::all() {
            assert!(
                matches!(Target::of_variable(&flag.variable()), Some(Target::Flag(found)) if found.name == flag.name)
            );
        }
        assert!(matches!(Target::of_variable("ETCD_EXPERIMENTAL_MAX_LEARNERS"), Some(Target::Renamed(_))));
        for unknown in ["ETCD_name", "ETCD_MAX-LEARNERS", "NAME", "ETCD_"] {
            assert!(Target::of_variable(unknown).is_none(), "{unknown}");
        }
    }

    #[test]
    fn every_gate_exists() {
        for (_, gate) in GATES {
            assert!(FeatureGates::default().add(&format!("{gate}=true")).is_ok(), "{gate}");
        }
    }
}
