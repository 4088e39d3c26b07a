//! Byte forms of keys and values: images of key-value versions, log rows, long keys, blobs. See `docs/storage.md`.
//!
//! The same image bytes are used in the memtable, in `cur` and `log`, and (its `meta` part) on the wire, so that a
//! range response is copied together instead of encoded.

use super::{Error, Result};
use crate::types::Revision;
use bytes::Bytes;
use sha2::{Digest, Sha256};

/// Keys up to this length are LMDB keys as they are. LMDB's own limit with 4 KiB pages is 1982 bytes.
pub const RAW_KEY_MAX: usize = 1900;
/// Bytes of SHA-256 behind the first [`RAW_KEY_MAX`] bytes of a long key.
const LONG_KEY_HASH: usize = 16;
/// Length of the LMDB key of a long key: longer than any raw one, which tells the two apart.
pub const LONG_STORE_KEY: usize = RAW_KEY_MAX + LONG_KEY_HASH;
/// Values above this many bytes are stored once, in `blob`, and referred to from `cur` and `log`.
pub const INLINE_VALUE_MAX: usize = 1024;
/// Bytes in a blob row: two rows fill a 4 KiB leaf page and none needs overflow pages.
pub const BLOB_CHUNK: usize = 2000;

const TOMBSTONE: u8 = 1;
const VALUE_IN_BLOB: u8 = 1 << 1;
const EXPIRED: u8 = 1 << 2;
const STAMPED: u8 = 1 << 3;
const ATTACHED: u8 = 1 << 4;

// Protobuf tags of mvccpb.KeyValue's varint fields.
const TAG_CREATE: u8 = 2 << 3;
const TAG_MOD: u8 = 3 << 3;
const TAG_VERSION: u8 = 4 << 3;
const TAG_LEASE: u8 = 6 << 3;

/// Appends `value` as a protobuf varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a protobuf varint off the front of `bytes`; `None` when it is cut short or too long.
pub fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *bytes = &bytes[i + 1..];
            return Some(value);
        }
    }
    None
}

/// Length of `value` as a varint.
pub fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Takes `len` bytes off the front.
pub fn take_bytes<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, tail) = bytes.split_at_checked(len)?;
    *bytes = tail;
    Some(head)
}

/// What a version of a key says besides its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Meta {
    /// Revision that wrote this version.
    pub modified: Revision,
    /// Revision of the first put of this generation.
    pub create_revision: i64,
    /// Writes since creation, from 1.
    pub version: i64,
    /// Lease that the put named, or 0.
    pub lease: i64,
    /// When it was written; no client of etcd sees it.
    pub stamp: Stamp,
    /// Lease that the key has been attached to since by a call of its own, or 0 for none. `None`: there was no such call,
    /// and the key is attached to `lease`. No client of etcd sees it.
    pub attached: Option<i64>,
}

impl Meta {
    /// The lease that the key ends with, or 0.
    pub fn attachment(&self) -> i64 {
        self.attached.unwrap_or(self.lease)
    }
}

/// When a key was written, milliseconds since 1970 by the clock of the member that took the request in; 0: not known, as of
/// what came in from elsewhere. Never runs backwards for a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stamp {
    /// First put of this generation.
    pub created_ms: u64,
    /// This version.
    pub modified_ms: u64,
}

/// Where the value of an image is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value<'a> {
    /// Here.
    Inline(&'a [u8]),
    /// In `blob` under the revision that wrote it; this many bytes.
    Blob(u64),
}

impl Value<'_> {
    /// Length of the value in bytes.
    #[expect(clippy::len_without_is_empty, reason = "an empty value is nothing special")]
    pub fn len(&self) -> usize {
        match self {
            Value::Inline(bytes) => bytes.len(),
            Value::Blob(len) => usize::try_from(*len).unwrap_or(usize::MAX),
        }
    }
}

