//! A log file that is put aside when it is full, under the name that etcd's log library gives: `a.log` becomes
//! `a-2026-01-31T10-11-12.345.log`, in UTC. Files that are too old or too many are removed at the same time, and the rest
//! is compressed, if asked for, by a thread that ends when it has done so. A step that fails leaves a file that is too
//! long, and the server running. Used by `sink`.

use crate::config::log::Rotation;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// Length of the time in the name of an old file.
const STAMP_LEN: usize = "2026-01-31T10-11-12.345".len();
/// Old files that are looked at, at most; far more than a disk has room for.
const BACKUPS_SEEN_MAX: usize = 10_000;

/// What the name of a compressed file ends with.
const COMPRESSED: &str = ".gz";

/// A file that rotates.
#[derive(Debug)]
pub(super) struct Rotating {
    path: PathBuf,
    rules: Rotation,
    file: File,
    bytes: u64,
    /// Whether the thread that compresses is at work.
    compressing: Arc<AtomicBool>,
}

impl Rotating {
    /// Opens the file at `path`, to be appended to.
    pub fn open(path: &Path, rules: Rotation) -> io::Result<Rotating> {
        let (file, bytes) = append(path)?;
        let compressing = Arc::default();
        let opened = Rotating { path: path.to_owned(), rules, file, bytes, compressing };
        opened.tidy(SystemTime::now());
        Ok(opened)
    }

    /// Appends a line, to a new file if this one is full.
    pub fn write_line(&mut self, line: &[u8], now: SystemTime) -> io::Result<()> {
        let length = line.len() as u64;
        if self.bytes > 0 && self.bytes.saturating_add(length) > self.rules.bytes_max {
            let put_aside = self.put_aside(now);
            if put_aside.is_err() {
                // The next attempt comes when as much again was written.
                self.bytes = 0;
            }
        }
        self.bytes = self.bytes.saturating_add(length);
        self.file.write_all(line)
    }

    fn put_aside(&mut self, now: SystemTime) -> io::Result<()> {
        std::fs::rename(&self.path, self.backup_path(now))?;
        (self.file, self.bytes) = append(&self.path)?;
        self.tidy(now);
        Ok(())
    }

    fn tidy(&self, now: SystemTime) {
        self.remove_old(now);
        // What is put aside while the thread is at work waits for the next time.
        if !self.rules.compress || self.compressing.swap(true, Ordering::AcqRel) {
            return;
        }
        let plain: Vec<PathBuf> =
            self.backups().into_iter().map(|(_, path)| path).filter(|path| !is_compressed(path)).collect();
        let compressing = Arc::clone(&self.compressing);
        let compress_all = move || {
            for path in plain {
                let _ = compress(&path);
            }
            compressing.store(false, Ordering::Release);
        };
        if std::thread::Builder::new().name("log-compress".into()).spawn(compress_all).is_err() {
            self.compressing.store(false, Ordering::Release);
        }
    }

    /// Name before and after the time in the name of an old file.
    fn name_parts(&self) -> (String, String) {
        let part = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let extension = part(self.path.extension());
        let extension = if extension.is_empty() { extension } else { format!(".{extension}") };
        (format!("{}-", part(self.path.file_stem())), extension)
    }

    fn backup_path(&self, now: SystemTime) -> PathBuf {
        let (prefix, extension) = self.name_parts();
        self.path.with_file_name(format!("{prefix}{}{extension}", stamp(now)))
    }

    /// Removes what the rules say. Names sort by time.
    fn remove_old(&self, now: SystemTime) {
        let Rotation { age_max, backups_max, .. } = self.rules;
        if age_max.is_none() && backups_max.is_none() {
            return;
        }
        let mut backups = self.backups();
        let kept = backups_max.unwrap_or(usize::MAX).min(backups.len());
        let oldest = age_max.and_then(|age: Duration| now.checked_sub(age)).map(stamp);
        backups.sort_unstable_by(|a, b| b.cmp(a));
        for (rank, (time, path)) in backups.iter().enumerate() {
            if rank >= kept || oldest.as_ref().is_some_and(|oldest| time < oldest) {
                let _ = std::fs::remove_file(path);
            }
        }
    }

    /// Time and path of every old file.
    fn backups(&self) -> Vec<(String, PathBuf)> {
        let (prefix, extension) = self.name_parts();
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
        let backup = |entry: std::fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            let plain = name.strip_suffix(COMPRESSED).unwrap_or(&name);
            let time = plain.strip_prefix(&prefix)?.strip_suffix(&extension)?;
            is_stamp(time).then(|| (time.to_owned(), entry.path()))
        };
        entries.flatten().filter_map(backup).take(BACKUPS_SEEN_MAX).collect()
    }
}

