//! Clients that watch. Each asks one member, and goes on at another, from the revision after the last it has seen, when
//! that member dies. Through all this it must see every change that it wants: once, in order, revisions whole.

use kvist::engine::watch::{Delivery, Spec, Stream, WatcherKey};
use kvist::mvcc::Store;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::history::History;
use crate::member::{Member, Running};

/// A client with one watcher.
pub struct Client {
    id: i64,
    spec: Spec,
    /// The first revision that it has not been told of; `None` before it knows from where it watches.
    next: Option<i64>,
    at: Option<At>,
    /// Changes that it was told of.
    pub seen: usize,
}

/// Where it watches.
struct At {
    member: usize,
    stream: Arc<Stream>,
    key: WatcherKey,
    is_created: bool,
}

impl Client {
    pub fn new(id: i64, spec: Spec, next: Option<i64>) -> Client {
        Client { id, spec, next, at: None, seen: 0 }
    }

    /// The member that serves it.
    pub fn member(&self) -> Option<usize> {
        self.at.as_ref().map(|at| at.member)
    }

    /// Begins, or goes on, at a member.
    pub fn open(&mut self, member: usize, running: &Running) {
        let stream = running.hub.stream();
        let key = running.hub.watch(&stream, self.id, self.spec.clone(), self.next.unwrap_or(0), false);
        self.at = Some(At { member, stream, key, is_created: false });
    }

    /// Its member is gone, and with it everything that was not read.
    pub fn lose(&mut self) {
        self.at = None;
    }

    /// Ends the watch in order.
    pub fn close(&mut self, running: &Running) {
        if let Some(at) = self.at.take() {
            running.hub.close(&at.stream, std::iter::once(at.key));
        }
    }

    /// Asks how far it is.
    pub fn ask_progress(&self, running: &Running) {
        if let Some(at) = &self.at {
            running.hub.progress(&at.stream, std::iter::once(at.key));
        }
    }

    /// Reads up to `count` deliveries. Returns whether there were any.
    pub fn read(&mut self, count: usize, members: &[Member], history: &History) -> bool {
        let mut any = false;
        for _ in 0..count {
            let Some(at) = &self.at else { break };
            let running = members[at.member].running.as_ref().expect("those of a dead member are told");
            let context = &mut Context::from_waker(Waker::noop());
            let Poll::Ready(taken) = at.stream.poll_next(context) else { break };
            if taken.has_room_again {
                running.hub.has_room();
            }
            self.judge(&taken.delivery, &running.store, history);
            any = true;
        }
        any
    }

    fn judge(&mut self, delivery: &Delivery, store: &Store, history: &History) {
        let at = self.at.as_mut().expect("it reads");
        assert_eq!(at.is_created, !matches!(delivery, Delivery::Created { .. }), "the first is the creation");
        match delivery {
            Delivery::Created { revision, .. } => {
                at.is_created = true;
                self.next.get_or_insert(revision + 1);
            }
            Delivery::Events { matched, .. } => {
                let next = self.next.expect("known since the creation");
                let mut wanted = history.from(next, &self.spec).peekable();
                let mut last = 0;
                for event in &matched.events {
                    let change = wanted.next().expect("no more than there is");
                    assert_eq!((&event.key, change.revision.main >= next), (&change.key, true));
                    let image = store.with_inline_value(&event.new).expect("a value that is kept");
                    assert_eq!(image, change.image, "client {} of {:?} from {next}", self.id, self.spec);
                    last = change.revision.main;
                    self.seen += 1;
                }
                let rest = wanted.peek().map_or(i64::MAX, |change| change.revision.main);
                assert!(rest > last, "revision {last} comes in parts");
                assert!(rest > matched.revision, "{rest} is left out up to {}", matched.revision);
                assert!(last <= matched.revision);
                self.next = Some(matched.revision + 1);
            }
            Delivery::Progress { revision, .. } => {
                let next = self.next.expect("known since the creation");
                let missing = history.from(next, &self.spec).find(|change| change.revision.main <= *revision);
                assert_eq!(missing, None, "progress up to {revision}, but {next} was the next");
            }
            Delivery::Compacted { compacted, .. } => {
                let next = self.next.expect("known since the creation");
                assert!(next < *compacted && *compacted <= store.compacted(), "{next} is not compacted");
                self.next = Some(*compacted);
                self.at = None;
            }
            Delivery::Canceled { .. } | Delivery::Stopped => panic!("nobody has asked for it"),
        }
    }

    /// Whether there is nothing that it has still to be told.
    pub fn is_complete(&self, history: &History) -> bool {
        self.next.is_some_and(|next| history.from(next, &self.spec).next().is_none())
    }

    /// What it waits for.
    pub fn describe(&self) -> String {
        format!("client {} waits from {:?} on for {:?}", self.id, self.next, self.spec)
    }
}
