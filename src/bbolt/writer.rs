//! Writing a new bbolt file: buckets one after the other, their pairs in key order. Memory: a page for each level of the
//! tree, and the pairs of one leaf.
//!
//! ```text
//!   put k1 k2 k3 ...        level 1:  branch        the first keys of the pages below; written when full
//!                                    /      \
//!                           level 0: leaf   leaf    written as they fill, each behind the last
//! ```
//!
//! Pages are numbered in the order in which they are written, so the file grows at its end only; the meta pages come
//! last. As bbolt does, a page takes two elements at least, and goes on in overflow pages if they are large. No freelist is
//! written, since no page is free; etcd's own files have none either.

use super::format::{
    BRANCH, BRANCH_ELEMENT, BUCKET_HEAD, Head, IS_BUCKET, LEAF, LEAF_ELEMENT, Meta, NO_FREELIST, PAGE_HEAD,
};
use super::{Error, KEY_MAX, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

/// Bytes in a page of a file that we write: what most machines have. bbolt reads the size from the file.
pub const PAGE_SIZE: u32 = 4096;
/// Elements that a page takes whatever their size.
const ELEMENTS_MIN: usize = 2;
/// Longest value that bbolt takes, in bytes.
const VALUE_MAX: usize = (1 << 31) - 2;
const BUFFER: usize = 256 << 10;

/// A file in the making.
pub struct Writer {
    out: BufWriter<File>,
    next_page: u64,
    /// Finished buckets and their values.
    buckets: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Writer {
    /// Begins a database in `file`, which must be empty and open for reading and writing.
    pub fn new(mut file: File) -> Result<Writer> {
        file.seek(SeekFrom::Start(2 * u64::from(PAGE_SIZE)))?;
        Ok(Writer { out: BufWriter::with_capacity(BUFFER, file), next_page: 2, buckets: BTreeMap::new() })
    }

    /// Begins a bucket; the one before it must have been finished. Names come in any order, each once.
    pub fn bucket(&mut self, name: &[u8]) -> Result<BucketWriter<'_>> {
        check_key(name)?;
        if self.buckets.contains_key(name) {
            return Err(Error::Unsorted);
        }
        let levels = vec![Level::new(LEAF)];
        Ok(BucketWriter { writer: self, name: name.to_vec(), levels, last: Vec::new(), flag: 0 })
    }

    /// Writes what is left, and the meta pages; the file and its length. Nothing is synced.
    pub fn finish(mut self) -> Result<(File, u64)> {
        let buckets = std::mem::take(&mut self.buckets);
        let levels = vec![Level::new(LEAF)];
        let mut root =
            BucketWriter { writer: &mut self, name: Vec::new(), levels, last: Vec::new(), flag: IS_BUCKET };
        for (name, value) in &buckets {
            root.put(name, value)?;
        }
        let root = match root.close()? {
            Some(page) => page,
            None => self.page(LEAF, 0, &[])?,
        };
        let file = self.out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        for txid in [0, 1] {
            let meta =
                Meta { page_size: PAGE_SIZE, root, freelist: NO_FREELIST, pages: self.next_page, txid };
            let mut page = vec![0; PAGE_SIZE as usize];
            meta.write_page(&mut page);
            file.write_all_at(&page, txid * u64::from(PAGE_SIZE))?;
        }
        Ok((file, self.next_page * u64::from(PAGE_SIZE)))
    }

    /// Writes a page whose bytes behind the head are `body`, with its overflow; its number.
    fn page(&mut self, kind: u16, count: usize, body: &[u8]) -> Result<u64> {
        let page_size = PAGE_SIZE as usize;
        let used = PAGE_HEAD + body.len();
        let pages = used.div_ceil(page_size);
        let id = self.next_page;
        let too_large = |_| Error::TooLarge;
        let count = u16::try_from(count).map_err(|_| Error::TooLarge)?;
        let overflow = u32::try_from(pages - 1).map_err(too_large)?;
        self.out.write_all(&Head { id, kind, count, overflow }.to_bytes())?;
        self.out.write_all(body)?;
        let padding = [0; PAGE_SIZE as usize];
        self.out.write_all(&padding[..pages * page_size - used])?;
        self.next_page += pages as u64;
        Ok(id)
    }
}

fn check_key(key: &[u8]) -> Result<()> {
    if key.is_empty() || key.len() > KEY_MAX { Err(Error::TooLarge) } else { Ok(()) }
}

/// A bucket in the making.
pub struct BucketWriter<'w> {
    writer: &'w mut Writer,
    name: Vec<u8>,
    /// Pages that are not full yet: the leaf, then the branches above it, the root last.
    levels: Vec<Level>,
    last: Vec<u8>,
    /// Flags of its elements.
    flag: u32,
}

