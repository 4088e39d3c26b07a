//! Byte forms of bbolt: meta pages, page heads, elements of leaf and branch pages.

use super::{Error, Result};
use bytes::Bytes;

/// Bytes at the begin of every page: id (8), kind (2), elements (2), pages of overflow (4).
pub const PAGE_HEAD: usize = 16;
/// Bytes of an element of a leaf page: flags, position, length of key, length of value (4 each).
pub const LEAF_ELEMENT: usize = 16;
/// Bytes of an element of a branch page: position, length of key (4 each), page (8).
pub const BRANCH_ELEMENT: usize = 16;
/// Bytes of a bucket in its parent: root page, sequence (8 each). An inline page follows if the root is 0.
pub const BUCKET_HEAD: usize = 16;
/// Bytes of a meta page behind its head.
pub const META: usize = 64;
/// Page kinds.
pub const BRANCH: u16 = 0x01;
/// See [`BRANCH`].
pub const LEAF: u16 = 0x02;
/// See [`BRANCH`].
pub const META_PAGE: u16 = 0x04;
/// See [`BRANCH`].
pub const FREELIST: u16 = 0x10;
/// Flag of a leaf element whose value is a bucket.
pub const IS_BUCKET: u32 = 0x01;
/// In place of the freelist's page: there is none, whoever writes to the file finds free pages by looking.
pub const NO_FREELIST: u64 = u64::MAX;
/// Page sizes that a file may have: the page size of the machine that made it, usually 4096.
pub const PAGE_SIZES: std::ops::RangeInclusive<u32> = 512..=1 << 20;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// `len` bytes from `at` on.
fn part(bytes: &[u8], at: usize, len: usize) -> Option<&[u8]> {
    bytes.get(at..at.checked_add(len)?)
}

/// What a meta page says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meta {
    /// Bytes in a page.
    pub page_size: u32,
    /// Page of the root bucket.
    pub root: u64,
    /// Page of the freelist, or [`NO_FREELIST`].
    pub freelist: u64,
    /// High water mark: the first page that was never used.
    pub pages: u64,
    /// Transaction that wrote it; the higher of two is the newer state.
    pub txid: u64,
}

impl Meta {
    /// Reads what follows the head of a meta page.
    pub fn parse(bytes: &[u8]) -> Result<Meta> {
        let short = Error::NotBolt("too short for a meta page");
        let Some(bytes) = bytes.get(..META) else { return Err(short) };
        let number = |at| u32_at(bytes, at).unwrap_or_default();
        let long = |at| u64_at(bytes, at).unwrap_or_default();
        if number(0) != MAGIC {
            return Err(Error::NotBolt("no magic number in its meta pages"));
        }
        if number(4) != VERSION {
            return Err(Error::Version(number(4)));
        }
        if long(56) != fnv1a(&bytes[..56]) {
            return Err(Error::NotBolt("wrong checksum in its meta pages"));
        }
        let meta = Meta {
            page_size: number(8),
            root: long(16),
            freelist: long(32),
            pages: long(40),
            txid: long(48),
        };
        if !meta.page_size.is_power_of_two() || !PAGE_SIZES.contains(&meta.page_size) {
            return Err(Error::NotBolt("impossible page size in its meta pages"));
        }
        Ok(meta)
    }

    /// Fills a page with it; the transaction decides which of the two it is.
    pub fn write_page(&self, page: &mut [u8]) {
        page[..PAGE_HEAD]
            .copy_from_slice(&Head { id: self.txid % 2, kind: META_PAGE, count: 0, overflow: 0 }.to_bytes());
        let out = &mut page[PAGE_HEAD..PAGE_HEAD + META];
        out[..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4..8].copy_from_slice(&VERSION.to_le_bytes());
        out[8..12].copy_from_slice(&self.page_size.to_le_bytes());
        // Flags (4) are 0, and so is the sequence of the root bucket (8).
        out[16..24].copy_from_slice(&self.root.to_le_bytes());
        out[32..40].copy_from_slice(&self.freelist.to_le_bytes());
        out[40..48].copy_from_slice(&self.pages.to_le_bytes());
        out[48..56].copy_from_slice(&self.txid.to_le_bytes());
        let checksum = fnv1a(&out[..56]);
        out[56..].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// FNV-1a with 64 bits.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The head of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Number of the page; 0 in an inline page.
    pub id: u64,
    /// [`LEAF`], [`BRANCH`], ...
    pub kind: u16,
    /// Elements on the page.
    pub count: u16,
    /// Further pages that belong to it.
    pub overflow: u32,
}

impl Head {
    /// Reads the head of a page.
    pub fn parse(bytes: &[u8]) -> Option<Head> {
        let (id, kind) = (u64_at(bytes, 0)?, u16_at(bytes, 8)?);
        Some(Head { id, kind, count: u16_at(bytes, 10)?, overflow: u32_at(bytes, 12)? })
    }

    /// Its bytes.
    pub fn to_bytes(self) -> [u8; PAGE_HEAD] {
        let mut out = [0; PAGE_HEAD];
        out[..8].copy_from_slice(&self.id.to_le_bytes());
        out[8..10].copy_from_slice(&self.kind.to_le_bytes());
        out[10..12].copy_from_slice(&self.count.to_le_bytes());
        out[12..].copy_from_slice(&self.overflow.to_le_bytes());
        out
    }
}

/// An element of a leaf page.
#[derive(Clone, Copy, Debug)]
pub struct Leaf<'p> {
    /// Whether the value is a bucket.
    pub is_bucket: bool,
    /// Its key.
    pub key: &'p [u8],
    /// Its value.
    pub value: &'p [u8],
}

