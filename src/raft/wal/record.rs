//! One record of the log: its bytes, and nothing about where they live.
//!
//! ```text
//!  0 header crc u32   over bytes 4..48, started with the segment's salt
//!  4 payload crc u32  over the payload, unsalted: made by the proposer, covered by the header's
//!  8 payload length u32
//! 12 kind u8, three zero bytes
//! 16 group u64        the fdatasync that made it durable; never falls along a segment
//! 24 term u64, 32 index u64
//! 40 group start u64  offset in the segment of the group's first record
//! 48 payload, then zeros up to a multiple of eight
//! ```
//! All numbers are little-endian. No segment shares its salt with another life of the same file, so bytes that
//! an earlier life left behind never validate; and a payload cannot forge a header without knowing the salt.
//! Called by the log thread (seal), recovery and reads (decode), and the fuzz target.

use super::LogId;

/// Bytes in front of each payload.
pub const HEADER_BYTES: usize = 48;
/// Largest payload; larger ones are refused when appended.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 30;
/// Records begin at multiples of this.
pub(super) const ALIGN: u64 = 8;

/// What a record says. The numbers are on disk: they never change meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// An entry of the raft log.
    Entry = 1,
    /// The vote, opaque.
    Vote = 2,
    /// The committed log id, a hint that may be lost.
    Committed = 3,
    /// Entries after this log id are gone.
    Truncate = 4,
    /// All entries that are not purged are gone.
    TruncateAll = 5,
    /// Entries up to this log id are in a snapshot and gone.
    Purge = 6,
    /// First record of a segment: all that the segments before it established.
    State = 7,
}

impl Kind {
    fn from_ordinal(ordinal: u32) -> Option<Kind> {
        Some(match ordinal {
            1 => Kind::Entry,
            2 => Kind::Vote,
            3 => Kind::Committed,
            4 => Kind::Truncate,
            5 => Kind::TruncateAll,
            6 => Kind::Purge,
            7 => Kind::State,
            _ => return None,
        })
    }
}

/// The checked fixed part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the record says.
    pub kind: Kind,
    /// Zero unless the kind has one.
    pub log_id: LogId,
    /// Length of the payload in bytes.
    pub payload_len: u32,
    /// Checksum of the payload.
    pub payload_crc: u32,
    /// Number of the group it was written with.
    pub group: u64,
    /// Where that group begins in the segment.
    pub group_start: u64,
}

impl Header {
    /// Bytes from this record's begin to the next one's.
    pub fn record_bytes(&self) -> u64 {
        record_bytes(self.payload_len as usize)
    }
}

/// A record that passed its checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The fixed part.
    pub header: Header,
    /// The rest.
    pub payload: &'a [u8],
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Fewer bytes than the record says it has.
    #[error("the record is cut short")]
    Short,
    /// The fixed part fails its checksum or makes no sense.
    #[error("the record header fails its check")]
    Header,
    /// The payload fails its checksum.
    #[error("the record payload fails its check")]
    Payload,
}

/// Size on disk of a record with such a payload.
pub(super) fn record_bytes(payload_len: usize) -> u64 {
    ((HEADER_BYTES + payload_len) as u64).next_multiple_of(ALIGN)
}

/// Decodes the record at the begin of `bytes`; never panics, whatever they are.
pub fn decode(bytes: &[u8], salt: u32) -> Result<Record<'_>, Malformed> {
    let header = decode_header(bytes, salt)?;
    let end = HEADER_BYTES + header.payload_len as usize;
    let payload = bytes.get(HEADER_BYTES..end).ok_or(Malformed::Short)?;
    if crc32c::crc32c(payload) != header.payload_crc {
        return Err(Malformed::Payload);
    }
    Ok(Record { header, payload })
}

/// Decodes only the fixed part.
pub fn decode_header(bytes: &[u8], salt: u32) -> Result<Header, Malformed> {
    let bytes = bytes.get(..HEADER_BYTES).ok_or(Malformed::Short)?;
    let kind = Kind::from_ordinal(u32_at(bytes, 12)).ok_or(Malformed::Header)?;
    if u32_at(bytes, 0) != crc32c::crc32c_append(salt, &bytes[4..]) {
        return Err(Malformed::Header);
    }
    let header = Header {
        kind,
        log_id: LogId { term: u64_at(bytes, 24), index: u64_at(bytes, 32) },
        payload_len: u32_at(bytes, 8),
        payload_crc: u32_at(bytes, 4),
        group: u64_at(bytes, 16),
        group_start: u64_at(bytes, 40),
    };
    if header.payload_len as usize > PAYLOAD_BYTES_MAX { Err(Malformed::Header) } else { Ok(header) }
}

/// Whether a header could begin here: the cheap part of its check, for scans over every position.
pub(super) fn looks_like_header(bytes: &[u8]) -> bool {
    Kind::from_ordinal(u32_at(bytes, 12)).is_some()
}

/// Appends a record whose payload `fill` writes. It lacks what only the log thread knows: see [`seal`].
pub(super) fn encode(buf: &mut Vec<u8>, kind: Kind, log_id: LogId, fill: impl FnOnce(&mut Vec<u8>)) -> usize {
    let start = buf.len();
    buf.resize(start + HEADER_BYTES, 0);
    fill(buf);
    let payload_len = buf.len().saturating_sub(start + HEADER_BYTES);
    let crc = crc32c::crc32c(&buf[start + HEADER_BYTES..]);
    // A length that does not fit is refused by the caller, which gets it back.
    let stored_len = u32::try_from(payload_len).unwrap_or(u32::MAX);
    let header = &mut buf[start..start + HEADER_BYTES];
    header[4..8].copy_from_slice(&crc.to_le_bytes());
    header[8..12].copy_from_slice(&stored_len.to_le_bytes());
    header[12] = kind as u8;
    header[24..32].copy_from_slice(&log_id.term.to_le_bytes());
    header[32..40].copy_from_slice(&log_id.index.to_le_bytes());
    buf.resize(buf.len().next_multiple_of(ALIGN as usize), 0);
    payload_len
}

/// Completes an encoded record with its group and the salted checksum.
pub(super) fn seal(record: &mut [u8], salt: u32, group: u64, group_start: u64) {
    record[16..24].copy_from_slice(&group.to_le_bytes());
    record[40..48].copy_from_slice(&group_start.to_le_bytes());
    let crc = crc32c::crc32c_append(salt, &record[4..HEADER_BYTES]);
    record[..4].copy_from_slice(&crc.to_le_bytes());
}

/// Reads the header of a record that [`encode`] made in this process and that is not sealed yet.
pub(super) fn unsealed(record: &[u8]) -> Option<(Kind, LogId, u32)> {
    let kind = Kind::from_ordinal(u32_at(record, 12))?;
    Some((kind, LogId { term: u64_at(record, 24), index: u64_at(record, 32) }, u32_at(record, 8)))
}

/// The number at `at`; the caller has checked that it is there.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

/// The number at `at`; the caller has checked that it is there.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk))
}
