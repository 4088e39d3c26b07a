//! Reading a bbolt file: metas, buckets, ordered iteration. Needs a page at a time, and one for each level of the tree.

use super::format::{BRANCH, FREELIST, Head, META, Meta, NO_FREELIST, PAGE_HEAD, Page, Root};
use super::{Error, KEY_MAX, Result};
use bytes::Bytes;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Longest page that is read, with its overflow. A leaf page has few values if they are large.
const PAGE_BYTES_MAX: u64 = 256 << 20;
/// Bytes of a branch page beyond one page: it is split before it holds more than a few of the longest keys.
const BRANCH_OVERFLOW_MAX: u64 = 8 * KEY_MAX as u64;
/// Levels of a tree. Each multiplies the pages by two at least, and by a hundred usually.
pub(super) const DEPTH_MAX: usize = 40;

/// A bbolt file, opened for reading. Takes no lock: nobody may write to the file meanwhile.
pub struct Reader {
    file: File,
    /// Bytes of the database; the file may go on behind it.
    len: u64,
    meta: Meta,
}

impl Reader {
    /// Opens the file at `path`.
    pub fn open(path: &Path) -> Result<Reader> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Reader::new(file, len)
    }

    /// Reads the database in the first `len` bytes of `file`: what follows, such as a checksum, is not looked at.
    pub fn new(file: File, len: u64) -> Result<Reader> {
        let meta = newest_meta(&file, len)?;
        if meta.pages < 3 {
            return Err(Error::NotBolt("no pages behind its meta pages"));
        }
        let expected = meta.pages.saturating_mul(u64::from(meta.page_size));
        if len < expected {
            return Err(Error::Truncated { len, expected });
        }
        Ok(Reader { file, len, meta })
    }

    /// Bytes in a page.
    pub fn page_size(&self) -> u32 {
        self.meta.page_size
    }

    /// Pages in use or free: the high water mark.
    pub fn pages(&self) -> u64 {
        self.meta.pages
    }

    /// Bytes of the database.
    #[expect(clippy::len_without_is_empty, reason = "no file without meta pages is opened")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Names of the top-level buckets, in order.
    pub fn buckets(&self) -> Result<Vec<Vec<u8>>> {
        self.root().buckets()
    }

    /// The top-level bucket of this name.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket<'_>>> {
        self.root().bucket(name)
    }

    /// The bucket that holds the top-level ones.
    pub(super) fn root(&self) -> Bucket<'_> {
        Bucket { reader: self, root: Root::Page(self.meta.root) }
    }

    pub(super) fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Reads a leaf or branch page whole.
    pub(super) fn page(&self, id: u64) -> Result<Page> {
        let (head, first) = self.first_page(id)?;
        let limit = match head.kind {
            BRANCH => u64::from(self.meta.page_size) + BRANCH_OVERFLOW_MAX,
            _ => PAGE_BYTES_MAX,
        };
        Page::parse(id, self.with_overflow(&head, first, limit)?)
    }

    /// The freelist page whole, unless the file has none.
    pub(super) fn freelist(&self) -> Result<Option<(Head, Bytes)>> {
        if self.meta.freelist == NO_FREELIST {
            return Ok(None);
        }
        let (head, first) = self.first_page(self.meta.freelist)?;
        if head.kind != FREELIST {
            return Err(Error::damaged(
                head.id,
                format!("of kind {:#x}, the freelist was expected", head.kind),
            ));
        }
        Ok(Some((head, self.with_overflow(&head, first, PAGE_BYTES_MAX)?)))
    }

    /// Reads page `id` without its overflow, and checks where it claims to be.
    fn first_page(&self, id: u64) -> Result<(Head, Vec<u8>)> {
        if id < 2 || id >= self.meta.pages {
            let what =
                format!("a page that can't be: there are {}, the first two are meta pages", self.meta.pages);
            return Err(Error::damaged(id, what));
        }
        let page_size = u64::from(self.meta.page_size);
        let mut bytes = vec![0; self.meta.page_size as usize];
        self.file.read_exact_at(&mut bytes, id * page_size)?;
        let head = Head::parse(&bytes).ok_or_else(|| Error::damaged(id, "too short for a page"))?;
        if head.id != id {
            return Err(Error::damaged(id, format!("says that it is page {}", head.id)));
        }
        if u64::from(head.overflow) >= self.meta.pages - id {
            return Err(Error::damaged(id, format!("reaches {} pages beyond the end", head.overflow)));
        }
        Ok((head, bytes))
    }

    fn with_overflow(&self, head: &Head, mut bytes: Vec<u8>, limit: u64) -> Result<Bytes> {
        let page_size = u64::from(self.meta.page_size);
        let len = (u64::from(head.overflow) + 1) * page_size;
        if len > limit {
            return Err(Error::damaged(
                head.id,
                format!("{len} bytes long, no such page has more than {limit}"),
            ));
        }
        let first = bytes.len();
        bytes.resize(len as usize, 0);
        self.file.read_exact_at(&mut bytes[first..], (head.id + 1) * page_size)?;
        Ok(bytes.into())
    }
}

