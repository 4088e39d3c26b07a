//! The signal to stop. [`Shutdown`] is a cheap handle that any task may hold and wait on; it changes once, from "run"
//! to "stop", and never back. In the program it changes with the first SIGTERM or SIGINT, by which the process ends once
//! everything is stopped (P-4); a second one ends it at once, whatever the server is doing, for which the listener has a
//! thread of its own.
//! Called by `main` and by tests (through [`Shutdown::by_hand`]); waited on by `server` and its tasks.

use std::io;
use std::sync::{Arc, OnceLock};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// A handle that knows whether to stop.
#[derive(Clone, Debug)]
pub struct Shutdown {
    requested: watch::Receiver<bool>,
    /// Number of the signal that asked for the stop.
    signal: Arc<OnceLock<i32>>,
}

/// Asks for the stop; doing so again changes nothing. Dropping it asks for the stop as well.
#[derive(Debug)]
pub struct Trigger {
    requested: watch::Sender<bool>,
}

impl Trigger {
    /// Asks everyone who holds the handle to stop.
    pub fn request(&self) {
        self.requested.send_replace(true);
    }
}

impl Shutdown {
    /// A handle that somebody else decides about.
    pub fn by_hand() -> (Trigger, Shutdown) {
        let (sender, receiver) = watch::channel(false);
        (Trigger { requested: sender }, Shutdown { requested: receiver, signal: Arc::default() })
    }

    /// A handle that the signals of the process decide about.
    pub fn on_signals() -> io::Result<Shutdown> {
        let (trigger, shutdown) = Shutdown::by_hand();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let signals = {
            let _context = runtime.enter();
            [
                (15, "terminated", signal(SignalKind::terminate())?),
                (2, "interrupt", signal(SignalKind::interrupt())?),
            ]
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn({
            let received = Arc::clone(&shutdown.signal);
            move || runtime.block_on(listen(signals, &received, &trigger))
        })?;
        Ok(shutdown)
    }

    /// Ends the process by the signal that asked for the stop, so that whoever started it sees how it ended; a shell sees
    /// 143 or 130. Returns if there was none, or for process 1, which no signal ends: it is to leave with 0. The last
    /// thing to do.
    pub fn end_by_signal(&self) {
        if let Some(signal) = self.signal.get()
            && std::process::id() != 1
            && let Err(error) = signal_hook::low_level::emulate_default_handler(*signal)
        {
            tracing::warn!(%error, "could not raise the signal again");
        }
    }

    /// Whether to stop.
    pub fn is_requested(&self) -> bool {
        *self.requested.borrow() || self.requested.has_changed().is_err()
    }

    /// Waits until it is time to stop. May be called any number of times, also after that.
    pub async fn requested(&self) {
        let mut requested = self.requested.clone();
        // An error means that the trigger is gone, and nobody else could ask for the stop.
        let _ = requested.wait_for(|requested| *requested).await;
    }
}

async fn listen(
    [mut terminate, mut interrupt]: [(i32, &str, Signal); 2],
    received: &OnceLock<i32>,
    trigger: &Trigger,
) {
    let (number, name) = either(&mut terminate, &mut interrupt).await;
    tracing::info!(signal = name, "received signal; shutting down");
    received.get_or_init(|| number);
    trigger.request();
    let (number, name) = either(&mut terminate, &mut interrupt).await;
    tracing::warn!(signal = name, "received a second signal; leaving now");
    #[expect(
        clippy::disallowed_methods,
        reason = "the operator asked twice: the drain is what must not be waited for"
    )]
    std::process::exit(128 + number);
}

async fn either<'a>(a: &mut (i32, &'a str, Signal), b: &mut (i32, &'a str, Signal)) -> (i32, &'a str) {
    tokio::select! {
        _ = a.2.recv() => (a.0, a.1),
        _ = b.2.recv() => (b.0, b.1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_handle_hears_of_it_and_keeps_it() {
        let (trigger, shutdown) = Shutdown::by_hand();
        let other = shutdown.clone();
        let waiting = tokio::spawn(async move { other.requested().await });
        assert!(!shutdown.is_requested());
        trigger.request();
        waiting.await.unwrap();
        shutdown.requested().await;
        drop(trigger);
        shutdown.clone().requested().await;
        assert!(shutdown.is_requested());
    }

    #[tokio::test]
    async fn a_lost_trigger_means_stop() {
        let (trigger, shutdown) = Shutdown::by_hand();
        drop(trigger);
        shutdown.requested().await;
        assert!(shutdown.is_requested());
    }
}