/// One version of a key, parsed in place.
///
/// Layout: flags (1), sub (varint), stamp if the flags say so (time of the change as a varint, milliseconds since the
/// creation as another), attached lease if they say so (varint), length of meta (1), meta, value.
/// Meta is the protobuf encoding of `mod_revision`, `create_revision`, `version` and, when not 0, `lease` of
/// `mvccpb.KeyValue`; a tombstone has only `mod_revision`. The value is inline, or in `blob` and then its length (varint).
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    flags: u8,
    /// `mod_revision` and `sub`.
    pub modified: Revision,
    stamp: Stamp,
    attached: Option<i64>,
    meta: &'a [u8],
    /// The value; empty for a tombstone.
    pub value: Value<'a>,
}

impl<'a> Image<'a> {
    /// Parses an image; fails when it can't be one.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Image<'a>> {
        Image::try_parse(bytes).ok_or_else(|| Error::Damaged("an image of a key does not parse".into()))
    }

    fn try_parse(bytes: &'a [u8]) -> Option<Image<'a>> {
        let (&flags, mut rest) = bytes.split_first()?;
        let sub = u32::try_from(take_varint(&mut rest)?).ok()?;
        let mut stamp = Stamp::default();
        if flags & STAMPED != 0 {
            stamp.modified_ms = take_varint(&mut rest)?;
            stamp.created_ms = stamp.modified_ms.checked_sub(take_varint(&mut rest)?)?;
        }
        let attached = if flags & ATTACHED != 0 { Some(take_varint(&mut rest)? as i64) } else { None };
        let (&meta_len, mut rest) = rest.split_first()?;
        let meta = take_bytes(&mut rest, usize::from(meta_len))?;
        let mut fields = meta;
        if take_bytes(&mut fields, 1)? != [TAG_MOD] {
            return None;
        }
        let main = take_varint(&mut fields)? as i64;
        let value = if flags & VALUE_IN_BLOB != 0 {
            Value::Blob(take_varint(&mut rest)?)
        } else {
            Value::Inline(rest)
        };
        Some(Image { flags, modified: Revision::new(main, sub), stamp, attached, meta, value })
    }

    /// Appends its bytes, the value where it is.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(self.flags);
        put_varint(out, u64::from(self.modified.sub));
        push_hidden(out, self.flags, self.stamp, self.attached.unwrap_or(0));
        out.push(self.meta.len() as u8);
        out.extend_from_slice(self.meta);
        match self.value {
            Value::Inline(value) => out.extend_from_slice(value),
            Value::Blob(len) => put_varint(out, len),
        }
    }

    /// Whether this version ends a generation.
    #[inline]
    pub fn is_tombstone(&self) -> bool {
        self.flags & TOMBSTONE != 0
    }

    /// Whether it was ended by the end of its lease rather than by a request for this key.
    pub fn is_expiry(&self) -> bool {
        self.flags & EXPIRED != 0
    }

    /// The protobuf fields of `mvccpb.KeyValue` besides key and value.
    #[inline]
    pub fn wire_meta(&self) -> &'a [u8] {
        self.meta
    }

    /// The same without `lease`, which etcd leaves out of `keys_only` answers (KV-R10).
    pub fn wire_meta_without_lease(&self) -> &'a [u8] {
        let mut fields = self.meta;
        while !fields.is_empty() && fields[0] != TAG_LEASE {
            fields = &fields[1..];
            if take_varint(&mut fields).is_none() {
                return self.meta;
            }
        }
        &self.meta[..self.meta.len() - fields.len()]
    }

    /// The metadata as numbers.
    pub fn meta(&self) -> Meta {
        let (modified, stamp, attached) = (self.modified, self.stamp, self.attached);
        let mut meta = Meta { modified, stamp, attached, ..Meta::default() };
        let mut fields = self.meta;
        while let Some((&tag, rest)) = fields.split_first() {
            fields = rest;
            let Some(value) = take_varint(&mut fields) else { break };
            match tag {
                TAG_CREATE => meta.create_revision = value as i64,
                TAG_VERSION => meta.version = value as i64,
                TAG_LEASE => meta.lease = value as i64,
                _ => {}
            }
        }
        meta
    }
}

