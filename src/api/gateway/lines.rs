//! The messages of a call's answer, and streams of them as lines of JSON (H-9): `{"result":...}` for each message as
//! it comes, `{"error":...}` at the end of a stream that failed. Called by the other files of the gateway.

use super::{http_status, json, offload, respond, success};
use crate::api::grpc::body::PREFIX;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream;
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use prost_reflect::MessageDescriptor;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};

/// How long a client waits.
pub struct Client {
    /// Until when, if it said so.
    pub deadline: Option<Instant>,
    /// Told when it has gone away.
    pub gone: Arc<Notify>,
}

impl Client {
    /// Waits for a part of a call with the client.
    pub async fn waits_for<T>(&self, part: impl Future<Output = T>) -> Result<T, Status> {
        let late = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            part = part => Ok(part),
            () = late => Err(Status::deadline_exceeded("context deadline exceeded")),
            () = self.gone.notified() => Err(Status::cancelled("context canceled")),
        }
    }
}

/// The messages of an answer, one after the other.
pub struct Messages {
    body: Body,
    buffer: BytesMut,
    /// How the call ended, once that is known.
    end: Option<Result<(), Status>>,
    client: Client,
}

impl Messages {
    /// The messages of `response`, as long as `client` waits for them.
    pub fn new(response: Response<Body>, client: Client) -> Messages {
        let (parts, body) = response.into_parts();
        let end = Status::from_header_map(&parts.headers).map(outcome);
        Messages { body, buffer: BytesMut::new(), end, client }
    }

    /// The next message; `None` at the end of a call that succeeded.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.take() {
                return Ok(Some(message));
            }
            if let Some(end) = &self.end {
                return end.clone().map(|()| None);
            }
            match self.client.waits_for(self.body.frame()).await? {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => {
                        let status = frame.trailers_ref().and_then(Status::from_header_map);
                        self.end = status.map(outcome);
                    }
                },
                Some(Err(status)) => self.end = Some(Err(status)),
                None => self.end = Some(Err(Status::internal("the call ended without a status"))),
            }
        }
    }

    /// Takes a whole message off the buffer. In the process, nothing is compressed.
    fn take(&mut self) -> Option<Bytes> {
        let length = self.buffer.get(1..PREFIX)?.try_into().ok().map(u32::from_be_bytes)? as usize;
        if self.buffer.len() < PREFIX + length {
            return None;
        }
        self.buffer.advance(PREFIX);
        Some(self.buffer.split_to(length).freeze())
    }
}

fn outcome(status: Status) -> Result<(), Status> {
    if status.code() == Code::Ok { Ok(()) } else { Err(status) }
}

/// Answers with a line for each message. Waits for the first one, since it decides about the status.
pub async fn answer(mut messages: Messages, output: MessageDescriptor) -> Response<Body> {
    let first = match messages.next().await {
        Ok(Some(message)) => line(&output, message).await,
        Ok(None) => {
            let mut response = success(Body::empty());
            response.headers_mut().clear();
            return response;
        }
        Err(status) => Err(status),
    };
    let first = match first {
        Ok(line) => line,
        Err(status) => return respond(http_status(status.code()), Body::new(Full::new(error_line(&status)))),
    };
    let rest = stream::unfold(Some(messages), move |messages| {
        let output = output.clone();
        async move { next_line(messages?, output).await }
    });
    let lines = stream::StreamExt::chain(stream::once(async move { first }), rest);
    let frames = stream::StreamExt::map(lines, |line| Ok::<_, Status>(Frame::data(line)));
    let mut response = success(Body::new(StreamBody::new(frames)));
    *response.status_mut() = StatusCode::OK;
    response
}

/// The next line, and the messages unless it is the last.
async fn next_line(mut messages: Messages, output: MessageDescriptor) -> Option<(Bytes, Option<Messages>)> {
    let result = match messages.next().await {
        Ok(message) => line(&output, message?).await,
        Err(status) => Err(status),
    };
    Some(match result {
        Ok(line) => (line, Some(messages)),
        Err(status) => (error_line(&status), None),
    })
}

async fn line(output: &MessageDescriptor, message: Bytes) -> Result<Bytes, Status> {
    let output = output.clone();
    offload(message.len(), move || {
        let mut line = Vec::with_capacity(2 * message.len() + 16);
        line.extend_from_slice(b"{\"result\":");
        json::write(&output, message, &mut line)?;
        line.extend_from_slice(b"}\n");
        Ok(line.into())
    })
    .await
}

fn error_line(status: &Status) -> Bytes {
    [b"{\"error\":", &json::error(status)[..], b"}\n"].concat().into()
}
