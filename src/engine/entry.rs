//! What a log entry of ours carries: a command, the time at which the leader took it in, and who asked for it.
//!
//! Layout: version (1 byte), time (varint, milliseconds since 1970), origin, command in postcard's format. The origin is a
//! byte: 0 the server itself, 1 a client that nobody knows, 2 a user, followed by the length of its name (varint), the
//! name, and the auth revision that it knew (varint). Version 1 has no origin: nobody was known then. Persisted and sent
//! to followers as it is; it is encoded once, when proposed.

use super::command::Command;
use super::timing::Timing;
use crate::auth::Caller;
use crate::storage::codec::{put_varint, take_varint};
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// Version of the layout.
const VERSION: u8 = 2;
/// The version before users were known.
const WITHOUT_ORIGIN: u8 = 1;

const SERVER: u8 = 0;
const ANONYMOUS: u8 = 1;
const USER: u8 = 2;

/// Why bytes are not an entry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Written by a newer kvist.
    #[error("log entry has version {0}, this version of kvist reads up to {VERSION}: install a newer kvist")]
    NewerVersion(u8),
    /// Can't be ours.
    #[error("log entry does not parse: {0}")]
    Damaged(String),
}

/// Who asks for a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// The server itself, which may do everything.
    Server,
    /// A client: a known caller, or nobody in particular.
    Client(Option<Caller>),
}

impl Origin {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Origin::Server => out.push(SERVER),
            Origin::Client(None) => out.push(ANONYMOUS),
            Origin::Client(Some(caller)) => {
                out.push(USER);
                put_varint(out, caller.user.len() as u64);
                out.extend_from_slice(caller.user.as_bytes());
                put_varint(out, caller.revision);
            }
        }
    }

    fn decode(rest: &mut &[u8]) -> Option<Origin> {
        let (&kind, after) = rest.split_first()?;
        *rest = after;
        Some(match kind {
            SERVER => Origin::Server,
            ANONYMOUS => Origin::Client(None),
            USER => {
                let len = usize::try_from(take_varint(rest)?).ok()?;
                let (name, after) = rest.split_at_checked(len)?;
                *rest = after;
                let (user, revision) = (std::str::from_utf8(name).ok()?.into(), take_varint(rest)?);
                Origin::Client(Some(Caller { user, revision, is_pinned: true }))
            }
            _ => return None,
        })
    }
}

/// A command on its way through the log; cheap to clone.
#[derive(Clone)]
pub struct Entry(Arc<Inner>);

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.0.bytes == other.0.bytes
    }
}

struct Inner {
    bytes: Bytes,
    time_ms: u64,
    origin: Origin,
    command: Command,
    timing: Timing,
}

impl Entry {
    /// Encodes `command` of `origin`, taken in at `time_ms`.
    pub fn new(origin: Origin, command: Command, time_ms: u64) -> Entry {
        let mut bytes = vec![VERSION];
        put_varint(&mut bytes, time_ms);
        origin.encode(&mut bytes);
        let bytes = postcard::to_extend(&command, bytes).expect("commands are plain data in memory");
        Entry(Arc::new(Inner { bytes: bytes.into(), time_ms, origin, command, timing: Timing::begin() }))
    }

    /// Decodes what [`Entry::bytes`] gave.
    pub fn decode(bytes: Bytes) -> Result<Entry, Error> {
        let damaged = |what: &str| Error::Damaged(what.to_owned());
        let (&version, mut rest) = bytes.split_first().ok_or_else(|| damaged("it is empty"))?;
        if version > VERSION {
            return Err(Error::NewerVersion(version));
        }
        let time_ms = take_varint(&mut rest).ok_or_else(|| damaged("its time is cut short"))?;
        let origin = match version {
            0..=WITHOUT_ORIGIN => Origin::Client(None),
            _ => Origin::decode(&mut rest).ok_or_else(|| damaged("its origin is none"))?,
        };
        let command = postcard::from_bytes(rest).map_err(|e| damaged(&e.to_string()))?;
        Ok(Entry(Arc::new(Inner { bytes, time_ms, origin, command, timing: Timing::begin() })))
    }

    /// Its byte form.
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// When the leader took it in, milliseconds since 1970.
    pub fn time_ms(&self) -> u64 {
        self.0.time_ms
    }

