//! etcd's database file: the buckets of its schema, 3.4 to 3.7, as values. A snapshot is such a file with the SHA-256 of
//! all its bytes behind them.
//!
//! The file is read and never written; whoever calls sees to it that no one else writes.

use super::record::{self, Record};
use super::{Error, Phase, Progress, Result};
use crate::api::etcd::convert;
use crate::auth::{Permission, Role, State, User};
use crate::bbolt::{Bucket, Reader};
use crate::engine::command::{AlarmKind, Member};
use crate::pb::authpb;
use crate::pb::etcdserverpb::{AlarmMember, AlarmType};
use crate::types::{LeaseId, MemberId, Revision};
use prost::Message;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes of the checksum behind a snapshot.
pub const CHECKSUM_BYTES: u64 = 32;
/// A database is a whole number of these, which tells whether a checksum follows.
const SECTOR_BYTES: u64 = 512;
/// Newest minor version of the 3.x schema that we know.
const MINOR_MAX: u64 = 7;
const CHUNK_BYTES: usize = 1 << 20;

/// An open database file.
pub struct Backend {
    path: PathBuf,
    reader: Reader,
}

/// A lease as etcd stores it.
#[derive(Clone, PartialEq, Message)]
pub struct StoredLease {
    /// Its id.
    #[prost(int64, tag = "1")]
    pub id: i64,
    /// Seconds granted.
    #[prost(int64, tag = "2")]
    pub ttl: i64,
    /// Seconds left at the last checkpoint, or 0.
    #[prost(int64, tag = "3")]
    pub remaining_ttl: i64,
}

/// A member as etcd stores it, in JSON.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredMember {
    id: u64,
    #[serde(default, rename = "peerURLs")]
    peer_urls: Option<Vec<String>>,
    #[serde(default)]
    name: String,
    #[serde(default, rename = "clientURLs")]
    client_urls: Option<Vec<String>>,
    #[serde(default)]
    is_learner: bool,
}

/// Reads a member from etcd's JSON.
pub fn parse_member(json: &[u8]) -> Option<Member> {
    let stored: StoredMember = serde_json::from_slice(json).ok()?;
    Some(Member {
        id: stored.id,
        name: stored.name,
        peer_urls: stored.peer_urls.unwrap_or_default(),
        client_urls: stored.client_urls.unwrap_or_default(),
        is_learner: stored.is_learner,
    })
}

impl Backend {
    /// Opens a snapshot, and checks its checksum unless told to skip that. Gives the checksum that it should have, too.
    pub fn open_snapshot(
        path: &Path,
        skip_hash_check: bool,
        progress: Progress<'_>,
    ) -> Result<(Backend, [u8; CHECKSUM_BYTES as usize])> {
        let mut file = File::open(path).map_err(Error::io(path))?;
        let len = file.metadata().map_err(Error::io(path))?.len();
        let has_checksum = len % SECTOR_BYTES == CHECKSUM_BYTES;
        if !has_checksum && !skip_hash_check {
            return Err(Error::Refused("snapshot missing hash but --skip-hash-check=false".into()));
        }
        let data = if has_checksum { len - CHECKSUM_BYTES } else { len };
        let found = sha(&mut file, data, progress).map_err(Error::io(path))?;
        if !skip_hash_check {
            let mut expected = [0; CHECKSUM_BYTES as usize];
            file.read_exact_at(&mut expected, data).map_err(Error::io(path))?;
            if found != expected {
                let (expected, found) = (go_bytes(&expected), go_bytes(&found));
                return Err(Error::Refused(format!("expected sha256 {expected}, got {found}")));
            }
        }
        Ok((Backend::new(path, file, data)?, found))
    }

    /// Opens a file with or without a checksum behind it, and looks at none.
    pub fn open(path: &Path) -> Result<Backend> {
        let file = File::open(path).map_err(Error::io(path))?;
        let len = file.metadata().map_err(Error::io(path))?.len();
        let trailer = if len % SECTOR_BYTES == CHECKSUM_BYTES { CHECKSUM_BYTES } else { 0 };
        Backend::new(path, file, len - trailer)
    }

    /// Opens the database in the first `len` bytes of `file`.
    pub fn new(path: &Path, file: File, len: u64) -> Result<Backend> {
        let reader =
            Reader::new(file, len).map_err(|source| Error::Database { path: path.to_owned(), source })?;
        Ok(Backend { path: path.to_owned(), reader })
    }

