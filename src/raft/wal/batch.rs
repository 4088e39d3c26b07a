//! A batch: records encoded by the proposer, in the order in which they take effect.
//!
//! Payload checksums are computed here, on the proposer's thread, so that the one log thread only copies and
//! seals. A batch is not atomic: a crash may keep a prefix of its records. Called by the raft log store.

use super::LogId;
use super::record::{self, Kind, PAYLOAD_BYTES_MAX};

/// Records to be appended together; empty until filled.
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) bytes: Vec<u8>,
    /// A payload was larger than a record can hold: the whole batch will be refused.
    pub(super) oversized: bool,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// An empty batch with room for `bytes` of records.
    pub fn with_capacity(bytes: usize) -> Batch {
        Batch { bytes: Vec::with_capacity(bytes), oversized: false }
    }

    /// Appends an entry; `fill` must only append to the buffer, which holds other things before it.
    pub fn entry(&mut self, log_id: LogId, fill: impl FnOnce(&mut Vec<u8>)) -> &mut Batch {
        self.record(Kind::Entry, log_id, fill)
    }

    /// Replaces the vote.
    pub fn vote(&mut self, vote: &[u8]) -> &mut Batch {
        self.record(Kind::Vote, LogId::default(), |buf| buf.extend_from_slice(vote))
    }

    /// Notes how far the log is committed.
    pub fn committed(&mut self, log_id: LogId) -> &mut Batch {
        self.record(Kind::Committed, log_id, |_| ())
    }

    /// Drops the entries after `log_id`, or all that are not purged.
    pub fn truncate_after(&mut self, log_id: Option<LogId>) -> &mut Batch {
        match log_id {
            Some(log_id) => self.record(Kind::Truncate, log_id, |_| ()),
            None => self.record(Kind::TruncateAll, LogId::default(), |_| ()),
        }
    }

    /// Drops the entries up to and with `log_id`, which may lie beyond the last one (a snapshot was installed).
    pub fn purge(&mut self, log_id: LogId) -> &mut Batch {
        self.record(Kind::Purge, log_id, |_| ())
    }

    /// Bytes that this batch takes in the log.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    fn record(&mut self, kind: Kind, log_id: LogId, fill: impl FnOnce(&mut Vec<u8>)) -> &mut Batch {
        self.oversized |= record::encode(&mut self.bytes, kind, log_id, fill) > PAYLOAD_BYTES_MAX;
        self
    }

    /// The records one after the other, as slices of their full size.
    pub(super) fn records(&self) -> impl Iterator<Item = Unsealed<'_>> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (kind, log_id, payload_len) = record::unsealed(rest)?;
            let size = usize::try_from(record::record_bytes(payload_len as usize)).ok()?;
            let (bytes, behind) = rest.split_at_checked(size)?;
            rest = behind;
            Some(Unsealed { kind, log_id, bytes, payload_len: payload_len as usize })
        })
    }
}

/// A record of a batch before the log thread seals it.
pub(super) struct Unsealed<'a> {
    pub kind: Kind,
    pub log_id: LogId,
    pub bytes: &'a [u8],
    payload_len: usize,
}

impl Unsealed<'_> {
    pub fn payload(&self) -> &[u8] {
        &self.bytes[record::HEADER_BYTES..record::HEADER_BYTES + self.payload_len]
    }
}
