//! The flush thread: the only one that writes to LMDB. Moves memtables there, removes compacted history, defragments, and
//! puts states in place that came from another member.
//!
//! It flushes when the memtable is large or has waited long enough, and on request. Nobody waits for it on the path of a
//! request, except that the applier pauses when the memtable has outgrown all bounds.

use super::apply::{Applier, Candidate, LogPosition};
use crate::metrics::{self, METRICS};
use crate::mvcc::defrag::Failure;
use crate::mvcc::transfer::Received;
use crate::mvcc::{self, Store};
use parking_lot::{Condvar, Mutex};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Settings.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory that holds the environment.
    pub dir: PathBuf,
    /// Bytes of data allowed; sizes the map of a defragmented environment.
    pub quota: u64,
    /// Longest time that a change stays out of LMDB.
    pub interval: Duration,
    /// Bytes of changes that start a flush at once.
    pub memtable_bytes_max: usize,
    /// Rows removed by one step of physical compaction.
    pub compaction_batch: usize,
    /// Pause between two such steps.
    pub compaction_pause: Duration,
}

/// The applier waits when the memtable is this many times its limit: LMDB can't keep up.
const OVERRUN: usize = 2;
/// The same while the environment is rewritten and nothing can be flushed: about ten seconds of the fastest writers.
const DEFRAGMENT_BYTES_MAX: usize = 256 << 20;

type Reply = tokio::sync::oneshot::Sender<mvcc::Result<()>>;

#[derive(Default)]
struct Requests {
    flush: bool,
    syncs: Vec<Reply>,
    defragments: Vec<Reply>,
    installs: Vec<(Received, Reply)>,
    stop: bool,
}

impl Requests {
    fn is_some(&self) -> bool {
        let has_replies = !self.syncs.is_empty() || !self.defragments.is_empty() || !self.installs.is_empty();
        self.flush || self.stop || has_replies
    }
}

struct Shared {
    store: Arc<Store>,
    applier: Arc<Mutex<Applier>>,
    options: Options,
    requests: Mutex<Requests>,
    requested: Condvar,
    /// From the begin of a defragmentation to the next freeze.
    is_defragmenting: AtomicBool,
    /// Bytes of the memtable that is being written to LMDB.
    flushing_bytes: AtomicUsize,
    /// Signalled after each freeze and at a stop: a new memtable has room.
    progress: Condvar,
    on_flushed: Box<dyn Fn(LogPosition) + Send + Sync>,
    on_fatal: Box<dyn Fn(&mvcc::Error) + Send + Sync>,
}

