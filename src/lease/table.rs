//! What is replicated of leases: id, granted TTL, remaining TTL at the last checkpoint. Persisted by the flush.
//!
//! Which keys are attached is in the memtable and the `lease_key` table, written along with the keys themselves.

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
    /// Seconds left at the last checkpoint; 0: none since the grant or last renewal.
    pub remaining_secs: i64,
    /// It came with a key, and ends when no key is attached to it any more.
    pub belongs_to_keys: bool,
}

/// Third field of a row, if there is one.
const BELONGS_TO_KEYS: u64 = 1;

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
    let belongs_to_keys = !value.is_empty() && take_varint(&mut value)? == BELONGS_TO_KEYS;
    let lease = Lease { ttl_secs, remaining_secs, belongs_to_keys };
    Some((LeaseId::from_be_bytes(key.try_into().ok()?), lease))
}

/// Key and value of a lease's row.
pub fn row(id: LeaseId, lease: Option<&Lease>) -> (Vec<u8>, Option<Vec<u8>>) {
    let value = lease.map(|lease| {
        let mut value = Vec::new();
        put_varint(&mut value, lease.ttl_secs as u64);
        put_varint(&mut value, lease.remaining_secs as u64);
        if lease.belongs_to_keys {
            put_varint(&mut value, BELONGS_TO_KEYS);
        }
        value
    });
    (id.to_be_bytes().to_vec(), value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_round_trip(id: LeaseId, ttl_secs: i64, remaining_secs: i64, belongs_to_keys: bool) {
            let lease = Lease { ttl_secs, remaining_secs, belongs_to_keys };
            let (key, value) = row(id, Some(&lease));
            prop_assert_eq!(parse(&key, &value.unwrap()), Some((id, lease)));
        }

        #[test]
        fn foreign_bytes_do_not_panic(key: Vec<u8>, value: Vec<u8>) {
            let _ = parse(&key, &value);
        }
    }
}
