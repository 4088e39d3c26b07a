//! A row of etcd's `key` bucket: `main _ sub [t]`, big endian, and a `mvccpb.KeyValue`. Pure.

use crate::pb::mvccpb::KeyValue;
use crate::storage::codec::Meta;
use crate::types::Revision;
use prost::Message;

/// Bytes of a revision in the bucket: two numbers and a line between them.
const REVISION_BYTES: usize = 17;
/// Follows the revision of a tombstone.
const TOMBSTONE: u8 = b't';

/// One version of a key, as etcd stores it.
#[derive(Clone, PartialEq, Debug)]
pub struct Record {
    /// The key. Empty, together with everything else but the revision: a mark that only moves the revision on, which
    /// `etcdutl snapshot restore --bump-revision` leaves.
    pub key: Vec<u8>,
    /// Its revisions, version and lease.
    pub meta: Meta,
    /// The value; `None` for a tombstone.
    pub value: Option<Vec<u8>>,
}

impl Record {
    /// Whether it only moves the revision on.
    pub fn is_mark(&self) -> bool {
        self.key.is_empty()
    }

    /// Reads a row; says what is wrong with it.
    pub fn parse(row_key: &[u8], row_value: &[u8]) -> Result<Record, String> {
        let (revision, is_tombstone) =
            revision(row_key).ok_or_else(|| format!("its key {} is no revision", hex(row_key)))?;
        let is_in_range = revision.main > 0;
        if !is_in_range {
            return Err(format!("revision {revision} is out of range"));
        }
        let meta = Meta { modified: revision, ..Meta::default() };
        if row_value.is_empty() {
            return Ok(Record { key: Vec::new(), meta, value: Some(Vec::new()) });
        }
        let pair = KeyValue::decode(row_value).map_err(|e| format!("revision {revision}: {e}"))?;
        if pair.key.is_empty() {
            return Err(format!("revision {revision} has no key"));
        }
        let meta = Meta {
            create_revision: pair.create_revision,
            version: pair.version,
            lease: pair.lease,
            modified: revision,
            ..Meta::default()
        };
        if is_tombstone {
            let meta = Meta { modified: revision, ..Meta::default() };
            return Ok(Record { key: pair.key, meta, value: None });
        }
        if pair.mod_revision != revision.main || pair.create_revision > revision.main || pair.version < 1 {
            return Err(format!("revision {revision} contradicts the pair that it holds"));
        }
        Ok(Record { key: pair.key, meta, value: Some(pair.value) })
    }
}

/// The revision in a row's key, and whether it is of a tombstone.
pub fn revision(row_key: &[u8]) -> Option<(Revision, bool)> {
    let (digits, rest) = row_key.split_at_checked(REVISION_BYTES)?;
    let is_tombstone = match rest {
        [] => false,
        [TOMBSTONE] => true,
        _ => return None,
    };
    let number = |bytes: &[u8]| bytes.try_into().ok().map(i64::from_be_bytes);
    let (main, sub) = (number(&digits[..8])?, number(&digits[9..])?);
    (digits[8] == b'_').then_some(())?;
    Some((Revision::new(main, u32::try_from(sub).ok()?), is_tombstone))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(32).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row_key(main: i64, sub: i64, tail: &[u8]) -> Vec<u8> {
        [&main.to_be_bytes()[..], b"_", &sub.to_be_bytes(), tail].concat()
    }

    #[test]
    fn pairs_tombstones_and_marks_are_told_apart() {
        let pair = KeyValue {
            key: b"k".to_vec(),
            value: b"v".to_vec(),
            create_revision: 3,
            mod_revision: 7,
            version: 2,
            lease: -9,
        };
        let record = Record::parse(&row_key(7, 1, b""), &pair.encode_to_vec()).unwrap();
        let meta = Meta {
            modified: Revision::new(7, 1),
            create_revision: 3,
            version: 2,
            lease: -9,
            ..Meta::default()
        };
        assert_eq!(record, Record { key: b"k".to_vec(), meta, value: Some(b"v".to_vec()) });
        let gone = KeyValue { key: b"k".to_vec(), ..KeyValue::default() };
        let record = Record::parse(&row_key(8, 0, b"t"), &gone.encode_to_vec()).unwrap();
        assert_eq!((record.value, record.meta.version, record.meta.modified.main), (None, 0, 8));
        assert!(Record::parse(&row_key(1000, 0, b""), b"").unwrap().is_mark());
    }

    #[test]
    fn contradictions_are_named() {
        let pair = KeyValue { key: b"k".to_vec(), mod_revision: 7, version: 1, ..KeyValue::default() };
        let pair = pair.encode_to_vec();
        let error = |key: &[u8], value: &[u8]| Record::parse(key, value).unwrap_err();
        assert_eq!(error(b"short", &pair), "its key 73686f7274 is no revision");
        assert_eq!(error(&row_key(8, 0, b""), &pair), "revision 8.0 contradicts the pair that it holds");
        assert_eq!(error(&row_key(-1, 0, b""), &pair), "revision -1.0 is out of range");
        assert_eq!(error(&row_key(8, 0, b"t"), &[0x20, 1]), "revision 8.0 has no key");
        assert!(error(&row_key(8, 0, b""), &[0xff]).contains("revision 8.0: "));
    }

    proptest! {
        #[test]
        fn foreign_bytes_do_not_panic(key: Vec<u8>, main: i64, sub: i64, value: Vec<u8>) {
            let _ = Record::parse(&key, &value);
            let _ = Record::parse(&row_key(main, sub, b""), &value);
        }
    }
}
