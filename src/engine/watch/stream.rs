//! One client's stream of deliveries: a queue bounded in bytes, filled by the hub and drained by the adapter.

use super::Matched;
use super::bell::Bell;
use crate::metrics::METRICS;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Bytes of queued events beyond which watchers fall back to history. One batch above it is let in when the queue is
/// empty, however large.
const QUEUED_BYTES_MAX: usize = 4 << 20;
/// What a delivery costs besides its events.
const DELIVERY_BYTES: usize = 128;
/// Answers to requests that may wait; beyond this no further request is read.
const CONTROLS_MAX: usize = 1024;

/// What a stream tells its client.
pub enum Delivery {
    /// The watcher is registered; the store was at `revision`.
    Created {
        /// Client's id of the watcher.
        id: i64,
        /// Current revision.
        revision: i64,
    },
    /// Changes that the watcher wants.
    Events {
        /// Client's id of the watcher.
        id: i64,
        /// Shared with all watchers of the group.
        matched: Arc<Matched>,
    },
    /// Everything up to `revision` has been delivered; -1 speaks for all watchers of the stream.
    Progress {
        /// Client's id of the watcher, or -1.
        id: i64,
        /// Complete up to here.
        revision: i64,
    },
    /// The watcher was ended by request, or has been given all that it wants.
    Canceled {
        /// Client's id of the watcher.
        id: i64,
        /// Current revision, or the last one that it wants.
        revision: i64,
    },
    /// The server stops: nothing more will come.
    Stopped,
    /// The watcher was ended because what it wants next has been compacted.
    Compacted {
        /// Client's id of the watcher.
        id: i64,
        /// Compacted revision.
        compacted: i64,
    },
}

/// What [`Stream::poll_next`] gives.
pub struct Taken {
    /// The oldest delivery.
    pub delivery: Delivery,
    /// Nothing was waiting behind it.
    pub is_last: bool,
    /// The hub must be told that there is room again.
    pub has_room_again: bool,
}

impl Delivery {
    fn bytes(&self) -> usize {
        match self {
            Delivery::Events { matched, .. } => matched.bytes + DELIVERY_BYTES,
            _ => DELIVERY_BYTES,
        }
    }
}

#[derive(Default)]
struct Queued {
    deliveries: VecDeque<Delivery>,
    bytes: usize,
    controls: usize,
    /// A push of events was refused since the queue was last half empty.
    was_full: bool,
    is_closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// See the module. Whoever pushes must ring the bell afterwards.
pub struct Stream {
    queued: Mutex<Queued>,
    bell: Arc<Bell>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        METRICS.watch.streams.dec();
    }
}

impl Stream {
    pub(super) fn new(bell: Arc<Bell>) -> Stream {
        METRICS.watch.streams.inc();
        Stream { queued: Mutex::default(), bell }
    }

    /// Wakes the reader if something was pushed.
    pub(super) fn ring(&self) {
        self.bell.ring();
    }

    fn push(&self, queued: &mut Queued, delivery: Delivery) {
        if queued.is_closed {
            return;
        }
        queued.bytes += delivery.bytes();
        queued.deliveries.push_back(delivery);
        if let Some(reader) = queued.reader.take() {
            self.bell.add(reader);
        }
    }

    /// Queues events for the watcher `id`; false when there is no room.
    pub(super) fn push_events(&self, id: i64, matched: &Arc<Matched>) -> bool {
        let mut queued = self.queued.lock();
        let is_full = queued.bytes > 0 && queued.bytes + matched.bytes > QUEUED_BYTES_MAX;
        if is_full {
            queued.was_full = true;
            return queued.is_closed;
        }
        self.push(&mut queued, Delivery::Events { id, matched: Arc::clone(matched) });
        true
    }

    /// The same for the replay, which stops at half the room and then lets one batch in, however large.
    pub(super) fn push_replayed(&self, id: i64, matched: &Arc<Matched>) -> bool {
        let mut queued = self.queued.lock();
        if queued.bytes > QUEUED_BYTES_MAX / 2 {
            queued.was_full = true;
            return queued.is_closed;
        }
        self.push(&mut queued, Delivery::Events { id, matched: Arc::clone(matched) });
        true
    }

    /// Whether the replay may add to it.
    pub(super) fn wants_replay(&self) -> bool {
        let mut queued = self.queued.lock();
        let has_room = queued.bytes <= QUEUED_BYTES_MAX / 2;
        queued.was_full |= !has_room;
        has_room
    }

    /// Queues an answer to a request; always taken, see [`Stream::poll_control`].
    pub(super) fn push_control(&self, delivery: Delivery) {
        let mut queued = self.queued.lock();
        queued.controls += 1;
        self.push(&mut queued, delivery);
    }

    pub(super) fn close(&self) {
        let mut queued = self.queued.lock();
        queued.is_closed = true;
        queued.deliveries.clear();
        queued.bytes = 0;
    }

    /// Ready when another request may be taken from the client.
    pub fn poll_control(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut queued = self.queued.lock();
        if queued.controls < CONTROLS_MAX {
            return Poll::Ready(());
        }
        queued.writer = Some(context.waker().clone());
        Poll::Pending
    }

    /// The next delivery.
    pub fn poll_next(&self, context: &mut Context<'_>) -> Poll<Taken> {
        let mut queued = self.queued.lock();
        let Some(delivery) = queued.deliveries.pop_front() else {
            match &mut queued.reader {
                Some(reader) => reader.clone_from(context.waker()), // which costs nothing if it is the same
                None => queued.reader = Some(context.waker().clone()),
            }
            return Poll::Pending;
        };
        queued.bytes -= delivery.bytes();
        if !matches!(delivery, Delivery::Events { .. }) {
            queued.controls -= 1;
            if let Some(writer) = queued.writer.take() {
                writer.wake();
            }
        }
        let has_room_again = queued.was_full && queued.bytes <= QUEUED_BYTES_MAX / 2;
        if has_room_again {
            queued.was_full = false;
        }
        Poll::Ready(Taken { delivery, is_last: queued.deliveries.is_empty(), has_room_again })
    }
}