/// A leaf or branch page with all its bytes, or the page inside an inline bucket.
#[derive(Clone, Debug)]
pub struct Page {
    /// Where it is, for errors: for an inline page, the page around it.
    pub at: u64,
    /// Its head.
    pub head: Head,
    bytes: Bytes,
}

impl Page {
    /// `bytes` as a page; it must be a leaf, or a branch.
    pub fn parse(at: u64, bytes: Bytes) -> Result<Page> {
        let Some(head) = Head::parse(&bytes) else {
            return Err(Error::damaged(at, "too short for a page"));
        };
        if head.kind != LEAF && head.kind != BRANCH {
            return Err(Error::damaged(
                at,
                format!("of kind {:#x}, a leaf or branch was expected", head.kind),
            ));
        }
        Ok(Page { at, head, bytes })
    }

    /// Whether it is a leaf rather than a branch.
    pub fn is_leaf(&self) -> bool {
        self.head.kind == LEAF
    }

    /// Number of elements.
    pub fn count(&self) -> usize {
        usize::from(self.head.count)
    }

    /// Element `index` of a leaf page.
    pub fn leaf(&self, index: usize) -> Result<Leaf<'_>> {
        self.try_leaf(index).ok_or_else(|| self.bad_element(index))
    }

    fn try_leaf(&self, index: usize) -> Option<Leaf<'_>> {
        let at = self.element(index, LEAF_ELEMENT)?;
        let flags = u32_at(&self.bytes, at)?;
        let (from, key_len) =
            (at + u32_at(&self.bytes, at + 4)? as usize, u32_at(&self.bytes, at + 8)? as usize);
        let key = part(&self.bytes, from, key_len)?;
        let value = part(&self.bytes, from + key_len, u32_at(&self.bytes, at + 12)? as usize)?;
        (!key.is_empty()).then_some(Leaf { is_bucket: flags & IS_BUCKET != 0, key, value })
    }

    /// Element `index` of a branch page: the first key below it, and the page.
    pub fn branch(&self, index: usize) -> Result<(&[u8], u64)> {
        self.try_branch(index).ok_or_else(|| self.bad_element(index))
    }

    fn try_branch(&self, index: usize) -> Option<(&[u8], u64)> {
        let at = self.element(index, BRANCH_ELEMENT)?;
        let (pos, key_len) = (u32_at(&self.bytes, at)? as usize, u32_at(&self.bytes, at + 4)? as usize);
        let key = part(&self.bytes, at + pos, key_len)?;
        (!key.is_empty()).then_some((key, u64_at(&self.bytes, at + 8)?))
    }

    /// Key of element `index`, of either kind.
    pub fn key(&self, index: usize) -> Result<&[u8]> {
        if self.is_leaf() { Ok(self.leaf(index)?.key) } else { Ok(self.branch(index)?.0) }
    }

    /// `part`, which an element of this page returned, as bytes that live as long as they like.
    pub fn share(&self, part: &[u8]) -> Bytes {
        self.bytes.slice_ref(part)
    }

    fn element(&self, index: usize, size: usize) -> Option<usize> {
        (index < self.count()).then_some(PAGE_HEAD + index * size)
    }

    fn bad_element(&self, index: usize) -> Error {
        let count = self.count();
        Error::damaged(self.at, format!("element {index} of {count} does not lie on the page"))
    }
}

/// A bucket as its parent holds it.
pub enum Root {
    /// It has pages of its own, from this one on.
    Page(u64),
    /// Its only page.
    Inline(Page),
}

impl Root {
    /// Reads the value of a bucket element of `page`.
    pub fn parse(page: &Page, value: &[u8]) -> Result<Root> {
        match u64_at(value, 0) {
            Some(0) if value.len() >= BUCKET_HEAD => {
                let inline = Page::parse(page.at, page.share(&value[BUCKET_HEAD..]))?;
                if inline.is_leaf() {
                    Ok(Root::Inline(inline))
                } else {
                    Err(Error::damaged(page.at, "an inline bucket that is no leaf"))
                }
            }
            Some(root) if value.len() >= BUCKET_HEAD => Ok(Root::Page(root)),
            _ => Err(Error::damaged(page.at, "too short for a bucket")),
        }
    }
}

/// How many pages the freelist at the begin of `bytes` lists, and where the list begins.
pub fn freelist_extent(head: &Head, bytes: &[u8]) -> Option<(usize, usize)> {
    if head.count < u16::MAX {
        return Some((usize::from(head.count), PAGE_HEAD));
    }
    // More than fit into the head's number: the first entry is the count.
    Some((usize::try_from(u64_at(bytes, PAGE_HEAD)?).ok()?, PAGE_HEAD + 8))
}

/// Entry `index` of a list of pages that begins at `from`.
pub fn freelist_entry(bytes: &[u8], from: usize, index: usize) -> Option<u64> {
    u64_at(bytes, from.checked_add(index.checked_mul(8)?)?)
}
