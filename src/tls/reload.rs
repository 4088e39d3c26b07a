//! What was read from files, and is read anew when one of them is another than it was. Nothing watches in the
//! background: whoever needs the value looks, which costs a `stat` for each file.

use super::Error;
use parking_lot::Mutex;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

type Load<T> = Box<dyn Fn() -> Result<T, Error> + Send + Sync>;

/// A value made of files. See the module.
pub(super) struct Watched<T> {
    paths: Vec<String>,
    load: Load<T>,
    state: Mutex<(Vec<Stamp>, Arc<T>)>,
}

/// Changes whenever a file does: inode, length, and times of change in nanoseconds. `None`: it is not there.
type Stamp = Option<(u64, u64, i64, i64, i64, i64)>;

fn stamp(path: &String) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()))
}

impl<T> Watched<T> {
    /// Loads for the first time. `otherwise` says what to go on with if that fails; without it, it is an error. Empty
    /// paths are no files.
    pub fn open(
        paths: &[&String],
        load: impl Fn() -> Result<T, Error> + Send + Sync + 'static,
        otherwise: Option<fn(Error) -> T>,
    ) -> Result<Watched<T>, Error> {
        let paths: Vec<String> = paths.iter().filter(|p| !p.is_empty()).map(|p| (*p).clone()).collect();
        let stamps = paths.iter().map(stamp).collect(); // before reading, so that no change is missed
        let first = match (load(), otherwise) {
            (Err(error), Some(otherwise)) => {
                tracing::warn!(files = paths.join(","), %error, "can't use a file for TLS");
                otherwise(error)
            }
            (first, _) => first?,
        };
        Ok(Watched { paths, load: Box::new(load), state: Mutex::new((stamps, Arc::new(first))) })
    }

    /// The value as of the files now, or the last one that could be used.
    pub fn current(&self) -> Arc<T> {
        let stamps: Vec<Stamp> = self.paths.iter().map(stamp).collect();
        let mut state = self.state.lock();
        if stamps != state.0 {
            match (self.load)() {
                Ok(value) => {
                    tracing::info!(files = self.paths.join(","), "read changed files for TLS");
                    state.1 = Arc::new(value);
                }
                Err(error) => {
                    let files = self.paths.join(",");
                    tracing::warn!(files, %error, "can't use changed files for TLS, going on with the former ones");
                }
            }
            state.0 = stamps; // a file that can't be used is not read again before it changes
        }
        Arc::clone(&state.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_read_and_a_broken_one_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n").display().to_string();
        let read = {
            let path = path.clone();
            move || {
                let text = std::fs::read_to_string(&path).map_err(|e| Error::new(e.to_string()))?;
                text.parse::<u32>().map_err(|e| Error::new(e.to_string()))
            }
        };
        assert!(Watched::open(&[&path], read.clone(), None).is_err());
        let watched = Watched::open(&[&path, &String::new()], read, Some(|_| 7)).unwrap();
        assert_eq!(*watched.current(), 7);
        for (text, value) in [("1", 1), ("x", 1), ("22", 22)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(*watched.current(), value);
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(*watched.current(), 22);
    }
}
