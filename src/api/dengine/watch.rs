//! Watches: events of one key or of all keys below a path, from the moment on in which the call is answered.
//!
//! The hub knows the watcher before the headers of the answer go out, so a write that follows them is never missed. A
//! client that reads slowly costs memory up to a bound, and then is served from history; so `CANCELED`, by which the
//! d-engine tells that it dropped events, is left for a watch whose history was compacted before it got there.

use super::{DEngine, convert, error};
use crate::api::caller::Credentials;
use crate::engine::watch::{Delivery, Matched, Spec, Stream as HubStream, WatcherKey};
use crate::engine::{Engine, Event, Image, Value};
use crate::pb::d_engine::client::{WatchEventType, WatchRequest, WatchResponse};
use crate::pb::d_engine::error::ErrorCode;
use bytes::Bytes;
use futures_util::Stream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};
use tonic::Status;

/// Of a stream, the id of its only watcher.
const ID: i64 = 0;

impl DEngine {
    /// Registers a watcher, and gives the stream of its events.
    pub fn begin_watch(&self, credentials: &Credentials, request: WatchRequest) -> Result<Events, Status> {
        let WatchRequest { key, prefix, prev_kv, .. } = request;
        // The range is kept for long, and the key is part of the buffer that the request came in.
        let range = convert::watched(Bytes::copy_from_slice(&key), prefix)?;
        let caller = self.caller(credentials)?;
        self.engine.permit_range(caller.as_ref(), &range).map_err(error::status)?;
        let hub = self.engine.hub();
        let hub_stream = hub.stream();
        let spec = Spec { range, no_put: false, no_delete: false, prev_kv };
        let watcher = hub.watch(&hub_stream, ID, spec, 0, false);
        // A tenth of jitter, fixed for the stream, so that not all streams tick together.
        let progress_interval = self.progress_interval.mul_f64(rand::random_range(0.9..1.1));
        Ok(Events {
            engine: self.engine.clone(),
            hub_stream,
            watcher,
            prev_kv,
            current: None,
            end: None,
            progress: Box::pin(tokio::time::sleep(progress_interval)),
            progress_interval,
        })
    }
}

/// The messages of one watch.
pub struct Events {
    engine: Engine,
    hub_stream: Arc<HubStream>,
    watcher: WatcherKey,
    prev_kv: bool,
    /// What is being told: events, and how many of them have been.
    current: Option<(Arc<Matched>, usize)>,
    /// Nothing more comes but this.
    end: Option<Status>,
    progress: Pin<Box<Sleep>>,
    progress_interval: Duration,
}

impl Events {
    /// The next of the events at hand.
    fn next_event(&mut self) -> Option<WatchResponse> {
        let (matched, told) = self.current.as_mut()?;
        let Some(event) = matched.events.get(*told) else {
            self.current = None;
            return None;
        };
        *told += 1;
        let message = message(event, self.prev_kv, |image| self.engine.with_inline_value(image));
        Some(message.unwrap_or_else(|| self.cancel(self.engine.compacted())))
    }

    /// What a delivery of the hub comes to, if that is a message.
    fn take(&mut self, delivery: Delivery) -> Option<WatchResponse> {
        match delivery {
            Delivery::Events { matched, .. } => self.current = Some((matched, 0)),
            Delivery::Progress { revision, .. } => return Some(progress(revision)),
            Delivery::Compacted { compacted, .. } => return Some(self.cancel(compacted)),
            Delivery::Stopped => self.end = Some(error::stopped()),
            // Nobody is told that the watcher exists but by the headers, and none is ended by request.
            Delivery::Created { .. } | Delivery::Canceled { .. } => {}
        }
        None
    }

    /// The last message: what was to come next is no more, up to and without `revision`.
    fn cancel(&mut self, revision: i64) -> WatchResponse {
        self.current = None;
        self.end = Some(error::lost());
        WatchResponse {
            event_type: WatchEventType::Canceled as i32,
            error: ErrorCode::WatchBufferOverflow as i32,
            revision: revision.unsigned_abs(),
            ..WatchResponse::default()
        }
    }
}

