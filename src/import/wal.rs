//! etcd's raft log: `member/wal/<number>-<index>.wal`, read from the file that an index calls for to the end.
//!
//! ```text
//!   length i64 LE: low 56 bits the record's bytes, top byte 0x80 | padding
//!   record, protobuf: type, crc, data          crc: CRC-32C over the data of all records so far
//!   padding
//! ```
//! Each file begins with a record that repeats the checksum so far. A length of 0 ends a file. Only the last file may end
//! in the middle of a record, as a power loss leaves it: by a short file, or by a sector of zeros inside the record. What
//! follows was never acknowledged, and is left out, as etcd does. Everything else that does not fit is damage.

use super::{Error, Result};
use prost::Message;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// Disks write this many bytes at once, or none.
const SECTOR_BYTES: usize = 512;
const LENGTH_BYTES: u64 = 8;

#[derive(Clone, PartialEq, Message)]
struct Frame {
    #[prost(int64, optional, tag = "1")]
    kind: Option<i64>,
    #[prost(uint32, optional, tag = "2")]
    crc: Option<u32>,
    #[prost(bytes = "vec", optional, tag = "3")]
    data: Option<Vec<u8>>,
}

/// An entry of the log.
#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    /// 0: a request, 1: a change of membership, 2: the same in the newer form.
    #[prost(int32, optional, tag = "1")]
    pub kind: Option<i32>,
    /// Term of the leader that made it.
    #[prost(uint64, optional, tag = "2")]
    pub term: Option<u64>,
    /// Its place.
    #[prost(uint64, optional, tag = "3")]
    pub index: Option<u64>,
    /// What to do.
    #[prost(bytes = "vec", optional, tag = "4")]
    pub data: Option<Vec<u8>>,
}

/// Whose log it is.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Metadata {
    /// Id of the member.
    #[prost(uint64, optional, tag = "1")]
    pub member: Option<u64>,
    /// Id of the cluster.
    #[prost(uint64, optional, tag = "2")]
    pub cluster: Option<u64>,
}

/// How far the member was.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct HardState {
    /// Newest term that it knew.
    #[prost(uint64, optional, tag = "1")]
    pub term: Option<u64>,
    /// Whom it voted for.
    #[prost(uint64, optional, tag = "2")]
    pub vote: Option<u64>,
    /// Last entry that it knew to be committed.
    #[prost(uint64, optional, tag = "3")]
    pub commit: Option<u64>,
}

/// One record, understood.
#[derive(Clone, PartialEq, Debug)]
pub enum Item {
    /// Whose log it is; the same in every file.
    Metadata(Metadata),
    /// An entry; it replaces those from its index on.
    Entry(Entry),
    /// Replaces the state before.
    State(HardState),
}

/// A log on disk.
pub struct Wal {
    dir: PathBuf,
    names: Vec<String>,
}

impl Wal {
    /// The log in `dir`, from the file that has the entry behind `index` on.
    pub fn open(dir: &Path, index: u64) -> Result<Wal> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(Error::io(dir))? {
            let name = entry.map_err(Error::io(dir))?.file_name();
            names.extend(name.to_str().and_then(|name| Some((parse_name(name)?, name.to_owned()))));
        }
        names.sort_unstable();
        let Some(first) = names.iter().rposition(|((_, begin), _)| *begin <= index) else {
            return Err(Error::damaged(dir, format!("no log file begins at or before entry {index}")));
        };
        let names = names.split_off(first);
        if let Some(gap) = names.windows(2).find(|pair| pair[0].0.0 + 1 != pair[1].0.0) {
            return Err(Error::damaged(
                dir,
                format!("a log file between {} and {} is missing", gap[0].1, gap[1].1),
            ));
        }
        Ok(Wal { dir: dir.to_owned(), names: names.into_iter().map(|(_, name)| name).collect() })
    }

    /// The files, in order.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> {
        self.names.iter().map(|name| self.dir.join(name))
    }

    /// Gives every record to `each`, in order. The log must not change meanwhile.
    pub fn read(&self, each: &mut dyn FnMut(&Path, Item) -> Result<()>) -> Result<()> {
        let mut crc = 0;
        for (n, path) in self.files().enumerate() {
            let file = File::open(&path).map_err(Error::io(&path))?;
            let len = file.metadata().map_err(Error::io(&path))?.len();
            let is_last = n + 1 == self.names.len();
            let mut records =
                Records { file: BufReader::with_capacity(1 << 16, file), len, at: 0, crc, is_last };
            loop {
                match records.next() {
                    Ok(Some(Some(item))) => each(&path, item)?,
                    Ok(Some(None)) => {}
                    Ok(None) => break,
                    Err(Failure::Io(source)) => return Err(Error::Io { path, source }),
                    Err(Failure::Damaged(what)) => {
                        let what = format!("the log is damaged at offset {}: {what}", records.at);
                        return Err(Error::Damaged { path, what });
                    }
                }
            }
            crc = records.crc;
        }
        Ok(())
    }
}

