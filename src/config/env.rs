//! The environment: every flag has a variable (`--data-dir` is `ETCD_DATA_DIR`), used when the flag is not on the
//! command line. Both at once is an error, as in etcd: one of them is not what the operator believes. Pure, given
//! the variables. Called by `main` between the command line and the checks.

use super::alias::Target;
use super::args::Settings;
use super::flags::Effect;
use super::{Error, Note};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

const PREFIX: &str = "ETCD_";

impl Settings {
    /// Fills flags from variables. Notes are returned even if something is wrong, to be logged before the error.
    pub fn add_environment(
        &mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> (Vec<Note>, Result<(), Error>) {
        let mut notes = Vec::new();
        let result = self.fill(&ours(variables), &mut notes);
        (notes, result)
    }

    fn fill(&mut self, variables: &BTreeMap<String, OsString>, notes: &mut Vec<Note>) -> Result<(), Error> {
        let on_command_line: BTreeSet<&'static str> = self.given.keys().copied().collect();
        // Old names first: whoever sets the new one as well means that.
        let (new, old): (Vec<_>, Vec<_>) = variables
            .iter()
            .map(|(variable, value)| (variable, value, Target::of_variable(variable)))
            .partition(|(_, _, target)| matches!(target, None | Some(Target::Flag(_))));
        for (variable, value, target) in old.into_iter().chain(new) {
            match target.filter(settable) {
                Some(target) => {
                    if on_command_line.contains(target.key()) || self.contradicts(target) {
                        return Err(Error::Conflict(variable.to_owned()));
                    }
                    self.fill_one(target, variable, value, notes)?;
                }
                None if variable == "ETCD_VERSION" => notes.push(Note::EnvironmentSpecial(variable.clone())),
                None if variable == super::arch::VARIABLE => {}
                None => notes.push(Note::EnvironmentUnknown(variable.clone())),
            }
        }
        Ok(())
    }

    /// Whether a gate under its old name meets the same gate in `--feature-gates`.
    fn contradicts(&self, target: Target) -> bool {
        matches!(target, Target::Gate(gate) if self.given.contains_key("feature-gates") && self.draft.gates.names(gate))
    }

    fn fill_one(
        &mut self,
        target: Target,
        variable: &str,
        value: &OsString,
        notes: &mut Vec<Note>,
    ) -> Result<(), Error> {
        let bad = |value: String, reason: String| Error::Environment {
            variable: variable.to_owned(),
            value,
            reason,
        };
        let text = value
            .to_str()
            .ok_or_else(|| bad(value.to_string_lossy().into_owned(), "not UTF-8".to_owned()))?;
        self.set(target, text).map_err(|e| bad(text.to_owned(), e.to_string()))?;
        notes.push(Note::EnvironmentUsed(variable.to_owned()));
        if let Some(new) = target.new_name() {
            notes.push(Note::Renamed { old: variable.to_owned(), new });
        }
        Ok(())
    }
}

fn settable(target: &Target) -> bool {
    match target {
        Target::Flag(flag) | Target::Renamed(flag) => {
            flag.name != "version" && flag.effect != Effect::Ignored
        }
        Target::Gate(_) => true,
    }
}

/// The variables that could be meant for us. An empty one counts as not set.
fn ours(variables: impl IntoIterator<Item = (OsString, OsString)>) -> BTreeMap<String, OsString> {
    variables
        .into_iter()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::args::{Command, parse};
    use super::*;

    fn with(words: &[&str], variables: &[(&str, &str)]) -> (Box<Settings>, Vec<Note>, Result<(), Error>) {
        let Ok(Command::Serve(mut settings)) = parse(words.iter().map(OsString::from)) else {
            panic!("{words:?} should be read");
        };
        let (notes, result) = settings.add_environment(variables.iter().map(|(n, v)| (n.into(), v.into())));
        (settings, notes, result)
    }

    #[test]
    fn a_variable_sets_its_flag() {
        let (settings, notes, result) =
            with(&[], &[("ETCD_NAME", "a"), ("ETCD_DATA_DIR", ""), ("ETCDCTL_API", "3"), ("HOME", "/")]);
        assert_eq!((settings.draft.name.as_str(), result), ("a", Ok(())));
        assert_eq!(notes, [Note::EnvironmentUsed("ETCD_NAME".into())]);
    }

    #[test]
    fn unknown_and_special_variables_are_noted() {
        let (settings, notes, result) =
            with(&[], &[("ETCD_FOO", "1"), ("ETCD_VERSION", "true"), ("ETCD_V", "1")]);
        assert!(!settings.draft.print_version);
        assert_eq!(result, Ok(()));
        let unknown = |name: &str| Note::EnvironmentUnknown(name.into());
        assert_eq!(
            notes,
            [unknown("ETCD_FOO"), unknown("ETCD_V"), Note::EnvironmentSpecial("ETCD_VERSION".into())]
        );
    }

    #[test]
    fn a_conflict_or_a_bad_value_ends_the_start() {
        let (_, _, result) = with(&["--name=b"], &[("ETCD_NAME", "a")]);
        assert_eq!(result, Err(Error::Conflict("ETCD_NAME".into())));
        let (_, _, result) = with(&[], &[("ETCD_SNAPSHOT_COUNT", "zz")]);
        assert_eq!(
            result.unwrap_err().to_string(),
            "invalid value \"zz\" for ETCD_SNAPSHOT_COUNT: parse error"
        );
    }

    #[test]
    fn old_variables_work_unless_they_contradict() {
        let (old, new) = ("ETCD_EXPERIMENTAL_COMPACTION_BATCH_LIMIT", "ETCD_COMPACTION_BATCH_LIMIT");
        let (settings, notes, result) = with(&[], &[(old, "5")]);
        assert_eq!((settings.draft.compaction.batch_limit, result), (5, Ok(())));
        assert!(notes.contains(&Note::Renamed { old: old.into(), new: "compaction-batch-limit".into() }));
        let (settings, _, result) = with(&[], &[(new, "6"), (old, "5")]);
        assert_eq!((settings.draft.compaction.batch_limit, result), (6, Ok(())));
        for flag in ["--compaction-batch-limit=7", "--experimental-compaction-batch-limit=7"] {
            for variable in [old, new] {
                let (_, _, result) = with(&[flag], &[(variable, "5")]);
                assert_eq!(result, Err(Error::Conflict(variable.into())), "{flag} {variable}");
            }
        }
        let gate = "ETCD_EXPERIMENTAL_INITIAL_CORRUPT_CHECK";
        let (settings, _, result) = with(&["--feature-gates=LeaseCheckpoint=true"], &[(gate, "true")]);
        assert!(settings.draft.gates.is_open("InitialCorruptCheck") && result.is_ok());
        let (_, _, result) = with(&["--feature-gates=InitialCorruptCheck=false"], &[(gate, "true")]);
        assert_eq!(result, Err(Error::Conflict(gate.into())));
    }
}
