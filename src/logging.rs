//! The server's own log: one line per event, as JSON with etcd's keys (`level`, `ts`, `caller`, `msg`, then the fields)
//! or in columns for people. Whatever fields an event has, a JSON line is valid JSON. Libraries are heard one level
//! later than our own code. Called once by `main`; everything else uses the macros of `tracing`.

mod rotate;
mod sink;

use crate::config::log::{Format, Level, Log};
use sink::Sinks;
use std::fmt::{self, Write as _};
use std::io;
use std::time::SystemTime;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

/// Target of events that end the process: etcd's level "fatal", which tracing does not have.
pub const FATAL: &str = "fatal";

/// Sends events where `log` says, from now on until the process ends.
pub fn init(log: &Log) -> io::Result<()> {
    let sinks = Sinks::open(log)?;
    tracing::subscriber::set_global_default(subscriber(log, sinks)).map_err(io::Error::other)
}

fn subscriber<W>(log: &Log, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (own, others) = match log.level {
        Level::Debug => (LevelFilter::DEBUG, LevelFilter::INFO),
        Level::Info => (LevelFilter::INFO, LevelFilter::WARN),
        Level::Warn => (LevelFilter::WARN, LevelFilter::ERROR),
        Level::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        Level::Fatal => (LevelFilter::OFF, LevelFilter::OFF),
    };
    // openraft warns of each try to reach a member that is down; `raft` tells when one goes and comes.
    let consensus = if log.level == Level::Debug { others } else { others.min(LevelFilter::ERROR) };
    let targets = Targets::new()
        .with_target(env!("CARGO_CRATE_NAME"), own)
        .with_target("openraft", consensus)
        .with_target(FATAL, LevelFilter::ERROR)
        .with_default(others);
    let lines = tracing_subscriber::fmt::layer().event_format(Lines(log.format)).with_writer(writer);
    tracing_subscriber::registry().with(targets).with(lines)
}

/// Makes lines of events.
struct Lines(Format);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let meta = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let (level, time) = (level_name(meta), humantime::format_rfc3339_micros(SystemTime::now()));
        let caller = Caller(meta);
        match self.0 {
            Format::Json => {
                let (caller, message) = (quoted(&caller.to_string()), quoted(&fields.message));
                write!(out, r#"{{"level":"{level}","ts":"{time}","caller":{caller},"msg":{message}"#)?;
                out.write_str(&fields.rest)?;
                out.write_str("}\n")
            }
            Format::Console => {
                write!(out, "{time}\t{level}\t{caller}\t{}", fields.message)?;
                if let Some(rest) = fields.rest.strip_prefix(',') {
                    write!(out, "\t{{{rest}}}")?;
                }
                out.write_str("\n")
            }
        }
    }
}

fn level_name(meta: &Metadata<'_>) -> &'static str {
    match *meta.level() {
        _ if meta.target() == FATAL => "fatal",
        tracing::Level::ERROR => "error",
        tracing::Level::WARN => "warn",
        tracing::Level::INFO => "info",
        tracing::Level::DEBUG | tracing::Level::TRACE => "debug",
    }
}

/// Where an event comes from: the file with its folder, and the line.
struct Caller<'a>(&'a Metadata<'a>);

impl fmt::Display for Caller<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(file) = self.0.file() else { return f.write_str(self.0.target()) };
        let start = file.rmatch_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
        write!(f, "{}:{}", &file[start..], self.0.line().unwrap_or(0))
    }
}

/// The message, and the other fields as `,"key":value` each.
#[derive(Default)]
struct Fields {
    message: String,
    rest: String,
}

impl Fields {
    fn add(&mut self, field: &Field, json: &str) {
        let _ = write!(self.rest, ",{}:{json}", quoted(field.name()));
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.add(field, &quoted(&text));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.add(field, &quoted(value));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, &value.to_string());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, &value.to_string());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, &serde_json::Value::from(value).to_string());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, if value { "true" } else { "false" });
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, &quoted(&value.to_string()));
    }
}

#[cfg(test)]
mod tests;
