//! The watch hub: hands every change to the watchers that want it, exactly once and in order.
//!
//! A watcher is *synced* when it gets changes as they are applied, *unsynced* while it catches up from history. A synced
//! watcher whose stream is full becomes unsynced and keeps what it missed as a revision, not as a buffer; so a slow
//! client costs nobody else anything, and memory stays bounded.
//!
//! ```text
//!   applier --publish--> queue --distribute thread--> groups --> streams (bounded queues) --> clients
//!                                                       ^
//!                    store history --replay thread------+  (unsynced until caught up)
//! ```
//!
//! Locks, in this order: hub state, then one stream. The applier takes neither, only the queue's.

mod bell;
mod distribute;
mod keys;
#[cfg(test)]
mod model_test;
mod replay;
mod stream;

pub use stream::{Delivery, Stream, Taken};

use crate::mvcc::watch::group::Index;
use crate::mvcc::{self, Event, EventBatch, Store};
use crate::storage::codec::Image;
use crate::types::KeyRange;
use bytes::Bytes;
use keys::KeyMap;
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

/// What a watcher wants. Watchers that want the same form a group, and share what is found and encoded for it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Spec {
    /// Which keys.
    pub range: KeyRange,
    /// Leave puts out.
    pub no_put: bool,
    /// Leave deletes out.
    pub no_delete: bool,
    /// Whether events carry the pair before. Part of the spec because it changes what is encoded.
    pub prev_kv: bool,
}

impl Spec {
    fn wants(&self, event: &Event) -> bool {
        let is_delete = Image::parse(&event.new).is_ok_and(|i| i.is_tombstone());
        if is_delete { !self.no_delete } else { !self.no_put }
    }
}

/// From where to where a watcher wants changes, and when it wants to hear how far it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Course {
    /// First revision that it wants; 0: from now on.
    pub start: i64,
    /// First revision that it does not want any more; 0: there is none. It ends once it has been given all before.
    pub end: i64,
    /// In quiet times.
    pub progress_notify: bool,
    /// Whenever it has caught up with history.
    pub tells_caught_up: bool,
}

/// Events found for a spec: those of one revision, or while catching up of several whole ones.
pub struct Matched {
    /// Revision up to which this is complete.
    pub revision: i64,
    /// At least one, in order.
    pub events: Vec<Event>,
    /// Roughly the memory held.
    pub bytes: usize,
    encoded: OnceLock<(Bytes, Vec<usize>)>,
    message: OnceLock<(i64, Bytes)>,
    frames: OnceLock<(&'static str, Bytes)>,
}

impl Matched {
    fn new(revision: i64, events: Vec<Event>) -> Matched {
        let bytes = events.iter().map(|e| e.key.len() + e.new.len() + e.previous.len() + 64).sum();
        let (encoded, message, frames) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Matched { revision, events, bytes, encoded, message, frames }
    }

    /// The wire form of the events and where each ends, made by the first who asks and shared by all watchers of
    /// the group.
    pub fn encoded(&self, encode: impl FnOnce(&[Event]) -> (Bytes, Vec<usize>)) -> &(Bytes, Vec<usize>) {
        self.encoded.get_or_init(|| encode(&self.events))
    }

    /// The whole message for watchers with the client's id `id`, made by the first who asks. `None` if that was one with
    /// another id: only one is kept, since most streams have one watcher and call it alike.
    pub fn message(&self, id: i64, make: impl FnOnce() -> Bytes) -> Option<&Bytes> {
        let (of, message) = self.message.get_or_init(|| (id, make()));
        (*of == id).then_some(message)
    }

    /// All of it as a protocol sends it to every watcher alike, made by the first who asks. `None` if that was another
    /// protocol: only one form is kept.
    pub fn frames(&self, protocol: &'static str, make: impl FnOnce() -> Bytes) -> Option<&Bytes> {
        let (of, frames) = self.frames.get_or_init(|| (protocol, make()));
        (*of == protocol).then_some(frames)
    }
}

/// Sizes of the hub.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Watchers.
    pub watchers: usize,
    /// Those of them that catch up.
    pub unsynced: usize,
    /// Applied events that have not reached any stream.
    pub queued_events: usize,
}

/// Names a watcher inside the hub.
pub type WatcherKey = u64;

struct Watcher {
    stream: Arc<Stream>,
    /// The id that the client knows it by.
    id: i64,
    spec: Spec,
    /// First revision that it has not been given.
    next: i64,
    /// First revision that it does not want; it exists only while this is above `next`.
    end: i64,
    /// Where it is served while synced.
    group: Option<u64>,
    /// Whether it asked for progress in quiet times, and whether it got events since the last tick.
    progress_notify: bool,
    was_active: bool,
    /// Whether it asked for progress whenever it has caught up.
    tells_caught_up: bool,
}

