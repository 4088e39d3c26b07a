//! Simple tokens: sixteen random letters, a dot, and the index of the log entry that gave them out.
//!
//! A token lives for the TTL after its last use. Every member learns of it by applying the entry; none remembers it over
//! a restart. At most `TOKENS_MAX` are kept: then those that would expire first make room.

use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Letters of the random part.
const PREFIX_LEN: usize = 16;
const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Tokens kept; about 20 MB.
const TOKENS_MAX: usize = 100_000;
/// Least time between two removals of what has expired.
const SWEEP_INTERVAL_MS: u64 = 1000;

/// The tokens of a member.
pub struct Tokens {
    ttl: Duration,
    started: Instant,
    table: RwLock<Table>,
}

#[derive(Default)]
struct Table {
    tokens: HashMap<Box<str>, Token>,
    swept_ms: u64,
}

struct Token {
    user: Arc<str>,
    /// When it expires; moves with every use.
    deadline_ms: AtomicU64,
}

impl Tokens {
    /// No tokens yet; each will live for `ttl` after its last use.
    pub fn new(ttl: Duration) -> Tokens {
        Tokens { ttl, started: Instant::now(), table: RwLock::default() }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn deadline(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add(self.ttl.as_millis() as u64)
    }

    /// Whose token it is. It lives for another TTL from now on.
    pub fn user(&self, token: &str) -> Option<Arc<str>> {
        self.user_at(token, self.now_ms())
    }

    fn user_at(&self, token: &str, now_ms: u64) -> Option<Arc<str>> {
        let table = self.table.read();
        let found = table.tokens.get(token)?;
        if found.deadline_ms.load(Ordering::Relaxed) <= now_ms {
            return None;
        }
        found.deadline_ms.store(self.deadline(now_ms), Ordering::Relaxed);
        Some(Arc::clone(&found.user))
    }

    /// Takes in a token that was given out.
    pub fn assign(&self, token: String, user: &str) {
        self.assign_at(token, user, self.now_ms(), TOKENS_MAX);
    }

    fn assign_at(&self, token: String, user: &str, now_ms: u64, tokens_max: usize) {
        let deadline_ms = AtomicU64::new(self.deadline(now_ms));
        let mut table = self.table.write();
        table.make_room(now_ms, tokens_max);
        table.tokens.insert(token.into(), Token { user: user.into(), deadline_ms });
    }

    /// Voids the tokens of a user.
    pub fn revoke(&self, user: &str) {
        self.table.write().tokens.retain(|_, token| &*token.user != user);
    }

    /// Voids all tokens.
    pub fn revoke_all(&self) {
        self.table.write().tokens.clear();
    }
}

impl Table {
    fn make_room(&mut self, now_ms: u64, tokens_max: usize) {
        let is_full = self.tokens.len() >= tokens_max;
        if is_full || now_ms >= self.swept_ms + SWEEP_INTERVAL_MS {
            self.swept_ms = now_ms;
            self.tokens.retain(|_, token| *token.deadline_ms.get_mut() > now_ms);
        }
        if self.tokens.len() >= tokens_max {
            // A tenth at once, so that a flood of logins does not look for the oldest each time.
            let mut deadlines: Vec<u64> =
                self.tokens.values().map(|token| token.deadline_ms.load(Ordering::Relaxed)).collect();
            let place = tokens_max / 10;
            let (_, &mut bound, _) = deadlines.select_nth_unstable(place);
            let mut surplus = place + 1;
            self.tokens.retain(|_, token| {
                let goes = surplus > 0 && *token.deadline_ms.get_mut() <= bound;
                surplus -= usize::from(goes);
                !goes
            });
        }
    }
}

/// A token as a client gets it.
pub fn token(prefix: &str, index: u64) -> String {
    format!("{prefix}.{index}")
}

/// The entry that gave a token out, if it is a simple one.
pub fn index_of(token: &str) -> Option<u64> {
    token.rsplit_once('.').and_then(|(_, index)| index.parse().ok())
}

/// The random part of a token.
pub fn random_prefix() -> String {
    (0..PREFIX_LEN).map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        Tokens::new(Duration::from_secs(300))
    }

    #[test]
    fn a8_a_token_is_sixteen_letters_and_the_index() {
        let prefix = random_prefix();
        assert!(prefix.len() == 16 && prefix.bytes().all(|b| b.is_ascii_alphabetic()));
        assert_ne!(prefix, random_prefix());
        assert_eq!(token("abc", 42), "abc.42");
    }

    #[test]
    fn a8_use_prolongs_and_silence_ends() {
        let tokens = tokens();
        tokens.assign_at("t.1".into(), "ann", 0, 10);
        assert_eq!(tokens.user_at("t.1", 299_999).as_deref(), Some("ann"));
        assert_eq!(tokens.user_at("t.1", 599_998).as_deref(), Some("ann"));
        assert_eq!(tokens.user_at("t.1", 899_998), None);
        assert_eq!(tokens.user_at("t.2", 0), None);
    }

    #[test]
    fn a8_tokens_go_with_their_user() {
        let tokens = tokens();
        for (token, user) in [("a.1", "ann"), ("a.2", "ann"), ("b.3", "bob")] {
            tokens.assign_at(token.into(), user, 0, 10);
        }
        tokens.revoke("ann");
        let left = |token| tokens.user_at(token, 1).is_some();
        assert_eq!(["a.1", "a.2", "b.3"].map(left), [false, false, true]);
        tokens.revoke_all();
        assert!(tokens.user_at("b.3", 1).is_none());
    }

    #[test]
    fn a_flood_of_logins_is_bounded_and_keeps_the_newest() {
        let tokens = tokens();
        for n in 0..1000u64 {
            tokens.assign_at(token("t", n), "ann", n, 100);
            assert!(tokens.table.read().tokens.len() <= 100);
            assert!(tokens.user_at(&token("t", n), n).is_some());
        }
        // What has expired goes before anything is pushed out.
        tokens.assign_at("late.1".into(), "ann", 400_000, 100);
        assert_eq!(tokens.table.read().tokens.len(), 1);
    }
}
