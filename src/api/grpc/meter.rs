//! What is counted of each call on its way through [`super::Front`]: the answer's messages, how it ended, and when.
//!
//! A call ends once: with the status in its header or trailers, or, when nobody wants the answer any more, as cancelled
//! or past its deadline.

use super::Reply;
use super::framing::Framing;
use crate::engine::timing::{self, Story};
use crate::metrics::clients;
use crate::metrics::grpc::Method;
use crate::telemetry::Span;
use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};
use tonic::body::Body;
use tonic::{Code, Status};

/// A call of a known method, from its head on; counted as ended when it is dropped.
pub struct Call {
    method: &'static Method,
    started: Instant,
    timeout: Option<Duration>,
    code: Option<Code>,
    sent_bytes: usize,
    /// Answering for longer is logged.
    slow: Duration,
    story: Option<Story>,
    span: Option<Span>,
}

impl Call {
    /// Begins a call with these metadata.
    pub fn begin(method: &'static Method, headers: &HeaderMap, slow: Duration) -> Call {
        method.started();
        // One that is not readable is refused later.
        match headers.get("client-api-version").map(|value| std::str::from_utf8(value.as_bytes())) {
            None => clients::count(method.is_unary(), None),
            Some(Ok(version)) => clients::count(method.is_unary(), Some(version)),
            Some(Err(_)) => {}
        }
        let timeout = headers.get("grpc-timeout").and_then(|value| timeout(value.as_bytes()));
        let span = Span::begin(method.name(), headers);
        Call { method, started: Instant::now(), timeout, code: None, sent_bytes: 0, slow, story: None, span }
    }

    /// The line about a call that took long (G-10).
    fn warn(&self, elapsed: Duration, code: Code) {
        let (content, phases) = self.story.as_ref().map(Story::tell).unwrap_or_default();
        let begin = SystemTime::now() - elapsed;
        tracing::warn!(
            "start time" = %humantime::format_rfc3339_micros(begin),
            "time spent" = ?elapsed,
            "response type" = format!("/{}", self.method.name()),
            "response size" = self.sent_bytes,
            "request content" = content,
            code = canonical(code),
            phases,
            "request stats"
        );
    }

    /// How a call ended of which the status never went out.
    fn code_without_status(&self, elapsed: Duration) -> Code {
        match self.timeout {
            Some(timeout) if elapsed >= timeout => Code::DeadlineExceeded,
            _ => Code::Cancelled,
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        let code = self.code.unwrap_or_else(|| self.code_without_status(elapsed));
        self.method.handled(code as usize, elapsed.as_secs_f64());
        if let Some(span) = self.span.take() {
            span.end(canonical(code), is_fault(code));
        }
        if elapsed > self.slow && self.method.is_unary() {
            self.warn(elapsed, code);
        }
    }
}

/// The name of a status code in traces.
fn canonical(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Whether a call that ended so failed by the server, and not by what the client asked.
fn is_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// The time of a `grpc-timeout` header: up to eight digits and a unit.
fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.len() > 8 {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// An answer on its way that is counted.
pub struct Metered {
    reply: Reply,
    call: Option<Call>,
}

impl Metered {
    /// The answer to `call`.
    pub fn new(reply: Reply, call: Call) -> Metered {
        Metered { reply, call: Some(call) }
    }
}

impl Future for Metered {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (polled, story) = timing::listen(|| self.reply.as_mut().poll(context));
        if let (Some(call), Some(story)) = (&mut self.call, story) {
            call.story = Some(story);
        }
        let response = ready!(polled)?;
        let call = self.call.take();
        Poll::Ready(Ok(match call {
            Some(mut call) => {
                call.code = Status::from_header_map(response.headers()).map(|status| status.code());
                response.map(|body| Body::new(Counted { body, framing: Framing::default(), call }))
            }
            None => response,
        }))
    }
}

/// The body of an answer that is counted.
struct Counted {
    body: Body,
    framing: Framing,
    call: Call,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let call = &mut this.call;
                    let count = |len| {
                        call.method.sent(len);
                        call.sent_bytes += len;
                        Ok::<(), Infallible>(())
                    };
                    let Ok(()) = this.framing.follow(data, count);
                } else if let Some(status) = frame.trailers_ref().and_then(code) {
                    this.call.code = Some(status);
                }
            }
            Some(Err(status)) => this.call.code = Some(status.code()),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The status code in trailers.
fn code(trailers: &HeaderMap) -> Option<Code> {
    trailers.get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_timeout_is_read() {
        assert_eq!(timeout(b"5S"), Some(Duration::from_secs(5)));
        assert_eq!(timeout(b"4999997u"), Some(Duration::from_micros(4_999_997)));
        assert_eq!(timeout(b"99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for wrong in ["", "S", "5", "5s", "-1S", "123456789S"] {
            assert_eq!(timeout(wrong.as_bytes()), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_do_not_panic(bytes: Vec<u8>) {
            let _ = timeout(&bytes);
        }
    }
}