struct Group {
    spec: Spec,
    members: Vec<WatcherKey>,
}

#[derive(Default)]
struct State {
    index: Index<u64>,
    groups: BTreeMap<u64, Group>,
    by_spec: HashMap<Spec, u64>,
    watchers: KeyMap<Watcher>,
    /// Watchers that are not synced.
    unsynced: BTreeSet<WatcherKey>,
    /// Synced watchers that have an end, by it.
    ends: BTreeSet<(i64, WatcherKey)>,
    last_key: u64,
    /// Everything up to this revision has been handed to the synced watchers.
    distributed: i64,
    /// Requests for progress that wait for the distribution; one for each stream at most.
    asked: Vec<Asked>,
    /// The server stops.
    is_ending: bool,
}

/// A request for the progress of a whole stream.
struct Asked {
    stream: Arc<Stream>,
    keys: Vec<WatcherKey>,
    /// What could be read when it came: the answer must not be behind it.
    revision: i64,
}

impl Asked {
    /// Everything up to `revision` has been distributed. The caller rings.
    fn answer(&self, state: &State, revision: i64) {
        let mut watchers = self.keys.iter().filter_map(|key| state.watchers.get(key)).peekable();
        if watchers.peek().is_some() && watchers.all(|w| w.group.is_some() && w.next <= revision + 1) {
            self.stream.push_control(Delivery::Progress { id: -1, revision });
        }
    }
}

#[derive(Default)]
struct Queue {
    batches: Vec<Arc<EventBatch>>,
    /// Last revision that was published, queued or not.
    published: i64,
    /// Last revision that was published while nobody watched; it was never queued.
    skipped: i64,
    is_distributing: bool,
    is_closed: bool,
}

struct Inner {
    store: Arc<Store>,
    state: Mutex<State>,
    queue: Mutex<Queue>,
    queue_filled: Condvar,
    /// Wakes the replay thread: a watcher became unsynced, or its stream has room again.
    replay: Mutex<ReplaySignal>,
    replay_wanted: Condvar,
    watchers: AtomicUsize,
    bells: bell::Bells,
}

