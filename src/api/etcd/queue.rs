//! The queue that locks and elections are made of: keys below one prefix, each with the lease of who waits, in the order of
//! their creation. The same keys as etcd's clients write, so that both kinds wait in one queue (E-1, E-3).
//!
//! Everything goes through the handlers of the other services with the metadata of the requester, so that what they check holds
//! here as well. Nothing polls: whoever waits watches the key before its own. Called by `lock` and `election`.

use super::{Etcd, convert, error};
use crate::engine::command::Kv as Pair;
use crate::engine::watch::{Delivery, Matched, Spec, Stream, WatcherKey};
use crate::engine::{Event, Image};
use crate::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::pb::etcdserverpb::kv_server::Kv;
use crate::pb::etcdserverpb::lease_server::Lease;
use crate::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::pb::etcdserverpb::request_op::Request as Op;
use crate::pb::etcdserverpb::response_op::Response as OpResponse;
use crate::pb::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader,
    TxnRequest, TxnResponse,
};
use crate::pb::mvccpb::KeyValue;
use crate::types::KeyRange;
use std::future::poll_fn;
use std::sync::Arc;
use tokio::runtime::Handle;
use tonic::metadata::MetadataMap;
use tonic::{Code, Extensions, Request, Status};

/// Seconds of the lease that is granted to those who bring none.
const SESSION_TTL_SECS: i64 = 60;

/// Who asked, and the services to call on their behalf.
#[derive(Clone)]
pub(super) struct Requester {
    etcd: Etcd,
    metadata: MetadataMap,
    extensions: Extensions,
}

impl Requester {
    /// Who sent a request, and what it asked.
    pub(super) fn of<T>(etcd: &Etcd, request: Request<T>) -> (Requester, T) {
        let (metadata, extensions, message) = request.into_parts();
        (Requester { etcd: etcd.clone(), metadata, extensions }, message)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        Request::from_parts(self.metadata.clone(), self.extensions.clone(), message)
    }

    pub(super) async fn txn(&self, txn: TxnRequest) -> Result<TxnResponse, Status> {
        let answer = Kv::txn(&self.etcd, self.request(txn)).await;
        answer.map(tonic::Response::into_inner).map_err(unknown)
    }

    /// Reads the first pair that is asked for.
    pub(super) async fn first(
        &self,
        range: RangeRequest,
    ) -> Result<(ResponseHeader, Option<KeyValue>), Status> {
        let read = TxnRequest { success: vec![op(Op::RequestRange(range))], ..TxnRequest::default() };
        let answer = self.txn(read).await?;
        let kv = pair(&answer, 0).cloned();
        Ok((answer.header.unwrap_or_default(), kv))
    }

    /// The lease to wait with: the one that was given, else a new one that nobody renews.
    pub(super) async fn session(&self, lease: i64) -> Result<i64, Status> {
        if lease != 0 {
            return Ok(lease);
        }
        let grant = self.request(LeaseGrantRequest { ttl: SESSION_TTL_SECS, id: 0 });
        Ok(Lease::lease_grant(&self.etcd, grant).await.map_err(unknown)?.into_inner().id)
    }

    /// Resolves when no key below `prefix` is left that was created at `created_max` or before.
    pub(super) async fn wait_deletes(&self, prefix: &[u8], created_max: i64) -> Result<(), Status> {
        loop {
            let newest = RangeRequest { max_create_revision: created_max, ..last_created(prefix) };
            let (header, Some(before)) = self.first(newest).await? else { return Ok(()) };
            let range = KeyRange::single(before.key.into());
            let mut deletes =
                self.follow(Spec { no_put: true, ..puts_and_deletes(range) }, header.revision)?;
            deletes.next().await?;
        }
    }

    /// Follows the changes of keys, from the revision `start` on, if the requester may read them.
    pub(super) fn follow(&self, spec: Spec, start: i64) -> Result<Follower, Status> {
        let caller = self.etcd.caller_from(self.metadata.as_ref(), &self.extensions).map_err(unknown)?;
        let permitted = self.etcd.engine.permit_range(caller.as_ref(), &spec.range);
        permitted.map_err(error::status).map_err(unknown)?;
        let hub = self.etcd.engine.hub();
        let stream = hub.stream();
        let key = hub.watch(&stream, 0, spec, start, false);
        Ok(Follower { etcd: self.etcd.clone(), stream, key })
    }

    /// A change to make if the one who waits gives up; see [`Withdrawal`].
    pub(super) fn withdrawal(&self, undo: TxnRequest) -> Withdrawal {
        Withdrawal { undo: Some((self.clone(), undo)), runtime: Handle::current() }
    }
}

/// Takes a waiter's key back: when told to, or when dropped because the client went away.
pub(super) struct Withdrawal {
    undo: Option<(Requester, TxnRequest)>,
    runtime: Handle,
}

impl Withdrawal {
    /// Takes the key back now. It goes with its lease if this fails.
    pub(super) async fn withdraw(mut self) {
        if let Some((requester, undo)) = self.undo.take() {
            take_back(requester, undo).await;
        }
    }

    /// Leaves the key.
    pub(super) fn forget(mut self) {
        self.undo = None;
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        if let Some((requester, undo)) = self.undo.take() {
            self.runtime.spawn(take_back(requester, undo));
        }
    }
}

