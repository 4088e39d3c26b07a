//! The whole check of a bbolt file: kinds and places of pages, no page used twice or lost, order and bounds of keys.

use super::format::{Head, Page, Root, freelist_entry, freelist_extent};
use super::reader::{DEPTH_MAX, Reader, too_deep};
use super::{Error, Result};

/// Buckets inside buckets. etcd has one level.
const NESTING_MAX: usize = 8;

impl Reader {
    /// Looks at every page that can be reached. Memory: one bit a page. `seen` is told how many of
    /// [`pages`](Reader::pages) are done, now and then.
    pub fn check(&self, seen: &mut dyn FnMut(u64)) -> Result<()> {
        let mut check = Check { reader: self, used: Bits::new(self.pages()), done: 2, seen };
        check.used.set(0);
        check.used.set(1);
        check.bucket(self.root().into_root(), 0)?;
        check.freelist()
    }
}

struct Check<'c> {
    reader: &'c Reader,
    used: Bits,
    done: u64,
    seen: &'c mut dyn FnMut(u64),
}

/// Keys that a subtree may have: from the first on, and below the second, if there are such.
#[derive(Clone, Copy)]
struct Bounds<'k> {
    from: Option<&'k [u8]>,
    below: Option<&'k [u8]>,
}

impl Check<'_> {
    fn bucket(&mut self, root: Root, nesting: usize) -> Result<()> {
        let everything = Bounds { from: None, below: None };
        match root {
            Root::Page(id) => self.page(id, everything, 0, nesting),
            Root::Inline(page) => self.elements(&page, everything, 0, nesting),
        }
    }

    fn page(&mut self, id: u64, bounds: Bounds<'_>, depth: usize, nesting: usize) -> Result<()> {
        if depth == DEPTH_MAX {
            return Err(too_deep(id));
        }
        let page = self.reader.page(id)?;
        self.take(&page.head)?;
        self.elements(&page, bounds, depth, nesting)
    }

    /// Marks a page and its overflow as used.
    fn take(&mut self, head: &Head) -> Result<()> {
        for id in head.id..=head.id + u64::from(head.overflow) {
            if !self.used.set(id) {
                return Err(Error::damaged(id, "used in two places"));
            }
            self.done += 1;
            if self.done.is_multiple_of(1024) {
                (self.seen)(self.done);
            }
        }
        Ok(())
    }

    fn elements(&mut self, page: &Page, bounds: Bounds<'_>, depth: usize, nesting: usize) -> Result<()> {
        if page.count() == 0 && !page.is_leaf() {
            return Err(Error::damaged(page.at, "a branch without elements"));
        }
        for index in 0..page.count() {
            let key = page.key(index)?;
            let in_order = match index {
                0 => bounds.from.is_none_or(|from| from <= key),
                _ => page.key(index - 1)? < key,
            };
            if !in_order || bounds.below.is_some_and(|below| key >= below) {
                return Err(Error::damaged(page.at, format!("key {index} is out of order")));
            }
            if page.is_leaf() {
                self.leaf(page, index, nesting)?;
            } else {
                let below = if index + 1 < page.count() { Some(page.key(index + 1)?) } else { bounds.below };
                let (_, child) = page.branch(index)?;
                self.page(child, Bounds { from: Some(key), below }, depth + 1, nesting)?;
            }
        }
        Ok(())
    }

    fn leaf(&mut self, page: &Page, index: usize, nesting: usize) -> Result<()> {
        let element = page.leaf(index)?;
        if !element.is_bucket {
            return Ok(());
        }
        if nesting == NESTING_MAX {
            return Err(Error::damaged(page.at, format!("buckets nested deeper than {NESTING_MAX}")));
        }
        self.bucket(Root::parse(page, element.value)?, nesting + 1)
    }

    /// A free page must not be in use, and each page must be one or the other. Without a freelist, both are true.
    fn freelist(&mut self) -> Result<()> {
        let Some((head, bytes)) = self.reader.freelist()? else { return Ok(()) };
        self.take(&head)?;
        let cut = || Error::damaged(head.id, "the freelist is longer than its page");
        let (count, from) = freelist_extent(&head, &bytes).ok_or_else(cut)?;
        for index in 0..count {
            let id = freelist_entry(&bytes, from, index).ok_or_else(cut)?;
            if id < 2 || id >= self.reader.pages() {
                return Err(Error::damaged(head.id, format!("lists page {id} as free, which can't be")));
            }
            if !self.used.set(id) {
                return Err(Error::damaged(id, "free, but in use or free twice"));
            }
        }
        match self.used.first_unset(self.reader.meta().pages) {
            Some(id) => Err(Error::damaged(id, "neither in use nor free")),
            None => Ok(()),
        }
    }
}

/// A set of page numbers below a bound.
struct Bits(Vec<u64>);

impl Bits {
    fn new(count: u64) -> Bits {
        Bits(vec![0; count.div_ceil(64) as usize])
    }

    /// Adds `id`, which must be below the bound; whether it was new.
    fn set(&mut self, id: u64) -> bool {
        let (word, bit) = (&mut self.0[(id / 64) as usize], 1 << (id % 64));
        let was = *word & bit != 0;
        *word |= bit;
        !was
    }

    fn first_unset(&self, count: u64) -> Option<u64> {
        (0..count).find(|id| self.0[(id / 64) as usize] & (1 << (id % 64)) == 0)
    }
}
