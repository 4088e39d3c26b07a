//! A view of the keyspace at one revision: memtables, newest first, over one LMDB read transaction.
//!
//! Which level answers: the newest version at or before the revision found in any memtable, newest memtable first;
//! else the row in `cur`, followed back through the undo images of `log` when it is newer than the revision. LMDB may
//! already hold what a memtable still holds (a flush finished in between): both say the same, so that is harmless.

use super::memtable::{Memtable, Scan};
use super::{Error, Result};
use crate::storage::codec::{
    self, BlobPart, Image, LONG_STORE_KEY, LogRow, RAW_KEY_MAX, Value, blob_key, revision_key, store_key,
};
use crate::storage::schema::Table;
use crate::storage::{self, ReadTxn};
use crate::types::{KeyRange, RangeEnd, Revision};
use bytes::Bytes;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

/// See the module. Holds back page reuse while it lives: keep it short, or reopen it at the same revision.
pub struct Snapshot {
    revision: i64,
    memtables: Vec<Arc<Memtable>>,
    txn: ReadTxn,
}

impl Snapshot {
    pub(super) fn new(revision: i64, memtables: Vec<Arc<Memtable>>, txn: ReadTxn) -> Snapshot {
        Snapshot { revision, memtables, txn }
    }

    /// The revision that it shows.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The image of `key`, unless it does not exist at this revision. Its value may be a blob: see [`Snapshot::value`].
    pub fn get(&self, key: &Bytes) -> Result<Option<Bytes>> {
        Ok(self.newest(key)?.filter(|image| Image::parse(image).is_ok_and(|i| !i.is_tombstone())))
    }

    /// The same, but a tombstone is returned as such.
    pub fn newest(&self, key: &Bytes) -> Result<Option<Bytes>> {
        for memtable in &self.memtables {
            if let Some(image) = memtable.get(key, self.revision) {
                return Ok(Some(image));
            }
        }
        let mut buffer = [0; LONG_STORE_KEY];
        let Some(row) = self.txn.get(Table::Cur, store_key(key, &mut buffer))? else { return Ok(None) };
        Ok(self.as_of(row)?.map(Bytes::copy_from_slice))
    }

    /// Follows the undo images from `image` back to the version at this revision.
    fn as_of<'s>(&'s self, mut image: &'s [u8]) -> Result<Option<&'s [u8]>> {
        loop {
            let modified = Image::parse(image)?.modified;
            if modified.main <= self.revision {
                return Ok(Some(image));
            }
            // Only a compaction beyond our revision can have removed the row.
            let row = self.txn.get(Table::Log, &revision_key(modified))?.ok_or(Error::Compacted)?;
            image = LogRow::parse(row)?.previous;
            if image.is_empty() {
                return Ok(None);
            }
        }
    }

    /// The value of an image that this snapshot returned.
    pub fn value<'i>(&self, image: &Image<'i>) -> Result<Cow<'i, [u8]>> {
        match image.value {
            Value::Inline(bytes) => Ok(Cow::Borrowed(bytes)),
            Value::Blob(_) => {
                let mut out = Vec::with_capacity(image.value.len());
                self.append_value(image, &mut out)?;
                Ok(Cow::Owned(out))
            }
        }
    }

    /// Appends the value of an image that this snapshot returned.
    pub fn append_value(&self, image: &Image<'_>, out: &mut Vec<u8>) -> Result<()> {
        match image.value {
            Value::Inline(bytes) => out.extend_from_slice(bytes),
            Value::Blob(len) => read_blob(&self.txn, image.modified, BlobPart::Value, len as usize, out)?,
        }
        Ok(())
    }

    /// Calls `visit` for each key of `range` that exists, in key order, until it breaks.
    pub fn scan(
        &self,
        range: &KeyRange,
        mut visit: impl FnMut(&[u8], Image<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        if range.end == RangeEnd::Single {
            if let Some(image) = self.get(&range.start)? {
                let _ = visit(&range.start, Image::parse(&image)?)?;
            }
            return Ok(());
        }
        let mut memtables = MergedScan::new(&self.memtables, range, self.revision);
        let mut rows = Rows::new(self, range)?;
        loop {
            let order = match (&memtables.head, &rows.head) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((key, _)), Some((row_key, _))) => key[..].cmp(row_key),
            };
            let flow = if order == Ordering::Greater {
                let (key, image) = rows.head.take().expect("the order says so");
                match self.as_of(image)? {
                    Some(image) => visit_live(&key, image, &mut visit)?,
                    None => ControlFlow::Continue(()),
                }
            } else {
                let (key, image) = memtables.head.take().expect("the order says so");
                visit_live(&key, &image, &mut visit)?
            };
            if flow.is_break() {
                return Ok(());
            }
            if order != Ordering::Greater {
                memtables.advance();
            }
            if order != Ordering::Less {
                rows.advance()?;
            }
        }
    }
}

fn visit_live(
    key: &[u8],
    image: &[u8],
    visit: &mut impl FnMut(&[u8], Image<'_>) -> Result<ControlFlow<()>>,
) -> Result<ControlFlow<()>> {
    let image = Image::parse(image)?;
    if image.is_tombstone() { Ok(ControlFlow::Continue(())) } else { visit(key, image) }
}

/// Appends a whole blob. Missing chunks mean that a compaction went past the reader.
pub(super) fn read_blob(
    txn: &ReadTxn,
    revision: Revision,
    part: BlobPart,
    len: usize,
    out: &mut Vec<u8>,
) -> Result<()> {
    let from = out.len();
    let (first, last) = (blob_key(revision, part, 0), blob_key(revision, part, u32::MAX));
    for row in txn.range(Table::Blob, Bound::Included(&first), Bound::Included(&last))? {
        out.extend_from_slice(row?.1);
    }
    if out.len() - from == len { Ok(()) } else { Err(Error::Compacted) }
}

/// Several memtables as one: the newest one that has a key wins.
struct MergedScan<'m> {
    scans: Vec<std::iter::Peekable<Scan<'m>>>,
    head: Option<(Bytes, Bytes)>,
}

