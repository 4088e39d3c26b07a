//! The Watch service: requests into the hub, deliveries out, events encoded once for all watchers of a group.

use super::watch_frame::{self, Frame};
use super::{Etcd, error};
use crate::api::caller::Credentials;
use crate::api::grpc::body;
use crate::api::grpc::gathered::Gathered;
use crate::api::quiet::Quiet;
use crate::engine::watch::{Delivery, Matched, Spec, Stream as HubStream, WatcherKey};
use crate::pb::etcdserverpb::watch_create_request::FilterType;
use crate::pb::etcdserverpb::watch_request::RequestUnion;
use crate::pb::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use crate::types::KeyRange;
use crate::{auth, engine};
use bytes::Bytes;
use futures_util::Stream;
use http::{Request, Response};
use http_body::Body as HttpBody;
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tonic::body::Body;
use tonic::codec::Codec;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

/// Extra encoded bytes that a response may have over the request limit before it is split (W-15).
const FRAGMENT_OVERHEAD: usize = 512 << 10;

/// Bytes of responses that one poll gathers into a frame.
const GATHERED_BYTES: usize = 16 << 10;
/// Events of up to so many bytes are kept as a whole message, too, for the streams that can share it.
const SHARED_BYTES: usize = 64 << 10;

/// Serves one call.
pub fn serve<B>(etcd: Etcd, request: Request<B>) -> Response<Body>
where
    B: HttpBody<Data = Bytes, Error = Status> + Send + 'static,
{
    if let Err(status) = etcd.check_metadata(request.headers()) {
        return status.into_http();
    }
    let credentials = Credentials::of(request.headers(), request.extensions());
    let leader_lost = etcd.leader_lost(request.headers());
    let decoder = ProstCodec::<WatchResponse, WatchRequest>::default().decoder();
    let requests = Streaming::new_request(decoder, request.into_body(), None, Some(usize::MAX));
    let mut stream = WatchStream::new(etcd, credentials, requests);
    if let Some(lost) = leader_lost {
        stream.leader_lost = Some(Box::pin(lost));
    }
    body::streamed(WatchBody { stream, is_done: false })
}

/// The response's body: messages as the hub delivers them, several to a frame when they are there.
struct WatchBody {
    stream: WatchStream,
    is_done: bool,
}

impl HttpBody for WatchBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.is_done {
            return Poll::Ready(None);
        }
        let mut gathered = Gathered::default();
        while gathered.len() < GATHERED_BYTES {
            let result = match this.stream.poll_frame(context) {
                Poll::Ready(Ok(frame)) => frame.add_to(&mut gathered),
                Poll::Ready(Err(status)) => Err(status),
                Poll::Pending => break,
            };
            if let Err(status) = result {
                this.is_done = true;
                return Poll::Ready(Some(Ok(http_body::Frame::trailers(body::trailers(&status)))));
            }
            if this.stream.is_drained {
                break; // whoever got this asks again at once, and only then has to be woken
            }
        }
        if gathered.is_empty() {
            return Poll::Pending;
        }
        Poll::Ready(Some(Ok(http_body::Frame::data(gathered.into_bytes()))))
    }
}

struct Watcher {
    key: WatcherKey,
    fragment: bool,
    prev_kv: bool,
}

/// One client's stream: takes its requests in order, and hands out what the hub delivers.
struct WatchStream {
    etcd: Etcd,
    credentials: Credentials,
    requests: Quiet<Streaming<WatchRequest>>,
    requests_ended: bool,
    /// Nothing was waiting behind the last response.
    is_drained: bool,
    hub_stream: Arc<HubStream>,
    watchers: HashMap<i64, Watcher>,
    /// Watchers that a compaction ended. Their ids stay taken until the client cancels them, as in etcd.
    compacted: HashSet<i64>,
    next_id: i64,
    /// Parts of a response that was split, in reverse order, and answers that no hub need know of.
    pending: Vec<Frame>,
    /// Whether a watcher ever asked for progress in quiet times.
    wants_progress: bool,
    progress: Pin<Box<tokio::time::Sleep>>,
    progress_interval: Duration,
    /// Resolves when the server stops; polled while there are no watchers.
    stopped: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Resolves when there has been no leader for a while; for a client that requires one.
    leader_lost: Option<Pin<Box<dyn Future<Output = Status> + Send>>>,
}

