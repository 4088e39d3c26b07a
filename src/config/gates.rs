//! Feature gates: etcd's switches for behaviour in trial, given as `--feature-gates=A=true,B=false`. All gates of the
//! release are known here, since an unknown one is an error; what a gate does is its reader's business. Pure.

use super::value::{self, ValueError};
use std::collections::BTreeMap;

/// How far a gate has come. `AllAlpha` and `AllBeta` open or close the gates of a stage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Closed by default.
    Alpha,
    /// Open by default.
    Beta,
}

/// A gate of the release.
pub struct Gate {
    /// Its name.
    pub name: &'static str,
    /// How far it has come.
    pub stage: Stage,
    /// What becomes of it here.
    pub meaning: &'static str,
}

/// Every gate of etcd 3.7.1.
pub const GATES: [Gate; 9] = [
    alpha(
        "CompactHashCheck",
        "The leader compares the digests that members have of what was compacted, every compact-hash-check-time",
    ),
    beta("FastLeaseKeepAlive", "No effect: a renewal never waits for what others wrote"),
    alpha(
        "InitialCorruptCheck",
        "A member with data reads all of it, and compares it with the others, before it serves clients",
    ),
    alpha("LeaseCheckpoint", "No effect: since when leases run is always recorded"),
    alpha(
        "LeaseCheckpointPersist",
        "No effect: what is recorded of leases is always kept; needs LeaseCheckpoint, as in etcd",
    ),
    alpha("PriorityRequest", "No effect: proposals are bounded where they enter"),
    alpha("SetMemberLocalAddr", "No effect: the system chooses the local address"),
    alpha("StopGRPCServiceOnDefrag", "Health checks say no during a defragmentation; requests are served"),
    beta(
        "TxnModeWriteWithSharedBuffer",
        "No effect: it chooses between two buffers of etcd's storage engine",
    ),
];

const fn alpha(name: &'static str, meaning: &'static str) -> Gate {
    Gate { name, stage: Stage::Alpha, meaning }
}

const fn beta(name: &'static str, meaning: &'static str) -> Gate {
    Gate { name, stage: Stage::Beta, meaning }
}

/// Gates that somebody asks about.
const EFFECTIVE: [&str; 3] = ["CompactHashCheck", "InitialCorruptCheck", "StopGRPCServiceOnDefrag"];

/// Which gates are open.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FeatureGates(BTreeMap<&'static str, bool>);

impl FeatureGates {
    /// Reads a comma-separated list of `Gate=bool`, on top of what was read before. `AllAlpha` and `AllBeta` mean the
    /// gates of their stage that nobody has named.
    pub fn add(&mut self, text: &str) -> Result<(), ValueError> {
        let (mut stages, mut named) = (Vec::new(), BTreeMap::new());
        for item in text.split(',').filter(|item| !item.is_empty()) {
            let (name, given) = item
                .split_once('=')
                .ok_or_else(|| ValueError(format!("missing bool value for {}", item.trim())))?;
            let (name, given) = (name.trim(), given.trim());
            let open = value::boolean(given).map_err(|_| {
                ValueError(format!(
                    "invalid value of {name}={given}, err: strconv.ParseBool: parsing {given:?}: invalid syntax"
                ))
            })?;
            if let Some(gate) = GATES.iter().find(|gate| gate.name == name) {
                named.insert(gate.name, open);
            } else if name == "AllAlpha" {
                stages.push((Stage::Alpha, open));
            } else if name == "AllBeta" {
                stages.push((Stage::Beta, open));
            } else {
                return Err(ValueError(format!("unrecognized feature gate: {name}")));
            }
        }
        self.0.extend(named);
        for (stage, open) in stages {
            for gate in GATES.iter().filter(|gate| gate.stage == stage) {
                self.0.entry(gate.name).or_insert(open);
            }
        }
        Ok(())
    }

    /// Whether the gate `name` was set.
    pub(super) fn names(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether the gate `name` is open.
    pub fn is_open(&self, name: &str) -> bool {
        let default = || GATES.iter().any(|gate| gate.name == name && gate.stage == Stage::Beta);
        self.0.get(name).copied().unwrap_or_else(default)
    }

    /// Name, stage and state of every gate, and of the two that stand for a stage.
    pub fn states(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> {
        let stages = [("AllAlpha", "ALPHA", false), ("AllBeta", "BETA", false)];
        let state = |gate: &Gate| {
            let stage = if gate.stage == Stage::Beta { "BETA" } else { "ALPHA" };
            (gate.name, stage, self.is_open(gate.name))
        };
        stages.into_iter().chain(GATES.iter().map(state))
    }

    /// Whether a gate was given a value other than its default that changes nothing.
    pub(super) fn any_without_effect(&self) -> bool {
        GATES.iter().any(|gate| {
            self.is_open(gate.name) != (gate.stage == Stage::Beta) && !EFFECTIVE.contains(&gate.name)
        })
    }

    /// What etcd demands between gates.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.is_open("LeaseCheckpointPersist") && !self.is_open("LeaseCheckpoint") {
            return Err(
                "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gates(texts: &[&str]) -> FeatureGates {
        let mut gates = FeatureGates::default();
        texts.iter().for_each(|text| gates.add(text).unwrap());
        gates
    }

    fn error(text: &str) -> String {
        FeatureGates::default().add(text).unwrap_err().0
    }

    #[test]
    fn gates_are_read_and_checked() {
        let some = gates(&["InitialCorruptCheck=true, FastLeaseKeepAlive=false"]);
        assert!(some.is_open("InitialCorruptCheck") && !some.is_open("FastLeaseKeepAlive"));
        assert!(FeatureGates::default().is_open("TxnModeWriteWithSharedBuffer"));
        assert!(!FeatureGates::default().is_open("NoSuchGate"));
        assert!(some.any_without_effect() && !FeatureGates::default().any_without_effect());
        assert!(!gates(&["InitialCorruptCheck=true"]).any_without_effect());
        assert_eq!(error("Foo=true"), "unrecognized feature gate: Foo");
        assert_eq!(error("CompactHashCheck"), "missing bool value for CompactHashCheck");
        assert_eq!(
            error("CompactHashCheck=foo"),
            "invalid value of CompactHashCheck=foo, err: strconv.ParseBool: parsing \"foo\": invalid syntax"
        );
        assert!(gates(&["LeaseCheckpointPersist=true"]).check().is_err());
        assert!(gates(&["LeaseCheckpointPersist=1,LeaseCheckpoint=1"]).check().is_ok());
    }

    #[test]
    fn a_stage_means_what_nobody_has_named() {
        for texts in [
            ["AllAlpha=true,PriorityRequest=false", ""],
            ["AllAlpha=true", "PriorityRequest=false"],
            ["PriorityRequest=false", "AllAlpha=true"],
        ] {
            let all = gates(&texts);
            assert!(all.is_open("LeaseCheckpoint") && !all.is_open("PriorityRequest"), "{texts:?}");
        }
        let none = gates(&["AllBeta=false"]);
        assert!(!none.is_open("FastLeaseKeepAlive") && !none.is_open("LeaseCheckpoint"));
    }
}