impl<'m> MergedScan<'m> {
    fn new(memtables: &'m [Arc<Memtable>], range: &KeyRange, revision: i64) -> MergedScan<'m> {
        let scans = memtables.iter().map(|m| m.scan(range, revision).peekable()).collect();
        let mut merged = MergedScan { scans, head: None };
        merged.advance();
        merged
    }

    fn advance(&mut self) {
        let least = self.scans.iter_mut().filter_map(|s| s.peek().map(|(key, _)| key.clone())).min();
        let Some(least) = least else {
            self.head = None;
            return;
        };
        self.head = None;
        for scan in &mut self.scans {
            let item = scan.next_if(|(key, _)| *key == least);
            if self.head.is_none() {
                self.head = item;
            }
        }
    }
}

type BoxedRows<'s> = Box<dyn Iterator<Item = storage::Result<(&'s [u8], &'s [u8])>> + 's>;

/// Rows of `cur` in the order of the users' keys: long keys that share a prefix are sorted among themselves.
struct Rows<'s> {
    snapshot: &'s Snapshot,
    rows: BoxedRows<'s>,
    range: KeyRange,
    /// A row read ahead while collecting long keys.
    ahead: Option<(&'s [u8], &'s [u8])>,
    /// Long keys of one prefix, in descending order.
    bucket: Vec<(Vec<u8>, &'s [u8])>,
    head: Option<(Cow<'s, [u8]>, &'s [u8])>,
}

impl<'s> Rows<'s> {
    fn new(snapshot: &'s Snapshot, range: &KeyRange) -> Result<Rows<'s>> {
        let (start, end) = row_bounds(range);
        let rows = snapshot.txn.range(Table::Cur, start, end.as_ref().map(|e| &e[..]))?;
        let mut rows = Rows {
            snapshot,
            rows: Box::new(rows),
            range: range.clone(),
            ahead: None,
            bucket: Vec::new(),
            head: None,
        };
        rows.advance()?;
        Ok(rows)
    }

    fn advance(&mut self) -> Result<()> {
        self.head = None;
        if let Some((key, image)) = self.bucket.pop() {
            self.head = Some((Cow::Owned(key), image));
            return Ok(());
        }
        while let Some((key, image)) = self.next_row()? {
            if !codec::is_long(key) {
                // Only a long start key can have a raw key below it inside the bounds: its own prefix.
                if key >= &self.range.start[..] {
                    self.head = Some((Cow::Borrowed(key), image));
                    return Ok(());
                }
                continue;
            }
            self.fill_bucket(key, image)?;
            if let Some((key, image)) = self.bucket.pop() {
                self.head = Some((Cow::Owned(key), image));
                return Ok(());
            }
        }
        Ok(())
    }

    fn next_row(&mut self) -> Result<Option<(&'s [u8], &'s [u8])>> {
        match self.ahead.take() {
            Some(row) => Ok(Some(row)),
            None => Ok(self.rows.next().transpose()?),
        }
    }

    fn fill_bucket(&mut self, first: &'s [u8], image: &'s [u8]) -> Result<()> {
        let prefix = &first[..RAW_KEY_MAX];
        let mut row = Some((first, image));
        while let Some((key, image)) = row {
            if !(codec::is_long(key) && key.starts_with(prefix)) {
                self.ahead = Some((key, image));
                break;
            }
            let key = self.snapshot.long_key(image)?;
            if self.range.contains(&key) {
                self.bucket.push((key, image));
            }
            row = self.rows.next().transpose()?;
        }
        self.bucket.sort_unstable_by(|a, b| b.0.cmp(&a.0));
        Ok(())
    }
}

impl Snapshot {
    /// The whole key of a row whose LMDB key is a hashed one.
    fn long_key(&self, image: &[u8]) -> Result<Vec<u8>> {
        let modified = Image::parse(image)?.modified;
        let row = self.txn.prefix(Table::Blob, &blob_key(modified, BlobPart::Key, 0)[..13])?;
        let mut key = Vec::new();
        for chunk in row {
            key.extend_from_slice(chunk?.1);
        }
        Ok(key)
    }
}

/// Bounds of the LMDB rows that can hold keys of `range`; a superset when an end is a long key.
fn row_bounds(range: &KeyRange) -> (Bound<&[u8]>, Bound<Vec<u8>>) {
    let start = match &range.start[..range.start.len().min(RAW_KEY_MAX)] {
        [] => Bound::Unbounded, // LMDB knows no empty key
        key => Bound::Included(key),
    };
    let end = match &range.end {
        RangeEnd::Single => Bound::Included(range.start.to_vec()),
        RangeEnd::Unbounded => Bound::Unbounded,
        RangeEnd::Before(end) if end.len() <= RAW_KEY_MAX => Bound::Excluded(end.to_vec()),
        RangeEnd::Before(end) => {
            let mut last = end[..RAW_KEY_MAX].to_vec();
            last.resize(LONG_STORE_KEY, 0xff);
            Bound::Included(last)
        }
    };
    (start, end)
}