#[derive(Default)]
struct ReplaySignal {
    wanted: bool,
    is_closed: bool,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

/// Changes waiting for distribution; beyond this the applier waits for the hub. About a second of work.
const QUEUED_BATCHES_MAX: usize = 65_536;

impl Hub {
    /// Starts the hub's two threads.
    pub fn start(store: Arc<Store>) -> std::io::Result<Hub> {
        let hub = Hub::stepped(store);
        let spawn = |name: &str, run: fn(&Inner)| {
            let inner = Arc::clone(&hub.inner);
            std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&inner))
        };
        let threads = [spawn("watch", distribute::run)?, spawn("watch-replay", replay::run)?];
        hub.threads.lock().extend(threads);
        Ok(hub)
    }

    /// A hub without threads: nothing is delivered but by [`Hub::step`]. For simulations, where everything happens in an order
    /// that is chosen, and happens again when it is chosen again.
    pub fn stepped(store: Arc<Store>) -> Hub {
        let revision = store.revision();
        let inner = Arc::new(Inner {
            store,
            state: Mutex::new(State { distributed: revision, ..State::default() }),
            queue: Mutex::new(Queue { published: revision, skipped: revision, ..Queue::default() }),
            queue_filled: Condvar::new(),
            replay: Mutex::default(),
            replay_wanted: Condvar::new(),
            watchers: AtomicUsize::new(0),
            bells: bell::Bells::default(),
        });
        Hub { inner, threads: Arc::default() }
    }

    /// Does on the caller's thread what the threads of a started hub would have to do now.
    pub fn step(&self) {
        distribute::step(&self.inner);
        replay::step(&self.inner);
    }

    /// Takes in applied changes, in order, after they became readable. Only the applier calls this.
    pub fn publish(&self, batches: Vec<Arc<EventBatch>>) {
        let Some(last) = batches.last() else { return };
        let inner = &self.inner;
        let mut queue = inner.queue.lock();
        queue.published = last.revision;
        // A watcher that registers now finds these revisions readable and does not wait for them.
        if inner.watchers.load(Ordering::SeqCst) == 0 {
            queue.skipped = last.revision;
            return;
        }
        queue.batches.extend(batches);
        inner.queue_filled.notify_all();
        while queue.batches.len() > QUEUED_BATCHES_MAX && !queue.is_closed {
            inner.queue_filled.wait(&mut queue);
        }
    }

    /// The store went on from the state of another member, so its revision has jumped: what lies in between is not published,
    /// but can be read from history. Called after that, between two calls of `publish`.
    pub fn jumped(&self) {
        let inner = &self.inner;
        let mut state = inner.state.lock();
        let mut queue = inner.queue.lock();
        let revision = inner.store.revision();
        let given = state.distributed.max(queue.skipped);
        state.fall_behind(given, revision);
        // What is queued is in history as well. The thread may hold some that it took before: nobody is left for those.
        queue.batches.clear();
        queue.published = revision;
        queue.skipped = revision;
        state.distributed = revision;
        drop(queue);
        distribute::answer_asked(&mut state);
        drop(state);
        inner.bells.ring();
        inner.queue_filled.notify_all();
        inner.want_replay();
    }

    /// A new stream of watchers for one client, to be read on the runtime that calls.
    pub fn stream(&self) -> Arc<Stream> {
        Arc::new(Stream::new(self.inner.bells.here()))
    }

    /// Registers a watcher. Its first delivery is `Created`. `start` is the first revision that it wants; 0: from now on.
    pub fn watch(
        &self,
        stream: &Arc<Stream>,
        id: i64,
        spec: Spec,
        start: i64,
        progress_notify: bool,
    ) -> WatcherKey {
        self.watch_along(stream, id, spec, Course { start, progress_notify, ..Course::default() })
    }

    /// The same along a course that may have an end. Then its last delivery is `Canceled`.
    pub fn watch_along(&self, stream: &Arc<Stream>, id: i64, spec: Spec, course: Course) -> WatcherKey {
        let inner = &self.inner;
        // Counted before the revision is read: see `publish`.
        inner.watchers.fetch_add(1, Ordering::SeqCst);
        let mut state = inner.state.lock();
        let current = inner.store.revision();
        let next = if course.start <= 0 { current + 1 } else { course.start };
        let end = if course.end <= 0 { i64::MAX } else { course.end };
        state.last_key += 1;
        let key = state.last_key;
        let watcher = Watcher {
            stream: Arc::clone(stream),
            id,
            spec,
            next,
            end,
            group: None,
            progress_notify: course.progress_notify,
            was_active: false,
            tells_caught_up: course.tells_caught_up,
        };
        state.watchers.insert(key, watcher);
        // The answer will speak for this one as well.
        state.asked.iter_mut().filter(|a| Arc::ptr_eq(&a.stream, stream)).for_each(|a| a.keys.push(key));
        stream.push_control(Delivery::Created { id, revision: current });
        if state.is_ending {
            stream.push_control(Delivery::Stopped);
        }
        if next >= end {
            inner.end(&mut state, key);
        } else if next > current {
            state.join_group(key);
        } else {
            state.unsynced.insert(key);
            inner.want_replay();
        }
        stream.ring();
        key
    }

    /// Ends a watcher; nothing is delivered for it after the `Canceled` that this queues.
    pub fn cancel(&self, key: WatcherKey) {
        let mut state = self.inner.state.lock();
        if let Some(watcher) = self.inner.remove(&mut state, key) {
            let revision = self.inner.store.revision();
            watcher.stream.push_control(Delivery::Canceled { id: watcher.id, revision });
            watcher.stream.ring();
        }
    }

    /// Ends all watchers of a stream that is gone.
    pub fn close(&self, stream: &Arc<Stream>, keys: impl Iterator<Item = WatcherKey>) {
        let mut state = self.inner.state.lock();
        for key in keys {
            self.inner.remove(&mut state, key);
        }
        state.asked.retain(|asked| !Arc::ptr_eq(&asked.stream, stream));
        stream.close();
    }

    /// Answers a request for progress, once everything readable now has been distributed: only if all watchers in `keys`
    /// are synced then and none waits for a future revision.
    pub fn progress(&self, stream: &Arc<Stream>, keys: impl Iterator<Item = WatcherKey>) {
        let mut state = self.inner.state.lock();
        let complete = self.inner.complete_up_to(&state);
        let revision = self.inner.store.revision();
        let asked = Asked { stream: Arc::clone(stream), keys: keys.collect(), revision };
        if complete >= revision {
            asked.answer(&state, complete);
            stream.ring();
        } else {
            state.asked.retain(|other| !Arc::ptr_eq(&other.stream, stream));
            state.asked.push(asked);
        }
    }

    /// Tells those of `keys` that asked for it, are synced and had no events since the last tick how far they are.
    pub fn progress_tick(&self, stream: &Stream, keys: impl Iterator<Item = WatcherKey>) {
        let mut state = self.inner.state.lock();
        let revision = self.inner.complete_up_to(&state);
        for key in keys {
            let Some(watcher) = state.watchers.get_mut(&key) else { continue };
            let was_active = std::mem::take(&mut watcher.was_active);
            if watcher.progress_notify
                && !was_active
                && watcher.group.is_some()
                && watcher.next <= revision + 1
            {
                stream.push_control(Delivery::Progress { id: watcher.id, revision });
            }
        }
        stream.ring();
    }

    /// To be called when a client has taken deliveries off a stream that was full.
    pub fn has_room(&self) {
        self.inner.want_replay();
    }

    /// How many watchers there are, and how far behind.
    pub fn counts(&self) -> Counts {
        let state = self.inner.state.lock();
        let queue = self.inner.queue.lock();
        Counts {
            watchers: state.watchers.len(),
            unsynced: state.unsynced.len(),
            queued_events: queue.batches.iter().map(|batch| batch.events.len()).sum(),
        }
    }

    /// Tells every stream that has watchers, now or later, that the server stops.
    pub fn end_streams(&self) {
        let mut state = self.inner.state.lock();
        state.is_ending = true;
        for watcher in state.watchers.values() {
            watcher.stream.push_control(Delivery::Stopped);
        }
        self.inner.bells.ring();
    }

    /// Stops the threads; streams get nothing more.
    pub fn stop(&self) {
        self.inner.queue.lock().is_closed = true;
        self.inner.queue_filled.notify_all();
        self.inner.replay.lock().is_closed = true;
        self.inner.replay_wanted.notify_all();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a watch thread panicked");
            }
        }
    }
}

