//! Maps keyed by [`WatcherKey`]: looked up once for each event and watcher, with a hash that costs one multiplication.
//!
//! The hub gives the keys out itself, in order, so nobody can choose keys that collide.

use super::WatcherKey;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// See the module.
pub type KeyMap<V> = HashMap<WatcherKey, V, BuildHasherDefault<KeyHasher>>;

/// Spreads a number over all bits, by the golden ratio.
#[derive(Default)]
pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write_u64(&mut self, key: u64) {
        self.0 = (self.0 ^ key).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
