//! `KV.Range` without generated code: pairs are copied once, from the database's pages into the frame.
//!
//! A small answer is one buffer. A large one is read twice: first to learn its length, which gRPC sends ahead, then in
//! pieces as the client takes them. So a slow client that reads a gigabyte holds no more than a piece of it in memory.

use super::{Etcd, check, convert, error};
use crate::api::caller::Credentials;
use crate::api::grpc::body::{self, PREFIX, Pieces};
use crate::engine::command::{Range, SortTarget};
use crate::engine::scan::{Budget, Scan};
use crate::engine::timing::What;
use crate::engine::{self, Image, Permit, Snapshot};
use crate::pb::etcdserverpb::{RangeRequest, RangeResponse, ResponseHeader};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use prost::Message;
use std::convert::Infallible;
use tonic::Status;
use tonic::body::Body;

use super::wire::{put_range_kv_head, range_kv_len};

/// What is read on the connection's own thread before the rest goes to one that may block.
const INLINE: Budget = Budget { keys: 2000, bytes: 256 << 10 };
/// What is read between two looks at whether the client is still there.
const STEP: Budget = Budget { keys: 20_000, bytes: 1 << 20 };
/// Largest answer that is kept in memory.
const BUFFERED_BYTES_MAX: usize = 4 << 20;
/// Bytes of a piece of a larger answer.
const PIECE: Budget = Budget { keys: 10_000, bytes: 128 << 10 };

/// Serves one call.
pub async fn serve<B>(etcd: Etcd, request: Request<B>) -> Result<Response<Body>, Infallible>
where
    B: HttpBody<Data = Bytes, Error = Status>,
{
    Ok(range(etcd, request).await.unwrap_or_else(Status::into_http))
}

async fn range<B>(etcd: Etcd, request: Request<B>) -> Result<Response<Body>, Status>
where
    B: HttpBody<Data = Bytes, Error = Status>,
{
    etcd.check_metadata(request.headers())?;
    let credentials = Credentials::of(request.headers(), request.extensions());
    let request: RangeRequest = body::read_unary(request).await?;
    check::range(&request)?;
    if !request.serializable {
        if etcd.engine.is_learner() {
            return Err(error::Error::NotForLearner.into());
        }
        etcd.engine.read_index().await.map_err(error::status)?;
    }
    let query = convert::range(request);
    let caller = etcd.caller_with(&credentials)?;
    let permit = etcd.engine.permit_range(caller.as_ref(), &query.range).map_err(error::status)?;
    let reading = etcd.engine.begin_read(What::Range(query.clone()));
    let found = if Scan::can(&query) {
        in_key_order(&etcd, query, permit).await
    } else {
        sorted(&etcd, query, permit).await
    };
    reading.end(found.as_ref().ok().map(|found| (found.count, Some(found.bytes))));
    found.map(|found| found.response)
}

/// An answer, and what is told of it.
struct Found {
    response: Response<Body>,
    count: i64,
    bytes: usize,
}

async fn sorted(etcd: &Etcd, query: Range, mut permit: Permit) -> Result<Found, Status> {
    let keys_only = query.keys_only;
    let keeps_lease = query.sort.target == SortTarget::Value;
    let (revision, found) = etcd.engine.range(query).await.map_err(error::status)?;
    etcd.engine.still_permits(&mut permit).map_err(error::status)?;
    let mut out = vec![0; PREFIX];
    for kv in &found.kvs {
        let image = Image::parse(&kv.image).map_err(|e| Status::internal(e.to_string()))?;
        put_range_kv_head(&mut out, &kv.key, &image, keys_only && !keeps_lease);
        if let engine::Value::Inline(value) = image.value {
            out.extend_from_slice(value);
        }
    }
    put_tail(&mut out, etcd.header(revision), found.more, found.count);
    finish(out, found.kvs.len() as i64)
}

