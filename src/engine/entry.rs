//! What a log entry of ours carries: a command, and the time at which the leader took it in.
//!
//! Layout: version (1 byte), time (varint, milliseconds since 1970), command in postcard's format. Persisted and sent to
//! followers as it is; it is encoded once, when proposed.

use super::command::Command;
use super::timing::Timing;
use crate::storage::codec::{put_varint, take_varint};
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// Version of the layout.
const VERSION: u8 = 1;

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
    command: Command,
    timing: Timing,
}

impl Entry {
    /// Encodes `command`, taken in at `time_ms`.
    pub fn new(command: Command, time_ms: u64) -> Entry {
        let mut bytes = vec![VERSION];
        put_varint(&mut bytes, time_ms);
        let bytes = postcard::to_extend(&command, bytes).expect("commands are plain data in memory");
        Entry(Arc::new(Inner { bytes: bytes.into(), time_ms, command, timing: Timing::begin() }))
    }

    /// Decodes what [`Entry::bytes`] gave.
    pub fn decode(bytes: Bytes) -> Result<Entry, Error> {
        let damaged = |what: &str| Error::Damaged(what.to_owned());
        let (&version, mut rest) = bytes.split_first().ok_or_else(|| damaged("it is empty"))?;
        if version > VERSION {
            return Err(Error::NewerVersion(version));
        }
        let time_ms = take_varint(&mut rest).ok_or_else(|| damaged("its time is cut short"))?;
        let command = postcard::from_bytes(rest).map_err(|e| damaged(&e.to_string()))?;
        Ok(Entry(Arc::new(Inner { bytes, time_ms, command, timing: Timing::begin() })))
    }

    /// Its byte form.
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// When the leader took it in, milliseconds since 1970.
    pub fn time_ms(&self) -> u64 {
        self.0.time_ms
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
        let entry = Entry::new(txn.clone(), 300);
        let stored: &[u8] = &[1, 172, 2, 2, 1, 1, b'k', 0, 0, 2, 6, 1, 1, 1, b'k', 1, b'v', 14, 0, 0, 0, 0];
        assert_eq!(&entry.bytes()[..], stored);
        let entry = Entry::decode(Bytes::from_static(stored)).unwrap();
        assert_eq!((entry.command(), entry.time_ms()), (&txn, 300));
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
