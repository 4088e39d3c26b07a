//! The command line, in the syntax of Go's `flag` package, which is not that of getopt or clap: `-f` and `--f` are
//! the same, a switch takes a value only behind `=`, the first word that is no flag ends the flags, and a flag may be
//! repeated, the last one winning. Pure. Called by `main`.

use super::Note;
use super::alias::Target;
use super::draft::Draft;
use super::flags::Flag;
use super::value::{self, ValueError};
use std::collections::BTreeMap;
use std::ffi::OsString;

/// What the command line asks for.
pub enum Command {
    /// Print the help.
    Help,
    /// Print the version.
    Version,
    /// Run a server.
    Serve(Box<Settings>),
}

/// A command line that cannot be read; the text is for standard error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsageError(pub String);

/// Where settings come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// The command line, perhaps with the environment.
    CommandLine,
    /// A file, and nothing else.
    File,
}

/// Flags as they were given, each with a value of its kind.
pub struct Settings {
    pub(super) draft: Draft,
    pub(super) origin: Origin,
    /// The text of every flag that was given. A gate that was set by its old name counts for itself.
    pub(super) given: BTreeMap<&'static str, String>,
    /// What the log should tell about how it was given.
    pub(super) notes: Vec<Note>,
    /// The first word that is no flag.
    pub(super) positional: Option<String>,
}

impl Default for Settings {
    fn default() -> Settings {
        let mut draft = Draft::default();
        for flag in Flag::all() {
            flag.set(&mut draft, flag.default).expect("a unit test reads every default of the table");
        }
        let (given, notes) = (BTreeMap::new(), Vec::new());
        Settings { draft, origin: Origin::CommandLine, given, notes, positional: None }
    }
}

impl Settings {
    pub(super) fn set(&mut self, target: Target, text: &str) -> Result<(), ValueError> {
        match target {
            Target::Flag(flag) | Target::Renamed(flag) => flag.set(&mut self.draft, text)?,
            Target::Gate(gate) => self.draft.gates.add(&format!("{gate}={}", value::boolean(text)?))?,
        }
        self.given.insert(target.key(), text.to_owned());
        Ok(())
    }
}

/// Reads the arguments behind the program's name.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut settings = Settings::default();
    let mut words = arguments.into_iter();
    while let Some(word) = words.next() {
        let word = utf8(word)?;
        if word == "--" {
            settings.positional = words.next().map(utf8).transpose()?;
            break;
        }
        let Some(body) = flag_body(&word) else {
            settings.positional = Some(word);
            break;
        };
        if body.is_empty() || body.starts_with(['-', '=']) {
            return Err(UsageError(format!("bad flag syntax: {word}")));
        }
        let (name, inline) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        let Some(target) = Target::find(name) else {
            if name == "help" || name == "h" {
                return Ok(Command::Help);
            }
            return Err(UsageError(format!("flag provided but not defined: -{name}{}", suggestion(name))));
        };
        let value = match inline {
            Some(value) => value,
            None if target.is_switch() => "true".to_owned(),
            None => match words.next() {
                Some(value) => utf8(value)?,
                None => return Err(UsageError(format!("flag needs an argument: -{name}"))),
            },
        };
        settings.set(target, &value).map_err(|e| bad_value(name, target, &value, &e))?;
        if let Some(new) = target.new_name() {
            settings.notes.push(Note::Renamed { old: name.to_owned(), new });
        }
    }
    if settings.draft.print_version && settings.positional.is_none() {
        return Ok(Command::Version);
    }
    Ok(Command::Serve(Box::new(settings)))
}

fn utf8(word: OsString) -> Result<String, UsageError> {
    word.into_string().map_err(|word| UsageError(format!("argument is not UTF-8: {word:?}")))
}

/// What stands behind the dashes; `None` if the word is no flag (a lone dash is not).
fn flag_body(word: &str) -> Option<&str> {
    let body = word.strip_prefix('-')?;
    if body.is_empty() { None } else { Some(body.strip_prefix('-').unwrap_or(body)) }
}

fn bad_value(name: &str, target: Target, value: &str, error: &ValueError) -> UsageError {
    UsageError(if target.is_switch() {
        format!("invalid boolean value {value:?} for -{name}: {error}")
    } else {
        format!("invalid value {value:?} for flag -{name}: {error}")
    })
}

/// A second sentence for a name that is nearly one of ours, or was one in an older etcd.
fn suggestion(name: &str) -> String {
    let name = name.strip_prefix("experimental-").unwrap_or(name);
    let nearest = Flag::all().map(|flag| (distance(name, flag.name), flag.name)).min();
    match nearest {
        Some((distance, known)) if distance <= 2 && name.len() > 3 => format!(" (did you mean -{known}?)"),
        _ => String::new(),
    }
}

