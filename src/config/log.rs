//! How the server logs: level, format and outputs, as etcd's flags name them. Pure. Read by `logging`.

use std::path::PathBuf;

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
    /// Standard error; under systemd this is the journal.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file that is appended to.
    File(PathBuf),
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
}

impl Default for Log {
    fn default() -> Log {
        Log { level: Level::default(), format: Format::default(), outputs: vec![Output::Stderr] }
    }
}

impl Log {
    /// Reads the values of `--log-level`, `--log-format` and `--log-outputs`.
    pub(super) fn parse(level: &str, format: &str, outputs: &str) -> Result<Log, String> {
        let level = match level.to_ascii_lowercase().as_str() {
            "debug" => Level::Debug,
            "info" | "" => Level::Info,
            "warn" => Level::Warn,
            "error" => Level::Error,
            "dpanic" | "panic" | "fatal" => Level::Fatal,
            _ => {
                return Err(format!(
                    "unrecognized level: {level:?}, supported values debug, info, warn, error, dpanic, panic, fatal"
                ));
            }
        };
        let format = match format {
            "json" | "" => Format::Json,
            "console" => Format::Console,
            _ => return Err(format!("unknown log format: {format}, supported values json, console")),
        };
        let mut found: Vec<Output> = Vec::new();
        for name in outputs.split(',').map(str::trim) {
            let output = match name {
                "default" if outputs != "default" => {
                    return Err("multi logoutput for \"default\" is not supported".to_owned());
                }
                "" => return Err("an element of --log-outputs is empty".to_owned()),
                "default" | "stderr" | "systemd/journal" => Output::Stderr,
                "stdout" => Output::Stdout,
                path => Output::File(path.into()),
            };
            if !found.contains(&output) {
                found.push(output);
            }
        }
        Ok(Log { level, format, outputs: found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_etcd() {
        assert_eq!(Log::parse("info", "json", "default"), Ok(Log::default()));
        let log = Log::parse("panic", "console", "stderr, stdout,/var/log/kvist.log,stderr").unwrap();
        assert_eq!((log.level, log.format), (Level::Fatal, Format::Console));
        assert_eq!(log.outputs, [Output::Stderr, Output::Stdout, Output::File("/var/log/kvist.log".into())]);
        for (level, format, outputs) in [
            ("foo", "json", "stderr"),
            ("info", "foo", "stderr"),
            ("info", "json", ""),
            ("info", "json", "default,stderr"),
        ] {
            assert!(Log::parse(level, format, outputs).is_err(), "{level} {format} {outputs}");
        }
    }
}
