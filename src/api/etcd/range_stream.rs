//! `KV.RangeStream`: a range in chunks at one revision, each made when the client can take it (KV-S1 to S6).

use super::{Etcd, error};
use crate::engine::Permit;
use crate::engine::command::{Range, SortTarget};
use crate::engine::scan::{Budget, Scan};
use crate::pb::etcdserverpb::{RangeResponse, RangeStreamResponse, ResponseHeader};
use crate::pb::mvccpb::KeyValue;
use futures_util::Stream;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::Status;

/// Keys of the first chunk; later ones follow the size of what came before.
const FIRST_KEYS: usize = 10;
/// Bytes that a chunk aims at.
const CHUNK_BYTES: usize = 256 << 10;

/// The stream.
pub struct Chunks {
    etcd: Etcd,
    scan: Option<Scan>,
    header: ResponseHeader,
    keys_only: bool,
    permit: Permit,
    /// etcd sorts each chunk by a target that came without an order (KV-S1).
    target: SortTarget,
    keys: usize,
}

impl Chunks {
    pub(super) fn begin(etcd: Etcd, query: Range, permit: Permit) -> Result<Chunks, Status> {
        let current = etcd.engine.revision();
        let (keys_only, target) = (query.keys_only, query.sort.target);
        let (scan, _) = etcd.engine.scan(query).map_err(error::status)?;
        let header = etcd.header(current.max(scan.revision()));
        Ok(Chunks { etcd, scan: Some(scan), header, keys_only, permit, target, keys: FIRST_KEYS })
    }

    fn chunk(&mut self, mut scan: Scan) -> Result<RangeStreamResponse, Status> {
        if scan.revision() < self.etcd.engine.compacted() {
            return Err(error::Error::Compacted.into()); // KV-S3
        }
        let mut kvs = Vec::new();
        let budget = Budget { keys: self.keys, bytes: CHUNK_BYTES };
        let keys_only = self.keys_only;
        scan.step(budget, |snapshot, key, image| {
            let meta = image.meta();
            let value = if keys_only { Vec::new() } else { snapshot.value(image)?.into_owned() };
            let size = key.len() + value.len() + 32;
            kvs.push(KeyValue {
                key: key.to_vec(),
                create_revision: meta.create_revision,
                mod_revision: meta.modified.main,
                version: meta.version,
                value,
                lease: if keys_only { 0 } else { meta.lease },
            });
            Ok(size)
        })
        .map_err(|e| error::status(e.into()))?;
        self.etcd.engine.still_permits(&mut self.permit).map_err(error::status)?;
        self.keys = (self.keys * 2).min(10_000);
        match self.target {
            SortTarget::Key => {}
            SortTarget::Version => kvs.sort_by_key(|kv| kv.version),
            SortTarget::Create => kvs.sort_by_key(|kv| kv.create_revision),
            SortTarget::Mod => kvs.sort_by_key(|kv| kv.mod_revision),
            SortTarget::Value => kvs.sort_by(|a, b| a.value.cmp(&b.value)),
        }
        let mut response = RangeResponse { kvs, ..RangeResponse::default() };
        if scan.is_done() {
            response =
                RangeResponse { header: Some(self.header), more: scan.more, count: scan.count, ..response };
        } else {
            self.scan = Some(scan);
        }
        Ok(RangeStreamResponse { range_response: Some(response) })
    }
}

impl Stream for Chunks {
    type Item = Result<RangeStreamResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(scan) = self.scan.take() else { return Poll::Ready(None) };
        let chunk = self.chunk(scan);
        let is_empty =
            chunk.as_ref().is_ok_and(|c| c.range_response.as_ref().is_some_and(|r| r.kvs.is_empty()));
        if is_empty && self.scan.is_some() {
            // Nothing to send yet: let others run, then count on.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(chunk))
    }
}
