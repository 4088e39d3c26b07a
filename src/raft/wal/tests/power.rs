//! Loss of power: each block written since the last fdatasync is on the disk or is not, independently.
//!
//! A batch with [`Durability::Write`] is written and not synced, so the directory before it is what is certainly
//! on the disk and the directory after it is what may be.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::super::{Batch, Durability};
use super::{all, append, copy_dir, files, id, open, payload, put, synced};

/// Replaces the segments of `old` by a mixture with those of `new`, block by block. Only the newest segment that was
/// written can be torn: the ones before it were synced before it was begun.
fn mix(old: &Path, new: &Path, block: usize, mut take_new: impl FnMut() -> bool) {
    let mut newest_written = true;
    for path in files(new, "wal").into_iter().rev() {
        let newer = fs::read(&path).expect("read");
        let target = old.join(path.file_name().expect("a name"));
        let mut bytes = fs::read(&target).unwrap_or_else(|_| {
            // Made in between, and durable before anything was written to it.
            let mut bytes = vec![0; newer.len()];
            bytes[..64].copy_from_slice(&newer[..64]);
            bytes
        });
        assert_eq!(bytes.len(), newer.len());
        let written = bytes != newer;
        for (mine, theirs) in bytes.chunks_mut(block).zip(newer.chunks(block)) {
            if mine != theirs && (!newest_written || take_new()) {
                mine.copy_from_slice(theirs);
            }
        }
        newest_written &= !written;
        fs::write(&target, bytes).expect("write");
    }
}

#[derive(Clone, Debug)]
struct Round {
    synced: Vec<u16>,
    unsynced: Vec<u16>,
    cut: Option<u64>,
    purge: u64,
    coins: u64,
    block: usize,
}

fn round() -> impl Strategy<Value = Round> {
    let lens = |max| prop::collection::vec(0u16..6000, 0..max);
    let cut = prop::option::weighted(0.3, 0u64..20);
    (lens(20), lens(8), cut, 0u64..30, any::<u64>(), prop_oneof![Just(512), Just(4096)]).prop_map(
        |(synced, unsynced, cut, purge, coins, block)| Round { synced, unsynced, cut, purge, coins, block },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_survives(rounds in prop::collection::vec(round(), 1..10)) {
        let root = tempfile::tempdir().expect("tempdir");
        let mut dir = root.path().join("0");
        // Index 0 is an anchor, so that there is always a last entry.
        let mut model = vec![(id(1, 0), payload(id(1, 0), 0))];
        let mut purged = None;
        synced(&open(&dir).0, |batch| put(batch, id(1, 0), 0));
        for (number, round) in rounds.into_iter().enumerate() {
            let term = number as u64 + 2;
            let (wal, recovered) = open(&dir);
            prop_assert_eq!(recovered.last, model.last().map(|entry| entry.0));
            if let Some(cut) = round.cut {
                let floor = purged.map_or(0, |purged| purged + 1);
                let keep = (model.len() - 1).saturating_sub(cut as usize).max(floor as usize).min(model.len() - 1);
                model.truncate(keep + 1);
                synced(&wal, |batch| _ = batch.truncate_after(Some(model[keep].0)));
            }
            let lens = |lens: &[u16], from: usize| -> Vec<_> {
                (from as u64..).zip(lens.to_vec()).map(|(index, len)| (id(term, index), len as usize)).collect()
            };
            for (log_id, len) in lens(&round.synced, model.len()) {
                synced(&wal, |batch| put(batch, log_id, len));
                model.push((log_id, payload(log_id, len)));
            }
            if round.purge > 20 && model.len() > round.purge as usize {
                let log_id = model[model.len() - round.purge as usize].0;
                if purged.is_none_or(|purged| purged < log_id.index) {
                    synced(&wal, |batch| _ = batch.purge(log_id));
                    purged = Some(log_id.index);
                }
            }
            let vote = [number as u8; 9];
            synced(&wal, |batch| _ = batch.vote(&vote));
            // Let the other thread finish its renames: a copy of a directory is not a moment in time.
            drop(wal);
            let wal = open(&dir).0;
            let certain = root.path().join(format!("{}", number + 1));
            copy_dir(&dir, &certain);
            let mut maybe = Vec::new();
            for (log_id, len) in lens(&round.unsynced, model.len()) {
                let mut batch = Batch::new();
                put(&mut batch, log_id, len);
                append(&wal, batch, Durability::Write).expect("append");
                maybe.push((log_id, payload(log_id, len)));
            }
            let mut coins = round.coins;
            mix(&certain, &dir, round.block, || {
                coins = coins.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                coins >> 62 != 0
            });
            drop(wal);
            fs::remove_dir_all(&dir).expect("remove");
            dir = certain;

            let (wal, recovered) = open(&dir);
            prop_assert_eq!(recovered.vote.as_deref(), Some(&vote[..]));
            prop_assert_eq!(recovered.purged.map(|purged| purged.index), purged);
            let first = purged.map_or(0, |purged| purged as usize + 1);
            let found = all(&wal, first as u64);
            let survivors = first + found.len();
            prop_assert!(survivors >= model.len(), "lost: {} of {}", survivors, model.len());
            model.extend(maybe.into_iter().take(survivors - model.len()));
            prop_assert!(found == model[first..], "other entries than were appended");
        }
    }
}
