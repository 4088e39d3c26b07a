//! `WatchRange`: requests into the hub, deliveries out, events encoded once for all watchers of a group.
//!
//! A message holds what one index changed, all of it. Watches have no ids here: nothing in a message tells one from another,
//! so it is the same for all who watch the same keys. Each ends by itself, at its end or because its history is gone; what a
//! watch is refused for is told in a header, and the stream goes on.

use super::error::{Error, Fault};
use super::{PROTOCOL, Rfc, convert, wire};
use crate::api::caller::Credentials;
use crate::api::etcd::error as etcd;
use crate::api::grpc::body;
use crate::api::grpc::gathered::Gathered;
use crate::api::quiet::Quiet;
use crate::engine::watch::{Course, Delivery, Matched, Spec, Stream as HubStream, WatcherKey};
use crate::pb::rfc::{ResponseHeader, WatchRangeRequest, WatchRangeResponse};
use bytes::Bytes;
use futures_util::Stream;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame};
use prost::Message;
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tonic::body::Body;
use tonic::codec::Codec;
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;

/// Bytes of messages that one poll gathers into a frame.
const GATHERED_BYTES: usize = 16 << 10;

/// Serves one call.
pub fn serve(rfc: Rfc, request: Request<Body>) -> Response<Body> {
    let credentials = Credentials::of(request.headers(), request.extensions());
    let decoder = ProstCodec::<WatchRangeResponse, WatchRangeRequest>::default().decoder();
    let requests = Streaming::new_request(decoder, request.into_body(), None, Some(usize::MAX));
    body::streamed(WatchBody { stream: WatchStream::new(rfc, credentials, requests), is_done: false })
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
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.is_done {
            return Poll::Ready(None);
        }
        let mut gathered = Gathered::default();
        while gathered.len() < GATHERED_BYTES {
            match this.stream.poll_messages(context) {
                Poll::Ready(Ok(messages)) => gathered.add(messages),
                // What was gathered goes first; the end is found again.
                Poll::Ready(Err(_)) if !gathered.is_empty() => break,
                Poll::Ready(Err(status)) => {
                    this.is_done = true;
                    return Poll::Ready(Some(Ok(Frame::trailers(body::trailers(&status)))));
                }
                Poll::Pending => break,
            }
            if this.stream.is_drained {
                break; // whoever got this asks again at once, and only then has to be woken
            }
        }
        if gathered.is_empty() {
            return Poll::Pending;
        }
        Poll::Ready(Some(Ok(Frame::data(gathered.into_bytes()))))
    }
}

/// A watch that is under way.
struct Watch {
    key: WatcherKey,
    /// Whether it is told how far it is.
    tells_progress: bool,
    /// Whether it was to see anything at all.
    is_empty: bool,
}

