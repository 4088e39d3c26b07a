//! The body of a unary request: framing, the limit on messages, decoding. The bytes arrive in the pieces that the
//! input asks for; how they are cut must not matter.
#![no_main]

use std::convert::Infallible;

use bytes::Bytes;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use kvist::api::grpc::body::read_unary;
use kvist::api::grpc::limit::Limited;
use kvist::pb::etcdserverpb::{RangeRequest, TxnRequest};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 1 << 10;

fuzz_target!(|input: (u8, Vec<u8>)| {
    let (step, bytes) = input;
    let whole = read::<RangeRequest>(&bytes, bytes.len());
    let cut = read::<RangeRequest>(&bytes, usize::from(step));
    assert_eq!(whole.is_ok(), cut.is_ok());
    if let Ok(request) = whole {
        assert!(bytes.len() <= LIMIT + 5 && cut.is_ok_and(|cut| cut == request));
    }
    let _ = read::<TxnRequest>(&bytes, usize::from(step));
});

fn read<M: prost::Message + Default>(bytes: &[u8], step: usize) -> Result<M, tonic::Status> {
    let pieces: Vec<_> = bytes.chunks(step.max(1)).map(Bytes::copy_from_slice).collect();
    let frames = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
    let body = Limited::new(StreamBody::new(futures_util::stream::iter(frames)), LIMIT, None);
    let request = Request::new(body.boxed_unsync());
    futures_executor::block_on(read_unary(request))
}
