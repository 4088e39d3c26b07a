//! Answers to reads in key order without generated code: pairs are copied once, from the database's pages into the frame.
//! Used by the adapters of protocols whose answer to a read is one message of pairs.
//!
//! A small answer is one buffer. A large one is read twice: first to learn its length, which gRPC sends ahead, then in
//! pieces as the client takes them. So a slow client that reads a gigabyte holds no more than a piece of it in memory.

use super::etcd::error;
use super::grpc::body::{self, PREFIX, Pieces};
use super::waiter::{Waiter, Work};
use crate::engine::command::Range;
use crate::engine::scan::{Budget, Scan};
use crate::engine::{self, Engine, Image, Permit, Snapshot};
use crate::mvcc;
use bytes::Bytes;
use http::Response;
use tonic::Status;
use tonic::body::Body;

/// What is read on the connection's own thread before the rest goes to one that may block.
const INLINE: Budget = Budget { keys: 2000, bytes: 256 << 10 };
/// What is read between two looks at whether the client is still there.
const STEP: Budget = Budget { keys: 20_000, bytes: 1 << 20 };
/// Largest answer that is kept in memory.
const BUFFERED_BYTES_MAX: usize = 4 << 20;
/// Bytes of a piece of a larger answer.
const PIECE: Budget = Budget { keys: 10_000, bytes: 128 << 10 };

/// How a protocol writes such an answer. Fields of a message may come in any order: what is known last comes last.
pub trait Form: Clone + Send + Unpin + 'static {
    /// Length of a pair as an element of the message.
    fn pair_len(&self, key: &[u8], image: &Image<'_>) -> usize;

    /// Appends a pair as such, but for the bytes of its value.
    fn put_pair_head(&self, out: &mut Vec<u8>, key: &[u8], image: &Image<'_>);

    /// Whether the bytes of the value follow.
    fn has_values(&self) -> bool;

    /// Whether the answer tells of keys that the limit cuts off. If not, they are not looked at.
    fn tells_of_more(&self) -> bool;

    /// Appends everything but the pairs.
    fn put_tail(&self, out: &mut Vec<u8>, end: &End);
}

/// What is known at the end of a read.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// Revision of the member, not below the one that was read.
    pub revision: i64,
    /// Whether the limit cut something off.
    pub more: bool,
    /// Keys in the range, whatever the limit.
    pub count: i64,
}

/// An answer, and what is told of it.
pub struct Found {
    /// The answer.
    pub response: Response<Body>,
    /// Pairs in it.
    pub count: i64,
    /// Bytes of its message.
    pub bytes: usize,
}

/// Why there is no answer.
pub enum Failure {
    /// The read failed, or was not allowed.
    Engine(engine::Error),
    /// The answer can't be sent.
    Status(Status),
}

impl From<engine::Error> for Failure {
    fn from(error: engine::Error) -> Failure {
        Failure::Engine(error)
    }
}

impl From<mvcc::Error> for Failure {
    fn from(error: mvcc::Error) -> Failure {
        Failure::Engine(error.into())
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        Failure::Status(status)
    }
}

/// Reads at the state of this member.
pub async fn in_key_order<F: Form>(
    engine: &Engine,
    query: Range,
    mut permit: Permit,
    form: F,
) -> Result<Found, Failure> {
    let revision = engine.revision();
    let (scan, snapshot) = engine.scan(query)?;
    let revision = revision.max(scan.revision());
    let scan = if form.tells_of_more() { scan } else { scan.without_more() };
    let mut reading = Reading { scan, form, revision, out: vec![0; PREFIX] };
    let Reading { scan, form, out, .. } = &mut reading;
    scan.step_in(&snapshot, INLINE, |s, key, image| emit(form, s, key, image, out))?;
    drop(snapshot);
    // What comes later is of the same revision, which has been reached.
    engine.still_permits(&mut permit)?;
    if reading.scan.is_done() {
        return reading.finish();
    }
    let (_waiter, work) = Waiter::new();
    let rest = tokio::task::spawn_blocking(move || reading.rest(&work)).await;
    rest.map_err(|_| engine::Error::Stopped)?
}

