//! Watchers that live through crashes: they record all they see and resume behind the last revision they saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::{Clients, WatchStream, event, patient};
use crate::journal::History;

/// One watcher. Its range is half-open; both ends `\0` mean everything.
pub struct Watcher {
    pub range: (&'static [u8], &'static [u8]),
    /// Everything up to here has been seen.
    seen: Arc<AtomicI64>,
    running: Option<Running>,
}

/// What a watcher saw between two crashes.
pub struct Seen {
    /// Where it resumed.
    pub from: i64,
    pub history: History,
}

struct Running {
    from: i64,
    task: JoinHandle<History>,
    seen: watch::Receiver<i64>,
}

impl Watcher {
    pub fn new(range: (&'static [u8], &'static [u8])) -> Watcher {
        Watcher { range, seen: Arc::new(AtomicI64::new(1)), running: None }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.range.0 && (self.range.1 == b"\0" || key < self.range.1)
    }

    /// The last revision seen, kept up to date: a compaction must not pass it.
    pub fn seen(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.seen)
    }

    /// Watches again from where it was cut off. `dying` tells whether the stream may break.
    pub async fn resume(&mut self, clients: &Clients, dying: Arc<AtomicBool>) {
        let from = self.seen.load(Ordering::SeqCst) + 1;
        let stream = clients.watch(self.range, from).await;
        let (sender, seen) = watch::channel(from - 1);
        let task = tokio::spawn(record(stream, dying, Arc::clone(&self.seen), sender));
        self.running = Some(Running { from, task, seen });
    }

    /// Waits until the event of `revision` has come.
    pub async fn reach(&mut self, revision: i64) {
        let running = self.running.as_mut().expect("the watcher runs");
        patient(running.seen.wait_for(|seen| *seen >= revision)).await.expect("the watch goes on");
    }

    /// Nothing up to `revision` concerns this watcher that it has not seen.
    pub fn skip_to(&self, revision: i64) {
        self.seen.fetch_max(revision, Ordering::SeqCst);
    }

    /// What it saw since it resumed; the server is gone.
    pub async fn cut_off(&mut self) -> Seen {
        let running = self.running.take().expect("the watcher runs");
        let history = patient(running.task).await.expect("the watcher does not panic");
        Seen { from: running.from, history }
    }
}

async fn record(
    mut stream: WatchStream,
    dying: Arc<AtomicBool>,
    seen: Arc<AtomicI64>,
    published: watch::Sender<i64>,
) -> History {
    let mut history = History::new();
    loop {
        let answer = match stream.answers.message().await {
            Ok(Some(answer)) => answer,
            end => {
                assert!(dying.load(Ordering::SeqCst), "the watch ended while the server lived: {end:?}");
                return history;
            }
        };
        assert!(!answer.canceled, "the watch was cancelled: {answer:?}");
        append(&mut history, &answer.events, seen.load(Ordering::SeqCst));
        if let Some((&last, _)) = history.last_key_value() {
            seen.fetch_max(last, Ordering::SeqCst);
            published.send_replace(last);
        }
    }
}

/// Takes in the events of one answer: behind all before it, in order, no revision in two answers.
pub fn append(history: &mut History, events: &[kvist::pb::mvccpb::Event], seen: i64) {
    let mut last = seen;
    let before = history.last_key_value().map_or(seen, |(&r, _)| r.max(seen));
    for (revision, event) in events.iter().map(event) {
        assert!(revision > before, "a watch showed revision {revision} after {before}");
        assert!(revision >= last, "a watch showed revision {revision} after {last} in one answer");
        last = revision;
        history.entry(revision).or_default().push(event);
    }
}