    /// Who asks for it.
    pub fn origin(&self) -> &Origin {
        &self.0.origin
    }

    /// How far it has come, and when.
    pub fn timing(&self) -> &Timing {
        &self.0.timing
    }

    /// What to do.
    pub fn command(&self) -> &Command {
        &self.0.command
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Entry {
    /// Without keys and values: those may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.command() {
            Command::Put(_) => "put",
            Command::DeleteRange(_) => "delete-range",
            Command::Txn(_) => "txn",
            Command::LeaseGrant { .. } => "lease-grant",
            Command::LeaseRevoke { .. } => "lease-revoke",
            Command::LeaseCheckpoint(_) => "lease-checkpoint",
            Command::Compact { .. } => "compact",
            Command::Alarm { .. } => "alarm",
            Command::PublishMember(_) => "publish-member",
            Command::Downgrade { .. } => "downgrade",
            Command::SetClusterVersion(_) => "set-cluster-version",
            Command::Auth(_) => "auth",
            Command::AddMember(_) => "add-member",
            Command::RemoveMember { .. } => "remove-member",
            Command::PromoteMember { .. } => "promote-member",
            Command::UpdateMember { .. } => "update-member",
        };
        write!(f, "{kind} ({} bytes)", self.0.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::command::{Compare, Op, Operand, Put, Relation, Txn};
    use crate::types::KeyRange;
    use proptest::prelude::*;

    #[test]
    fn an_entry_written_by_version_1_is_still_read() {
        let put = Put { key: "k".into(), value: "v".into(), lease: 7, ..Put::default() };
        let txn = Command::Txn(Txn {
            compares: vec![Compare {
                range: KeyRange::single("k".into()),
                relation: Relation::Equal,
                operand: Operand::ModRevision(3),
            }],
            success: vec![Op::Put(put)],
            failure: Vec::new(),
        });
        let stored: &[u8] = &[1, 172, 2, 2, 1, 1, b'k', 0, 0, 2, 6, 1, 1, 1, b'k', 1, b'v', 14, 0, 0, 0, 0];
        let entry = Entry::decode(Bytes::from_static(stored)).unwrap();
        assert_eq!((entry.command(), entry.time_ms()), (&txn, 300));
        assert_eq!(entry.origin(), &Origin::Client(None));
    }

    #[test]
    fn an_entry_written_by_version_2_is_still_read() {
        let caller = |user: &str| Caller { user: user.into(), revision: 300, is_pinned: true };
        let command = Command::Compact { revision: 3 };
        let rows: [(Origin, &[u8]); 3] = [
            (Origin::Server, &[2, 5, 0, 6, 6]),
            (Origin::Client(None), &[2, 5, 1, 6, 6]),
            (Origin::Client(Some(caller("ann"))), &[2, 5, 2, 3, b'a', b'n', b'n', 172, 2, 6, 6]),
        ];
        for (origin, stored) in rows {
            assert_eq!(&Entry::new(origin.clone(), command.clone(), 5).bytes()[..], stored);
            let entry = Entry::decode(Bytes::copy_from_slice(stored)).unwrap();
            assert_eq!((entry.origin(), entry.command(), entry.time_ms()), (&origin, &command, 5));
        }
        for damaged in
            [&[2, 5, 3, 6, 6][..], &[2, 5, 2, 9, b'a', 1, 6, 6], &[2, 5, 2, 1, 0xff, 1, 6, 6], &[2, 5]]
        {
            assert!(matches!(Entry::decode(Bytes::copy_from_slice(damaged)), Err(Error::Damaged(_))));
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        let error = Entry::decode(Bytes::from_static(&[9, 0])).unwrap_err();
        assert!(matches!(error, Error::NewerVersion(9)));
    }

    #[test]
    fn txns_nested_without_end_are_refused() {
        let entry = |levels: usize| {
            let open = [0, 1, 3].repeat(levels);
            Entry::decode([&[1, 0, 2][..], &open, &[0, 0, 0], &vec![0; levels]].concat().into())
        };
        assert!(entry(100).is_ok() && entry(101).is_err() && entry(100_000).is_err());
        assert!(entry(100).is_ok(), "the refusal is forgotten");
    }

    proptest! {
        #[test]
        fn foreign_bytes_do_not_panic(bytes: Vec<u8>) {
            let _ = Entry::decode(bytes.into());
        }
    }
}