/// Number and first index in the name of a file.
fn parse_name(name: &str) -> Option<(u64, u64)> {
    let (number, index) = name.strip_suffix(".wal")?.split_once('-')?;
    let hex = |digits: &str| (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok()).flatten();
    Some((hex(number)?, hex(index)?))
}

enum Failure {
    Io(std::io::Error),
    Damaged(&'static str),
}

/// The records of one file.
struct Records<R> {
    file: R,
    len: u64,
    /// Where the next record begins.
    at: u64,
    crc: u32,
    is_last: bool,
}

impl<R: Read> Records<R> {
    /// The next record: nothing at the end of the file, and nothing in it when it only repeats what is known.
    fn next(&mut self) -> std::result::Result<Option<Option<Item>>, Failure> {
        let mut length = [0; LENGTH_BYTES as usize];
        let left = self.len.saturating_sub(self.at);
        if left == 0 {
            return Ok(None);
        }
        if left < LENGTH_BYTES {
            return self.torn("a record is cut off");
        }
        self.file.read_exact(&mut length).map_err(Failure::Io)?;
        let length = u64::from_le_bytes(length);
        if length == 0 {
            return Ok(None);
        }
        let bytes = length & !(0xff << 56);
        let padding = if length >> 63 == 1 { length >> 56 & 7 } else { 0 };
        if bytes + padding > left - LENGTH_BYTES {
            return self.torn("a record goes beyond the end of the file");
        }
        let mut data = vec![0; (bytes + padding) as usize]; // at most the file
        self.file.read_exact(&mut data).map_err(Failure::Io)?;
        let Ok(frame) = Frame::decode(&data[..bytes as usize]) else {
            return self.torn_or(&data, "a record does not parse");
        };
        let payload = frame.data.unwrap_or_default();
        let crc = frame.crc.unwrap_or_default();
        let kind = frame.kind.unwrap_or_default();
        if kind == 4 {
            if self.crc != 0 && self.crc != crc {
                return Err(Failure::Damaged("the checksum of the file before is another"));
            }
            self.crc = crc;
        } else {
            let sum = crc32c::crc32c_append(self.crc, &payload);
            if sum != crc {
                return self.torn_or(&data, "a record does not match its checksum");
            }
            self.crc = sum;
        }
        let item = parse(kind, &payload).map_err(Failure::Damaged)?;
        self.at += LENGTH_BYTES + data.len() as u64;
        Ok(Some(item))
    }

    fn torn(&self, what: &'static str) -> std::result::Result<Option<Option<Item>>, Failure> {
        if self.is_last { Ok(None) } else { Err(Failure::Damaged(what)) }
    }

    /// A record that is wrong was torn if one of its sectors was never written.
    fn torn_or(&self, data: &[u8], what: &'static str) -> std::result::Result<Option<Option<Item>>, Failure> {
        let head = SECTOR_BYTES - ((self.at + LENGTH_BYTES) % SECTOR_BYTES as u64) as usize;
        let (first, rest) = data.split_at(head.min(data.len()));
        let mut sectors = std::iter::once(first).chain(rest.chunks(SECTOR_BYTES));
        let is_torn = sectors.any(|sector| !sector.is_empty() && sector.iter().all(|byte| *byte == 0));
        if is_torn { self.torn(what) } else { Err(Failure::Damaged(what)) }
    }
}

fn parse(kind: i64, data: &[u8]) -> std::result::Result<Option<Item>, &'static str> {
    Ok(Some(match kind {
        1 => Item::Metadata(Metadata::decode(data).map_err(|_| "the metadata does not parse")?),
        2 => Item::Entry(Entry::decode(data).map_err(|_| "an entry does not parse")?),
        3 => Item::State(HardState::decode(data).map_err(|_| "a state does not parse")?),
        4 | 5 => return Ok(None), // a checksum; the mark of a snapshot
        _ => return Err("a record is of an unknown kind"),
    }))
}

#[cfg(test)]
#[path = "wal_test.rs"]
pub(super) mod wal_test;