/// The valid meta page of the newer transaction.
fn newest_meta(file: &File, len: u64) -> Result<Meta> {
    let first = meta_at(file, len, 0);
    let second = match &first {
        Ok(meta) => meta_at(file, len, u64::from(meta.page_size)),
        // Without the first, the page size is not known: the second must be at a power of two.
        Err(_) => (9..=20)
            .map(|bits| (1 << bits, meta_at(file, len, 1 << bits)))
            .find(|(at, meta)| meta.as_ref().is_ok_and(|meta| u64::from(meta.page_size) == *at))
            .map_or(Err(Error::NotBolt("no second meta page")), |(_, meta)| meta),
    };
    match (first, second) {
        (Ok(first), Ok(second)) if second.txid > first.txid && second.page_size == first.page_size => {
            Ok(second)
        }
        (Ok(first), _) => Ok(first),
        (Err(_), Ok(second)) => Ok(second),
        (Err(error), Err(_)) => Err(error),
    }
}

fn meta_at(file: &File, len: u64, at: u64) -> Result<Meta> {
    let mut bytes = [0; PAGE_HEAD + META];
    if len < at + bytes.len() as u64 {
        return Err(Error::NotBolt("too short"));
    }
    file.read_exact_at(&mut bytes, at)?;
    Meta::parse(&bytes[PAGE_HEAD..])
}

/// A bucket of a [`Reader`]: pairs, and buckets inside it.
pub struct Bucket<'r> {
    reader: &'r Reader,
    root: Root,
}

impl<'r> Bucket<'r> {
    /// Its pairs in key order; buckets inside it are passed over.
    pub fn iter(&self) -> Iter<'r> {
        Iter { walk: self.walk(), wanted: Wanted::Pairs }
    }

    /// Names of the buckets inside it, in order.
    pub fn buckets(&self) -> Result<Vec<Vec<u8>>> {
        let names = Iter { walk: self.walk(), wanted: Wanted::Buckets };
        names.map(|found| found.map(|(name, _)| name)).collect()
    }

    /// The bucket of this name inside it.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket<'r>>> {
        let Some((page, index)) = self.find(name)? else { return Ok(None) };
        let element = page.leaf(index)?;
        if !element.is_bucket {
            return Ok(None);
        }
        Ok(Some(Bucket { reader: self.reader, root: Root::parse(&page, element.value)? }))
    }

    /// The value of `key`.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some((page, index)) = self.find(key)? else { return Ok(None) };
        let element = page.leaf(index)?;
        Ok((!element.is_bucket).then(|| element.value.to_vec()))
    }

    /// Page of the leaf that has `key`, and its place there.
    fn find(&self, key: &[u8]) -> Result<Option<(Page, usize)>> {
        let mut page = self.first()?;
        for _ in 0..DEPTH_MAX {
            let after = partition(&page, |other| other <= key)?;
            if after == 0 {
                return Ok(None);
            }
            if page.is_leaf() {
                return Ok((page.key(after - 1)? == key).then_some((page, after - 1)));
            }
            page = self.reader.page(page.branch(after - 1)?.1)?;
        }
        Err(too_deep(page.at))
    }

    fn first(&self) -> Result<Page> {
        match &self.root {
            Root::Page(id) => self.reader.page(*id),
            Root::Inline(page) => Ok(page.clone()),
        }
    }

    fn walk(&self) -> Walk<'r> {
        let (page, inline) = match &self.root {
            Root::Page(id) => (Some(*id), Vec::new()),
            Root::Inline(page) => (None, vec![(page.clone(), 0)]),
        };
        Walk { reader: self.reader, next: page, stack: inline, pages: 0, last: Vec::new() }
    }

    pub(super) fn into_root(self) -> Root {
        self.root
    }
}