/// Builds the image of a live version. The value is inline, however long: [`flushed_image`] moves it out.
pub fn live_image(meta: &Meta, value: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(64 + value.len());
    push_head(&mut out, 0, meta);
    out.extend_from_slice(value);
    Bytes::from(out)
}

/// The image with its key attached to another lease; everything that clients of etcd see stays as it was.
pub fn attached_image(image: &Image<'_>, lease: i64) -> Bytes {
    let mut out = Vec::with_capacity(64 + image.value.len());
    Image { flags: image.flags | ATTACHED, attached: Some(lease), ..*image }.write(&mut out);
    Bytes::from(out)
}

/// Builds the image of a tombstone. It has no stamp: the next generation of the key has one of its own.
pub fn tombstone_image(modified: Revision, expired: bool) -> Bytes {
    let mut out = Vec::with_capacity(16);
    let flags = TOMBSTONE | if expired { EXPIRED } else { 0 };
    push_head(&mut out, flags, &Meta { modified, ..Meta::default() });
    Bytes::from(out)
}

/// What no client of etcd sees, as the flags announce it.
fn push_hidden(out: &mut Vec<u8>, flags: u8, stamp: Stamp, attached: i64) {
    if flags & STAMPED != 0 {
        put_varint(out, stamp.modified_ms);
        put_varint(out, stamp.modified_ms.saturating_sub(stamp.created_ms));
    }
    if flags & ATTACHED != 0 {
        put_varint(out, attached as u64);
    }
}

fn push_head(out: &mut Vec<u8>, flags: u8, meta: &Meta) {
    let is_stamped = meta.stamp != Stamp::default();
    let flags =
        flags | if is_stamped { STAMPED } else { 0 } | if meta.attached.is_some() { ATTACHED } else { 0 };
    out.push(flags);
    put_varint(out, u64::from(meta.modified.sub));
    push_hidden(out, flags, meta.stamp, meta.attached.unwrap_or(0));
    let len_at = out.len();
    out.push(0);
    out.push(TAG_MOD);
    put_varint(out, meta.modified.main as u64);
    if flags & TOMBSTONE == 0 {
        out.push(TAG_CREATE);
        put_varint(out, meta.create_revision as u64);
        out.push(TAG_VERSION);
        put_varint(out, meta.version as u64);
        if meta.lease != 0 {
            out.push(TAG_LEASE);
            put_varint(out, meta.lease as u64);
        }
    }
    out[len_at] = (out.len() - len_at - 1) as u8; // four varints: 44 bytes at most
}

/// The image as it is stored: a value above [`INLINE_VALUE_MAX`] is replaced by its length, and returned for `blob`.
pub fn flushed_image<'a>(bytes: &'a [u8], out: &mut Vec<u8>) -> Result<Option<&'a [u8]>> {
    let image = Image::parse(bytes)?;
    match image.value {
        Value::Inline(value) if value.len() > INLINE_VALUE_MAX => {
            out.push(image.flags | VALUE_IN_BLOB);
            out.extend_from_slice(&bytes[1..bytes.len() - value.len()]);
            put_varint(out, value.len() as u64);
            Ok(Some(value))
        }
        _ => {
            out.extend_from_slice(bytes);
            Ok(None)
        }
    }
}

/// One change in the `log` table.
///
/// Layout: length of the key (varint), key, length of the new image (varint), new image, image before it or nothing.
/// The bytes of a key longer than [`RAW_KEY_MAX`] are in `blob` under the revision of the row.
#[derive(Clone, Copy, Debug)]
pub struct LogRow<'a> {
    /// The key, or only its length when it is a long one.
    pub key: RowKey<'a>,
    /// Image that this change wrote.
    pub new: &'a [u8],
    /// Image that it replaced; empty when there was none.
    pub previous: &'a [u8],
}

/// The key in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RowKey<'a> {
    /// Here.
    Inline(&'a [u8]),
    /// In `blob`, this many bytes.
    Blob(usize),
}

