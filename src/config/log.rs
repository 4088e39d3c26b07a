//! How the server logs: level, format, outputs and rotation, as etcd's flags name them. Pure, but for looking whether
//! there is a journal. Read by `logging`.

use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where systemd's journal listens.
const JOURNAL: &str = "/run/systemd/journal/socket";
const MEBIBYTE: u64 = 1 << 20;
/// Size of a log file when none, or zero, is given.
const FILE_MEBIBYTES_DEFAULT: u64 = 100;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Least severe line that is written. The last three differ from `Error` only in being rarer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Level {
    /// Everything.
    Debug,
    /// What an operator wants to read.
    #[default]
    Info,
    /// What may need action.
    Warn,
    /// What failed.
    Error,
    /// What ends the process: etcd's dpanic, panic and fatal.
    Fatal,
}

/// Shape of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// One JSON object.
    #[default]
    Json,
    /// Columns for people.
    Console,
}

/// Where lines go.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Output {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// systemd's journal, which learns the severity of each line.
    Journal(PathBuf),
    /// A file that is appended to.
    File(PathBuf),
}

/// When a log file is full, and which old ones go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rotation {
    /// A line that would make the file longer than this begins a new one.
    pub bytes_max: u64,
    /// Old files are removed when they are older.
    pub age_max: Option<Duration>,
    /// Old files beyond this number are removed, the oldest first.
    pub backups_max: Option<usize>,
    /// Whether old files are compressed.
    pub compress: bool,
}

/// How the server logs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    /// Least severe line that is written.
    pub level: Level,
    /// Shape of a line.
    pub format: Format,
    /// Where lines go; at least one place, none twice.
    pub outputs: Vec<Output>,
    /// Whether files are rotated; there is one file then, at most.
    pub rotation: Option<Rotation>,
}

impl Default for Log {
    fn default() -> Log {
        Log {
            level: Level::default(),
            format: Format::default(),
            outputs: vec![Output::Stderr],
            rotation: None,
        }
    }
}

/// The values of the flags about the log, as they were given.
#[derive(Default)]
pub(super) struct Draft {
    pub logger: String,
    pub level: String,
    pub format: String,
    pub outputs: String,
    pub rotate: bool,
    pub rotation: String,
}

impl Draft {
    /// Checks the values in etcd's order, with etcd's words.
    pub fn verify(&self) -> Result<Log, String> {
        match self.logger.as_str() {
            "zap" => {}
            "capnslog" => return Err("--logger=capnslog is removed in v3.5".into()),
            other => return Err(format!("unknown logger option {other:?}")),
        }
        let names: Vec<&str> = self.outputs.split(',').map(str::trim).collect();
        if names.len() > 1 && names.contains(&"default") {
            return Err("multi logoutput for \"default\" is not supported yet".into());
        }
        let rotation = if self.rotate { Some(rotation(&names, &self.rotation)?) } else { None };
        let outputs = outputs(&names)?;
        Ok(Log { level: level(&self.level)?, format: format(&self.format)?, outputs, rotation })
    }
}

fn level(text: &str) -> Result<Level, String> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "debug" => Level::Debug,
        "info" | "" => Level::Info,
        "warn" => Level::Warn,
        "error" => Level::Error,
        "dpanic" | "panic" | "fatal" => Level::Fatal,
        _ => {
            return Err(format!(
                "unrecognized level: {text:?}, supported values debug, info, warn, error, dpanic, panic, fatal"
            ));
        }
    })
}

fn format(text: &str) -> Result<Format, String> {
    match text {
        "json" | "" => Ok(Format::Json),
        "console" => Ok(Format::Console),
        _ => Err(format!("unknown log format: {text}, supported values json, console")),
    }
}

fn outputs(names: &[&str]) -> Result<Vec<Output>, String> {
    let mut found: Vec<Output> = Vec::new();
    for name in names {
        let output = match *name {
            "" => return Err("open sink \"\": open : no such file or directory".into()),
            "default" | "stderr" => Output::Stderr,
            "stdout" => Output::Stdout,
            "systemd/journal" => journal(names)?,
            path => Output::File(path.into()),
        };
        if !found.contains(&output) {
            found.push(output);
        }
    }
    Ok(found)
}