/// An answer that is being made.
struct Reading<F> {
    scan: Scan,
    form: F,
    revision: i64,
    /// Room for the prefix, and the pairs so far.
    out: Vec<u8>,
}

impl<F: Form> Reading<F> {
    /// Reads on until the answer is complete or too large to keep.
    fn rest(mut self, work: &Work) -> Result<Found, Failure> {
        let Reading { scan, form, out, .. } = &mut self;
        while !scan.is_done() && out.len() <= BUFFERED_BYTES_MAX {
            work.is_wanted()?;
            scan.step(STEP, |s, key, image| emit(form, s, key, image, out))?;
        }
        if scan.is_done() { self.finish() } else { self.stream(work) }
    }

    fn finish(mut self) -> Result<Found, Failure> {
        let end = self.end();
        self.form.put_tail(&mut self.out, &end);
        whole(self.out, self.scan.emitted())
    }

    /// The client gets what we have, then a second reader's pieces, while this one only measures the rest.
    fn stream(mut self, work: &Work) -> Result<Found, Failure> {
        let reader = self.scan.clone();
        let mut len = self.out.len() as u64 - PREFIX as u64;
        while !self.scan.is_done() {
            work.is_wanted()?;
            self.scan.step(Budget { bytes: usize::MAX, ..STEP }, |_, key, image| {
                len += self.form.pair_len(key, image) as u64;
                Ok(0)
            })?;
        }
        let mut tail = Vec::new();
        self.form.put_tail(&mut tail, &self.end());
        len += tail.len() as u64;
        self.out[..PREFIX].copy_from_slice(&body::prefix(len)?);
        let count = self.scan.emitted();
        let pieces = Streamed { first: Some(self.out), reader, tail: Some(tail), form: self.form };
        Ok(Found { response: body::response(pieces), count, bytes: len as usize })
    }

    fn end(&self) -> End {
        End { revision: self.revision, more: self.scan.more, count: self.scan.count }
    }
}

fn emit<F: Form>(
    form: &F,
    snapshot: &Snapshot,
    key: &[u8],
    image: &Image<'_>,
    out: &mut Vec<u8>,
) -> mvcc::Result<usize> {
    let before = out.len();
    form.put_pair_head(out, key, image);
    if form.has_values() {
        snapshot.append_value(image, out)?;
    }
    Ok(out.len() - before)
}

/// An answer of `count` pairs that is there already, behind room for its prefix.
pub fn whole(mut out: Vec<u8>, count: i64) -> Result<Found, Failure> {
    let bytes = out.len() - PREFIX;
    out[..PREFIX].copy_from_slice(&body::prefix(bytes as u64)?);
    Ok(Found { response: body::response(Whole(Some(out.into()))), count, bytes })
}

/// A message that is there already.
struct Whole(Option<Bytes>);

impl Pieces for Whole {
    fn next(&mut self) -> Option<Result<Bytes, Status>> {
        self.0.take().map(Ok)
    }
}

/// A message that is read as it is sent.
struct Streamed<F> {
    first: Option<Vec<u8>>,
    reader: Scan,
    tail: Option<Vec<u8>>,
    form: F,
}

impl<F: Form> Pieces for Streamed<F> {
    fn next(&mut self) -> Option<Result<Bytes, Status>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first.into()));
        }
        while !self.reader.is_done() && !self.reader.is_only_counting() {
            let mut out = Vec::with_capacity(PIECE.bytes + PIECE.bytes / 8);
            let form = &self.form;
            if let Err(error) = self.reader.step(PIECE, |s, key, image| emit(form, s, key, image, &mut out)) {
                return Some(Err(error::status(error.into())));
            }
            if !out.is_empty() {
                return Some(Ok(out.into()));
            }
        }
        self.tail.take().map(|tail| Ok(tail.into()))
    }
}