/// One client's stream: takes its requests in order, and hands out what the hub delivers.
struct WatchStream {
    rfc: Rfc,
    credentials: Credentials,
    requests: Quiet<Streaming<WatchRangeRequest>>,
    requests_ended: bool,
    /// Nothing was waiting behind the last message.
    is_drained: bool,
    hub_stream: Arc<HubStream>,
    /// By the ids that the hub knows them by, and nobody else.
    watches: HashMap<i64, Watch>,
    last_id: i64,
    /// Messages that the hub need not know of.
    pending: VecDeque<Bytes>,
    /// How it ended.
    end: Option<Status>,
    /// Whether a watch ever asked for progress.
    wants_progress: bool,
    progress: Pin<Box<tokio::time::Sleep>>,
    progress_interval: Duration,
    /// Resolves when the server stops; polled while there are no watches.
    stopped: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl WatchStream {
    fn new(rfc: Rfc, credentials: Credentials, requests: Streaming<WatchRangeRequest>) -> WatchStream {
        // A tenth of jitter, fixed for the stream, so that not all streams tick together.
        let jitter = rand::random_range(0.0..0.1);
        let progress_interval = rfc.progress_interval.mul_f64(1.0 + jitter);
        let shutdown = rfc.shutdown.clone();
        WatchStream {
            hub_stream: rfc.engine.hub().stream(),
            requests: Quiet::new(requests),
            requests_ended: false,
            is_drained: false,
            watches: HashMap::new(),
            last_id: 0,
            pending: VecDeque::new(),
            end: None,
            wants_progress: false,
            progress: Box::pin(tokio::time::sleep(progress_interval)),
            progress_interval,
            stopped: Box::pin(async move { shutdown.requested().await }),
            rfc,
            credentials,
        }
    }

    /// Opens a watch, or tells why not.
    fn take(&mut self, request: WatchRangeRequest) {
        if let Err(fault) = self.open(request) {
            // The refusal for what was compacted tells what was.
            let index = match fault {
                Fault::Refused(Error::Compacted) => self.rfc.engine.compacted(),
                Fault::Refused(_) | Fault::Status(_) => self.rfc.engine.revision(),
            };
            self.tell(self.rfc.header_of_error(fault.message(), index));
        }
    }

    fn open(&mut self, request: WatchRangeRequest) -> Result<(), Fault> {
        let range = convert::keys(request.key, request.range_end)?;
        let caller = self.credentials.caller(&self.rfc.engine)?;
        self.rfc.engine.permit_range(caller.as_ref(), &range)?;
        let start = request.start_index.unwrap_or(0).max(0);
        let end = request.end_index.unwrap_or(0).max(0);
        // What a compaction leaves of its own index is not all that happened at it.
        if start > 0 && start <= self.rfc.engine.compacted() {
            return Err(Error::Compacted.into());
        }
        let tells_progress = request.progress_notification.unwrap_or(false);
        self.wants_progress |= tells_progress;
        self.last_id += 1;
        let spec = Spec { range, no_put: false, no_delete: false, prev_kv: true };
        let course = Course { start, end, progress_notify: tells_progress, tells_caught_up: tells_progress };
        let key = self.rfc.engine.hub().watch_along(&self.hub_stream, self.last_id, spec, course);
        let is_empty = end > 0 && end <= start;
        self.watches.insert(self.last_id, Watch { key, tells_progress, is_empty });
        Ok(())
    }

    /// Queues a message without events.
    fn tell(&mut self, header: ResponseHeader) {
        let message = WatchRangeResponse { header: Some(header), events: Vec::new() };
        let mut out = Vec::with_capacity(body::PREFIX + message.encoded_len());
        match body::prefix(message.encoded_len() as u64) {
            Ok(prefix) => out.extend_from_slice(&prefix),
            Err(status) => return self.end = Some(status),
        }
        message.encode(&mut out).expect("a vector grows");
        self.pending.push_back(out.into());
    }

    /// Makes messages of a delivery, if it is anything for the client.
    fn deliver(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Created { .. } => {}
            Delivery::Events { matched, .. } => {
                let frames = self.frames(&matched);
                if frames.is_empty() {
                    self.end =
                        Some(Status::resource_exhausted("the events of one index are too many to be sent"));
                } else {
                    self.pending.push_back(frames);
                }
            }
            Delivery::Progress { revision, .. } => self.tell(self.rfc.header(revision)),
            // Nobody else ends one.
            Delivery::Canceled { id, revision } => {
                if let Some(watch) = self.watches.remove(&id)
                    && watch.tells_progress
                    && !watch.is_empty
                {
                    self.tell(self.rfc.header(revision));
                }
            }
            Delivery::Compacted { id, compacted } => {
                self.watches.remove(&id);
                self.tell(self.rfc.header_of_error(Error::Compacted.message(), compacted));
            }
            Delivery::Stopped => self.end = Some(etcd::Error::Stopped.into()),
        }
    }

    /// The messages of events, which other streams may have made already.
    fn frames(&self, matched: &Matched) -> Bytes {
        let engine = &self.rfc.engine;
        let make = || {
            let head =
                |index| WatchRangeResponse { header: Some(self.rfc.header(index)), events: Vec::new() };
            let load = |image: &Bytes| engine.with_inline_value(image);
            wire::watch_frames(&matched.events, head, load)
        };
        matched.frames(PROTOCOL.name, make).cloned().unwrap_or_else(make)
    }

    /// The next messages; an error ends the stream, one with the code OK in good order.
    fn poll_messages(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        loop {
            self.is_drained = false;
            if let Some(message) = self.pending.pop_front() {
                return Poll::Ready(Ok(message));
            }
            if let Some(status) = &self.end {
                return Poll::Ready(Err(status.clone()));
            }
            if let Poll::Ready(taken) = self.hub_stream.poll_next(context) {
                if taken.has_room_again {
                    self.rfc.engine.hub().has_room();
                }
                self.deliver(taken.delivery);
                if let Some(message) = self.pending.pop_front() {
                    self.is_drained = taken.is_last && self.pending.is_empty();
                    return Poll::Ready(Ok(message));
                }
                continue;
            }
            // A stream with watches hears of the stop from the hub, which is cheaper.
            if self.watches.is_empty() {
                if self.requests_ended {
                    self.end = Some(Status::new(Code::Ok, ""));
                    continue;
                }
                if self.stopped.as_mut().poll(context).is_ready() {
                    self.end = Some(etcd::Error::Stopped.into());
                    continue;
                }
            }
            if self.wants_progress && self.progress.as_mut().poll(context).is_ready() {
                self.progress.as_mut().reset(tokio::time::Instant::now() + self.progress_interval);
                let keys = self.watches.values().map(|watch| watch.key);
                self.rfc.engine.hub().progress_tick(&self.hub_stream, keys);
                continue;
            }
            if self.requests_ended {
                return Poll::Pending; // the client has half-closed, and goes on listening
            }
            ready!(self.hub_stream.poll_control(context));
            match ready!(Pin::new(&mut self.requests).poll_next(context)) {
                Some(Ok(request)) => self.take(request),
                Some(Err(status)) => self.end = Some(status),
                None => self.requests_ended = true,
            }
        }
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        let keys = self.watches.values().map(|watch| watch.key);
        self.rfc.engine.hub().close(&self.hub_stream, keys);
    }
}
