//! One wake-up for many streams: the hub's threads collect the tasks to wake, and a task on their own runtime wakes them.
//!
//! Waking a task of another runtime costs a lock and perhaps a system call, and lets it run before its neighbours have
//! anything to send. Woken together, the streams of one connection share one write to the socket.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;
use tokio::runtime::{Handle, Id};
use tokio::sync::Notify;

/// The tasks of one runtime that wait to be woken.
#[derive(Default)]
pub struct Bell {
    wakers: Mutex<Vec<Waker>>,
    rung: Notify,
}

impl Bell {
    /// Adds a task to be woken by the next `ring`. At most one entry a stream, so it is bounded by their number.
    pub fn add(&self, waker: Waker) {
        self.wakers.lock().push(waker);
    }

    /// Wakes everyone who was added.
    pub fn ring(&self) {
        if !self.wakers.lock().is_empty() {
            self.rung.notify_one();
        }
    }

    async fn listen(self: Arc<Bell>) {
        loop {
            self.rung.notified().await;
            let wakers = std::mem::take(&mut *self.wakers.lock());
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

/// The bells of all runtimes that have streams.
#[derive(Default)]
pub struct Bells(Mutex<HashMap<Id, Arc<Bell>>>);

impl Bells {
    /// The bell of the runtime that calls; its task lives as long as the runtime.
    pub fn here(&self) -> Arc<Bell> {
        let runtime = Handle::current();
        Arc::clone(self.0.lock().entry(runtime.id()).or_insert_with(|| {
            let bell = Arc::new(Bell::default());
            runtime.spawn(Arc::clone(&bell).listen());
            bell
        }))
    }

    /// Rings all of them.
    pub fn ring(&self) {
        for bell in self.0.lock().values() {
            bell.ring();
        }
    }
}
