//! The data directory: there, ours, writable, and held by this process alone. The lock is an advisory one on the file
//! `lock` inside; the kernel frees it with the process, however that ends, so a lock file that is left behind means
//! nothing. A write-ahead log directory of its own is held in the same way.
//! Called by `main` before the server; the value must live as long as the server writes. `dump` shares the lock with others
//! that only read.

use crate::config::Config;
use fs4::fs_std::FileExt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const LOCK_FILE: &str = "lock";
const PROBE_FILE: &str = ".touch";

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be made, listed or written.
    #[error("cannot access data directory {path}: {source}", path = .path.display())]
    Access {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process works in it.
    #[error("data directory {path} is in use by another process{holder}", path = .path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// ` (pid N)`, if the process left its number.
        holder: String,
    },
    /// It belongs to etcd, whose files must not mix with ours.
    #[error(
        "data directory {path} holds the data of an etcd server; give kvist a directory of its own, or make one of it: \
         kvist migrate --data-dir {path} --to NEW", path = .path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
}

/// The data directory, held until dropped.
#[derive(Debug)]
pub struct DataDir {
    has_data: bool,
    _locks: Vec<File>,
}

impl DataDir {
    /// Makes the directories if need be (mode 0700), and takes them.
    pub fn open(config: &Config) -> Result<DataDir, Error> {
        let member = config.member_dir();
        if member.join("snap").exists() {
            return Err(Error::Foreign { path: config.data_dir.clone() });
        }
        let mut locks = vec![hold(&config.data_dir)?];
        if let Some(wal_dir) = config.dedicated_wal_dir.as_ref().filter(|dir| **dir != config.data_dir) {
            locks.push(hold(wal_dir)?);
        }
        let has_data = match std::fs::read_dir(&member) {
            Ok(mut entries) => entries.next().is_some(),
            Err(source) if source.kind() == io::ErrorKind::NotFound => false,
            Err(source) => return Err(Error::Access { path: member, source }),
        };
        Ok(DataDir { has_data, _locks: locks })
    }

    /// Takes directories that are there in order to read them: others may read too, and no server can start.
    pub fn look(data_dir: &Path, wal_dir: Option<&Path>) -> Result<DataDir, Error> {
        let locks = [Some(data_dir), wal_dir].into_iter().flatten().map(hold_to_read);
        Ok(DataDir { has_data: true, _locks: locks.collect::<Result<_, _>>()? })
    }

    /// Whether a server has run in this directory before.
    pub fn has_data(&self) -> bool {
        self.has_data
    }
}

fn hold(path: &Path) -> Result<File, Error> {
    let access = |source| Error::Access { path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(access)?;
    let mode = std::fs::metadata(path).map_err(access)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), mode = format!("{mode:o}"), "data directory is open to others than its owner");
    }
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path.join(LOCK_FILE))
        .map_err(access)?;
    if !lock.try_lock_exclusive().map_err(access)? {
        return Err(Error::InUse { path: path.to_owned(), holder: holder(&mut lock) });
    }
    lock.set_len(0)
        .and_then(|()| lock.write_all(std::process::id().to_string().as_bytes()))
        .map_err(access)?;
    // The lock file may have been there before the directory became read-only.
    let probe = path.join(PROBE_FILE);
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&probe).map_err(access)?;
    std::fs::remove_file(&probe).map_err(access)?;
    Ok(lock)
}

fn hold_to_read(path: &Path) -> Result<File, Error> {
    let access = |source| Error::Access { path: path.to_owned(), source };
    // A directory that was restored and never served has no lock file yet.
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut lock = options.open(path.join(LOCK_FILE)).map_err(access)?;
    if !FileExt::try_lock_shared(&lock).map_err(access)? {
        return Err(Error::InUse { path: path.to_owned(), holder: holder(&mut lock) });
    }
    Ok(lock)
}

fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    let read = lock.take(20).read_to_string(&mut text);
    match (read, text.parse::<u32>()) {
        (Ok(_), Ok(pid)) => format!(" (pid {pid})"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::args::{Command, parse};

    fn config(dir: &Path, more: &[String]) -> Config {
        let mut words = vec![format!("--data-dir={}", dir.display())];
        words.extend_from_slice(more);
        match parse(words.into_iter().map(Into::into)) {
            Ok(Command::Serve(settings)) => settings.verify().1.unwrap(),
            _ => panic!("should be read"),
        }
    }

    #[test]
    fn it_is_made_private_and_held_by_one() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, wal) = (temp.path().join("a/b"), temp.path().join("wal"));
        let config = config(&dir, &[format!("--wal-dir={}", wal.display())]);
        let held = DataDir::open(&config).unwrap();
        assert!(!held.has_data());
        assert_eq!(std::fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        let pid = std::process::id();
        let error = DataDir::open(&config).unwrap_err().to_string();
        assert!(error.ends_with(&format!("b is in use by another process (pid {pid})")), "{error}");
        // Another data directory with the same log directory is refused too.
        let other = self::config(&temp.path().join("c"), &[format!("--wal-dir={}", wal.display())]);
        assert!(matches!(DataDir::open(&other), Err(Error::InUse { .. })));
        drop(held);
        std::fs::create_dir_all(config.member_dir().join("state")).unwrap();
        assert!(DataDir::open(&config).unwrap().has_data());
    }

    #[test]
    fn a_file_in_its_place_and_the_data_of_etcd_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(DataDir::open(&config(&file, &[])), Err(Error::Access { .. })));
        std::fs::create_dir_all(temp.path().join("member/snap")).unwrap();
        assert!(matches!(DataDir::open(&config(temp.path(), &[])), Err(Error::Foreign { .. })));
    }
}
