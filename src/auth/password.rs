//! Passwords: bcrypt, off the request path, and a short memory of what was found right.
//!
//! Hashing takes tens of milliseconds on purpose. So it is done on threads that may block, as many at a time as there are
//! cores, and whoever comes when `WAITING_MAX` wait is sent away. Credentials found right are remembered for
//! `REMEMBERED` under a keyed digest that includes the auth revision: any change of users or roles forgets them.

use super::Error;
use super::store::State;
use aws_lc_rs::hmac;
use bcrypt::Version;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// bcrypt takes no more bytes than this.
const PASSWORD_BYTES_MAX: usize = 72;
/// Passwords that may wait for a thread.
const WAITING_MAX: usize = 1024;
/// How long credentials are known to be right.
const REMEMBERED: Duration = Duration::from_secs(30);
/// Credentials remembered at most.
const REMEMBERED_MAX: usize = 4096;

/// See the module.
pub struct Passwords {
    cost: u32,
    /// Threads at work.
    running: Semaphore,
    /// Those and the ones that wait.
    admitted: Semaphore,
    known: Mutex<Known>,
}

/// Digests of right credentials, and until when.
struct Known {
    key: hmac::Key,
    until: HashMap<[u8; 32], Instant>,
}

/// Refuses what bcrypt cannot hash whole.
pub fn check_length(password: &str) -> Result<(), Error> {
    if password.len() > PASSWORD_BYTES_MAX { Err(Error::PasswordTooLong) } else { Ok(()) }
}

impl Passwords {
    /// New hashes will be made with 2 to the power of `cost` rounds.
    pub fn new(cost: u32) -> Passwords {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>());
        Passwords {
            cost,
            running: Semaphore::new(threads),
            admitted: Semaphore::new(WAITING_MAX + threads),
            known: Mutex::new(Known { key, until: HashMap::new() }),
        }
    }

    /// The hash of a new password.
    pub async fn hash(&self, password: String) -> Result<Vec<u8>, Error> {
        check_length(&password)?;
        let cost = self.cost;
        let hashed = self.run(move || bcrypt::hash_with_result(&password, cost)).await?;
        let parts = hashed.map_err(|_| Error::Overloaded)?; // only if the system has no randomness
        Ok(parts.format_for_version(Version::TwoA).into_bytes())
    }

    /// Checks a password against the state; returns the auth revision as of which it is right.
    pub async fn check(&self, state: Arc<State>, user: &str, password: String) -> Result<u64, Error> {
        if !state.is_enabled() {
            return Err(Error::NotEnabled);
        }
        let found = state.user(user).ok_or(Error::Failed)?;
        if found.no_password {
            return Err(Error::NoPasswordUser);
        }
        let revision = state.revision();
        let digest = self.known.lock().digest(revision, user, &password);
        if self.known.lock().has(&digest, Instant::now()) {
            return Ok(revision);
        }
        let hash = String::from_utf8_lossy(&found.password).into_owned();
        // A hash that is none is nobody's.
        let is_right = self.run(move || bcrypt::verify(&password, &hash).unwrap_or(false)).await?;
        if !is_right {
            tracing::info!("user-name" = user, "invalid password");
            return Err(Error::Failed);
        }
        self.known.lock().remember(digest, Instant::now());
        Ok(revision)
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let _admitted = self.admitted.try_acquire().map_err(|_| Error::Overloaded)?;
        let _running = self.running.acquire().await.map_err(|_| Error::Overloaded)?;
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => Ok(result),
            Err(error) if error.is_cancelled() => Err(Error::Overloaded),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

impl Known {
    fn digest(&self, revision: u64, user: &str, password: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&revision.to_le_bytes());
        context.update(&(user.len() as u64).to_le_bytes());
        context.update(user.as_bytes());
        context.update(password.as_bytes());
        context.sign().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    fn has(&self, digest: &[u8; 32], now: Instant) -> bool {
        self.until.get(digest).is_some_and(|until| now < *until)
    }

    fn remember(&mut self, digest: [u8; 32], now: Instant) {
        if self.until.len() >= REMEMBERED_MAX {
            self.until.retain(|_, until| now < *until);
        }
        if self.until.len() >= REMEMBERED_MAX {
            self.until.clear();
        }
        self.until.insert(digest, now + REMEMBERED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::store::{Change, Store};

    async fn with_user(passwords: &Passwords, password: &str) -> Store {
        let store = Store::new(State::default());
        let hash = passwords.hash(password.into()).await.unwrap();
        let change = |change| {
            store.apply(&change).unwrap();
        };
        change(Change::UserAdd { name: "root".into(), password: hash, no_password: false });
        change(Change::UserAdd { name: "cn".into(), password: Vec::new(), no_password: true });
        change(Change::UserGrantRole { name: "root".into(), role: "root".into() });
        store
    }

    #[tokio::test]
    async fn a3_a7_a_password_is_right_until_anything_changes() {
        let passwords = Passwords::new(4);
        let store = with_user(&passwords, "secret").await;
        let check = |user: &'static str, password: &'static str| {
            let state = Arc::clone(&store.load());
            let passwords = &passwords;
            async move { passwords.check(state, user, password.into()).await }
        };
        assert_eq!(check("root", "secret").await, Err(Error::NotEnabled));
        store.apply(&Change::Enable).unwrap();
        assert_eq!(check("root", "secret").await, Ok(4));
        assert_eq!(passwords.known.lock().until.len(), 1);
        assert_eq!(check("root", "secret").await, Ok(4), "from memory");
        assert_eq!(check("root", "wrong").await, Err(Error::Failed));
        assert_eq!(check("nobody", "secret").await, Err(Error::Failed));
        assert_eq!(check("cn", "").await, Err(Error::NoPasswordUser));
        assert_eq!(passwords.known.lock().until.len(), 1, "what is wrong is not remembered");
        let password = passwords.hash("other".into()).await.unwrap();
        store.apply(&Change::UserChangePassword { name: "root".into(), password }).unwrap();
        assert_eq!(check("root", "secret").await, Err(Error::Failed), "the memory does not outlive a change");
        assert_eq!(check("root", "other").await, Ok(5));
    }

    #[tokio::test]
    async fn a3_a_hash_is_one_that_others_read_and_long_passwords_are_refused() {
        let passwords = Passwords::new(4);
        let hash = String::from_utf8(passwords.hash("p".into()).await.unwrap()).unwrap();
        assert!(hash.starts_with("$2a$04$") && hash.len() == 60, "{hash}");
        assert_eq!(passwords.hash("p".repeat(73)).await, Err(Error::PasswordTooLong));
        assert!(passwords.hash("p".repeat(72)).await.is_ok());
    }

    #[test]
    fn the_memory_is_short_and_bounded() {
        let passwords = Passwords::new(4);
        let (mut known, now) = (passwords.known.lock(), Instant::now());
        for n in 0..3 * REMEMBERED_MAX as u64 {
            let digest = known.digest(n, "u", "p");
            known.remember(digest, now);
            assert!(known.has(&digest, now) && !known.has(&digest, now + REMEMBERED));
        }
        assert!(known.until.len() <= REMEMBERED_MAX);
        assert_ne!(known.digest(1, "ab", "c"), known.digest(1, "a", "bc"));
    }
}