    /// Looks at every page. Everything else relies on it.
    pub fn check(&self, progress: Progress<'_>) -> Result<()> {
        let pages = self.reader.pages();
        self.reader.check(&mut |seen| progress(Phase::Check, seen, pages)).map_err(|e| self.database(e))
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file as bbolt sees it.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// An error of reading the file.
    pub fn database(&self, source: crate::bbolt::Error) -> Error {
        Error::Database { path: self.path.clone(), source }
    }

    fn damaged(&self, what: impl Into<String>) -> Error {
        Error::damaged(&self.path, what)
    }

    fn bucket(&self, name: &str) -> Result<Option<Bucket<'_>>> {
        self.reader.bucket(name.as_bytes()).map_err(|e| self.database(e))
    }

    fn meta(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let Some(bucket) = self.bucket("meta")? else { return Ok(None) };
        bucket.get(key.as_bytes()).map_err(|e| self.database(e))
    }

    fn meta_number(&self, key: &str) -> Result<Option<u64>> {
        let Some(bytes) = self.meta(key)? else { return Ok(None) };
        let number = bytes.try_into().map(u64::from_be_bytes);
        Ok(Some(number.map_err(|_| self.damaged(format!("meta/{key} has a wrong length")))?))
    }

    /// Index of the last raft entry whose effect is in the file; 0 before the first.
    pub fn consistent_index(&self) -> Result<u64> {
        Ok(self.meta_number("consistent_index")?.unwrap_or(0))
    }

    /// Term of that entry; 0 in files of etcd 3.4 and before.
    pub fn term(&self) -> Result<u64> {
        Ok(self.meta_number("term")?.unwrap_or(0))
    }

    /// Revision of the last compaction, whether its rows are gone already or not; 0 before the first.
    pub fn compacted(&self) -> Result<i64> {
        let mut compacted = 0;
        for key in ["finishedCompactRev", "scheduledCompactRev"] {
            let Some(bytes) = self.meta(key)? else { continue };
            let (revision, _) =
                record::revision(&bytes).ok_or_else(|| self.damaged(format!("meta/{key} is no revision")))?;
            compacted = compacted.max(revision.main);
        }
        Ok(compacted)
    }

    /// Version of the schema, such as `3.7.0`; empty in files of etcd 3.5 and before.
    pub fn storage_version(&self) -> Result<String> {
        let text = self.meta("storageVersion")?.unwrap_or_default();
        String::from_utf8(text).map_err(|_| self.damaged("meta/storageVersion is no text"))
    }

    /// Refuses a file that is none of etcd's, or of a schema that we do not know.
    pub fn check_schema(&self) -> Result<()> {
        for name in ["key", "meta"] {
            if self.bucket(name)?.is_none() {
                return Err(self.damaged(format!("it has no bucket \"{name}\", so it is no etcd database")));
            }
        }
        let version = self.storage_version()?;
        let mut parts = version.split('.').map(str::parse::<u64>);
        match (parts.next(), parts.next()) {
            (Some(Ok(3)), Some(Ok(0..=MINOR_MAX))) => Ok(()),
            _ if version.is_empty() => Ok(()),
            _ => Err(self.damaged(format!(
                "its storage version is {version}, and only those up to 3.{MINOR_MAX} are known"
            ))),
        }
    }

    /// Gives every version in order of revision.
    pub fn records(&self, progress: Progress<'_>, each: &mut dyn FnMut(Record) -> Result<()>) -> Result<()> {
        let Some(bucket) = self.bucket("key")? else { return Ok(()) };
        let (mut last, mut bytes, mut told) = (Revision::default(), 0u64, 0u64);
        for row in bucket.iter() {
            let (key, value) = row.map_err(|e| self.database(e))?;
            let record = Record::parse(&key, &value)
                .map_err(|what| self.damaged(format!("a row of bucket \"key\" is damaged: {what}")))?;
            let revision = record.meta.modified;
            if revision <= last {
                return Err(self.damaged(format!("revision {revision} comes after {last}")));
            }
            last = revision;
            each(record)?;
            bytes += (key.len() + value.len()) as u64;
            if bytes - told >= CHUNK_BYTES as u64 {
                told = bytes;
                progress(Phase::Keys, bytes.min(self.reader.len()), self.reader.len());
            }
        }
        progress(Phase::Keys, self.reader.len(), self.reader.len());
        Ok(())
    }

    /// All leases.
    pub fn leases(&self) -> Result<Vec<StoredLease>> {
        let Some(bucket) = self.bucket("lease")? else { return Ok(Vec::new()) };
        let mut leases = Vec::new();
        for row in bucket.iter() {
            let (key, value) = row.map_err(|e| self.database(e))?;
            let lease = StoredLease::decode(&value[..]).ok();
            let id = key.try_into().map(LeaseId::from_be_bytes).ok();
            match lease.filter(|lease| Some(lease.id) == id && lease.id != 0) {
                Some(lease) => leases.push(lease),
                None => return Err(self.damaged("a row of bucket \"lease\" is damaged")),
            }
        }
        Ok(leases)
    }