impl Inner {
    fn want_replay(&self) {
        self.replay.lock().wanted = true;
        self.replay_wanted.notify_all();
    }

    /// Revision up to which all synced watchers have been given everything.
    fn complete_up_to(&self, state: &State) -> i64 {
        let queue = self.queue.lock();
        if queue.batches.is_empty() && !queue.is_distributing {
            queue.published
        } else {
            state.distributed.max(queue.skipped)
        }
    }

    /// Every revision above this one is still to be distributed.
    fn undistributed_after(&self, state: &State) -> i64 {
        state.distributed.max(self.queue.lock().skipped)
    }

    /// Ends a watcher that has been given all that it wants. The caller rings.
    fn end(&self, state: &mut State, key: WatcherKey) {
        if let Some(watcher) = self.remove(state, key) {
            watcher.stream.push_control(Delivery::Canceled { id: watcher.id, revision: watcher.end - 1 });
        }
    }

    /// Ends the synced watchers that want nothing above `revision`, which has been distributed. The caller rings.
    fn end_those_up_to(&self, state: &mut State, revision: i64) {
        while let Some(&(end, key)) = state.ends.first()
            && end <= revision + 1
        {
            self.end(state, key);
        }
    }

    fn remove(&self, state: &mut State, key: WatcherKey) -> Option<Watcher> {
        state.leave_group(key);
        state.unsynced.remove(&key);
        let watcher = state.watchers.remove(&key)?;
        self.watchers.fetch_sub(1, Ordering::SeqCst);
        Some(watcher)
    }
}

impl State {
    /// Synced watchers have been given everything up to `given`. Those that want something up to `revision` are unsynced
    /// from here on.
    fn fall_behind(&mut self, given: i64, revision: i64) {
        let synced = self.groups.values().flat_map(|group| &group.members).copied().collect::<Vec<_>>();
        self.groups.clear();
        self.ends.clear();
        self.by_spec.clear();
        self.index = Index::default();
        for key in synced {
            let watcher = self.watchers.get_mut(&key).expect("a group's member exists");
            watcher.group = None;
            watcher.next = watcher.next.max(given + 1);
            if watcher.next > revision {
                self.join_group(key);
            } else {
                self.unsynced.insert(key);
            }
        }
    }

    fn join_group(&mut self, key: WatcherKey) {
        let watcher = self.watchers.get_mut(&key).expect("registered");
        let group = match self.by_spec.get(&watcher.spec) {
            Some(group) => *group,
            None => {
                self.last_key += 1;
                let group = self.last_key;
                self.index.insert(&watcher.spec.range, group);
                self.by_spec.insert(watcher.spec.clone(), group);
                self.groups.insert(group, Group { spec: watcher.spec.clone(), members: Vec::new() });
                group
            }
        };
        watcher.group = Some(group);
        if watcher.end < i64::MAX {
            self.ends.insert((watcher.end, key));
        }
        self.unsynced.remove(&key);
        self.groups.get_mut(&group).expect("just found").members.push(key);
    }

    fn leave_group(&mut self, key: WatcherKey) {
        let Some(watcher) = self.watchers.get_mut(&key) else { return };
        let Some(id) = watcher.group.take() else { return };
        self.ends.remove(&(watcher.end, key));
        let group = self.groups.get_mut(&id).expect("a watcher's group exists");
        group.members.retain(|member| *member != key);
        if group.members.is_empty() {
            let group = self.groups.remove(&id).expect("just found");
            self.index.remove(&group.spec.range, id);
            self.by_spec.remove(&group.spec);
        }
    }
}

/// Whether an error of the store means that history is gone, rather than that the node is broken.
fn is_compacted(error: &mvcc::Error) -> bool {
    matches!(error, mvcc::Error::Compacted)
}
