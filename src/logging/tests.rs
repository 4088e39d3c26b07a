//! What lines look like, and which are written.

use super::*;
use crate::config::log::{Output, Rotation};
use parking_lot::Mutex;
use std::io::Write;
use std::sync::Arc;

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(level: Level, format: Format, events: impl FnOnce()) -> Vec<String> {
    let buffer = Buffer::default();
    let writer = buffer.clone();
    let log = Log { level, format, ..Log::default() };
    tracing::subscriber::with_default(subscriber(&log, move || writer.clone()), events);
    let bytes = buffer.0.lock().clone();
    String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_json_line_is_flat_and_valid() {
    let lines = logged(Level::Info, Format::Json, || {
        let error = io::Error::other("no \"way\"");
        tracing::warn!(
            "local-member-id" = %"8e9e\n", count = 3_u64, ratio = f64::NAN, ok = true, minus = -1, error = &error as &dyn std::error::Error,
            "line one\nline \"two\""
        );
    });
    assert_eq!(lines.len(), 1);
    let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(line["level"], "warn");
    assert_eq!(line["msg"], "line one\nline \"two\"");
    assert_eq!(line["local-member-id"], "8e9e\n");
    assert_eq!((&line["count"], &line["ok"], &line["minus"]), (&3.into(), &true.into(), &(-1).into()));
    assert_eq!(line["ratio"], serde_json::Value::Null);
    assert_eq!(line["error"], "no \"way\"");
    assert!(line["caller"].as_str().unwrap().starts_with("logging/tests.rs:"));
    humantime::parse_rfc3339(line["ts"].as_str().unwrap()).unwrap();
    assert!(lines[0].starts_with(r#"{"level":"warn","ts":"#));
}

#[test]
fn a_console_line_has_columns() {
    let lines = logged(Level::Info, Format::Console, || {
        tracing::info!(a = 1, b = "x", "hello");
        tracing::info!("alone");
    });
    let columns: Vec<&str> = lines[0].split('\t').collect();
    assert_eq!((columns[1], columns[3], columns[4]), ("info", "hello", r#"{"a":1,"b":"x"}"#));
    assert_eq!(lines[1].split('\t').count(), 4);
}

#[test]
fn levels_decide_and_fatal_is_always_written() {
    let emit = || {
        tracing::debug!("d");
        tracing::info!("i");
        tracing::warn!("w");
        tracing::info!(target: "h2", "other");
        tracing::error!("e");
        tracing::error!(target: FATAL, "f");
    };
    for (level, count) in
        [(Level::Debug, 6), (Level::Info, 4), (Level::Warn, 3), (Level::Error, 2), (Level::Fatal, 1)]
    {
        let lines = logged(level, Format::Json, emit);
        assert_eq!(lines.len(), count, "{level:?}: {lines:?}");
        assert!(lines[count - 1].starts_with(r#"{"level":"fatal""#));
    }
}

#[test]
fn lines_go_to_every_output() {
    let temp = tempfile::tempdir().unwrap();
    let paths = [temp.path().join("a"), temp.path().join("b")];
    let journal = temp.path().join("journal");
    let socket = std::os::unix::net::UnixDatagram::bind(&journal).unwrap();
    let mut outputs: Vec<Output> = paths.iter().cloned().map(Output::File).collect();
    outputs.push(Output::Journal(journal));
    let log = Log { outputs, ..Log::default() };
    let write = || tracing::warn!("x\ny");
    tracing::subscriber::with_default(subscriber(&log, Sinks::open(&log).unwrap()), write);
    for path in &paths {
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 1);
    }
    let mut entry = [0; 4096];
    let length = socket.recv(&mut entry).unwrap();
    let head = b"PRIORITY=4\nSYSLOG_IDENTIFIER=kvist\nMESSAGE\n";
    let message = entry[..length].strip_prefix(head).unwrap();
    let (size, message) = message.split_at(8);
    assert_eq!(u64::from_le_bytes(size.try_into().unwrap()), message.len() as u64 - 1);
    let line: serde_json::Value = serde_json::from_slice(message).unwrap();
    assert_eq!(line["msg"], "x\ny");
    let log = Log { outputs: vec![Output::File(temp.path().join("none/x"))], ..Log::default() };
    let error = Sinks::open(&log).err().unwrap().to_string();
    assert!(error.starts_with("cannot open log file "), "{error}");
}

#[test]
fn a_log_file_rotates() {
    let temp = tempfile::tempdir().unwrap();
    let rotation = Some(Rotation { bytes_max: 100, age_max: None, backups_max: Some(1), compress: false });
    let log = Log { outputs: vec![Output::File(temp.path().join("a"))], rotation, ..Log::default() };
    let write =
        || (0..9).for_each(|n| tracing::info!(n, "a line of more than fifty bytes, with its time and place"));
    tracing::subscriber::with_default(subscriber(&log, Sinks::open(&log).unwrap()), write);
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 2);
}
