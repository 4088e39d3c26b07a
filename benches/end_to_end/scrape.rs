//! A monitor that reads `/metrics` while a load runs, and how long that takes. It has a thread of its own. Called by
//! `measure`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::figures::{Figures, SCRAPE_MAX, SCRAPE_P50};
use crate::{Failure, Result};

/// Far more often than any monitor does, so that an effect would show.
const INTERVAL: Duration = Duration::from_millis(100);
/// Longest wait for a piece of an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Scrapes that go on until [`Scrapes::finish`].
pub struct Scrapes {
    stop: SyncSender<()>,
    thread: JoinHandle<std::result::Result<Vec<Duration>, Failure>>,
}

impl Scrapes {
    pub fn start(port: u16) -> Scrapes {
        let (stop, stopped) = mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || {
            let mut times = Vec::new();
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                times.push(scrape(port)?);
            }
            Ok(times)
        });
        Scrapes { stop, thread }
    }

    /// The figures of the scrapes.
    ///
    /// # Errors
    /// One of them failed.
    pub fn finish(self) -> Result<Figures> {
        drop(self.stop);
        let mut times = self.thread.join().map_err(|_| "the thread of the scrapes panicked")??;
        times.sort();
        let named = [(SCRAPE_P50, times.get(times.len() / 2)), (SCRAPE_MAX, times.last())];
        let figure = |(name, time): (&str, Option<&Duration>)| {
            time.map(|time| (name.to_owned(), time.as_secs_f64() * 1e3))
        };
        Ok(named.into_iter().filter_map(figure).collect())
    }
}

fn scrape(port: u16) -> std::result::Result<Duration, Failure> {
    let started = Instant::now();
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let is_whole = answer.starts_with(b"HTTP/1.1 200") && contains(&answer, b"etcd_server_has_leader 1");
    if is_whole { Ok(started.elapsed()) } else { Err("/metrics has no good answer".into()) }
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}