/// How many elements from the left hold, if those that hold come first.
fn partition(page: &Page, holds: impl Fn(&[u8]) -> bool) -> Result<usize> {
    let (mut low, mut high) = (0, page.count());
    while low < high {
        let middle = low.midpoint(high);
        if holds(page.key(middle)?) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

pub(super) fn too_deep(page: u64) -> Error {
    Error::damaged(page, format!("below more than {DEPTH_MAX} levels of branches"))
}

/// Goes through the leaves of one bucket from left to right.
struct Walk<'r> {
    reader: &'r Reader,
    /// A page to go down to.
    next: Option<u64>,
    /// The pages from the root to the current leaf, and the next element of each.
    stack: Vec<(Page, usize)>,
    /// Pages seen; more than there are means that some were seen twice.
    pages: u64,
    last: Vec<u8>,
}

impl Walk<'_> {
    /// The page and place of the next leaf element.
    fn advance(&mut self) -> Result<Option<(&Page, usize)>> {
        loop {
            if let Some(id) = self.next.take() {
                self.descend(id)?;
            }
            let Some((page, index)) = self.stack.last_mut() else { return Ok(None) };
            if *index >= page.count() {
                self.stack.pop();
                continue;
            }
            *index += 1;
            if page.is_leaf() {
                break;
            }
            self.next = Some(page.branch(*index - 1)?.1);
        }
        let Some((page, index)) = self.stack.last() else { return Ok(None) };
        let key = page.key(index - 1)?;
        if !self.last.is_empty() && self.last[..] >= *key {
            return Err(Error::damaged(page.at, format!("key {} is out of order", index - 1)));
        }
        self.last.clear();
        self.last.extend_from_slice(key);
        Ok(Some((page, index - 1)))
    }

    fn descend(&mut self, id: u64) -> Result<()> {
        self.pages += 1;
        if self.stack.len() == DEPTH_MAX || self.pages > self.reader.meta.pages {
            return Err(too_deep(id));
        }
        self.stack.push((self.reader.page(id)?, 0));
        Ok(())
    }
}

enum Wanted {
    Pairs,
    Buckets,
}

/// Pairs of a bucket in key order. After an error it ends.
pub struct Iter<'r> {
    walk: Walk<'r>,
    wanted: Wanted,
}

impl Iter<'_> {
    fn try_next(&mut self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        loop {
            let Some((page, index)) = self.walk.advance()? else { return Ok(None) };
            let element = page.leaf(index)?;
            match self.wanted {
                Wanted::Pairs if !element.is_bucket => {
                    return Ok(Some((element.key.to_vec(), element.value.to_vec())));
                }
                Wanted::Buckets if element.is_bucket => return Ok(Some((element.key.to_vec(), Vec::new()))),
                Wanted::Pairs | Wanted::Buckets => {}
            }
        }
    }
}

impl Iterator for Iter<'_> {
    type Item = Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.try_next();
        if next.is_err() {
            self.walk.stack.clear();
            self.walk.next = None;
        }
        next.transpose()
    }
}
