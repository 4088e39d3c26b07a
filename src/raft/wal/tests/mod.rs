//! Tests of the log from outside, and what they share.
#![expect(clippy::disallowed_methods, reason = "answers are few, and a test holds them all")]

mod basics;
mod damage;
mod model;
mod power;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::mpsc;

use super::{Batch, Durability, LogId, Options, Recovered, Wal};

const SMALL: u64 = 64 << 10;

fn id(term: u64, index: u64) -> LogId {
    LogId { term, index }
}

fn options(dir: &Path) -> Options {
    Options { segment_bytes: SMALL, ..Options::new(dir) }
}

fn open(dir: &Path) -> (Wal, Recovered) {
    Wal::open(options(dir)).expect("open")
}

/// Appends and waits for the answer.
fn append(wal: &Wal, batch: Batch, durability: Durability) -> io::Result<()> {
    let (done, answer) = mpsc::channel();
    wal.append(batch, durability, Box::new(move |result| done.send(result).expect("the test waits")));
    answer.recv().expect("an answer")
}

fn synced(wal: &Wal, fill: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::new();
    fill(&mut batch);
    append(wal, batch, Durability::Sync).expect("append");
}

/// A payload that names its entry.
fn payload(log_id: LogId, len: usize) -> Vec<u8> {
    let mut bytes = format!("{log_id} ").into_bytes();
    bytes.resize(len.max(bytes.len()), (log_id.index % 251) as u8);
    bytes
}

fn put(batch: &mut Batch, log_id: LogId, len: usize) {
    batch.entry(log_id, |buf| buf.extend_from_slice(&payload(log_id, len)));
}

/// One synced group of entries for each index.
fn fill(wal: &Wal, indexes: std::ops::Range<u64>, len: usize) {
    for index in indexes {
        synced(wal, |batch| put(batch, id(1, index), len));
    }
}

fn all(wal: &Wal, from: u64) -> Vec<(LogId, Vec<u8>)> {
    let mut entries = Vec::new();
    wal.scan(from, |log_id, bytes| entries.push((log_id, bytes.to_vec()))).expect("scan");
    entries
}

fn files(dir: &Path, extension: &str) -> Vec<std::path::PathBuf> {
    let paths = fs::read_dir(dir).expect("read_dir").map(|entry| entry.expect("entry").path());
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    paths.sort();
    paths
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("create_dir");
    for entry in fs::read_dir(from).expect("read_dir") {
        let path = entry.expect("entry").path();
        fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copy");
    }
}
