//! Unary requests and responses without the generated code, for answers that are written straight from storage.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;
use prost::Message;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;

/// Bytes in front of a message: no compression, length.
pub const PREFIX: usize = 5;
/// Longest message that clients take: etcd sends up to MaxInt32.
const MESSAGE_MAX: u64 = i32::MAX as u64;

/// Reads the one message of a unary request.
pub async fn read_unary<M, B>(request: Request<B>) -> Result<M, Status>
where
    M: Message + Default,
    B: HttpBody<Data = Bytes, Error = Status>,
{
    let body = collect(request.into_body()).await?;
    if body.len() < PREFIX {
        return Err(Status::internal(
            "cardinality violation: received no request message from non-client-streaming RPC",
        ));
    }
    if body[0] != 0 {
        return Err(Status::unimplemented(
            "grpc: Decompressor is not installed for the request's grpc-encoding",
        ));
    }
    let length = length_of(&body[1..PREFIX]);
    if body.len() != PREFIX + length {
        return Err(Status::internal("cardinality violation: expected <EOF> for non-client-streaming RPCs"));
    }
    M::decode(&body[PREFIX..])
        .map_err(|error| Status::internal(format!("grpc: error unmarshalling request: {error}")))
}

/// The body, up to the first bytes behind its message: somebody may send without end. The length of a message is limited by
/// whoever passes the body on.
async fn collect<B>(body: B) -> Result<BytesMut, Status>
where
    B: HttpBody<Data = Bytes, Error = Status>,
{
    let mut body = std::pin::pin!(body);
    let mut whole = BytesMut::new();
    while let Some(frame) = body.as_mut().frame().await {
        if let Ok(data) = frame?.into_data() {
            whole.extend_from_slice(&data);
        }
        if whole.get(1..PREFIX).is_some_and(|length| whole.len() > PREFIX + length_of(length)) {
            break;
        }
    }
    Ok(whole)
}

/// The length in a prefix.
fn length_of(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
}

/// The prefix of a message of `len` bytes.
pub fn prefix(len: u64) -> Result<[u8; PREFIX], Status> {
    if len > MESSAGE_MAX {
        return Err(Status::resource_exhausted(format!(
            "trying to send message larger than max ({len} vs. {MESSAGE_MAX})"
        )));
    }
    let [a, b, c, d] = (len as u32).to_be_bytes();
    Ok([0, a, b, c, d])
}

/// Where the bytes of a message come from, piece by piece, as the client takes them.
pub trait Pieces: Send + Unpin + 'static {
    /// The next bytes; `None` at the end. An error ends the stream, which the client sees as a broken message.
    fn next(&mut self) -> Option<Result<Bytes, Status>>;
}

/// A response whose one message comes in pieces.
pub fn response(pieces: impl Pieces) -> Response<Body> {
    streamed(PieceBody { pieces: Some(pieces) })
}

/// A response with a body of messages and trailers.
pub fn streamed(body: impl HttpBody<Data = Bytes, Error = Status> + Send + 'static) -> Response<Body> {
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

struct PieceBody<P> {
    pieces: Option<P>,
}

impl<P: Pieces> HttpBody for PieceBody<P> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(pieces) = &mut self.pieces else { return Poll::Ready(None) };
        match pieces.next() {
            Some(Ok(bytes)) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Some(Err(status)) => {
                self.pieces = None;
                Poll::Ready(Some(Ok(Frame::trailers(trailers(&status)))))
            }
            None => {
                self.pieces = None;
                let mut ok = HeaderMap::with_capacity(1);
                ok.insert("grpc-status", HeaderValue::from_static("0"));
                Poll::Ready(Some(Ok(Frame::trailers(ok))))
            }
        }
    }
}

/// The trailers that end a stream with `status`.
pub fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        trailers.insert("grpc-status", HeaderValue::from(tonic::Code::Internal as i32));
    }
    trailers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::etcdserverpb::RangeRequest;
    use proptest::prelude::*;

    async fn read(body: Vec<u8>) -> Result<RangeRequest, Status> {
        let body = http_body_util::Full::new(Bytes::from(body)).map_err(|never| match never {});
        read_unary(Request::new(body)).await
    }

    /// A runtime is not needed: the whole body is there.
    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        match future.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("a body that is there is read at once"),
        }
    }

    /// Sends the same piece for ever.
    struct Endless(Bytes);

    impl HttpBody for Endless {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(Some(Ok(Frame::data(self.0.clone()))))
        }
    }

    #[test]
    fn a_body_without_end_is_refused_behind_its_first_message() {
        for message in [vec![0; PREFIX], [&prefix(3).unwrap()[..], b"abc"].concat()] {
            let refused = block_on(read_unary::<RangeRequest, _>(Request::new(Endless(message.into()))));
            assert!(refused.unwrap_err().message().contains("cardinality violation: expected <EOF>"));
        }
    }

    proptest! {
        #[test]
        fn a_framed_message_is_read(key: Vec<u8>, limit: i64) {
            let request = RangeRequest { key, limit, ..RangeRequest::default() };
            let message = request.encode_to_vec();
            let framed = [&prefix(message.len() as u64).unwrap()[..], &message].concat();
            prop_assert_eq!(block_on(read(framed)).unwrap(), request);
        }

        #[test]
        fn foreign_bytes_do_not_panic(flag in 0u8..2, length in 0u32..40, bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = block_on(read(bytes.clone()));
            let _ = block_on(read([&[flag][..], &length.to_be_bytes(), &bytes].concat()));
        }
    }
}
