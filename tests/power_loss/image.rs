//! Files as a power loss in the middle of a commit can leave them.
//!
//! LMDB commits in this order: it writes the pages of the transaction, none of which the last commit uses; fdatasync; it
//! writes one meta page through a descriptor that syncs. So as long as the meta page is old, each other page is old, new
//! or torn, and the file may have grown or not; once the meta page is new, all pages are.

use rand::Rng;
use rand::rngs::StdRng;

/// Bytes of a page.
const PAGE: usize = 4096;
/// Bytes that a disk writes at once.
const SECTOR: usize = 512;
/// The first pages are the meta pages; commits use them in turn.
const METAS: usize = 2;
/// Where a meta page holds the number of its transaction.
const TXN_ID: usize = 144;

/// Number of the transaction that committed the meta page `page` (0 or 1).
fn txn_id(file: &[u8], page: usize) -> u64 {
    let at = page * PAGE + TXN_ID;
    u64::from_le_bytes(file[at..at + 8].try_into().expect("eight bytes"))
}

/// Number of the last transaction committed to a file.
pub fn last_txn_id(file: &[u8]) -> u64 {
    txn_id(file, 0).max(txn_id(file, 1))
}

/// Checks that `after` is one commit later than `before`, and that the order above can hold: one meta page is as it was.
pub fn assert_one_commit(before: &[u8], after: &[u8]) {
    assert_eq!(last_txn_id(after), last_txn_id(before) + 1, "one step must be one commit");
    let is_kept = |page: usize| before[page * PAGE..][..PAGE] == after[page * PAGE..][..PAGE];
    assert!(is_kept(0) != is_kept(1), "a commit replaces one meta page");
}

/// The file after a power loss while the commit that leads from `before` to `after` was being written: its meta page has
/// not reached the disk, any part of the other pages has.
pub fn torn(before: &[u8], after: &[u8], rng: &mut StdRng) -> Vec<u8> {
    let pages = after.len().max(before.len()).div_ceil(PAGE);
    let mut image = before.to_vec();
    image.resize(pages * PAGE, 0);
    // Some losses take nearly everything, some nearly nothing.
    let (new, torn) = (rng.random_range(0.0..=1.0), rng.random_range(0.0..0.3));
    for page in METAS..after.len() / PAGE {
        let at = page * PAGE;
        let written = if rng.random_bool(torn) {
            rng.random_range(0..=PAGE / SECTOR) * SECTOR
        } else if rng.random_bool(new) {
            PAGE
        } else {
            0
        };
        image[at..at + written].copy_from_slice(&after[at..at + written]);
    }
    let len = rng.random_range(before.len() / PAGE..=pages) * PAGE;
    image.truncate(len);
    image
}

/// The same with every page but the meta page on the disk.
pub fn all_but_meta(before: &[u8], after: &[u8]) -> Vec<u8> {
    let mut image = after.to_vec();
    image[..METAS * PAGE].copy_from_slice(&before[..METAS * PAGE]);
    image
}
