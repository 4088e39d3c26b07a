//! The directory that is to appear: built inside the data directory under another name, and put in place by one rename.
//!
//! Whoever fails or is killed leaves no `member`, so no server can start from half of the data. What a killed one left is
//! removed by the next attempt; two at once are told apart by an advisory lock on the data directory, as a server's own
//! lock file would be in the way.

use super::{Error, Result};
use fs4::fs_std::FileExt;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Name of what is being built; means nothing to a server.
const BUILDING: &str = ".importing";

/// See the module. Dropped without [`commit`](Target::commit), it leaves nothing behind.
pub struct Target {
    data_dir: PathBuf,
    wal_dir: Option<PathBuf>,
    is_new: bool,
    is_done: bool,
    _lock: File,
}

impl Target {
    /// Takes the data directory, which must be missing or empty, and the log's own directory, which must be missing.
    pub fn prepare(data_dir: &Path, wal_dir: Option<&Path>) -> Result<Target> {
        if let Some(wal_dir) = wal_dir
            && wal_dir.exists()
        {
            return Err(Error::Refused(format!("wal-dir {:?} exists", wal_dir.display().to_string())));
        }
        let not_empty = || {
            let path = data_dir.display().to_string();
            Error::Refused(format!("data-dir {path:?} not empty or could not be read"))
        };
        let is_new = !data_dir.exists();
        make_dir(data_dir)?;
        let lock = File::open(data_dir).map_err(Error::io(data_dir))?;
        if !lock.try_lock_exclusive().map_err(Error::io(data_dir))? {
            return Err(not_empty());
        }
        let mut entries = fs::read_dir(data_dir).map_err(|_| not_empty())?;
        if entries.any(|entry| entry.map_or(true, |entry| entry.file_name() != BUILDING)) {
            return Err(not_empty());
        }
        let (data_dir, wal_dir) = (data_dir.to_owned(), wal_dir.map(Path::to_owned));
        let target = Target { data_dir, wal_dir, is_new, is_done: false, _lock: lock };
        target.remove_building().map_err(Error::io(&target.data_dir))?;
        make_dir(&target.member_dir())?;
        make_dir(&target.wal_dir())?;
        Ok(target)
    }

    /// Where to build what becomes `member`.
    pub fn member_dir(&self) -> PathBuf {
        self.data_dir.join(BUILDING).join("member")
    }

    /// Where to build the log.
    pub fn wal_dir(&self) -> PathBuf {
        self.building_wal_dir().unwrap_or_else(|| self.member_dir().join("wal"))
    }

    /// Beside the place where it will be: renames do not cross file systems.
    fn building_wal_dir(&self) -> Option<PathBuf> {
        let wal_dir = self.wal_dir.as_ref()?;
        let mut name = wal_dir.file_name().unwrap_or_default().to_owned();
        name.push(BUILDING);
        Some(wal_dir.with_file_name(name))
    }

    /// Puts everything in place, durably. The log goes first: without `member` it means nothing.
    pub fn commit(mut self) -> Result<()> {
        if let (Some(from), Some(to)) = (self.building_wal_dir(), &self.wal_dir) {
            fs::rename(from, to).map_err(Error::io(to))?;
            sync_dir(parent(to)).map_err(Error::io(to))?;
        }
        let member = self.data_dir.join("member");
        let placed = sync_dir(&self.member_dir()).and_then(|()| fs::rename(self.member_dir(), &member));
        if let Err(source) = placed {
            if let Some(wal_dir) = &self.wal_dir {
                let _ = fs::remove_dir_all(wal_dir); // ours, and of no use; the error to tell is the first one
            }
            return Err(Error::Io { path: member, source });
        }
        self.is_done = true;
        fs::remove_dir(self.data_dir.join(BUILDING)).map_err(Error::io(&self.data_dir))?;
        sync_dir(&self.data_dir).map_err(Error::io(&self.data_dir))?;
        sync_dir(parent(&self.data_dir)).map_err(Error::io(&self.data_dir))
    }

    fn remove_building(&self) -> io::Result<()> {
        for dir in [Some(self.data_dir.join(BUILDING)), self.building_wal_dir()].into_iter().flatten() {
            match fs::remove_dir_all(dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        // The reason why there is no directory is on its way to the user.
        let _ = self.remove_building();
        if self.is_new {
            let _ = fs::remove_dir(&self.data_dir);
        }
    }
}

fn make_dir(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::io(path))
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn it_appears_whole_or_not_at_all() {
        let temp = tempfile::tempdir().unwrap();
        let (data, wal) = (temp.path().join("a/data"), temp.path().join("wal"));
        let target = Target::prepare(&data, Some(&wal)).unwrap();
        fs::write(target.member_dir().join("state"), "x").unwrap();
        fs::write(target.wal_dir().join("log"), "x").unwrap();
        drop(target);
        assert!(!data.exists() && names(temp.path()) == ["a"]);
        let target = Target::prepare(&data, Some(&wal)).unwrap();
        fs::write(target.member_dir().join("state"), "x").unwrap();
        fs::write(target.wal_dir().join("log"), "x").unwrap();
        target.commit().unwrap();
        assert_eq!((names(&data), names(&wal)), (vec!["member".to_owned()], vec!["log".to_owned()]));
        assert_eq!(names(temp.path()), ["a", "wal"]);
    }

    #[test]
    fn what_is_there_already_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let refused = |data: &Path, wal: Option<&Path>| Target::prepare(data, wal).err().unwrap().to_string();
        let data = temp.path().join("data");
        fs::create_dir_all(data.join("member")).unwrap();
        assert!(refused(&data, None).ends_with("data\" not empty or could not be read"));
        let wal = temp.path().join("wal");
        fs::create_dir(&wal).unwrap();
        assert!(refused(&temp.path().join("new"), Some(&wal)).ends_with("wal\" exists"));
        assert_eq!(names(temp.path()), ["data", "wal"]);
    }

    #[test]
    fn leftovers_of_a_killed_attempt_go_and_a_running_one_is_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let data = temp.path().join("data");
        fs::create_dir_all(data.join(BUILDING).join("member/half")).unwrap();
        let target = Target::prepare(&data, None).unwrap();
        assert_eq!(names(&target.member_dir()), ["wal"]);
        assert!(Target::prepare(&data, None).is_err(), "somebody is at it");
        drop(target);
        assert!(names(&data).is_empty(), "the directory was there before");
    }
}
