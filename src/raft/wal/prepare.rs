//! The preparing thread: makes the next segment ahead of need and puts purged ones aside for reuse.
//!
//! The log thread asks for a segment early and takes it when its own is full; it waits only if the preparation is
//! late or another size is needed. At most [`SPARES_MAX`] purged segments are kept. Segments are put aside oldest
//! first and one durable step at a time, so a crash never leaves a hole in the chain.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use super::segment::{self, Identity, Segment};

/// Purged segments that are kept for reuse.
const SPARES_MAX: usize = 2;

/// Handle of the preparing thread, owned by the log thread.
#[derive(Debug)]
pub(super) struct Preparer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    work: Mutex<Work>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Work {
    want: Option<Identity>,
    /// A segment was asked for and is not ready yet.
    pending: bool,
    ready: Option<io::Result<Segment>>,
    /// Purged segments, oldest first; there are never more than there were segments.
    retired: VecDeque<u64>,
    stopping: bool,
    stopped: bool,
}

struct Worker {
    shared: Arc<Shared>,
    dir: PathBuf,
    segment_bytes: u64,
    spares: VecDeque<u64>,
}

impl Preparer {
    /// Starts the thread; `ready` is a segment that an earlier process prepared.
    pub fn start(
        dir: PathBuf,
        segment_bytes: u64,
        spares: Vec<u64>,
        ready: Option<Segment>,
    ) -> io::Result<Preparer> {
        let shared = Arc::new(Shared::default());
        shared.work.lock().ready = ready.map(Ok);
        let mut worker = Worker { shared: Arc::clone(&shared), dir, segment_bytes, spares: spares.into() };
        let thread =
            std::thread::Builder::new().name("wal-prepare".to_owned()).spawn(move || worker.run())?;
        Ok(Preparer { shared, thread: Some(thread) })
    }

    /// Asks for a segment ahead of need.
    pub fn request(&self, want: Identity) {
        let mut work = self.shared.work.lock();
        if !work.pending && work.ready.is_none() {
            work.ask(want);
            self.shared.changed.notify_all();
        }
    }

    /// The segment asked for, or a larger one with the same number. A failed attempt ahead of need is repeated once.
    pub fn take(&self, want: Identity) -> io::Result<Segment> {
        let mut work = self.shared.work.lock();
        let mut asked = false;
        loop {
            match work.ready.take() {
                Some(Ok(segment))
                    if segment.identity.number == want.number
                        && segment.identity.capacity >= want.capacity =>
                {
                    return Ok(segment);
                }
                Some(Err(error)) if asked => return Err(error),
                _ => (),
            }
            if work.stopped {
                return Err(io::Error::other("the thread that prepares log segments has ended"));
            }
            if !work.pending {
                asked = true;
                work.ask(want);
                self.shared.changed.notify_all();
            }
            self.shared.changed.wait(&mut work);
        }
    }

    /// Hands over segments that hold nothing live any more, oldest first.
    pub fn retire(&self, numbers: Vec<u64>) {
        if !numbers.is_empty() {
            self.shared.work.lock().retired.extend(numbers);
            self.shared.changed.notify_all();
        }
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        self.shared.work.lock().stopping = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the panic hook, and everything asked of the thread is answered.
            let _ = thread.join();
        }
    }
}

impl Work {
    fn ask(&mut self, want: Identity) {
        self.want = Some(want);
        self.pending = true;
    }
}

/// Lets a waiting log thread go when the preparing thread ends, for whatever reason.
struct StoppedOnDrop(Arc<Shared>);

impl Drop for StoppedOnDrop {
    fn drop(&mut self) {
        self.0.work.lock().stopped = true;
        self.0.changed.notify_all();
    }
}

impl Worker {
    fn run(&mut self) {
        let shared = Arc::clone(&self.shared);
        let _stopped = StoppedOnDrop(Arc::clone(&shared));
        let mut failed = false;
        let mut work = shared.work.lock();
        loop {
            // After a failure the rest waits for the next occasion: a later one may not overtake an earlier one.
            if let Some(number) = work.retired.front().copied().filter(|_| !failed) {
                drop(work);
                let result = self.put_aside(number);
                work = shared.work.lock();
                match result {
                    Ok(()) => drop(work.retired.pop_front()),
                    Err(error) => {
                        tracing::warn!(segment = number, %error, "cannot put a purged log segment aside");
                        failed = true;
                    }
                }
            } else if let Some(want) = work.want.take() {
                drop(work);
                let result = self.make(want);
                work = shared.work.lock();
                work.ready = Some(result);
                work.pending = false;
                shared.changed.notify_all();
                failed = false;
            } else if work.stopping {
                return;
            } else {
                shared.changed.wait(&mut work);
            }
        }
    }

    fn make(&mut self, want: Identity) -> io::Result<Segment> {
        if want.capacity == self.segment_bytes {
            while let Some(spare) = self.spares.pop_front() {
                match segment::reuse(&self.dir, spare, want) {
                    Ok(segment) => return Ok(segment),
                    Err(error) => {
                        tracing::warn!(segment = spare, %error, "cannot reuse a purged log segment");
                    }
                }
            }
        }
        segment::create(&self.dir, want)
    }

    fn put_aside(&mut self, number: u64) -> io::Result<()> {
        if self.spares.len() < SPARES_MAX && segment::make_spare(&self.dir, number, self.segment_bytes)? {
            self.spares.push_back(number);
            return Ok(());
        }
        segment::remove(&self.dir, &segment::segment_path(&self.dir, number))
    }
}
