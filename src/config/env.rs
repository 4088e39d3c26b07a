//! The environment: every flag has a variable (`--data-dir` is `ETCD_DATA_DIR`), used when the flag is not on the
//! command line. Both at once is an error, as in etcd: one of them is not what the operator believes. Pure, given
//! the variables. Called by `main` between the command line and the checks.

use super::args::Settings;
use super::flags::{Effect, Flag};
use super::{Error, Note};
use std::collections::BTreeMap;
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
        let settable = |flag: &&Flag| flag.name != "version" && flag.effect != Effect::Ignored;
        let mut known: BTreeMap<String, &'static Flag> =
            Flag::all().filter(settable).map(|flag| (flag.variable(), flag)).collect();
        for (variable, value) in variables {
            match known.remove(variable) {
                Some(flag) => self.fill_one(flag, variable, value, notes)?,
                None if variable == "ETCD_VERSION" => notes.push(Note::EnvironmentSpecial(variable.clone())),
                None => notes.push(Note::EnvironmentUnknown(variable.clone())),
            }
        }
        Ok(())
    }

    fn fill_one(
        &mut self,
        flag: &'static Flag,
        variable: &str,
        value: &OsString,
        notes: &mut Vec<Note>,
    ) -> Result<(), Error> {
        if self.given.contains_key(flag.name) {
            return Err(Error::Conflict(variable.to_owned()));
        }
        let bad = |value: String, reason: String| Error::Environment {
            variable: variable.to_owned(),
            value,
            reason,
        };
        let text = value
            .to_str()
            .ok_or_else(|| bad(value.to_string_lossy().into_owned(), "not UTF-8".to_owned()))?;
        self.set(flag, text).map_err(|e| bad(text.to_owned(), e.to_string()))?;
        notes.push(Note::EnvironmentUsed(variable.to_owned()));
        Ok(())
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
}
