//! What `/proc` tells about a server's process: its memory, and the settings that decide how durable its writes are. Linux
//! only, like the rest of this benchmark. Servers that differ in durability are not compared: see [`Durability`].
//! Used by `server` and `main`.

use std::collections::BTreeMap;
use std::fs;

use crate::Result;

/// Settings that change what a server does before it acknowledges a write, or which disk that is done on. With a
/// configuration file anything may be set.
const SETTINGS: [&str; 5] =
    ["unsafe-no-fsync", "backend-batch-interval", "backend-batch-limit", "wal-dir", "config-file"];

/// The settings of durability that a process was given, by flag or by variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durability(BTreeMap<String, String>);

impl Durability {
    /// Reads them off a running process.
    ///
    /// # Errors
    /// It was told not to sync, in which case its figures would mean nothing; or it is gone.
    pub fn of(pid: u32) -> Result<Durability> {
        let read = |file| Result::Ok(fs::read_to_string(format!("/proc/{pid}/{file}"))?);
        let mut found = BTreeMap::new();
        for variable in read("environ")?.split('\0') {
            let Some((name, value)) = variable.strip_prefix("ETCD_").and_then(|v| v.split_once('=')) else {
                continue;
            };
            note(&mut found, &name.to_lowercase().replace('_', "-"), value);
        }
        let line = read("cmdline")?;
        let words: Vec<&str> = line.split('\0').collect();
        for (at, word) in words.iter().enumerate().filter(|(_, word)| word.starts_with('-')) {
            // `--name=value`, or the value is the next word.
            let next = words.get(at + 1).copied().unwrap_or_default();
            let (name, value) = word.split_once('=').unwrap_or((word, next));
            note(&mut found, name.trim_start_matches('-'), value);
        }
        if found.contains_key("unsafe-no-fsync") {
            return Err("the server runs with unsafe-no-fsync; refused".into());
        }
        Ok(Durability(found))
    }
}

impl std::fmt::Display for Durability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("its defaults");
        }
        let settings: Vec<String> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        f.write_str(&settings.join(" "))
    }
}

fn note(found: &mut BTreeMap<String, String>, name: &str, value: &str) {
    if SETTINGS.contains(&name) {
        found.insert(name.to_owned(), value.to_owned());
    }
}

/// Anonymous memory of a process now, in bytes.
///
/// # Errors
/// The process is gone.
pub fn anon_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("no RssAnon in status")?;
    let kib: u64 = line.split_ascii_whitespace().next().ok_or("RssAnon is empty")?.parse()?;
    Ok(kib * 1024)
}
