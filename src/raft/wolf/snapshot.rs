//! Snapshots on their way: one line of JSON that says what it is, then the body: the chunks of `mvcc::transfer`, each with its
//! length (u32, little endian) before it. The stream of both is cut into pieces. Called by `client` and `server`.

use super::super::{LogId, Snapshot, SnapshotData, StoredMembership};
use super::{from_wire, json, to_wire};
use crate::mvcc::Store;
use crate::mvcc::transfer::{Receiver, Sender};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bytes of a piece.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes that the first line may have: a membership of a few thousand members.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// Bytes that a chunk of the body may have: a row, and what is around it.
const CHUNK_BYTES_MAX: u32 = 64 << 20;
/// Time that a piece may take, however impatient the caller is.
pub const PIECE_TIME_MIN: Duration = Duration::from_secs(5);
/// Time that the last piece may take, after which the snapshot is in place.
pub const INSTALL_TIME_MAX: Duration = Duration::from_secs(600);

/// Flushes come about once a second, and reading which one is the last takes no time.
const OPEN_TRIES: u32 = 10;

const FORMAT: &str = "kvist-snapshot";
const VERSION: u32 = 1;

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head {
    format: String,
    version: u32,
    snapshot_id: String,
    last_log: Place,
    last_membership: Members,
    body_len: u64,
    body_sha256: String,
}

/// A log id, as everywhere in the protocol.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Place {
    term: u64,
    index: u64,
}

/// A membership: the entry that it comes from, one set of voters or two, and where each member is.
#[derive(Serialize, Deserialize)]
struct Members {
    log: Place,
    configs: Vec<BTreeSet<u64>>,
    nodes: BTreeMap<u64, json::NodeForm>,
}

impl Members {
    fn new(stored: &StoredMembership) -> Members {
        let membership = stored.membership();
        Members {
            log: Place::new(stored.log_id().as_ref()),
            configs: membership.get_joint_config().clone(),
            nodes: membership.nodes().map(|(id, peer)| (*id, json::NodeForm::new(peer))).collect(),
        }
    }
}

impl Place {
    fn new(id: Option<&LogId>) -> Place {
        let (term, index) = to_wire(id);
        Place { term, index }
    }

    fn id(self) -> Option<LogId> {
        from_wire(self.term, self.index)
    }
}

/// A snapshot that is complete in a file, and is read piece by piece.
pub struct Packed {
    last: Option<LogId>,
    /// What comes before the rest of the file.
    head: io::Cursor<Vec<u8>>,
    body: File,
    left: u64,
}

impl Packed {
    /// Packs the last flush of `store` into a file in `dir` that nobody else sees. Blocks.
    pub fn new(dir: &Path, store: &Arc<Store>) -> io::Result<Packed> {
        let (mut sender, snapshot) = open(store)?;
        let mut body = anonymous_file(dir)?;
        let (body_len, body_sha256) = write_body(&mut sender, &mut body)?;
        let last = snapshot.meta.last_log_id;
        let place = Place::new(last.as_ref());
        let head = Head {
            format: FORMAT.into(),
            version: VERSION,
            snapshot_id: format!("{}-{}", place.term, place.index),
            last_log: place,
            last_membership: Members::new(&snapshot.meta.last_membership),
            body_len,
            body_sha256,
        };
        let mut line = serde_json::to_vec(&head)?;
        line.push(b'\n');
        body.rewind()?;
        Ok(Packed { last, left: line.len() as u64 + body_len, head: io::Cursor::new(line), body })
    }

    /// The last entry that it stands for.
    pub fn last(&self) -> Option<LogId> {
        self.last
    }

    /// The next piece. Blocks.
    pub fn piece(&mut self) -> io::Result<Vec<u8>> {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        (&mut self.head).chain(&mut self.body).take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
        if piece.is_empty() && self.left > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left = self.left.saturating_sub(piece.len() as u64);
        Ok(piece)
    }

    /// Whether all pieces were read.
    pub fn is_at_end(&self) -> bool {
        self.left == 0
    }
}

/// Begins to read the last flush, and says which one that is: the one from before and after the begin, if they are one.
fn open(store: &Arc<Store>) -> io::Result<(Sender, Snapshot)> {
    let flushed = || SnapshotData::Own(Arc::clone(store)).with_meta();
    for _ in 0..OPEN_TRIES {
        let before = flushed()?.ok_or_else(|| io::Error::other("nothing has been flushed yet"))?;
        let sender = Sender::open(store).map_err(io::Error::other)?;
        if flushed()?.is_some_and(|after| after.meta.last_log_id == before.meta.last_log_id) {
            return Ok((sender, before));
        }
    }
    Err(io::Error::other("flushes come faster than they can be read"))
}

