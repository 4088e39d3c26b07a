//! A request body that refuses gRPC messages above a limit with the error that etcd's clients know (contract G-5),
//! as soon as the length is known and before the message is read.

use super::framing::Framing;
use crate::metrics::grpc::Method;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::Status;

/// See the module. Counts the messages, too, if the method is known.
pub struct Limited<B> {
    body: B,
    limit: usize,
    framing: Framing,
    method: Option<&'static Method>,
}

impl<B> Limited<B> {
    /// Limits the messages in `body` to `limit` bytes each.
    pub fn new(body: B, limit: usize, method: Option<&'static Method>) -> Limited<B> {
        Limited { body, limit, framing: Framing::default(), method }
    }

    /// Follows the framing through `data`.
    fn check(&mut self, data: &[u8]) -> Result<(), Status> {
        let (limit, method) = (self.limit, self.method);
        self.framing.follow(data, |len| {
            if len > limit {
                return Err(Status::resource_exhausted(format!(
                    "grpc: received message larger than max ({len} vs. {limit})"
                )));
            }
            if let Some(method) = method {
                method.received(len);
            }
            Ok(())
        })
    }
}

impl<B> Body for Limited<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let checked = frame.data_ref().map_or(Ok(()), |data| self.check(data));
                Poll::Ready(Some(checked.map(|()| frame)))
            }
            // The client is gone or broke the protocol: nobody reads this status.
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(Status::cancelled(error.to_string())))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn g5_the_limit_holds_for_each_message_however_the_bytes_arrive() {
        let message = |len: usize| [&[0][..], &(len as u32).to_be_bytes(), &vec![7; len]].concat();
        let stream = [message(10), message(0), message(10)].concat();
        for step in 1..stream.len() {
            let mut limited = Limited::new((), 10, None);
            assert!(stream.chunks(step).all(|chunk| limited.check(chunk).is_ok()));
        }
        let mut limited = Limited::new((), 9, None);
        let error = limited.check(&stream).unwrap_err();
        assert_eq!(error.message(), "grpc: received message larger than max (10 vs. 9)");
        assert_eq!(error.code(), tonic::Code::ResourceExhausted);
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_judged_alike_however_they_are_cut(bytes: Vec<u8>, step in 1usize..20, limit in 0usize..2000) {
            let whole = Limited::new((), limit, None).check(&bytes).is_ok();
            let mut limited = Limited::new((), limit, None);
            prop_assert_eq!(bytes.chunks(step).all(|chunk| limited.check(chunk).is_ok()), whole);
        }
    }
}