impl Stream for Events {
    type Item = Result<WatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(message) = this.next_event() {
                return Poll::Ready(Some(Ok(message)));
            }
            if let Some(status) = this.end.take() {
                return Poll::Ready(Some(Err(status))); // the last that anybody asks for
            }
            if let Poll::Ready(taken) = this.hub_stream.poll_next(context) {
                if taken.has_room_again {
                    this.engine.hub().has_room();
                }
                if let Some(message) = this.take(taken.delivery) {
                    return Poll::Ready(Some(Ok(message)));
                }
                continue;
            }
            ready!(this.progress.as_mut().poll(context));
            this.progress.as_mut().reset(Instant::now() + this.progress_interval);
            this.engine.hub().progress(&this.hub_stream, std::iter::once(this.watcher));
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.engine.hub().close(&self.hub_stream, std::iter::once(self.watcher));
    }
}

fn progress(revision: i64) -> WatchResponse {
    WatchResponse {
        event_type: WatchEventType::Progress as i32,
        revision: revision.unsigned_abs(),
        ..WatchResponse::default()
    }
}

/// The message of an event; `load` brings in moved-out values. `None`: its value has been compacted meanwhile.
fn message(event: &Event, prev_kv: bool, load: impl Fn(&Bytes) -> Option<Bytes>) -> Option<WatchResponse> {
    let image = Image::parse(&event.new).ok()?;
    let (event_type, value) = match image.is_tombstone() {
        true => (WatchEventType::Delete, Bytes::new()),
        false => (WatchEventType::Put, inline_value(&load(&event.new)?)?),
    };
    let previous = if prev_kv { previous_value(event, load) } else { None };
    Some(WatchResponse {
        key: event.key.clone(),
        value,
        event_type: event_type as i32,
        error: 0,
        revision: image.modified.main.unsigned_abs(),
        prev_value: previous.unwrap_or_default(),
    })
}

/// The value before an event, if there was one, and it is there to be told.
fn previous_value(event: &Event, load: impl Fn(&Bytes) -> Option<Bytes>) -> Option<Bytes> {
    let image = Image::parse(&event.previous).ok()?;
    if image.is_tombstone() { None } else { inline_value(&load(&event.previous)?) }
}

/// The value in an image that has it; not copied.
fn inline_value(image: &Bytes) -> Option<Bytes> {
    match Image::parse(image).ok()?.value {
        Value::Inline(value) => Some(image.slice_ref(value)),
        Value::Blob(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Meta, live_image, tombstone_image};
    use crate::types::Revision;

    fn live(main: i64, value: &[u8]) -> Bytes {
        live_image(&Meta { modified: Revision::new(main, 0), version: 1, ..Meta::default() }, value)
    }

    fn told(new: Bytes, previous: Bytes, prev_kv: bool) -> WatchResponse {
        let event = Event { key: "k".into(), new, previous };
        message(&event, prev_kv, |image| Some(image.clone())).unwrap()
    }

    #[test]
    fn puts_have_a_value_and_deletes_have_none() {
        let put = told(live(7, b"v"), Bytes::new(), false);
        assert_eq!((put.event_type(), &put.value[..], put.revision), (WatchEventType::Put, &b"v"[..], 7));
        let delete = told(tombstone_image(Revision::new(8, 0), true), live(7, b"v"), false);
        assert_eq!(
            (delete.event_type(), delete.value.len(), delete.revision),
            (WatchEventType::Delete, 0, 8)
        );
        assert!(delete.prev_value.is_empty());
    }

    #[test]
    fn the_value_before_is_told_to_those_who_ask() {
        let tombstone = tombstone_image(Revision::new(8, 0), false);
        assert_eq!(told(live(9, b"w"), live(7, b"v"), true).prev_value, "v");
        assert_eq!(told(tombstone.clone(), live(7, b"v"), true).prev_value, "v");
        assert!(told(live(9, b"w"), tombstone, true).prev_value.is_empty());
        assert!(told(live(9, b"w"), Bytes::new(), true).prev_value.is_empty());
        assert!(told(live(9, b"w"), live(7, b"v"), false).prev_value.is_empty());
    }

    #[test]
    fn an_event_without_its_value_is_none() {
        let event = Event { key: "k".into(), new: live(9, b"w"), previous: Bytes::new() };
        assert!(message(&event, true, |_| None).is_none());
    }
}
