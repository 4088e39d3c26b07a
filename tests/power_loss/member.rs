//! A member's state without its log: the applier and the store, as the flush thread drives them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use kvist::engine::apply::{Applier, LogPosition};
use kvist::engine::entry::Entry;
use kvist::lease::table::Leases;
use kvist::mvcc::hash::Hash;
use kvist::mvcc::history::Limit;
use kvist::mvcc::{Store, defrag};
use kvist::storage::Env;
use kvist::storage::codec::Meta;
use kvist::storage::schema::TABLES;
use kvist::types::KeyRange;

/// Bytes; sizes the map.
const QUOTA: u64 = 1 << 30;

/// See the module.
pub struct Member {
    pub base: PathBuf,
    pub store: Arc<Store>,
    pub applier: Applier,
}

/// All rows of the file, table by table.
pub type Rows = Vec<Vec<(Vec<u8>, Vec<u8>)>>;

/// What clients can read.
#[derive(PartialEq)]
pub struct Picture {
    revision: i64,
    compacted: i64,
    hash: Hash,
    pairs: Vec<(Vec<u8>, Meta, Vec<u8>)>,
    changes: Vec<(i64, Vec<(Bytes, Bytes)>)>,
    leases: Leases,
    attached: BTreeMap<i64, Vec<Bytes>>,
}

impl Member {
    /// The state as the last flush below `base` left it.
    pub fn open(base: &Path) -> Member {
        let dir = defrag::current_dir(base).expect("a directory");
        let env = Env::open(&dir, QUOTA).expect("an environment that can be read");
        let store = Arc::new(Store::open(env).expect("a store that can be read"));
        let applier = Applier::load(Arc::clone(&store)).expect("a state that can be read");
        Member { base: base.to_owned(), store, applier }
    }

    /// Number of entries applied.
    pub fn applied(&self) -> usize {
        self.applier.applied().map_or(0, |position| position.index as usize)
    }

    /// Applies the entries behind the last applied one, up to `upto`.
    pub fn apply(&mut self, entries: &[Entry], upto: usize) {
        for index in self.applied()..upto {
            let position = LogPosition { term: 1, index: index as u64 + 1 };
            // A refusal is an answer like any other.
            let _ = self.applier.apply(position, &entries[index]).expect("the state can be read");
            self.applier.take_effects();
        }
    }

    /// Moves what was applied into the file, in one commit if there is anything.
    pub fn flush(&mut self) {
        if let Some((frozen, _)) = self.applier.freeze() {
            self.store.flush(&frozen).expect("flush");
        }
    }

    /// One step of physical compaction.
    pub fn remove(&self, rows_max: usize) {
        self.store.remove_compacted(rows_max).expect("remove");
    }

    pub fn defragment(&self) {
        self.store.defragment(&self.base, QUOTA).expect("defragment");
    }

    /// Name and content of the current file.
    pub fn file(&self) -> (PathBuf, Vec<u8>) {
        let dir = defrag::current_dir(&self.base).expect("a directory");
        let name = dir.file_name().expect("a name").into();
        (name, std::fs::read(dir.join("data.mdb")).expect("read the file"))
    }

    pub fn rows(&self) -> Rows {
        let rows = self.store.read_flushed(|txn| {
            let mut rows = Rows::new();
            for table in TABLES {
                let found = txn.all(table)?.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())));
                rows.push(found.collect::<Result<_, _>>()?);
            }
            Ok(rows)
        });
        rows.expect("the file can be read")
    }

    pub fn picture(&self) -> Picture {
        let store = &self.store;
        let leases = self.applier.leases().clone();
        let attached = leases.keys().map(|&id| (id, store.keys_of_lease(id).expect("keys of a lease")));
        Picture {
            revision: store.revision(),
            compacted: store.compacted(),
            hash: store.hash(0).expect("hash"),
            pairs: self.pairs(),
            changes: self.changes(),
            attached: attached.collect(),
            leases,
        }
    }

    fn pairs(&self) -> Vec<(Vec<u8>, Meta, Vec<u8>)> {
        let snapshot = self.store.snapshot(0).expect("a snapshot");
        let mut pairs = Vec::new();
        let scanned = snapshot.scan(&KeyRange::all(), |key, image| {
            pairs.push((key.to_vec(), image.meta(), snapshot.value(&image)?.into_owned()));
            Ok(ControlFlow::Continue(()))
        });
        scanned.expect("a scan");
        pairs
    }

    fn changes(&self) -> Vec<(i64, Vec<(Bytes, Bytes)>)> {
        let mut changes: Vec<(i64, Vec<_>)> = Vec::new();
        let mut from = self.store.compacted().max(1);
        loop {
            let batches = self.store.history(from, Limit { revisions: 50, bytes: 1 << 20 }).expect("history");
            let Some(last) = batches.last() else { return changes };
            from = last.revision + 1;
            for batch in &batches {
                let inline = |image| self.store.with_inline_value(image).expect("a value");
                let events = batch.events.iter().map(|e| (e.key.clone(), inline(&e.new)));
                changes.push((batch.revision, events.collect()));
            }
        }
    }
}

impl Picture {
    /// Names the first part that is not the same; `None` when all are.
    pub fn difference(&self, other: &Picture) -> Option<String> {
        let position = |p: &Picture| (p.revision, p.compacted, p.hash.compacted, p.hash.revision);
        if position(self) != position(other) {
            return Some(format!("position {:?}, expected {:?}", position(self), position(other)));
        }
        let parts = [
            ("pairs", self.pairs == other.pairs),
            ("history", self.changes == other.changes),
            ("leases", self.leases == other.leases),
            ("keys of leases", self.attached == other.attached),
            ("hash", self.hash == other.hash),
        ];
        parts.into_iter().find(|(_, same)| !same).map(|(name, _)| name.to_owned())
    }
}
