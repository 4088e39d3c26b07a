//! The threads that serve: a runtime for each core. Called by `server`.

use std::io;
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};

/// A runtime of one thread.
pub fn current_thread() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().max_blocking_threads(32).build()
}

/// A runtime for each core. The first is that of the main thread, where consensus runs, too.
pub struct Workers {
    handles: Vec<Handle>,
    stop: tokio::sync::watch::Sender<bool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Workers {
    /// Starts the threads; the first runtime is `main`, which the caller runs.
    pub fn start(main: &Runtime) -> io::Result<Workers> {
        let (stop, _) = tokio::sync::watch::channel(false);
        let mut workers = Workers { handles: vec![main.handle().clone()], stop, threads: Vec::new() };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for n in 1..cores {
            let runtime = current_thread()?;
            workers.handles.push(runtime.handle().clone());
            let mut stopped = workers.stop.subscribe();
            let run = move || {
                // An error means that the sender is gone: a stop as well.
                let _ = runtime.block_on(stopped.wait_for(|stopped| *stopped));
                runtime.shutdown_timeout(Duration::from_secs(1));
            };
            workers.threads.push(std::thread::Builder::new().name(format!("api-{n}")).spawn(run)?);
        }
        Ok(workers)
    }

    /// The runtimes.
    pub fn handles(&self) -> Vec<Handle> {
        self.handles.clone()
    }

    /// Ends the threads.
    pub fn stop(self) {
        self.stop.send_replace(true);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("an API thread panicked");
            }
        }
    }
}
