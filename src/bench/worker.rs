//! One thread of the load tool: its connections, its share of the clients, and its numbers. It follows the stages that
//! `coordinator` announces, and tells it when it is ready and when it has nothing more to send. `workloads` say what it
//! does meanwhile.

use super::keys::{Dice, Keys};
use super::load::{self, Op, Tickets};
use super::pace::Pace;
use super::settings::Settings;
use super::tally::{Ledger, Tally};
use super::{Access, Error, workloads};
use crate::client::{Link, Token};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Connections are made, watchers created.
    Prepare,
    /// Load, not measured.
    Warmup,
    /// Load, measured since this moment.
    Measured(Instant),
    /// No more load since this moment; who watches goes on.
    Over(Instant),
    /// All events have come, or will not come any more.
    End,
}

/// What a thread tells.
pub enum Event {
    /// It can begin.
    Ready,
    /// It has nothing more to send; so many of its writes were acknowledged.
    Idle(u64),
    /// It has ended.
    Done(Box<Result<Tally, Error>>),
}

/// What all threads share.
#[derive(Clone)]
pub struct Common {
    /// What to do.
    pub settings: Arc<Settings>,
    /// Whom to ask.
    pub access: Access,
    /// As whom.
    pub token: Token,
    /// Keys and values.
    pub keys: Keys,
    /// Requests that are left, if they are counted.
    pub tickets: Tickets,
    /// The next number, where all threads together go through the numbers.
    pub sequence: Arc<AtomicU64>,
    /// Good answers, about.
    pub shown: Arc<AtomicU64>,
    /// Events that came, of all threads.
    pub delivered: Arc<AtomicU64>,
    /// Zero of the stamps in values.
    pub origin: Instant,
    /// The first revision after the store was filled.
    pub start_revision: i64,
}

/// One thread, from the inside.
pub struct Worker {
    /// What all threads share.
    pub common: Common,
    /// Which thread this is.
    thread: usize,
    links: Vec<Link>,
    /// Its numbers.
    pub ledger: Rc<Ledger>,
    stage: watch::Receiver<Stage>,
    events: mpsc::Sender<Event>,
}

/// The body of a thread.
pub fn run(common: Common, thread: usize, stage: watch::Receiver<Stage>, events: mpsc::Sender<Event>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match &runtime {
        Ok(runtime) => LocalSet::new().block_on(runtime, work(common, thread, stage, &events)),
        Err(error) => Err(Error::Failed(error.to_string())),
    };
    // When nobody listens any more, the run has failed elsewhere.
    let _ = events.blocking_send(Event::Done(Box::new(result)));
}

async fn work(
    common: Common,
    thread: usize,
    stage: watch::Receiver<Stage>,
    events: &mpsc::Sender<Event>,
) -> Result<Tally, Error> {
    let settings = &common.settings;
    let mine = share(settings.conns.max(settings.threads), settings.threads, thread);
    let mut links = Vec::with_capacity(mine);
    for n in 0..mine {
        links.push(common.access.connect(thread + n * settings.threads, &common.token).await?);
    }
    let ledger = Rc::new(Ledger::new(settings.counts_events(), Arc::clone(&common.shown)));
    let is_counted = settings.total.is_some();
    let follower = tokio::task::spawn_local(follow(stage.clone(), Rc::clone(&ledger), is_counted));
    let worker = Worker { common, thread, links, ledger, stage, events: events.clone() };
    let result = workloads::run(&worker).await;
    follower.abort();
    result.map(|()| worker.ledger.take())
}

/// Writes the window into the ledger, so that clients find it without asking another thread. Where requests are counted,
/// the window begins when the clients can know of it: what was due before took no ticket.
async fn follow(mut stage: watch::Receiver<Stage>, ledger: Rc<Ledger>, is_counted: bool) {
    loop {
        match *stage.borrow_and_update() {
            Stage::Measured(_) if is_counted => ledger.open(Instant::now()),
            Stage::Measured(since) => ledger.open(since),
            Stage::Over(until) => ledger.close(until),
            Stage::Prepare | Stage::Warmup | Stage::End => {}
        }
        if stage.changed().await.is_err() {
            return ledger.close(Instant::now());
        }
    }
}

/// How many of `count` fall to one of `threads` that take turns.
pub fn share(count: usize, threads: usize, thread: usize) -> usize {
    (count + threads - 1 - thread) / threads
}

impl Worker {
    /// What to do.
    pub fn settings(&self) -> &Settings {
        &self.common.settings
    }

    /// The connection of the n-th user of one on this thread.
    pub fn link(&self, n: usize) -> Link {
        self.links[n % self.links.len()].clone()
    }

    /// How many of `count` fall to this thread.
    pub fn share(&self, count: usize) -> usize {
        share(count, self.settings().threads, self.thread)
    }

    /// The number, among those of all threads, of the n-th on this one.
    pub fn number(&self, n: usize) -> usize {
        self.thread + n * self.settings().threads
    }

    /// Dice of the n-th client of this thread.
    pub fn dice(&self, n: usize) -> Dice {
        Dice::of_client(self.settings().seed, self.number(n))
    }

    /// Lets `clients`, of all threads, send at `rate` (0 for the closed loop) until the load is over; `make` makes this
    /// thread's share of them.
    ///
    /// # Errors
    /// The run is broken off, or answers do not come.
    pub async fn load<O: Op + 'static>(
        &self,
        clients: usize,
        rate: f64,
        make: impl FnMut(usize) -> O,
    ) -> Result<(), Error> {
        self.tell(Event::Ready).await?;
        self.wait(|stage| stage != Stage::Prepare).await?;
        let (thread, threads) = (self.thread, self.settings().threads);
        let pace = (rate > 0.0).then_some(Pace { per_second: rate, thread, threads });
        let over = async || {
            let _ = self.wait(|stage| matches!(stage, Stage::Over(_) | Stage::End)).await;
            // The follower hears it at the same time; it may come second.
            if let Stage::Over(until) = *self.stage.borrow() {
                self.ledger.close(until);
            }
        };
        let clients = (0..self.share(clients)).map(make);
        load::run(clients, pace, &self.ledger, &self.common.tickets, over).await?;
        self.tell(Event::Idle(self.ledger.acked_writes())).await?;
        self.wait(|stage| stage == Stage::End).await?;
        Ok(())
    }

    async fn tell(&self, event: Event) -> Result<(), Error> {
        self.events.send(event).await.map_err(|_| Error::broken_off())
    }

    async fn wait(&self, mut is_reached: impl FnMut(Stage) -> bool) -> Result<Stage, Error> {
        let mut stage = self.stage.clone();
        let reached = stage.wait_for(|stage| is_reached(*stage)).await;
        reached.map(|stage| *stage).map_err(|_| Error::broken_off())
    }
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn threads_share_all_there_is() {
        for (count, threads) in [(1, 1), (7, 3), (2, 4), (1000, 8), (0, 2)] {
            let parts: Vec<usize> = (0..threads).map(|thread| share(count, threads, thread)).collect();
            assert_eq!(parts.iter().sum::<usize>(), count, "{count} over {threads}");
            assert!(parts.iter().max().unwrap() - parts.iter().min().unwrap() <= 1);
        }
    }
}
