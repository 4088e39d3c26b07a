//! Work on a thread that may block cannot be stopped from outside: it looks now and then whether anybody still waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tonic::Status;

/// Held by who waits; dropped with the request when the client cancels it.
pub struct Waiter(Arc<AtomicBool>);

/// Goes with the work.
pub struct Work(Arc<AtomicBool>);

impl Waiter {
    /// Somebody who waits, and the work.
    pub fn new() -> (Waiter, Work) {
        let is_gone = Arc::new(AtomicBool::new(false));
        (Waiter(Arc::clone(&is_gone)), Work(is_gone))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Work {
    /// An error once nobody waits any more.
    pub fn is_wanted(&self) -> Result<(), Status> {
        if self.0.load(Ordering::Relaxed) { Err(Status::cancelled("context canceled")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_ends_with_who_waits_for_it() {
        let (waiter, work) = Waiter::new();
        assert!(work.is_wanted().is_ok());
        drop(waiter);
        assert_eq!(work.is_wanted().unwrap_err().code(), tonic::Code::Cancelled);
    }
}
