//! Feature gates: etcd's switches for behaviour in trial, given as `--feature-gates=A=true,B=false`. All gates of the
//! release are known here, since an unknown one is an error; what a gate does is its reader's business. Pure.

use super::value::{self, ValueError};
use std::collections::BTreeMap;

/// Name and default of every gate.
const GATES: [(&str, bool); 9] = [
    ("CompactHashCheck", false),
    ("FastLeaseKeepAlive", true),
    ("InitialCorruptCheck", false),
    ("LeaseCheckpoint", false),
    ("LeaseCheckpointPersist", false),
    ("PriorityRequest", false),
    ("SetMemberLocalAddr", false),
    ("StopGRPCServiceOnDefrag", false),
    ("TxnModeWriteWithSharedBuffer", true),
];

/// Gates that somebody asks about.
const EFFECTIVE: [&str; 2] = ["InitialCorruptCheck", "StopGRPCServiceOnDefrag"];

/// Which gates are open.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FeatureGates(BTreeMap<&'static str, bool>);

impl FeatureGates {
    /// Reads a comma-separated list of `Gate=bool`. `AllAlpha` and `AllBeta` set the default of their stage.
    pub fn parse(text: &str) -> Result<FeatureGates, ValueError> {
        let (mut stages, mut gates) = (BTreeMap::new(), BTreeMap::new());
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (name, given) =
                item.split_once('=').ok_or_else(|| ValueError(format!("missing bool value for {item}")))?;
            let (name, given) = (name.trim(), given.trim());
            let open = value::boolean(given)
                .map_err(|_| ValueError(format!("invalid value of {name}={given}: parse error")))?;
            if let Some((known, _)) = GATES.iter().find(|(known, _)| *known == name) {
                gates.insert(*known, open);
            } else if name == "AllAlpha" || name == "AllBeta" {
                stages.insert(name == "AllBeta", open);
            } else {
                return Err(ValueError(format!("unrecognized feature gate: {name}")));
            }
        }
        // Alpha gates are those closed by default, beta gates those open by default.
        for (name, default) in GATES {
            if let Some(open) = stages.get(&default) {
                gates.entry(name).or_insert(*open);
            }
        }
        Ok(FeatureGates(gates))
    }

    /// Whether the gate `name` is open.
    pub fn is_open(&self, name: &str) -> bool {
        let default = || GATES.iter().any(|(known, open)| *known == name && *open);
        self.0.get(name).copied().unwrap_or_else(default)
    }

    /// Name, stage and state of every gate, and of the two that stand for a stage.
    pub fn states(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> {
        let stages = [("AllAlpha", "ALPHA", false), ("AllBeta", "BETA", false)];
        let stage = |default: bool| if default { "BETA" } else { "ALPHA" };
        stages.into_iter().chain(GATES.map(|(name, default)| (name, stage(default), self.is_open(name))))
    }

    /// Whether a gate was given a value other than its default that changes nothing.
    pub(super) fn any_without_effect(&self) -> bool {
        GATES.iter().any(|(name, open)| self.is_open(name) != *open && !EFFECTIVE.contains(name))
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

    fn error(text: &str) -> String {
        FeatureGates::parse(text).unwrap_err().0
    }

    #[test]
    fn gates_are_read_and_checked() {
        let gates = FeatureGates::parse("InitialCorruptCheck=true, FastLeaseKeepAlive=false").unwrap();
        assert!(gates.is_open("InitialCorruptCheck") && !gates.is_open("FastLeaseKeepAlive"));
        assert!(FeatureGates::default().is_open("TxnModeWriteWithSharedBuffer"));
        assert!(!FeatureGates::default().is_open("NoSuchGate"));
        assert!(gates.any_without_effect() && !FeatureGates::default().any_without_effect());
        assert!(!FeatureGates::parse("InitialCorruptCheck=true").unwrap().any_without_effect());
        let all = FeatureGates::parse("AllAlpha=true,PriorityRequest=false").unwrap();
        assert!(all.is_open("LeaseCheckpoint") && !all.is_open("PriorityRequest"));
        assert_eq!(error("Foo=true"), "unrecognized feature gate: Foo");
        assert_eq!(error("CompactHashCheck"), "missing bool value for CompactHashCheck");
        assert_eq!(error("CompactHashCheck=foo"), "invalid value of CompactHashCheck=foo: parse error");
        assert!(FeatureGates::parse("LeaseCheckpointPersist=true").unwrap().check().is_err());
        assert!(FeatureGates::parse("LeaseCheckpointPersist=1,LeaseCheckpoint=1").unwrap().check().is_ok());
    }
}
