//! The body of a streaming request (H-10): JSON objects, one after the other, each passed on as a gRPC message as soon
//! as it is complete. Whatever is no such object ends the stream of requests, not the answers, as in etcd.

use super::json::{self, Split, Splitter};
use axum::body::Body as Incoming;
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use prost_reflect::MessageDescriptor;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::Notify;
use tonic::Status;

/// See the module.
pub struct Objects {
    body: Incoming,
    /// What came and is not passed on yet; at most `bytes_max` and one frame of the body.
    buffer: BytesMut,
    splitter: Splitter,
    message: MessageDescriptor,
    bytes_max: usize,
    /// Told when the client has gone away amid the body.
    gone: Arc<Notify>,
    is_done: bool,
}

impl Objects {
    /// The objects of `body`, each of at most `bytes_max` bytes. Tells `gone` when it breaks off.
    pub fn new(body: Incoming, message: MessageDescriptor, bytes_max: usize, gone: Arc<Notify>) -> Objects {
        let (buffer, splitter) = (BytesMut::new(), Splitter::default());
        Objects { body, buffer, splitter, message, bytes_max, gone, is_done: false }
    }

    /// The next message, if it is complete.
    fn take(&mut self) -> Option<Bytes> {
        match self.splitter.next(&self.buffer) {
            Split::Object(end) => {
                let object = self.buffer.split_to(end);
                let frame = json::to_frame(&self.message, &object);
                self.is_done = frame.is_err();
                frame.ok()
            }
            Split::Incomplete => {
                if self.splitter.is_between() {
                    (self.buffer, self.splitter) = (BytesMut::new(), Splitter::default());
                }
                self.is_done = self.buffer.len() > self.bytes_max;
                None
            }
            Split::Foreign => {
                self.is_done = true;
                None
            }
        }
    }
}

impl Body for Objects {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        while !self.is_done {
            if let Some(message) = self.take() {
                return Poll::Ready(Some(Ok(Frame::data(message))));
            }
            if self.is_done {
                break;
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(_)) => {
                    self.is_done = true;
                    self.gone.notify_one();
                }
                None => self.is_done = true,
            }
        }
        Poll::Ready(None)
    }
}