    /// Alarms raised; of kinds that we know.
    pub fn alarms(&self) -> Result<Vec<(MemberId, AlarmKind)>> {
        let Some(bucket) = self.bucket("alarm")? else { return Ok(Vec::new()) };
        let mut alarms = Vec::new();
        for row in bucket.iter() {
            let (key, _) = row.map_err(|e| self.database(e))?;
            let alarm = AlarmMember::decode(&key[..])
                .map_err(|_| self.damaged("a row of bucket \"alarm\" is damaged"))?;
            alarms.extend(alarm_kind(alarm.alarm).map(|kind| (alarm.member_id, kind)));
        }
        Ok(alarms)
    }

    /// The members of the cluster.
    pub fn members(&self) -> Result<Vec<Member>> {
        let Some(bucket) = self.bucket("members")? else { return Ok(Vec::new()) };
        let parse = |row: crate::bbolt::Result<(Vec<u8>, Vec<u8>)>| {
            let (_, json) = row.map_err(|e| self.database(e))?;
            parse_member(&json).ok_or_else(|| self.damaged("a row of bucket \"members\" is damaged"))
        };
        bucket.iter().map(parse).collect()
    }
}

impl Backend {
    /// Users, roles and whether they matter.
    pub fn auth(&self) -> Result<State> {
        let is_enabled = match self.bucket("auth")? {
            Some(bucket) => bucket.get(b"authEnabled").map_err(|e| self.database(e))? == Some(vec![1]),
            None => false,
        };
        let users = self.messages("authUsers", |user: authpb::User| {
            let mut roles = user.roles;
            roles.sort_unstable();
            let no_password = user.options.is_some_and(|options| options.no_password);
            Some(User { name: text(user.name)?, password: user.password, no_password, roles })
        })?;
        let roles = self.messages("authRoles", |role: authpb::Role| {
            let mut permissions: Vec<Permission> =
                role.key_permission.into_iter().map(convert::auth::permission).collect::<Option<_>>()?;
            permissions.sort_by(|a, b| a.key.cmp(&b.key));
            Some(Role { name: text(role.name)?, permissions })
        })?;
        Ok(State::new(is_enabled, self.auth_revision()?, users, roles))
    }

    /// 1 before the first change of users.
    fn auth_revision(&self) -> Result<u64> {
        let Some(bucket) = self.bucket("auth")? else { return Ok(1) };
        let Some(bytes) = bucket.get(b"authRevision").map_err(|e| self.database(e))? else { return Ok(1) };
        let number = bytes.try_into().map(u64::from_be_bytes);
        Ok(number.map_err(|_| self.damaged("auth/authRevision has a wrong length"))?.max(1))
    }

    /// The values of a bucket, each of them a message.
    fn messages<M: Message + Default, T>(
        &self,
        name: &str,
        convert: impl Fn(M) -> Option<T>,
    ) -> Result<Vec<T>> {
        let Some(bucket) = self.bucket(name)? else { return Ok(Vec::new()) };
        let parse = |row: crate::bbolt::Result<(Vec<u8>, Vec<u8>)>| {
            let (_, value) = row.map_err(|e| self.database(e))?;
            let message = M::decode(&value[..]).ok().and_then(&convert);
            message.ok_or_else(|| self.damaged(format!("a row of bucket \"{name}\" is damaged")))
        };
        bucket.iter().map(parse).collect()
    }
}

/// A name, which is bytes in etcd's database, and a text everywhere else.
fn text(name: Vec<u8>) -> Option<String> {
    String::from_utf8(name).ok().filter(|name| !name.is_empty())
}

/// The kind of alarm that etcd's number means, if it is one that can be raised.
pub fn alarm_kind(number: i32) -> Option<AlarmKind> {
    match AlarmType::try_from(number) {
        Ok(AlarmType::Nospace) => Some(AlarmKind::NoSpace),
        Ok(AlarmType::Corrupt) => Some(AlarmKind::Corrupt),
        Ok(AlarmType::None) | Err(_) => None,
    }
}

/// SHA-256 of the first `len` bytes.
fn sha(file: &mut File, len: u64, progress: Progress<'_>) -> std::io::Result<[u8; CHECKSUM_BYTES as usize]> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut rest = file.take(len);
    let mut done = 0;
    loop {
        let read = rest.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        hash.update(&chunk[..read]);
        done += read as u64;
        progress(Phase::Checksum, done, len);
    }
    Ok(hash.finalize().into())
}

/// Bytes as Go prints a slice of them.
fn go_bytes(bytes: &[u8]) -> String {
    let texts: Vec<String> = bytes.iter().map(u8::to_string).collect();
    format!("[{}]", texts.join(" "))
}