impl WatchStream {
    fn new(etcd: Etcd, credentials: Credentials, requests: Streaming<WatchRequest>) -> WatchStream {
        // A tenth of jitter, fixed for the stream, so that not all streams tick together (W-16).
        let jitter = rand::random_range(0.0..0.1);
        let progress_interval = etcd.progress_interval.mul_f64(1.0 + jitter);
        WatchStream {
            hub_stream: etcd.engine.hub().stream(),
            requests: Quiet::new(requests),
            requests_ended: false,
            is_drained: false,
            watchers: HashMap::new(),
            compacted: HashSet::new(),
            next_id: 0,
            pending: Vec::new(),
            wants_progress: false,
            progress: Box::pin(tokio::time::sleep(progress_interval)),
            progress_interval,
            stopped: {
                let shutdown = etcd.shutdown.clone();
                Box::pin(async move { shutdown.requested().await })
            },
            leader_lost: None,
            etcd,
            credentials,
        }
    }

    fn take(&mut self, request: WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create),
            Some(RequestUnion::CancelRequest(cancel)) => {
                // Unknown ids get no answer (W-8).
                if let Some(watcher) = self.watchers.remove(&cancel.watch_id) {
                    self.etcd.engine.hub().cancel(watcher.key);
                } else if self.compacted.remove(&cancel.watch_id) {
                    let head = self.head(self.etcd.engine.revision());
                    self.answer(WatchResponse { watch_id: cancel.watch_id, canceled: true, ..head });
                }
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                let keys = self.watchers.values().map(|w| w.key);
                self.etcd.engine.hub().progress(&self.hub_stream, keys);
            }
            None => {} // W-21
        }
    }

    fn create(&mut self, request: WatchCreateRequest) {
        let key = if request.key.is_empty() { vec![0] } else { request.key }; // M-7
        let range = KeyRange::from_wire(key.into(), request.range_end.into());
        if request.start_revision < 0 {
            return self.refuse(error::Error::Compacted.message().into());
        }
        if let Err(reason) = self.check_permission(&range) {
            return self.refuse(reason);
        }
        if range.is_empty() {
            return self.refuse("mvcc: watcher range is empty".into());
        }
        let id = match request.watch_id {
            0 => self.free_id(),
            id if self.is_taken(id) => {
                return self.refuse("mvcc: duplicate watch ID provided on the WatchStream".into());
            }
            id => id,
        };
        let has = |filter: FilterType| request.filters.contains(&(filter as i32));
        let spec = Spec {
            range,
            no_put: has(FilterType::Noput),
            no_delete: has(FilterType::Nodelete),
            prev_kv: request.prev_kv,
        };
        self.wants_progress |= request.progress_notify;
        let hub = self.etcd.engine.hub();
        let key = hub.watch(&self.hub_stream, id, spec, request.start_revision, request.progress_notify);
        self.watchers.insert(id, Watcher { key, fragment: request.fragment, prev_kv: request.prev_kv });
    }

    /// Whether the client may watch these keys; asked once, when a watcher is made (W-7). The reason is a status as Go
    /// shows it.
    fn check_permission(&self, range: &KeyRange) -> Result<(), String> {
        let caller = match self.etcd.caller_with(&self.credentials) {
            Ok(caller) => caller,
            Err(_) => return Err(error::Error::InvalidAuthToken.go_text()),
        };
        match self.etcd.engine.permit_range(caller.as_ref(), range) {
            Ok(_) => Ok(()),
            Err(engine::Error::Auth(auth::Error::UserEmpty)) => Err(error::Error::UserEmpty.go_text()),
            Err(engine::Error::Auth(auth::Error::OldRevision)) => {
                Err(error::Error::AuthOldRevision.go_text())
            }
            Err(_) => Err(error::Error::PermissionDenied.go_text()),
        }
    }

    fn is_taken(&self, id: i64) -> bool {
        self.watchers.contains_key(&id) || self.compacted.contains(&id)
    }

    fn free_id(&mut self) -> i64 {
        while self.is_taken(self.next_id) {
            self.next_id += 1;
        }
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// A watcher that never was: created and canceled in one answer.
    fn refuse(&mut self, cancel_reason: String) {
        let revision = self.etcd.engine.revision();
        let head = WatchResponse {
            watch_id: -1,
            created: true,
            canceled: true,
            cancel_reason,
            ..self.head(revision)
        };
        self.answer(head);
    }

    /// Sends an answer that the hub need not know of.
    fn answer(&mut self, head: WatchResponse) {
        self.pending.insert(0, Frame::Parts(head, Bytes::new()));
    }

    fn head(&self, revision: i64) -> WatchResponse {
        WatchResponse { header: Some(self.etcd.header(revision)), ..WatchResponse::default() }
    }

    /// The response that a delivery makes, if any.
    fn frame(&mut self, delivery: Delivery) -> Result<Option<Frame>, Status> {
        let head = match delivery {
            Delivery::Created { id, revision } => {
                WatchResponse { watch_id: id, created: true, ..self.head(revision) }
            }
            Delivery::Canceled { id, revision } => {
                WatchResponse { watch_id: id, canceled: true, ..self.head(revision) }
            }
            Delivery::Progress { id, revision } => WatchResponse { watch_id: id, ..self.head(revision) },
            Delivery::Compacted { id, compacted } => {
                self.watchers.remove(&id);
                self.compacted.insert(id);
                WatchResponse { watch_id: id, canceled: true, compact_revision: compacted, ..self.head(0) }
            }
            Delivery::Events { id, matched } => return Ok(self.events(id, &matched)),
            Delivery::Stopped => return Err(error::Error::Stopped.into()),
        };
        Ok(Some(Frame::Parts(head, Bytes::new())))
    }

    /// The response with the events, or its first part; the other parts wait in `pending`.
    fn events(&mut self, id: i64, matched: &Matched) -> Option<Frame> {
        let watcher = self.watchers.get(&id)?; // canceled meanwhile
        let engine = &self.etcd.engine;
        let (bytes, ends) = matched.encoded(|events| {
            let load = |image: &Bytes| engine.with_inline_value(image);
            super::wire::events(events, watcher.prev_kv, engine.compacted(), load)
        });
        let head = || WatchResponse { watch_id: id, ..self.head(matched.revision) };
        let limit = self.etcd.request_bytes_max + FRAGMENT_OVERHEAD;
        if watcher.fragment && bytes.len() >= limit && ends.len() > 1 {
            self.pending = watch_frame::split(&head(), bytes, ends, limit);
            return self.pending.pop();
        }
        let make = || watch_frame::message(&head(), bytes).expect("far below the longest message");
        let shared = if bytes.len() <= SHARED_BYTES { matched.message(id, make) } else { None };
        Some(shared.map_or_else(|| Frame::Parts(head(), bytes.clone()), |whole| Frame::Whole(whole.clone())))
    }
}

