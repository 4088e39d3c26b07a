//! The hub against a model: random writes, compactions, flushes, watchers that come and go, and streams that are read now
//! and then or not at all.
//!
//! What every watcher must get follows from the history alone: the events of its range, from its start revision up to its
//! end, that it wants. The test holds each delivery against that, as it comes:
//! - `Created` first; then each event once and in order, all of a revision in one delivery; nothing after the end;
//! - an end by compaction only if something that the watcher had still to see was compacted, be it that the store jumped
//!   to the state of another member; an end by itself only when nothing is left to see;
//! - progress never ahead of the events.
//!
//! At the end, all streams are read to the end, and nothing may be missing.

use super::{Course, Delivery, Hub, Spec, Stream, Taken, WatcherKey};
use crate::mvcc::transfer_test::{applied, transfer};
use crate::mvcc::{Event, EventBatch, Store, defrag};
use crate::storage::Env;
use crate::storage::codec::Image;
use crate::types::{KeyRange, Revision};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

const STREAMS: usize = 3;
/// Large enough that a handful of them fills a stream.
const LARGE_VALUE: usize = 900 << 10;
/// How long the hub's threads may take to hand over what there is.
const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Clone, Debug)]
enum Step {
    /// One revision: keys, and whether each is put (with a large value or a small one) or deleted.
    Write(Vec<(u8, Change)>),
    /// Start relative to the current revision; `None`: from now on. End relative to the start.
    Watch {
        stream: usize,
        spec: Spec,
        start: Option<i64>,
        end: Option<i64>,
        tells_progress: bool,
    },
    /// The n-th of all watchers so far.
    Cancel(usize),
    /// Close a stream and open another in its place.
    Close(usize),
    /// Take some deliveries off a stream.
    Read {
        stream: usize,
        deliveries: usize,
    },
    Progress(usize),
    Tick(usize),
    /// Relative to the current revision.
    Compact(i64),
    Flush,
    /// Revisions and then a compaction (0: none) that come with the state of another member.
    Jump(Vec<Vec<(u8, Change)>>, i64),
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Put,
    PutLarge,
    Delete,
}