fn journal(names: &[&str]) -> Result<Output, String> {
    if names.len() > 1 {
        return Err(format!(
            "running with systemd/journal but other '--log-outputs' values ({names:?}) are configured with 'default'; \
             override 'default' value with something else"
        ));
    }
    if !Path::new(JOURNAL).exists() {
        return Err(format!("can't find journal (dial unixgram {JOURNAL}: no such file or directory)"));
    }
    Ok(Output::Journal(JOURNAL.into()))
}

fn rotation(names: &[&str], json: &str) -> Result<Rotation, String> {
    let is_file = |name: &&&str| !["default", "stderr", "stdout", ""].contains(*name);
    let files = names.iter().filter(is_file).count();
    if files > 1 || (files == 0 && names.len() == 1) {
        return Err(
            "--log-outputs requires a single file path when --log-rotate-config-json is defined".into()
        );
    }
    // Times in names are always UTC, whatever `localtime` says.
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Fields {
        maxsize: i64,
        maxage: i64,
        maxbackups: i64,
        compress: bool,
    }
    let fields: Fields = serde_json::from_str(json).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => format!("invalid log rotation config: {error}"),
        _ => format!("improperly formatted log rotation config: {error}"),
    })?;
    let positive = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
    Ok(Rotation {
        compress: fields.compress,
        bytes_max: positive(fields.maxsize).unwrap_or(FILE_MEBIBYTES_DEFAULT).saturating_mul(MEBIBYTE),
        age_max: positive(fields.maxage)
            .map(|days| DAY.saturating_mul(u32::try_from(days).unwrap_or(u32::MAX))),
        backups_max: positive(fields.maxbackups).map(|count| usize::try_from(count).unwrap_or(usize::MAX)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(level: &str, format: &str, outputs: &str) -> Draft {
        let [logger, level, format, outputs] = ["zap", level, format, outputs].map(str::to_owned);
        Draft { logger, level, format, outputs, rotate: false, rotation: String::new() }
    }

    fn rotated(outputs: &str, json: &str) -> Result<Rotation, String> {
        let draft = Draft { rotate: true, rotation: json.into(), ..draft("info", "json", outputs) };
        draft.verify().map(|log| log.rotation.expect("it was asked for"))
    }

    #[test]
    fn names_are_those_of_etcd() {
        assert_eq!(draft("info", "json", "default").verify(), Ok(Log::default()));
        let log = draft("panic", "console", "stderr, stdout,/var/log/kvist.log,stderr").verify().unwrap();
        assert_eq!((log.level, log.format), (Level::Fatal, Format::Console));
        assert_eq!(log.outputs, [Output::Stderr, Output::Stdout, Output::File("/var/log/kvist.log".into())]);
        for (level, format, outputs) in [
            ("foo", "json", "stderr"),
            ("info", "foo", "stderr"),
            ("info", "json", ""),
            ("info", "json", "stderr,"),
            ("info", "json", "default,stderr"),
            ("info", "json", "systemd/journal,stderr"),
        ] {
            assert!(draft(level, format, outputs).verify().is_err(), "{level} {format} {outputs}");
        }
    }

    #[test]
    fn rotation_needs_one_file_and_readable_rules() {
        let one_file = "--log-outputs requires a single file path when --log-rotate-config-json is defined";
        for outputs in ["default", "stderr", "a,b"] {
            assert_eq!(rotated(outputs, "{}"), Err(one_file.into()), "{outputs}");
        }
        let rotation =
            rotated("stderr,a", r#"{"maxsize": 2, "maxage": 3, "maxbackups": 4, "compress": true}"#).unwrap();
        assert_eq!((rotation.bytes_max, rotation.backups_max), (2 << 20, Some(4)));
        assert_eq!((rotation.age_max, rotation.compress), (Some(3 * DAY), true));
        let none = Rotation { bytes_max: 100 << 20, age_max: None, backups_max: None, compress: false };
        assert_eq!(rotated("a", r#"{"maxsize": 0, "maxage": -1}"#), Ok(none));
        assert_eq!(rotated("a", "{}"), Ok(none));
        for (json, message) in [
            ("{x", "improperly formatted log rotation config"),
            (r#"{"maxsize": "x"}"#, "invalid log rotation config"),
        ] {
            let error = rotated("a", json).unwrap_err();
            assert!(error.starts_with(message) || error.contains(message), "{json}: {error}");
        }
    }
}