impl BucketWriter<'_> {
    /// Adds a pair. Its key must be above the one before it.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        check_key(key)?;
        if value.len() > VALUE_MAX {
            return Err(Error::TooLarge);
        }
        if !self.last.is_empty() && self.last[..] >= *key {
            return Err(Error::Unsorted);
        }
        self.last.clear();
        self.last.extend_from_slice(key);
        self.add(0, Element { key: key.to_vec(), value: value.to_vec(), number: u64::from(self.flag) })
    }

    /// Writes what is left of the bucket.
    pub fn finish(mut self) -> Result<()> {
        let name = std::mem::take(&mut self.name);
        let (root, inline) = match self.close()? {
            Some(page) => (page, Vec::new()),
            // An empty bucket is inline, as in bbolt.
            None => (0, Head { id: 0, kind: LEAF, count: 0, overflow: 0 }.to_bytes().to_vec()),
        };
        let mut value = Vec::with_capacity(BUCKET_HEAD + inline.len());
        value.extend_from_slice(&root.to_le_bytes());
        value.extend_from_slice(&0u64.to_le_bytes());
        value.extend_from_slice(&inline);
        self.writer.buckets.insert(name, value);
        Ok(())
    }

    fn add(&mut self, level: usize, element: Element) -> Result<()> {
        self.levels[level].push(element);
        while let Some(count) = self.levels[level].overfull() {
            self.write(level, count)?;
        }
        Ok(())
    }

    /// Writes the first `count` elements of a level as a page, and tells the level above.
    fn write(&mut self, level: usize, count: usize) -> Result<()> {
        let (kind, body, first) = self.levels[level].take(count);
        let page = self.writer.page(kind, count, &body)?;
        if self.levels.len() == level + 1 {
            self.levels.push(Level::new(BRANCH));
        }
        self.add(level + 1, Element { key: first, value: Vec::new(), number: page })
    }

    /// Writes what is left, from the leaf up; the page of the root, or `None` if there is nothing.
    fn close(&mut self) -> Result<Option<u64>> {
        let mut level = 0;
        loop {
            let count = self.levels[level].elements.len();
            let is_top = level + 1 == self.levels.len();
            match (count, is_top) {
                (0, true) => return Ok(None),
                (1, true) if level > 0 => return Ok(Some(self.levels[level].elements[0].number)),
                (0, false) => {}
                _ => self.write(level, count)?,
            }
            level += 1;
        }
    }
}

/// An element of a page in the making.
struct Element {
    key: Vec<u8>,
    value: Vec<u8>,
    /// Flags in a leaf, the page in a branch.
    number: u64,
}

/// The page of one level that is not full yet.
struct Level {
    kind: u16,
    elements: Vec<Element>,
    /// Bytes that its elements take.
    bytes: usize,
}

impl Level {
    fn new(kind: u16) -> Level {
        Level { kind, elements: Vec::new(), bytes: 0 }
    }

    fn size(element: &Element) -> usize {
        const { assert!(LEAF_ELEMENT == BRANCH_ELEMENT) };
        LEAF_ELEMENT + element.key.len() + element.value.len()
    }

    fn push(&mut self, element: Element) {
        self.bytes += Level::size(&element);
        self.elements.push(element);
    }

    /// How many elements make a page by now, if those that stay will do for another.
    fn overfull(&self) -> Option<usize> {
        let room = PAGE_SIZE as usize - PAGE_HEAD;
        if self.bytes <= room || self.elements.len() < 2 * ELEMENTS_MIN {
            return None;
        }
        let mut bytes = 0;
        let fits = |element: &&Element| {
            bytes += Level::size(element);
            bytes <= room
        };
        let count = self.elements.iter().take_while(fits).count().max(ELEMENTS_MIN);
        (self.elements.len() - count >= ELEMENTS_MIN).then_some(count)
    }

    /// Takes `count` elements off the front: the kind of page, its bytes behind the head, and its first key.
    fn take(&mut self, count: usize) -> (u16, Vec<u8>, Vec<u8>) {
        let taken: Vec<Element> = self.elements.drain(..count).collect();
        let size: usize = taken.iter().map(Level::size).sum();
        self.bytes -= size;
        let mut body = Vec::with_capacity(size);
        let mut data_at = count * LEAF_ELEMENT;
        for (index, element) in taken.iter().enumerate() {
            // Positions count from the element itself.
            let pos = (data_at - index * LEAF_ELEMENT) as u32;
            data_at += element.key.len() + element.value.len();
            if self.kind == LEAF {
                body.extend_from_slice(&(element.number as u32).to_le_bytes());
                body.extend_from_slice(&pos.to_le_bytes());
                body.extend_from_slice(&(element.key.len() as u32).to_le_bytes());
                body.extend_from_slice(&(element.value.len() as u32).to_le_bytes());
            } else {
                body.extend_from_slice(&pos.to_le_bytes());
                body.extend_from_slice(&(element.key.len() as u32).to_le_bytes());
                body.extend_from_slice(&element.number.to_le_bytes());
            }
        }
        for element in &taken {
            body.extend_from_slice(&element.key);
            body.extend_from_slice(&element.value);
        }
        let first = taken.into_iter().next().map_or_else(Vec::new, |element| element.key);
        (self.kind, body, first)
    }
}