/// Number of letters to insert, remove or change; at most 9 for names that are long or far apart.
fn distance(a: &str, b: &str) -> usize {
    const FAR: usize = 9;
    if a.len() > 64 || a.len().abs_diff(b.len()) > 2 {
        return FAR;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()].min(FAR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(words: &[&str]) -> Result<Command, UsageError> {
        parse(words.iter().map(OsString::from))
    }

    fn settings(words: &[&str]) -> Box<Settings> {
        match read(words) {
            Ok(Command::Serve(settings)) => settings,
            _ => panic!("{words:?} should be read"),
        }
    }

    fn error(words: &[&str]) -> String {
        read(words).err().unwrap_or_else(|| panic!("{words:?} should not be read")).0
    }

    #[test]
    fn both_spellings_and_the_last_one_wins() {
        for words in [["-name", "a"].as_slice(), &["--name", "a"], &["-name=a"], &["--name=b", "--name=a"]] {
            assert_eq!(settings(words).draft.name, "a", "{words:?}");
        }
        assert_eq!(settings(&["--name", "-x"]).draft.name, "-x");
        assert_eq!(settings(&["--name="]).draft.name, "");
        assert!(!settings(&["--pre-vote=false"]).draft.raft.pre_vote);
        assert_eq!(settings(&["--pre-vote", "true"]).positional.as_deref(), Some("true"));
        assert_eq!(settings(&["a", "--bogus"]).positional.as_deref(), Some("a"));
        assert_eq!(settings(&["-"]).positional.as_deref(), Some("-"));
        assert_eq!(settings(&["--", "--name"]).positional.as_deref(), Some("--name"));
        assert_eq!(settings(&["--snapshot", "--v=x", "--"]).positional, None);
    }

    #[test]
    fn messages_are_those_of_go() {
        for (words, message) in [
            (["--bogus"].as_slice(), "flag provided but not defined: -bogus"),
            (&["---x"], "bad flag syntax: ---x"),
            (&["--=x"], "bad flag syntax: --=x"),
            (&["--snapshot-count"], "flag needs an argument: -snapshot-count"),
            (&["--snapshot-count=-1"], "invalid value \"-1\" for flag -snapshot-count: parse error"),
            (&["--pre-vote=maybe"], "invalid boolean value \"maybe\" for -pre-vote: parse error"),
            (&["--nmae=x"], "flag provided but not defined: -nmae (did you mean -name?)"),
            (
                &["--experimental-watch-progress-notfy-interval=5s"],
                "flag provided but not defined: -experimental-watch-progress-notfy-interval \
                 (did you mean -watch-progress-notify-interval?)",
            ),
            (
                &["--experimental-initial-corrupt-check=maybe"],
                "invalid boolean value \"maybe\" for -experimental-initial-corrupt-check: parse error",
            ),
        ] {
            assert_eq!(error(words), message);
        }
        assert!(error(&["--initial-cluster-state=bad"]).contains("supported values new, existing"));
    }

    #[test]
    fn old_names_work_and_are_noted() {
        let settings = settings(&[
            "--experimental-initial-corrupt-check",
            "-experimental-watch-progress-notify-interval=5s",
            "--feature-gates=LeaseCheckpoint=true",
        ]);
        assert!(settings.draft.gates.is_open("InitialCorruptCheck"));
        assert!(settings.draft.gates.is_open("LeaseCheckpoint"));
        assert_eq!(settings.draft.watch_progress_interval.as_secs(), 5);
        let renamed = |old: &str, new: &str| Note::Renamed { old: old.into(), new: new.into() };
        assert_eq!(
            settings.notes,
            [
                renamed("experimental-initial-corrupt-check", "feature-gates=InitialCorruptCheck"),
                renamed("experimental-watch-progress-notify-interval", "watch-progress-notify-interval"),
            ]
        );
    }

    #[test]
    fn help_and_version_are_asked_for() {
        assert!(matches!(read(&["-h"]), Ok(Command::Help)));
        assert!(matches!(read(&["--name=a", "--help", "--bogus"]), Ok(Command::Help)));
        assert!(matches!(read(&["-version"]), Ok(Command::Version)));
        assert!(read(&["--version", "--bogus"]).is_err());
        assert!(matches!(read(&["--version", "x"]), Ok(Command::Serve(_))));
    }

    #[test]
    fn distances_are_those_of_levenshtein() {
        assert_eq!((distance("", ""), distance("ab", "ba"), distance("name", "nme")), (0, 2, 1));
        assert_eq!(distance("name", "data-dir"), 9);
    }

    proptest! {
        #[test]
        fn no_command_line_panics(words in prop::collection::vec(word(), 0..8)) {
            if let Ok(Command::Serve(settings)) = parse(words.iter().map(OsString::from)) {
                let _ = settings.verify();
            }
        }
    }

    /// Nonsense, and flags with nonsense for values. No host names, which would be looked up.
    fn word() -> impl Strategy<Value = String> {
        let flags: Vec<&str> = Flag::all().map(|flag| flag.name).collect();
        prop_oneof![
            ".{0,12}",
            (prop::sample::select(flags.clone()), "[-0-9a-f:/.,=]{0,12}")
                .prop_map(|(f, v)| format!("--{f}={v}")),
            prop::sample::select(flags).prop_map(|f| format!("-{f}")),
            prop::sample::select(vec![
                "http://127.0.0.1:1",
                "a=http://127.0.0.1:1",
                "-1",
                "5m",
                "true",
                "--"
            ])
            .prop_map(str::to_owned),
        ]
    }
}
