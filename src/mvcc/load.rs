//! Filling a new environment with versions that another store recorded: their revisions, counters and leases stay.
//!
//! They come in order of revision, so that `log` and `blob` only grow at their ends, and memory stays bounded by one write
//! transaction. What a compaction would have removed is not kept: below the compacted revision only the newest version
//! of a key counts, and it has no row in `log`. Versions that a compaction was to remove, and has not yet, may come along.
//! Called by `import`; the environment belongs to nobody else meanwhile.

use super::Result;
use super::flush::write_blob;
use crate::storage::codec::{
    self, BlobPart, Image, LONG_STORE_KEY, LogRow, Meta, RAW_KEY_MAX, Value, blob_key, revision_key,
    store_key,
};
use crate::storage::schema::{Table, meta};
use crate::storage::{Env, Error, WriteTxn};
use crate::types::LeaseId;
use std::collections::BTreeSet;
use std::ops::Bound;

/// Bytes of versions in one write transaction; LMDB holds about ten times this in changed pages.
const TXN_BYTES: usize = 8 << 20;
/// Bytes that a version costs besides its key and value.
const VERSION_OVERHEAD: usize = 200;

/// See the module.
pub struct Loader<'e> {
    env: &'e Env,
    /// `None` for a moment between two, and after an error: there is one write transaction at a time.
    txn: Option<WriteTxn<'e>>,
    txn_bytes: usize,
    compacted: i64,
    leases: BTreeSet<LeaseId>,
}

/// A version on its way into the tables.
struct Row<'v> {
    key: &'v [u8],
    store_key: &'v [u8],
    meta: &'v Meta,
    value: Option<&'v [u8]>,
    /// The stored image that it replaces; empty when there is none.
    previous: &'v [u8],
}

