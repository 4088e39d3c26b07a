//! Random log entries of all kinds that change the state.

use bytes::Bytes;
use kvist::engine::command::{Command, DeleteRange, Op, Put, Txn};
use kvist::engine::entry::{Entry, Origin};
use kvist::types::KeyRange;
use rand::Rng;
use rand::rngs::StdRng;

const KEYS: usize = 60;
const LEASES: i64 = 6;
/// Keys so long that LMDB sees a digest of them only.
const LONG_KEY: usize = 2500;

/// `count` entries. Some are refused when they are applied, which is a part of the game.
pub fn entries(rng: &mut StdRng, count: usize) -> Vec<Entry> {
    (1..=count).map(|n| Entry::new(Origin::Server, command(rng, n), n as u64)).collect()
}

fn command(rng: &mut StdRng, n: usize) -> Command {
    match rng.random_range(0..40) {
        0 => Command::LeaseGrant { id: rng.random_range(1..=LEASES), ttl_secs: 3600 },
        1 => Command::LeaseRevoke { ids: vec![rng.random_range(1..=LEASES)], expired: rng.random() },
        2 => Command::LeaseCheckpoint(vec![(rng.random_range(1..=LEASES), n as i64)]),
        // Most entries make a revision, so this is somewhere in the history, or refused.
        3 => Command::Compact { revision: rng.random_range(n / 2..=n) as i64 },
        4..10 => Command::DeleteRange(delete(rng)),
        10..16 => {
            let first = rng.random_range(0..KEYS - 5);
            let puts = (first..first + rng.random_range(2..5)).map(|key| Op::Put(put(rng, key, n)));
            Command::Txn(Txn { success: puts.collect(), ..Txn::default() })
        }
        _ => {
            let key = rng.random_range(0..KEYS);
            Command::Put(put(rng, key, n))
        }
    }
}

fn delete(rng: &mut StdRng) -> DeleteRange {
    let first = rng.random_range(0..KEYS);
    let range = match rng.random_range(0..4) {
        0 => KeyRange::from_wire(key(first), key(first + 4)),
        _ => KeyRange::single(key(first)),
    };
    DeleteRange { range, prev_kv: false }
}

fn put(rng: &mut StdRng, n: usize, entry: usize) -> Put {
    let mut value = format!("{entry}.").into_bytes();
    let len = if rng.random_ratio(1, 6) { rng.random_range(0..12_000) } else { rng.random_range(0..200) };
    value.resize(value.len() + len, b'v');
    // A put with a lease that is not there is refused.
    let lease = if rng.random_ratio(1, 4) { rng.random_range(1..=LEASES) } else { 0 };
    Put { key: key(n), value: value.into(), lease, ..Put::default() }
}

fn key(n: usize) -> Bytes {
    let mut key = format!("key-{n:03}").into_bytes();
    if n.is_multiple_of(15) {
        key.resize(LONG_KEY, b'k');
    }
    key.into()
}
