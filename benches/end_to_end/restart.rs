//! The restart workload: fill a server with many keys, then time its start after a polite stop and after a crash. The files
//! are in the page cache both times, for both servers. All keys must be there after each start. Called by `runs`.

use std::path::Path;

use crate::Result;
use crate::client::Client;
use crate::load::{self, Ledger, Window};
use crate::options::Options;
use crate::runs::{self, Findings};
use crate::server::Server;
use crate::workload::{self as w, Workload};

const MIB: f64 = (1 << 20) as f64;

/// Runs the workload once.
///
/// # Errors
/// The server cannot be started or filled, or does not come back.
pub async fn measure(workload: &Workload, binary: &Path, options: &Options) -> Result<Findings> {
    let mut server = Server::start(binary, &options.dir, workload.security).await?;
    let client = Client::connect(server.access(), workload.connections).await?;
    let ledger = Ledger::new()?;
    let window = Window::open(&server)?;
    ledger.open();
    load::fill(&client, options.restart_keys, workload.in_flight, &ledger).await?;
    ledger.close();
    let mut findings =
        Findings { figures: window.spent(&server)?.per_op(ledger.done()), ..Findings::default() };
    ledger.add_latency(&mut findings.figures);
    runs::check_errors(&mut findings, &ledger);
    drop(client);

    let stopped = server.terminate().await?;
    findings.figures.insert(w::STOP_MS, stopped.as_secs_f64() * 1e3);
    findings.figures.insert(w::DISK_MIB, server.disk_bytes()? as f64 / MIB);
    let started = server.restart().await?;
    findings.figures.insert(w::RESTART_TERM_MS, started.as_secs_f64() * 1e3);
    check_keys(&mut findings, &server, options.restart_keys, "SIGTERM").await?;
    findings.figures.insert(w::RESTART_ANON_MIB, server.usage()?.anon_bytes as f64 / MIB);

    server.kill()?;
    let started = server.restart().await?;
    findings.figures.insert(w::RESTART_KILL_MS, started.as_secs_f64() * 1e3);
    check_keys(&mut findings, &server, options.restart_keys, "SIGKILL").await?;
    Ok(findings)
}

async fn check_keys(findings: &mut Findings, server: &Server, keys: u64, after: &str) -> Result<()> {
    let found = Client::connect(server.access(), 1).await?.count().await?;
    findings.check(found == keys, || format!("{found} of {keys} keys after {after}"));
    Ok(())
}