async fn in_key_order(etcd: &Etcd, query: Range, mut permit: Permit) -> Result<Found, Status> {
    let keys_only = query.keys_only;
    let revision = etcd.engine.revision();
    let (mut scan, snapshot) = etcd.engine.scan(query).map_err(error::status)?;
    let revision = revision.max(scan.revision());
    let mut out = vec![0; PREFIX];
    scan.step_in(&snapshot, INLINE, |s, key, image| emit(s, key, image, keys_only, &mut out))
        .map_err(|e| error::status(e.into()))?;
    drop(snapshot);
    // What comes later is of the same revision, which has been reached.
    etcd.engine.still_permits(&mut permit).map_err(error::status)?;
    let header = etcd.header(revision);
    if scan.is_done() {
        put_tail(&mut out, header, scan.more, scan.count);
        return finish(out, scan.emitted());
    }
    let work = move || rest(scan, out, header, keys_only);
    tokio::task::spawn_blocking(work).await.map_err(|_| error::Error::Stopped)?
}

/// Reads on until the answer is complete or too large to keep.
fn rest(mut scan: Scan, mut out: Vec<u8>, header: ResponseHeader, keys_only: bool) -> Result<Found, Status> {
    let fail = |e: crate::mvcc::Error| error::status(e.into());
    while !scan.is_done() && out.len() <= BUFFERED_BYTES_MAX {
        scan.step(STEP, |s, key, image| emit(s, key, image, keys_only, &mut out)).map_err(fail)?;
    }
    if scan.is_done() {
        put_tail(&mut out, header, scan.more, scan.count);
        return finish(out, scan.emitted());
    }
    // The client gets what we have, then a second reader's pieces, while this one only measures the rest.
    let reader = scan.clone();
    let mut len = out.len() as u64 - PREFIX as u64;
    while !scan.is_done() {
        scan.step(Budget { bytes: usize::MAX, ..STEP }, |_, key, image| {
            len += range_kv_len(key, image, keys_only) as u64;
            Ok(0)
        })
        .map_err(fail)?;
    }
    let mut tail = Vec::new();
    put_tail(&mut tail, header, scan.more, scan.count);
    len += tail.len() as u64;
    out[..PREFIX].copy_from_slice(&body::prefix(len)?);
    let pieces = Streamed { first: Some(out), reader, tail: Some(tail), keys_only };
    Ok(Found { response: body::response(pieces), count: scan.emitted(), bytes: len as usize })
}

fn emit(
    snapshot: &Snapshot,
    key: &[u8],
    image: &Image<'_>,
    keys_only: bool,
    out: &mut Vec<u8>,
) -> crate::mvcc::Result<usize> {
    let before = out.len();
    put_range_kv_head(out, key, image, keys_only);
    if !keys_only {
        snapshot.append_value(image, out)?;
    }
    Ok(out.len() - before)
}

/// Header, `more` and `count`: fields of a message may come in any order, and these are known last.
fn put_tail(out: &mut Vec<u8>, header: ResponseHeader, more: bool, count: i64) {
    let tail = RangeResponse { header: Some(header), kvs: Vec::new(), more, count };
    tail.encode(out).expect("a vector grows");
}

fn finish(mut out: Vec<u8>, count: i64) -> Result<Found, Status> {
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
struct Streamed {
    first: Option<Vec<u8>>,
    reader: Scan,
    tail: Option<Vec<u8>>,
    keys_only: bool,
}

impl Pieces for Streamed {
    fn next(&mut self) -> Option<Result<Bytes, Status>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first.into()));
        }
        while !self.reader.is_done() && !self.reader.is_only_counting() {
            let mut out = Vec::with_capacity(PIECE.bytes + PIECE.bytes / 8);
            let keys_only = self.keys_only;
            if let Err(error) =
                self.reader.step(PIECE, |s, key, image| emit(s, key, image, keys_only, &mut out))
            {
                return Some(Err(error::status(error.into())));
            }
            if !out.is_empty() {
                return Some(Ok(out.into()));
            }
        }
        self.tail.take().map(|tail| Ok(tail.into()))
    }
}
