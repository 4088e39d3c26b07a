//! A snapshot from a server to a file: written under another name, checked against its checksum, synced, then renamed.

use super::{Connection, Error, Options};
use crate::pb::etcdserverpb::SnapshotRequest;
use crate::pb::etcdserverpb::maintenance_client::MaintenanceClient;
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Bytes of the checksum at the end.
const CHECKSUM_BYTES: usize = 32;
/// Longest message that is taken; servers send 32 KiB.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Saves a snapshot in `file`, and returns the version of the server's data. `progress` hears of bytes done and in all.
pub async fn save(
    options: &Options,
    file: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<String, Error> {
    let connection = Connection::open(options).await?;
    let client = MaintenanceClient::new(connection.link());
    let mut client = client.max_decoding_message_size(MESSAGE_BYTES_MAX);
    let mut stream = client.snapshot(SnapshotRequest {}).await?.into_inner();
    let mut part = Part::create(file)?;
    let mut version = String::new();
    while let Some(message) = stream.message().await? {
        part.write(&message.blob)?;
        progress(part.checksum.bytes, part.checksum.bytes + message.remaining_bytes);
        version = message.version;
    }
    part.finish()?;
    Ok(version)
}

/// The file while it grows; removed if it is not finished.
struct Part {
    file: File,
    part: PathBuf,
    path: PathBuf,
    checksum: Checksum,
}

/// A snapshot as it comes: the checksum of what is there so far, and the one that the snapshot ends with.
#[derive(Default)]
pub struct Checksum {
    bytes: u64,
    hash: Sha256,
    /// The last bytes, which may be the checksum.
    tail: Vec<u8>,
}

impl Checksum {
    /// Takes the next part.
    pub fn take(&mut self, blob: &[u8]) {
        self.bytes += blob.len() as u64;
        // Of a long part, only the end can be the checksum.
        let (body, end) = blob.split_at(blob.len().saturating_sub(CHECKSUM_BYTES));
        if end.len() == CHECKSUM_BYTES {
            self.hash.update(&self.tail);
            self.hash.update(body);
            self.tail.clear();
        }
        self.tail.extend_from_slice(end);
        let before = self.tail.len().saturating_sub(CHECKSUM_BYTES);
        self.hash.update(&self.tail[..before]);
        self.tail.drain(..before);
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether it is complete and sound.
    pub fn verify(&self) -> Result<(), Error> {
        if self.bytes % 512 != CHECKSUM_BYTES as u64 {
            return Err(Error::Answer(format!("sha256 checksum not found [bytes: {}]", self.bytes)));
        }
        if self.hash.clone().finalize()[..] != self.tail {
            return Err(Error::Answer("the snapshot does not match its checksum".into()));
        }
        Ok(())
    }
}

impl Part {
    fn create(path: &Path) -> Result<Part, Error> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
        let file = opened.map_err(|e| Error::File(format!("{}: {e}", part.display())))?;
        Ok(Part { file, part, path: path.to_owned(), checksum: Checksum::default() })
    }

    fn write(&mut self, blob: &[u8]) -> Result<(), Error> {
        self.file.write_all(blob).map_err(|e| self.failed(&e))?;
        self.checksum.take(blob);
        Ok(())
    }

    fn finish(self) -> Result<(), Error> {
        self.checksum.verify()?;
        let finish = || -> io::Result<()> {
            self.file.sync_all()?;
            fs::rename(&self.part, &self.path)?;
            let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
        };
        finish().map_err(|e| self.failed(&e))
    }

    fn failed(&self, error: &io::Error) -> Error {
        Error::File(format!("{}: {error}", self.part.display()))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After the rename there is none, and before it the error is on its way to the user.
        let _ = fs::remove_file(&self.part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However a snapshot is cut, its checksum is found; and a changed byte is found, too.
    #[test]
    fn a_snapshot_is_sound_in_parts_of_any_size() {
        let mut snapshot: Vec<u8> = (0..1024_u32).map(|n| (n * 7 % 251) as u8).collect();
        snapshot.extend_from_slice(&Sha256::digest(&snapshot));
        let is_sound = |bytes: &[u8], size: usize| {
            let mut checksum = Checksum::default();
            bytes.chunks(size).for_each(|part| checksum.take(part));
            checksum.verify().is_ok()
        };
        for size in [1, 5, 31, 32, 33, 100, 1024, 1025, 4096] {
            assert!(is_sound(&snapshot, size), "{size}");
            assert!(!is_sound(&snapshot[..1024], size), "{size}");
        }
        snapshot[3] ^= 1;
        assert!(!is_sound(&snapshot, 100));
    }
}
