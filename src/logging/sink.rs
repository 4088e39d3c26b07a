//! The open places for lines. A place that fails does not keep a line from the others, nor the server from running.

use super::rotate::Rotating;
use crate::config::log::{Log, Output};
use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::SystemTime;
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// An open place for lines.
#[derive(Debug)]
enum Sink {
    Stderr,
    Stdout,
    File(File),
    Rotating(Mutex<Rotating>),
    Journal(UnixDatagram, PathBuf),
}

impl Sink {
    fn open(output: &Output, log: &Log) -> io::Result<Sink> {
        Ok(match (output, log.rotation) {
            (Output::Stderr, _) => Sink::Stderr,
            (Output::Stdout, _) => Sink::Stdout,
            (Output::File(path), Some(rules)) => Sink::Rotating(Mutex::new(Rotating::open(path, rules)?)),
            (Output::File(path), None) => {
                Sink::File(OpenOptions::new().create(true).append(true).open(path)?)
            }
            (Output::Journal(path), _) => Sink::Journal(UnixDatagram::unbound()?, path.clone()),
        })
    }

    fn write_line(&self, line: &[u8], priority: u8) -> io::Result<()> {
        match self {
            Sink::Stderr => io::stderr().lock().write_all(line),
            Sink::Stdout => io::stdout().lock().write_all(line),
            Sink::File(file) => (&mut &*file).write_all(line),
            Sink::Rotating(file) => file.lock().write_line(line, SystemTime::now()),
            Sink::Journal(socket, path) => {
                let sent = socket.send_to(&journal_entry(line, priority), path);
                // A line that is too long for a datagram, or a journal that is gone.
                if sent.is_err() { io::stderr().lock().write_all(line) } else { Ok(()) }
            }
        }
    }
}

/// An entry in the journal's own form. The message has its length in front, as it may contain newlines.
fn journal_entry(line: &[u8], priority: u8) -> Vec<u8> {
    let message = line.strip_suffix(b"\n").unwrap_or(line);
    let mut entry = format!("PRIORITY={priority}\nSYSLOG_IDENTIFIER=kvist\nMESSAGE\n").into_bytes();
    entry.extend((message.len() as u64).to_le_bytes());
    entry.extend(message);
    entry.push(b'\n');
    entry
}

/// All places for lines.
pub(super) struct Sinks(Vec<Sink>);

impl Sinks {
    /// Opens every output that `log` names.
    pub fn open(log: &Log) -> io::Result<Sinks> {
        let open = |output: &Output| {
            Sink::open(output, log).map_err(|error| match output {
                Output::File(path) => {
                    io::Error::new(error.kind(), format!("cannot open log file {}: {error}", path.display()))
                }
                Output::Stderr | Output::Stdout | Output::Journal(_) => error,
            })
        };
        Ok(Sinks(log.outputs.iter().map(open).collect::<io::Result<_>>()?))
    }
}

/// Takes the lines of one event.
pub(super) struct Lines<'a> {
    sinks: &'a Sinks,
    /// Severity in syslog's numbers.
    priority: u8,
}

impl<'a> MakeWriter<'a> for Sinks {
    type Writer = Lines<'a>;

    fn make_writer(&'a self) -> Lines<'a> {
        Lines { sinks: self, priority: 6 }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Lines<'a> {
        let priority = match *meta.level() {
            _ if meta.target() == super::FATAL => 2,
            tracing::Level::ERROR => 3,
            tracing::Level::WARN => 4,
            tracing::Level::INFO => 6,
            tracing::Level::DEBUG | tracing::Level::TRACE => 7,
        };
        Lines { sinks: self, priority }
    }
}

impl Write for Lines<'_> {
    /// Gets whole lines: the subscriber formats an event first and writes it at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        for sink in &self.sinks.0 {
            let _ = sink.write_line(line, self.priority);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
