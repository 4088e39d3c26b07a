//! What lines look like, and which are written.

use super::*;
use parking_lot::Mutex;
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
fn lines_go_to_every_file() {
    let temp = tempfile::tempdir().unwrap();
    let paths = [temp.path().join("a"), temp.path().join("b")];
    let sinks = paths.iter().map(|path| Sink::open(&Output::File(path.clone())).unwrap()).collect();
    tracing::subscriber::with_default(subscriber(&Log::default(), Sinks(sinks)), || tracing::info!("x"));
    for path in &paths {
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 1);
    }
    let error = Sink::open(&Output::File(temp.path().join("none/x"))).unwrap_err().to_string();
    assert!(error.starts_with("cannot open log file "), "{error}");
}