impl<'a> LogRow<'a> {
    /// Parses a row; fails when it can't be one.
    pub fn parse(bytes: &'a [u8]) -> Result<LogRow<'a>> {
        LogRow::try_parse(bytes).ok_or_else(|| Error::Damaged("a row of the log table does not parse".into()))
    }

    fn try_parse(mut bytes: &'a [u8]) -> Option<LogRow<'a>> {
        let key_len = usize::try_from(take_varint(&mut bytes)?).ok()?;
        let key = if key_len > RAW_KEY_MAX {
            RowKey::Blob(key_len)
        } else {
            RowKey::Inline(take_bytes(&mut bytes, key_len)?)
        };
        let new_len = usize::try_from(take_varint(&mut bytes)?).ok()?;
        let new = take_bytes(&mut bytes, new_len)?;
        Some(LogRow { key, new, previous: bytes })
    }

    /// Appends the row of a change. `new` and `previous` must be stored images.
    pub fn encode(key: &[u8], new: &[u8], previous: &[u8], out: &mut Vec<u8>) {
        put_varint(out, key.len() as u64);
        if key.len() <= RAW_KEY_MAX {
            out.extend_from_slice(key);
        }
        put_varint(out, new.len() as u64);
        out.extend_from_slice(new);
        out.extend_from_slice(previous);
    }
}

/// The LMDB key of a user's key: itself, or its first bytes and a hash when it is long.
/// Long keys that share the first [`RAW_KEY_MAX`] bytes are neighbours, behind the bare prefix, in hash order.
pub fn store_key<'k>(key: &'k [u8], buffer: &'k mut [u8; LONG_STORE_KEY]) -> &'k [u8] {
    if key.len() <= RAW_KEY_MAX {
        return key;
    }
    buffer[..RAW_KEY_MAX].copy_from_slice(&key[..RAW_KEY_MAX]);
    buffer[RAW_KEY_MAX..].copy_from_slice(&Sha256::digest(key)[..LONG_KEY_HASH]);
    buffer
}

/// Whether an LMDB key stands for a long key.
pub fn is_long(store_key: &[u8]) -> bool {
    store_key.len() == LONG_STORE_KEY
}

/// LMDB key of a revision: `main` and `sub`, big endian, so that byte order is revision order.
pub fn revision_key(revision: Revision) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&revision.main.to_be_bytes());
    key[8..].copy_from_slice(&revision.sub.to_be_bytes());
    key
}

/// The revision that an LMDB key of `log` stands for.
pub fn parse_revision_key(key: &[u8]) -> Result<Revision> {
    let damaged = || Error::Damaged("a key of the log table has a wrong length".into());
    let (main, sub) = key.split_at_checked(8).ok_or_else(damaged)?;
    Ok(Revision {
        main: i64::from_be_bytes(main.try_into().map_err(|_| damaged())?),
        sub: u32::from_be_bytes(sub.try_into().map_err(|_| damaged())?),
    })
}

/// Which bytes of a change a blob holds. Persisted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlobPart {
    /// The value.
    Value = 0,
    /// The key.
    Key = 1,
}