/// Handle of the flush thread. Cheap to clone.
#[derive(Clone)]
pub struct Flusher {
    shared: Arc<Shared>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Flusher {
    /// Starts the thread. `on_flushed` learns up to where the log is not needed any more; `on_fatal` must end the process.
    pub fn start(
        store: Arc<Store>,
        applier: Arc<Mutex<Applier>>,
        options: Options,
        on_flushed: impl Fn(LogPosition) + Send + Sync + 'static,
        on_fatal: impl Fn(&mvcc::Error) + Send + Sync + 'static,
    ) -> std::io::Result<Flusher> {
        let shared = Arc::new(Shared {
            store,
            applier,
            options,
            requests: Mutex::default(),
            requested: Condvar::new(),
            is_defragmenting: AtomicBool::new(false),
            flushing_bytes: AtomicUsize::new(0),
            progress: Condvar::new(),
            on_flushed: Box::new(on_flushed),
            on_fatal: Box::new(on_fatal),
        });
        let run = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("flush".into()).spawn(move || run.run())?;
        Ok(Flusher { shared, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// To be called by the applier after a batch: starts a flush when due, and waits when there is no room at all.
    pub fn after_apply(&self) {
        let limit = self.shared.options.memtable_bytes_max;
        let bytes = self.shared.store.active_bytes();
        if bytes < limit {
            return;
        }
        let mut requests = self.shared.requests.lock();
        requests.flush = true;
        self.shared.requested.notify_one();
        while self.shared.store.active_bytes() > self.shared.memtable_bytes_bound() && !requests.stop {
            // The applier's lock is not held here: the freeze that makes room needs it.
            self.shared.progress.wait(&mut requests);
        }
    }

    /// Resolves when everything applied before the call is in LMDB.
    pub async fn sync(&self) -> mvcc::Result<()> {
        self.request(|requests, reply| requests.syncs.push(reply)).await
    }

    /// Resolves when the environment has been rewritten without free pages.
    pub async fn defragment(&self) -> mvcc::Result<()> {
        self.request(|requests, reply| requests.defragments.push(reply)).await
    }

    /// Resolves when what was received is our state, or is found not to be ahead of it. The effects that this has wait in
    /// the applier, as after an entry: whoever calls must hand them on before anything else is applied.
    pub async fn install(&self, received: Received) -> mvcc::Result<()> {
        self.request(|requests, reply| requests.installs.push((received, reply))).await
    }

    async fn request(&self, add: impl FnOnce(&mut Requests, Reply)) -> mvcc::Result<()> {
        let (reply, done) = tokio::sync::oneshot::channel();
        add(&mut self.shared.requests.lock(), reply);
        self.shared.requested.notify_one();
        match done.await {
            Ok(result) => result,
            Err(_) => Err(crate::storage::Error::Lmdb("the flush thread has stopped".into()).into()),
        }
    }

    /// Flushes what there is and ends the thread.
    pub fn stop(&self) {
        self.shared.requests.lock().stop = true;
        self.shared.requested.notify_one();
        self.shared.progress.notify_all();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the flush thread panicked");
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut next_flush = Instant::now() + self.options.interval;
        loop {
            let requests = self.wait(next_flush);
            let is_stopping = requests.stop;
            let is_due = requests.is_some() || Instant::now() >= next_flush;
            if is_due {
                next_flush = Instant::now() + self.options.interval;
            }
            if let Err(error) = self.serve(requests, is_due) {
                (self.on_fatal)(&error);
                return;
            }
            if is_stopping {
                return;
            }
        }
    }

    /// Waits for a request, the next flush, or the next step of removal.
    fn wait(&self, next_flush: Instant) -> Requests {
        let mut requests = self.requests.lock();
        let mut until = next_flush;
        if self.store.has_removable() {
            until = until.min(Instant::now() + self.options.compaction_pause);
        }
        while !requests.is_some() {
            if self.requested.wait_until(&mut requests, until).timed_out() {
                break;
            }
        }
        let stop = requests.stop;
        Requests { stop, ..std::mem::replace(&mut *requests, Requests { stop, ..Requests::default() }) }
    }

    fn serve(&self, requests: Requests, flush: bool) -> mvcc::Result<()> {
        if flush {
            self.flush()?;
        }
        self.store.remove_compacted(self.options.compaction_batch)?;
        for reply in requests.syncs {
            answer(reply, Ok(()));
        }
        for (received, reply) in requests.installs {
            self.install(received, reply)?;
        }
        if requests.defragments.is_empty() {
            return Ok(());
        }
        let begin = Instant::now();
        self.is_defragmenting.store(true, Ordering::Relaxed);
        METRICS.disk.defrag_inflight.set(1);
        let result = self.defragment(requests.defragments);
        METRICS.disk.defrag_inflight.set(0);
        metrics::observe_since(&METRICS.disk.defrag, begin);
        result
    }

    /// A state that can't be used is the caller's matter; one that can't be put in place ends the process.
    fn install(&self, received: Received, reply: Reply) -> mvcc::Result<()> {
        let installed = match Candidate::read(&self.store, received) {
            Ok(candidate) => Ok(self.applier.lock().install(candidate, &self.options.dir)?),
            Err(error) => Err(error),
        };
        answer(reply, installed);
        Ok(())
    }

    /// A copy that can't be made is the caller's matter; one that can't be put in place ends the process.
    fn defragment(&self, replies: Vec<Reply>) -> mvcc::Result<()> {
        while self.store.has_removable() {
            self.store.remove_compacted(self.options.compaction_batch)?;
        }
        let failure = match self.store.defragment(&self.options.dir, self.options.quota) {
            Ok(()) => None,
            Err(Failure::Swap(error)) => return Err(error),
            Err(failure @ Failure::Copy(_)) => {
                tracing::warn!(%failure, "defragmentation failed; the database stays as it was");
                Some(failure.to_string())
            }
        };
        for reply in replies {
            let result = failure.clone().map_or(Ok(()), |text| Err(crate::storage::Error::Lmdb(text).into()));
            answer(reply, result);
        }
        Ok(())
    }

    /// Bytes of the memtable at which the applier waits. While a larger one is being flushed (it grew during
    /// a defragmentation), this one may become as large, which still gets smaller from flush to flush.
    fn memtable_bytes_bound(&self) -> usize {
        if self.is_defragmenting.load(Ordering::Relaxed) {
            return DEFRAGMENT_BYTES_MAX;
        }
        let flushing = self.flushing_bytes.load(Ordering::Relaxed);
        flushing.max(self.options.memtable_bytes_max * OVERRUN)
    }

    fn flush(&self) -> mvcc::Result<()> {
        let frozen = self.applier.lock().freeze();
        self.flushing_bytes.store(frozen.as_ref().map_or(0, |(f, _)| f.bytes()), Ordering::Relaxed);
        self.is_defragmenting.store(false, Ordering::Relaxed);
        // Under the lock, so that nobody who checks and then waits misses it. Before the flush: whoever waits for room has
        // it now, and need not wait until the old memtable is on disk.
        drop(self.requests.lock());
        self.progress.notify_all();
        let Some((frozen, applied)) = frozen else { return Ok(()) };
        self.store.flush(&frozen)?;
        self.flushing_bytes.store(0, Ordering::Relaxed);
        if let Some(applied) = applied {
            (self.on_flushed)(applied);
        }
        Ok(())
    }
}

/// Whoever asked may have gone away; that is no error.
fn answer(reply: Reply, result: mvcc::Result<()>) {
    if reply.send(result).is_err() {
        tracing::debug!("nobody waits for the flush any more");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::defrag;
    use crate::storage::Env;
    use bytes::Bytes;
    use std::sync::mpsc;

    /// How long threads may take for what they need not wait for.
    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn who_waits_for_room_goes_on_while_the_old_memtable_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::open(&defrag::current_dir(dir.path()).unwrap(), 1 << 30).unwrap();
        let store = Arc::new(Store::open(env.clone()).unwrap());
        let applier = Arc::new(Mutex::new(Applier::load(Arc::clone(&store)).unwrap()));
        let options = Options {
            dir: dir.path().to_owned(),
            quota: 1 << 30,
            interval: Duration::from_secs(3600),
            memtable_bytes_max: 1000,
            compaction_batch: 1000,
            compaction_pause: Duration::from_millis(10),
        };
        let fatal = |error: &mvcc::Error| panic!("{error}");
        let flusher = Flusher::start(Arc::clone(&store), applier, options, |_| {}, fatal).unwrap();
        let mut writer = store.write(0).unwrap();
        writer.put(Bytes::from_static(b"k"), &[0; 4000], 0).unwrap();
        writer.commit();
        // As long as this transaction is open, no flush gets on.
        let blocking = env.write().unwrap();
        let (sender, goes_on) = mpsc::sync_channel(1);
        let waiting = flusher.clone();
        let waiter = std::thread::spawn(move || {
            waiting.after_apply();
            sender.send(()).unwrap();
        });
        goes_on.recv_timeout(PATIENCE).expect("a memtable without changes has room");
        assert!(store.unflushed_bytes() > 4000, "the flush is not done");
        drop(blocking);
        waiter.join().unwrap();
        flusher.stop();
        assert_eq!(store.unflushed_bytes(), 0);
    }
}
