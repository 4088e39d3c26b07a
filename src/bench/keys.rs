//! Keys, values and dice: the same for every server, so that a run can be repeated. A key is the prefix and a number with
//! leading zeros, so that numeric order is key order; a value has a stamp in its first eight bytes. Used by all workloads.

use super::settings::Settings;
use std::sync::Arc;

/// Bytes of the stamp.
const STAMP_BYTES: usize = 8;

/// Makes keys and values of one run. Cheap to clone.
#[derive(Clone)]
pub struct Keys {
    prefix: Arc<[u8]>,
    digits: usize,
    /// Bytes of a value.
    val_size: usize,
    /// Noise that does not compress, for the longest value.
    body: Arc<[u8]>,
}

impl Keys {
    /// Keys and values of the sizes that the settings ask for.
    pub fn new(settings: &Settings) -> Keys {
        let mut dice = Dice::new(settings.seed);
        let words = longest(settings.val_size).div_ceil(STAMP_BYTES);
        let body: Vec<u8> = (0..words).flat_map(|_| dice.next().to_le_bytes()).collect();
        let prefix = settings.prefix.as_bytes();
        let digits = settings.key_size.saturating_sub(prefix.len());
        Keys { prefix: prefix.into(), digits, val_size: settings.val_size, body: body.into() }
    }

    /// What every key begins with.
    pub fn prefix(&self) -> Vec<u8> {
        self.prefix.to_vec()
    }

    /// The first key behind all that begin with the prefix.
    pub fn end(&self) -> Vec<u8> {
        prefix_end(&self.prefix)
    }

    /// The first key behind all that [`Keys::key`] makes.
    pub fn end_of_numbers(&self) -> Vec<u8> {
        [&self.prefix[..], b":"].concat()
    }

    /// A key that is none of the numbered ones if the name begins with a letter.
    pub fn named(&self, name: &str) -> Vec<u8> {
        [&self.prefix[..], name.as_bytes()].concat()
    }

    /// The n-th key.
    pub fn key(&self, mut n: u64) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.prefix.len() + self.digits);
        key.extend_from_slice(&self.prefix);
        key.resize(self.prefix.len() + self.digits, b'0');
        for digit in key[self.prefix.len()..].iter_mut().rev() {
            *digit = b'0' + u8::try_from(n % 10).unwrap_or_default();
            n /= 10;
        }
        key
    }

    /// A value with this stamp, as far as it has room.
    pub fn value(&self, stamp: u64) -> Vec<u8> {
        self.value_of(stamp, self.val_size)
    }

    /// A value between two thirds and four thirds of the usual length.
    pub fn uneven_value(&self, stamp: u64, dice: &mut Dice) -> Vec<u8> {
        let (least, most) = (self.val_size - self.val_size / 3, longest(self.val_size));
        let length = least as u64 + dice.below((most - least) as u64 + 1);
        self.value_of(stamp, usize::try_from(length).unwrap_or(self.val_size))
    }

    fn value_of(&self, stamp: u64, length: usize) -> Vec<u8> {
        let mut value = self.body[..length.min(self.body.len())].to_vec();
        let room = value.len().min(STAMP_BYTES);
        value[..room].copy_from_slice(&stamp.to_le_bytes()[..room]);
        value
    }

    /// Whether this is the value with that stamp; the rest of it is taken on trust but for its length.
    pub fn is_value(&self, value: &[u8], stamp: u64) -> bool {
        let room = self.val_size.min(STAMP_BYTES);
        value.len() == self.val_size && value[..room] == stamp.to_le_bytes()[..room]
    }
}

/// The longest of values of this usual size.
fn longest(val_size: usize) -> usize {
    val_size + val_size / 3
}

/// The stamp of a value that has room for one.
pub fn stamp(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|stamp| u64::from_le_bytes(*stamp))
}

/// The first key behind all that begin with `prefix`; `\0`, which stands for "no end", if there is none.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return end;
        }
    }
    vec![0]
}

/// Pseudo-random numbers (splitmix64).
#[derive(Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice that give the same numbers for the same seed.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// Dice of their own for the n-th client.
    pub fn of_client(seed: u64, n: usize) -> Dice {
        let mut dice = Dice(seed ^ (n as u64).wrapping_mul(0xD6E8_FEB8_6659_FD93));
        Dice(dice.next())
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A number of [0, 1).
    pub fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The n-th number of a permutation of `0..count` without visible order.
pub fn scattered(n: u64, count: u64) -> u64 {
    // A prime above any count of keys that fits into memory times a small one: multiplication permutes unless it divides.
    const STRIDE: u128 = 1_000_000_007;
    u64::try_from(u128::from(n) * STRIDE % u128::from(count)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tests::settings;

    #[test]
    fn keys_are_of_the_size_and_in_order() {
        let keys = Keys::new(&settings());
        assert_eq!(keys.key(42), b"bench/0000000042");
        assert!(keys.key(99) < keys.key(100));
        assert!(keys.key(7) > keys.prefix() && keys.key(u64::MAX) < keys.end());
        assert!(keys.key(u64::MAX) < keys.end_of_numbers() && keys.end_of_numbers() < keys.named("event"));
        assert_eq!(keys.end(), b"bench0");
        assert_eq!(prefix_end(b"a\xff"), b"b");
        assert_eq!(prefix_end(b"\xff"), b"\0");
    }

    #[test]
    fn values_carry_their_stamp() {
        let keys = Keys::new(&settings());
        let value = keys.value(7);
        assert_eq!(value.len(), 256);
        assert!(keys.is_value(&value, 7) && !keys.is_value(&value, 8) && !keys.is_value(&value[..255], 7));
        let tiny = Keys::new(&Settings { val_size: 3, ..settings() });
        assert!(tiny.is_value(&tiny.value(5), 5) && !tiny.is_value(&tiny.value(5), 6));
        let none = Keys::new(&Settings { val_size: 0, ..settings() });
        assert!(none.value(5).is_empty() && none.is_value(&[], 5));
        assert!(none.uneven_value(5, &mut Dice::new(1)).is_empty());
        let mut dice = Dice::new(1);
        let lengths: Vec<usize> = (0..200).map(|_| keys.uneven_value(7, &mut dice).len()).collect();
        assert!(lengths.iter().all(|length| (171..=341).contains(length)) && lengths[0] != lengths[1]);
        assert_eq!((stamp(&value), stamp(&value[..7])), (Some(7), None));
    }

    #[test]
    fn scattering_loses_no_number() {
        for count in [1, 2, 10, 1000, 4096] {
            let mut all: Vec<u64> = (0..count).map(|n| scattered(n, count)).collect();
            all.sort_unstable();
            assert!(all.iter().copied().eq(0..count), "{count}");
        }
    }

    #[test]
    fn clients_throw_different_dice_and_a_seed_repeats() {
        let throw = |seed, n| Dice::of_client(seed, n).next();
        assert_eq!(throw(1, 2), throw(1, 2));
        assert_ne!(throw(1, 2), throw(1, 3));
        assert_ne!(throw(1, 2), throw(2, 2));
    }
}