/// LMDB key of one chunk of a blob.
pub fn blob_key(revision: Revision, part: BlobPart, chunk: u32) -> [u8; 17] {
    let mut key = [0; 17];
    key[..12].copy_from_slice(&revision_key(revision));
    key[12] = part as u8;
    key[13..].copy_from_slice(&chunk.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key_of(key: &[u8]) -> Vec<u8> {
        store_key(key, &mut [0; LONG_STORE_KEY]).to_vec()
    }

    proptest! {
        #[test]
        fn images_round_trip(
            main in 1i64.., sub: u32, create in 1i64.., version in 1i64.., lease: i64,
            times: Option<(u32, u32)>, attached: Option<i64>,
            value in prop::collection::vec(any::<u8>(), 0..3000),
        ) {
            let stamp = times.map_or_else(Stamp::default, |(created, age)| Stamp {
                created_ms: created.into(),
                modified_ms: u64::from(created) + u64::from(age),
            });
            let modified = Revision::new(main, sub);
            let meta = Meta { modified, create_revision: create, version, lease, stamp, attached };
            let bytes = live_image(&meta, &value);
            let image = Image::parse(&bytes).unwrap();
            prop_assert_eq!(image.meta(), meta);
            prop_assert_eq!(image.value, Value::Inline(&value[..]));
            prop_assert!(!image.is_tombstone());
            let mut stored = Vec::new();
            let moved = flushed_image(&bytes, &mut stored).unwrap().map(<[u8]>::to_vec);
            let image = Image::parse(&stored).unwrap();
            prop_assert_eq!(image.meta(), meta);
            prop_assert_eq!(image.value.len(), value.len());
            prop_assert_eq!(moved.is_some(), value.len() > INLINE_VALUE_MAX);
            let without = image.wire_meta_without_lease();
            prop_assert!(image.wire_meta().starts_with(without));
            prop_assert_eq!(without.len() < image.wire_meta().len(), lease != 0);
            let other = attached_image(&image, 77);
            let other = Image::parse(&other).unwrap();
            prop_assert_eq!(other.meta(), Meta { attached: Some(77), ..meta });
            prop_assert_eq!((other.value, other.wire_meta()), (image.value, image.wire_meta()));
        }

        #[test]
        fn an_image_that_is_written_again_is_the_same(bytes: Vec<u8>) {
            if let Ok(image) = Image::parse(&bytes) {
                let mut again = Vec::new();
                image.write(&mut again);
                let again = Image::parse(&again).unwrap();
                prop_assert_eq!((again.meta(), again.value), (image.meta(), image.value));
            }
        }

        #[test]
        fn varints_round_trip(value: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            prop_assert_eq!(take_varint(&mut &out[..]), Some(value));
        }

        #[test]
        fn log_rows_round_trip(key in prop::collection::vec(any::<u8>(), 1..2500), new: Vec<u8>, previous: Vec<u8>) {
            let mut out = Vec::new();
            LogRow::encode(&key, &new, &previous, &mut out);
            let row = LogRow::parse(&out).unwrap();
            prop_assert_eq!(row.new, &new[..]);
            prop_assert_eq!(row.previous, &previous[..]);
            match row.key {
                RowKey::Inline(bytes) => prop_assert_eq!(bytes, &key[..]),
                RowKey::Blob(len) => prop_assert!(len == key.len() && len > RAW_KEY_MAX),
            }
        }

        #[test]
        fn nothing_panics_on_foreign_bytes(bytes: Vec<u8>) {
            let _ = Image::parse(&bytes).map(|i| (i.meta(), i.wire_meta_without_lease().len()));
            let _ = LogRow::parse(&bytes).map(|r| r.new.len());
            let _ = parse_revision_key(&bytes);
        }

        #[test]
        fn store_keys_keep_the_order_up_to_the_shared_prefix(
            a in prop::collection::vec(0u8..2, 1895..1905), b in prop::collection::vec(0u8..2, 1895..1905),
        ) {
            let cut = |k: &[u8]| k[..k.len().min(RAW_KEY_MAX)].to_vec();
            if cut(&a) != cut(&b) {
                prop_assert_eq!(a.cmp(&b), key_of(&a).cmp(&key_of(&b)));
            }
        }
    }

    #[test]
    fn an_image_of_format_2_is_still_read() {
        let stored = [0, 0, 6, 0x18, 2, 0x10, 2, 0x20, 1, b'v'];
        let meta = Meta { modified: Revision::new(2, 0), create_revision: 2, version: 1, ..Meta::default() };
        let image = Image::parse(&stored).unwrap();
        assert_eq!((image.meta(), image.value), (meta, Value::Inline(b"v")));
        assert_eq!(live_image(&meta, b"v"), stored[..]);
    }

    #[test]
    fn a_long_key_sorts_behind_its_bare_prefix_and_before_the_next() {
        let prefix = vec![7u8; RAW_KEY_MAX];
        let mut long = prefix.clone();
        long.push(0);
        let mut next = prefix.clone();
        next[RAW_KEY_MAX - 1] = 8;
        assert!(key_of(&prefix) < key_of(&long) && key_of(&long) < key_of(&next));
        assert!(is_long(&key_of(&long)) && !is_long(&key_of(&prefix)));
    }
}