impl<'e> Loader<'e> {
    /// Begins to fill the empty `env` with what is left of a history that was compacted to `compacted` (0 or less:
    /// never). Keys are attached to those of `leases` only: others have ended.
    pub fn new(env: &'e Env, compacted: i64, leases: BTreeSet<LeaseId>) -> Result<Loader<'e>> {
        Ok(Loader { env, txn: Some(env.write()?), txn_bytes: 0, compacted, leases })
    }

    /// Adds the next version, of any key; its revision must be above that of the one before. No value: a tombstone.
    pub fn add(&mut self, key: &[u8], meta: &Meta, value: Option<&[u8]>) -> Result<()> {
        let mut txn = self.take_txn()?;
        let mut buffer = [0; LONG_STORE_KEY];
        let store_key = store_key(key, &mut buffer);
        let previous = txn.get(Table::Cur, store_key)?.unwrap_or_default().to_vec();
        let row = Row { key, store_key, meta, value, previous: &previous };
        self.move_lease(&mut txn, &row)?;
        row.write(&mut txn, self.compacted)?;
        self.txn_bytes += key.len() + value.map_or(0, <[u8]>::len) + VERSION_OVERHEAD;
        if self.txn_bytes >= TXN_BYTES {
            self.txn_bytes = 0;
            txn.commit()?;
            txn = self.env.write()?;
        }
        self.txn = Some(txn);
        Ok(())
    }

    /// Makes all of it durable, together with `rows` of other tables, as the state at `revision`.
    pub fn finish(mut self, revision: i64, rows: &[(Table, Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut txn = self.take_txn()?;
        for (table, key, value) in rows {
            txn.put(*table, key, value)?;
        }
        txn.put(Table::Meta, meta::REVISION, &revision.to_le_bytes())?;
        if self.compacted > 0 {
            txn.put(Table::Meta, meta::COMPACTED, &self.compacted.to_le_bytes())?;
            txn.put(Table::Meta, meta::REMOVED, &self.compacted.to_le_bytes())?;
        }
        Ok(txn.commit()?)
    }

    fn take_txn(&mut self) -> Result<WriteTxn<'e>> {
        Ok(self.txn.take().ok_or_else(|| Error::Lmdb("loading goes on after an error".into()))?)
    }

    fn move_lease(&self, txn: &mut WriteTxn<'_>, row: &Row<'_>) -> Result<()> {
        let old = if row.previous.is_empty() { 0 } else { Image::parse(row.previous)?.meta().lease };
        let new = row.value.map_or(0, |_| row.meta.lease);
        if old == new {
            return Ok(());
        }
        let row_key = |lease: LeaseId| [&lease.to_be_bytes(), row.store_key].concat();
        if self.leases.contains(&old) {
            txn.delete(Table::LeaseKey, &row_key(old))?;
        }
        if self.leases.contains(&new) {
            let long_key: &[u8] = if row.key.len() > RAW_KEY_MAX { row.key } else { &[] };
            txn.put(Table::LeaseKey, &row_key(new), long_key)?;
        }
        Ok(())
    }
}

impl Row<'_> {
    fn write(&self, txn: &mut WriteTxn<'_>, compacted: i64) -> Result<()> {
        let revision = self.meta.modified;
        // Reads below the compacted revision are refused, so nobody needs what was replaced up to there.
        let is_undoable = revision.main > compacted;
        let is_logged = revision.main >= compacted;
        if !is_undoable {
            self.remove_previous(txn, compacted)?;
        }
        let image = match self.value {
            Some(value) => codec::live_image(self.meta, value),
            None => codec::tombstone_image(revision, false),
        };
        let mut stored = Vec::new();
        if let Some(value) = codec::flushed_image(&image, &mut stored)? {
            write_blob(txn, revision, BlobPart::Value, value)?;
        }
        let is_kept = is_logged || self.value.is_some();
        if self.key.len() > RAW_KEY_MAX && is_kept {
            write_blob(txn, revision, BlobPart::Key, self.key)?;
        }
        if is_logged {
            let mut row = Vec::new();
            let previous = if is_undoable { self.previous } else { &[] };
            LogRow::encode(self.key, &stored, previous, &mut row);
            txn.append(Table::Log, &revision_key(revision), &row)?;
        }
        if self.value.is_some() || is_undoable {
            txn.put(Table::Cur, self.store_key, &stored)?;
        } else if !self.previous.is_empty() {
            txn.delete(Table::Cur, self.store_key)?;
        }
        Ok(())
    }

    /// Removes what belongs to the image before, unless a row of `log` has it.
    fn remove_previous(&self, txn: &mut WriteTxn<'_>, compacted: i64) -> Result<()> {
        if self.previous.is_empty() {
            return Ok(());
        }
        let previous = Image::parse(self.previous)?;
        if previous.modified.main >= compacted {
            return Ok(());
        }
        let mut remove = |part| {
            let (first, last) =
                (blob_key(previous.modified, part, 0), blob_key(previous.modified, part, u32::MAX));
            txn.delete_range(Table::Blob, Bound::Included(&first), Bound::Included(&last))
        };
        if matches!(previous.value, Value::Blob(_)) {
            remove(BlobPart::Value)?;
        }
        if self.key.len() > RAW_KEY_MAX {
            remove(BlobPart::Key)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::history::Limit;
    use crate::mvcc::{Error, Store};
    use crate::types::{KeyRange, Revision};
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::ops::ControlFlow;

    type Record = (Bytes, Meta, Option<Vec<u8>>);
    type Op = (usize, Option<usize>, i64);

    fn keys() -> Vec<Bytes> {
        let long = |tail: &str| Bytes::from([&[b'm'; 1900][..], tail.as_bytes()].concat());
        vec!["a".into(), "b".into(), long(""), long("0"), long("1"), vec![b'n'; 5000].into()]
    }

    /// A store with the history that `txns` make, compacted, and all versions that it ever had.
    fn source(dir: &std::path::Path, txns: &[Vec<Op>], compacted: i64) -> (Store, Vec<Record>) {
        let store = Store::open(Env::open(&dir.join("source"), 1 << 30).unwrap()).unwrap();
        let mut records = Vec::new();
        for ops in txns {
            let mut writer = store.write(0).unwrap();
            let distinct: BTreeMap<usize, _> =
                ops.iter().map(|(k, len, lease)| (*k, (*len, *lease))).collect();
            for (index, (len, lease)) in distinct {
                let key = keys()[index].clone();
                match len {
                    Some(len) => drop(writer.put(key, &vec![index as u8; len], lease).unwrap()),
                    None => drop(writer.delete(key, false).unwrap()),
                }
            }
            for event in writer.commit().batches.iter().flat_map(|batch| &batch.events) {
                let image = Image::parse(&event.new).unwrap();
                let Value::Inline(value) = image.value else { panic!("not flushed yet") };
                let value = (!image.is_tombstone()).then(|| value.to_vec());
                records.push((event.key.clone(), image.meta(), value));
            }
        }
        if compacted > 0 {
            store.compact(compacted.min(store.revision())).unwrap();
        }
        (store, records)
    }

    /// What a compaction leaves: the newest version up to there if it is no tombstone, and all from there on.
    fn remaining(records: &[Record], compacted: i64) -> Vec<Record> {
        let mut newest = BTreeMap::new();
        for (key, meta, _) in records.iter().filter(|r| r.1.modified.main <= compacted) {
            newest.insert(key.clone(), meta.modified);
        }
        let keeps = |(key, meta, value): &&Record| {
            meta.modified.main >= compacted || (newest.get(key) == Some(&meta.modified) && value.is_some())
        };
        records.iter().filter(keeps).cloned().collect()
    }

    fn load(dir: &std::path::Path, records: &[Record], of: &Store) -> (Env, Store) {
        let env = Env::open(dir, 1 << 30).unwrap();
        let mut loader = Loader::new(&env, of.compacted(), BTreeSet::from([1, 2])).unwrap();
        for (key, meta, value) in records {
            loader.add(key, meta, value.as_deref()).unwrap();
        }
        loader.finish(of.revision(), &[]).unwrap();
        (env.clone(), Store::open(env).unwrap())
    }

    fn state(store: &Store, revision: i64) -> Vec<(Vec<u8>, Meta, Vec<u8>)> {
        let snapshot = store.snapshot(revision).unwrap();
        let mut found = Vec::new();
        snapshot
            .scan(&KeyRange::all(), |key, image| {
                found.push((key.to_vec(), image.meta(), snapshot.value(&image)?.into_owned()));
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
        found
    }

    fn history(store: &Store, from: i64) -> Vec<(i64, Bytes, Bytes, Bytes)> {
        let batches = store.history(from, Limit { revisions: usize::MAX, bytes: usize::MAX }).unwrap();
        // A tombstone before is as good as nothing, and a compaction takes it away.
        let is_nothing = |image: &Bytes| image.is_empty() || Image::parse(image).unwrap().is_tombstone();
        let inline = |image: &Bytes, is_undone: bool| match is_undone {
            true => Bytes::new(),
            false => store.with_inline_value(image).unwrap(),
        };
        let event = |revision: i64, e: &crate::mvcc::Event| {
            (
                revision,
                e.key.clone(),
                inline(&e.new, false),
                inline(&e.previous, revision <= from || is_nothing(&e.previous)),
            )
        };
        batches.iter().flat_map(|b| b.events.iter().map(|e| event(b.revision, e))).collect()
    }

    fn rows(env: &Env, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
        let txn = env.read().unwrap();
        let rows = txn.all(table).unwrap();
        rows.map(|row| row.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap()).collect()
    }

    fn check(source: &Store, loaded: &Store) {
        assert_eq!(loaded.revision(), source.revision());
        assert_eq!(loaded.compacted(), source.compacted());
        assert_eq!(loaded.hash(0).unwrap(), source.hash(0).unwrap());
        for revision in source.compacted().max(1)..=source.revision() {
            assert!(state(loaded, revision) == state(source, revision), "at {revision}");
            assert!(history(loaded, revision) == history(source, revision), "from {revision}");
        }
        for lease in [1, 2] {
            assert_eq!(loaded.keys_of_lease(lease).unwrap(), source.keys_of_lease(lease).unwrap());
        }
        assert!(loaded.keys_of_lease(3).unwrap().is_empty(), "no such lease");
        assert!(
            matches!(loaded.snapshot(source.compacted() - 1), Err(Error::Compacted))
                || source.compacted() < 2
        );
    }

    fn op() -> impl Strategy<Value = Op> {
        let len = prop_oneof![2 => (0usize..20).prop_map(Some), 1 => (1000usize..5000).prop_map(Some), 2 => Just(None)];
        (0usize..6, len, 0i64..4)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
        #[test]
        fn a_loaded_store_is_like_the_one_that_was_recorded(
            txns in prop::collection::vec(prop::collection::vec(op(), 1..4), 1..25),
            compacted in 0i64..25,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let (source, records) = source(dir.path(), &txns, compacted);
            let compacted = source.compacted().max(0);
            let (env, loaded) = load(&dir.path().join("clean"), &remaining(&records, compacted), &source);
            check(&source, &loaded);
            // The same from a source that has not removed anything yet, and nothing is left behind in any table.
            let (unfinished, loaded) = load(&dir.path().join("unfinished"), &records, &source);
            check(&source, &loaded);
            for table in [Table::Cur, Table::Log, Table::Blob, Table::LeaseKey] {
                prop_assert!(rows(&unfinished, table) == rows(&env, table), "{table:?}");
            }
        }
    }

    #[test]
    fn many_versions_take_several_transactions() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::open(dir.path(), 1 << 30).unwrap();
        let mut loader = Loader::new(&env, 0, BTreeSet::new()).unwrap();
        for main in 2..40 {
            let meta = Meta {
                modified: Revision::new(main, 0),
                create_revision: 2,
                version: main - 1,
                ..Meta::default()
            };
            loader.add(b"k", &meta, Some(&vec![0; 1 << 20])).unwrap();
        }
        loader.finish(39, &[]).unwrap();
        let store = Store::open(env).unwrap();
        assert_eq!(state(&store, 10)[0].1.version, 9);
        assert_eq!(state(&store, 0)[0].1.version, 38);
    }
}