impl WatchStream {
    /// The next response; an error ends the stream.
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Result<Frame, Status>> {
        loop {
            self.is_drained = false;
            if let Some(frame) = self.pending.pop() {
                return Poll::Ready(Ok(frame));
            }
            if let Poll::Ready(taken) = self.hub_stream.poll_next(context) {
                if taken.has_room_again {
                    self.etcd.engine.hub().has_room();
                }
                match self.frame(taken.delivery).transpose() {
                    Some(frame) => {
                        self.is_drained = taken.is_last && self.pending.is_empty();
                        return Poll::Ready(frame);
                    }
                    None => continue,
                }
            }
            // A stream with watchers hears of the stop from the hub, which is cheaper.
            if self.watchers.is_empty() && self.stopped.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(error::Error::Stopped.into()));
            }
            if let Some(lost) = &mut self.leader_lost
                && let Poll::Ready(status) = lost.as_mut().poll(context)
            {
                return Poll::Ready(Err(status));
            }
            if self.wants_progress && self.progress.as_mut().poll(context).is_ready() {
                self.progress.as_mut().reset(tokio::time::Instant::now() + self.progress_interval);
                let keys = self.watchers.values().map(|w| w.key);
                self.etcd.engine.hub().progress_tick(&self.hub_stream, keys);
                continue;
            }
            if self.requests_ended {
                return Poll::Pending; // the client may half-close and go on listening
            }
            ready!(self.hub_stream.poll_control(context));
            match ready!(Pin::new(&mut self.requests).poll_next(context)) {
                Some(Ok(request)) => self.take(request),
                Some(Err(status)) => return Poll::Ready(Err(status)),
                None => self.requests_ended = true,
            }
        }
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        let keys = self.watchers.values().map(|w| w.key);
        self.etcd.engine.hub().close(&self.hub_stream, keys);
    }
}
