//! What is replicated of leases: id, granted TTL, and since when they run if that was recorded. Persisted by the flush.
//!
//! Which keys are attached is in the memtable and the `lease_key` table, written along with the keys themselves.

use super::clock::ORIGIN_MS;
use crate::storage::codec::{put_varint, take_varint};
use crate::storage::schema::Table;
use crate::storage::{Error, ReadTxn};
use crate::types::LeaseId;
use std::collections::BTreeMap;

/// One lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Seconds granted.
    pub ttl_secs: i64,
    /// When it was renewed last, as far as that was recorded, on the clock of leases ([`super::clock`]).
    pub since_ms: Option<u64>,
    /// It came with a key, and ends when no key is attached to it any more.
    pub belongs_to_keys: bool,
}

impl Lease {
    /// Begins at `now_ms` with a part of its TTL gone; all of it is left if `remaining_secs` is not between 1 and the TTL.
    pub fn with_remaining(self, remaining_secs: i64, now_ms: u64) -> Lease {
        let gone_secs = self.ttl_secs.saturating_sub(remaining_secs);
        let is_part = remaining_secs > 0 && gone_secs >= 0;
        let gone_ms = gone_secs.unsigned_abs().saturating_mul(1_000);
        Lease { since_ms: is_part.then(|| now_ms.saturating_sub(gone_ms)), ..self }
    }

    /// Seconds left at `now_ms`, rounded up and at least 1; 0: nothing was recorded.
    pub fn remaining_secs(&self, now_ms: u64) -> i64 {
        let Some(since_ms) = self.since_ms else { return 0 };
        let gone_secs = i64::try_from(now_ms.saturating_sub(since_ms) / 1_000).unwrap_or(i64::MAX);
        self.ttl_secs.saturating_sub(gone_secs).max(1)
    }
}

/// Bits of the third field of a row, if there is one.
const BELONGS_TO_KEYS: u64 = 1;
/// A fourth field says since when it runs.
const HAS_SINCE: u64 = 2;

/// All leases.
pub type Leases = BTreeMap<LeaseId, Lease>;

/// Reads the table.
pub fn load(txn: &ReadTxn) -> Result<Leases, Error> {
    rows(txn)?.collect()
}

/// The rows of the table, in order of the id's bytes.
pub fn rows(txn: &ReadTxn) -> Result<impl Iterator<Item = Result<(LeaseId, Lease), Error>>, Error> {
    let damaged = || Error::Damaged("a row of the lease table".into());
    Ok(txn.all(Table::Lease)?.map(move |row| {
        let (key, value) = row?;
        parse(key, value).ok_or_else(damaged)
    }))
}

fn parse(key: &[u8], mut value: &[u8]) -> Option<(LeaseId, Lease)> {
    let ttl_secs = take_varint(&mut value)? as i64;
    let remaining_secs = take_varint(&mut value)? as i64;
    let flags = if value.is_empty() { 0 } else { take_varint(&mut value)? };
    let belongs_to_keys = flags & BELONGS_TO_KEYS != 0;
    let mut lease = Lease { ttl_secs, since_ms: None, belongs_to_keys };
    if flags & HAS_SINCE != 0 {
        lease.since_ms = Some(take_varint(&mut value)?);
    } else {
        lease = lease.with_remaining(remaining_secs, ORIGIN_MS);
    }
    Some((LeaseId::from_be_bytes(key.try_into().ok()?), lease))
}

/// Key and value of a lease's row. The second field was the remaining TTL up to format 3, when there was no clock.
pub fn row(id: LeaseId, lease: Option<&Lease>) -> (Vec<u8>, Option<Vec<u8>>) {
    let value = lease.map(|lease| {
        let mut value = Vec::new();
        put_varint(&mut value, lease.ttl_secs as u64);
        put_varint(&mut value, 0);
        let belongs = if lease.belongs_to_keys { BELONGS_TO_KEYS } else { 0 };
        let flags = belongs | lease.since_ms.map_or(0, |_| HAS_SINCE);
        if flags != 0 {
            put_varint(&mut value, flags);
        }
        if let Some(since_ms) = lease.since_ms {
            put_varint(&mut value, since_ms);
        }
        value
    });
    (id.to_be_bytes().to_vec(), value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rows_of_format_3_are_still_read() {
        let parsed = |value: &[u8]| parse(&7i64.to_be_bytes(), value).unwrap().1;
        let lease = Lease { ttl_secs: 60, since_ms: None, belongs_to_keys: false };
        assert_eq!(parsed(&[60, 0]), lease);
        assert_eq!(parsed(&[60, 0, 1]), Lease { belongs_to_keys: true, ..lease });
        assert_eq!(parsed(&[60, 20]), Lease { since_ms: Some(ORIGIN_MS - 40_000), ..lease });
    }

    #[test]
    fn what_is_left_is_rounded_up_and_never_nothing() {
        let lease = |since_ms| Lease { ttl_secs: 60, since_ms, belongs_to_keys: false };
        assert_eq!(lease(None).remaining_secs(5_000), 0);
        let left = |now_ms| lease(Some(5_000)).remaining_secs(now_ms);
        assert_eq!([0, 5_999, 6_000, 64_001, 65_000, u64::MAX].map(left), [60, 60, 59, 1, 1, 1]);
        let since = |remaining_secs| lease(None).with_remaining(remaining_secs, 100_000).since_ms;
        assert_eq!([0, 1, 60, 61, -1].map(since), [None, Some(41_000), Some(100_000), None, None]);
    }

    proptest! {
        #[test]
        fn rows_round_trip(id: LeaseId, ttl_secs: i64, since_ms: Option<u64>, belongs_to_keys: bool) {
            let lease = Lease { ttl_secs, since_ms, belongs_to_keys };
            let (key, value) = row(id, Some(&lease));
            prop_assert_eq!(parse(&key, &value.unwrap()), Some((id, lease)));
        }

        #[test]
        fn foreign_bytes_do_not_panic(key: Vec<u8>, value: Vec<u8>) {
            let _ = parse(&key, &value);
        }
    }
}
