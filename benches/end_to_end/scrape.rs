//! A monitor that reads `/metrics` while a load runs, and how long that takes. Called by `runs`.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::Result;
use crate::runs::Findings;
use crate::workload::{self as w, SCRAPE_INTERVAL};

/// Scrapes that go on until [`Scrapes::finish`].
pub struct Scrapes {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<Vec<Duration>>>,
}

impl Scrapes {
    pub fn start(port: u16) -> Scrapes {
        let (stop, stopped) = oneshot::channel();
        Scrapes { stop, task: tokio::task::spawn_local(scrape_until(stopped, port)) }
    }

    /// Adds the figures of the scrapes.
    ///
    /// # Errors
    /// One of them failed.
    pub async fn finish(self, findings: &mut Findings) -> Result<()> {
        // An error means that the task has ended early, which its result tells.
        let _ = self.stop.send(());
        let mut times = self.task.await??;
        times.sort();
        let millis = |time: Option<&Duration>| time.map(|t| t.as_secs_f64() * 1e3);
        let figures = [
            (w::SCRAPE_P50_MS, millis(times.get(times.len() / 2))),
            (w::SCRAPE_MAX_MS, millis(times.last())),
        ];
        findings.figures.extend(figures.into_iter().filter_map(|(name, figure)| Some((name, figure?))));
        Ok(())
    }
}

async fn scrape_until(mut stopped: oneshot::Receiver<()>, port: u16) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    let mut interval = tokio::time::interval(SCRAPE_INTERVAL);
    loop {
        tokio::select! {
            _ = &mut stopped => return Ok(times),
            _ = interval.tick() => times.push(scrape(port).await?),
        }
    }
}

async fn scrape(port: u16) -> Result<Duration> {
    let started = Instant::now();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let is_whole = answer.starts_with(b"HTTP/1.1 200") && contains(&answer, b"etcd_server_has_leader 1");
    if is_whole { Ok(started.elapsed()) } else { Err("/metrics has no good answer".into()) }
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}