async fn take_back(requester: Requester, undo: TxnRequest) {
    if let Err(error) = requester.txn(undo).await {
        tracing::warn!(%error, "could not remove the key of one who gave up waiting; its lease will");
    }
}

/// One watcher of the hub.
pub(super) struct Follower {
    etcd: Etcd,
    stream: Arc<Stream>,
    key: WatcherKey,
}

impl Follower {
    /// The next changes; `None` when some were compacted before they came, and nothing more will. An error: the server
    /// stops.
    pub(super) async fn next(&mut self) -> Result<Option<Arc<Matched>>, Status> {
        loop {
            let taken = poll_fn(|context| self.stream.poll_next(context)).await;
            if taken.has_room_again {
                self.etcd.engine.hub().has_room();
            }
            match taken.delivery {
                Delivery::Events { matched, .. } => return Ok(Some(matched)),
                Delivery::Compacted { .. } => return Ok(None),
                Delivery::Stopped => return Err(error::Error::Stopped.into()),
                Delivery::Created { .. } | Delivery::Progress { .. } | Delivery::Canceled { .. } => {}
            }
        }
    }

    /// The header of an answer made of changes.
    pub(super) fn header(&self, revision: i64) -> ResponseHeader {
        self.etcd.header(revision)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.etcd.engine.hub().close(&self.stream, std::iter::once(self.key));
    }
}

/// The pair that an event wrote; `None` for a delete.
pub(super) fn written(event: &Event) -> Option<KeyValue> {
    let is_put = Image::parse(&event.new).is_ok_and(|image| !image.is_tombstone());
    is_put.then(|| convert::kv(&Pair { key: event.key.clone(), image: event.new.clone() }))
}

/// A spec that wants every change of a range.
pub(super) fn puts_and_deletes(range: KeyRange) -> Spec {
    Spec { range, no_put: false, no_delete: false, prev_kv: false }
}

/// The prefix of a queue's keys.
pub(super) fn prefix_of(name: &[u8]) -> Vec<u8> {
    [name, b"/"].concat()
}

/// The key of a waiter. Leases below 0 have a minus sign, as Go prints them.
pub(super) fn key_of(prefix: &[u8], lease: i64) -> Vec<u8> {
    let sign = if lease < 0 { "-" } else { "" };
    [prefix, format!("{sign}{:x}", lease.unsigned_abs()).as_bytes()].concat()
}

/// First key after those that begin with a prefix that [`prefix_of`] made.
pub(super) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(slash) = end.last_mut() {
        *slash += 1;
    }
    end
}

/// The oldest key below a prefix: the owner's.
pub(super) fn first_created(prefix: &[u8]) -> RangeRequest {
    by_creation(prefix, SortOrder::Ascend)
}

fn last_created(prefix: &[u8]) -> RangeRequest {
    by_creation(prefix, SortOrder::Descend)
}

fn by_creation(prefix: &[u8], order: SortOrder) -> RangeRequest {
    RangeRequest {
        key: prefix.to_vec(),
        range_end: prefix_end(prefix),
        limit: 1,
        sort_order: order as i32,
        sort_target: SortTarget::Create as i32,
        ..RangeRequest::default()
    }
}

/// Holds if a key was created at `revision`; 0: if there is none.
pub(super) fn created_at(key: &[u8], revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Create as i32,
        key: key.to_vec(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
        range_end: Vec::new(),
    }
}

/// An operation of a transaction.
pub(super) fn op(request: Op) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// Writes a key with a lease.
pub(super) fn put(key: &[u8], value: Vec<u8>, lease: i64) -> RequestOp {
    op(Op::RequestPut(PutRequest { key: key.to_vec(), value, lease, ..PutRequest::default() }))
}

/// Reads a key.
pub(super) fn get(key: &[u8]) -> RangeRequest {
    RangeRequest { key: key.to_vec(), ..RangeRequest::default() }
}

/// Removes a key.
pub(super) fn delete(key: &[u8]) -> RequestOp {
    op(Op::RequestDeleteRange(DeleteRangeRequest { key: key.to_vec(), ..DeleteRangeRequest::default() }))
}

/// The pair that the read at place `at` of a transaction found.
pub(super) fn pair(answer: &TxnResponse, at: usize) -> Option<&KeyValue> {
    match &answer.responses.get(at)?.response {
        Some(OpResponse::ResponseRange(range)) => range.kvs.first(),
        _ => None,
    }
}

/// etcd's own words come with the code Unknown from these services, since they pass through the type of a client there
/// (E-4).
pub(super) fn unknown(status: Status) -> Status {
    if status.message().starts_with("etcdserver: ") {
        return Status::new(Code::Unknown, status.message());
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e_1_keys_are_those_of_gos_clients() {
        let key = |lease| String::from_utf8(key_of(&prefix_of(b"name"), lease)).unwrap();
        assert_eq!(key(0x694d_7fa6), "name/694d7fa6");
        assert_eq!(key(-31), "name/-1f");
        assert_eq!(key(i64::MIN), "name/-8000000000000000");
        assert_eq!(prefix_end(&prefix_of(b"")), b"0");
    }

    #[test]
    fn e_4_texts_stay_and_codes_become_unknown() {
        let status = unknown(error::Error::LeaseNotFound.into());
        assert_eq!(
            (status.code(), status.message()),
            (Code::Unknown, "etcdserver: requested lease not found")
        );
        assert_eq!(unknown(Status::cancelled("x")).code(), Code::Cancelled);
    }
}
