//! Many versions of keys: memtables in front of LMDB. Synchronous; knows no tokio, no clock, no lease.
//!
//! ```text
//!   key \ revision    2      3      4      5      6
//!   a                 put    .      put    .      del        generation 1 of a: versions 1, 2, tombstone at 6
//!   b                 .      put    .      .      .
//!   read at 5 sees a as of 4 and b as of 3; read at 6 sees b only
//! ```
//!
//! Always true here:
//! 1. One writer, the applier, adds versions to the newest memtable; what clients of etcd see of a version never changes.
//! 2. The current revision is published after all its versions: who knows a revision can read it.
//! 3. A reader takes the revision first and the view after it, the LMDB transaction last; so its view holds
//!    everything up to the revision.
//! 4. `cur` holds the newest flushed version of a key, tombstones too, until the tombstone's row in `log` is compacted.
//! 5. A row of `log` at revision m is needed by reads at revisions below m only. Compaction to R therefore removes all
//!    rows below R, and keeps those of R itself for watchers that start there, but without their undo images.

mod compact;
mod counts;
pub mod defrag;
pub mod flush;
pub mod hash;
pub mod history;
mod install;
pub mod load;
pub mod memtable;
#[cfg(test)]
mod model_test;
mod pins;
#[cfg(test)]
pub(crate) mod script_test;
pub mod snapshot;
pub mod sort;
pub mod transfer;
#[cfg(test)]
pub(crate) mod transfer_test;
pub mod versions;
pub mod watch;
pub mod writer;

pub use counts::Counts;
pub use memtable::{Event, EventBatch};
pub use pins::Pin;
pub use snapshot::Snapshot;

use crate::storage::codec::Image;
use crate::storage::schema::{Table, meta};
use crate::storage::{self, Env, Sizes};
use crate::types::Revision;
use arc_swap::ArcSwap;
use history::Ring;
use memtable::Memtable;
use parking_lot::{Mutex, RwLock};
use pins::Pins;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// Compacted revision before the first compaction, as etcd reports it.
pub const NEVER_COMPACTED: i64 = -1;
/// How long compaction waits for a read that returns to its snapshot.
const PIN_AGE_MAX: Duration = Duration::from_secs(60);

