//! What a log entry of ours carries: a command, the time at which the leader took it in, and who asked for it.
//!
//! Layout: version (1 byte), time (varint, milliseconds since 1970), origin, command in postcard's format. The origin is a
//! byte: 0 the server itself, 1 a client that nobody knows, 2 a user, followed by the length of its name (varint), the
//! name, and the auth revision that it knew (varint). Version 1 has no origin: nobody was known then. Version 3 has a
//! ticket behind the origin: the proposer (8 bytes LE) and its number for the entry (varint). Persisted and sent to
//! followers as it is; it is encoded once, when proposed, and once more if it is sent to the leader.

use super::command::Command;
use super::timing::Timing;
use crate::auth::Caller;
use crate::storage::codec::{put_varint, take_varint};
use crate::types::MemberId;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// Newest version of the layout: with a ticket.
const VERSION: u8 = 3;
/// The version without a ticket: the leader took the command in itself.
const WITHOUT_TICKET: u8 = 2;
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

/// Says whose the answer is: the member that took the command in and sent it to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// That member.
    pub proposer: MemberId,
    /// Its number for the entry; never the same twice while it runs, nor likely to be after a restart.
    pub number: u64,
}

impl Ticket {
    fn decode(rest: &mut &[u8]) -> Option<Ticket> {
        let (proposer, after) = rest.split_first_chunk::<8>()?;
        *rest = after;
        Some(Ticket { proposer: MemberId::from_le_bytes(*proposer), number: take_varint(rest)? })
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
    ticket: Option<Ticket>,
    command: Command,
    /// Where the command begins in `bytes`.
    command_at: usize,
    timing: Timing,
}

impl Entry {
    /// Encodes `command` of `origin`, taken in at `time_ms`.
    pub fn new(origin: Origin, command: Command, time_ms: u64) -> Entry {
        let mut bytes = vec![WITHOUT_TICKET];
        put_varint(&mut bytes, time_ms);
        origin.encode(&mut bytes);
        let command_at = bytes.len();
        let bytes = postcard::to_extend(&command, bytes).expect("commands are plain data in memory");
        let (bytes, timing) = (bytes.into(), Timing::begin());
        Entry(Arc::new(Inner { bytes, time_ms, origin, ticket: None, command, command_at, timing }))
    }

    /// The same with a ticket, for the leader.
    pub fn ticketed(&self, ticket: Ticket) -> Entry {
        let Inner { bytes: plain, time_ms, origin, command, command_at, .. } = &*self.0;
        let mut bytes = Vec::with_capacity(plain.len() + 20);
        bytes.push(VERSION);
        put_varint(&mut bytes, *time_ms);
        origin.encode(&mut bytes);
        bytes.extend_from_slice(&ticket.proposer.to_le_bytes());
        put_varint(&mut bytes, ticket.number);
        let at = bytes.len();
        bytes.extend_from_slice(&plain[*command_at..]);
        Entry(Arc::new(Inner {
            bytes: bytes.into(),
            time_ms: *time_ms,
            origin: origin.clone(),
            ticket: Some(ticket),
            command: command.clone(),
            command_at: at,
            timing: Timing::begin(),
        }))
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
        let ticket = match version {
            0..=WITHOUT_TICKET => None,
            _ => Some(Ticket::decode(&mut rest).ok_or_else(|| damaged("its ticket is cut short"))?),
        };
        let command_at = bytes.len() - rest.len();
        let command = postcard::from_bytes(rest).map_err(|e| damaged(&e.to_string()))?;
        let timing = Timing::begin();
        Ok(Entry(Arc::new(Inner { bytes, time_ms, origin, ticket, command, command_at, timing })))
    }

    /// Its byte form.
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// Who waits for the answer, if that is another member than the leader that took it in.
    pub fn ticket(&self) -> Option<Ticket> {
        self.0.ticket
    }

    /// When a member took it in, milliseconds since 1970.
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
            Command::Batch(_) => "batch",
            Command::LeaseRecord { .. } => "lease-record",
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
    fn an_entry_written_by_version_3_is_still_read() {
        let plain = Entry::new(Origin::Server, Command::Compact { revision: 3 }, 5);
        let ticket = Ticket { proposer: 0x0102, number: 300 };
        let stored: &[u8] = &[3, 5, 0, 2, 1, 0, 0, 0, 0, 0, 0, 172, 2, 6, 6];
        assert_eq!(&plain.ticketed(ticket).bytes()[..], stored);
        let entry = Entry::decode(Bytes::from_static(stored)).unwrap();
        assert_eq!((entry.ticket(), entry.command(), entry.time_ms()), (Some(ticket), plain.command(), 5));
        let again = Ticket { proposer: 7, number: 1 };
        assert_eq!(
            entry.ticketed(again),
            plain.ticketed(again),
            "a new ticket takes the place of the old one"
        );
        for cut in 4..stored.len() {
            assert!(Entry::decode(Bytes::from_static(&stored[..cut])).is_err());
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