fn spec() -> impl Strategy<Value = Spec> {
    let range = prop_oneof![
        (0..6u8).prop_map(|k| KeyRange::single(key(k))),
        (0..6u8, 0..7u8).prop_map(|(from, to)| KeyRange::from_wire(key(from), key(to))),
        Just(KeyRange::all()),
    ];
    let filters = prop::sample::select(vec![(false, false), (false, false), (true, false), (false, true)]);
    (range, filters, any::<bool>()).prop_map(|(range, (no_put, no_delete), prev_kv)| Spec {
        range,
        no_put,
        no_delete,
        prev_kv,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let change =
        || prop_oneof![6 => Just(Change::Put), 1 => Just(Change::PutLarge), 3 => Just(Change::Delete)];
    let start = prop_oneof![2 => Just(None), 4 => (-12i64..1).prop_map(Some), 1 => (1i64..4).prop_map(Some)];
    let end = prop_oneof![2 => Just(None), 1 => (-1i64..12).prop_map(Some)];
    prop_oneof![
        30 => prop::collection::vec((0..6u8, change()), 1..4).prop_map(Step::Write),
        10 => (0..STREAMS, spec(), start, end, any::<bool>()).prop_map(
            |(stream, spec, start, end, tells_progress)| Step::Watch { stream, spec, start, end, tells_progress }),
        3 => any::<usize>().prop_map(Step::Cancel),
        1 => (0..STREAMS).prop_map(Step::Close),
        6 => (0..STREAMS, 1..20usize).prop_map(|(stream, deliveries)| Step::Read { stream, deliveries }),
        4 => (0..STREAMS).prop_map(Step::Progress),
        2 => (0..STREAMS).prop_map(Step::Tick),
        2 => (-8i64..1).prop_map(Step::Compact),
        1 => Just(Step::Flush),
        2 => (prop::collection::vec(prop::collection::vec((0..6u8, change()), 1..4), 0..5), -8i64..1)
            .prop_map(|(revisions, compact)| Step::Jump(revisions, compact)),
    ]
}

fn key(number: u8) -> Bytes {
    Bytes::copy_from_slice(&[b'a' + number])
}

/// What identifies an event: its revision, key, and whether it is a delete.
type Seen = (Revision, Bytes, bool);

fn seen(event: &Event) -> Seen {
    let image = Image::parse(&event.new).unwrap();
    (image.modified, event.key.clone(), image.is_tombstone())
}

#[derive(PartialEq, Debug)]
enum State {
    Registered,
    Running,
    /// Asked for; its confirmation has not been read yet.
    Canceling,
    Ended,
}

struct Watched {
    key: WatcherKey,
    stream: usize,
    spec: Spec,
    /// First revision that it is to see.
    start: i64,
    /// First revision that it is not to see.
    end: i64,
    /// Events that it has seen.
    seen: usize,
    state: State,
    /// Its end was asked for.
    is_canceled: bool,
}

struct Model {
    /// Keeps the database.
    dir: tempfile::TempDir,
    store: Arc<Store>,
    /// The same changes on another member, and sometimes more.
    ahead: Store,
    _ahead_dir: tempfile::TempDir,
    hub: Hub,
    streams: Vec<Arc<Stream>>,
    /// By the id that deliveries carry. Ids are never used twice.
    watchers: BTreeMap<i64, Watched>,
    history: Vec<Seen>,
}

impl Model {
    fn new() -> Model {
        let (dir, ahead_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let open = |dir: &tempfile::TempDir| {
            let env = Env::open(&defrag::current_dir(dir.path()).unwrap(), 1 << 30).unwrap();
            Store::open(env).unwrap()
        };
        let (store, ahead) = (Arc::new(open(&dir)), open(&ahead_dir));
        let hub = Hub::start(Arc::clone(&store)).unwrap();
        let streams = (0..STREAMS).map(|_| hub.stream()).collect();
        let (watchers, history) = (BTreeMap::new(), Vec::new());
        Model { dir, store, ahead, _ahead_dir: ahead_dir, hub, streams, watchers, history }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write(changes) => self.write(&changes),
            Step::Watch { stream, spec, start, end, tells_progress } => {
                let current = self.store.revision();
                let asked = start.map_or(0, |relative| (current + relative).max(1));
                let start = if asked == 0 { current + 1 } else { asked };
                let end = end.map_or(i64::MAX, |relative| (start + relative).max(1));
                let course = Course {
                    start: asked,
                    end: if end == i64::MAX { 0 } else { end },
                    progress_notify: tells_progress,
                    tells_caught_up: tells_progress,
                };
                let id = self.watchers.len() as i64;
                let key = self.hub.watch_along(&self.streams[stream], id, spec.clone(), course);
                let state = State::Registered;
                let watched = Watched { key, stream, spec, start, end, seen: 0, state, is_canceled: false };
                self.watchers.insert(id, watched);
            }
            Step::Cancel(n) => {
                let count = self.watchers.len().max(1) as i64;
                if let Some(watched) = self.watchers.get_mut(&(n as i64 % count)) {
                    self.hub.cancel(watched.key);
                    watched.is_canceled = true;
                    if watched.state == State::Running {
                        watched.state = State::Canceling;
                    }
                }
            }
            Step::Close(stream) => {
                self.hub.close(&self.streams[stream], self.keys(stream).into_iter());
                self.streams[stream] = self.hub.stream();
                for watched in self.watchers.values_mut().filter(|w| w.stream == stream) {
                    watched.state = State::Ended;
                }
            }
            Step::Read { stream, deliveries } => {
                for _ in 0..deliveries {
                    self.read(stream);
                }
            }
            Step::Progress(stream) => self.hub.progress(&self.streams[stream], self.keys(stream).into_iter()),
            Step::Tick(stream) => {
                self.hub.progress_tick(&self.streams[stream], self.keys(stream).into_iter());
            }
            // Refused when it goes backward, as it should be.
            Step::Compact(relative) => {
                let revision = (self.store.revision() + relative).max(1);
                assert_eq!(self.store.compact(revision).is_ok(), self.ahead.compact(revision).is_ok());
            }
            Step::Jump(revisions, compact) => self.jump(&revisions, compact),
            Step::Flush => {
                let frozen = self.store.freeze(Vec::new());
                self.store.flush(&frozen).unwrap();
                self.store.remove_compacted(1000).unwrap();
            }
        }
    }

    fn write(&mut self, changes: &[(u8, Change)]) {
        write(&self.ahead, changes);
        if let Some(batch) = write(&self.store, changes) {
            self.history.extend(batch.events.iter().map(seen));
            self.hub.publish(vec![batch]);
        }
    }

    fn jump(&mut self, revisions: &[Vec<(u8, Change)>], compact: i64) {
        for changes in revisions {
            let batch = write(&self.ahead, changes);
            self.history.extend(batch.iter().flat_map(|batch| &batch.events).map(seen));
        }
        if compact < 0 {
            // Refused when it goes backward, as it should be.
            let _ = self.ahead.compact((self.ahead.revision() + compact).max(1));
        }
        self.ahead.flush(&self.ahead.freeze(vec![applied(1)])).unwrap();
        self.ahead.remove_compacted(1000).unwrap();
        let received = transfer(&self.ahead, self.dir.path());
        self.store.install(self.dir.path(), received).unwrap();
        self.hub.jumped();
    }

    fn keys(&self, stream: usize) -> Vec<WatcherKey> {
        let of_stream = self.watchers.values().filter(|w| w.stream == stream && w.state != State::Ended);
        of_stream.map(|watched| watched.key).collect()
    }

    /// Takes one delivery, if there is one, and judges it.
    fn read(&mut self, stream: usize) -> Option<()> {
        let context = &mut Context::from_waker(Waker::noop());
        let Poll::Ready(taken) = self.streams[stream].poll_next(context) else { return None };
        if taken.has_room_again {
            self.hub.has_room();
        }
        self.judge(stream, &taken.delivery);
        Some(())
    }

    fn judge(&mut self, stream: usize, delivery: &Delivery) {
        match delivery {
            Delivery::Created { id, revision } => {
                let watched = self.watchers.get_mut(id).unwrap();
                assert_eq!(watched.state, State::Registered);
                assert!(*revision <= self.store.revision());
                watched.state = State::Running;
            }
            Delivery::Events { id, matched } => {
                assert!(!matched.events.is_empty());
                let expected = self.expected(*id);
                let watched = self.watchers.get_mut(id).unwrap();
                assert_eq!(watched.stream, stream);
                assert!(
                    matches!(watched.state, State::Running | State::Canceling),
                    "{id} is {:?}",
                    watched.state
                );
                let events: Vec<Seen> = matched.events.iter().map(seen).collect();
                let until = watched.seen + events.len();
                assert_eq!(expected.get(watched.seen..until), Some(&events[..]), "watcher {id}");
                let last = events.last().unwrap().0.main;
                assert!(
                    expected.get(until).is_none_or(|next| next.0.main > last),
                    "revision {last} came in parts"
                );
                assert!(last <= matched.revision);
                watched.seen = until;
            }
            Delivery::Progress { id: -1, revision } => {
                let ids: Vec<i64> =
                    self.watchers.iter().filter(|(_, w)| w.stream == stream).map(|(id, _)| *id).collect();
                ids.into_iter().for_each(|id| self.check_progress(id, *revision));
            }
            Delivery::Progress { id, revision } => self.check_progress(*id, *revision),
            Delivery::Stopped => panic!("nobody stopped the hub"),
            Delivery::Canceled { id, .. } => {
                let (expected, current) = (self.expected(*id).len(), self.store.revision());
                let watched = self.watchers.get_mut(id).unwrap();
                assert!(
                    matches!(watched.state, State::Running | State::Canceling),
                    "{id} is {:?}",
                    watched.state
                );
                if !watched.is_canceled {
                    assert!(watched.end <= watched.start.max(current + 1), "{id} has ended early");
                    assert_eq!(watched.seen, expected, "{id} has ended without seeing all");
                }
                watched.state = State::Ended;
            }
            Delivery::Compacted { id, compacted } => {
                let expected = self.expected(*id);
                let watched = self.watchers.get_mut(id).unwrap();
                assert_ne!(watched.state, State::Ended);
                assert!(*compacted <= self.store.compacted());
                let seen_up_to = watched.seen.checked_sub(1).map_or(0, |last| expected[last].0.main);
                assert!(watched.start.max(seen_up_to + 1) < *compacted, "{id} had seen all of it");
                watched.state = State::Ended;
            }
        }
    }

    /// Progress says that everything up to the revision has come.
    fn check_progress(&self, id: i64, revision: i64) {
        assert!(revision <= self.store.revision());
        let watched = &self.watchers[&id];
        if matches!(watched.state, State::Running) {
            let due = self.expected(id).iter().filter(|seen| seen.0.main <= revision).count();
            assert!(watched.seen >= due, "progress {revision} came before the events of {id}");
        }
    }

    /// Everything that a watcher is ever to see, as far as history goes.
    fn expected(&self, id: i64) -> Vec<Seen> {
        let Watched { spec, start, end, .. } = &self.watchers[&id];
        let wants = |(revision, key, is_delete): &&Seen| {
            let is_filtered = if *is_delete { spec.no_delete } else { spec.no_put };
            (*start..*end).contains(&revision.main) && spec.range.contains(key) && !is_filtered
        };
        self.history.iter().filter(wants).cloned().collect()
    }

    fn is_complete(&self) -> bool {
        self.watchers.iter().all(|(id, watched)| match watched.state {
            State::Ended => true,
            State::Registered | State::Canceling => false,
            // With nothing left to see it ends by itself.
            State::Running => {
                watched.end > watched.start.max(self.store.revision() + 1)
                    && watched.seen == self.expected(*id).len()
            }
        })
    }

    /// Reads all there is, until nothing is missing.
    fn finish(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let mut was_read = false;
            for stream in 0..STREAMS {
                while self.read(stream).is_some() {
                    was_read = true;
                }
            }
            if !was_read && self.is_complete() {
                break;
            }
            assert!(Instant::now() < deadline, "events are missing: {:?}", self.hub.counts());
            std::thread::yield_now();
        }
    }

    /// Once all is read, progress up to the current revision must be had for the asking.
    fn finish_progress(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        let current = self.store.revision();
        for stream in 0..STREAMS {
            let mut running =
                self.watchers.values().filter(|w| w.stream == stream && w.state == State::Running).peekable();
            if running.peek().is_none() || running.any(|watched| watched.start > current + 1) {
                continue;
            }
            let context = &mut Context::from_waker(Waker::noop());
            loop {
                self.hub.progress(&self.streams[stream], self.keys(stream).into_iter());
                match self.streams[stream].poll_next(context) {
                    Poll::Ready(Taken { delivery: Delivery::Progress { id: -1, revision }, .. })
                        if revision == current =>
                    {
                        break;
                    }
                    Poll::Ready(taken) => self.judge(stream, &taken.delivery),
                    Poll::Pending => std::thread::yield_now(),
                }
                if self.keys(stream).is_empty() {
                    break; // compacted meanwhile, all of them
                }
                assert!(Instant::now() < deadline, "no progress on stream {stream}");
            }
        }
    }
}

fn write(store: &Store, changes: &[(u8, Change)]) -> Option<Arc<EventBatch>> {
    let mut writer = store.write(0).unwrap();
    for (number, change) in changes {
        match change {
            Change::Put => _ = writer.put(key(*number), b"value", 0).unwrap(),
            Change::PutLarge => _ = writer.put(key(*number), &vec![0; LARGE_VALUE], 0).unwrap(),
            Change::Delete => _ = writer.delete(key(*number), false).unwrap(),
        }
    }
    writer.commit().batches.pop()
}

fn run(steps: Vec<Step>) {
    // What the hub's threads complain of is shown with a failure.
    let _ = tracing_subscriber::fmt().with_test_writer().try_init();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _runtime = runtime.enter(); // streams belong to one
    let mut model = Model::new();
    for step in steps {
        model.step(step);
    }
    model.finish();
    model.finish_progress();
    model.hub.stop();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn watchers_see_what_the_model_says(steps in prop::collection::vec(step(), 1..150)) {
        run(steps);
    }
}
