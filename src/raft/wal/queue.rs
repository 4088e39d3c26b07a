//! The queue in front of the log thread: bounded by bytes, drained as a whole.
//!
//! A full queue blocks the proposer: the disk is the bottleneck then, and there is nothing better to do. After the
//! log thread has ended, for whatever reason, each request gets an error.

use std::collections::VecDeque;
use std::io;

use parking_lot::{Condvar, Mutex};

use super::batch::Batch;
use super::{Done, Durability};

/// Bytes that may wait; one batch of any size is let into an empty queue.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// What a request counts besides its records.
const REQUEST_BYTES: usize = 128;

pub(super) struct Request {
    pub batch: Batch,
    pub durability: Durability,
    pub done: Done,
}

impl Request {
    fn bytes(&self) -> usize {
        self.batch.len_bytes() + REQUEST_BYTES
    }

    /// Answers a request that nobody will serve.
    pub fn refuse(self) {
        (self.done)(Err(io::Error::new(io::ErrorKind::BrokenPipe, "the log is closed")));
    }
}

#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    filled: Condvar,
    drained: Condvar,
}

#[derive(Default)]
struct Inner {
    requests: VecDeque<Request>,
    bytes: usize,
    closed: bool,
}

impl Queue {
    /// Adds a request, waiting for room; a closed queue refuses it.
    pub fn push(&self, request: Request) {
        let mut inner = self.inner.lock();
        while !inner.closed && inner.bytes > 0 && inner.bytes + request.bytes() > QUEUE_BYTES_MAX {
            self.drained.wait(&mut inner);
        }
        if inner.closed {
            drop(inner);
            return request.refuse();
        }
        inner.bytes += request.bytes();
        inner.requests.push_back(request);
        drop(inner);
        self.filled.notify_one();
    }

    /// Waits for requests and moves about `bytes_max` of them to `taken`; false once closed and empty.
    pub fn drain(&self, taken: &mut Vec<Request>, bytes_max: usize) -> bool {
        let mut inner = self.inner.lock();
        while inner.requests.is_empty() {
            if inner.closed {
                return false;
            }
            self.filled.wait(&mut inner);
        }
        let mut bytes = 0;
        while bytes < bytes_max {
            let Some(request) = inner.requests.pop_front() else { break };
            bytes += request.bytes();
            taken.push(request);
        }
        inner.bytes -= bytes;
        drop(inner);
        self.drained.notify_all();
        true
    }

    /// Takes no more requests; what waits is still served.
    pub fn close(&self) {
        self.inner.lock().closed = true;
        self.filled.notify_all();
        self.drained.notify_all();
    }

    /// Closes and answers everything that waits with an error.
    pub fn abandon(&self) {
        self.close();
        let requests = std::mem::take(&mut self.inner.lock().requests);
        requests.into_iter().for_each(Request::refuse);
    }
}