/// Writes what is sent; returns how long it is, and its hash.
fn write_body(sender: &mut Sender, file: &mut File) -> io::Result<(u64, String)> {
    let (mut len, mut hash) = (0, Sha256::new());
    while let Some(chunk) = sender.next().map_err(io::Error::other)? {
        let prefix = u32::try_from(chunk.len()).map_err(io::Error::other)?.to_le_bytes();
        for part in [&prefix[..], &chunk] {
            file.write_all(part)?;
            hash.update(part);
            len += part.len() as u64;
        }
    }
    Ok((len, hex(hash)))
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file that goes when it is closed, whatever happens.
fn anonymous_file(dir: &Path) -> io::Result<File> {
    static FILES: AtomicU64 = AtomicU64::new(0);
    let number = FILES.fetch_add(1, Ordering::Relaxed);
    let path = dir.join(format!("wolf-{}-{number}.tmp", std::process::id()));
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

/// A piece of a snapshot that comes in.
pub struct Piece {
    /// Term and id of who leads.
    pub leader: (u64, u64),
    /// The last entry that the snapshot stands for.
    pub last: LogId,
    /// Where it belongs.
    pub offset: u64,
    /// Whether it is the last one.
    pub done: bool,
    /// The bytes.
    pub data: Vec<u8>,
}

/// What tells one snapshot on its way from another.
type Id = ((u64, u64), LogId);

/// Where a snapshot gathers, piece by piece; one at a time.
pub struct Inbox {
    dir: PathBuf,
    quota: u64,
    coming: Option<Coming>,
    /// The last one that was complete, its length, and whether it is in place: then its pieces may come again, since an answer
    /// may have been lost.
    complete: Option<(Id, u64, bool)>,
}

struct Coming {
    id: Id,
    file: File,
    /// Bytes up to here are in the file.
    have: u64,
}

impl Inbox {
    /// Files are in `dir`; a database of more than `quota` bytes is refused.
    pub fn new(dir: PathBuf, quota: u64) -> Inbox {
        Inbox { dir, quota, coming: None, complete: None }
    }

    /// Takes a piece; returns the snapshot when it was the last one and all is well.
    pub async fn take(&mut self, piece: Piece) -> Result<Option<Snapshot>, String> {
        let (id, end) = ((piece.leader, piece.last), piece.offset.saturating_add(piece.data.len() as u64));
        if piece.offset == 0 {
            self.coming = None; // the file of the one before goes first
            let file = anonymous_file(&self.dir).map_err(|e| e.to_string())?;
            self.coming = Some(Coming { id, file, have: 0 });
        }
        let have = self.coming.as_ref().filter(|coming| coming.id == id).map_or(0, |coming| coming.have);
        let Some(mut coming) = self.coming.take_if(|coming| coming.id == id && piece.offset <= coming.have)
        else {
            return match self.complete {
                Some((complete, len, true)) if complete == id && end <= len => Ok(None),
                _ => Err(format!("snapshot mismatch, expected offset {have}")),
            };
        };
        let (dir, quota) = (self.dir.clone(), self.quota);
        let work = move || -> io::Result<(Coming, Option<Snapshot>)> {
            coming.file.write_all_at(&piece.data, piece.offset)?;
            coming.have = coming.have.max(end);
            let snapshot = if piece.done { Some(unpack(&mut coming, &dir, quota)?) } else { None };
            Ok((coming, snapshot))
        };
        let done = tokio::task::spawn_blocking(work).await.map_err(|e| e.to_string())?;
        let (coming, snapshot) = done.map_err(|e| format!("snapshot refused: {e}"))?;
        match snapshot {
            Some(_) => self.complete = Some((id, coming.have, false)),
            None => self.coming = Some(coming),
        }
        Ok(snapshot)
    }

    /// What was complete last is in place.
    pub fn is_in_place(&mut self) {
        if let Some((_, _, is_in_place)) = &mut self.complete {
            *is_in_place = true;
        }
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Checks what has come, and builds the database.
fn unpack(coming: &mut Coming, dir: &Path, quota: u64) -> io::Result<Snapshot> {
    coming.file.rewind()?;
    let mut file = BufReader::new(&coming.file);
    let mut line = Vec::new();
    (&mut file).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    let head: Head =
        serde_json::from_slice(&line).map_err(|e| damaged(&format!("it has no header line: {e}")))?;
    if head.format != FORMAT || head.version != VERSION {
        return Err(damaged(&format!("its format is {:?} {}", head.format, head.version)));
    }
    if head.last_log.id() != Some(coming.id.1) {
        return Err(damaged("its header line names another entry"));
    }
    if line.len() as u64 + head.body_len != coming.have {
        return Err(damaged("it is not as long as its header line says"));
    }
    let body_at = line.len() as u64;
    check_hash(&mut file, &head.body_sha256)?;
    file.seek(io::SeekFrom::Start(body_at))?;
    let mut receiver = Receiver::create(dir, quota).map_err(io::Error::other)?;
    while let Some(chunk) = read_chunk(&mut file)? {
        receiver.push(chunk.into()).map_err(io::Error::other)?;
    }
    let received = receiver.finish().map_err(io::Error::other)?;
    // What counts is what the state says of itself.
    let snapshot = SnapshotData::Received(received).with_meta()?;
    let snapshot = snapshot.filter(|snapshot| snapshot.meta.last_log_id == head.last_log.id());
    snapshot.ok_or_else(|| damaged("its state is of another entry than its header line says"))
}

fn check_hash(body: &mut impl Read, expected: &str) -> io::Result<()> {
    let mut hash = Sha256::new();
    io::copy(body, &mut hash)?;
    if hex(hash) != expected {
        return Err(damaged("its hash is not that of its header line"));
    }
    Ok(())
}

/// The next chunk of a body; none at its end.
fn read_chunk(body: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut prefix = Vec::new();
    body.take(4).read_to_end(&mut prefix)?;
    if prefix.is_empty() {
        return Ok(None);
    }
    let len = u32::from_le_bytes(prefix.try_into().map_err(|_| damaged("it ends inside a chunk"))?);
    if len > CHUNK_BYTES_MAX {
        return Err(damaged("one of its chunks is too long"));
    }
    let mut chunk = Vec::new();
    body.take(u64::from(len)).read_to_end(&mut chunk)?;
    if chunk.len() as u64 != u64::from(len) {
        return Err(damaged("it ends inside a chunk"));
    }
    Ok(Some(chunk))
}
