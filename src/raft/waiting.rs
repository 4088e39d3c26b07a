//! Those who wait for the answer to a command that this member sent to the leader.
//!
//! A command is sent with a number, and with the term of the leader that is meant: nobody else may take it in. So it is
//! applied before the first entry of a later term, or never. That is how its fate is known without asking anybody:
//!
//! - its entry is applied here: it is done, and the answer is the applier's;
//! - an entry of a later term is applied, or the leader refuses: it was not done, and may be sent again;
//! - a snapshot takes the place of the log: nobody can tell.

use crate::engine::command::Applied;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::oneshot;

/// What became of a command.
#[derive(Debug, PartialEq)]
pub enum Fate {
    /// It was carried out, or refused by the applier.
    Applied(Applied),
    /// It was not done and will not be.
    NotDone,
    /// It may have been done.
    Unknown,
}

struct Waiter {
    term: u64,
    answer: oneshot::Sender<Fate>,
}

/// See the module.
pub struct Waiting {
    next: AtomicU64,
    /// Term of the last applied entry.
    term: AtomicU64,
    waiters: Mutex<HashMap<u64, Waiter>>,
}

/// A number, and what will become of its command. Dropped, nobody waits any more.
pub struct Wait<'w> {
    /// The number.
    pub number: u64,
    waiting: &'w Waiting,
    fate: oneshot::Receiver<Fate>,
}

impl Waiting {
    /// Nobody waits. `first` is the first number: one that no entry of an earlier run of this member has.
    pub fn new(first: u64) -> Waiting {
        Waiting { next: AtomicU64::new(first), term: AtomicU64::new(0), waiters: Mutex::default() }
    }

    /// Begins to wait for a command that only the leader of `term` may take in.
    pub fn begin(&self, term: u64) -> Wait<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, fate) = oneshot::channel();
        let mut waiters = self.waiters.lock();
        // Under the lock, which `passed` takes as well: either it sees this one, or this one sees its term.
        if self.term.load(Ordering::Relaxed) <= term {
            waiters.insert(number, Waiter { term, answer });
        } else {
            // The other end is right here.
            let _ = answer.send(Fate::NotDone);
        }
        drop(waiters);
        Wait { number, waiting: self, fate }
    }

    /// The command with this number was applied.
    pub fn applied(&self, number: u64, applied: Applied) {
        self.tell(number, Fate::Applied(applied));
    }

    /// The leader did not take in the command with this number.
    pub fn refused(&self, number: u64) {
        self.tell(number, Fate::NotDone);
    }

    fn tell(&self, number: u64, fate: Fate) {
        if let Some(waiter) = self.waiters.lock().remove(&number) {
            // Whoever waited may have gone.
            let _ = waiter.answer.send(fate);
        }
    }

    /// An entry of `term` was applied, after everything of earlier terms.
    pub fn passed(&self, term: u64) {
        if self.term.load(Ordering::Relaxed) >= term {
            return;
        }
        let mut waiters = self.waiters.lock();
        self.term.store(term, Ordering::Relaxed);
        for (_, waiter) in waiters.extract_if(|_, waiter| waiter.term < term) {
            let _ = waiter.answer.send(Fate::NotDone); // as above
        }
    }

    /// A state of `term` took the place of the log.
    pub fn jumped(&self, term: u64) {
        let mut waiters = self.waiters.lock();
        self.term.fetch_max(term, Ordering::Relaxed);
        for (_, waiter) in waiters.drain() {
            let _ = waiter.answer.send(Fate::Unknown); // as above
        }
    }
}

impl Wait<'_> {
    /// Resolves when it is known.
    pub async fn fate(mut self) -> Fate {
        (&mut self.fate).await.unwrap_or(Fate::Unknown)
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.waiting.waiters.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::command::Outcome;

    fn done() -> Applied {
        Ok(Outcome::Done { revision: 2 })
    }

    #[tokio::test]
    async fn a_command_is_done_if_it_is_applied_and_not_done_if_a_later_term_is() {
        let waiting = Waiting::new(u64::MAX);
        let (first, second, third) = (waiting.begin(3), waiting.begin(3), waiting.begin(4));
        assert_eq!((first.number, second.number, third.number), (u64::MAX, 0, 1));
        waiting.passed(3);
        waiting.applied(first.number, done());
        waiting.passed(4);
        waiting.applied(second.number, done());
        assert_eq!(first.fate().await, Fate::Applied(done()));
        assert_eq!(second.fate().await, Fate::NotDone);
        waiting.refused(third.number);
        assert_eq!(third.fate().await, Fate::NotDone);
        assert_eq!(waiting.begin(3).fate().await, Fate::NotDone, "its term is over already");
    }

    #[tokio::test]
    async fn behind_a_snapshot_nobody_can_tell() {
        let waiting = Waiting::new(7);
        let (first, second) = (waiting.begin(3), waiting.begin(3));
        drop(second);
        waiting.jumped(3);
        assert_eq!(first.fate().await, Fate::Unknown);
        assert!(waiting.waiters.lock().is_empty());
    }
}