fn is_compressed(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(COMPRESSED.as_bytes())
}

/// Puts a compressed file in the place of `path`. After a crash the plain file is still there, and the next try begins
/// anew.
fn compress(path: &Path) -> io::Result<()> {
    let mut target = path.as_os_str().to_owned();
    target.push(COMPRESSED);
    let mut encoder = GzEncoder::new(File::create(&target)?, Compression::default());
    let written = io::copy(&mut File::open(path)?, &mut encoder).and_then(|_| encoder.finish()?.sync_all());
    match written {
        Ok(()) => std::fs::remove_file(path),
        Err(error) => {
            std::fs::remove_file(&target)?;
            Err(error)
        }
    }
}

fn append(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

fn stamp(time: SystemTime) -> String {
    let text = humantime::format_rfc3339_millis(time).to_string();
    text.trim_end_matches('Z').replace(':', "-")
}

fn is_stamp(text: &str) -> bool {
    text.len() == STAMP_LEN
        && text.bytes().enumerate().all(|(at, b)| match at {
            4 | 7 | 13 | 16 => b == b'-',
            10 => b == b'T',
            19 => b == b'.',
            _ => b.is_ascii_digit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_800_000_000;

    fn at(secs: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(START + secs)
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_go() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a.log");
        std::fs::write(temp.path().join("a-other.log"), "").unwrap();
        let rules = Rotation { bytes_max: 10, age_max: None, backups_max: Some(2), compress: false };
        let mut file = Rotating::open(&path, rules).unwrap();
        for secs in 0..10 {
            file.write_line(b"12345\n", at(secs)).unwrap();
        }
        let expected =
            ["a-2027-01-15T08-00-08.000.log", "a-2027-01-15T08-00-09.000.log", "a-other.log", "a.log"];
        assert_eq!(names(temp.path()), expected);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "12345\n");
    }

    #[test]
    fn what_is_too_old_goes_and_a_file_is_continued() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("log");
        let rules = Rotation {
            bytes_max: 8,
            age_max: Some(Duration::from_secs(5)),
            backups_max: None,
            compress: false,
        };
        for secs in [0, 1, 7, 8] {
            Rotating::open(&path, Rotation { age_max: None, ..rules })
                .unwrap()
                .write_line(b"123456\n", at(secs))
                .unwrap();
        }
        assert_eq!(names(temp.path()).len(), 4);
        Rotating::open(&path, Rotation { age_max: None, ..rules }).unwrap().remove_old(at(9));
        assert_eq!(names(temp.path()).len(), 4);
        let file = Rotating { rules, ..Rotating::open(&path, Rotation { age_max: None, ..rules }).unwrap() };
        file.remove_old(at(9));
        assert_eq!(names(temp.path()), ["log", "log-2027-01-15T08-00-07.000", "log-2027-01-15T08-00-08.000"]);
    }

    #[test]
    fn what_is_put_aside_is_compressed() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a.log");
        let rules = Rotation { bytes_max: 4, age_max: None, backups_max: Some(1), compress: true };
        let mut file = Rotating::open(&path, rules).unwrap();
        for secs in 0..3 {
            let deadline = std::time::Instant::now() + Duration::from_secs(30);
            while file.compressing.load(Ordering::Acquire) {
                assert!(std::time::Instant::now() < deadline, "the thread should end");
                std::thread::yield_now();
            }
            file.write_line(b"line\n", at(secs)).unwrap();
        }
        drop(file);
        let expected = ["a-2027-01-15T08-00-02.000.log.gz", "a.log"];
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while names(temp.path()) != expected {
            assert!(std::time::Instant::now() < deadline, "{:?}", names(temp.path()));
            std::thread::yield_now();
        }
        let mut text = String::new();
        let compressed = File::open(temp.path().join(expected[0])).unwrap();
        io::Read::read_to_string(&mut flate2::read::GzDecoder::new(compressed), &mut text).unwrap();
        assert_eq!(text, "line\n");
    }

    #[test]
    fn a_line_is_written_even_if_the_file_cannot_be_put_aside() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("log");
        let rules = Rotation { bytes_max: 4, age_max: None, backups_max: None, compress: false };
        let mut file = Rotating::open(&path, rules).unwrap();
        file.write_line(b"one\n", at(0)).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write_line(b"two\n", at(1)).unwrap();
        file.write_line(b"three\n", at(2)).unwrap();
        assert!(!path.exists());
        assert!(is_stamp(&stamp(at(0))) && !is_stamp("2027-01-15T08-00-00x000"));
    }
}