/// Why a read can't be answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The revision asked for lies below the last compaction.
    #[error("required revision has been compacted")]
    Compacted,
    /// The revision asked for has not been reached.
    #[error("required revision is a future revision")]
    FutureRevision,
    /// A long read could not put aside what it needs: no space on the disk, perhaps. The store itself goes on.
    #[error("temporary file: {0}")]
    Scratch(std::io::Error),
    /// Whoever asked for a long read has gone away.
    #[error("interrupted")]
    Interrupted,
    /// What another member sent of its state can't be used. Ours is as it was.
    #[error("state from another member: {0}")]
    Transfer(&'static str),
    /// The database failed; the node can't go on.
    #[error(transparent)]
    Storage(#[from] storage::Error),
}

/// Result of a read or write.
pub type Result<T> = std::result::Result<T, Error>;

/// What readers read from: the memtables, newest first, and the environment below them.
struct View {
    env: Env,
    memtables: Vec<Arc<Memtable>>,
}

/// The store. Shared by the applier (writes), the flush thread (moves memtables to LMDB) and all readers.
pub struct Store {
    view: ArcSwap<View>,
    current: AtomicI64,
    compacted: AtomicI64,
    /// Keys that exist at the current revision.
    keys: AtomicI64,
    /// Rows of `log` below this revision are gone physically.
    removed: AtomicI64,
    /// Rows of the compacted revision before this position have been stripped of what nobody can read any more.
    stripped: Mutex<Revision>,
    /// Revision of the last flush, and the compacted revision that it stored. Nothing above either may be removed:
    /// after a crash the log is replayed from that state, and must find what it found the first time.
    flushed: AtomicI64,
    flushed_compacted: AtomicI64,
    /// Reads below this revision are refused, whatever pins say: the environment came from another member, which knew
    /// nothing of them.
    floor: AtomicI64,
    /// Held while the environment is exchanged for a received one, and by those who read it along with the ring.
    installing: RwLock<()>,
    ring: Ring,
    pins: Pins,
    counts: Counts,
    /// When the last compaction came, until its history is gone.
    compacting_since: Mutex<Option<Instant>>,
    sizes: Mutex<Sizes>,
}

/// What the `meta` table says of a flushed state.
struct Flushed {
    revision: i64,
    compacted: i64,
    removed: i64,
    keys: i64,
}

impl Flushed {
    fn read(txn: &storage::ReadTxn) -> Result<Flushed> {
        let (revision, compacted) = Store::flushed_revisions(txn)?;
        let removed = read_i64(txn, meta::REMOVED)?.unwrap_or(0);
        let keys = match read_i64(txn, meta::KEYS)? {
            Some(keys) => keys,
            None => count_keys(txn)?,
        };
        Ok(Flushed { revision, compacted, removed, keys })
    }
}

impl Store {
    /// The store as the last flush left it.
    pub fn open(env: Env) -> Result<Store> {
        let txn = env.read()?;
        let Flushed { revision, compacted, removed, keys } = Flushed::read(&txn)?;
        drop(txn);
        let sizes = env.sizes()?;
        Ok(Store {
            view: ArcSwap::from_pointee(View { env, memtables: vec![Arc::default()] }),
            current: AtomicI64::new(revision),
            compacted: AtomicI64::new(compacted),
            keys: AtomicI64::new(keys),
            removed: AtomicI64::new(removed),
            stripped: Mutex::default(),
            flushed: AtomicI64::new(revision),
            flushed_compacted: AtomicI64::new(compacted),
            floor: AtomicI64::new(NEVER_COMPACTED),
            installing: RwLock::default(),
            ring: Ring::new(revision),
            pins: Pins::default(),
            counts: Counts::default(),
            compacting_since: Mutex::default(),
            sizes: Mutex::new(sizes),
        })
    }

    /// Current and compacted revision as of the flush that `txn` shows.
    pub fn flushed_revisions(txn: &storage::ReadTxn) -> Result<(i64, i64)> {
        let revision = read_i64(txn, meta::REVISION)?.unwrap_or(1);
        Ok((revision, read_i64(txn, meta::COMPACTED)?.unwrap_or(NEVER_COMPACTED)))
    }

    /// Counts of ranges that are asked for often.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Revision of the last applied write.
    pub fn revision(&self) -> i64 {
        self.current.load(Ordering::SeqCst)
    }

    /// Revision of the last logical compaction, or [`NEVER_COMPACTED`].
    pub fn compacted(&self) -> i64 {
        self.compacted.load(Ordering::SeqCst)
    }

    /// Keys that exist at the current revision.
    pub fn keys(&self) -> i64 {
        self.keys.load(Ordering::Relaxed)
    }

    /// Revision below which history has been removed physically.
    pub fn removed(&self) -> i64 {
        self.removed.load(Ordering::SeqCst)
    }

    /// To be asked when a read transaction is open: below this revision it may lack what a pin should have kept.
    fn floor(&self) -> i64 {
        self.floor.load(Ordering::SeqCst)
    }

    /// A snapshot at `revision`; 0 or less means the current one.
    pub fn snapshot(&self, revision: i64) -> Result<Snapshot> {
        loop {
            let current = self.revision();
            let wanted = if revision <= 0 { current } else { revision };
            if wanted > current {
                return Err(Error::FutureRevision);
            }
            let view = self.view.load();
            let txn = view.env.read()?;
            if wanted >= self.compacted() {
                return Ok(Snapshot::new(wanted, view.memtables.clone(), txn));
            }
            if revision > 0 {
                return Err(Error::Compacted);
            }
        }
    }

    /// A snapshot at the revision of a pin, even if that was compacted logically since the pin was made.
    pub fn pinned_snapshot(&self, pin: &Pin) -> Result<Snapshot> {
        let view = self.view.load();
        let txn = view.env.read()?;
        if self.removed() > pin.revision() + 1 || pin.revision() < self.floor() {
            return Err(Error::Compacted); // the pin was too old to be waited for, or is of another environment
        }
        Ok(Snapshot::new(pin.revision(), view.memtables.clone(), txn))
    }

    /// Keeps physical compaction from overtaking reads at `revision` while the pin lives, for a bounded time.
    pub fn pin(&self, revision: i64) -> Pin {
        self.pins.add(revision, PIN_AGE_MAX)
    }

    /// Long reads that are under way.
    pub fn pinned(&self) -> usize {
        self.pins.len()
    }

    /// Size of the database file and of its used pages, as of the last flush.
    pub fn sizes(&self) -> Sizes {
        *self.sizes.lock()
    }

    /// Bytes in memtables that are not in the file yet.
    pub fn unflushed_bytes(&self) -> u64 {
        self.view.load().memtables.iter().map(|m| m.bytes() as u64).sum()
    }

    /// Bytes in the memtable that takes changes now.
    pub fn active_bytes(&self) -> usize {
        self.view.load().memtables[0].bytes()
    }

    /// Rough bytes that the data takes: what the quota is compared with.
    pub fn bytes_in_use(&self) -> u64 {
        self.sizes().in_use + self.unflushed_bytes()
    }

    /// Where long reads put temporary files: beside the environment, whatever its generation.
    pub fn scratch_dir(&self) -> PathBuf {
        let view = self.view.load();
        let dir = view.env.path();
        dir.parent().unwrap_or(dir).to_owned()
    }

    /// Runs `read` over one consistent state of all tables of the last flush.
    pub fn read_flushed<T>(&self, read: impl FnOnce(&storage::ReadTxn) -> Result<T>) -> Result<T> {
        read(&self.view.load().env.read()?)
    }

    /// Keys attached to `lease` at the current revision, in byte order.
    pub fn keys_of_lease(&self, lease: i64) -> Result<Vec<bytes::Bytes>> {
        let view = self.view.load_full();
        let mut keys = std::collections::BTreeSet::new();
        let txn = view.env.read()?;
        for row in txn.prefix(Table::LeaseKey, &lease.to_be_bytes())? {
            let (row_key, long_key) = row?;
            let key = if long_key.is_empty() { &row_key[8..] } else { long_key };
            keys.insert(bytes::Bytes::copy_from_slice(key));
        }
        for memtable in view.memtables.iter().rev() {
            for (key, attached) in memtable.attachments_of(lease) {
                if attached {
                    keys.insert(key);
                } else {
                    keys.remove(&key);
                }
            }
        }
        Ok(keys.into_iter().collect())
    }
}

/// For files that do not say: reads all keys once.
fn count_keys(txn: &storage::ReadTxn) -> Result<i64> {
    let mut keys = 0;
    for row in txn.all(Table::Cur)? {
        keys += i64::from(!Image::parse(row?.1)?.is_tombstone());
    }
    Ok(keys)
}

fn read_i64(txn: &storage::ReadTxn, key: &[u8]) -> Result<Option<i64>> {
    let Some(bytes) = txn.get(Table::Meta, key)? else { return Ok(None) };
    let bytes = bytes.try_into().map_err(|_| {
        storage::Error::Damaged(format!("meta/{} has a wrong length", String::from_utf8_lossy(key)))
    })?;
    Ok(Some(i64::from_le_bytes(bytes)))
}
